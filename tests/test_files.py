"""The readers: what they return, and what they say of a file that is not as it should be."""

import contextlib
import errno
import os
import time

import numpy as np
import pytest
import scipy.io

from prnet.datasets.pictures import write_picture
from prnet.files import (
    read_bytes,
    read_mat,
    read_npy,
    read_npz,
    remove_leftovers,
    write_json,
    write_npz,
    written_whole,
)
from prnet.files.csv_tables import read_csv
from prnet.files.matlab import checked_mat_arrays

HEADERS = ("name", "x", "y"), ("name", "x", "y", "z")


def test_csv_of_named_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffname,x,y\n\na,1,2.5\n\nb, ,nan\n", encoding="utf-8")
    table = read_csv(path, *HEADERS, hint="", may_be_empty=True)
    assert table.columns == ("x", "y")
    assert list(table.rows) == ["a", "b"]
    np.testing.assert_array_equal(table.rows["a"], [1, 2.5])
    np.testing.assert_array_equal(table.rows["b"], [np.nan, np.nan])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the first line is '', expected 'name,x,y' or 'name,x,y,z'"),
        (b"name,x\n", "the first line is 'name,x', expected"),
        (b"name,x,y\na,1,2\n\nb,3\n", r"line 4 is 'b,3', expected a name and 2 finite number"),
        (b"name,x,y\na,1,\n", "line 2 is 'a,1,', .*; y is ''"),
        (b"name,x,y\na,inf,1\n", ".*; x is 'inf'"),
        (b"name,x,y\na,1,2\na,3,4\n", r"a appears twice \(line 3\)"),
        (b"\xff\xfe\x00", "not a readable CSV"),
    ],
)
def test_unusable_csv(text, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
        read_csv(path, *HEADERS, hint="")


@pytest.mark.parametrize("reader", [read_npy, read_npz])
def test_damaged_and_missing_arrays(reader, tmp_path):
    name = reader.__name__.removeprefix("read_")
    path = tmp_path / f"a.{name}"
    with pytest.raises(FileNotFoundError, match=rf"a\.{name}: missing; look elsewhere"):
        reader(path, hint="look elsewhere")
    objects = np.array([{}, 1], dtype=object)
    for content in (b"", b"PK\x03\x04 torn", objects):
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif reader is read_npy:
            np.save(path, content, allow_pickle=True)
        else:
            np.savez(path, content, allow_pickle=True)
        with pytest.raises(ValueError, match=rf"a\.{name}: not a readable \.{name} file"):
            reader(path, hint="")


def test_arrays_that_must_be_there(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.zeros(3))
    assert list(read_npz(tmp_path / "a.npz", "points", hint="")) == ["points"]
    with pytest.raises(ValueError, match=r"no array landmarks, found \['points'\]"):
        read_npz(tmp_path / "a.npz", "points", "landmarks", hint="")
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="not a readable .npy file"):
        read_npy(tmp_path / "a.npy", hint="")


def test_a_compressed_npz_comes_back_as_it_was(tmp_path):
    arrays = {
        "numbers": np.arange(12.0, dtype=np.float32).reshape(3, 4).T,
        "word": "zero_based",
        "share": 0.25,
    }
    write_npz(tmp_path / "a.npz", arrays)
    found = read_npz(tmp_path / "a.npz", "numbers", "word", "share", hint="")
    for name, values in arrays.items():
        assert found[name].dtype == np.asarray(values).dtype
        np.testing.assert_array_equal(found[name], values)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    assert (tmp_path / "a.npz").stat().st_size < 1.1 * (tmp_path / "b.npz").stat().st_size


