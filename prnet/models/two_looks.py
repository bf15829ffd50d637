"""A face that a network saw in two crops: the mean of what it predicts, which is nearer to the face
than either, since a crop that is off takes the prediction along.

Letters: B batch, H W map side, P parameters.
"""

import torch
from torch import Tensor

from prnet.geometry.camera import flip_y, transform_points
from prnet.geometry.pose_parameters import (
    NUM_POSE,
    crop_from_model,
    rigid_pose,
    split_parameters,
)
from prnet.models.network import Network
from prnet.models.regressor import Regressor
from prnet.sample import Pose, Prediction


def mean_of_looks(
    model: Network,  # that made both, in eval mode
    earlier: Prediction,  # B faces
    later: Prediction,  # the same ones
    later_from_earlier: Tensor,  # (B, 4, 4), crop px -> crop px, a similarity
) -> Prediction:
    """Position map or parameters, pose and uncertainty, in px of the later crop; what else there is
    (attention, other maps) is the later look's."""
    edge = later_from_earlier
    uncertainty = later.uncertainty
    if uncertainty is not None:
        uncertainty = (earlier.uncertainty + uncertainty) / 2
    if isinstance(model, Regressor):
        moved = moved_parameters(earlier.parameters, model.num_shape, edge)
        mean = model.complete((moved + later.parameters) / 2)
        return later._replace(parameters=mean.parameters, pose=mean.pose, uncertainty=uncertainty)
    points = transform_points(edge, earlier.position_map.float().flatten(2).mT).mT
    position_map = (points.unflatten(2, later.position_map.shape[2:]) + later.position_map) / 2
    pose = later.pose
    if pose is not None:
        pose = rigid_pose((moved_camera(camera_of(earlier.pose), edge) + camera_of(pose)) / 2)
    return later._replace(position_map=position_map, pose=pose, uncertainty=uncertainty)


def camera_of(pose: Pose) -> Tensor:
    """Model frame -> y-up plane of the crop, (B, 3, 4)."""
    return torch.cat([pose.scale[:, None, None] * pose.rotation, pose.translation[..., None]], 2)


def moved_camera(
    camera: Tensor,  # (B, 3, 4), model frame -> y-up plane of a crop
    edge: Tensor,  # (B, 4, 4), crop px -> px of another crop
) -> Tensor:
    """The same camera for the other crop, (B, 3, 4)."""
    return flip_y((edge @ crop_from_model(camera))[:, :3], 1)


def moved_parameters(
    parameters: Tensor,  # (B, P)
    num_shape: int,
    edge: Tensor,  # (B, 4, 4), crop px -> px of another crop
) -> Tensor:
    """Those of the same face in the other crop, (B, P)."""
    camera = moved_camera(split_parameters(parameters, num_shape).pose, edge)
    return torch.cat([camera.flatten(1), parameters[:, NUM_POSE:]], 1)
