"""From an archive of image + fit pairs to a built set: found, read, audited, decoded, packed."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prnet.building.audit import FULL_BASES, Audit
from prnet.building.packing import PackedShard, Shard, build_packed
from prnet.building.resumable import left_out
from prnet.checks import require_choice
from prnet.datasets.fits import (
    HINT_300W_LP,
    HINT_AFLW2000,
    FacePair,
    find_300w_lp,
    find_aflw2000,
    require_fit_of,
)
from prnet.datasets.pictures import CropRule
from prnet.datasets.records import (
    LoadedPair,
    SetRecord,
    decode_pairs,
    fill_record,
    load_pair,
    record_dtype,
)
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.files import written_whole
from prnet.geometry.camera import pixel_origin_shift
from prnet.geometry.position_map import map_of_mesh

# Each archive's folder in DATA_DIR, and what to do where it is missing.
ARCHIVES = {"300w_lp": ("300W_LP", HINT_300W_LP), "aflw2000": ("AFLW2000", HINT_AFLW2000)}
WHERE_FROM = (
    "300W-LP and AFLW2000-3D come from the page of 3DDFA "
    "(www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm), the Basel Face Model of 2009 "
    "from faces.dmi.unibas.ch/bfm after registration"
)
MAP_DTYPES = ("float32", "float16", "uint16")
FIXED_POINT_STEPS = 128  # per px
FIXED_POINT_RANGE = (-128.0, 384.0)
DECODE_BATCH = 64  # meshes
# Of `Face.describe`: what fits are of, without the UV layout, which is that of the network.
FACE_KEYS = ("name", "vertices", "shape_bases", "exp_bases", "fingerprint")
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
            "python -m prnet.convert_bfm makes them from the raw files)"
        )
    if lacking:
        raise FileNotFoundError(
            f"missing: {' and '.join(lacking)}. {WHERE_FROM}; data_dir=DIR looks elsewhere. "
            "Without any of it, dataset=synthetic works now"
        )


def find_archive(
    dataset: str, subsets: list[str] | None, face_files: FaceFiles, *, data_dir: Path | str
) -> list[FacePair]:
    """The pairs of an archive.

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
    return find_300w_lp(data_dir, subsets)


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
    the content of build.json. A finished set of the same pairs and options is left alone.

    Raises:
        ValueError: an option is not one of its choices, `output` holds another set, or no pair is
            readable.
        FileNotFoundError: the archive, a sub-folder or the face is not there.
    """
    output = Path(output)
    require_choice("map_dtype", options.map_dtype, MAP_DTYPES)
    pixel_origin_shift("zero_based", options.pixel_origin)  # refuses an unknown one
    pairs = find_archive(options.dataset, subsets, face_files, data_dir=data_dir)
    described = face_files.load().describe()
    # Another place of the archive is the same archive: names count, not paths.
    names = "\n".join(pair.name for pair in pairs)
    return build_packed(
        output,
        pairs,
        functools.partial(_pack, output=output, options=options),
        face_files.load,
        dataset=options.dataset,
        layout={
            "crop": options.crop.to_values(),
            "pixel_origin": options.pixel_origin,
            "maps": options.map_dtype if options.maps else None,
        },
        plan={
            "options": options._replace(crop=options.crop.to_values())._asdict(),
            "pairs": len(pairs),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        },
        face={key: described[key] for key in FACE_KEYS if key in described},
        unit="sample",
        seconds=SECONDS,
        workers=workers,
    )


def _pack(shard: Shard, face: Face, *, output: Path, options: BuildOptions) -> PackedShard:
    """Read, audit and decode the pairs of a shard."""
    loaded: list[LoadedPair] = []
    unreadable: dict[str, str] = {}
    for pair in shard.sources:
        with left_out(unreadable, pair.name):
            one = load_pair(pair)
            require_fit_of(face.name, one.file.fit, source=pair.fit)
            loaded.append(one)

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
        audit={**audit.lists, "unreadable": unreadable},
    )


def _write_map(
    path: Path,
    record: np.void,
    vertices: torch.Tensor,  # (N, 3), model frame
    options: BuildOptions,
    face: Face,
) -> None:
    """DIR/maps/NAME.npy: (256, 256, 3), rows v, columns u, x y z in crop px."""
    crop_from_model = SetRecord(record, options.crop, options.pixel_origin).crop_from_model()
    try:
        stored = encode_map(map_of_mesh(face.uv, vertices, crop_from_model), options.map_dtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with written_whole(path) as temporary:
        np.save(temporary, stored)


def encode_map(position_map: np.ndarray, dtype: str) -> np.ndarray:
    """A position map (H, W, 3) in crop px for storage.

    `uint16` counts 1/128 px, modulo 512 px: values from 0 to 384 decode by a division, from stored
    values of 384 px and more (faces that leave the crop) take 512 px.

    Raises:
        ValueError: a coordinate outside [-128, 384) px for uint16.
    """
    if dtype != "uint16":
        return position_map.astype(dtype, copy=False)
    low, high = FIXED_POINT_RANGE
    steps = np.rint(position_map.astype(np.float64) * FIXED_POINT_STEPS).astype(np.int64)
    if steps.min() < low * FIXED_POINT_STEPS or steps.max() >= high * FIXED_POINT_STEPS:
        raise ValueError(
            f"coordinates from {position_map.min():.1f} to {position_map.max():.1f} px do not fit "
            f"the uint16 maps' range {low:g} to {high:g} px; use map_dtype=float16 or float32"
        )
    return (steps % 2**16).astype(np.uint16)
