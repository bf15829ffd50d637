"""Reading MATLAB files and tables, and writing any file whole."""

import contextlib
import json
import os
from collections.abc import Iterator
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
