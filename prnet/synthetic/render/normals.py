"""Normals of a mesh whose triangles mostly come in pairs, as compiled loops.

Letters: N vertices, T triangles, Q quads.
"""

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.compiled import cached, inlined


def quad_normals(
    points: Tensor,  # (N, 3), crop px, float32
    diagonals: Tensor,  # (Q, 4), of `diagonals_of`
) -> Tensor:
    """Unit normals of the vertices, (N, 3): means over their quads, weighted by area."""
    normals = torch.zeros_like(points)
    _add_normals(points.contiguous().numpy(), diagonals.numpy(), normals.numpy())
    return normals


def diagonals_of(triangles: Tensor) -> Tensor:  # (T, 3)
    """Start and end of each quad's diagonals, whose cross product is twice its area, (Q, 4) int32;
    of a triangle (a, b, c): a to c and b to c."""
    return quads_of(triangles)[:, [0, 2, 1, 3]].to(torch.int32)


def quads_of(triangles: Tensor) -> Tensor:  # (T, 3)
    """Neighbours in the list that share an edge as one quad, (Q, 4) in the triangles' order of
    corners; the other triangles with their last corner twice."""
    single = torch.cat([triangles, triangles[:, 2:]], 1)
    even = len(triangles) // 2 * 2
    first, second = triangles[0:even:2], triangles[1:even:2]
    shared = (first[:, :, None] == second[:, None, :]).any(2)  # (T / 2, 3), corners of the first
    joined = shared.sum(1) == 2
    # The corner that is not shared comes second: (a, b, c) and the far corner d.
    turn = ((~shared).float().argmax(1, keepdim=True) + torch.tensor([2, 0, 1])) % 3
    near = first.gather(1, turn)
    far = (second * ~(second[:, :, None] == first[:, None, :]).any(2)).sum(1, keepdim=True)
    alone = torch.cat([~joined.repeat_interleave(2), torch.ones(len(triangles) - even).bool()])
    return torch.cat([torch.cat([near, far], 1)[joined], single[alone]])


@cached()
def _add_normals(
    points: np.ndarray,  # (N, 3)
    diagonals: np.ndarray,  # (Q, 4)
    normals: np.ndarray,  # (N, 3), zeros; written
) -> None:
    for quad in range(len(diagonals)):
        a, c, b, d = diagonals[quad, 0], diagonals[quad, 1], diagonals[quad, 2], diagonals[quad, 3]
        x_1, y_1 = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1]
        x_2, y_2 = points[d, 0] - points[b, 0], points[d, 1] - points[b, 1]
        z_1, z_2 = points[c, 2] - points[a, 2], points[d, 2] - points[b, 2]
        x, y, z = y_1 * z_2 - z_1 * y_2, z_1 * x_2 - x_1 * z_2, x_1 * y_2 - y_1 * x_2
        _add(normals, a, x, y, z)
        _add(normals, b, x, y, z)
        _add(normals, c, x, y, z)
        # A triangle is a quad with its last corner twice, which counts once.
        if d != c:
            _add(normals, d, x, y, z)
    for vertex in range(len(normals)):
        x, y, z = normals[vertex, 0], normals[vertex, 1], normals[vertex, 2]
        length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
        normals[vertex, 0], normals[vertex, 1] = x / length, y / length
        normals[vertex, 2] = z / length


@inlined(error_model="numpy")
def _add(normals: np.ndarray, vertex: int, x: float, y: float, z: float) -> None:
    normals[vertex, 0] += x
    normals[vertex, 1] += y
    normals[vertex, 2] += z
