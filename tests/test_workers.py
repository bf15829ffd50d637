"""Work spread over processes: every part once, tools made once each, errors not swallowed."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from prnet.workers import in_processes, loader_of


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


def wait_until(done, *, seconds=180.0) -> bool:
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


class Pair(NamedTuple):
    numbers: torch.Tensor
    names: list[str]
    scans: list[torch.Tensor]


def collate(items: list[int]) -> Pair:
    numbers = torch.tensor(items)
    return Pair(numbers, [str(number) for number in items], [numbers.double(), numbers[:0]])


def collate_without_room(items: list[int]) -> Pair:
    """As in a container whose shared memory is full; called in a process of the loader alone."""

    def full(_tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    torch.Tensor.share_memory_ = full
    return collate(items)


def test_batches_that_shared_memory_has_no_room_for_arrive(caplog):
    loader = loader_of(range(5), collate_without_room, batch_size=2, num_workers=1)
    assert len(loader) == 3
    found = list(loader)
    for batch, expected in zip(found, map(collate, ([0, 1], [2, 3], [4])), strict=True):
        assert isinstance(batch, Pair)
        assert not batch.numbers.is_shared()
        assert batch.names == expected.names
        for one, other in zip(
            [batch.numbers, *batch.scans], [expected.numbers, *expected.scans], strict=True
        ):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
    assert caplog.text.count("docker run --shm-size") == 1


def test_batches_share_memory_where_there_is_room():
    (batch,) = loader_of(range(2), collate, batch_size=2, num_workers=1)
    assert batch.numbers.is_shared()
    assert torch.equal(batch.numbers, torch.tensor([0, 1]))
