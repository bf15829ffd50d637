"""The z-buffer against a pixel-by-pixel search in exact arithmetic, and against closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from prnet.geometry.rasterize import rasterize
from tests.tiny import sphere


def exact_raster(
    vertices: np.ndarray,  # (N, 3)
    triangles: np.ndarray,  # (T, 3)
    height: int,
    width: int,
    *,
    cull: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangle, weights and depth at every pixel, by the definition, in rational numbers."""
    triangle = np.full((height, width), -1)
    barycentric = np.zeros((height, width, 3))
    depth = np.full((height, width), -math.inf)
    exact = [[Fraction(value) for value in vertex] for vertex in vertices.tolist()]
    for row in range(height):
        for column in range(width):
            best = None
            for number, corners in enumerate(triangles.tolist()):
                a, b, c = (exact[corner] for corner in corners)
                area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
                if area == 0 or (cull and area < 0):
                    continue
                u = ((column - a[0]) * (c[1] - a[1]) - (row - a[1]) * (c[0] - a[0])) / area
                v = ((b[0] - a[0]) * (row - a[1]) - (b[1] - a[1]) * (column - a[0])) / area
                if u < 0 or v < 0 or u + v > 1:
                    continue
                z = (1 - u - v) * a[2] + u * b[2] + v * c[2]
                if best is None or z > best:
                    best = z
                    triangle[row, column] = number
                    barycentric[row, column] = 1 - u - v, u, v
                    depth[row, column] = z
    return triangle, barycentric, depth


