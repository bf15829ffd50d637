"""Picture files as cameras, phones, downloads and faults leave them."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from prnet.datasets.pictures import decode_picture, read_upright, whole_picture
from prnet.reconstruction.photos import read_photo

PHOTO = skimage.data.astronaut()[:200, 100:330]
BLACK_BELOW = np.concatenate([PHOTO, np.zeros((80, 230, 3), np.uint8)])
CODINGS = {
    "plain": {},
    "fine": {"quality": 95, "subsampling": 0},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "rows": {"restart_marker_rows": 1},
    "blocks": {"restart_marker_blocks": 5},
}
TRAILERS = {
    "none": b"",
    "zeros": bytes(4096),
    "maker": b"\x00\x00\x01\x0bSEFH" + bytes(range(256)) * 20 + b"SEFT",
    "picture": b"\xff\xd8\xff\xe0\x00\x04ab" + bytes(range(200)),
}


def encoded(picture: np.ndarray, *, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("coding", CODINGS)
def test_what_follows_a_jpeg_is_left_off_and_a_missing_end_is_put_there(coding):
    data = encoded(PHOTO, **CODINGS[coding])
    for trailer in TRAILERS.values():
        assert whole_picture(data + trailer, source="a") == data
    for end in (data[:-2], data[:-1], data[:-2] + bytes(4096)):
        assert whole_picture(end, source="a") == data


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("picture", [PHOTO, BLACK_BELOW], ids=["photo", "black"])
def test_a_jpeg_that_was_cut_is_refused_with_any_end(coding, picture):
    data = encoded(picture, **CODINGS[coding])
    for cut in np.linspace(700, len(data) - 80, 6).astype(int):
        for end in (b"", b"\xff\xd9", bytes(4096), b"\xff\xd9" + bytes(64)):
            try:
                kept = whole_picture(data[:cut] + end, source="cut.jpg")
            except ValueError as error:
                assert "cut.jpg: the JPEG" in str(error)  # noqa: PT017 - others may be read
                continue
            # Nothing of the picture was in what is missing.
            seen = decode_picture(kept, source="a", checked=True)
            np.testing.assert_array_equal(seen, decode_picture(data, source="a"))


def test_a_header_that_promises_too_much_is_one_line_before_memory_is_taken():
    data = bytearray(encoded(PHOTO))
    frame = data.index(b"\xff\xc0")
    for height, width, says in ((65000, 65000, "65000 x 65000 px"), (12000, 12000, "cut short")):
        struct.pack_into(">HH", data, frame + 5, height, width)
        with pytest.raises(ValueError, match=says):
            decode_picture(bytes(data), source="bad.jpg")
    png = bytearray(encoded(PHOTO, kind="PNG"))
    struct.pack_into(">II", png, 16, 20000, 20000)
    with pytest.raises(ValueError, match="bad.png: the PNG is cut short or damaged"):
        decode_picture(bytes(png), source="bad.png")
    struct.pack_into(">I", png, 29, zlib.crc32(png[12:29]))
    with pytest.raises(ValueError, match="bad.png: its header says 20000 x 20000 px"):
        decode_picture(bytes(png), source="bad.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_files_end_in_one_error_that_names_them(kind):
    data = encoded(PHOTO[:32, :32], kind=kind)
    random = np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(data)
        for place in random.integers(0, min(len(data), 700), 3):
            broken[place] = random.integers(256)
        try:
            decode_picture(bytes(broken), source="bad")
        except ValueError as error:
            assert str(error).startswith("bad: ")  # noqa: PT017 - many can still be read
    for broken in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda\x00", data[:30]):
        with pytest.raises(ValueError, match="^bad: "):
            decode_picture(broken, source="bad")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photo_is_upright_as_viewers_show_it(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "phone"
    path.write_bytes(encoded(PHOTO, kind=kind, exif=exif))
    data, picture = read_upright(path)
    # Pillow does the same, by code that is not ours; libjpegs may differ by a grey value.
    shown = read_photo(path).picture.astype(int)
    assert picture.shape == shown.shape
    assert np.abs(picture - shown).max() <= 2
    # What is stored shows the same to readers that ignore EXIF.
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_IGNORE_ORIENTATION | 1)
    assert np.abs(stored[..., ::-1].astype(int) - picture).mean() < 1
    assert (data == path.read_bytes()) == (orientation == 1)
