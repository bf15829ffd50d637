"""Work spread over processes: every part once, tools made once each, errors not swallowed."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prnet.workers import in_processes


def add(part: int, tools: dict, *, more: int) -> tuple[int, int]:
    return part + tools["ten"] + more, os.getpid()


def make_tools() -> dict:
    return {"ten": 10}


def refuse() -> dict:
    raise ValueError("FILE: damaged")


@pytest.mark.parametrize("workers", [0, 2])
def test_every_part_comes_once_with_its_result(workers):
    work = functools.partial(add, more=100)
    done = dict(in_processes(work, range(5), make_tools, workers=workers))
    assert {part: result for part, (result, _) in done.items()} == {k: k + 110 for k in range(5)}
    elsewhere = {process != os.getpid() for _, process in done.values()}
    assert elsewhere == {workers > 0}


@pytest.mark.parametrize("workers", [0, 2])
def test_tools_that_cannot_be_made_are_reported_at_once(workers):
    with pytest.raises(ValueError, match="FILE: damaged"):
        next(in_processes(add, [1], refuse, workers=workers))


def test_without_parts_nothing_is_prepared():
    assert list(in_processes(add, [], refuse, workers=0)) == []


def test_processes_end_with_the_one_that_started_them(tmp_path):
    """Killed, it can tell them nothing."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, time\n"
        "from prnet.workers import in_processes\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "def work(piece, _tools):\n"
        "    (folder / f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    list(in_processes(work, [1, 2], dict, workers=2))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, script], env=environment)
    try:
        assert wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert wait_until(lambda: not any(map(is_alive, workers)))


def wait_until(done, *, seconds=60.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def is_alive(process: int) -> bool:
    """A dead one that nobody has waited for is dead."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
