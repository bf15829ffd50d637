"""`prnet.reconstruct` with the weights that come with the package: a photo, a start, a wheel."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.made_data import Bench
from benchmarks.tables import plain

ROOT = Path(__file__).resolve().parents[2]
STAGES = Path(__file__).with_name("reconstruct_stages.py")
# Of the libraries that start threads as they are imported.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def reconstruct_tables(bench: Bench) -> list[str]:
    """Markdown: the stages of a photo, the start of the command, the wheel's size."""
    sizes = bench.sizes
    lines = []
    if sizes.reconstruct_threads:
        lines += stage_table(
            {count: run_stages(bench, count) for count in sizes.reconstruct_threads}
        )
    if sizes.reconstruct_starts:
        lines += ["", *start_table(bench), "", f"wheel: {wheel_bytes(bench) / 1e6:.1f} MB"]
    return lines


def run_stages(bench: Bench, threads: int) -> dict:
    """What `reconstruct_stages` prints, in a process of its own: its peak is of nothing else."""
    command = [sys.executable, str(STAGES), str(bench.work_dir), f"--threads={threads}"]
    command.append(f"--rounds={bench.rounds}")
    variables = dict.fromkeys(THREADS, str(threads))
    output = subprocess.run(
        command, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(output.stdout)


def stage_table(by_threads: Mapping[int, dict]) -> list[str]:
    names = dict.fromkeys(name for found in by_threads.values() for name in found["stages"])
    head = [f"{count} thread{'s' * (count > 1)}, CPU ms (ms)" for count in by_threads]
    rows = [
        [name, *(_milliseconds(found["stages"][name]) for found in by_threads.values())]
        for name in names
    ]
    peaks = [f"{found['peak_bytes'] / 1e6:,.0f} MB" for found in by_threads.values()]
    return _table(["a photo of 512 px with one face", *head], [*rows, ["peak of memory", *peaks]])


def start_table(bench: Bench) -> list[str]:
    """The command from its start to the astronaut's files, without and with compiled loops."""
    caches = bench.work_dir / "numba"
    rows = []
    for name in ("nothing compiled yet", "again"):
        output = bench.work_dir / name.replace(" ", "_")
        command = [sys.executable, "-m", "prnet.reconstruct", f"output={output}"]
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=os.environ | {"NUMBA_CACHE_DIR": str(caches)},
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        if status:
            raise RuntimeError(f"{' '.join(command)}: ended with status {status}")
        cpu = used.ru_utime + used.ru_stime
        rows.append([name, f"{cpu:.1f}", f"{wall:.1f}"])
    return _table(["start to the first files", "CPU s", "s"], rows)


def wheel_bytes(bench: Bench) -> int:
    """Of the wheel that `pip install .` would install."""
    folder = bench.work_dir / "wheel"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, stdout=sys.stderr)
    (wheel,) = folder.glob("*.whl")
    return wheel.stat().st_size


def _milliseconds(seconds: Sequence[float]) -> str:
    cpu, wall = (plain(1000 * value) for value in seconds)
    return f"{cpu} ({wall})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in cells]
