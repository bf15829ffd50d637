"""The z-buffer for triangle meshes, as compiled loops on one thread.

Letters: B batch, N vertices, T triangles, H W picture.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.compiled import cached

LANE_BITS = 3
LANES = 1 << LANE_BITS  # float32 numbers in a vector


class Raster(NamedTuple):
    """What is seen at every pixel."""

    triangle: Tensor  # (B, H, W), int64, index into the triangles; -1 where none
    barycentric: Tensor  # (B, H, W, 3), weights of the triangle's corners; 0 where none
    depth: Tensor  # (B, H, W), interpolated z, larger is nearer; -inf where none


def rasterize(
    vertices: Tensor,  # (B, N, 3), image or crop px, float32 or float64
    triangles: Tensor,  # (T, 3)
    *,
    height: int,
    width: int,
    cull_back_faces: bool = False,
) -> Raster:
    """The nearest triangle at every pixel centre (integer x and y), with affine interpolation.

    A triangle covers the pixel centres inside it and on its border: neighbours leave no gap, as the
    edge functions of a shared edge are exact opposites. The largest z wins, and among equals the
    first triangle of the list. Triangles without area on the screen cover nothing.
    `cull_back_faces` leaves out triangles that turn their back, n_z < 0 for
    n = (p1 - p0) x (p2 - p0). Nothing can be differentiated.

    Raises:
        ValueError: a shape, dtype or device is wrong, an index is out of range, a coordinate is
            not finite.
    """
    if vertices.device.type != "cpu" or triangles.device.type != "cpu":
        raise ValueError(
            f"got vertices on {vertices.device} and triangles on {triangles.device}, "
            "expected both on the CPU"
        )
    require_mesh(vertices, triangles)
    if height < 1 or width < 1:
        raise ValueError(f"got a picture of {height} x {width} px, expected at least 1 x 1")
    shape = (len(vertices), height, width)
    triangle, depth = torch.zeros(shape, dtype=torch.int64), vertices.new_zeros(shape)
    barycentric = vertices.new_zeros(*shape, 3)
    corners = corners_of(triangles)
    meshes = vertices.detach()
    for points, *written in zip(meshes, triangle, depth, barycentric, strict=True):
        array = points.contiguous().numpy()
        found = z_buffer(array, corners, height, width, cull_back_faces=cull_back_faces)
        _weigh(array, corners, *found, *(each.numpy() for each in written))
    return Raster(triangle, barycentric, depth)


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
    least, most = triangles.aminmax() if triangles.numel() else (0, -1)
    if least < 0 or most >= vertices.shape[1]:
        raise ValueError(
            f"triangles: got indices from {least} to {most}, "
            f"the mesh has {vertices.shape[1]} vertices"
        )
    # Both are not a number where one coordinate is.
    if vertices.numel() and not all(end.isfinite() for end in vertices.aminmax()):
        raise ValueError("vertices: hold coordinates that are not finite")


def corners_of(triangles: Tensor) -> np.ndarray:  # (T, 3)
    """The triangles as compiled loops like them, (T, 3) uint32: short, and never negative."""
    return triangles.to(torch.int32).contiguous().numpy().view(np.uint32)


def z_buffer(
    points: np.ndarray,  # (N, 3), float32 or float64, finite
    triangles: np.ndarray,  # (T, 3), of `corners_of`
    height: int,
    width: int,
    *,
    cull_back_faces: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Triangle and depth of `rasterize` for one mesh known to be sound, (H, W).

    Numbers of triangles are floats as the depth is, so that one vector instruction writes as many
    of either; in float32 they are exact up to 2^24.
    """
    # Rows are drawn in whole vectors, which may reach past the last one.
    room, dtype = height * width + LANES, points.dtype
    numbers, depth = np.full(room, -1, dtype), np.full(room, -np.inf, dtype)
    columns = np.arange(width + LANES, dtype=dtype)
    _draw(points, triangles, cull_back_faces, columns, height, width, numbers, depth)
    return numbers[:-LANES].reshape(height, width), depth[:-LANES].reshape(height, width)


