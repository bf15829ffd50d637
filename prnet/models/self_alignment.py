"""SADRNet's self-alignment (section III-C): the pose from two faces, and one face posed by it.

Letters: B batch, K = 68 landmarks, H W map side, h w attention side. P is the pose-dependent face
(crop px), S the pose-independent one (model frame, any unit), G = F (f R S + t) the result, with
F = diag(1, -1, 1) between the y-up model frame and the y-down crop: R is then a rotation and the
one whose angles a fit holds. The released code solves for F R with a solver that may reflect.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.geometry.align import Similarity, nearest_rotation, umeyama, weight_shares
from prnet.geometry.camera import flip_y
from prnet.geometry.uv import UVLayout
from prnet.sample import Pose

Alignment = Literal["least_squares", "paper", "released"]

# Of `nearest_rotation`. The 68 landmarks, weighted, have s_2 + s_3 above 0.4 s_1 at any yaw and
# behind any disc: their gradient is off by 6e-6 of itself; that of a line stays below 500 / s_1.
DAMPING = 1e-3
# Weight of a landmark that is turned away, in the released code; and what no weight falls below, so
# that an attention of nearly 0 everywhere divides nothing by nearly 0.
RELEASED_HIDDEN = 0.1
RELEASED_LEAST = 1e-6


def attention_at(
    attention: Tensor,  # (B, h, w)
    points: Tensor,  # (B, K, 2 or more), crop px
    *,
    crop_size: tuple[int, int],
) -> Tensor:
    """A(floor x, floor y) of eq. 10, (B, K); 0 outside the crop, where nothing is seen.

    The attention has a lower resolution than the crop of `crop_size` (height, width): each of its
    cells stands for a block of pixels. Differentiable in the attention.
    """
    height, width = attention.shape[1:]
    x, y = points.detach()[..., 0], points.detach()[..., 1]
    inside = (x >= 0) & (x < crop_size[1]) & (y >= 0) & (y < crop_size[0])
    column = torch.where(inside, x * (width / crop_size[1]), 0).long().clamp(max=width - 1)
    row = torch.where(inside, y * (height / crop_size[0]), 0).long().clamp(max=height - 1)
    return attention.flatten(1).gather(1, row * width + column) * inside


def apply_pose(
    pose: Pose,
    shape_map: Tensor,  # (B, 3, H, W), the model frame of `pose`
) -> Tensor:
    """G = F (f R S + t) of eq. 2, (B, 3, H, W), crop px."""
    with torch.autocast(shape_map.device.type, enabled=False):
        linear = flip_y(pose.scale[:, None, None] * pose.rotation, 1)
        translation = flip_y(pose.translation, 1)[..., None]
        posed = torch.baddbmm(translation, linear, shape_map.flatten(2))
        return posed.unflatten(2, shape_map.shape[2:])


def align_landmarks(
    shape_landmarks: Tensor,  # (B, K, 3), y up
    posed_landmarks: Tensor,  # (B, K, 3), y up too
    weights: Tensor,  # (B, K), >= 0
    *,
    alignment: Alignment = "least_squares",
) -> Similarity:
    """f, R, t of eqs. 12-18: posed = f R shape + t as well as the weights say.

    - "least_squares": the similarity of least weighted squares.
    - "paper": f is the ratio of the mean distances from the weighted centroids, not weighted
      themselves (eq. 14). Of eq. 18, t = M_P - R M_S, the missing f is put back.
    - "released": as the code: f by eq. 14, R from points about their plain means, t between the
      plain means.

    Without noise all three are exact. Never raises on values; gradients are finite.
    """
    if alignment == "least_squares":
        return umeyama(shape_landmarks, posed_landmarks, weights, damping=DAMPING)
    share = weight_shares(weights)[..., None]  # (B, K, 1)
    shape_mean = (share * shape_landmarks).sum(1, keepdim=True)  # (B, 1, 3), eq. 12
    posed_mean = (share * posed_landmarks).sum(1, keepdim=True)  # eq. 13
    shape_distance = torch.linalg.vector_norm(shape_landmarks - shape_mean, dim=-1).sum(1)
    posed_distance = torch.linalg.vector_norm(posed_landmarks - posed_mean, dim=-1).sum(1)
    # A shape that is one point but for rounding gives 0, not infinity.
    info = torch.finfo(weights.dtype)
    least = info.eps * shape_landmarks.detach().abs().sum((1, 2)) + info.tiny
    extended = shape_distance > least
    scale = extended * posed_distance / shape_distance.clamp(min=least)  # (B,), eq. 14
    if alignment == "released":
        shape_mean = shape_landmarks.mean(1, keepdim=True)
        posed_mean = posed_landmarks.mean(1, keepdim=True)
    weighted = share * (posed_landmarks - posed_mean)
    covariance = weighted.transpose(1, 2) @ (shape_landmarks - shape_mean)  # (B, 3, 3)
    rotation = nearest_rotation(covariance, damping=DAMPING)  # eqs. 15-17; f > 0 moves no R
    turned = (rotation @ shape_mean.transpose(1, 2)).squeeze(-1)  # (B, 3)
    return Similarity(scale, rotation, posed_mean.squeeze(1) - scale[:, None] * turned)


class SelfAlignment(nn.Module):
    """G and its pose from S, P and the attention, differentiable in all three.

    A landmark's weight is Vis + `floor` (eq. 11), Vis the attention at its pixel where the normal
    of P points to the camera, n_z >= 0, else 0 (eq. 10); without attention it counts as 1. The
    normal is that of the landmark's four neighbours in the map. "released" weighs by 1 or 0.1 times
    the attention instead, 0 where n_z is 0, with the normal of one triangle; its authors leave the
    attention out in training.

    Runs in float32, or the double precision of its inputs, under autocast too. Whatever the maps
    hold, it neither raises nor, from finite ones, returns anything not finite.

    Buffers, none stored in checkpoints: flat texels of the landmarks (K,) and of their neighbours
    left, right, above and below (4, K).
    """

    def __init__(
        self, uv: UVLayout, *, alignment: Alignment = "least_squares", floor: float = 0.1
    ) -> None:
        """Raises:
        ValueError: another alignment, or a floor that is not positive.
        """
        super().__init__()
        require_choice("alignment", alignment, get_args(Alignment))
        if not 0 < floor < float("inf"):
            raise ValueError(f"floor: got {floor}, expected a positive number (the paper's is 0.1)")
        self.alignment = alignment
        self.floor = floor
        around = uv.landmark_cells.new_tensor([[0, -1], [0, 1], [-1, 0], [1, 0]])
        cells = uv.landmark_cells + around[:, None]  # (4, K, 2), row and column
        row, column = cells.clamp(0, uv.resolution - 1).unbind(-1)
        self.register_buffer("texels", uv.landmark_texels.clone(), persistent=False)
        self.register_buffer("neighbours", row * uv.resolution + column, persistent=False)

    def forward(
        self,
        shape_map: Tensor,  # (B, 3, H, W), model frame, any unit
        pose_dependent_map: Tensor,  # (B, 3, H, W), crop px of a crop of H x W
        attention: Tensor | None = None,  # (B, h, w), in [0, 1]
    ) -> tuple[Tensor, Pose]:
        """G (B, 3, H, W), crop px, and the pose, px per unit of `shape_map`."""
        with torch.autocast(shape_map.device.type, enabled=False):
            precision = torch.promote_types(shape_map.dtype, torch.float32)
            shape_map, pose_dependent_map = (
                position_map.to(precision) for position_map in (shape_map, pose_dependent_map)
            )
            if attention is not None:
                attention = attention.to(precision)
            posed = pose_dependent_map.flatten(2)[..., self.texels].transpose(1, 2)
            pose = Pose(
                *align_landmarks(
                    shape_map.flatten(2)[..., self.texels].transpose(1, 2),
                    flip_y(posed, 2),
                    self.weights(pose_dependent_map, attention),
                    alignment=self.alignment,
                )
            )
            return apply_pose(pose, shape_map), pose

    def weights(
        self,
        pose_dependent_map: Tensor,  # (B, 3, H, W), crop px
        attention: Tensor | None,  # (B, h, w)
    ) -> Tensor:
        """The weight of every landmark, (B, K): eqs. 10-11, or the released code's."""
        landmarks = pose_dependent_map.flatten(2)[..., self.texels].transpose(1, 2)  # (B, K, 3)
        seen = torch.ones_like(landmarks[..., 0])
        if attention is not None:
            seen = attention_at(attention, landmarks, crop_size=pose_dependent_map.shape[2:])
        plane = pose_dependent_map[:, :2].detach().flatten(2)
        left, right, above, below = (plane[..., texels] for texels in self.neighbours)  # (B, 2, K)
        if self.alignment == "released":
            normal_z = _cross(plane[..., self.texels] - above, left - above)
            facing = torch.where(normal_z > 0, 1.0, RELEASED_HIDDEN) * (normal_z != 0)
            return (seen * facing).clamp(min=RELEASED_LEAST)
        # Columns run to the image's right and rows down, as x and y do: outward is toward +z.
        return seen * (_cross(right - left, below - above) >= 0) + self.floor


def _cross(first: Tensor, second: Tensor) -> Tensor:  # (B, 2, K)
    """z of the cross product of two vectors of the plane, (B, K)."""
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
