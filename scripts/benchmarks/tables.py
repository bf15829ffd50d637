"""The Markdown report."""

import math
import os
import platform
import statistics
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.made_data import Bench
from benchmarks.peers import (
    PEER_COPY,
    PEER_MAP_BYTES,
    PEER_PICTURE_BYTES,
    PEER_SGEMM,
    PEERS,
    carried_over,
)
from benchmarks.timing import CPU, Ceilings, alternate
from prnet.datasets.built import BuiltSet

NOTES = """\
* Indirect ratios are orders of magnitude. A matrix product is much slower where vectors are narrow
  or cores are shared, Python and scalar C++ hardly: those follow neither ceiling and are carried
  over by the one that favours them. Most use one thread, so that more than 2 favour them again.
* Build: example 8 and prepare.py write a float32 map beside a crop; a built set holds the fit
  beside the picture's own bytes, and its maps are made in the training batch (the map rows). Files
  are in the page cache; what is done once, loading the face and starting processes, is left out.
* Maps: face3d's map has all texels. Of PRN's loss only the face texels have a weight.
* Loader: SADRNet's 118 samples/s need 2 processes, ours one; it makes an attention target too.
* Regressors: one thread of ours, or --threads, beside what the peers' machine gave the peer. An
  operation of the size table is a multiply-accumulate, or one of a norm, activation or sum.
* Runtimes: networks are untrained, but swift, which has the weights and the face of the package.
  Under OpenVINO the images of a batch come one at a time.
* Synthetic samples: one thread; every process renders as many.
* Scoring: SADRNet's figure is the arithmetic alone, as our NME line; scoring reads each prediction
  and each fit, decodes the truth and computes all four metrics. Its picture is read for its height.
"""


class Line(NamedTuple):
    """One line of the table."""

    what: str
    seconds: list[float]  # per item, one a round
    ceilings: list[Ceilings]  # of the same rounds
    peers: tuple[str, ...] = ()  # keys of PEERS
    baseline: str = ""  # a variant of our own, and its seconds per item in the same rounds
    baseline_seconds: list[float] | None = None


def plain(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def time_row(line: Line) -> str:
    """A line of the Markdown table; ratios are medians of the rounds' own ratios."""
    milliseconds = [1000 * value for value in line.seconds]
    median = statistics.median(milliseconds)
    peers, indirect = [], []
    for name in line.peers:
        peer = PEERS[name]
        here = [carried_over(peer, ceilings) for ceilings in line.ceilings]
        peers.append(
            f"{peer.system}: {plain(peer.milliseconds)}, here {plain(statistics.median(here))}"
        )
        ratios = [theirs / ours for theirs, ours in zip(here, milliseconds, strict=True)]
        indirect.append(f"{plain(statistics.median(ratios))} x")
    direct = ""
    if line.baseline_seconds is not None:
        ratios = [a / b for a, b in zip(line.baseline_seconds, line.seconds, strict=True)]
        direct = f"{plain(statistics.median(ratios))} x {line.baseline}"
    cells = (
        line.what,
        f"{plain(median)} ({plain(min(milliseconds))} to {plain(max(milliseconds))})",
        plain(1000 / median),
        "<br>".join(peers),
        "<br>".join(indirect),
        direct,
    )
    return f"| {' | '.join(cells)} |"


def disk_table(built: BuiltSet) -> list[str]:
    """Bytes a sample, of our own set as built above; the same on every machine."""
    total = sum(path.stat().st_size for path in built.directory.rglob("*") if path.is_file())
    pictures = sum(path.stat().st_size for path in (built.directory / "pictures").iterdir())
    ours, picture = (total - pictures) / len(built), pictures / len(built)
    rows = (
        ("map, or what it is made from", ours, PEER_MAP_BYTES),
        ("with the picture", ours + picture, PEER_MAP_BYTES + PEER_PICTURE_BYTES),
    )
    return [
        "| bytes a sample on disk | ours | face3d, SADRNet | peer / ours |",
        "|---|---|---|---|",
        *(f"| {what} | {a:,.0f} | {b:,} | {plain(b / a)} x |" for what, a, b in rows),
    ]


def processor() -> str:
    """The CPU's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def header(bench: Bench, source: str) -> list[str]:
    """What the figures belong to."""
    lines = [
        f"* CPU: {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}",
    ]
    if hasattr(os, "getloadavg"):
        lines.append(
            f"* load average at the start: {os.getloadavg()[0]:.1f}; other work on the machine "
            "slows ours and the ceilings to different degrees"
        )
    devices = [CPU]
    if bench.device.type == "cuda":
        devices.append(bench.device)
        name = torch.cuda.get_device_name(bench.device)
        lines.append(f"* GPU: {name}, CUDA {torch.version.cuda}; maps, targets, network, raster")
    for device in devices:
        timing = alternate(
            {}, device=device, ceiling_device=device, rounds=bench.rounds, sizes=bench.sizes
        )
        sgemm, rate = (statistics.median(column) for column in zip(*timing.ceilings, strict=True))
        lines.append(
            f"* {device.type} ceilings at the start: sgemm {sgemm:.0f} GFLOP/s, copy {rate:.1f} "
            f"GB/s; of the peers' machine: {PEER_SGEMM:.0f}, {PEER_COPY}"
        )
    model = bench.face.morphable_model
    lines.append(
        f"* data: {source}; face of {model.num_vertices:,} vertices, {model.num_shape} shape and "
        f"{model.num_exp} expression bases (peers: 53,215 vertices, 199 and 29)"
    )
    lines.append(f"* {bench.rounds} rounds; median (min to max); ratios are medians of the rounds'")
    return lines
