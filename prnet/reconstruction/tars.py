"""Tar files: read as folders of photos, as WebDataset's shards are, and written of results.

A member's path is that of its tar with its own name behind it: `a.tar/b/c.jpg`.
"""

import contextlib
import functools
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

from prnet.files import written_whole

SUFFIX = ".tar"


class Member(NamedTuple):
    """Where the bytes of a member lie in its tar."""

    start: int
    size: int


def is_tar(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.is_file()


def tar_of(path: Path) -> Path | None:
    """The tar whose member a path is; None: it is of no tar."""
    return next((parent for parent in path.parents if is_tar(parent)), None)


def members_of(tar: Path, suffixes: Sequence[str]) -> list[Path]:
    """The visible files of a tar with one of these suffixes, in its order; where `damage_of` says
    something, those before the damage.

    Raises:
        ValueError: not a tar, or a compressed one.
        OSError: it cannot be read.
    """
    names = _index(tar).members
    return [tar / name for name in names if PurePosixPath(name).suffix.lower() in suffixes]


def damage_of(tar: Path) -> str | None:
    """Where a tar breaks off or its headers are damaged; None: nowhere."""
    end = _index(tar).broken_at
    if end is None:
        return None
    return f"{tar}: cut off or damaged at byte {end}; what lies behind is lost"


def read_member(tar: Path, path: Path) -> bytes:
    """The content of a member.

    Raises:
        FileNotFoundError: the tar has no such member.
        ValueError: the tar ends before the member does; or as `members_of`.
    """
    member = _index(tar).members.get(path.relative_to(tar).as_posix())
    if member is None:
        raise FileNotFoundError(f"{path}: no such file in {tar}")
    with tar.open("rb") as file:
        file.seek(member.start)
        data = file.read(member.size)
    if len(data) < member.size:
        raise ValueError(f"{path}: cut off, {tar} has {len(data)} of its {member.size} bytes")
    return data


class _Index(NamedTuple):
    """What the headers of a tar say."""

    members: dict[str, Member]  # by name, of the visible regular files
    broken_at: int | None  # the byte where there is neither a header nor the end; None: nowhere


def _index(tar: Path) -> _Index:
    stat = tar.stat()
    return _read_index(tar, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_index(tar: Path, size: int, _changed: int) -> _Index:
    found: dict[str, Member] = {}
    if size == 0:
        raise ValueError(f"{tar}: the file is empty")
    try:
        with tar.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            with contextlib.suppress(tarfile.ReadError):
                while (one := archive.next()) is not None:
                    archive.members = []  # or a tar of a million would be held twice
                    parts = [part for part in PurePosixPath(one.name).parts if part != "/"]
                    if one.isreg() and parts and not any(part.startswith(".") for part in parts):
                        found["/".join(parts)] = Member(one.offset_data, one.size)
            end = archive.offset
            file.seek(end)
            whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        raise ValueError(
            f"{tar}: not a readable tar ({error}); shards are plain tars, not compressed ones"
        ) from error
    return _Index(found, None if whole else min(end, size))


class TarWriter:
    """A tar that appears, whole, when the block ends that it is used in; the same files make the
    same bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        temporary = self._opened.enter_context(written_whole(self.path))
        # GNU's format has no limit to names and sizes, and no time of the day in its headers.
        archive = tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT)
        self._archive = self._opened.enter_context(archive)
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(*error)

    def add(self, file: Path, name: str) -> None:
        """Append a file's content under a name."""
        header = tarfile.TarInfo(name)
        header.size = file.stat().st_size
        with file.open("rb") as stream:
            self._archive.addfile(header, stream)
