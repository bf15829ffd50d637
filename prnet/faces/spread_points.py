"""Points that stand for a whole face: its landmarks and vertices spread evenly over it.

Letters: B batch, K points, N vertices, C = S + E coefficients.
"""

import numpy as np
import torch
from torch import Tensor, nn

from prnet.faces.face import Face
from prnet.geometry.align import umeyama
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.pose_parameters import FLIP, mirrored_vertices

NUM_LANDMARKS = 68
# Pose and coefficients are found in turn.
ROUNDS = 4


def spread_points(face: Face, pairs: int) -> Tensor:
    """The 68 landmarks, then `pairs` vertices of the subject's right half of the face and their
    mirror images, each vertex as far as can be from those before it: (68 + 2 pairs,)."""
    mean = face.morphable_model.mean.double().cpu().numpy()
    on_face = ~face.regions["rest"].cpu().numpy()
    right_half = np.flatnonzero(on_face & (mean[:, 0] <= 0))
    chosen = [right_half[0]]
    distance = np.linalg.norm(mean[right_half] - mean[chosen[0]], axis=1)
    while len(chosen) < pairs:
        chosen.append(right_half[distance.argmax()])
        new = np.linalg.norm(mean[right_half] - mean[chosen[-1]], axis=1)
        distance = np.minimum(distance, new)
    right = torch.tensor(chosen)
    left = mirrored_vertices(face.morphable_model, face.mirror_index)[right]
    landmarks = face.landmark_index
    return torch.cat([landmarks, torch.cat([right, left]).to(landmarks.device)])


class PointFit(nn.Module):
    """Pose and coefficients of the face nearest to given points, in a few closed steps.

    In turn: the similarity that brings the face's points to the given ones, and the most probable
    coefficients where points err by `noise` and coefficients are spread as in training (ridge
    regression). Differentiable.
    """

    def __init__(
        self,
        model: MorphableModel,  # of the K points
        mean: Tensor,  # (C,), of the coefficients in training
        std: Tensor,  # (C,)
        *,
        noise: float,  # model units, of each coordinate
        rounds: int = ROUNDS,
    ) -> None:
        super().__init__()
        self.rounds = rounds
        basis = model.basis.double().flatten(1) / noise  # (C, 3 K)
        mean, std = mean.double(), std.double()
        # Scaled by their spread: a coefficient that never varies stays where it is.
        scaled = std[:, None] * basis
        system = scaled @ scaled.T + torch.eye(len(std), dtype=std.dtype, device=std.device)
        solve = std[:, None] * torch.linalg.solve(system, scaled) / noise  # (C, 3 K)
        points = model.mean.double().flatten() + mean @ model.basis.double().flatten(1)
        for name, value in {
            "mean": mean,
            "solve": solve,
            "basis": model.basis.double().flatten(1),
            "points": points,
        }.items():
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, points: Tensor) -> Tensor:  # (B, K, 3), crop px
        """Pose (f R | t) and coefficients, see `prnet.geometry.pose_parameters`, (B, 12 + C)."""
        target = points * points.new_tensor(FLIP)
        offset = points.new_zeros(points.shape[0], self.mean.shape[0])
        for _ in range(self.rounds):
            found = umeyama(self._shaped(offset), target, damping=0.0)
            local = (target - found.translation[:, None]) @ found.rotation
            local = local / found.scale[:, None, None]
            offset = (local.flatten(1) - self.points) @ self.solve.T
        found = umeyama(self._shaped(offset), target, damping=0.0)
        rotation = found.scale[:, None, None] * found.rotation
        pose = torch.cat([rotation, found.translation[..., None]], -1)
        return torch.cat([pose.flatten(1), self.mean + offset], 1)

    def _shaped(self, offset: Tensor) -> Tensor:  # (B, C)
        """The face's points, (B, K, 3)."""
        return torch.addmm(self.points, offset, self.basis).unflatten(1, (-1, 3))