@cached()
def _draw(
    points: np.ndarray,  # (N, 3)
    triangles: np.ndarray,  # (T, 3)
    cull_back_faces: bool,
    columns: np.ndarray,  # (W + LANES,), 0, 1, 2 ...
    height: int,
    width: int,
    nearest: np.ndarray,  # (H W + LANES,), written
    depth: np.ndarray,  # (H W + LANES,), written
) -> None:
    last_row, last_column = np.float32(height - 1), np.float32(width - 1)
    zero, one, nowhere = np.float32(0), np.float32(1), np.float32(-np.inf)
    for number in range(len(triangles)):
        first, second, third = triangles[number, 0], triangles[number, 1], triangles[number, 2]
        x_0, y_0 = points[first, 0], points[first, 1]
        x_1, y_1 = points[second, 0], points[second, 1]
        x_2, y_2 = points[third, 0], points[third, 1]
        # Most triangles of a dense mesh fall between the pixel centres and end here.
        low_x, high_x = max(np.ceil(min(x_0, x_1, x_2)), zero), max(x_0, x_1, x_2)
        high_x = min(np.floor(high_x), last_column)
        low_y, high_y = max(np.ceil(min(y_0, y_1, y_2)), zero), max(y_0, y_1, y_2)
        high_y = min(np.floor(high_y), last_row)
        if low_x > high_x or low_y > high_y:
            continue
        if cull_back_faces and not (x_1 - x_0) * (y_2 - y_0) > (y_1 - y_0) * (x_2 - x_0):
            continue
        z_0, z_1, z_2 = points[first, 2], points[second, 2], points[third, 2]
        name, left = np.float32(number), int(low_x)
        # A multiple of `LANES`, and unsigned places, which need no check for negative ones: the
        # loop over a row then becomes vector instructions alone, without branches.
        count = ((int(high_x) - left + LANES) >> LANE_BITS) << LANE_BITS
        start = int(low_y) * width + left
        for row in range(int(low_y), int(high_y) + 1):
            pixel_y = np.float32(row)
            v_0, v_1, v_2 = y_0 - pixel_y, y_1 - pixel_y, y_2 - pixel_y
            for step in range(count):
                place = np.uint64(start) + np.uint64(step)
                pixel_x = columns[np.uint64(left) + np.uint64(step)]
                farther, seen = depth[place], nearest[place]
                u_0, u_1, u_2 = x_0 - pixel_x, x_1 - pixel_x, x_2 - pixel_x
                edge_0, edge_1 = u_1 * v_2 - v_1 * u_2, u_2 * v_0 - v_2 * u_0
                edge_2 = u_0 * v_1 - v_0 * u_1
                inside = (edge_0 >= zero) & (edge_1 >= zero) & (edge_2 >= zero)
                inside |= (edge_0 <= zero) & (edge_1 <= zero) & (edge_2 <= zero)
                area = (edge_0 + edge_1) + edge_2
                z = ((edge_0 * z_0 + edge_1 * z_1) + edge_2 * z_2) / area
                # Without area z is not a number, and not nearer than anything.
                nearer = inside & (pixel_x <= high_x) & (z > farther)
                share = one if nearer else zero
                nearest[place] = seen + share * (name - seen)
                depth[place] = max(farther, z if nearer else nowhere)
            start += width


@cached()
def _weigh(
    points: np.ndarray,  # (N, 3)
    triangles: np.ndarray,  # (T, 3)
    nearest: np.ndarray,  # (H, W), floats
    near: np.ndarray,  # (H, W)
    triangle: np.ndarray,  # (H, W), written as `nearest`
    depth: np.ndarray,  # (H, W), written as `near`
    barycentric: np.ndarray,  # (H, W, 3), written where there is a triangle
) -> None:
    height, width = nearest.shape
    for row in range(height):
        for column in range(width):
            number = int(nearest[row, column])
            triangle[row, column], depth[row, column] = number, near[row, column]
            if number < 0:
                continue
            first, second, third = triangles[number]
            pixel_x, pixel_y = np.float32(column), np.float32(row)
            u_0, v_0 = points[first, 0] - pixel_x, points[first, 1] - pixel_y
            u_1, v_1 = points[second, 0] - pixel_x, points[second, 1] - pixel_y
            u_2, v_2 = points[third, 0] - pixel_x, points[third, 1] - pixel_y
            edge_0, edge_1 = u_1 * v_2 - v_1 * u_2, u_2 * v_0 - v_2 * u_0
            edge_2 = u_0 * v_1 - v_0 * u_1
            area = (edge_0 + edge_1) + edge_2
            barycentric[row, column, 0] = edge_0 / area
            barycentric[row, column, 1] = edge_1 / area
            barycentric[row, column, 2] = edge_2 / area
