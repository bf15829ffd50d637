"""Device-side half of the loader: pictures -> crops, fits -> position maps, in one batch."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional

from prnet.datasets.pictures import CROP_SIZE
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder
from prnet.sample import FaceSample, FitBatch, PosedFit


def warp_to_crop(
    picture: Tensor,  # (B, 3, Hp, Wp), uint8
    crop_from_picture: Tensor,  # (B, 4, 4), similarity in x and y
    *,
    size: int = CROP_SIZE,
) -> Tensor:
    """Sample the crop from the picture, bilinear, zero outside: (B, 3, size, size) in [0, 1]."""
    height, width = picture.shape[-2:]
    picture_from_crop = camera.invert_affine(crop_from_picture)
    # grid_sample's coordinates with align_corners: -1 and 1 are the centres of the outermost
    # pixels.
    crop_from_grid = torch.eye(3, device=picture.device) * (size - 1) / 2
    crop_from_grid[:2, 2] = (size - 1) / 2
    crop_from_grid[2, 2] = 1
    affine = torch.cat([picture_from_crop[:, :2, :2], picture_from_crop[:, :2, 3:]], -1)
    affine = affine @ crop_from_grid  # (B, 2, 3), grid -> picture px
    extent = torch.tensor([width - 1, height - 1], device=picture.device).clamp(min=1)
    affine = affine * (2 / extent)[:, None]
    affine[:, :, 2] -= 1
    grid = functional.affine_grid(affine, [len(picture), 3, size, size], align_corners=True)
    crop = functional.grid_sample(picture.float(), grid, align_corners=True)
    return crop / 255


def make_sample(
    batch: FitBatch,
    decoder: PositionMapDecoder,
    *,
    targets: Collection[str] = ("position_map",),  # fields of `FaceSample`
    moved: Tensor | None = None,  # (B, 4, 4), crop px -> crop px; None: as cropped
    mirrored: Tensor | None = None,  # (B,), bool; `moved` holds the mirror of x already
) -> FaceSample:
    """Images of a batch and the targets asked for, all through the same similarity."""
    crop_from_picture, crop_from_model = batch.crop_from_picture, batch.crop_from_model
    if moved is not None:
        crop_from_picture = moved @ crop_from_picture
        crop_from_model = moved @ crop_from_model
    coefficients = batch.shape_params, batch.exp_params
    sample = FaceSample(warp_to_crop(batch.picture, crop_from_picture))
    if "position_map" in targets:
        position_map = decoder(*coefficients, crop_from_model, mirrored=mirrored)
        sample = sample._replace(position_map=position_map)
    if "shape_map" in targets:
        sample = sample._replace(shape_map=decoder.shape_map(*coefficients, mirrored=mirrored))
    if "fit" in targets:
        if mirrored is None:
            mirrored = torch.zeros(
                len(batch.picture), dtype=torch.bool, device=batch.picture.device
            )
        sample = sample._replace(fit=PosedFit(*coefficients, crop_from_model, mirrored))
    return sample
