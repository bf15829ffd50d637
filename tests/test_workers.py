"""Work spread over processes: every part once, tools made once each, errors not swallowed."""

import functools
import os

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
