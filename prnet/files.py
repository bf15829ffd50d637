"""Reading JSON, MATLAB files and tables, and writing any file whole."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import scipy.io


@contextlib.contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder, moved onto `path` when the block ends without an
    error.

    Whoever reads `path` sees the old content or the new, never half of it; folders are made as
    needed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as numpy.save and cv2.imwrite go by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: object) -> None:
    """Write plain values; NaN and infinity raise ValueError, since JSON has neither."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json_object(path: Path) -> dict:
    """Raises ValueError, naming the file, where it holds no JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of bytes that are no text, too
        raise ValueError(f"{path}: not readable as JSON ({error}); write it again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def take(values: Mapping, key: str, kind: type | tuple, where: object) -> object:
    """`values[key]`, of the given type.

    Raises:
        ValueError: absent or of another type; names place and key.
    """
    names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
    if not isinstance(values, dict) or key not in values:
        raise ValueError(f"{where}: no {key!r}, expected {names}")
    value = values[key]
    # JSON's true is an int to Python.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: {key} is {value!r}, expected {names}")
    return value


def read_mat(path: Path, *, hint: str) -> dict:
    """A MATLAB 5 file as a dictionary of arrays.

    Raises:
        FileNotFoundError: with `hint`, what to do about it.
        ValueError: unreadable, truncated, or MATLAB 7.3 (HDF5).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {hint}")
    try:
        return scipy.io.loadmat(path)
    except NotImplementedError as error:
        raise ValueError(f"{path}: MATLAB 7.3 format; save it again with -v7") from error
    except Exception as error:  # noqa: BLE001 - on a damaged file scipy raises nearly anything
        raise ValueError(f"{path}: not a readable MATLAB file ({error})") from error


def read_table(path: Path, *, hint: str) -> np.ndarray:
    """A text file of numbers, one row a line, (rows, columns), or (columns,) for a single line.

    Raises:
        FileNotFoundError: with `hint`, what to do about it.
        ValueError: empty, or not a table of numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {hint}")
    try:
        lines = path.read_text().split("\n")
        if not any(line.strip() for line in lines):
            raise ValueError("the file is empty")
        return np.loadtxt(lines)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers ({error})") from error
