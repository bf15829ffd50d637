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
    Job,
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
    face: dict | None = None  # vertices and bases of the face, where the set goes with one


class SetLayout(NamedTuple):
    """What is written into format.json and beside the samples into build.json."""

    dataset: str
    format: dict  # beside the version
    unit: str  # of the progress bar: what a sample is
    seconds: float  # of work in a sample, about


def build_packed(
    output: Path,
    sources: Sequence,
    layout: SetLayout,
    pack: Callable[[Shard, object], PackedShard],
    prepare: Callable[[], object],
    *,
    plan: Mapping,  # what decides the content
    unreadable: Mapping[str, str] | None = None,  # what was left out before
    workers: int,
) -> dict:
    """Build, or finish building, the set `output`; returns the content of build.json.

    A finished set of the same plan is left alone.

    Raises:
        ValueError: `output` holds another set, or no source can be used.
    """
    write_plan(output, **plan, part_size=SHARD_SIZE)
    if (output / "build.json").is_file():
        log.info("%s: already built, nothing to do", output)
        _remove_parts(output)
        return read_json_object(output / "build.json")
    shards = [
        Shard(number, sources[start : start + SHARD_SIZE])
        for number, start in enumerate(range(0, len(sources), SHARD_SIZE))
    ]
    job = Job(
        work=functools.partial(_write_shards, output=output, pack=pack),
        prepare=prepare,
        marker=functools.partial(_marker, output),
        title=f"build {layout.dataset}",
        unit=layout.unit,
        seconds=layout.seconds,
        size=_num_sources,
    )
    resumable(output, [[shard] for shard in shards], job, workers=workers)
    return _join(output, shards, layout, dict(unreadable or {}))


def _num_sources(shard: Shard) -> int:
    return len(shard.sources)


def _marker(output: Path, shard: Shard) -> Path:
    return output / "parts" / f"{shard.number}.json"


def _write_shards(
    shards: Sequence[Shard],
    tools: object,
    *,
    output: Path,
    pack: Callable[[Shard, object], PackedShard],
) -> dict[str, str]:
    """What is left out stands in the shard's own .json, where a later run finds it."""
    for shard in shards:
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
        content = {"samples": packed.names, "audit": packed.audit}
        if packed.face is not None:
            content["face"] = packed.face
        write_json(marker, content)
    return {}


def _join(output: Path, shards: Sequence[Shard], layout: SetLayout, unreadable: dict) -> dict:
    """Join the shards; build.json comes last and makes the set a finished one."""
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
    write_json(output / "format.json", {"format": FORMAT, **layout.format})
    face = {"face": parts[0]["face"]} if "face" in parts[0] else {}
    build = {
        "dataset": layout.dataset,
        "count": len(samples),
        **face,
        "samples": samples,
        "audit": audit,
    }
    write_json(output / "build.json", build)
    _remove_parts(output)
    return build


def _remove_parts(output: Path) -> None:
    shutil.rmtree(output / "parts", ignore_errors=True)
    remove_leftovers(output)
