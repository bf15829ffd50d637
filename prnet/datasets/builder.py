"""From archives to a built set: read, audit, decode, pack, in parallel and resumable.

The work is cut into parts of a fixed number of samples. A part's files appear whole or not at all,
so a killed build goes on where it stopped and its result does not depend on when it was killed or
on how many processes worked.
"""

import functools
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from prnet.datasets.audit import FULL_BASES, Audit
from prnet.datasets.built import FORMAT, record_dtype
from prnet.datasets.fits import (
    HINT_300W_LP,
    HINT_AFLW2000,
    FacePair,
    FitFile,
    find_300w_lp,
    find_aflw2000,
    fit_matrix,
    pad_params,
    read_fit,
)
from prnet.datasets.map_files import MAP_DTYPES, encode_map
from prnet.datasets.pictures import (
    CropRule,
    crop_matrix,
    crop_square,
    decode_picture,
    shift_depth,
)
from prnet.datasets.workers import in_processes
from prnet.faces.face import Face
from prnet.faces.loading import load_face
from prnet.files import write_json, written_whole
from prnet.geometry import camera
from prnet.geometry.camera import pixel_origin_shift

log = logging.getLogger(__name__)

PART_SIZE = 128
DECODE_BATCH = 64
# Below this, processes take longer to start than the work takes.
POOL_FROM = 2048


class BuildOptions(NamedTuple):
    """What decides the content of a built set."""

    dataset: str
    crop: CropRule = CropRule()
    pixel_origin: str = "zero_based"
    maps: bool = False
    map_dtype: str = "float32"


class FaceFiles(NamedTuple):
    """What a worker process loads its face from."""

    name: str
    bfm_dir: str | None = None
    prnet_uv_dir: str | None = None

    def load(self) -> Face:
        """The face, as `prnet.faces.loading.load_face`."""
        return load_face(self.name, bfm_dir=self.bfm_dir, prnet_uv_dir=self.prnet_uv_dir)


class Unreadable(NamedTuple):
    name: str
    reason: str


class Loaded(NamedTuple):
    """One pair read from disk, before anything is decoded."""

    name: str
    file: FitFile
    picture: bytes
    height: int
    width: int


def build_set(
    pairs: list[FacePair],
    output: Path | str,
    options: BuildOptions,
    face_files: FaceFiles,
    *,
    workers: int = 0,
) -> dict:
    """Build, or finish building, the set `output` from image + fit pairs; returns the content of
    build.json.

    `workers` 0 or 1 works in this process. A finished set made from the same pairs and options is
    left alone.

    Raises:
        ValueError: an option is not one of its choices, `output` holds another set, or no pair is
            readable.
    """
    output = Path(output)
    if options.map_dtype not in MAP_DTYPES:
        raise ValueError(f"map_dtype: got {options.map_dtype!r}, expected one of {MAP_DTYPES}")
    pixel_origin_shift("zero_based", options.pixel_origin)
    if not pairs:
        raise ValueError(f"nothing to build {output} from: no image + fit pairs")

    plan = _plan(pairs, options)
    plan_file = output / "plan.json"
    if plan_file.is_file():
        if json.loads(plan_file.read_text()) != plan:
            raise ValueError(
                f"{output}: holds a set of other samples or options; choose another output= "
                "or delete it"
            )
        if (output / "build.json").is_file():
            log.info("%s: already built, nothing to do", output)
            _remove_working_files(output)
            return json.loads((output / "build.json").read_text())
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output}: not empty and not a built set; choose another output=")
    write_json(plan_file, plan)

    parts = [
        (number, pairs[start : start + PART_SIZE])
        for number, start in enumerate(range(0, len(pairs), PART_SIZE))
    ]
    pending = [part for part in parts if not _part_file(output, part[0]).is_file()]
    bar = tqdm(
        total=len(pairs),
        initial=len(pairs) - sum(len(part_pairs) for _, part_pairs in pending),
        desc=f"build {options.dataset}",
        unit="sample",
    )
    with bar:
        left = sum(len(part_pairs) for _, part_pairs in pending)
        for (_, part_pairs), _ in in_processes(
            functools.partial(_work_on_part, output=output, options=options),
            pending,
            face_files.load,
            workers=0 if left < POOL_FROM else min(workers, len(pending)),
        ):
            bar.update(len(part_pairs))
    return _assemble(output, options, len(parts))


def require_archives(dataset: str, face_files: FaceFiles, *, data_dir: Path | str) -> None:
    """Raise one FileNotFoundError that names everything still to be fetched."""
    folder, hint = {
        "300w_lp": ("300W_LP", HINT_300W_LP),
        "aflw2000": ("AFLW2000", HINT_AFLW2000),
    }.get(dataset, ("", ""))
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


