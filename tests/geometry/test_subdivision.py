"""Catmull-Clark against figures worked by hand, and what holds for every mesh."""

import numpy as np
import pytest

from prnet.geometry.subdivision import NO_CORNER, catmull_clark, quad_triangles

# Corners of the cube [-1, 1]^3, bit k of the index being the sign of axis k; faces outward.
CUBE = np.array([[2 * (v >> k & 1) - 1 for k in range(3)] for v in range(8)], dtype=float)
FACES = np.array(
    [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]]
)
TOP_RING = np.array([[4, 5], [5, 7], [7, 6], [6, 4]])


def mixed_mesh() -> tuple[np.ndarray, np.ndarray]:
    """An open fan of quads and triangles with a bent middle, and one vertex of no polygon."""
    angle = np.linspace(0, 2 * np.pi, 7)[:6]
    ring = np.stack([np.cos(angle), np.sin(angle), 0.3 * np.cos(2 * angle)], -1)
    outer = 2 * ring[:2] + [0, 0, 0.5]
    vertices = np.concatenate([[[0, 0, 1.0]], ring, outer, [[9, 9, 9]]])
    fan = [[0, 1 + k, 1 + (k + 1) % 6, NO_CORNER] for k in range(6)]
    return vertices, np.array([*fan, [2, 1, 7, 8]])


def test_cube_is_as_worked_by_hand() -> None:
    refined = catmull_clark(8, FACES)
    points = refined.matrix @ CUBE
    assert refined.matrix.shape == (8 + 12 + 6, 8)
    # (0 v + mean f + 2 mean m) / 3 with f = (1, 0, 0)..., m = (1, 1, 0)...: (1/3 + 2 * 2/3) / 3.
    np.testing.assert_allclose(points[:8], CUBE * 5 / 9, atol=1e-12)
    # An edge's own middle counts twice, the middles of its two faces once.
    middles = CUBE[refined.edges].mean(1)
    np.testing.assert_allclose(points[8:20], 0.75 * middles, atol=1e-12)
    np.testing.assert_allclose(points[20:], CUBE[FACES].mean(1), atol=1e-12)


def test_crease_ignores_what_lies_beside_it() -> None:
    refined = catmull_clark(8, FACES, TOP_RING[:, ::-1])
    points = refined.matrix @ CUBE
    # The top ring becomes the curve through its own neighbours: (a + 6 v + b) / 8.
    np.testing.assert_allclose(points[4:8], CUBE[4:8] * [0.75, 0.75, 1], atol=1e-12)
    on_ring = (refined.edges >= 4).all(1)
    assert on_ring.sum() == 4
    np.testing.assert_allclose(
        points[8:20][on_ring], CUBE[refined.edges[on_ring]].mean(1), atol=1e-12
    )
    # Away from it nothing changes.
    np.testing.assert_allclose(points[:4], CUBE[:4] * 5 / 9, atol=1e-12)


def test_where_three_creases_meet_the_vertex_stays() -> None:
    creases = np.array([[7, 5], [7, 6], [7, 3]])
    points = catmull_clark(8, FACES, creases).matrix @ CUBE
    np.testing.assert_array_equal(points[7], CUBE[7])
    # Where one ends the vertex is smooth.
    np.testing.assert_allclose(points[5], CUBE[5] * 5 / 9, atol=1e-12)


def test_border_of_one_square() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4.0]])
    refined = catmull_clark(4, np.array([[0, 1, 2, 3]]))
    np.testing.assert_allclose(
        refined.matrix @ square,
        [[0.5, 0.5], [3.5, 0.5], [3.5, 3.5], [0.5, 3.5]]
        + [[2, 0], [0, 2], [4, 2], [2, 4]]
        + [[2, 2]],
    )
    assert refined.quads.tolist() == [[0, 4, 8, 5], [1, 6, 8, 4], [2, 7, 8, 6], [3, 5, 8, 7]]
    assert refined.parent.tolist() == [0, 0, 0, 0]


def test_every_mesh_keeps_constants_and_orientation() -> None:
    vertices, polygons = mixed_mesh()
    refined = catmull_clark(len(vertices), polygons)
    np.testing.assert_allclose(refined.matrix.sum(1), 1, atol=1e-12)
    points = refined.matrix @ vertices
    np.testing.assert_array_equal(points[9], vertices[9])  # of no polygon

    # As many quads as corners; each side once each way, where not on the border.
    assert len(refined.quads) == 6 * 3 + 4
    np.testing.assert_array_equal(np.bincount(refined.parent), [3] * 6 + [4])
    sides = np.stack([refined.quads, np.roll(refined.quads, -1, 1)], -1).reshape(-1, 2)
    assert len(np.unique(sides, axis=0)) == len(sides)
    # The fan goes round counter-clockwise seen from above, and so do its quads.
    corner = points[refined.quads[refined.parent < 6], :2]
    diagonal_1, diagonal_2 = corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1]
    assert (diagonal_1[:, 0] * diagonal_2[:, 1] - diagonal_1[:, 1] * diagonal_2[:, 0] > 0).all()


def test_edges_are_ascending_and_own_a_vertex_each() -> None:
    vertices, polygons = mixed_mesh()
    refined = catmull_clark(len(vertices), polygons)
    edges = refined.edges.tolist()
    assert edges == sorted(edges)
    assert all(a < b for a, b in edges)
    on_border = [edges.index([1, 7]), edges.index([7, 8]), edges.index([2, 8])]
    points = refined.matrix @ vertices
    for edge in on_border:
        np.testing.assert_allclose(
            points[len(vertices) + edge], vertices[refined.edges[edge]].mean(0), atol=1e-12
        )


def test_quads_are_cut_from_old_vertex_to_polygon() -> None:
    """The cut has to be its own mirror image: which corner comes first decides it."""
    assert quad_triangles(np.array([[0, 4, 8, 5], [1, 6, 8, 4]])).tolist() == [
        [0, 4, 8],
        [0, 8, 5],
        [1, 6, 8],
        [1, 8, 4],
    ]


@pytest.mark.parametrize(
    ("polygons", "creases", "message"),
    [
        ([[0, 1, 8]], None, r"outside 0\.\.7"),
        ([[0, 1, -2]], None, r"outside 0\.\.7"),
        ([[0, 1]], None, r"shape \(1, 2\), expected \(P, 3 or more\)"),
        ([[0, 1, 2, 3], [0, 1, -1, -1]], None, r"polygon 1: got corners \[0, 1, -1, -1\]"),
        ([[0, 1, -1, 2]], None, "polygon 0"),
        ([[0, 1, 1, 2]], None, "polygon 0"),
        ([[0, 1, 2], [1, 0, 3], [0, 1, 4]], None, r"edge \[0, 1\] belongs to 3 polygons"),
        ([[0, 1, 2]], [[0, 3]], r"crease \[0, 3\]: no edge of the mesh"),
        ([[0, 1, 2]], [[5, 6]], r"crease \[5, 6\]: no edge of the mesh"),
    ],
)
def test_impossible_mesh_raises(polygons: list, creases: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catmull_clark(8, np.array(polygons), None if creases is None else np.array(creases))
