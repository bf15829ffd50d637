"""The camera of a sample: from head pose and framing to a fit in the picture's frame."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.geometry import camera
from prnet.geometry.morphable_model import MorphableModel


class CameraPose(NamedTuple):
    """The head before the camera; radians, signs as `prnet.geometry.camera`.

    R = Rz(roll) Rx(pitch) Ry(yaw) Rx(nod): the head nods, turns, is seen from above or below, and
    the camera is tilted.
    """

    yaw: float
    nod: float
    pitch: float
    roll: float


class Framed(NamedTuple):
    """Fits of a batch, as 3DDFA states them; float64."""

    scale: Tensor  # (B,), px per model unit
    angles: Tensor  # (B, 3), pitch, yaw, roll, rad
    translation: Tensor  # (B, 3), px of the y-up plane
    crop_from_model: Tensor  # (B, 4, 4), z as it is


def angles_of(pose: Tensor) -> Tensor:  # (B, 4), fields of `CameraPose`, float64
    """Angles of the same rotation in 3DDFA's order, (B, 3), rad.

    Of the two triples that describe a rotation, the one with less pitch and roll: past profile the
    yaw then passes 90 degrees, and the head does not stand on its own.
    """
    yaw, nod, pitch, roll = pose.unbind(-1)
    zero = torch.zeros_like(yaw)

    def turned(*angles: Tensor) -> Tensor:
        return camera.rotation_from_angles(torch.stack(angles, -1))

    rotation = turned(zero, zero, roll) @ turned(pitch, yaw, zero) @ turned(nod, zero, zero)
    first = camera.angles_from_rotation(rotation)
    half_turn = torch.tensor([math.pi, math.pi, math.pi], dtype=first.dtype)
    second = half_turn + first * first.new_tensor([1, -1, 1])
    second = torch.remainder(second + math.pi, 2 * math.pi) - math.pi
    tilt = [angles[..., [0, 2]].abs().sum(-1, keepdim=True) for angles in (first, second)]
    return torch.where(tilt[0] <= tilt[1], first, second)


def frame(items: Sequence, landmark_model: MorphableModel, size: int) -> Framed:
    """Place the face in a picture of `size` px as each sample's `framing` says.

    The crop square maps to [0, size - 1], as PRN's with its span of 255 at 256 px.
    """
    shape, exp, pose, scale, shift = (
        torch.from_numpy(np.array(values))
        for values in zip(
            *((x.shape_params, x.exp_params, x.pose, *x.framing[:2]) for x in items), strict=True
        )
    )
    model = landmark_model
    coefficients = model.leading_coefficients(shape, exp)
    # Sums element by element: a product of matrices may round differently in another batch.
    moved = coefficients[:, :, None, None] * model.basis.double()
    landmarks = model.mean.double() + moved.sum(1)  # (B, 68, 3)
    angles = angles_of(pose)
    rotation = camera.rotation_from_angles(angles)
    turned = (landmarks[:, :, None] * rotation[:, None]).sum(-1)
    center, side = camera.box_from_points(turned)  # y up
    span = size - 1
    pixels = span / (scale * side)
    # x right and y down for the shift, y up for the translation.
    corner = torch.stack(
        [
            span / 2 - pixels * (center[:, 0] + shift[:, 0] * side),
            size - span / 2 - pixels * (center[:, 1] - shift[:, 1] * side),
        ],
        -1,
    )
    corner[:, 0] -= camera.pixel_origin_shift("sadrnet", "zero_based")[0]
    translation = torch.nn.functional.pad(corner, (0, 1))
    height = torch.full_like(pixels, size)
    matrix = camera.image_from_model(pixels, angles, translation, height)
    return Framed(pixels, angles, translation, matrix)
