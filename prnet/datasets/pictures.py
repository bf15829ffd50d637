"""From a picture file to a padded batch: decoding, the crop square, collation.

Letters: B batch, Hp Wp the picture's (padded) size, K points.
"""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from prnet.datasets.jpeg import is_jpeg, jpeg_size, whole_jpeg
from prnet.files import written_whole
from prnet.geometry import camera
from prnet.sample import Fit, FitBatch, PosedFit

CROP_SIZE = 256
# What Pillow opens, too.
MOST_PIXELS = 178_956_970
PNG_START = b"\x89PNG\r\n\x1a\n"
# Deflate makes at most so many bytes of one.
MOST_INFLATED = 1032
EXIF_ORIENTATION = 0x0112
UPRIGHT_JPEG_QUALITY = 98
# OpenCV decodes JPEG at these fractions of its size, in the frequency domain and without aliasing.
REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class CropRule(NamedTuple):
    """How the square that becomes the network input is placed on a face.

    `scale` times the mean side of the landmarks' box is PRN's rule (1.5 for training, 1.6 at
    inference); `jitter` moves the centre by up to that fraction of the mean side and the size by up
    to that fraction. With `whole_px` landmarks, and then the size, lose what is behind the point,
    as in face3d's and SADRNet's code, which made the published maps.
    """

    source: str = "landmarks"
    scale: float = 1.5
    jitter: float = 0.0
    span: float = 255.0
    whole_px: bool = False

    def to_values(self) -> dict:
        """As plain values, without `whole_px` where it is false, which sets of before do not
        have."""
        values = self._asdict()
        return values if self.whole_px else {key: values[key] for key in self._fields[:-1]}


class FitItem(NamedTuple):
    """One sample before collation; float64 matrices."""

    picture: np.ndarray  # (Hp, Wp, 3), uint8 RGB
    crop_from_picture: Tensor  # (4, 4)
    crop_from_model: Tensor  # (4, 4)
    shape_params: Tensor  # (S,)
    exp_params: Tensor  # (E,)
    landmarks: Tensor | None = None  # (68, 2), crop px, NaN where not seen; None: those of the fit
    has_fit: bool = True  # the fit may be learned from
    visible: np.ndarray | None = None  # (Hp, Wp), uint8, 255 where the face is seen; None: unknown


def whole_picture(data: bytes, *, source: object) -> bytes:
    """The bytes of a picture file, of a JPEG without what follows its end.

    Raises:
        ValueError: empty, a JPEG cut short (libjpeg would fill the rest with grey), a PNG that its
            checksums do not fit, or a header that promises more pixels than are there.
    """
    if not data:
        raise ValueError(f"{source}: the file is empty")
    if is_jpeg(data):
        return whole_jpeg(data, source=source, most_pixels=MOST_PIXELS)
    if data.startswith(PNG_START):
        _require_whole_png(data, source)
    return data


def _require_whole_png(data: bytes, source: object) -> None:
    """Every chunk as its checksum says, up to the end; OpenCV would take gigabytes for a length
    that is damaged."""
    place, kind = len(PNG_START), b""
    while kind != b"IEND":
        length, kind = (
            struct.unpack_from(">I4s", data, place) if place + 8 < len(data) else (0, b"")
        )
        body = data[place + 4 : place + 8 + length]
        place += 12 + length
        if place > len(data) or data[place - 4 : place] != struct.pack(">I", zlib.crc32(body)):
            raise ValueError(f"{source}: the PNG is cut short or damaged ({len(data)} bytes)")
        if kind == b"IHDR" and length == 13:
            width, height, depth = struct.unpack_from(">IIB", body, 4)
            if width * height > min(MOST_PIXELS, MOST_INFLATED * len(data) * 8 // max(depth, 1)):
                raise ValueError(
                    f"{source}: its header says {width} x {height} px, more than {len(data)} bytes "
                    "hold"
                )


def decode_picture(
    data: bytes, *, source: object, reduction: int = 1, checked: bool = False
) -> np.ndarray:
    """Decode to (H, W, 3) uint8 RGB, at 1, 1/2, 1/4 or 1/8 of the size.

    EXIF orientation is ignored: fits refer to the pixels as stored. `checked`: the bytes are those
    of `whole_picture`.

    Raises:
        ValueError: not a picture, or as `whole_picture`.
    """
    data = data if checked else whole_picture(data, source=source)
    flags = REDUCED_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"{source}: OpenCV cannot decode it ({error.err})") from error
    if picture is None:
        raise ValueError(f"{source}: not a picture that OpenCV can decode ({len(data)} bytes)")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def picture_size(data: bytes, *, source: object) -> tuple[int, int]:  # of `whole_picture`
    """Height and width as stored.

    Raises:
        ValueError: not a picture.
    """
    size = jpeg_size(data) if is_jpeg(data) else None
    return size or decode_picture(data, source=source, checked=True).shape[:2]