def build_archive(
    subsets: list[str] | None,
    *,
    data_dir: Path | str,
    output: Path | str,
    face_files: FaceFiles,
    options: BuildOptions,
    workers: int,
) -> dict:
    """Find an archive's pairs and build them; returns the content of build.json.

    Raises:
        ValueError, FileNotFoundError: the archive, a sub-folder or the face is not there, or the
            dataset is unknown.
    """
    require_archives(options.dataset, face_files, data_dir=data_dir)
    if options.dataset == "300w_lp":
        pairs, missing = find_300w_lp(data_dir, subsets)
        for subset in missing:
            log.warning("skipped: %s is not there", Path(data_dir) / "300W_LP" / subset)
    elif options.dataset == "aflw2000":
        if subsets is not None:
            raise ValueError("dataset.subsets: AFLW2000-3D has no sub-folders; leave it out")
        pairs = find_aflw2000(data_dir)
    else:
        raise ValueError(f"dataset: got {options.dataset!r}, expected 300w_lp or aflw2000")
    build = build_set(pairs, output, options, face_files, workers=workers)
    log.info("%s: %s", output, audit_summary(build))
    for name, reason in list(build["audit"]["unreadable"].items())[:10]:
        log.warning("unreadable: %s: %s", name, reason)
    return build


def _plan(pairs: list[FacePair], options: BuildOptions) -> dict:
    """What a build must share with the one it continues; paths may change, names may not."""
    names = "\n".join(pair.name for pair in pairs)
    return {
        "format": FORMAT,
        "options": options._replace(crop=options.crop._asdict())._asdict(),
        "pairs": len(pairs),
        "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "part_size": PART_SIZE,
    }


def _work_on_part(
    part: tuple[int, list[FacePair]], face: Face, *, output: Path, options: BuildOptions
) -> None:
    _build_part(*part, output, options, face)


def _part_file(output: Path, number: int) -> Path:
    return output / "parts" / f"{number}.json"


def _build_part(
    number: int, pairs: list[FacePair], output: Path, options: BuildOptions, face: Face
) -> None:
    """Read, audit and pack one part. Its .json is written last and marks it as finished."""
    loaded: list[Loaded] = []
    unreadable: dict[str, str] = {}
    for pair in pairs:
        one = _load(pair)
        if isinstance(one, Unreadable):
            unreadable[one.name] = one.reason
        else:
            loaded.append(one)

    model = face.morphable_model
    records = np.zeros(len(loaded), record_dtype(model.num_shape, model.num_exp))
    audit = Audit(full_bases=(model.num_shape, model.num_exp) == FULL_BASES)
    kept: list[int] = []
    for start in range(0, len(loaded), DECODE_BATCH):
        chunk = loaded[start : start + DECODE_BATCH]
        shape_params, exp_params = (
            np.stack([pad_params(getattr(one.file.fit, key), count) for one in chunk])
            for key, count in (("shape_params", model.num_shape), ("exp_params", model.num_exp))
        )
        vertices = model(
            torch.from_numpy(shape_params).float(), torch.from_numpy(exp_params).float()
        )
        image_from_model = torch.stack(
            [
                fit_matrix(one.file.fit, one.height, pixel_origin=options.pixel_origin)
                for one in chunk
            ]
        )
        depth = vertices @ image_from_model[:, 2, :3, None].float()  # (chunk, N, 1)
        depth_min = depth.amin((1, 2)) + image_from_model[:, 2, 3]
        landmarks = camera.transform_points(
            image_from_model, vertices[:, face.landmark_index].double()
        ).numpy()
        for i, one in enumerate(chunk):
            record = records[start + i]
            record["shape_params"], record["exp_params"] = shape_params[i], exp_params[i]
            record["depth_min"] = depth_min[i]
            reason = _fill_record(record, one, landmarks[i], options, audit)
            if reason is not None:
                unreadable[one.name] = reason
                continue
            kept.append(start + i)
            if options.maps:
                _write_map(output, record, one, vertices[i], options, face)

    records = records[kept]
    loaded = [loaded[i] for i in kept]
    sizes = np.array([len(one.picture) for one in loaded], dtype=np.int64)
    records["shard"] = number
    records["picture_bytes"] = sizes
    records["picture_offset"] = np.cumsum(sizes) - sizes
    with written_whole(output / "pictures" / f"{number}.bin") as temporary:
        temporary.write_bytes(b"".join(one.picture for one in loaded))
    with written_whole(output / "parts" / f"{number}.npy") as temporary:
        np.save(temporary, records)
    write_json(
        _part_file(output, number),
        {
            "samples": [one.name for one in loaded],
            "audit": {**audit.lists(), "unreadable": unreadable},
            "face": {
                "vertices": model.num_vertices,
                "shape_bases": model.num_shape,
                "exp_bases": model.num_exp,
            },
        },
    )


