"""One record of a built set: how an image + fit pair becomes one, and one a training sample.

Letters: B pairs decoded together, N vertices, S shape and E expression coefficients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.datasets.fits import FacePair, FitFile, fit_matrices, fit_matrix, pad_params, read_fit
from prnet.datasets.pictures import (
    CROP_SIZE,
    REDUCED_FLAGS,
    CropRule,
    FitItem,
    crop_matrix,
    crop_square,
    picture_for_crop,
    picture_size,
    whole_picture,
)
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.decoding import weighed_bases
from prnet.geometry.depth import least_depth, shift_depth
from prnet.sample import Fit

# Of a record of any built set: where its picture lies, and the crop.
PICTURE_FIELDS = (
    ("shard", "<i4"),
    ("picture_bytes", "<i4"),
    ("picture_crc32", "<u4"),
    ("picture_offset", "<i8"),
    ("image_size", "<i4", 2),  # height, width
    ("crop_center", "<f8", 2),
    ("crop_size", "<f8"),
)


LEAST_SIDE = 8  # px, of a picture with a face in it


class LoadedPair(NamedTuple):
    """One pair read from disk, before its mesh is decoded."""

    name: str
    file: FitFile
    data: bytes  # of the picture's file
    height: int
    width: int


class DecodedPairs(NamedTuple):
    """Pairs with their meshes."""

    vertices: Tensor  # (B, N, 3), model frame, float32
    image_from_model: Tensor  # (B, 4, 4), float64
    depth_min: Tensor  # (B,), image px
    landmarks: np.ndarray  # (B, 68, 3), image px


def record_dtype(num_shape: int, num_exp: int) -> np.dtype:
    """The layout of one record; image px and model units as in `prnet.sample.Fit`."""
    return np.dtype(
        [
            *PICTURE_FIELDS,
            ("scale", "<f8"),
            ("angles", "<f8", 3),
            ("translation", "<f8", 3),
            ("depth_min", "<f8"),  # smallest z over the whole mesh, image px
            ("shape_params", "<f4", num_shape),
            ("exp_params", "<f4", num_exp),
        ]
    )


class SetRecord(NamedTuple):
    """One record of a built set, to read; matrices are (4, 4), float64."""

    values: np.void
    crop: CropRule
    pixel_origin: str

    def fit(self) -> Fit:
        """The fit as it was, its coefficients rounded to float32."""
        return Fit(
            shape_params=self.values["shape_params"].astype(np.float64),
            exp_params=self.values["exp_params"].astype(np.float64),
            angles=self.values["angles"].copy(),
            translation=self.values["translation"].copy(),
            scale=float(self.values["scale"]),
        )

    def image_from_model(self) -> Tensor:
        """Model frame -> image px, depth as in the fit."""
        height = int(self.values["image_size"][0])
        return fit_matrix(self.fit(), height, pixel_origin=self.pixel_origin)

    def crop_from_image(self) -> Tensor:
        return crop_matrix(*self._square(), self.crop)

    def crop_from_model(self) -> Tensor:
        """Model frame -> crop px, z shifted to a minimum of 0."""
        image_from_model = shift_depth(self.image_from_model(), float(self.values["depth_min"]))
        return self.crop_from_image() @ image_from_model

    def picture(self, data: bytes, *, source: object) -> tuple[np.ndarray, Tensor]:
        """As `picture_for_crop`."""
        return picture_for_crop(data, *self._square(), self.crop, source=source)

    def item(self, data: bytes, *, source: object) -> FitItem:
        """The training sample; `data` are the bytes of its picture."""
        picture, crop_from_picture = self.picture(data, source=source)
        return FitItem(
            picture=picture,
            crop_from_picture=crop_from_picture,
            crop_from_model=self.crop_from_model(),
            shape_params=torch.from_numpy(self.values["shape_params"].copy()),
            exp_params=torch.from_numpy(self.values["exp_params"].copy()),
        )

    def _square(self) -> tuple[np.ndarray, float]:
        return self.values["crop_center"].copy(), float(self.values["crop_size"])


def extents_at_most(
    records: np.ndarray,  # (n,), with `PICTURE_FIELDS`
    crop: CropRule,
    reach: float,
) -> np.ndarray:
    """Height and width of what `cut_to_reach` leaves of each picture, (n, 2), px: a px or two more
    at most, and no picture is read."""
    sides = records["crop_size"][:, None]
    reduction = np.ones_like(sides)
    for step in sorted(REDUCED_FLAGS):
        reduction = np.where(sides / step >= CROP_SIZE, step, reduction)
    size = np.ceil(records["image_size"] / reduction)
    corner = records["crop_center"][:, ::-1] - sides / 2  # y, x, as the size
    start, end = (
        (corner + ((CROP_SIZE - 1) / 2 + side * reach) * sides / crop.span - (reduction - 1) / 2)
        / reduction
        for side in (-1, 1)
    )
    start = np.clip(np.floor(start) - 2, 0, np.maximum(size - 2, 0))
    end = np.clip(np.ceil(end) + 3, np.minimum(start + 2, size), size)
    return (end - start).astype(int)


def load_pair(pair: FacePair) -> LoadedPair:
    """Picture and fit of a pair.

    Raises:
        OSError, ValueError: one of them is missing or damaged.
    """
    data = whole_picture(pair.read_picture(), source=pair.picture.name)
    height, width = picture_size(data, source=pair.picture.name)
    return LoadedPair(pair.name, read_fit(pair.fit), data, height, width)


def decode_pairs(loaded: Sequence[LoadedPair], face: Face, pixel_origin: str) -> DecodedPairs:
    """The meshes of pairs, in one batch."""
    model = face.morphable_model
    shape_params, exp_params = (
        torch.from_numpy(np.stack([pad_params(params, count) for params in each])).float()
        for each, count in (
            ([one.file.fit.shape_params for one in loaded], model.num_shape),
            ([one.file.fit.exp_params for one in loaded], model.num_exp),
        )
    )
    coefficients = torch.cat([shape_params, exp_params], 1).numpy()
    mean, basis = model.mean.flatten().numpy(), model.basis.flatten(1).numpy()
    vertices = torch.from_numpy(weighed_bases(mean, basis, coefficients)).unflatten(1, (-1, 3))
    fits = [one.file.fit for one in loaded]
    heights = [one.height for one in loaded]
    image_from_model = fit_matrices(fits, heights, pixel_origin=pixel_origin)
    landmarks = vertices[:, face.landmark_index].double()
    return DecodedPairs(
        vertices,
        image_from_model,
        least_depth(image_from_model, vertices),
        camera.transform_points(image_from_model, landmarks).numpy(),
    )


def fill_record(
    record: np.void, one: LoadedPair, decoded: DecodedPairs, index: int, crop: CropRule
) -> None:
    """Write pair `index` of a batch into its record; where its picture lies is left open.

    Raises:
        ValueError: the face is too small for a crop or lies outside its picture, or the picture is
            too small for a face.
    """
    if min(one.height, one.width) < LEAST_SIDE:
        raise ValueError(
            f"{one.name}: the picture has {one.width} x {one.height} px, expected {LEAST_SIDE} at "
            "least a side"
        )
    points = decoded.landmarks[index][:, :2]
    inside = ((points > -0.5) & (points < [one.width - 0.5, one.height - 0.5])).all(1).sum()
    if not inside:
        raise ValueError(f"{one.name}: 0 of 68 landmarks inside {one.width} x {one.height}")
    center, size = crop_square(decoded.landmarks[index], crop, seed_name=one.name)
    fit = one.file.fit
    for key in ("shape_params", "exp_params"):
        record[key] = pad_params(getattr(fit, key), len(record[key]))
    record["depth_min"] = decoded.depth_min[index]
    record["image_size"] = one.height, one.width
    record["crop_center"], record["crop_size"] = center, size
    record["scale"], record["angles"] = fit.scale, fit.angles
    record["translation"] = fit.translation
