"""What an evaluation reads, one item an image: the truth, and the crop a network is given.

Letters: B batch, S shape and E expression coefficients, Hp Wp the picture's (padded) size.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prnet.datasets.built import BuiltSet
from prnet.datasets.pictures import (
    CropRule,
    FitItem,
    crop_matrix,
    decode_picture,
    pad_pictures,
    picture_from_image,
    reduction_for,
)
from prnet.datasets.workers import worker_settings
from prnet.geometry import camera


class NetworkInput(NamedTuple):
    """A picture and where in it the crop lies."""

    picture: np.ndarray  # (Hp, Wp, 3), uint8 RGB
    crop_from_picture: Tensor  # (4, 4)
    image_from_crop: Tensor  # (4, 4), float64


class EvaluationItem(NamedTuple):
    """One image; image px are zero_based unless said otherwise."""

    name: str
    yaw_deg: float  # of the fit, signed
    landmarks: Tensor | None  # (68, 3), float64, `pt3d_68` as stored, pixel origin "matlab"
    shape_params: Tensor  # (S,)
    exp_params: Tensor  # (E,)
    image_from_model: Tensor | None  # (4, 4), float64; None where nothing is decoded
    network_input: NetworkInput | None  # None where saved predictions are scored


class EvaluationBatch(NamedTuple):
    """Items collated; fields as there."""

    names: list[str]
    yaw_deg: list[float]
    landmarks: Tensor | None  # (B, 68, 3)
    shape_params: Tensor  # (B, S)
    exp_params: Tensor  # (B, E)
    image_from_model: Tensor | None  # (B, 4, 4)
    picture: Tensor | None  # (B, 3, Hp, Wp), uint8, zero-padded at the right and the bottom
    crop_from_picture: Tensor | None  # (B, 4, 4)
    image_from_crop: Tensor | None  # (B, 4, 4)

    def to(self, device: torch.device | str) -> "EvaluationBatch":
        return EvaluationBatch(
            *(
                field.to(device, non_blocking=True) if isinstance(field, Tensor) else field
                for field in self
            )
        )


def crop_picture(
    data: bytes,
    picture: np.ndarray,  # (H, W, 3), uint8, decoded from `data` in full
    center: np.ndarray,  # (2,), image px
    size: float,  # image px
    rule: CropRule,
    *,
    source: object,
) -> NetworkInput:
    """The network input of one square, from a picture no larger than it needs to be."""
    reduction = reduction_for(size)
    if reduction > 1:
        picture = decode_picture(data, source=source, reduction=reduction)
    crop_from_image = crop_matrix(center, size, rule)
    image_from_picture = camera.invert_affine(picture_from_image(reduction))
    return NetworkInput(
        picture, crop_from_image @ image_from_picture, camera.invert_affine(crop_from_image)
    )


class HeldOut(Dataset):
    """Samples of a built set as evaluation items: the truth is their fit, decoded; so is the yaw.

    Image px are in the pixel origin that the set was built with.
    """

    def __init__(self, built: BuiltSet, indices: np.ndarray) -> None:
        self.built = built
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> EvaluationItem:
        index = int(self.indices[position])
        item: FitItem = self.built[index]
        record = self.built.records[index]
        crop_from_image = crop_matrix(
            record["crop_center"].copy(), float(record["crop_size"]), self.built.crop_rule
        )
        return EvaluationItem(
            name=self.built.names[index],
            yaw_deg=float(np.degrees(record["angles"][1])),
            landmarks=None,
            shape_params=item.shape_params,
            exp_params=item.exp_params,
            image_from_model=self.built.image_from_model(index),
            network_input=NetworkInput(
                item.picture, item.crop_from_picture, camera.invert_affine(crop_from_image)
            ),
        )


def collate_evaluation(items: list[EvaluationItem]) -> EvaluationBatch:
    """Stack items; a field that one of them lacks is lacking in the batch."""

    def stack(tensors: list[Tensor | None]) -> Tensor | None:
        return None if any(tensor is None for tensor in tensors) else torch.stack(tensors)

    inputs = [item.network_input for item in items]
    pictured = all(network_input is not None for network_input in inputs)
    return EvaluationBatch(
        names=[item.name for item in items],
        yaw_deg=[item.yaw_deg for item in items],
        landmarks=stack([item.landmarks for item in items]),
        shape_params=stack([item.shape_params for item in items]).float(),
        exp_params=stack([item.exp_params for item in items]).float(),
        image_from_model=stack([item.image_from_model for item in items]),
        picture=pad_pictures([one.picture for one in inputs]) if pictured else None,
        crop_from_picture=(
            torch.stack([one.crop_from_picture for one in inputs]).float() if pictured else None
        ),
        image_from_crop=torch.stack([one.image_from_crop for one in inputs]) if pictured else None,
    )


def evaluation_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """`EvaluationBatch`es of the data set, in its order."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        collate_fn=collate_evaluation,
        **worker_settings(num_workers, pin_memory=pin_memory),
    )