def random_mesh(seed: int, *, count: int = 40, size: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of every size and orientation, some outside of the picture."""
    random = np.random.default_rng(seed)
    vertices = random.uniform(-4, size + 4, (count, 3))
    return vertices, random.integers(0, count, (40, 3))


def check_against_oracle(vertices, triangles, height, width, *, tolerance=1e-8, **options) -> None:
    raster = rasterize(
        torch.from_numpy(vertices)[None],
        torch.from_numpy(triangles),
        height=height,
        width=width,
        cull_back_faces=options.get("cull", False),
    )
    triangle, barycentric, depth = exact_raster(vertices, triangles, height, width, **options)
    np.testing.assert_array_equal(raster.triangle[0].numpy(), triangle)
    np.testing.assert_allclose(raster.barycentric[0].numpy(), barycentric, atol=tolerance)
    np.testing.assert_allclose(raster.depth[0].numpy(), depth, atol=tolerance)


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_mesh_matches_the_exact_search(seed: int, cull: bool) -> None:
    vertices, triangles = random_mesh(seed)
    check_against_oracle(vertices, triangles, 13, 15, cull=cull)


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_single_precision_mesh_matches_the_exact_search(seed: int, cull: bool) -> None:
    """Corners at eighths of a pixel, so that what is inside does not depend on rounding."""
    vertices, triangles = random_mesh(seed)
    vertices = (np.rint(8 * vertices) / 8).astype(np.float32)
    check_against_oracle(vertices, triangles, 13, 15, tolerance=1e-4, cull=cull)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_degenerate_integer_mesh_matches_the_exact_search(seed: int, dtype: type) -> None:
    """Corners on pixel centres, shared edges, repeated and flat triangles, all at one depth."""
    random = np.random.default_rng(seed)
    vertices = random.integers(-2, 9, (25, 3)).astype(dtype)
    vertices[:, 2] = 0
    triangles = random.integers(0, 25, (50, 3))
    triangles[10:20] = triangles[:10]
    triangles[20:25, 1] = triangles[20:25, 0]
    check_against_oracle(vertices, triangles, 8, 7, tolerance=1e-6)


def test_nothing_in_the_picture() -> None:
    triangles = torch.tensor([[0, 1, 2]])
    away = torch.tensor([[[-9.0, -9, 0], [-8, -9, 0], [-9, -8, 0]]])
    for vertices, mesh in ((away, triangles), (away, triangles[:0]), (-10 * away, triangles)):
        raster = rasterize(vertices, mesh, height=4, width=5)
        assert (raster.triangle == -1).all()
        assert (raster.barycentric == 0).all()
        assert (raster.depth == -torch.inf).all()
    assert rasterize(away[:0], triangles, height=4, width=5).triangle.shape == (0, 4, 5)


def test_triangle_larger_than_the_picture_fills_it() -> None:
    vertices = torch.tensor([[[-100.0, -100, 1], [300, -100, 2], [-100, 300, 3]]])
    raster = rasterize(vertices, torch.tensor([[0, 1, 2]]), height=9, width=7)
    assert (raster.triangle == 0).all()
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    plane = 1 + (columns + 100) / 400 + 2 * (rows + 100) / 400
    torch.testing.assert_close(raster.depth[0], plane)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_leave_no_gap(dtype: torch.dtype) -> None:
    """A fan around a hub and a jittered grid: every pixel well inside the outline is covered."""
    random = np.random.default_rng(0)
    for _ in range(20):
        turn = np.sort(random.uniform(0, 2 * np.pi, 30)) + np.linspace(0, 1e-3, 30)
        rim = np.stack([np.cos(turn), np.sin(turn)], -1) * 60
        hub = random.integers(-2, 3, (1, 2)) + random.choice([0, 1e-7, 1e-3], (1, 2))
        points = np.concatenate([hub, rim]) + 64
        vertices = np.concatenate([points, random.normal(0, 1, (31, 1))], -1)
        following = np.roll(np.arange(1, 31), -1)
        triangles = np.stack([np.zeros(30, np.int64), np.arange(1, 31), following], -1)
        raster = rasterize(
            torch.from_numpy(vertices).to(dtype)[None],
            torch.from_numpy(triangles),
            height=128,
            width=128,
        )
        rows, columns = np.mgrid[:128, :128]
        near = np.hypot(rows - 64, columns - 64) < 30
        assert (raster.triangle[0].numpy()[near] >= 0).all()
        weights = raster.barycentric[0].numpy()[near]
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_largest_depth_then_first_triangle_wins() -> None:
    square = torch.tensor([[0.0, 0, 1], [4, 0, 1], [0, 4, 1]])
    vertices = torch.cat([square, square + torch.tensor([0, 0, 1.0]), square])[None]
    triangles = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    for order, winner in (([0, 1, 2], 1), ([0, 2], 0), ([2, 0], 0), ([1, 0], 0), ([2, 1, 1], 1)):
        raster = rasterize(vertices, triangles[order], height=5, width=5)
        assert set(raster.triangle.unique().tolist()) == {-1, winner}, order


def test_culling_keeps_the_side_that_faces_the_camera() -> None:
    """In a y-down frame that is clockwise on the screen, n_z > 0."""
    vertices = torch.tensor([[[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]])
    front, back = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]])
    for triangles, seen in ((front, True), (back, False)):
        raster = rasterize(vertices, triangles, height=5, width=5, cull_back_faces=True)
        assert (raster.triangle >= 0).any() == seen
        assert (rasterize(vertices, triangles, height=5, width=5).triangle >= 0).any()


def test_sphere_has_its_analytic_depth() -> None:
    vertices, triangles = (torch.from_numpy(a) for a in sphere(40.0, (50.3, 47.6, 5.0), rings=200))
    vertices = vertices[None]
    raster = rasterize(vertices, triangles, height=100, width=101, cull_back_faces=True)
    rows, columns = torch.meshgrid(torch.arange(100.0), torch.arange(101.0), indexing="ij")
    squared = (columns - 50.3).square() + (rows - 47.6).square()
    inner = squared < 38**2
    expected = 5 + (1600 - squared[inner]).sqrt()
    # A facet of angle a lies up to r a^2 / 8 inside, and more in depth where the surface is steep.
    assert (raster.depth[0][inner] - expected).abs().max() < 0.02
    assert (raster.triangle[0][squared > 40**2] == -1).all()
    area = (raster.triangle[0] >= 0).sum()
    assert abs(area / (math.pi * 1600) - 1) < 0.01
    both_sides = rasterize(vertices, triangles, height=100, width=101)
    assert torch.equal(both_sides.triangle[0][inner], raster.triangle[0][inner])


def test_weights_and_depth_reproduce_the_pixel() -> None:
    vertices, triangles = (torch.from_numpy(a) for a in sphere(20.0, (25.2, 24.1, 0.0)))
    vertices = vertices[None]
    raster = rasterize(vertices, triangles, height=50, width=50)
    row, column = (raster.triangle[0] >= 0).nonzero().unbind(-1)
    corners = vertices[0][triangles[raster.triangle[0, row, column]]]  # (P, 3, 3)
    points = (raster.barycentric[0, row, column][..., None] * corners).sum(1)
    expected = torch.stack([column, row, raster.depth[0, row, column]], -1)
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-9)


def test_batch_equals_its_items() -> None:
    vertices = torch.from_numpy(np.stack([random_mesh(seed)[0] for seed in range(4)]))
    triangles = torch.from_numpy(random_mesh(0)[1])
    together = rasterize(vertices, triangles, height=13, width=15)
    for i in range(4):
        alone = rasterize(vertices[i : i + 1], triangles, height=13, width=15)
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, alone, strict=True))


def test_bad_arguments_raise() -> None:
    vertices, triangles = torch.rand(1, 4, 3), torch.tensor([[0, 1, 2]])
    broken = vertices.clone()
    broken[0, 3, 1] = torch.inf
    for mesh, message in (
        ((vertices[0], triangles), r"vertices: got shape \(4, 3\), expected \(B, N, 3\)"),
        ((vertices.half(), triangles), "vertices: got torch.float16"),
        ((vertices, triangles.int()), "triangles: got torch.int32"),
        ((vertices, triangles[:, :2]), r"expected int64 \(T, 3\)"),
        ((vertices, triangles + 2), "indices from 2 to 4, the mesh has 4 vertices"),
        ((vertices, triangles - 1), "indices from -1 to 1"),
        ((broken, triangles), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            rasterize(*mesh, height=4, width=4)
    with pytest.raises(ValueError, match="picture of 0 x 4 px"):
        rasterize(vertices, triangles, height=0, width=4)
    with pytest.raises(ValueError, match="got vertices on meta and triangles on cpu"):
        rasterize(torch.zeros(0, 4, 3, device="meta"), triangles, height=4, width=4)
