"""What many messages are made of: checks of a choice, of numbers, of a MATLAB file's elements;
differences and lists of names."""

import difflib
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np

# A MATLAB 5 file begins with so many bytes; the last two of them say how its numbers lie.
MAT_HEADER, MAT_BYTE_ORDERS = 128, {b"IM": "<", b"MI": ">"}
# Types of the elements of a MATLAB 5 file -> bytes of a number in them; 14 and 15 hold elements.
MAT_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 14: 1, 15: 1}
MAT_ITEM_BYTES |= {16: 1, 17: 2, 18: 4}
MAT_DIMENSIONS, MAT_FLAGS, MAT_MATRIX, MAT_COMPRESSED, MAT_UTF8 = 5, 6, 14, 15, 16
# Classes of its arrays.
MAT_CELL, MAT_STRUCT, MAT_TEXT, MAT_NUMBERS = 1, 2, 4, range(6, 16)
MAT_OTHERS = (3, 16, 17)  # objects and functions, which are not looked into
# Names that a message lists before it only counts.
MOST_NAMES = 10
# Fewer yaws may all be small by chance.
LEAST_YAWS = 10


def require_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise ValueError unless `value` is one of `choices`, which the message lists."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, choices))}")


def nearest_of(name: str, names: Iterable[str]) -> str | None:
    """The one that is spelled most like it; None where none is."""
    return next(iter(difflib.get_close_matches(name, list(map(str, names)), n=1, cutoff=0.7)), None)


def require_count(name: str, value: object, *, least: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number, `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected a whole number from {least} on")


def require_above_zero(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a finite number above 0."""
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: got {value!r}, expected a number above 0")


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


def require_degrees(what: object, values: np.ndarray) -> None:
    """Raise ValueError where yaws are none: beyond half a turn, or all of many so small that they
    are radians."""
    largest = float(np.abs(values).max(initial=0))
    if not largest <= 180:
        raise ValueError(f"{what}: a yaw of {largest:.4g}, expected degrees from -180 to 180")
    if np.size(values) >= LEAST_YAWS and largest <= np.pi:
        raise ValueError(
            f"{what}: the largest of {np.size(values)} yaws is {largest:.3g}, as of radians; "
            "expected degrees"
        )


def require_inside(what: object, names: Iterable[str]) -> None:
    """Raise ValueError where a name of a file, of this system or of Windows, is absolute or goes
    up: nothing is read or written outside the folder that was given."""
    outside = [
        name
        for name in names
        for path in (PurePosixPath(name), PureWindowsPath(name))
        if path.anchor or ".." in path.parts
    ]
    if outside:
        raise ValueError(
            f"{what}: {outside[0]!r} leaves its folder; expected names without .. that do not "
            "begin with a slash or a drive"
        )


def require_mat_elements(data: bytes) -> None:
    """Raise ValueError where the variables of a MATLAB 5 file do not hold what they say: scipy
    trusts types, classes and sizes, and the process dies with it. Other files are not looked at."""
    byte_order = MAT_BYTE_ORDERS.get(data[126:MAT_HEADER])
    if byte_order and data[124:126] in (b"\x00\x01", b"\x01\x00"):  # the version
        _require_mat_variables(memoryview(data)[MAT_HEADER:], byte_order)


def _require_mat_variables(data: memoryview, byte_order: str) -> None:
    for kind, content in _mat_elements(data, byte_order):
        if kind == MAT_COMPRESSED:
            inner = memoryview(zlib.decompress(content))
            _require_mat_variables(inner, byte_order)
        elif kind == MAT_MATRIX and len(content):
            _require_mat_array(list(_mat_elements(content, byte_order)), byte_order)


def _mat_elements(data: memoryview, byte_order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{byte_order}II", data, place)
        start, after = place + 8, place + 8 + size + (-size) % 8
        if kind >> 16:  # four bytes at most stand in the tag itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        if kind == MAT_COMPRESSED:
            after = start + size  # these alone are not padded
        if kind not in MAT_ITEM_BYTES or start + size > min(after, len(data)):
            raise ValueError(f"an element of type {kind} and {size} bytes at byte {place}")
        yield kind, data[start : start + size]
        place = after


def _require_mat_array(parts: Sequence[tuple[int, memoryview]], byte_order: str) -> None:
    """Flags, dimensions, name; then numbers, or the names of fields and an array for each."""
    if not parts or parts[0][0] != MAT_FLAGS or len(parts[0][1]) != 8:
        raise ValueError("an array without flags")
    array_class = struct.unpack(f"{byte_order}I", parts[0][1][:4])[0] & 0xFF
    if array_class in MAT_OTHERS:
        return
    if len(parts) < 3 or parts[1][0] != MAT_DIMENSIONS:
        raise ValueError("an array without dimensions and name")
    dimensions, rest = parts[1][1], parts[3:]
    if len(dimensions) < 8 or len(dimensions) % 4:
        raise ValueError(f"an array of {len(dimensions) / 4:g} dimensions")
    sizes = struct.unpack(f"{byte_order}{len(dimensions) // 4}i", dimensions)
    count = math.prod(sizes)
    known = (MAT_CELL, MAT_STRUCT, MAT_TEXT, *MAT_NUMBERS)
    if min(sizes) < 0 or array_class not in known:
        raise ValueError(f"an array of size {sizes} and class {array_class}, expected full ones")
    for kind, content in rest:
        if kind == MAT_MATRIX and len(content):
            _require_mat_array(list(_mat_elements(content, byte_order)), byte_order)
    if array_class in MAT_NUMBERS or array_class == MAT_TEXT:
        for kind, content in rest:  # of complex numbers two
            fits = len(content) == count * MAT_ITEM_BYTES[kind]
            # A letter of UTF-8 may take several bytes.
            if kind == MAT_MATRIX or not (fits or kind == MAT_UTF8 and len(content) > count):
                raise ValueError(f"an array of size {sizes} with {len(content)} bytes")
        expected = 1 if count else 0
    elif array_class == MAT_CELL:
        expected = count
    else:  # a structure
        if len(rest) < 2 or len(rest[0][1]) != 4:
            raise ValueError("a structure without the names of its fields")
        (length,) = struct.unpack(f"{byte_order}i", rest[0][1])
        if length < 1 or len(rest[1][1]) % length:
            raise ValueError(f"a structure whose fields have names of {length} bytes")
        expected = 2 + count * (len(rest[1][1]) // length)
    if len(rest) < expected:
        raise ValueError(f"an array of size {sizes} with {len(rest)} of {expected} parts")


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
