"""The UV layout of a face: one rasterisation, after which every position map is a gather.

Letters: B batch, N vertices, T triangles, H W = the map's side (256), K = 68 landmarks, P face
pixels. Rows are v_px = (H - 1)(1 - v), columns u_px = (W - 1) u; maps sample the surface at integer
rows and columns, as PRN's do.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prnet.geometry.compiled import cached, in_memory

OUTSIDE, REST, EYES_NOSE_MOUTH, LANDMARK = range(4)

# Pixels of PRN's ground-truth maps this close to the border skip the inside test (see
# `rasterize_uv`).
BORDER_BAND = 2
# A weight above minus this is on the edge: no rounding leaves a gap between neighbours.
EDGE_TOLERANCE = 1e-9


class UVRaster(NamedTuple):
    """Which triangle covers each texel, and where in it."""

    triangle: np.ndarray  # (H, W), int64, index into the triangles; -1 where none
    barycentric: np.ndarray  # (H, W, 3), weights of the triangle's corners; 0 where none


def uv_pixels(uv_coords: np.ndarray, resolution: int) -> np.ndarray:  # (N, 2), u and v in [0, 1]
    """Column and row of every vertex, (N, 2), float64, not rounded."""
    uv_coords = np.asarray(uv_coords, dtype=np.float64)
    return (resolution - 1) * np.stack([uv_coords[:, 0], 1 - uv_coords[:, 1]], -1)


def rasterize_uv(
    pixels: np.ndarray,  # (N, 2), column and row
    triangles: np.ndarray,  # (T, 3)
    *,
    resolution: int,
    border_quirk: bool = False,
) -> UVRaster:
    """Sample a flat triangulation at integer pixels; of triangles that overlap the first one wins.

    A triangle takes the pixels inside it and on its border. `border_quirk` meets published maps bit
    for bit instead: face3d works in float32, leaves out the edge w1 + w2 = 1, and its pixels within
    2 of the map's border, all outside the face, take any triangle whose bounding box holds them,
    with extrapolated weights. In the BFM's face the two differ by rounding only.
    """
    corners = pixels.astype(np.float32 if border_quirk else np.float64)[triangles]  # (T, 3, 2)
    low = np.maximum(np.ceil(corners.min(1)), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(1)), resolution - 1).astype(np.int64)
    sides = np.maximum(high - low + 1, 0)  # (T, 2)

    # One candidate per triangle and integer pixel of its bounding box, triangles in list order.
    counts = sides.prod(1)
    owner = np.repeat(np.arange(len(triangles)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    column = low[owner, 0] + within % sides[owner, 0]
    row = low[owner, 1] + within // sides[owner, 0]

    # Gram's form of the weights is face3d's; the rounding decides pixels that lie on an edge.
    edge_2 = (corners[:, 2] - corners[:, 0])[owner]
    edge_1 = (corners[:, 1] - corners[:, 0])[owner]
    offset = np.stack([column, row], -1).astype(corners.dtype) - corners[owner, 0]
    dot_22, dot_12, dot_11 = _dot(edge_2, edge_2), _dot(edge_1, edge_2), _dot(edge_1, edge_1)
    dot_2o, dot_1o = _dot(edge_2, offset), _dot(edge_1, offset)
    determinant = dot_22 * dot_11 - dot_12 * dot_12
    regular = determinant != 0
    inverse = np.divide(1, determinant, out=np.zeros_like(determinant), where=regular)
    weight_2 = (dot_11 * dot_2o - dot_12 * dot_1o) * inverse
    weight_1 = (dot_22 * dot_1o - dot_12 * dot_2o) * inverse
    if border_quirk:
        inside = (weight_1 >= 0) & (weight_2 >= 0) & (weight_1 + weight_2 < 1)
        last = resolution - 1 - BORDER_BAND
        border = (column < BORDER_BAND) | (column > last) | (row < BORDER_BAND) | (row > last)
        inside |= border
    else:
        least = np.minimum(np.minimum(weight_1, weight_2), 1 - weight_1 - weight_2)
        inside = least >= -EDGE_TOLERANCE
    inside &= regular

    texel = row[inside] * resolution + column[inside]
    texel, first = np.unique(texel, return_index=True)  # first occurrence: the lowest triangle
    chosen = np.flatnonzero(inside)[first]
    triangle = np.full(resolution**2, -1, dtype=np.int64)
    barycentric = np.zeros((resolution**2, 3), dtype=corners.dtype)
    triangle[texel] = owner[chosen]
    barycentric[texel, 1] = weight_1[chosen]
    barycentric[texel, 2] = weight_2[chosen]
    barycentric[texel, 0] = 1 - weight_2[chosen] - weight_1[chosen]
    shape = (resolution, resolution)
    return UVRaster(triangle.reshape(shape), barycentric.reshape(*shape, 3))


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # (M, 2), (M, 2)
    return first[:, 0] * second[:, 0] + first[:, 1] * second[:, 1]


def grid_triangles(face_mask: np.ndarray) -> np.ndarray:  # (H, W), bool
    """Triangles between face pixels, (T, 3), indices into the face pixels in row-major order.

    For each pixel p: (p, below, below-left) where both are in the mask, then (p, right, below).
    Outward in the y-down image frame. PRNet's triangles.txt is this list without its first
    triangle.
    """
    rows, columns = face_mask.shape
    index = np.full((rows + 1, columns + 2), -1, dtype=np.int64)
    index[:-1, 1:-1][face_mask] = np.arange(face_mask.sum())
    here, right = index[:-1, 1:-1], index[:-1, 2:]
    below, below_left = index[1:, 1:-1], index[1:, :-2]
    pairs = np.stack(
        [np.stack([here, below, below_left], -1), np.stack([here, right, below], -1)], axis=2
    )  # (H, W, 2, 3)
    pairs = pairs.reshape(-1, 3)
    return pairs[(pairs >= 0).all(1)]


def face_mask_from_jaw(
    landmark_pixels: np.ndarray,  # (68, 2), column and row
    *,
    resolution: int,
    margin: float = 0.018,
    jaw_scale: float = 1.08,
) -> np.ndarray:
    """Face without neck, (H, W) bool: everything above the jaw line pushed outward from the nose
    tip.

    Stands in for PRNet's hand-drawn uv_face_mask.png where the user has not brought it; the
    constants were chosen so that the two agree best on the BFM (intersection over union 0.963).
    """
    tip = landmark_pixels[30]
    jaw = tip + jaw_scale * (landmark_pixels[:17] - tip)
    first = margin * (resolution - 1)
    last = resolution - 1 - first
    jaw = jaw[np.argsort(jaw[:, 0])]
    columns = np.arange(resolution)
    lower = np.interp(columns, jaw[:, 0], jaw[:, 1])
    rows = np.arange(resolution)[:, None]
    inside_columns = (columns >= first) & (columns <= last)
    return inside_columns & (rows >= first) & (rows <= lower)


class UVLayout(nn.Module):
    """The fixed relation between a mesh and its position map.

    Buffers: `vertex_index` (H, W, 3) and `barycentric` (H, W, 3), the three vertices of every texel
        and their weights; `face_mask` (H, W) bool; `region` (H, W) int, one of OUTSIDE, REST,
        EYES_NOSE_MOUTH, LANDMARK; `landmark_cells` (68, 2), row and column; `vertex_pixels` (N, 2),
        column and row of every vertex; `face_index` (P,), flat indices of the face pixels,
        ascending; `grid_triangles` (T, 3) on them.
    """

    def __init__(
        self,
        uv_coords: np.ndarray,  # (N, 2)
        triangles: np.ndarray,  # (T, 3)
        landmark_index: np.ndarray,  # (68,), vertices
        central_vertices: np.ndarray,  # (N,), bool: eyes, nose and mouth
        *,
        resolution: int = 256,
        face_mask: np.ndarray | None = None,  # (H, W), bool; None: `face_mask_from_jaw`
        landmark_cells: np.ndarray | None = None,  # (68, 2), row and column; None: nearest texels
        border_quirk: bool = False,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        pixels = uv_pixels(uv_coords, resolution)
        raster = rasterize_uv(pixels, triangles, resolution=resolution, border_quirk=border_quirk)
        vertex_index = triangles[raster.triangle]  # (H, W, 3)
        barycentric = raster.barycentric

        # The lips' slit (and the rim of a layout that stays off the border) has no triangle.
        uncovered = raster.triangle < 0
        nearest = nearest_vertices(np.argwhere(uncovered)[:, ::-1], pixels)
        vertex_index[uncovered] = nearest[:, None]
        barycentric[uncovered] = [1.0, 0.0, 0.0]

        if face_mask is None:
            face_mask = face_mask_from_jaw(pixels[landmark_index], resolution=resolution)
        if landmark_cells is None:
            # numpy rounds half to even, as the published table was.
            landmark_cells = np.rint(pixels[landmark_index])[:, ::-1].astype(np.int64)
        if face_mask.shape != (resolution, resolution):
            raise ValueError(
                f"face mask: got {face_mask.shape}, expected ({resolution}, {resolution})"
            )

        central = (central_vertices[vertex_index] * barycentric).sum(-1) >= 0.5
        region = np.where(central, EYES_NOSE_MOUTH, REST)
        region[tuple(landmark_cells.T)] = LANDMARK
        region[~face_mask] = OUTSIDE

        buffers = {
            "vertex_index": vertex_index,
            "barycentric": barycentric.astype(np.float32),
            "face_mask": face_mask,
            "face_index": np.flatnonzero(face_mask),
            "region": region,
            "landmark_cells": landmark_cells,
            "vertex_pixels": pixels.astype(np.float32),
            "grid_triangles": grid_triangles(face_mask),
        }
        for name, array in buffers.items():
            self.register_buffer(name, torch.from_numpy(array.copy()), persistent=False)

    def position_map(self, vertices: Tensor) -> Tensor:  # (B, N, C)
        """Vertex attributes in UV space, (B, C, H, W); a position map for vertices in crop px."""
        texels = self.at_texels(vertices, slice(None))  # (B, H W, C)
        side = self.resolution
        return texels.transpose(1, 2).unflatten(-1, (side, side)).contiguous()

    def at_texels(
        self,
        vertices: Tensor,  # (B, N, C)
        texels: Tensor | slice,  # (T,), flat indices of the map
    ) -> Tensor:
        """Vertex attributes at some texels alone, (B, T, C)."""
        index = self.vertex_index.flatten(0, 1)[texels]  # (T, 3)
        return interpolate(vertices, index, self.barycentric.flatten(0, 1)[texels])

    def landmarks(self, position_map: Tensor) -> Tensor:  # (B, C, H, W)
        """The 68 landmarks at their cells, (B, 68, C), order of iBUG."""
        return position_map.flatten(2)[:, :, self.landmark_texels].transpose(1, 2)

    @property
    def landmark_texels(self) -> Tensor:
        """Flat indices of the landmark cells, (68,)."""
        row, column = self.landmark_cells.unbind(-1)
        return row * self.resolution + column

    def face_points(self, position_map: Tensor) -> Tensor:  # (B, C, H, W)
        """The map at the face pixels in row-major order, (B, P, C): PRNet's dense vertices."""
        return position_map.flatten(2)[:, :, self.face_index].transpose(1, 2)

    def weight_mask(
        self,
        ratio: tuple[float, float, float, float],
    ) -> Tensor:
        """W(u, v) of PRN eq. 1, (H, W) float32, crisp.

        `ratio` is landmarks : eyes, nose and mouth : rest of the face : neck and everything else,
        the order of the paper (16:4:3:0).
        """
        by_region = torch.tensor(ratio[::-1], dtype=torch.float32, device=self.region.device)
        return by_region[self.region]


