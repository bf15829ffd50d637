"""Normals of a triangle mesh. Letters: B batch, N vertices, T triangles.

Triangles are those of the published face models: n = (p1 - p0) x (p2 - p0) points outward in the
image and crop frames (y down). In the y-up model frame the same triangles give inward normals.
"""

import torch
from torch import Tensor

from prnet.geometry.rasterize import require_mesh


def vertex_normals(
    vertices: Tensor,  # (B, N, 3), any frame
    triangles: Tensor,  # (T, 3)
) -> Tensor:
    """Unit normals (B, N, 3): the mean over each vertex's triangles, weighted by their area.

    Outward in the image and crop frames: n_z > 0 at the nose of a frontal face. Zero where a vertex
    has no triangle with an area. Gradients are finite; on a GPU the order of summation varies.

    Raises:
        ValueError: a shape or dtype is wrong, an index is out of range, a coordinate is not finite.
    """
    require_mesh(vertices, triangles)
    corners = vertices[:, triangles]  # (B, T, 3, 3)
    edge_1 = corners[:, :, 1] - corners[:, :, 0]
    edge_2 = corners[:, :, 2] - corners[:, :, 0]
    area_normals = torch.linalg.cross(edge_1, edge_2)[:, :, None].expand_as(corners)
    total = torch.zeros_like(vertices)
    total = total.index_add(1, triangles.flatten(), area_normals.flatten(1, 2))
    length = torch.linalg.vector_norm(total, dim=-1, keepdim=True)
    return total / length.where(length > 0, 1)
