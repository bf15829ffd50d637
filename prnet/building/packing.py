"""A built set written shard by shard: pictures and records of some samples, joined at the end.

DIR/plan.json, build.json, format.json, records.npy, pictures/SHARD.bin   see `prnet.datasets.built`
DIR/parts/SHARD.npy, .json   records, names and audit of a shard until all are there; the .json is
                             its marker
"""

import functools
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.building.resumable import (
    chunks,
    log_reasons,
    remove_leftovers,
    resumable,
    some_reasons,
    write_plan,
)
from prnet.datasets.built import FORMAT
from prnet.files import read_json_object, read_npy, write_json, written_whole

log = logging.getLogger(__name__)

SHARD_SIZE = 128  # samples


class Shard(NamedTuple):
    number: int
    sources: Sequence  # what a sample is made from, each


class PackedShard(NamedTuple):
    """What becomes of a shard. `audit` lists what is worth knowing by sample: key -> list or
    dictionary; "unreadable" has the sources that are left out, {name: why}."""

    names: list[str]  # (n,)
    records: np.ndarray  # (n,), structured; where the pictures lie is filled in here
    pictures: list[bytes]  # (n,)
    audit: dict


def build_packed(
    output: Path,
    sources: Sequence,
    pack: Callable[[Shard, object], PackedShard],
    prepare: Callable[[], object],
    *,
    dataset: str,
    layout: Mapping,
    plan: Mapping,
    face: Mapping | None = None,
    unreadable: Mapping[str, str] | None = None,
    unit: str,
    seconds: float,
    workers: int,
) -> dict:
    """Build, or finish building, the set `output`; returns the content of build.json.

    A finished set of the same plan is left alone.

    - `layout`: of format.json, beside the version.
    - `plan`: what decides the content, beside the face.
    - `face`: what the set's fits are of, where it goes with one face: part of `Face.describe`.
    - `unreadable`: what was left out before, {name: why}.
    - `unit`, `seconds`: what a sample is, and of work in one, about.

    Raises:
        ValueError: `output` holds another set, or no source can be used.
    """
    faces = {} if face is None else {"face": dict(face)}
    write_plan(output, **plan, **faces, part_size=SHARD_SIZE)
    if (output / "build.json").is_file():
        log.info("%s: already built, nothing to do", output)
        _remove_parts(output)
        build = read_json_object(output / "build.json")
    else:
        shards = [Shard(*each) for each in enumerate(chunks(sources, SHARD_SIZE))]
        resumable(
            output,
            [[shard] for shard in shards],
            functools.partial(_write_shard, output=output, pack=pack),
            prepare,
            functools.partial(_marker, output),
            title=f"build {dataset}",
            unit=unit,
            seconds=seconds,
            size=lambda shard: len(shard.sources),
            workers=workers,
        )
        build = _join(output, shards, {"dataset": dataset, **faces}, layout, unreadable or {})
    counts = [f"{len(found)} {key.replace('_', ' ')}" for key, found in build["audit"].items()]
    log.info("%s: %d %ss; audit: %s", output, build["count"], unit, ", ".join(counts))
    log_reasons(build["audit"]["unreadable"], what="unreadable")
    return build


def _marker(output: Path, shard: Shard) -> Path:
    return output / "parts" / f"{shard.number}.json"


def _write_shard(
    piece: Sequence[Shard],
    tools: object,
    *,
    output: Path,
    pack: Callable[[Shard, object], PackedShard],
) -> dict[str, str]:
    """What is left out stands in the shard's own .json, where a later run finds it."""
    (shard,) = piece
    packed = pack(shard, tools)
    records = packed.records
    sizes = np.array([len(picture) for picture in packed.pictures], dtype=np.int64)
    records["shard"] = shard.number
    records["picture_bytes"] = sizes
    records["picture_offset"] = np.cumsum(sizes) - sizes
    with written_whole(output / "pictures" / f"{shard.number}.bin") as temporary:
        temporary.write_bytes(b"".join(packed.pictures))
    marker = _marker(output, shard)
    with written_whole(marker.with_suffix(".npy")) as temporary:
        np.save(temporary, records)
    write_json(marker, {"samples": packed.names, "audit": packed.audit})
    return {}


def _join(
    output: Path, shards: Sequence[Shard], head: Mapping, layout: Mapping, unreadable: Mapping
) -> dict:
    """Join the shards; build.json, which begins with `head`, comes last and makes the set a
    finished one."""
    markers = [_marker(output, shard) for shard in shards]
    parts = [read_json_object(marker) for marker in markers]
    samples = [name for part in parts for name in part["samples"]]
    audit: dict = {}
    for part in parts:
        for key, value in part["audit"].items():
            if isinstance(value, list):
                audit.setdefault(key, []).extend(value)
            else:
                audit.setdefault(key, {}).update(value)
    audit["unreadable"] = {**unreadable, **audit.get("unreadable", {})}
    if not samples:
        shutil.rmtree(output)
        raise ValueError(
            f"{output}: not one sample could be read ({some_reasons(audit['unreadable'])})"
        )
    hint = "delete the folder and build the set again"
    records = [read_npy(marker.with_suffix(".npy"), hint=hint) for marker in markers]
    with written_whole(output / "records.npy") as temporary:
        np.save(temporary, np.concatenate(records))
    write_json(output / "format.json", {"format": FORMAT, **layout})
    build = {**head, "count": len(samples), "samples": samples, "audit": audit}
    write_json(output / "build.json", build)
    _remove_parts(output)
    return build


def _remove_parts(output: Path) -> None:
    shutil.rmtree(output / "parts", ignore_errors=True)
    remove_leftovers(output)
