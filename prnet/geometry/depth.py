"""The depth origin of position maps and of predicted meshes: z starts at 0 at the mesh's least z.

Depth is not observable in a photo: of a fit's t_z nothing is kept but the order of the points.
Letters: B batch, N vertices, P parameters.
"""

import numpy as np
import torch
from torch import Tensor, nn

from prnet.geometry.compiled import cached, in_memory
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.pose_parameters import DEPTH, posed_vertices


def least_depth(
    matrix: Tensor,  # (B, 4, 4), model frame -> image px
    vertices: Tensor,  # (B, N, 3), model frame; their precision is that of the projection
) -> Tensor:
    """The least z of each mesh, image px, (B,)."""
    row = matrix[:, 2, :3].to(vertices.dtype)
    if in_memory(vertices, row):
        least = _least_products(vertices.detach().numpy(), row.detach().contiguous().numpy())
        return torch.from_numpy(least) + matrix[:, 2, 3]
    return (vertices @ row[..., None]).amin((1, 2)) + matrix[:, 2, 3]


def shift_depth(
    matrix: Tensor,  # (..., 4, 4), model frame -> image px
    least: Tensor | float,  # (...), image px
) -> Tensor:
    """The same edge with z moved so that `least` becomes 0, (..., 4, 4)."""
    shifted = matrix.clone()
    shifted[..., 2, 3] -= least
    return shifted


class DepthOrigin(nn.Module):
    """Sets t_z of parameter vectors so that the mesh starts at z = 0.

    The vertex of the least z lies on the convex hull; that of the mean face stands for the hulls
    of all faces.
    """

    def __init__(self, model: MorphableModel) -> None:
        super().__init__()
        from scipy.spatial import ConvexHull

        hull = np.sort(ConvexHull(model.mean.double().cpu().numpy()).vertices)
        self.hull = model.at_vertices(torch.from_numpy(hull).to(model.mean.device))

    def forward(self, parameters: Tensor) -> Tensor:  # (B, P)
        """The vectors with another t_z, (B, P)."""
        moved = parameters.clone()
        moved[:, DEPTH] -= posed_vertices(self.hull, parameters)[..., 2].amin(1)
        return moved


@cached(fastmath={"contract", "nsz"})
def _least_products(vertices: np.ndarray, rows: np.ndarray) -> np.ndarray:  # (B, N, 3), (B, 3)
    least = np.full(len(rows), np.inf, rows.dtype)
    for sample in range(len(rows)):
        mesh = vertices[sample]
        x, y, z = rows[sample, 0], rows[sample, 1], rows[sample, 2]
        lowest = least[sample]
        for vertex in range(len(mesh)):
            depth = x * mesh[vertex, 0] + y * mesh[vertex, 1] + z * mesh[vertex, 2]
            lowest = min(lowest, depth)
        least[sample] = lowest
    return least
