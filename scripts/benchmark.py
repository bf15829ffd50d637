"""Time what a user waits for, beside the published systems' own code on the same work.

    python scripts/benchmark.py [--data-dir DIR] [--rounds N] [--rows NAME,...] [--clock cpu]
        [--peers DIR] > table.md

DIR holds BFM/ and AFLW2000/ (and PRNet_uv/, if there). Without it the script makes a face of the
BFM's size and pictures with fits in AFLW2000-3D's layout, so it runs on any machine.

Variants of our own are alternated round by round in this process: their ratio is direct. A peer's
code is not run here: its figure (PEERS) was measured on another machine and is carried over by the
speed of a matrix product or of a copy, timed in every round beside what it is compared with. Such a
ratio is indirect, an order of magnitude. --peers runs the code of clones in its folder beside ours,
for ratios that are direct. --clock cpu counts CPU time, which other work on the machine moves less.
Compiling a network, or writing it as ONNX, takes minutes on a few cores; --no-compile leaves both
out. Run it on an otherwise idle machine.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmarks.card_rows import card_table
from benchmarks.data_rows import build_rows, loader_rows, map_rows, raster_rows, synthetic_rows
from benchmarks.evaluation_rows import evaluation_rows
from benchmarks.made_data import Bench, prepare
from benchmarks.network_rows import prn_rows, sadrnet_rows
from benchmarks.peer_rows import peer_table
from benchmarks.peers import CARRIED_BY, PEERS
from benchmarks.reconstruct_rows import reconstruct_tables
from benchmarks.regressor_rows import regressor_rows, size_table
from benchmarks.runtime_rows import runtime_rows
from benchmarks.tables import NOTES, Line, disk_table, header, plain, time_row
from benchmarks.timing import CLOCKS, Sizes

from prnet.entry import resolve_device

ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "build": build_rows,
    "maps": map_rows,
    "loader": loader_rows,
    "prn": prn_rows,
    "sadrnet": sadrnet_rows,
    "regressors": regressor_rows,
    "runtimes": runtime_rows,
    "evaluation": evaluation_rows,
    "raster": raster_rows,
    "synthetic": synthetic_rows,
}
# What is no line of times an image; of the same names, where they have those too.
TABLES: dict[str, Callable[[Bench], list[str]]] = {
    "regressors": size_table,
    "reconstruct": reconstruct_tables,
    "card": card_table,
}
NAMES = tuple(dict.fromkeys([*ROWS, *TABLES]))


def report(bench: Bench, rows: Sequence[str], source: str) -> list[str]:
    """Time the rows; the lines of the Markdown report."""
    head = header(bench, source)
    lines: list[Line] = []
    for name in rows:
        print(f"timing: {name}", file=sys.stderr)
        lines += ROWS[name](bench) if name in ROWS else []
    used = dict.fromkeys(name for line in lines for name in line.peers)
    return [
        "# Benchmark",
        "",
        *head,
        "",
        "| what, per image, map or sample | ours, ms | a second | peer, ms | peer / ours, indirect "
        "| our own variant / ours, direct |",
        "|---|---|---|---|---|---|",
        *(time_row(line) for line in lines),
        "",
        *disk_table(bench.built),
        "",
        *(line for name in rows if name in TABLES for line in [*TABLES[name](bench), ""]),
        *NOTES.splitlines(),
        "",
        "Peers' figures, of another machine:",
        "",
        *(
            f"* {peer.system}, {plain(peer.milliseconds)} ms: {peer.source}; carried over by "
            f"{CARRIED_BY[peer.bound]}"
            for peer in map(PEERS.get, used)
        ),
    ]


def row_names(text: str) -> list[str]:
    """The value of --rows."""
    names = text.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"got {', '.join(unknown)}; choose of {', '.join(NAMES)}")
    return names


def main(arguments: Sequence[str] | None = None, *, sizes: Sizes | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder with BFM/ and AFLW2000/; else made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--rows", type=row_names, default=list(NAMES), help=f"of {','.join(NAMES)}; all"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="of torch; else its own choice")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave out torch.compile and ONNX"
    )
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: CPU time, for one thread of a CPU"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        help="folder of clones: 3DDFA_V2, SADRNet, PRNet-PyTorch, face3d; times only the rows that "
        "have one, on the CPU",
    )
    options = parser.parse_args(arguments)
    for name in ("rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: got {value}, expected at least 1")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    source = "made by this script"
    if options.data_dir is not None:
        source = f"AFLW2000-3D and BFM of {options.data_dir}"
    with tempfile.TemporaryDirectory() as work_dir:
        try:
            bench = prepare(
                options.data_dir,
                Path(work_dir),
                device=resolve_device(options.device),
                rounds=options.rounds,
                compile=not options.no_compile,
                sizes=(sizes or Sizes())._replace(clock=options.clock),
            )
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        lines = (
            [*header(bench, source), "", *peer_table(options.peers.resolve(), bench, options.rows)]
            if options.peers
            else report(bench, options.rows, source)
        )
        print("\n".join(lines))


if __name__ == "__main__":
    main()
