"""The same work by the published systems' code and by ours, in the same rounds (--peers DIR)."""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.made_data import Bench
from benchmarks.peer_data_rows import build_lines, loader_lines, map_lines, raster_lines
from benchmarks.peer_network_rows import nme_lines, prn_lines, regressor_lines, sadrnet_lines
from benchmarks.tables import plain
from benchmarks.timing import CPU, Beside, alternate, each

# By the name that --rows has for them: the clones that one of is needed, and the lines.
PEER_ROWS: dict[str, tuple[tuple[str, ...], Callable[[Path, Bench], Iterator[Beside]]]] = {
    "build": (("SADRNet", "face3d"), build_lines),
    "maps": (("face3d",), map_lines),
    "loader": (("SADRNet",), loader_lines),
    "prn": (("PRNet-PyTorch",), prn_lines),
    "sadrnet": (("SADRNet",), sadrnet_lines),
    "regressors": (("3DDFA_V2",), regressor_lines),
    "evaluation": (("SADRNet",), nme_lines),
    "raster": (("face3d",), raster_lines),
}


def peer_table(folder: Path, bench: Bench, rows: Sequence[str]) -> list[str]:
    """Every line alternated; ratios are medians of the rounds' own. A clone that cannot be imported
    is named, with what it lacks."""
    lines = [
        "| work, per image or face | peer, ms | ours, ms | peer / ours |",
        "|---|---|---|---|",
    ]
    bench = bench._replace(device=CPU)
    for name in rows:
        clones, made = PEER_ROWS.get(name, ((), None))
        if not any((folder / clone).is_dir() for clone in clones):
            continue
        try:
            for line in made(folder, bench):
                print(f"timing: {line.what}", file=sys.stderr)
                lines += line_rows(line, bench)
        except ImportError as error:
            print(f"left out: {name}, {' or '.join(clones)}: {error}", file=sys.stderr)
    return lines


def line_rows(line: Beside, bench: Bench) -> list[str]:
    """One for each of our ways beside each peer."""
    starts = {f"{name}, its start": call for name, call in line.starts.items()}
    calls = {**line.peers, **line.ours, **starts}
    if not line.trains:
        calls = {name: torch.inference_mode()(call) for name, call in calls.items()}
    timing = alternate(
        calls, device=CPU, ceiling_device=CPU, rounds=bench.rounds, sizes=bench.sizes
    )
    rows = []
    for name in line.ours:
        whole = timing.seconds[name]
        before = timing.seconds.get(f"{name}, its start", [0.0] * len(whole))
        ours = each([b - a for a, b in zip(before, whole, strict=True)], line.count)
        for system in line.peers:
            peer = each(timing.seconds[system], line.peer_count or line.count)
            ratio = statistics.median(a / b for a, b in zip(peer, ours, strict=True))
            rows.append(
                f"| {line.what} ({system}) | {spread(peer)} | {name}: {spread(ours)} | "
                f"{plain(ratio)} |"
            )
    return rows


def spread(seconds: list[float]) -> str:
    low, middle, high = (1000 * f(seconds) for f in (min, statistics.median, max))
    return f"{plain(middle)} ({plain(low)} to {plain(high)})"
