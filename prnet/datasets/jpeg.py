"""Whether a JPEG is whole: a decoder fills what is missing with grey and says nothing."""

import io
import re
import struct
from typing import NamedTuple

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

START, END = b"\xff\xd8", b"\xff\xd9"
# In the bytes of a scan: 0 after 255 is data, 208 to 215 separate its intervals.
MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
PROGRESSIVE, ARITHMETIC = 0xC2, range(0xC9, 0xD0)
SCAN, INTERVAL, END_MARKER = 0xDA, 0xDD, 0xD9
ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a length
# So many zeros at the end of a file are room that was reserved and never written.
PADDING = 64
# What stands where a scan goes on is read as codes: any, and never a marker.
TAILS = tuple(
    np.random.default_rng(seed).integers(0, 255, 128, np.uint8).tobytes() for seed in (1, 2)
)


class _Frame(NamedTuple):
    coding: int  # its marker
    height: int
    width: int
    sampling: dict[int, tuple[int, int]]  # component -> across, down

    def restarts(self, scanned: bytes, interval: int) -> int:
        """Separators that a scan of these components needs."""
        across, down = (max(each) for each in zip(*self.sampling.values(), strict=True))
        if len(scanned) > 1:
            blocks = -(-self.width // (8 * across)) * -(-self.height // (8 * down))
        else:
            own_across, own_down = self.sampling[scanned[0]]
            columns = -(-self.width * own_across // (8 * across))
            blocks = columns * -(-self.height * own_down // (8 * down))
        return -(-blocks // interval) - 1


def is_jpeg(data: bytes) -> bool:
    return data[:2] == START


def whole_jpeg(data: bytes, *, source: object, most_pixels: int) -> bytes:
    """The picture's own bytes: what follows its end (a maker's trailer, other pictures, padding) is
    left off, and an end that is missing is put there.

    A scan is whole where what comes after it does not change the picture: it is decoded with two
    different tails, where a scan has whole blocks small and grey.

    Raises:
        ValueError: cut short, or larger than `most_pixels`.
    """
    try:
        end, whole, coding = _walk(data, source, most_pixels)
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"{source}: the JPEG's header is cut short or damaged") from error
    picture = data[:end]
    # The coder of an arithmetic JPEG drops zeros at its end, which are then read from the tail.
    if whole and coding not in ARITHMETIC:
        first, second = (_decoded(picture + tail + END, coding) for tail in TAILS)
        whole = first is not None and second is not None and np.array_equal(first, second)
    if not whole:
        raise ValueError(f"{source}: the JPEG is cut short ({len(data)} bytes)")
    return picture + END


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width by the header of a whole JPEG, of the kinds that every decoder reads (grey
    or colour, coded by Huffman); None of others."""
    place = 2
    while True:
        place = data.index(b"\xff", place)
        while data[place] == 0xFF:
            place += 1
        marker = data[place]
        place += 1
        if marker in ALONE:
            continue
        if marker in FRAMES:
            precision, height, width, count = struct.unpack_from(">BHHB", data, place + 2)
            known = marker <= PROGRESSIVE and precision == 8 and count in (1, 3)
            return (height, width) if known and height and width else None
        place += struct.unpack_from(">H", data, place)[0]


def _decoded(data: bytes, coding: int) -> np.ndarray | None:
    """By Pillow, which keeps libjpeg's warnings to itself."""
    try:
        with JpegImageFile(io.BytesIO(data)) as image:
            if coding != PROGRESSIVE:
                image.draft("L", (1, 1))
            return np.asarray(image)
    except Exception:  # noqa: BLE001 - on damaged files Pillow raises nearly anything
        return None


def _walk(data: bytes, source: object, most_pixels: int) -> tuple[int, bool, int]:
    """Where the last scan ends, whether scans and separators are all there, and the marker of the
    frame, which says how it is coded."""
    frame, interval = None, 0
    lacking: set[tuple[int, int]] = set()  # (component, coefficient) that no scan has had
    place, restarts_whole = 2, True
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            raise IndexError("no marker")
        while data[place : place + 1] == b"\xff":
            place += 1
        marker = data[place]
        place += 1
        if marker == END_MARKER:
            raise ValueError(f"{source}: the JPEG has no picture ({len(data)} bytes)")
        if marker in ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, place)
        body = data[place + 2 : place + length]
        place += length
        if marker in FRAMES:
            _, height, width, count = struct.unpack_from(">BHHB", body)
            if height * width > most_pixels:
                raise ValueError(
                    f"{source}: its header says {width} x {height} px, more than {most_pixels:.2g}"
                )
            parts = [body[6 + 3 * k : 9 + 3 * k] for k in range(count)]
            sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
            frame = _Frame(marker, height, width, sampling)
            lacking = {(component, k) for component in sampling for k in range(64)}
        elif marker == INTERVAL:
            (interval,) = struct.unpack_from(">H", body)
        elif marker == SCAN:
            if frame is None:
                raise KeyError("a scan before its frame")
            scanned = body[1 : 1 + 2 * body[0] : 2]
            first, last, precision = body[-3:]
            # 0 low bits are left where the coefficients are final.
            if precision & 15 == 0:
                lacking -= {(part, k) for part in scanned for k in range(first, last + 1)}
            found = MARKER_IN_SCAN.search(data, place)
            end = found.start() if found else _without_padding(data)
            if interval:
                restarts = len(RESTART.findall(data, place, end))
                restarts_whole = restarts >= frame.restarts(scanned, interval)
            place = end
            if found is None or data[end + 1] == END_MARKER:
                return end, restarts_whole and not lacking, frame.coding


def _without_padding(data: bytes) -> int:
    """Where the bytes of a file without an end marker stop."""
    kept = data.rstrip(b"\x00")
    kept = kept if len(data) - len(kept) >= PADDING else data
    return len(kept.rstrip(b"\xff"))
