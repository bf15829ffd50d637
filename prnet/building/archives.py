"""From an archive of image + fit pairs to a built set: found, read, audited, decoded, packed."""

import functools
import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prnet.building.audit import FULL_BASES, Audit
from prnet.building.map_files import MAP_DTYPES, encode_map
from prnet.building.packing import PackedShard, SetLayout, Shard, build_packed
from prnet.building.resumable import log_reasons
from prnet.checks import require_choice
from prnet.datasets.fits import (
    HINT_300W_LP,
    HINT_AFLW2000,
    FacePair,
    find_300w_lp,
    find_aflw2000,
)
from prnet.datasets.pictures import CropRule
from prnet.datasets.records import (
    LoadedPair,
    decode_pairs,
    fill_record,
    load_pair,
    record_crop_from_model,
    record_dtype,
)
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.files import written_whole
from prnet.geometry import camera
from prnet.geometry.camera import pixel_origin_shift

log = logging.getLogger(__name__)

# Each archive's folder in DATA_DIR, and what to do where it is missing.
ARCHIVES = {"300w_lp": ("300W_LP", HINT_300W_LP), "aflw2000": ("AFLW2000", HINT_AFLW2000)}
DECODE_BATCH = 64  # meshes
SECONDS = 0.0025  # of work in a sample, about


class BuildOptions(NamedTuple):
    """What decides the content of a built set, beside the pairs."""

    dataset: str  # one of `ARCHIVES`
    crop: CropRule = CropRule()
    pixel_origin: str = "zero_based"
    maps: bool = False
    map_dtype: str = "float32"  # one of `MAP_DTYPES`


def require_archives(dataset: str, face_files: FaceFiles, *, data_dir: Path | str) -> None:
    """Raise one FileNotFoundError that names everything still to be fetched."""
    folder, hint = ARCHIVES.get(dataset, ("", ""))
    lacking = []
    if folder and not (Path(data_dir) / folder).is_dir():
        lacking.append(f"{Path(data_dir) / folder} ({hint})")
    if face_files.name == "bfm" and not (Path(face_files.bfm_dir) / "BFM.mat").is_file():
        lacking.append(
            f"{face_files.bfm_dir} (BFM.mat, BFM_info.mat and BFM_UV.mat of the Basel Face Model; "
            "scripts/convert_bfm.py makes them from the raw files)"
        )
    if lacking:
        raise FileNotFoundError(
            f"missing: {' and '.join(lacking)}. data/README.md says where each comes from; "
            "data_dir=DIR looks elsewhere. Without any of it, dataset=synthetic works now"
        )


def find_archive(
    dataset: str, subsets: list[str] | None, face_files: FaceFiles, *, data_dir: Path | str
) -> list[FacePair]:
    """The pairs of an archive; a warning names the official sub-folders that are not there.

    Raises:
        ValueError, FileNotFoundError: the archive, a sub-folder or the face is not there, or the
            dataset is unknown.
    """
    require_archives(dataset, face_files, data_dir=data_dir)
    require_choice("dataset", dataset, ARCHIVES)
    if dataset == "aflw2000":
        if subsets is not None:
            raise ValueError("dataset.subsets: AFLW2000-3D has no sub-folders; leave it out")
        return find_aflw2000(data_dir)
    pairs, missing = find_300w_lp(data_dir, subsets)
    for subset in missing:
        log.warning("skipped: %s is not there", Path(data_dir) / "300W_LP" / subset)
    return pairs


def build_archive(
    subsets: list[str] | None,
    *,
    data_dir: Path | str,
    output: Path | str,
    face_files: FaceFiles,
    options: BuildOptions,
    workers: int,
) -> dict:
    """Find an archive's pairs and build, or finish building, the set `output` from them; returns
    the content of build.json.

    `workers` 0 or 1 works in this process. A finished set made from the same pairs and options is
    left alone.

    Raises:
        ValueError: an option is not one of its choices, `output` holds another set, or no pair is
            readable.
        FileNotFoundError: the archive, a sub-folder or the face is not there.
    """
    output = Path(output)
    require_choice("map_dtype", options.map_dtype, MAP_DTYPES)
    pixel_origin_shift("zero_based", options.pixel_origin)  # refuses an unknown one
    pairs = find_archive(options.dataset, subsets, face_files, data_dir=data_dir)
    # Another place of the archive is the same archive: names count, not paths.
    names = "\n".join(pair.name for pair in pairs)
    build = build_packed(
        output,
        pairs,
        SetLayout(
            dataset=options.dataset,
            format={
                "crop": options.crop._asdict(),
                "pixel_origin": options.pixel_origin,
                "maps": options.map_dtype if options.maps else None,
            },
            unit="sample",
            seconds=SECONDS,
        ),
        functools.partial(_pack, output=output, options=options),
        face_files.load,
        plan={
            "options": options._replace(crop=options.crop._asdict())._asdict(),
            "pairs": len(pairs),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        },
        workers=workers,
    )
    counts = [f"{len(found)} {key.replace('_', ' ')}" for key, found in build["audit"].items()]
    log.info("%s: %d samples; audit: %s", output, build["count"], ", ".join(counts))
    log_reasons(build["audit"]["unreadable"], what="unreadable")
    return build


def _pack(shard: Shard, face: Face, *, output: Path, options: BuildOptions) -> PackedShard:
    """Read, audit and decode the pairs of a shard."""
    loaded: list[LoadedPair] = []
    unreadable: dict[str, str] = {}
    for pair in shard.sources:
        try:
            loaded.append(load_pair(pair))
        except (OSError, ValueError) as error:
            unreadable[pair.name] = str(error)

    model = face.morphable_model
    records = np.zeros(len(loaded), record_dtype(model.num_shape, model.num_exp))
    audit = Audit(full_bases=(model.num_shape, model.num_exp) == FULL_BASES)
    kept: list[int] = []
    for start in range(0, len(loaded), DECODE_BATCH):
        batch = loaded[start : start + DECODE_BATCH]
        decoded = decode_pairs(batch, face, options.pixel_origin)
        for i, one in enumerate(batch):
            record = records[start + i]
            try:
                fill_record(record, one, decoded, i, options.crop)
            except ValueError as error:
                unreadable[one.name] = str(error)
                continue
            audit.check(one.name, one.file, decoded.landmarks[i], options.pixel_origin)
            kept.append(start + i)
            if options.maps:
                path = output / "maps" / f"{one.name}.npy"
                _write_map(path, record, decoded.vertices[i], options, face)
    return PackedShard(
        names=[loaded[i].name for i in kept],
        records=records[kept],
        pictures=[loaded[i].data for i in kept],
        audit={**audit.lists(), "unreadable": unreadable},
        face={
            "vertices": model.num_vertices,
            "shape_bases": model.num_shape,
            "exp_bases": model.num_exp,
        },
    )


def _write_map(
    path: Path,
    record: np.void,
    vertices: torch.Tensor,  # (N, 3), model frame
    options: BuildOptions,
    face: Face,
) -> None:
    """DIR/maps/NAME.npy: (256, 256, 3), rows v, columns u, x y z in crop px."""
    crop_from_model = record_crop_from_model(record, options.crop, options.pixel_origin)
    crop_vertices = camera.transform_points(crop_from_model.float(), vertices)
    position_map = face.uv.position_map(crop_vertices[None])[0].permute(1, 2, 0).numpy()
    try:
        stored = encode_map(position_map, options.map_dtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with written_whole(path) as temporary:
        np.save(temporary, stored)
