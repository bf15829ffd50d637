"""Photos as every viewer shows them: any format that Pillow reads, EXIF's orientation applied, 8
bits, RGB."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from prnet.datasets.jpeg import is_jpeg, whole_jpeg
from prnet.datasets.pictures import EXIF_ORIENTATION, write_picture
from prnet.reconstruction.tars import read_member, tar_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# More would take gigabytes to decode: 3 bytes a pixel, several copies.
MOST_PIXELS = 400_000_000


class Photo(NamedTuple):
    """One picture."""

    picture: np.ndarray  # (H, W, 3), uint8 RGB, upright
    orientation: int  # EXIF's, as stored: 1 upright, 3 upside down, 6 and 8 on a side, ...


def read_photo(path: Path | str, *, most_pixels: int = MOST_PIXELS) -> Photo:
    """Read a picture; of an animated one the first frame, transparent parts over white.

    `path`: a file, or a member of a tar (`a.tar/b.jpg`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, damaged, or of more than `most_pixels`.
    """
    path = Path(path)
    tar = tar_of(path)
    if tar is None and not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    data = path.read_bytes() if tar is None else read_member(tar, path)
    if not data:
        raise ValueError(f"{path}: the file is empty")
    if is_jpeg(data):
        data = whole_jpeg(data, source=path, most_pixels=most_pixels)
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the check is ours
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > most_pixels:
                raise ValueError(
                    f"{image.width} x {image.height} px are more than {most_pixels:.0e}; make it "
                    "smaller"
                )
            orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
            upright = ImageOps.exif_transpose(image)
            picture = np.array(_rgb(upright))  # Pillow's own memory is read-only
    except UnidentifiedImageError as error:  # which names an object in memory
        raise ValueError(f"{path}: not a readable picture (cannot identify image file)") from error
    except Exception as error:  # noqa: BLE001 - on a damaged file Pillow raises nearly anything
        raise ValueError(f"{path}: not a readable picture ({error})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return Photo(picture, orientation)


def _rgb(image: Image.Image) -> Image.Image:
    """8 bits a channel, RGB."""
    if image.mode.startswith(("I", "F")):  # 16 bits and more: their range, not their lowest byte
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        image = Image.fromarray((255 * values / top).clip(0, 255).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def write_astronaut(path: Path) -> Path:
    """Write the photo that scikit-image carries, NASA's portrait of Eileen Collins, in the public
    domain; an example that is always at hand."""
    import skimage.data

    write_picture(path, skimage.data.astronaut())
    return path
