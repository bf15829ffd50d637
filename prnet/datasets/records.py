"""One record of a built set: how an image + fit pair becomes one, and one a training sample.

Letters: B pairs decoded together, N vertices, S shape and E expression coefficients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.datasets.fits import FacePair, FitFile, fit_matrix, pad_params, read_fit
from prnet.datasets.pictures import (
    CropRule,
    FitItem,
    crop_matrix,
    crop_square,
    decode_picture,
    picture_from_image,
    reduction_for,
)
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.depth import least_depth, shift_depth
from prnet.sample import Fit


class LoadedPair(NamedTuple):
    """One pair read from disk, before its mesh is decoded."""

    name: str
    file: FitFile
    data: bytes  # of the picture's file
    height: int
    width: int


class DecodedPairs(NamedTuple):
    """Pairs with their meshes."""

    shape_params: np.ndarray  # (B, S), float64
    exp_params: np.ndarray  # (B, E)
    vertices: Tensor  # (B, N, 3), model frame, float32
    image_from_model: Tensor  # (B, 4, 4), float64
    depth_min: Tensor  # (B,), image px
    landmarks: np.ndarray  # (B, 68, 3), image px


def record_dtype(num_shape: int, num_exp: int) -> np.dtype:
    """The layout of one record; image px and model units as in `prnet.sample.Fit`."""
    return np.dtype(
        [
            ("shard", "<i4"),
            ("picture_bytes", "<i4"),
            ("picture_offset", "<i8"),
            ("image_size", "<i4", 2),  # height, width
            ("crop_center", "<f8", 2),
            ("crop_size", "<f8"),
            ("scale", "<f8"),
            ("angles", "<f8", 3),
            ("translation", "<f8", 3),
            ("depth_min", "<f8"),  # smallest z over the whole mesh, image px
            ("shape_params", "<f4", num_shape),
            ("exp_params", "<f4", num_exp),
        ]
    )


def load_pair(pair: FacePair) -> LoadedPair:
    """Picture and fit of a pair.

    Raises:
        OSError, ValueError: one of them is missing or damaged.
    """
    data = pair.read_picture()
    height, width = decode_picture(data, source=pair.picture.name).shape[:2]
    return LoadedPair(pair.name, read_fit(pair.fit), data, height, width)


def decode_pairs(loaded: Sequence[LoadedPair], face: Face, pixel_origin: str) -> DecodedPairs:
    """The meshes of pairs, in one batch."""
    model = face.morphable_model
    shape_params, exp_params = (
        np.stack([pad_params(getattr(one.file.fit, key), count) for one in loaded])
        for key, count in (("shape_params", model.num_shape), ("exp_params", model.num_exp))
    )
    vertices = model(torch.from_numpy(shape_params).float(), torch.from_numpy(exp_params).float())
    matrices = [fit_matrix(one.file.fit, one.height, pixel_origin=pixel_origin) for one in loaded]
    image_from_model = torch.stack(matrices)
    landmarks = vertices[:, face.landmark_index].double()
    return DecodedPairs(
        shape_params,
        exp_params,
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
        ValueError: the face is too small for a crop.
    """
    center, size = crop_square(decoded.landmarks[index], crop, seed_name=one.name)
    fit = one.file.fit
    record["shape_params"] = decoded.shape_params[index]
    record["exp_params"] = decoded.exp_params[index]
    record["depth_min"] = decoded.depth_min[index]
    record["image_size"] = one.height, one.width
    record["crop_center"], record["crop_size"] = center, size
    record["scale"], record["angles"] = fit.scale, fit.angles
    record["translation"] = fit.translation


def record_fit(record: np.void) -> Fit:
    """The fit as it was, its coefficients rounded to float32."""
    return Fit(
        shape_params=record["shape_params"].astype(np.float64),
        exp_params=record["exp_params"].astype(np.float64),
        angles=record["angles"].copy(),
        translation=record["translation"].copy(),
        scale=float(record["scale"]),
    )


def record_image_from_model(record: np.void, pixel_origin: str) -> Tensor:
    """Model frame -> image px, depth as in the fit, (4, 4), float64."""
    return fit_matrix(record_fit(record), int(record["image_size"][0]), pixel_origin=pixel_origin)


def record_crop_from_image(record: np.void, crop: CropRule) -> Tensor:
    """Image px -> crop px, (4, 4), float64."""
    return crop_matrix(record["crop_center"].copy(), float(record["crop_size"]), crop)


def record_crop_from_model(record: np.void, crop: CropRule, pixel_origin: str) -> Tensor:
    """Model frame -> crop px, z shifted to a minimum of 0, (4, 4), float64."""
    image_from_model = record_image_from_model(record, pixel_origin)
    image_from_model = shift_depth(image_from_model, float(record["depth_min"]))
    return record_crop_from_image(record, crop) @ image_from_model


def record_picture(
    record: np.void, data: bytes, crop: CropRule, *, source: object
) -> tuple[np.ndarray, Tensor]:
    """The picture, decoded no larger than its crop needs, and picture px -> crop px, (4, 4)."""
    reduction = reduction_for(float(record["crop_size"]))
    picture = decode_picture(data, source=source, reduction=reduction)
    image_from_picture = torch.linalg.inv(picture_from_image(reduction))
    return picture, record_crop_from_image(record, crop) @ image_from_picture


def record_item(
    record: np.void, data: bytes, crop: CropRule, pixel_origin: str, *, source: object
) -> FitItem:
    """The training sample of a record and the bytes of its picture."""
    picture, crop_from_picture = record_picture(record, data, crop, source=source)
    return FitItem(
        picture=picture,
        crop_from_picture=crop_from_picture,
        crop_from_model=record_crop_from_model(record, crop, pixel_origin),
        shape_params=torch.from_numpy(record["shape_params"].copy()),
        exp_params=torch.from_numpy(record["exp_params"].copy()),
    )
