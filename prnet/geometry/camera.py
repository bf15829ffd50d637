"""Pose, weak perspective, pixel origins, crops: one function per edge between the frames of
`prnet`.

Every edge is a (4, 4) matrix acting on column vectors (x, y, z, 1), so that
`crop_from_image @ image_from_model` chains by eye. `...` are any batch dimensions.
"""

import torch
from torch import Tensor

from prnet.checks import require_choice

# Position of a point in each convention minus its position with pixel centres at 0-based integers,
# px. With X, Y the projection in the y-up plane of h rows: zero_based is (X - 1, h - Y), matlab
# (AFLW2000-3D's pt3d_68, 3DDFA, 2DASL) (X, h + 1 - Y), face3d (PRN's ground truth) (X, h - 1 - Y),
# sadrnet (X, h - Y).
PIXEL_ORIGINS = {
    "zero_based": (0.0, 0.0),
    "matlab": (1.0, 1.0),
    "face3d": (1.0, -1.0),
    "sadrnet": (1.0, 0.0),
}


def pixel_origin_shift(source: str, target: str) -> tuple[float, float]:
    """(dx, dy) to add to points in the `source` pixel origin to express them in `target`, px.

    Raises:
        ValueError: an origin is not one of `PIXEL_ORIGINS`.
    """
    for name in (source, target):
        require_choice("pixel origin", name, PIXEL_ORIGINS)
    (source_x, source_y), (target_x, target_y) = PIXEL_ORIGINS[source], PIXEL_ORIGINS[target]
    return target_x - source_x, target_y - source_y


def convert_origin(
    points: Tensor,  # (..., N, 2 or 3), px
    source: str,
    target: str,
) -> Tensor:
    """The same points in another pixel origin; z stays.

    Raises:
        ValueError: an origin is not one of `PIXEL_ORIGINS`.
    """
    shift = torch.zeros(points.shape[-1], dtype=points.dtype, device=points.device)
    shift[:2] = torch.tensor(pixel_origin_shift(source, target), dtype=points.dtype)
    return points + shift


def rotation_from_angles(
    angles: Tensor,  # (..., 3), pitch, yaw, roll in rad
) -> Tensor:
    """R = Rx(pitch) Ry(yaw) Rz(roll) with 3DDFA's clockwise elementary matrices, (..., 3, 3).

    Positive yaw turns the nose to the left of the image, positive pitch up, positive roll
    clockwise.

    Source: RotationMatrix.m beside AFLW2000-3D; angle2matrix_3ddfa of face3d.
    """
    sin_x, sin_y, sin_z = torch.sin(angles).unbind(-1)
    cos_x, cos_y, cos_z = torch.cos(angles).unbind(-1)
    rows = [
        cos_y * cos_z,
        cos_y * sin_z,
        -sin_y,
        -cos_x * sin_z + sin_x * sin_y * cos_z,
        cos_x * cos_z + sin_x * sin_y * sin_z,
        sin_x * cos_y,
        sin_x * sin_z + cos_x * sin_y * cos_z,
        -sin_x * cos_z + cos_x * sin_y * sin_z,
        cos_x * cos_y,
    ]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def angles_from_rotation(
    rotation: Tensor,  # (..., 3, 3), det +1
) -> Tensor:
    """Pitch, yaw, roll in rad, (..., 3): the inverse of `rotation_from_angles` for |yaw| < 90
    degrees.

    At the gimbal (|yaw| = 90 degrees) only pitch -+ roll is defined; roll is set to 0 there.
    """
    sin_yaw = -rotation[..., 0, 2]
    yaw = torch.asin(sin_yaw.clamp(-1, 1))
    pitch = torch.atan2(rotation[..., 1, 2], rotation[..., 2, 2])
    roll = torch.atan2(rotation[..., 0, 1], rotation[..., 0, 0])
    # cos(yaw) below the square root of the precision leaves no digit in the entries it multiplies.
    cos_yaw = torch.hypot(rotation[..., 0, 0], rotation[..., 0, 1])
    gimbal = cos_yaw < torch.finfo(rotation.dtype).eps ** 0.5
    gimbal_pitch = torch.atan2(sin_yaw.sign() * rotation[..., 1, 0], rotation[..., 1, 1])
    pitch = torch.where(gimbal, gimbal_pitch, pitch)
    roll = torch.where(gimbal, torch.zeros_like(roll), roll)
    return torch.stack([pitch, yaw, roll], -1)


