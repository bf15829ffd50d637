"""What many messages are made of: checks of a choice, of numbers, of a MATLAB file's elements;
differences and lists of names."""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

# Types of the elements of a MATLAB 5 file.
MAT_MATRIX, MAT_COMPRESSED = 14, 15
MAT_ELEMENTS = (*range(1, 8), 9, 12, 13, MAT_MATRIX, MAT_COMPRESSED, 16, 17, 18)
# Names that a message lists before it only counts.
MOST_NAMES = 10


def require_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise ValueError unless `value` is one of `choices`, which the message lists."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, choices))}")


def require_finite(what: str, values: np.ndarray) -> None:
    """Raise ValueError where an array, such as "FILE: NAME", holds NaN or infinity."""
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds values that are not finite")


def differences(old: object, new: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Where plain values differ: the key, dotted, and both values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield path, old, new
        return
    for key in sorted(old.keys() | new.keys()):
        yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)


def require_mat_elements(data: memoryview, byte_order: str) -> None:
    """Raise ValueError where the elements of a MATLAB 5 file, `data` without its header, are of no
    known type or longer than what holds them: scipy takes the types for places in a table of its
    own, and the process dies with it."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{byte_order}II", data, place)
        start, after = place + 8, place + 8 + size + (-size) % 8
        if kind >> 16:  # four bytes at most stand in the tag itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        if kind == MAT_COMPRESSED:
            after = start + size  # these alone are not padded
        if kind not in MAT_ELEMENTS or start + size > len(data) or start + size > after:
            raise ValueError(f"an element of type {kind} and {size} bytes at byte {place}")
        if kind == MAT_COMPRESSED:
            inner = zlib.decompress(data[start:after])
            require_mat_elements(memoryview(inner), byte_order)
        elif kind == MAT_MATRIX:
            require_mat_elements(data[start : start + size], byte_order)
        place = after


def faults_listed(faults: Mapping[str, Sequence[str]]) -> str:
    """`2 missing (a, b); 7 unexpected (c, d, e, f, g, ...)` of names by kind; empty without any."""
    return "; ".join(
        f"{len(names)} {kind} ({_first(names, 5)})" for kind, names in faults.items() if names
    )


def name_list(names: Iterable[str]) -> str:
    """`3: image00002, image00004, image00006`, cut short with an ellipsis, for a message."""
    names = list(names)
    return f"{len(names)}: {_first(names, MOST_NAMES)}"


def _first(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
