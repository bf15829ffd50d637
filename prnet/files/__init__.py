"""The one reader of each kind of file (JSON, NumPy, MATLAB, CSV, tables of numbers), and writing
any file whole.

Every reader raises FileNotFoundError with its `hint`, what to do about a missing file, and
ValueError for a damaged one; both name the file.
"""

import contextlib
import csv
import errno
import glob
import io
import json
import os
import re
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tables of text need no arrays: they are imported where one is read or written
    import numpy as np

# What the system says of one file, whatever its disk does; None: what is said in our own words.
ERRORS_OF_ONE = "ENOENT EACCES EPERM EISDIR ENOTDIR ELOOP ENAMETOOLONG"
OF_ONE_FILE = (None, *(getattr(errno, name) for name in ERRORS_OF_ONE.split()))
# How `written_whole` names what it has not finished, by the number of its process.
TEMPORARY = re.compile(r"\..*\.(\d+)\.tmp(\.[^.]*)?")
# So old they are nobody's, whoever shares the folder.
STALE_SECONDS = 3600


def visible_files(
    folder: Path | str, suffixes: Iterable[str] | None = None, *, below: bool = False
) -> list[Path]:
    """The files of a folder, and `below` of its sub-folders, sorted; suffixes in any case.

    Names that begin with a dot are left out: thumbnails, copies of attributes, and what killed
    writers leave.
    """
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if below and not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    wanted = None if suffixes is None else tuple(suffixes)
    return sorted(path for path in found if wanted is None or path.suffix.lower() in wanted)


def matching_files(pattern: str) -> list[Path]:
    """The file of that name, or what the pattern matches, sorted; a folder that exists is none."""
    path = Path(pattern)
    if path.is_file():
        return [path]
    there = next(folder for folder in (*path.parents, Path()) if folder.is_dir())
    found = glob.iglob(str(path.relative_to(there)), root_dir=there, recursive=True)
    return sorted(file for name in found if (file := there / name).is_file())


@contextlib.contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder, moved onto `path` when the block ends without an
    error.

    Whoever reads `path` sees the old content or the new, never half of it; folders are made as
    needed.

    Raises:
        OSError: it cannot be written, as where the disk is full; names `path`.
    """
    path = Path(path)
    # The suffix stays last: writers such as numpy.save and cv2.imwrite go by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if not _is_of_writing(error, temporary):
            raise
        number = getattr(error, "errno", None)  # torch's writer names not even the disk
        reason = os.strerror(number) if number else str(error).partition("\n")[0]
        named = OSError(f"{path}: cannot be written ({reason}); free some room, or write elsewhere")
        named.errno = number
        raise named from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def of_one_file(error: Exception) -> bool:
    """Whether an error says something of one file, rather than of the disk that holds it."""
    return not isinstance(error, OSError) or error.errno in OF_ONE_FILE


def _is_of_writing(error: OSError | RuntimeError, temporary: Path) -> bool:
    """Whether an error is that of a writer, and of no other file."""
    if isinstance(error, RuntimeError):
        return "PytorchStreamWriter" in str(error) or "write failed" in str(error)
    if error.filename is None:
        return error.errno is not None or "requested and" in str(error)  # numpy's words
    named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if name]
    return temporary in named  # a copy names both


def require_folder(path: Path | str) -> None:
    """Make a folder and see that files can be written there.

    Raises:
        OSError: they cannot; names the folder and says why.
    """
    try:
        with written_whole(Path(path) / "probe") as temporary:
            temporary.touch()
        (Path(path) / "probe").unlink()
    except OSError as error:
        reason = (error.__cause__ or error).strerror
        raise OSError(
            f"{path}: cannot be written ({reason}); choose another output folder"
        ) from error
    remove_leftovers(Path(path), older_than=STALE_SECONDS)


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove what killed writers have not finished, here and in all folders below; in a folder that
    others write to, only what is some seconds old."""
    newest = time.time() - older_than
    for path in folder.rglob(".*"):
        if TEMPORARY.fullmatch(path.name) and (not older_than or path.stat().st_mtime < newest):
            path.unlink(missing_ok=True)


def write_json(path: Path | str, content: object) -> None:
    """Write plain values; NaN and infinity raise ValueError, since JSON has neither."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path | str, text: str) -> None:
    """Write a text, UTF-8."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_npz(path: Path | str, arrays: Mapping[str, object]) -> None:
    """Write a compressed .npz at zlib's fastest level: a mesh takes a third of the time of numpy's
    own, and no more room."""
    import numpy as np

    with (
        written_whole(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)


def csv_text(lines: Iterable[Sequence]) -> str:
    """The cells of each line as a CSV file has them."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---") -> str:
    """A table in Markdown; `rule` stands below each heading behind the first."""
    lines = ["".join(f" {cell} |" if cell else " |" for cell in row) for row in (header, *rows)]
    lines.insert(1, "---|" + f"{rule}|" * (len(header) - 1))
    return "\n".join(f"|{line}" for line in lines)


def require_file(path: Path) -> None:
    """Raise ValueError for a folder, and for pipes and devices, which may have no end, and
    FileNotFoundError where there is nothing."""
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{path}: not a file, but a folder, a pipe or a device")
        raise FileNotFoundError(f"{path}: no such file")


def read_bytes(path: Path) -> bytes:
    """All of a file.

    Raises:
        FileNotFoundError, ValueError: as `require_file`.
        OSError: it cannot be read; names it.
    """
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


def read_text(path: Path) -> str:
    """As `read_bytes`, decoded from UTF-8, with or without its mark."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error})") from error


def read_json_object(path: Path) -> dict:
    """Raises ValueError, naming the file, where it holds no JSON object."""
    text = read_text(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
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
    """A MATLAB 5 file as a dictionary of arrays; MATLAB 7.3 (HDF5) is refused."""
    from prnet.files.matlab import mat_variables

    with reading(path, "a readable MATLAB file", hint):
        return mat_variables(path.read_bytes())


def read_table(path: Path, *, hint: str) -> "np.ndarray":
    """A text file of numbers, one row a line, (rows, columns), or (columns,) for a single line."""
    import numpy as np

    with reading(path, "a table of numbers", hint):
        lines = path.read_text().split("\n")
        if not any(line.strip() for line in lines):
            raise ValueError("the file is empty")
        return np.loadtxt(lines)


def read_npz(path: Path, *required: str, hint: str) -> dict[str, "np.ndarray"]:
    """All arrays of an .npz, among them those that are `required`; Python objects are refused."""
    import numpy as np

    # Given a path, numpy leaves a damaged archive open.
    with reading(path, "a readable .npz file", hint), path.open("rb") as file:
        with np.load(file, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    lacking = [name for name in required if name not in content]
    if lacking:
        raise ValueError(f"{path}: no array {', '.join(lacking)}, found {sorted(content)}")
    return content


def read_npy(path: Path, *, hint: str, mapped: bool = False) -> "np.ndarray":
    """The array of an .npy, Python objects refused; `mapped`: left on the disk and read as it is
    used."""
    import numpy as np

    with reading(path, "a readable .npy file", hint):
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)


@contextlib.contextmanager
def reading(path: Path, kind: str, hint: str) -> Iterator[None]:
    """What is raised while a file is read, as the errors of this module."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {hint}")
    try:
        yield
    except Exception as error:  # noqa: BLE001 - on damaged files scipy and numpy raise nearly anything
        if isinstance(error, OSError) and not of_one_file(error):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise ValueError(f"{path}: not {kind} ({error})") from error