def read_upright(path: Path) -> tuple[bytes, np.ndarray]:
    """A photo as every viewer shows it, EXIF's orientation applied: bytes of its format to store,
    the file's own where it is upright, and (H, W, 3) uint8 RGB.

    Raises:
        OSError, ValueError: it cannot be read; as `decode_picture`.
    """
    data = whole_picture(path.read_bytes(), source=path)
    picture = decode_picture(data, source=path, checked=True)
    orientation = _exif_orientation(data)
    if orientation == 1:
        return data, picture
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    picture = np.ascontiguousarray(picture)
    suffix = ".jpg" if is_jpeg(data) else ".png"
    options = (cv2.IMWRITE_JPEG_QUALITY, UPRIGHT_JPEG_QUALITY) if suffix == ".jpg" else ()
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes(), picture


def _exif_orientation(data: bytes) -> int:
    """1 to 8; 1 where nothing is said."""
    kind = JpegImageFile if is_jpeg(data) else PngImageFile
    try:
        with kind(io.BytesIO(data)) as image:
            orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF raises nearly anything; OpenCV has read it
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def write_picture(path: Path | str, picture: np.ndarray) -> None:  # (H, W, 3), uint8 RGB
    """Write a picture in the format of the suffix, whole or not at all.

    Raises:
        OSError: OpenCV could not write it.
    """
    # OpenCV's own writer takes half a file on a full disk for a whole one.
    encoded, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OSError(f"{path}: could not be written as a picture")
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def reduction_for(crop_size: float) -> int:
    """The largest reduction at which a square of `crop_size` px still has the input's
    resolution."""
    return max(step for step in REDUCED_FLAGS if step == 1 or crop_size / step >= CROP_SIZE)


def image_from_picture(reduction: int) -> Tensor:
    """px of the picture decoded at 1/reduction -> image px, (4, 4), float64.

    A reduced pixel averages `reduction` pixels, so its centre lies between theirs.
    """
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] *= reduction
    matrix[:2, 3] = (reduction - 1) / 2
    return matrix


def crop_square(
    points: np.ndarray,  # (K, 2 or more), image px: the landmarks, or two corners of a box
    rule: CropRule,
    *,
    seed_name: str,
) -> tuple[np.ndarray, float]:
    """Centre (2,) and side of the crop, image px. Jitter is drawn from the sample's name alone.

    Raises:
        ValueError: the points span less than a pixel.
    """
    points = np.trunc(points) if rule.whole_px else points
    center, side = camera.box_from_points(torch.tensor(points, dtype=torch.float64))
    center, side = center.numpy(), float(side)
    if not side >= 1:
        raise ValueError(f"{seed_name}: the face spans {side:.3g} px, expected at least 1")
    size = np.trunc(rule.scale * side) if rule.whole_px else rule.scale * side
    if rule.jitter:
        random = np.random.default_rng(zlib.crc32(seed_name.encode()))
        shift_x, shift_y, growth = random.uniform(-rule.jitter, rule.jitter, 3)
        center = center + side * np.array([shift_x, shift_y])
        size *= 1 + growth
    return center, float(size)


def crop_matrix(center: np.ndarray, size: float, rule: CropRule, *, tilt: float = 0.0) -> Tensor:
    """`camera.crop_from_image` of one square, (4, 4), float64."""
    return camera.crop_from_image(
        torch.tensor(center, dtype=torch.float64),
        torch.tensor(size, dtype=torch.float64),
        span=rule.span,
        tilt=torch.tensor(tilt, dtype=torch.float64) if tilt else None,
    )


def picture_for_crop(
    data: bytes,  # of `whole_picture`
    center: np.ndarray,  # (2,), image px
    size: float,  # image px
    rule: CropRule,
    *,
    source: object,
    decoded: np.ndarray | None = None,  # (H, W, 3), the picture in full, where it is at hand
    tilt: float = 0.0,  # rad, clockwise
) -> tuple[np.ndarray, Tensor]:
    """The picture, decoded no larger than its crop needs, and picture px -> crop px, (4, 4)."""
    reduction = reduction_for(size)
    if decoded is None or reduction > 1:
        decoded = decode_picture(data, source=source, reduction=reduction, checked=True)
    crop_from_image = crop_matrix(center, size, rule, tilt=tilt)
    return decoded, crop_from_image @ image_from_picture(reduction)


