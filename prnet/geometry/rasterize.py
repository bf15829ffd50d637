"""A z-buffer for triangle meshes in plain torch, on any device.

Letters: B batch, N vertices, T triangles, H W picture, L triangles whose bounding box holds a pixel
centre, M candidates (such a triangle and one pixel of its box), P covered pixels. Coordinates are
worked on as rows, (3, ...), since torch gathers those several times faster than columns.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Candidates that exist at once, some 200 bytes each.
CHUNK = 2**20


class Raster(NamedTuple):
    """What is seen at every pixel."""

    triangle: Tensor  # (B, H, W), int64, index into the triangles; -1 where none
    barycentric: Tensor  # (B, H, W, 3), weights of the triangle's corners; 0 where none
    depth: Tensor  # (B, H, W), interpolated z, larger is nearer; -inf where none


def rasterize(
    vertices: Tensor,  # (B, N, 3), image or crop px
    triangles: Tensor,  # (T, 3)
    *,
    height: int,
    width: int,
    cull_back_faces: bool = False,
) -> Raster:
    """The nearest triangle at every pixel centre (integer x and y), with affine interpolation.

    A triangle covers the pixel centres inside it and on its border: neighbours leave no gap, as the
    edge functions of a shared edge are exact opposites. The largest z wins, and among equals the
    first triangle of the list, so the result never depends on the order of execution. Triangles
    without area on the screen cover nothing. `cull_back_faces` leaves out triangles that turn their
    back, n_z < 0 for n = (p1 - p0) x (p2 - p0).

    `barycentric` and `depth` can be differentiated with respect to `vertices`; coverage cannot.

    Raises:
        ValueError: a shape or dtype is wrong, an index is out of range, a coordinate is not finite.
    """
    require_mesh(vertices, triangles)
    if height < 1 or width < 1:
        raise ValueError(f"got a picture of {height} x {width} px, expected at least 1 x 1")
    batch, num_vertices = vertices.shape[:2]
    num_triangles = len(triangles)
    coordinates = vertices.reshape(-1, 3).t().contiguous()  # (3, B N)
    offset = num_vertices * torch.arange(batch, device=vertices.device)
    corner_index = (triangles.t()[:, None] + offset[:, None]).flatten(1)  # (3, B T)

    with torch.no_grad():
        nearest = _nearest_triangles(
            coordinates, corner_index, num_triangles, batch, height, width, cull_back_faces
        )
    pixel = (nearest >= 0).nonzero().squeeze(1)  # (P,)
    seen = nearest.index_select(0, pixel)
    corners = _gather(coordinates, _gather(corner_index, seen))  # (3, 3, P)
    weights, depth = _interpolate(_edge_functions(corners, pixel, height, width), corners[2])

    shape = (batch, height, width)
    triangle = nearest.index_copy(0, pixel, seen % max(num_triangles, 1))
    barycentric = vertices.new_zeros(3, len(nearest)).index_copy(1, pixel, weights)
    buffer = vertices.new_full(nearest.shape, -torch.inf).index_copy(0, pixel, depth)
    return Raster(triangle.view(shape), barycentric.t().view(*shape, 3), buffer.view(shape))


def require_mesh(vertices: Tensor, triangles: Tensor) -> None:
    """Raise ValueError unless vertices are finite, (B, N, 3), and triangles index them, (T, 3)."""
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise ValueError(f"vertices: got shape {tuple(vertices.shape)}, expected (B, N, 3)")
    if vertices.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"vertices: got {vertices.dtype}, expected float32 or float64")
    if triangles.ndim != 2 or triangles.shape[-1] != 3 or triangles.dtype != torch.int64:
        raise ValueError(
            f"triangles: got {triangles.dtype} {tuple(triangles.shape)}, expected int64 (T, 3)"
        )
    if triangles.numel() and not 0 <= triangles.min() <= triangles.max() < vertices.shape[1]:
        raise ValueError(
            f"triangles: got indices from {triangles.min()} to {triangles.max()}, "
            f"the mesh has {vertices.shape[1]} vertices"
        )
    if not vertices.isfinite().all():
        raise ValueError("vertices: hold coordinates that are not finite")


def _nearest_triangles(
    coordinates: Tensor,  # (3, B N)
    corner_index: Tensor,  # (3, B T)
    num_triangles: int,
    batch: int,
    height: int,
    width: int,
    cull_back_faces: bool,
) -> Tensor:
    """Column of `corner_index` seen at each pixel of the batch, -1 where none, (B H W,)."""
    # Pixel centres in the bounding boxes; most triangles of a dense mesh fall between the centres.
    corners = _gather(coordinates[:2], corner_index)  # (2, 3, B T)
    last = coordinates.new_tensor([[width - 1], [height - 1]])
    low = corners.amin(1).ceil().clamp_(min=0).clamp_(max=last + 1)
    high = corners.amax(1).floor().clamp_(max=last).clamp_(min=-1)
    kept = (low <= high).all(0)
    if cull_back_faces:
        (x_0, x_1, x_2), (y_0, y_1, y_2) = corners
        kept &= (x_1 - x_0) * (y_2 - y_0) > (y_1 - y_0) * (x_2 - x_0)
    triangle = kept.nonzero().squeeze(1)  # (L,)
    low, high = _gather(low, triangle).long(), _gather(high, triangle).long()
    columns, rows = high - low + 1
    first_pixel = (triangle // max(num_triangles, 1) * height + low[1]) * width + low[0]
    counts = columns * rows
    ends = counts.cumsum(0)
    starts = ends - counts

    none = corner_index.shape[1]
    depth = coordinates.new_full((batch * height * width,), -torch.inf)
    nearest = torch.full_like(depth, none, dtype=torch.int64)
    chunk_sizes = torch.unique_consecutive(starts // CHUNK, return_counts=True)[1].tolist()
    for part in torch.arange(len(triangle), device=triangle.device).split(chunk_sizes):
        # One candidate per triangle and pixel of its box, row by row.
        owner = torch.repeat_interleave(part, counts[part])  # (M,)
        within = torch.arange(len(owner), device=owner.device) + starts[part[0]]
        within -= starts.index_select(0, owner)
        side = columns.index_select(0, owner)
        down = within // side
        pixel = first_pixel.index_select(0, owner) + down * width + (within - down * side)

        corner = _gather(corner_index, triangle.index_select(0, owner))
        edges = _edge_functions(_gather(coordinates[:2], corner), pixel, height, width)
        inside = ((edges.amin(0) >= 0) | (edges.amax(0) <= 0)) & (edges.sum(0) != 0)
        inside = inside.nonzero().squeeze(1)
        pixel = pixel.index_select(0, inside)
        candidate = triangle.index_select(0, owner.index_select(0, inside))
        heights = _gather(coordinates[2:], _gather(corner_index, candidate))[0]
        _, candidate_depth = _interpolate(_gather(edges, inside), heights)

        before = depth.clone()
        depth.scatter_reduce_(0, pixel, candidate_depth, "amax")
        nearest.masked_fill_(depth > before, none)
        hidden = candidate_depth < depth.index_select(0, pixel)
        nearest.scatter_reduce_(0, pixel, candidate.masked_fill(hidden, none), "amin")
    return torch.where(nearest < none, nearest, -1)


def _gather(rows: Tensor, index: Tensor) -> Tensor:  # (C, X), any shape
    """`rows[:, index]`, several times faster."""
    return rows.gather(1, index.reshape(1, -1).expand(len(rows), -1)).unflatten(1, index.shape)


def _edge_functions(
    corners: Tensor,  # (2 or 3, 3, M), x and y (and z)
    pixel: Tensor,  # (M,), flat index into (B, H, W)
    height: int,
    width: int,
) -> Tensor:
    """Twice the area between a pixel and the edge opposite to each corner, signed, (3, M).

    Coordinates are taken relative to the pixel first: so the value for an edge a-b is the exact
    negative of that for b-a, rounding included.
    """
    row = pixel // width
    x = corners[0] - (pixel - row * width).to(corners.dtype)
    y = corners[1] - (row % height).to(corners.dtype)
    return torch.stack([x[i] * y[j] - y[i] * x[j] for i, j in ((1, 2), (2, 0), (0, 1))])


def _interpolate(edges: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:  # (3, M), (3, M)
    """Barycentric weights (3, M) and depth (M,)."""
    weights = edges / edges.sum(0)
    return weights, (weights * heights).sum(0)
