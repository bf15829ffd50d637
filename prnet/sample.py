"""The contracts between the stages: Fit -> FitBatch -> FaceSample -> model -> Prediction.

Letters: B batch, S shape and E expression coefficients, H W = 256 map and crop size.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Fit(NamedTuple):
    """One 3DMM fit with a weak-perspective pose (300W-LP's `.mat`, conventions of 3DDFA);
    float64."""

    shape_params: np.ndarray  # (S,), model units (PCA coefficient with sigma multiplied in)
    exp_params: np.ndarray  # (E,)
    angles: np.ndarray  # (3,), pitch, yaw, roll in rad
    translation: np.ndarray  # (3,), px of the y-up image plane
    scale: float  # px per model unit


class FitBatch(NamedTuple):
    """What a loader hands to the device: pictures and the parameters their targets are made
    from."""

    picture: Tensor  # (B, 3, Hp, Wp), uint8 RGB, zero-padded at the right and the bottom
    crop_from_picture: Tensor  # (B, 4, 4), picture px (0-based) -> crop px
    crop_from_model: Tensor  # (B, 4, 4), model frame -> crop px, z shifted to a minimum of 0
    shape_params: Tensor  # (B, S)
    exp_params: Tensor  # (B, E)

    def to(self, device) -> "FitBatch":
        return FitBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class FaceSample(NamedTuple):
    """One batch of a training step."""

    image: Tensor  # (B, 3, H, W), RGB in [0, 1]
    position_map: Tensor  # (B, 3, H, W), crop px; zero at texels the face decoder leaves out


class Prediction(NamedTuple):
    """What a network returns."""

    position_map: Tensor  # (B, 3, H, W), crop px
