"""A built set written shard by shard: pictures and records of some samples, joined at the end.

DIR/plan.json, build.json, format.json, records.npy, pictures/SHARD.bin   see `prnet.datasets.built`
DIR/parts/SHARD.npy, .json   records, names and audit of a shard until all are there; the .json is
                             its marker
"""

import functools
import logging
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.building.resumable import (
    log_reasons,
    planned,
    remove_leftovers,
    require_most,
    resumable,
    some_reasons,
)
from prnet.datasets.built import FORMAT
from prnet.files import read_json_object, read_npy, write_json, written_whole
from prnet.workers import chunks

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

    A finished set of the same plan is left alone, unless some of what it had to leave out can be
    used now: then the shards of these are made anew.

    - `layout`: of format.json, beside the version.
    - `plan`: what decides the content, beside the face.
    - `face`: what the set's fits are of, where it goes with one face: part of `Face.describe`.
    - `unreadable`: what was left out before, {name: why}.
    - `unit`, `seconds`: what a sample is, and of work in one, about.

    Raises:
        ValueError: `output` holds another set, or no source can be used; and after all is built,
            if a large share of them cannot.
    """
    faces = {} if face is None else {"face": dict(face)}
    with planned(output, **plan, **faces, part_size=SHARD_SIZE):
        shards = [Shard(*each) for each in enumerate(chunks(sources, SHARD_SIZE))]
        build = None
        if (output / "build.json").is_file():
            build = read_json_object(output / "build.json")
            if again := _usable_now(shards, build["audit"]["unreadable"], pack, prepare):
                log.info("%s: %d more can be used now than when it was built", output, again)
                _take_apart(output, build, shards)
                build = None
            else:
                log.info("%s: already built, nothing to do", output)
                _remove_parts(output)
        if build is None:
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
    require_most(output, build["count"], build["audit"]["unreadable"])
    return build


def _usable_now(
    shards: Sequence[Shard],
    unreadable: Mapping[str, str],
    pack: Callable[[Shard, object], PackedShard],
    prepare: Callable[[], object],
) -> int:
    """How many of the sources that a finished set had to leave out can be used."""
    left_out = [source for shard in shards for source in shard.sources if source.name in unreadable]
    tools = prepare() if left_out else None
    return sum(len(pack(Shard(0, some), tools).names) for some in chunks(left_out, SHARD_SIZE))


def _take_apart(output: Path, build: Mapping, shards: Sequence[Shard]) -> None:
    """Make a finished set an unfinished one that lacks the shards with something left out."""
    unreadable, samples = build["audit"]["unreadable"], build["samples"]
    records = read_npy(output / "records.npy", hint="delete the folder and build the set again")
    for shard in shards:
        if any(source.name in unreadable for source in shard.sources):
            continue
        own = records["shard"] == shard.number
        names = [samples[index] for index in np.flatnonzero(own)]
        audit = {
            key: [name for name in found if name in names]
            if isinstance(found, list)
            else {name: value for name, value in found.items() if name in names}
            for key, found in build["audit"].items()
        }
        _write_part(_marker(output, shard), records[own], names, audit)
    (output / "build.json").unlink()


def _write_part(marker: Path, records: np.ndarray, names: list[str], audit: Mapping) -> None:
    with written_whole(marker.with_suffix(".npy")) as temporary:
        np.save(temporary, records)
    write_json(marker, {"samples": names, "audit": audit})


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
    records["picture_crc32"] = [zlib.crc32(picture) for picture in packed.pictures]
    with written_whole(output / "pictures" / f"{shard.number}.bin") as temporary:
        temporary.write_bytes(b"".join(packed.pictures))
    _write_part(_marker(output, shard), records, packed.names, packed.audit)
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
    pictures = [output / "pictures" / f"{shard.number}.bin" for shard in shards]
    write_json(
        output / "format.json",
        {
            "format": FORMAT,
            **layout,
            "records_crc32": zlib.crc32((output / "records.npy").read_bytes()),
            "picture_bytes": [file.stat().st_size for file in pictures],
        },
    )
    build = {**head, "count": len(samples), "samples": samples, "audit": audit}
    write_json(output / "build.json", build)
    _remove_parts(output)
    return build


def _remove_parts(output: Path) -> None:
    shutil.rmtree(output / "parts", ignore_errors=True)
    remove_leftovers(output)
