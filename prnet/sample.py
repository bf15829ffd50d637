"""The contracts between the stages: Fit -> FitBatch -> FaceSample -> model -> Prediction.

Letters: B batch, S shape and E expression coefficients, H W = 256 map and crop size, h w = 32
attention.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
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
    # Of batches with photos of which no more than 2D landmarks is known, or may be used.
    landmarks: Tensor | None = None  # (B, 68, 2), crop px; NaN where not seen, or those of the fit
    has_fit: Tensor | None = None  # (B,), bool: the fit may be learned from; None: all
    # (B, Hp, Wp), uint8: 255 where the face is seen, hair and hands left out; None: unknown
    visible: Tensor | None = None

    def to(self, device) -> "FitBatch":
        return FitBatch(
            *(None if field is None else field.to(device, non_blocking=True) for field in self)
        )

    def parts(self, count: int) -> list["FitBatch"]:
        """So many batches of equal size, which is a divisor, one after the other."""
        of_each = [
            [None] * count if field is None else field.split(len(field) // count) for field in self
        ]
        return [FitBatch(*fields) for fields in zip(*of_each, strict=True)]


class PosedFit(NamedTuple):
    """The parameters behind a sample's targets, after augmentation.

    A mirrored sample shows the mirror image of the face of its coefficients: `crop_from_model`
    holds the mirror of x.
    """

    shape_params: Tensor  # (B, S)
    exp_params: Tensor  # (B, E)
    crop_from_model: Tensor  # (B, 4, 4), model frame -> crop px
    mirrored: Tensor  # (B,), bool


class FaceSample(NamedTuple):
    """One batch of a training step. What is None was not asked for (see `targets` of a loss)."""

    image: Tensor  # (B, 3, H, W), RGB in [0, 1]
    position_map: Tensor | None = None  # (B, 3, H, W), crop px; 0 at texels that are not decoded
    shape_map: Tensor | None = None  # (B, 3, H, W), pose-independent face, model frame; as above
    attention: Tensor | None = None  # (B, h, w), in [0, 1]: the face where nothing covers it
    fit: PosedFit | None = None
    landmarks: Tensor | None = None  # (B, 68, 2), crop px; 0 where not visible
    landmarks_visible: Tensor | None = None  # (B, 68), bool
    has_fit: Tensor | None = None  # (B,), bool: the fit may be learned from; None: all


class Pose(NamedTuple):
    """crop = F (scale rotation model + translation), F = diag(1, -1, 1), on column vectors."""

    scale: Tensor  # (B,), crop px per model unit
    rotation: Tensor  # (B, 3, 3), det +1, from the angles of a fit
    translation: Tensor  # (B, 3), px of the y-up plane of the crop


class Prediction(NamedTuple):
    """What a network returns. What is None the network does not predict."""

    position_map: Tensor | None = None  # (B, 3, H, W), crop px
    pose_dependent_map: Tensor | None = None  # (B, 3, H, W), crop px, before any alignment
    shape_map: Tensor | None = None  # (B, 3, H, W), pose-independent face, model frame
    attention_logits: Tensor | None = None  # (B, h, w); their sigmoid is the attention
    pose: Pose | None = None
    # (B, 12 + S + E): pose and coefficients, see `prnet.geometry.pose_parameters`
    parameters: Tensor | None = None
    points: Tensor | None = None  # (B, K, 3), in training: crop px of some vertices, in any depth
    # (B, 12 + S + E), in training: what a second pass makes of the first one's landmarks (2DASL)
    cycle_parameters: Tensor | None = None
    # (B,), in eval mode: how far apart the landmarks of image and mirror image are, % of their box
    uncertainty: Tensor | None = None

    def at(self, index: int) -> "Prediction":
        """Of one image, B = 1."""
        part = slice(index, index + 1)
        pose = None if self.pose is None else Pose(*(field[part] for field in self.pose))
        fields = (None if f is None else f[part] for f in self._replace(pose=None))
        return Prediction(*fields)._replace(pose=pose)

    @classmethod
    def joined(cls, predictions: Sequence["Prediction"]) -> "Prediction":
        """Several of one network as one batch."""

        def joined(fields: Sequence[Tensor | None]) -> Tensor | None:
            return None if fields[0] is None else torch.cat(fields)

        poses = [one.pose for one in predictions]
        pose = None if poses[0] is None else Pose(*map(torch.cat, zip(*poses, strict=True)))
        fields = zip(*(one._replace(pose=None) for one in predictions), strict=True)
        return cls(*map(joined, fields))._replace(pose=pose)
