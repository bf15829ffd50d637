"""Photos of which 2D landmarks alone are known, built beside the sets with fits: the same folder
layout (`prnet.datasets.built`), with points in the records where those have coefficients."""

import functools
import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from prnet.datasets.built import FORMAT, read_built_info
from prnet.datasets.landmark_files import LandmarkItem, find_landmarks
from prnet.datasets.landmark_set import KIND, RECORD
from prnet.datasets.pictures import CropRule, crop_square, decode_picture
from prnet.files import write_json, written_whole
from prnet.geometry import camera
from prnet.workers import in_processes

log = logging.getLogger(__name__)

PART_SIZE = 128
POOL_FROM = 2048
# Fewer points that are seen place no crop.
LEAST_SEEN = 3


class Part(NamedTuple):
    number: int
    items: list[LandmarkItem]


class PackedPart(NamedTuple):
    records: np.ndarray  # (n,), `RECORD`
    names: list[str]
    unreadable: dict[str, str]


def build_landmarks(
    landmarks: Path | str,
    output: Path | str,
    *,
    pictures: Path | str | None = None,
    landmarks_origin: str = "zero_based",
    crop: CropRule,
    pixel_origin: str = "zero_based",
    workers: int = 0,
) -> dict:
    """Build the set `output` from photos and their landmarks; returns the content of build.json.

    `landmarks`, `pictures` and `landmarks_origin` as `find_landmarks` takes them; AFLW's 21 points
    are read too. `pixel_origin` is that of the set, which goes with others of the same. A finished
    set of the same photos and points is left alone.

    Raises:
        FileNotFoundError: no landmarks.
        ValueError: no photo can be used, or `output` holds something else.
    """
    output = Path(output)
    items, failed = find_landmarks(
        landmarks, pictures=pictures, pixel_origin=landmarks_origin, aflw_points=True
    )
    points = b"".join(item.landmarks[:, :2].tobytes() for item in items)
    names = "\n".join(item.name for item in items)
    plan = {
        "crop": crop._asdict(),
        "pixel_origin": pixel_origin,
        "sha256": hashlib.sha256(names.encode() + points).hexdigest(),
    }
    if (output / "build.json").is_file():
        info = read_built_info(output)
        if info.build.get("plan") == plan:
            log.info("%s: already built, nothing to do", output)
            return info.build
    # What a killed build of this kind leaves is written anew.
    unfinished = {"pictures", "records.npy", "format.json"}
    if output.is_dir() and {path.name for path in output.iterdir()} - unfinished:
        raise ValueError(
            f"{output}: holds other files, or a set of other photos, points or options; choose "
            "another output= or delete it"
        )

    parts = [
        Part(number, items[start : start + PART_SIZE])
        for number, start in enumerate(range(0, len(items), PART_SIZE))
    ]
    packed: dict[int, PackedPart] = {}
    work = functools.partial(_pack, output=output, crop=crop, pixel_origin=pixel_origin)
    with tqdm(total=len(items), desc="build landmarks_only", unit="photo") as bar:
        for part, result in in_processes(
            work, parts, _no_tools, workers=0 if len(items) < POOL_FROM else workers
        ):
            packed[part.number] = result
            bar.update(len(part.items))
    in_order = [packed[number] for number in range(len(parts))]
    samples = [name for one in in_order for name in one.names]
    unreadable = {**failed}
    for one in in_order:
        unreadable |= one.unreadable
    if not samples:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(unreadable.items())[:3])
        raise ValueError(f"{landmarks}: not one photo can be used ({reasons})")
    with written_whole(output / "records.npy") as temporary:
        np.save(temporary, np.concatenate([one.records for one in in_order]))
    write_json(
        output / "format.json",
        {
            "format": FORMAT,
            "kind": KIND,
            "crop": crop._asdict(),
            "pixel_origin": pixel_origin,
            "maps": None,
        },
    )
    build = {
        "dataset": "landmarks_only",
        "count": len(samples),
        "samples": samples,
        "plan": plan,
        "audit": {"unreadable": unreadable},
    }
    write_json(output / "build.json", build)
    log.info("%s: %d photos; %d cannot be used", output, len(samples), len(unreadable))
    for name, reason in list(unreadable.items())[:10]:
        log.warning("unreadable: %s: %s", name, reason)
    return build


def _no_tools() -> None:
    """The workers need nothing."""


def _pack(
    part: Part, _tools: None, *, output: Path, crop: CropRule, pixel_origin: str
) -> PackedPart:
    """Read and pack one part's pictures, DIR/pictures/NUMBER.bin."""
    records = np.zeros(len(part.items), RECORD)
    shift = camera.pixel_origin_shift("zero_based", pixel_origin)
    pictures: list[bytes] = []
    names: list[str] = []
    unreadable: dict[str, str] = {}
    for item in part.items:
        try:
            data = item.picture.read_bytes()
            size = decode_picture(data, source=item.picture.name).shape[:2]
            points = item.landmarks[:, :2] + shift
            seen = points[~np.isnan(points).any(1)]
            if len(seen) < LEAST_SEEN:
                raise ValueError(f"{len(seen)} points are seen, expected {LEAST_SEEN} at least")
            center, side = crop_square(seen, crop, seed_name=item.name)
        except (OSError, ValueError) as error:
            unreadable[item.name] = str(error)
            continue
        record = records[len(names)]
        record["image_size"], record["crop_center"], record["crop_size"] = size, center, side
        record["landmarks"] = points
        record["picture_bytes"] = len(data)
        pictures.append(data)
        names.append(item.name)
    records = records[: len(names)]
    sizes = records["picture_bytes"].astype(np.int64)
    records["shard"] = part.number
    records["picture_offset"] = np.cumsum(sizes) - sizes
    with written_whole(output / "pictures" / f"{part.number}.bin") as temporary:
        temporary.write_bytes(b"".join(pictures))
    return PackedPart(records, names, unreadable)
