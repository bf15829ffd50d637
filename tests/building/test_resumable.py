"""The builders' loop: what is planned, what is left, who does it, and what is left behind."""

import concurrent.futures
import errno
import functools
from pathlib import Path

import pytest

from prnet.building import resumable as module
from prnet.building.resumable import (
    left_out,
    planned,
    require_most,
    resumable,
    some_reasons,
    write_plan,
)
from prnet.files import read_json_object
from prnet.workers import chunks


def marker(folder: Path, item: int) -> Path:
    return folder / f"{item}.txt"


def work(items, tools, *, folder: Path) -> dict[str, str]:
    """Every item leaves the number of its piece's items; 5 cannot be used."""
    for item in items:
        if item != 5:
            marker(folder, item).write_text(f"{tools} {len(items)}")
    return {"5": "is odd"} if 5 in items else {}


def job(folder: Path, **values) -> dict:
    return {
        "work": functools.partial(work, folder=folder),
        "prepare": lambda: "hammer",
        "marker": functools.partial(marker, folder),
        "title": "build",
        "unit": "item",
        "seconds": 1.0,
        **values,
    }


def contents(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in folder.glob("*.txt")}


def test_only_what_is_left_is_done_and_what_cannot_be_used_is_told(tmp_path):
    marker(tmp_path, 1).write_text("there")
    (tmp_path / ".2.77.tmp.txt").write_text("half of")
    assert resumable(tmp_path, chunks(range(7), 3), **job(tmp_path), workers=0) == {"5": "is odd"}
    assert contents(tmp_path) == {
        "0": "hammer 2",
        "1": "there",
        "2": "hammer 2",
        "3": "hammer 3",
        "4": "hammer 3",
        "6": "hammer 1",
    }
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_prepared_for_nothing(tmp_path):
    def refuse():
        raise AssertionError

    for item in range(3):
        marker(tmp_path, item).write_text("there")
    assert resumable(tmp_path, [range(3)], **job(tmp_path, prepare=refuse), workers=2) == {}


@pytest.mark.parametrize(("seconds", "processes"), [(0.1, None), (1.0, 3)])
def test_processes_start_where_there_is_work_for_them(tmp_path, monkeypatch, seconds, processes):
    """No more of them than pieces; threads stand for them here."""
    started = []

    class Pool(concurrent.futures.ThreadPoolExecutor):
        def __init__(self, workers, *, mp_context, initializer, initargs):
            started.append(workers)
            super().__init__(workers, initializer=initializer, initargs=initargs)

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", Pool)
    monkeypatch.setattr(module, "POOL_FROM", 4.0)
    resumable(tmp_path, chunks(range(7), 3), **job(tmp_path, seconds=seconds), workers=8)
    assert len(contents(tmp_path)) == 6
    assert started == ([] if processes is None else [processes])


def test_size_of_an_item_counts(tmp_path, capsys):
    resumable(tmp_path, [[2], [3]], **job(tmp_path, size=lambda item: 10 * item), workers=0)
    assert "50/50" in capsys.readouterr().err


def test_plan_is_written_once_and_held_to(tmp_path):
    folder = tmp_path / "new"
    write_plan(folder, rule={"scale": 1.5, "bins": (0, 30)}, seed=3)
    file = folder / "plan.json"
    plan = {"format": 2, "rule": {"scale": 1.5, "bins": [0, 30]}, "seed": 3}
    assert read_json_object(file) == plan
    before = file.stat().st_mtime_ns
    (folder / "a.txt").write_text("made")
    write_plan(folder, rule={"scale": 1.5, "bins": (0, 30)}, seed=3)
    assert file.stat().st_mtime_ns == before
    message = "planned otherwise: rule.scale is 1.5 there and 1.6 here, size is None there and 4 "
    with pytest.raises(ValueError, match=message + r"here; choose another output= or delete it"):
        write_plan(folder, rule={"scale": 1.6, "bins": (0, 30)}, seed=3, size=4)
    with pytest.raises(
        ValueError,
        match="seed is 3 there and 0 here and 1 more;",
    ):
        write_plan(folder, rule={"scale": 1.6, "bins": ()}, seed=0, size=4)


def test_one_build_at_a_time_and_what_killed_ones_left_is_cleared(tmp_path):
    """A writer of the plan that was killed leaves its temporary file alone; other names that begin
    with a dot are not ours."""
    mine = [tmp_path / name for name in (".plan.71.tmp.json", "a/.b.5.tmp.jpg", "a/.c.5.tmp")]
    theirs = [tmp_path / name for name in (".DS_Store", "a/.tmp.jpg", "a/x.5.tmp.jpg")]
    mine[0].touch()
    with planned(tmp_path, seed=3):
        with pytest.raises(OSError, match="another process is building there; wait for it"):
            planned(tmp_path, seed=3).__enter__()
    (tmp_path / "a").mkdir()
    for path in mine + theirs:
        path.touch()
    with planned(tmp_path, seed=3):
        assert not any(path.exists() for path in mine)
        assert all(path.exists() for path in theirs)


def test_folders_of_others_and_of_earlier_versions_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"without a plan\.json: .* or by an earlier version"):
        write_plan(tmp_path, seed=3)
    (tmp_path / "plan.json").write_text('{"format": 0, "seed": 3}')
    with pytest.raises(ValueError, match="of another version, format 0 where this one writes 2"):
        write_plan(tmp_path, seed=3)


def test_a_file_is_left_out_and_a_disk_stops():
    unusable = {}
    for name, error in (
        ("torn", ValueError("no picture")),
        ("gone", FileNotFoundError(errno.ENOENT, "gone", "a.jpg")),
        ("ours", OSError("said by ourselves")),
    ):
        with left_out(unusable, name):
            raise error
    assert list(unusable) == ["torn", "gone", "ours"]
    for number in (errno.EIO, errno.ESTALE, errno.ENODEV):
        message = "b: cannot be read .*disk or a network drive fails; .* run the same command"
        with pytest.raises(OSError, match=message), left_out(unusable, "b"):
            raise OSError(number, "fails", "b.jpg")
    assert "b" not in unusable


def test_a_large_share_left_out_is_an_error():
    require_most("set", 2, {"a": "torn", "b": "gone"})
    with pytest.raises(ValueError, match=r"set: 2 of 3 cannot be used and are left out \(a: torn"):
        require_most("set", 1, {"a": "torn", "b": "gone"})


def test_few_reasons_are_enough():
    assert some_reasons({"a": "torn", "b": "gone"}) == "a: torn; b: gone"
    assert some_reasons({name: "gone" for name in "abcde"}) == "a: gone; b: gone; c: gone"
