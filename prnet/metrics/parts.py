"""Where the error of 68 landmarks comes from: pose or shape, which turn, which part of the face.

Points are in px of the image, y down, z toward the camera; a rotation takes the mean face to a face
there. Letters: B images.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from prnet.geometry.align import Similarity, umeyama
from prnet.metrics.nme import bbox_size, nme
from prnet.metrics.pose import rotation_vector_deg


class Part(NamedTuple):
    title: str
    unit: str = "%"  # of the box of the true 68, or "deg", or "" for a ratio


# Of the 68 in the order of iBUG: first, one past the last.
REGIONS = {"jaw": (0, 17), "brows": (17, 27), "nose": (27, 36), "eyes": (36, 48), "mouth": (48, 68)}
# What `error_parts` gives, in the order of a report. A `signed` one may cancel out in a mean.
PARTS = {
    "as_it_is": Part("as it is"),
    "true_translation": Part("true translation given"),
    "true_similarity_2d": Part("true 2D similarity given"),
    "true_similarity_3d": Part("true 3D similarity given (shape)"),
    "mean_face_in_true_pose": Part("mean of the truths in the true pose"),
    "true_shape_in_predicted_pose": Part("true shape in the predicted pose (pose)"),
    "rotation": Part("angle between the rotations", "deg"),
    "pitch_signed": Part("pitch, signed: above 0 it looks further up", "deg"),
    "pitch": Part("pitch", "deg"),
    "yaw_signed": Part("yaw, signed: above 0 further to the picture's left", "deg"),
    "yaw": Part("yaw", "deg"),
    "roll_signed": Part("roll, signed: above 0 further clockwise", "deg"),
    "roll": Part("roll", "deg"),
    "size": Part("size, predicted / true", ""),
    "shift_right": Part("shift to the right"),
    "shift_down": Part("shift down"),
    "shift": Part("length of the shift"),
    **{region: Part(region) for region in REGIONS},
}
# How the true head is held, degrees: its up axis against the picture's, its forward axis above the
# horizon (some -15 for a face that looks into the camera, since up runs from chin to nose bridge).
HOLDINGS = {"tilt": (0, 15, 30, 45, 60, 180), "elevation": (-90, -30, -15, 0, 15, 30, 90)}
# Truths that the mean face is made of, and how often they are averaged.
NEAR_FRONTAL_DEG = 10.0
ROUNDS = 3


class Head(NamedTuple):
    """What rotations are counted from."""

    points: Tensor  # (68, 3), the mean face
    axes: Tensor  # (3, 3), rows: to the picture's right, up, forward, on the mean face


def mean_head(near_frontal: Tensor) -> Head:  # (B, 68, 3), true landmarks
    """The mean of faces that look into the camera, each brought onto it by its similarity.

    Up runs from the chin to the nose bridge, right from the outer corner of the eye at the
    picture's left to the other one's, forward out of the face.

    Raises:
        ValueError: no face, or as `umeyama`.
    """
    if not len(near_frontal):
        raise ValueError("near_frontal: got no face, expected at least 1")
    mean = near_frontal[0].double()
    for _ in range(ROUNDS):
        target = mean.expand_as(near_frontal).contiguous()
        mean = moved(near_frontal, umeyama(near_frontal, target)).mean(0)
    up = mean[27] - mean[8]
    up = up / up.norm()
    right = mean[45] - mean[36]
    right = right - (right @ up) * up
    right = right / right.norm()
    return Head(mean, torch.stack([right, up, torch.linalg.cross(up, right)]))


def moved(points: Tensor, by: Similarity) -> Tensor:  # (B, N, 3)
    """The points under a similarity, (B, N, 3)."""
    turned = points @ by.rotation.mT
    return by.scale[:, None, None] * turned + by.translation[:, None]


def moved_flat(source: Tensor, target: Tensor) -> Tensor:  # (B, N, 2) both
    """The source under the least-squares similarity of the plane onto the target, (B, N, 2).

    With points as complex numbers, both centred: target = a source, a = <source, target> /
    |source|^2.
    """
    first = torch.view_as_complex((source - source.mean(1, keepdim=True)).contiguous())
    second = torch.view_as_complex((target - target.mean(1, keepdim=True)).contiguous())
    factor = (first.conj() * second).sum(1) / first.abs().square().sum(1)
    return torch.view_as_real(factor[:, None] * first) + target.mean(1, keepdim=True)


def error_parts(
    predicted: Tensor,  # (B, 68, 3)
    truth: Tensor,  # (B, 68, 3)
    head: Head,
) -> dict[str, Tensor]:
    """Every one of `PARTS` and the two `HOLDINGS` of the truth, {name: (B,)}, float64.

    All percentages are NMEs of x and y in the box of the true 68. Turns are about the head's own
    axes: the rotation vector of R_true^T R_predicted, whose three components are the signed ones.

    Raises:
        ValueError: as `umeyama`, of faces whose points coincide or lie on a line.
    """
    predicted, truth = predicted.double(), truth.double()
    size = bbox_size(truth)
    mean_face = head.points.to(truth).expand_as(truth).contiguous()
    axes = head.axes.to(truth)
    true_pose, predicted_pose = umeyama(mean_face, truth), umeyama(mean_face, predicted)
    to_prediction = umeyama(truth, predicted)
    offsets = (predicted - truth)[..., :2]  # (B, 68, 2)
    shift = offsets.mean(1)

    def error(points: Tensor) -> Tensor:
        return nme(points[..., :2], truth[..., :2], size)

    parts = {
        "as_it_is": error(predicted),
        "true_translation": error(predicted[..., :2] - shift[:, None]),
        "true_similarity_2d": error(moved_flat(predicted[..., :2], truth[..., :2])),
        "true_similarity_3d": error(moved(predicted, umeyama(predicted, truth))),
        "mean_face_in_true_pose": error(moved(mean_face, true_pose)),
        "true_shape_in_predicted_pose": error(moved(truth, to_prediction)),
    }
    turn = rotation_vector_deg(true_pose.rotation.mT @ predicted_pose.rotation)
    parts["rotation"] = turn.norm(dim=-1)
    for name, about in zip(("pitch", "yaw", "roll"), (turn @ axes.T).unbind(-1), strict=True):
        parts |= {f"{name}_signed": about, name: about.abs()}
    parts["size"] = to_prediction.scale
    right, down = (100 * shift / size[:, None]).unbind(-1)
    parts |= {"shift_right": right, "shift_down": down, "shift": torch.hypot(right, down)}
    for region, (first, end) in REGIONS.items():
        parts[region] = 100 * offsets[:, first:end].norm(dim=-1).mean(1) / size
    up, forward = (true_pose.rotation @ axis for axis in axes[1:])  # (B, 3), y down
    parts["tilt"] = torch.rad2deg(torch.atan2(up[:, 0], -up[:, 1])).abs()
    parts["elevation"] = torch.rad2deg(torch.asin((-forward[:, 1]).clamp(-1, 1)))
    return parts