def test_an_npz_of_objects_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="[Oo]bject"):
        write_npz(tmp_path / "a.npz", {"a": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0: write failed"),
        OSError("4096 requested and 0 written"),
    ],
)
def test_a_full_disk_names_the_file_that_is_not_written(error, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")

    def write() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(OSError, match=r"report\.json: cannot be written \(.*\); free"):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_errors_of_another_file_keep_their_own_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), written_whole(tmp_path / "a") as _:
        (tmp_path / "other").read_text()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {}),
        lambda path: write_npz(path, {"a": np.zeros(3)}),
        lambda path: write_picture(path.with_suffix(".png"), np.zeros((9, 9, 3), np.uint8)),
    ],
)
def test_a_full_disk_is_named_with_the_file_and_leaves_the_old_one(write, tmp_path, monkeypatch):
    path = tmp_path / "a"
    for name in ("a", "a.png"):
        (tmp_path / name).write_text("old")

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    message = rf"^{path}(\.png)?: cannot be written \(No space left on device\); free some room"
    with pytest.raises(OSError, match=message) as raised:
        write(path)
    assert raised.value.errno == errno.ENOSPC
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "a.png"]
    assert (tmp_path / "a").read_text() == "old"


def test_an_error_of_another_file_stays_its_own(tmp_path):
    """Copied is what cannot be read, not the copy."""
    message = r"No such file.*there/b'$"
    with pytest.raises(FileNotFoundError, match=message), written_whole(tmp_path / "a") as copy:
        copy.write_bytes((tmp_path / "there" / "b").read_bytes())


def test_what_killed_writers_left_is_removed_once_it_is_old(tmp_path):
    mine = [tmp_path / ".a.7.tmp.json", tmp_path / "b" / ".c.8.tmp"]
    others = [tmp_path / ".a.json", tmp_path / "a.7.tmp.json", tmp_path / ".tmp"]
    (tmp_path / "b").mkdir()
    for path in mine + others:
        path.touch()
    old = time.time() - 100
    os.utime(mine[1], (old, old))
    remove_leftovers(tmp_path, older_than=50)
    assert [path.exists() for path in mine] == [True, False]
    remove_leftovers(tmp_path)
    assert not mine[0].exists()
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_file_with_unknown_elements_is_refused(compressed, tmp_path):
    """scipy would end the process: every type of every element is another one, in turn."""
    path = tmp_path / "a.mat"
    content = {"pose": np.arange(7.0)[None], "few": np.int8([[1, 2]]), "text": "abc"}
    scipy.io.savemat(path, content | {"struct": {"field": np.eye(3)}}, do_compression=compressed)
    good = path.read_bytes()
    assert sorted(name for name in read_mat(path, hint="") if name[0] != "_") == [
        "few",
        "pose",
        "struct",
        "text",
    ]
    for place in range(128, 132 if compressed else len(good) - 4, 4):
        for kind in (0, 3, 5, 8, 12, 14, 16, 19, 0x1007, 0x40005):
            path.write_bytes(good[:place] + kind.to_bytes(4, "little") + good[place + 4 :])
            with contextlib.suppress(ValueError):
                read_mat(path, hint="")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_file_of_numbers_is_as_scipy_reads_it(compressed, tmp_path):
    """Every type, more axes, nothing at all; what is no plain number is left to scipy."""
    random = np.random.default_rng(0)
    plain = {
        f"{kind}{'_'.join(map(str, shape))}": random.integers(0, 100, shape).astype(kind)
        for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
        for shape in ((1, 1), (3, 2), (2, 3, 4))
    }
    plain["nothing"] = np.zeros((0, 3))
    others = [{}, {"a": "text"}, {"a": np.eye(2) * 1j}, {"a": np.eye(2) > 0}, {"a": {"b": 1.0}}]
    for more in others:
        path = tmp_path / "a.mat"
        scipy.io.savemat(path, plain | more, do_compression=compressed)
        assert (checked_mat_arrays(path.read_bytes()) is None) == bool(more)
        got, expected = read_mat(path, hint=""), scipy.io.loadmat(path)
        assert {key for key in expected if key[0] != "_"} == {key for key in got if key[0] != "_"}
        for key in plain:
            np.testing.assert_array_equal(got[key], expected[key], strict=True)
            assert got[key].flags.writeable


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "folder.txt").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(ValueError, match=rf"{name}\.txt: not a file, but a folder, a pipe or"):
            read_bytes(tmp_path / f"{name}.txt")
    with pytest.raises(FileNotFoundError, match=r"no\.txt: no such file"):
        read_bytes(tmp_path / "no.txt")