def interpolate(
    vertices: Tensor,  # (B, N, C)
    corners: Tensor,  # (T, 3), vertices
    weights: Tensor,  # (T, 3)
) -> Tensor:
    """Vertex attributes inside triangles, (B, T, C)."""
    weights = weights.to(vertices.dtype)
    if in_memory(vertices, weights):
        found = vertices.new_zeros(len(vertices), len(corners), vertices.shape[2])
        _interpolate(
            vertices.detach().contiguous().numpy(),
            corners.contiguous().numpy(),
            weights.contiguous().numpy(),
            found.numpy(),
        )
        return found
    # With the vertices leading in memory a gather moves whole rows of B C numbers.
    by_vertex = vertices.transpose(0, 1).flatten(1)  # (N, B C)
    rows = sum(by_vertex[corners[:, k]] * weights[:, k, None] for k in range(3))  # (T, B C)
    return rows.unflatten(1, (vertices.shape[0], -1)).transpose(0, 1).contiguous()


@cached(fastmath={"contract", "nsz"})
def _interpolate(
    vertices: np.ndarray,  # (B, N, C)
    corners: np.ndarray,  # (T, 3)
    weights: np.ndarray,  # (T, 3)
    found: np.ndarray,  # (B, T, C), written
) -> None:
    for sample in range(len(vertices)):
        values, written = vertices[sample], found[sample]
        for texel in range(len(corners)):
            i, j, k = corners[texel, 0], corners[texel, 1], corners[texel, 2]
            w_i, w_j, w_k = weights[texel, 0], weights[texel, 1], weights[texel, 2]
            for c in range(values.shape[1]):
                written[texel, c] = w_i * values[i, c] + w_j * values[j, c] + w_k * values[k, c]


def nearest_vertices(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Index of the vertex of `pixels` (N, 2) nearest to each of `points` (M, 2), (M,)."""
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    from scipy.spatial import cKDTree

    return cKDTree(pixels).query(points)[1]