def _load(pair: FacePair) -> Loaded | Unreadable:
    try:
        if not pair.picture.is_file():
            return Unreadable(pair.name, f"no picture {pair.picture.name} beside the fit")
        data = pair.picture.read_bytes()
        height, width = decode_picture(data, source=pair.picture.name).shape[:2]
        return Loaded(pair.name, read_fit(pair.fit), data, height, width)
    except (OSError, ValueError) as error:
        return Unreadable(pair.name, str(error))


def _fill_record(
    record: np.void,
    one: Loaded,
    landmarks: np.ndarray,  # (68, 3), decoded, image px
    options: BuildOptions,
    audit: Audit,
) -> str | None:
    """Fill pose and crop, and audit; returns why the sample cannot be used, if so."""
    try:
        center, size = crop_square(landmarks, options.crop, seed_name=one.name)
    except ValueError as error:
        return str(error)
    fit = one.file.fit
    record["image_size"] = one.height, one.width
    record["crop_center"], record["crop_size"] = center, size
    record["scale"], record["angles"] = fit.scale, fit.angles
    record["translation"] = fit.translation
    audit.check(one.name, one.file, landmarks, options.pixel_origin)
    return None


def _write_map(
    output: Path,
    record: np.void,
    one: Loaded,
    vertices: torch.Tensor,
    options: BuildOptions,
    face: Face,
) -> None:
    """DIR/maps/NAME.npy: (256, 256, 3), rows v, columns u, x y z in crop px."""
    crop_from_image = crop_matrix(record["crop_center"], float(record["crop_size"]), options.crop)
    image_from_model = fit_matrix(one.file.fit, one.height, pixel_origin=options.pixel_origin)
    crop_from_model = crop_from_image @ shift_depth(image_from_model, float(record["depth_min"]))
    crop_vertices = camera.transform_points(crop_from_model.float(), vertices)
    position_map = face.uv.position_map(crop_vertices[None])[0].permute(1, 2, 0).numpy()
    try:
        stored = encode_map(position_map, options.map_dtype)
    except ValueError as error:
        raise ValueError(f"{one.name}: {error}") from error
    with written_whole(output / "maps" / f"{one.name}.npy") as temporary:
        np.save(temporary, stored)


def _assemble(output: Path, options: BuildOptions, num_parts: int) -> dict:
    """Join the parts; build.json comes last and makes the set a finished one."""
    parts = [json.loads(_part_file(output, number).read_text()) for number in range(num_parts)]
    records = [np.load(output / "parts" / f"{number}.npy") for number in range(num_parts)]
    samples = [name for part in parts for name in part["samples"]]
    audit: dict = {}
    for part in parts:
        for key, value in part["audit"].items():
            if isinstance(value, list):
                audit.setdefault(key, []).extend(value)
            else:
                audit.setdefault(key, {}).update(value)
    if not samples:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(audit["unreadable"].items())[:3])
        shutil.rmtree(output)
        raise ValueError(f"{output}: not one sample could be read ({reasons})")
    with written_whole(output / "records.npy") as temporary:
        np.save(temporary, np.concatenate(records))
    write_json(
        output / "format.json",
        {
            "format": FORMAT,
            "crop": options.crop._asdict(),
            "pixel_origin": options.pixel_origin,
            "maps": options.map_dtype if options.maps else None,
        },
    )
    build = {
        "dataset": options.dataset,
        "count": len(samples),
        "face": parts[0]["face"],
        "samples": samples,
        "audit": audit,
    }
    write_json(output / "build.json", build)
    _remove_working_files(output)
    return build


def _remove_working_files(output: Path) -> None:
    """Drop the parts' bookkeeping and what killed processes left half-written."""
    shutil.rmtree(output / "parts", ignore_errors=True)
    for leftover in output.rglob(".*.tmp*"):
        leftover.unlink()


def audit_summary(build: dict) -> str:
    """The audit in one line, for the log."""
    audit = build["audit"]
    counts = ", ".join(f"{len(found)} {key.replace('_', ' ')}" for key, found in audit.items())
    return f"{build['count']} samples; audit: {counts}"
