"""Errors of the head pose: Euler angles as the tables have them, and the turn between rotations.

Angles are pitch, yaw, roll of `camera.rotation_from_angles` in rad, R = R(angles) the rotation from
the y-up model frame to the y-up image plane; errors are in degrees. Letters: B batch, N points.
"""

import torch
from torch import Tensor

from prnet.geometry.align import umeyama
from prnet.geometry.camera import angles_from_rotation, rotation_from_angles

ANGLES = ("pitch", "yaw", "roll")
# Truths beyond this are not angles of a head (multiples of a turn, aliases): 31 of AFLW2000-3D.
LARGEST_ANGLE_DEG = 99.0
# SADRNet section IV-D: pitch or roll beyond the first while yaw is within the second.
FIX_TILT_DEG, FIX_YAW_DEG = 20.0, 5.0


def pose_from_points(
    points: Tensor,  # (B, N, 3), predicted, image or crop px, y down
    mean_points: Tensor,  # (N, 3), the same points of the mean face, model frame, y up
    weights: Tensor | None = None,  # (B, N), >= 0; None: uniform
) -> Tensor:
    """Rotation (B, 3, 3) of the similarity from the mean face to a prediction without parameters.

    The true map holds a reflection, y up to y down: the prediction is flipped back before the
    alignment, so det R = +1. Shape and expression that differ from the mean face's leave an error
    of the method; compare numbers of one method only.

    Raises:
        ValueError: as `umeyama`.
    """
    flip = points.new_tensor([1.0, -1.0, 1.0])
    mean_points = mean_points.to(points).expand_as(points).contiguous()
    return umeyama(mean_points, points * flip, weights).rotation


def pose_errors(
    rotation: Tensor,  # (B, 3, 3), predicted, det +1
    truth: Tensor,  # (B, 3), pitch, yaw, roll, rad
) -> dict[str, Tensor]:
    """Absolute errors per sample, {name: (B,)}, degrees.

    `pose_mae_pitch`, `pose_mae_yaw`, `pose_mae_roll`: of the angles, wrapped to at most 180;
    `pose_mae`: their mean; `pose_geodesic`: the angle of the turn from one rotation to the other.
    Only the last means something near yaw +-90, where pitch and roll are one freedom, and for
    truths that are written as another triple of angles for the same rotation.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.

    Source: SADRNet eq. 26, per angle; the geodesic distance on SO(3).
    """
    if rotation.ndim != 3 or rotation.shape[1:] != (3, 3) or truth.shape != (len(rotation), 3):
        raise ValueError(
            f"got rotations {tuple(rotation.shape)} and angles {tuple(truth.shape)}, expected "
            "(B, 3, 3) and (B, 3)"
        )
    for name, values in (("predicted rotation", rotation), ("true angles", truth)):
        if not values.isfinite().all():
            raise ValueError(f"{name}: holds values that are not finite")
    rotation, truth = rotation.double(), truth.double()
    differences = wrapped_difference_deg(angles_from_rotation(rotation), truth)  # (B, 3)
    errors = {f"pose_mae_{name}": differences[:, i] for i, name in enumerate(ANGLES)}
    errors["pose_mae"] = differences.mean(-1)
    errors["pose_geodesic"] = geodesic_deg(rotation, rotation_from_angles(truth))
    return errors


def wrapped_difference_deg(
    first: Tensor,  # (..., 3), rad
    second: Tensor,  # (..., 3), rad
) -> Tensor:
    """|first - second| the short way round, (..., 3), degrees, at most 180."""
    turn = torch.remainder(torch.rad2deg(first - second), 360.0)
    return torch.minimum(turn, 360.0 - turn)


def geodesic_deg(
    first: Tensor,  # (..., 3, 3), det +1
    second: Tensor,  # (..., 3, 3), det +1
) -> Tensor:
    """Angle of the rotation first second^T, (...,), degrees, 0 to 180.

    From sine and cosine both: arccos of the trace alone has half the digits near 0.
    """
    turn = first @ second.mT
    sine = torch.linalg.matrix_norm(turn - turn.mT) / 8**0.5
    cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.atan2(sine, cosine))


def rotation_vector_deg(rotation: Tensor) -> Tensor:  # (B, 3, 3), det +1
    """Axis times angle of each rotation, (B, 3), degrees, at most 180 long.

    By way of the unit quaternion, the eigenvector of the largest eigenvalue of a symmetric matrix:
    exact near 180 degrees too, where the rotation's antisymmetric part vanishes.

    Source: Bar-Itzhack, Journal of Guidance, Control, and Dynamics 2000, for exact rotations.
    """
    rows = rotation.double()
    trace = rows.diagonal(dim1=-2, dim2=-1).sum(-1)
    antisymmetric = rows.mT - rows
    vector = torch.stack(
        [antisymmetric[:, 1, 2], antisymmetric[:, 2, 0], antisymmetric[:, 0, 1]], -1
    )
    matrix = rows.new_zeros(len(rows), 4, 4)
    matrix[:, :3, :3] = rows + rows.mT - trace[:, None, None] * torch.eye(3).to(rows)
    matrix[:, :3, 3] = matrix[:, 3, :3] = vector
    matrix[:, 3, 3] = trace
    quaternion = torch.linalg.eigh(matrix).eigenvectors[..., -1]  # x y z w
    quaternion = torch.where(quaternion[:, 3:] < 0, -quaternion, quaternion)
    sine = quaternion[:, :3].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quaternion[:, 3:])
    return torch.rad2deg(angle * quaternion[:, :3] / sine.clamp(min=torch.finfo(sine.dtype).tiny))


def plausible_truth(truth: Tensor) -> Tensor:  # (B, 3), rad
    """Which truths the field keeps, (B,) bool: no angle beyond 99 degrees; 1,969 of
    AFLW2000-3D's 2,000."""
    return (torch.rad2deg(truth).abs() <= LARGEST_ANGLE_DEG).all(-1)


def kept_by_fix(errors: dict[str, Tensor]) -> Tensor:
    """Which samples the row "SADRNet-fix" keeps, (B,) bool.

    Dropped are those with pitch or roll off by more than 20 degrees and yaw by less than 5. The
    choice is made by the predictions: each method is scored on images of its own.

    Source: SADRNet section IV-D.
    """
    pitch, yaw, roll = (errors[f"pose_mae_{name}"] for name in ANGLES)
    tilted = (pitch > FIX_TILT_DEG) | (roll > FIX_TILT_DEG)
    return ~(tilted & (yaw < FIX_YAW_DEG))
