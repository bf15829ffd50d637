"""Photos of every kind come out as viewers show them."""

import numpy as np
import pytest
from PIL import Image

from prnet.datasets.pictures import EXIF_ORIENTATION
from prnet.reconstruction.photos import read_photo


@pytest.fixture(scope="module")
def corners() -> np.ndarray:
    """20 x 30, a colour in each quarter."""
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:10, :15], picture[:10, 15:] = (250, 10, 10), (10, 250, 10)
    picture[10:, :15], picture[10:, 15:] = (10, 10, 250), (250, 250, 10)
    return picture


# EXIF's numbers -> what was done to the picture before it was stored.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_and_recorded(tmp_path, corners, orientation):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](corners)))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.picture, corners)
    assert photo.orientation == orientation


def test_kinds_of_pictures(tmp_path, corners):
    """Grey, 16 bits, transparent, with a palette, CMYK, animated."""
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("grey", "deep"):
        assert np.array_equal(read_photo(tmp_path / f"{name}.png").picture[..., 1], grey)
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[:10] = 0
    Image.fromarray(np.concatenate([corners, alpha], 2)).save(tmp_path / "alpha.png")
    shown = read_photo(tmp_path / "alpha.png").picture
    assert (shown[:10] == 255).all()
    assert np.array_equal(shown[10:], corners[10:])
    Image.fromarray(corners).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.gif")
    assert np.abs(read_photo(tmp_path / "p.gif").picture.astype(int) - corners).max() < 20
    Image.fromarray(corners).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.abs(read_photo(tmp_path / "cmyk.tif").picture.astype(int) - corners).max() < 20
    frames = [Image.fromarray(corners), Image.fromarray(255 - corners)]
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(read_photo(tmp_path / "two.webp").picture, corners)


def test_one_pixel_is_a_picture(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").picture.shape == (1, 1, 3)


def test_what_is_no_picture_is_refused_by_name(tmp_path, corners):
    Image.fromarray(corners).save(tmp_path / "whole.jpg")
    content = {
        "text.jpg": b"not a picture",
        "cut.jpg": (tmp_path / "whole.jpg").read_bytes()[:300],
        "empty.jpg": b"",
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            read_photo(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="absent.jpg: no such file"):
        read_photo(tmp_path / "absent.jpg")
