"""Whether a MATLAB 5 file holds what it says, before scipy reads it, or in place of it."""

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

# A MATLAB 5 file begins with so many bytes; the last two of them say how its numbers lie.
MAT_HEADER, MAT_BYTE_ORDERS = 128, {b"IM": "<", b"MI": ">"}
# Types of the elements of a MATLAB 5 file -> bytes of a number in them; 14 and 15 hold elements.
MAT_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 14: 1, 15: 1}
MAT_ITEM_BYTES |= {16: 1, 17: 2, 18: 4}
MAT_DIMENSIONS, MAT_FLAGS, MAT_MATRIX, MAT_COMPRESSED, MAT_UTF8 = 5, 6, 14, 15, 16
# Classes of its arrays.
MAT_CELL, MAT_STRUCT, MAT_TEXT, MAT_NUMBERS = 1, 2, 4, range(6, 16)
MAT_COMPLEX_LOGICAL = 0x0A00  # bits of an array's flags
# Of the types of numbers.
MAT_DTYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
MAT_DTYPES |= {12: "<i8", 13: "<u8"}
MAT_OTHERS = (3, 16, 17)  # objects and functions, which are not looked into


def mat_variables(data: bytes) -> dict[str, np.ndarray]:
    """The variables of a MATLAB 5 file by name.

    Raises:
        ValueError: as `checked_mat_arrays`, or MATLAB 7.3 (HDF5); what else scipy raises.
    """
    if (arrays := checked_mat_arrays(data)) is not None:
        return arrays
    import scipy.io  # where structures and text are read, and not before

    try:
        return scipy.io.loadmat(io.BytesIO(data))
    except NotImplementedError as error:
        raise ValueError("MATLAB 7.3 format; save it again with -v7") from error


def checked_mat_arrays(data: bytes) -> dict[str, np.ndarray] | None:
    """Of a MATLAB 5 file of nothing but full real numbers its variables, as stored; None of others.

    Raises:
        ValueError: variables of a MATLAB 5 file do not hold what they say. scipy, which reads the
            others, trusts types, classes and sizes, and the process dies with it.
    """
    byte_order = MAT_BYTE_ORDERS.get(data[126:MAT_HEADER])
    if not byte_order or data[124:126] not in (b"\x00\x01", b"\x01\x00"):  # the version
        return None
    # All are checked before any is left to scipy.
    found = list(_mat_variables(memoryview(data)[MAT_HEADER:], byte_order))
    arrays = {}
    for parts in found:
        flags = struct.unpack(f"{byte_order}I", parts[0][1][:4])[0]
        if byte_order != "<" or len(parts) != 4 or flags & 0xFF not in MAT_NUMBERS:
            return None
        (_, (_, sizes), (_, name), (kind, content)) = parts
        key, dtype = bytes(name).decode("latin1"), MAT_DTYPES.get(kind)
        if flags & MAT_COMPLEX_LOGICAL or not key or key in arrays or dtype is None:
            return None
        values = np.frombuffer(content, dtype).reshape(np.frombuffer(sizes, "<i4"), order="F")
        arrays[key] = values.copy(order="F")
    return arrays


def _mat_variables(data: memoryview, byte_order: str) -> Iterator[Sequence[tuple[int, memoryview]]]:
    """The parts of each variable, checked."""
    for kind, content in _mat_elements(data, byte_order):
        if kind == MAT_COMPRESSED:
            yield from _mat_variables(memoryview(zlib.decompress(content)), byte_order)
        elif kind == MAT_MATRIX and len(content):
            parts = list(_mat_elements(content, byte_order))
            _require_mat_array(parts, byte_order)
            yield parts


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
