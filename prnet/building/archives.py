"""From archives to a built set: read, audit, decode, pack, in parallel and resumable.

The work is cut into parts of a fixed number of samples. A part's files appear whole or not at all,
so a killed build goes on where it stopped and its result does not depend on when it was killed or
on how many processes worked.
"""

import functools
import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prnet.building.map_files import MAP_DTYPES
from prnet.building.parts import BuildOptions, build_part, part_file
from prnet.datasets.built import FORMAT
from prnet.datasets.fits import (
    HINT_300W_LP,
    HINT_AFLW2000,
    FacePair,
    find_300w_lp,
    find_aflw2000,
)
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.files import read_json_object, write_json, written_whole
from prnet.geometry.camera import pixel_origin_shift
from prnet.workers import in_processes

log = logging.getLogger(__name__)

PART_SIZE = 128
# Below this, processes take longer to start than the work takes.
POOL_FROM = 2048


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
        if read_json_object(plan_file) != plan:
            raise ValueError(
                f"{output}: holds a set of other samples or options; choose another output= "
                "or delete it"
            )
        if (output / "build.json").is_file():
            log.info("%s: already built, nothing to do", output)
            _remove_working_files(output)
            return read_json_object(output / "build.json")
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output}: not empty and not a built set; choose another output=")
    write_json(plan_file, plan)

    parts = [
        (number, pairs[start : start + PART_SIZE])
        for number, start in enumerate(range(0, len(pairs), PART_SIZE))
    ]
    pending = [part for part in parts if not part_file(output, part[0]).is_file()]
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
    build_part(*part, output, options, face)


def _assemble(output: Path, options: BuildOptions, num_parts: int) -> dict:
    """Join the parts; build.json comes last and makes the set a finished one."""
    parts = [read_json_object(part_file(output, number)) for number in range(num_parts)]
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
