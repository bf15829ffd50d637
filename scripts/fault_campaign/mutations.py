"""Damaged files given to every reader: what does it say?"""

import contextlib
import dataclasses
import hashlib
import os
import re
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

SECONDS = 20  # longer than this a reader hangs
LONGEST_MESSAGE = 600
MOST_MEMORY = 4 << 30  # bytes
# What may come of a mutation.
SAME, CLEAR, OTHER, WRONG = "as before", "one clear line", "read as other values", "wrong"


# With some of the blanks that follow, so that more digits fit.
NPY_SHAPE = re.compile(rb"'shape': \([^)]*\), } {6}")


class Kind(NamedTuple):
    """A kind of file, and how it is read."""

    name: str
    file: Path  # a good one
    read: Callable[[Path], object]  # of a file in a folder that looks like the good one's
    checked: bool  # the format can tell damage: read as other values is wrong


class HangError(BaseException):
    """No `Exception`, which readers take for damage."""


def mutations(data: bytes, random: np.random.Generator, count: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, the bytes then), `count` of each sort that is drawn."""
    size = len(data)
    yield "empty", b""
    yield "text", b"hello\n"
    yield "zeros", bytes(size)
    yield "twice", data + data
    yield "a web page", b"<!DOCTYPE html><html><head><title>403</title></head></html>\n"
    for _ in range(count):
        at, bit = int(random.integers(size)), int(random.integers(8))
        early = int(random.integers(min(size, 256)))
        some = random.integers(0, 256, 8, np.uint8).tobytes()
        for where in (at, early):
            changed = bytearray(data)
            changed[where] ^= 1 << bit
            yield "a bit", bytes(changed)
        yield "eight bytes", data[:at] + some + data[at + 8 :]
        yield "a gap", data[:at] + data[at + 64 :]
        yield "something between", data[:at] + some * 8 + data[at:]
        yield "a hole", data[:at] + bytes(min(512, size - at)) + data[at + 512 :]
        yield "cut", data[:at]
        yield "something after", data + some * 4
    shape = NPY_SHAPE.search(data[:256])
    if shape:
        declared = b"'shape': (%d,), }" % 10**12
        yield "1e12 values", data.replace(shape[0], declared.ljust(len(shape[0])), 1)


def special_files(path: Path) -> Iterator[str]:
    """Put what is no file in its place, one after the other."""
    for name in ("a folder", "a pipe", "a link to nothing", "a device without an end"):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if name == "a folder":
            path.mkdir()
        elif name == "a pipe":
            os.mkfifo(path)
        elif name == "a link to nothing":
            path.symlink_to(path.with_name("nothing"))
        else:
            path.symlink_to("/dev/zero")
        yield name
    path.unlink()


def mutate(kind: Kind, *, count: int, seed: int) -> tuple[Counter, list[str]]:
    """How often what came of the mutations of a kind, and those that are wrong."""
    random = np.random.default_rng(seed)
    good = kind.file.read_bytes()
    expected = digest(kind.read(kind.file))
    outcomes, faults = Counter(), []

    def judge(what: str) -> None:
        outcome, why = read(kind, expected)
        outcomes[outcome] += 1
        if outcome == WRONG:
            faults.append(f"{kind.name}, {what}: {why}")

    try:
        for number, (what, data) in enumerate(mutations(good, random, count)):
            if data != good:
                kind.file.write_bytes(data)
                judge(f"{what} ({number})")
        for what in special_files(kind.file):
            judge(what)
    finally:
        kind.file.unlink(missing_ok=True)
        kind.file.write_bytes(good)
    return outcomes, faults


def read(kind: Kind, expected: str) -> tuple[str, str]:
    """What comes of reading the file as it is now, and why that is wrong."""
    try:
        with at_most(SECONDS):
            found = digest(kind.read(kind.file))
    except HangError:
        return WRONG, "hangs"
    except (ValueError, OSError) as error:
        message = str(error)
        if "\n" in message.strip() or len(message) > LONGEST_MESSAGE:
            return WRONG, f"not one line: {message[:200]!r}"
        if kind.file.stem not in message:
            return WRONG, f"does not name the file: {message}"
        return CLEAR, ""
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return WRONG, f"{type(error).__name__}: {error}"
    if found == expected:
        return SAME, ""
    return (WRONG, "other values, and not a word") if kind.checked else (OTHER, "")


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_arguments: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def limit_memory() -> None:
    """What takes more room than this is wrong, and must not take the machine with it."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, used + MOST_MEMORY))


def digest(value: object) -> str:
    """A hash of all that was read."""
    return hashlib.sha256(repr(list(_parts(value))).encode()).hexdigest()


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, np.ndarray):
        yield value.dtype.str, value.shape, value.tobytes()
    elif isinstance(value, Mapping):
        for key in value:
            yield key
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _parts(part)
    else:
        yield value