def posed_fit(fits: list[Fit], matrices: list[Tensor]) -> PosedFit:  # (4, 4) each
    """Fits and their edges from the model frame to crop px as one batch, none mirrored."""
    return PosedFit(
        torch.from_numpy(np.stack([fit.shape_params for fit in fits])).float(),
        torch.from_numpy(np.stack([fit.exp_params for fit in fits])).float(),
        torch.stack(matrices).float(),
        torch.zeros(len(fits), dtype=torch.bool),
    )


def pad_pictures(
    pictures: list[np.ndarray],  # (H, W, C) each, uint8
    size: tuple[int, int] | None = None,  # Hp, Wp; None: as large as the largest
) -> Tensor:
    """One tensor (B, C, Hp, Wp), uint8; smaller pictures get zeros at the right and the bottom."""
    height, width = size or np.max([picture.shape[:2] for picture in pictures], 0).tolist()
    padded = torch.zeros(len(pictures), height, width, pictures[0].shape[2], dtype=torch.uint8)
    for target, picture in zip(padded.numpy(), pictures, strict=True):
        target[: picture.shape[0], : picture.shape[1]] = picture
    return padded.permute(0, 3, 1, 2)


def pad_visible(
    masks: list[np.ndarray | None],  # (H, W) each, uint8
    size: tuple[int, int] | None = None,
) -> Tensor | None:
    """The same for masks, (B, Hp, Wp); None if one of them is not known."""
    if any(mask is None for mask in masks):
        return None
    return pad_pictures([mask[..., None] for mask in masks], size)[:, 0]


def cut_to_reach(item: FitItem, reach: float) -> FitItem:
    """The sample with no more of its picture than what lies `reach` crop px or less, along x and y,
    from the middle of the crop; of what is elsewhere nothing is to be seen."""
    middle, ends = (CROP_SIZE - 1) / 2, torch.tensor([-1.0, 1.0], dtype=torch.float64)
    corners = torch.cartesian_prod(ends, ends) * reach + middle
    corners = torch.cat([corners, torch.zeros(4, 1, dtype=torch.float64)], 1)
    picture_from_crop = camera.invert_affine(item.crop_from_picture.double())
    seen = camera.transform_points(picture_from_crop, corners)[:, :2].numpy()
    # The pixels on either side of a point between them, and one more for rounding; two at least,
    # as along a side of one pixel there is no place beside it.
    size = np.array(item.picture.shape[1::-1])
    start = np.clip(np.floor(seen.min(0)) - 1, 0, np.maximum(size - 2, 0)).astype(int)
    end = np.clip(np.ceil(seen.max(0)) + 2, np.minimum(start + 2, size), size).astype(int)
    (left, top), (right, bottom) = start, end
    moved = torch.eye(4, dtype=item.crop_from_picture.dtype)
    moved[0, 3], moved[1, 3] = float(left), float(top)
    rows, columns = slice(top, bottom), slice(left, right)
    return item._replace(
        picture=item.picture[rows, columns],
        crop_from_picture=item.crop_from_picture @ moved,
        visible=None if item.visible is None else item.visible[rows, columns],
    )


def collate_fits(
    items: list[FitItem], *, reach: float = math.inf, size: tuple[int, int] | None = None
) -> FitBatch:
    """Stack samples; `reach`: see `cut_to_reach`; `size`: see `pad_pictures`."""
    if reach < math.inf:
        items = [cut_to_reach(item, reach) for item in items]

    def stack(field: str) -> Tensor:
        return torch.stack([getattr(item, field) for item in items]).float()

    landmarks = has_fit = None
    if not all(item.has_fit for item in items):
        has_fit = torch.tensor([item.has_fit for item in items])
    if has_fit is not None or any(item.landmarks is not None for item in items):
        unseen = torch.full((68, 2), float("nan"))
        points = [unseen if item.landmarks is None else item.landmarks for item in items]
        landmarks = torch.stack([one.float() for one in points])
    return FitBatch(
        picture=pad_pictures([item.picture for item in items], size),
        crop_from_picture=stack("crop_from_picture"),
        crop_from_model=stack("crop_from_model"),
        shape_params=stack("shape_params"),
        exp_params=stack("exp_params"),
        landmarks=landmarks,
        has_fit=has_fit,
        visible=pad_visible([item.visible for item in items], size),
    )
