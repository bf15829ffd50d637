"""Photos of which 2D landmarks alone are known, built beside the sets with fits: the same folder
layout (`prnet.datasets.built`), with points in the records where those have coefficients."""

import functools
import hashlib
from pathlib import Path

import numpy as np

from prnet.building.packing import PackedShard, Shard, build_packed
from prnet.datasets.hidden_landmarks import require_in_picture
from prnet.datasets.landmark_files import find_landmarks, log_marks
from prnet.datasets.landmark_set import KIND, RECORD
from prnet.datasets.pictures import CropRule, crop_square, read_upright
from prnet.files import of_one_file
from prnet.geometry import camera

# Fewer points that are seen place no crop.
LEAST_SEEN = 3
SECONDS = 0.002  # of work in a photo, about


def build_landmarks(
    landmarks: Path | str,
    output: Path | str,
    *,
    pictures: Path | str | None = None,
    landmarks_origin: str = "zero_based",
    hidden: str = "auto",
    crop: CropRule,
    pixel_origin: str = "zero_based",
    workers: int = 0,
) -> dict:
    """Build, or finish building, the set `output` from photos and their landmarks; returns the
    content of build.json.

    `landmarks`, `pictures`, `landmarks_origin` and `hidden` as `find_landmarks` takes them; AFLW's
    21 points are read too. `pixel_origin` is that of the set, which goes with others of the same.

    Raises:
        FileNotFoundError: no landmarks.
        ValueError: no photo can be used, or `output` holds something else.
    """
    output = Path(output)
    items, failed = find_landmarks(
        landmarks, pictures=pictures, pixel_origin=landmarks_origin, aflw_points=True, hidden=hidden
    )
    log_marks(items)
    points = b"".join(item.landmarks[:, :2].tobytes() for item in items)
    names = "\n".join(item.name for item in items)
    dataset, rule = "landmarks_only", {"crop": crop.to_values(), "pixel_origin": pixel_origin}
    sha256 = hashlib.sha256(names.encode() + points).hexdigest()
    return build_packed(
        output,
        items,
        functools.partial(_pack, crop=crop, pixel_origin=pixel_origin),
        dict,  # the processes need nothing
        dataset=dataset,
        layout={"kind": KIND, **rule, "maps": None},
        plan={"dataset": dataset, **rule, "sha256": sha256},
        unreadable=failed,
        unit="photo",
        seconds=SECONDS,
        workers=workers,
    )


def _pack(shard: Shard, _tools: dict, *, crop: CropRule, pixel_origin: str) -> PackedShard:
    """Read the photos of a shard and place their crops."""
    records = np.zeros(len(shard.sources), RECORD)
    shift = camera.pixel_origin_shift("zero_based", pixel_origin)
    pictures: list[bytes] = []
    names: list[str] = []
    unreadable: dict[str, str] = {}
    for item in shard.sources:
        try:
            data, picture = read_upright(item.picture)
            require_in_picture(item.landmarks, *picture.shape[:2])
            points = item.landmarks[:, :2] + shift
            seen = points[~np.isnan(points).any(1)]
            if len(seen) < LEAST_SEEN:
                raise ValueError(f"{len(seen)} points are seen, expected {LEAST_SEEN} at least")
            center, side = crop_square(seen, crop, seed_name=item.name)
        except (OSError, ValueError) as error:
            if not of_one_file(error):
                raise
            unreadable[item.name] = str(error)
            continue
        record = records[len(names)]
        record["image_size"], record["crop_center"], record["crop_size"] = (
            picture.shape[:2],
            center,
            side,
        )
        record["landmarks"] = points
        pictures.append(data)
        names.append(item.name)
    return PackedShard(names, records[: len(names)], pictures, {"unreadable": unreadable})