def image_from_model(
    scale: Tensor,  # (...,), px per model unit; may be negative (one fit of AFLW2000-3D is)
    angles: Tensor,  # (..., 3), rad
    translation: Tensor,  # (..., 3), px of the y-up plane
    image_height: Tensor,  # (...,), px
    *,
    pixel_origin: str = "zero_based",
) -> Tensor:
    """Weak perspective f R V + t followed by the flip to image rows, (..., 4, 4); det < 0 for scale
    > 0.

    Source: 3DDFA's fits (main_show_with_BFM.m), with the origin of the pixel grid made explicit.
    """
    matrix = torch.zeros(*scale.shape, 4, 4, dtype=scale.dtype, device=scale.device)
    matrix[..., :3, :3] = scale[..., None, None] * rotation_from_angles(angles)
    matrix[..., :3, 3] = translation
    matrix[..., 1, :] *= -1
    shift_x, shift_y = pixel_origin_shift(
        "sadrnet", pixel_origin
    )  # "sadrnet" is the plain (X, h - Y)
    matrix[..., 0, 3] += shift_x
    matrix[..., 1, 3] += image_height + shift_y
    matrix[..., 3, 3] = 1
    return matrix


def crop_from_image(
    center: Tensor,  # (..., 2), px of the image
    size: Tensor,  # (...,), side of the square, px of the image
    *,
    span: float = 255.0,
    tilt: Tensor | None = None,  # (...,), rad, clockwise in the image; None: upright
) -> Tensor:
    """Similarity that maps the square [center - size/2, center + size/2] to [0, span]^2, (..., 4,
    4). A square with a tilt is turned clockwise by it about its centre: what leans so in the image
    is upright in the crop.

    Depth is scaled like x and y. PRN trains and infers with span 255 (corner pixel centres on the
    square's corners), SADRNet with 256; both for crops of 256 px.
    """
    ratio = span / size
    matrix = torch.zeros(*size.shape, 4, 4, dtype=size.dtype, device=size.device)
    matrix[..., 0, 0] = matrix[..., 1, 1] = matrix[..., 2, 2] = ratio
    matrix[..., :2, 3] = -ratio[..., None] * (center - size[..., None] / 2)
    matrix[..., 3, 3] = 1
    if tilt is None:
        return matrix
    # About the crop's middle: there = R (here - middle) + middle.
    turn = torch.zeros_like(matrix)
    turn[..., 0, 0] = turn[..., 1, 1] = tilt.cos()
    turn[..., 0, 1], turn[..., 1, 0] = tilt.sin(), -tilt.sin()
    turn[..., 2, 2] = turn[..., 3, 3] = 1
    turn[..., :2, 3] = span / 2 * (1 - turn[..., :2, :2].sum(-1))
    return turn @ matrix


def box_from_points(
    points: Tensor,  # (..., N, 2 or more), px
) -> tuple[Tensor, Tensor]:
    """Centre (..., 2) and mean side (w + h) / 2 (...,) of the points' bounding box, px: PRN's crop
    box."""
    low = points[..., :2].amin(-2)
    high = points[..., :2].amax(-2)
    return (low + high) / 2, (high - low).mean(-1)


def transform_points(
    matrix: Tensor,  # (..., 4, 4), affine
    points: Tensor,  # (..., N, 3)
) -> Tensor:
    """Apply an edge to points of its source frame, (..., N, 3)."""
    return points @ matrix[..., :3, :3].transpose(-1, -2) + matrix[..., None, :3, 3]


def flip_y(vectors: Tensor, dim: int) -> Tensor:  # 3 along dim
    """F = diag(1, -1, 1) times them: between y up and y down."""
    x, y, z = vectors.unbind(dim)
    return torch.stack([x, -y, z], dim)


def invert_affine(matrix: Tensor) -> Tensor:  # (..., 4, 4), invertible
    """The edge the other way round, (..., 4, 4), with an exact last row."""
    # Whether it could be inverted is not asked: the host would wait for the device's answer.
    linear = torch.linalg.inv_ex(matrix[..., :3, :3]).inverse
    inverse = torch.zeros_like(matrix)
    inverse[..., :3, :3] = linear
    inverse[..., :3, 3] = -(linear @ matrix[..., :3, 3:]).squeeze(-1)
    inverse[..., 3, 3].fill_(1)
    return inverse
