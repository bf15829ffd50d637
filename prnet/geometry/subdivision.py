"""Catmull-Clark subdivision as a sparse matrix: one product refines the mean and every basis alike.

Letters: V vertices, E edges, P polygons, Q quads of the refined surface.
"""

from typing import NamedTuple

import numpy as np
import scipy  # which imports scipy.sparse where it is first used

NO_CORNER = -1


class Subdivision(NamedTuple):
    """One step. Refined vertices are the old vertices, one on each edge, one in each polygon."""

    matrix: "scipy.sparse.csr_array"  # (V + E + P, V), rows sum to 1
    quads: (
        np.ndarray
    )  # (Q, 4): old vertex, vertex on the edge after it, in the polygon, edge before
    parent: np.ndarray  # (Q,), the polygon a quad lies in
    edges: np.ndarray  # (E, 2), lower vertex first, ascending; edge e has refined vertex V + e


def catmull_clark(
    num_vertices: int,
    polygons: np.ndarray,  # (P, corners), rows of fewer corners end in NO_CORNER
    crease_edges: np.ndarray | None = None,  # (C, 2), edges that stay sharp
) -> Subdivision:
    """One step of Catmull-Clark on a mesh of mixed polygons.

    With f the means of polygons and m the middles of edges, a polygon's vertex is f, an edge's is
    (2 m + f_1 + f_2) / 4, an old vertex of n edges becomes ((n - 3) v + mean f + 2 mean m) / n.
    Creases and borders ignore what lies beside them: an edge's vertex is m, an old vertex with two
    such neighbours a and b becomes (a + 6 v + b) / 8, one with more stays. A vertex of no polygon
    stays.

    Raises:
        ValueError: an index out of range, a polygon of fewer than three corners or with a corner
            twice, an edge of more than two polygons, a crease that is no edge.

    Source: Catmull and Clark 1978; creases as DeRose, Kass and Truong, SIGGRAPH 1998, section 3.
    """
    polygons = _require_polygons(num_vertices, polygons)
    count = (polygons != NO_CORNER).sum(1)  # (P,)
    polygon, corner = np.nonzero(polygons != NO_CORNER)  # polygon by polygon, corners in order
    here = polygons[polygon, corner]
    after = polygons[polygon, (corner + 1) % count[polygon]]
    sides = np.sort(np.stack([here, after], -1), axis=1)
    edges, side_edge, uses = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    side_edge = side_edge.ravel()
    if (uses > 2).any():
        raise ValueError(
            f"edge {edges[uses > 2][0].tolist()} belongs to {uses.max()} polygons, "
            "expected at most 2"
        )

    num_edges, num_polygons = len(edges), len(polygons)
    sharp = uses != 2
    if crease_edges is not None and len(crease_edges):
        sharp[_find_edges(edges, np.asarray(crease_edges))] = True

    def incidence(
        rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
    ) -> scipy.sparse.csr_array:
        return scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()

    polygon_points = _scaled(incidence(polygon, here, (num_polygons, num_vertices)), 1 / count)
    both_ends = np.repeat(np.arange(num_edges), 2)
    edge_vertices = incidence(both_ends, edges.ravel(), (num_edges, num_vertices))
    middles = 0.5 * edge_vertices
    beside = incidence(side_edge, polygon, (num_edges, num_polygons)) @ polygon_points
    edge_points = _scaled(middles, np.where(sharp, 1, 0.5)) + _scaled(
        beside, np.where(sharp, 0, 0.25)
    )

    # Old vertices, by the number of sharp edges that meet in them.
    vertex_edges = edge_vertices.T.tocsr()
    sharp_edges = vertex_edges @ scipy.sparse.diags_array(sharp.astype(float))
    num_sharp = np.rint(sharp_edges.sum(1)).astype(int)
    valence = np.maximum(vertex_edges.sum(1), 1)
    around = incidence(here, polygon, (num_vertices, num_polygons))
    num_around = np.maximum(around.sum(1), 1)
    on_crease = num_sharp == 2
    smooth = (num_sharp < 2) & (vertex_edges.sum(1) > 0)
    own = np.where(smooth, (valence - 3) / valence, np.where(on_crease, 0.5, 1))
    old_points = (
        scipy.sparse.diags_array(own)
        + _scaled(around @ polygon_points, np.where(smooth, 1 / (valence * num_around), 0))
        + _scaled(vertex_edges @ middles, np.where(smooth, 2 / valence**2, 0))
        # Half of each middle is the vertex's own: together with `own` that is 3/4.
        + _scaled(sharp_edges @ middles, np.where(on_crease, 0.25, 0))
    )
    matrix = scipy.sparse.vstack([old_points, edge_points, polygon_points]).tocsr()
    matrix.eliminate_zeros()

    # The side before a corner is the previous one of its polygon.
    first = np.cumsum(count) - count
    before = first[polygon] + (corner - 1) % count[polygon]
    quads = np.stack(
        [
            here,
            num_vertices + side_edge,
            num_vertices + num_edges + polygon,
            num_vertices + side_edge[before],
        ],
        -1,
    )
    return Subdivision(matrix, quads, polygon, edges)


def quad_triangles(quads: np.ndarray) -> np.ndarray:  # (Q, 4), as of `Subdivision`
    """Two triangles a quad, (2 Q, 3), those of one quad in a row.

    The cut runs from the old vertex to the polygon's: the same on both sides of a mirrored mesh.
    """
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def _require_polygons(num_vertices: int, polygons: np.ndarray) -> np.ndarray:
    polygons = np.asarray(polygons, dtype=np.int64)
    if polygons.ndim != 2 or polygons.shape[1] < 3:
        raise ValueError(f"polygons: got shape {polygons.shape}, expected (P, 3 or more)")
    present = polygons != NO_CORNER
    if (polygons[present] < 0).any() or (polygons >= num_vertices).any():
        raise ValueError(f"polygons: hold indices outside 0..{num_vertices - 1}")
    gap = present[:, 1:] & ~present[:, :-1]
    ordered = np.sort(polygons, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_CORNER)).any(1)
    wrong = gap.any(1) | (present.sum(1) < 3) | twice
    if wrong.any():
        raise ValueError(
            f"polygon {np.flatnonzero(wrong)[0]}: got corners {polygons[wrong][0].tolist()}, "
            f"expected at least 3, all different, then {NO_CORNER}"
        )
    return polygons


def _find_edges(edges: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row of `edges` (E, 2), ascending, of every pair of `wanted` (C, 2), in any order."""
    span = edges.max() + 1
    keys = edges[:, 0] * span + edges[:, 1]
    low, high = np.sort(wanted.astype(np.int64), axis=1).T
    row = np.minimum(np.searchsorted(keys, low * span + high), len(keys) - 1)
    missing = (edges[row] != np.stack([low, high], -1)).any(1)
    if missing.any():
        raise ValueError(f"crease {wanted[missing][0].tolist()}: no edge of the mesh")
    return row


def _scaled(matrix: "scipy.sparse.csr_array", factors: np.ndarray) -> "scipy.sparse.csr_array":
    """Each row times its factor."""
    return (scipy.sparse.diags_array(np.asarray(factors, dtype=float)) @ matrix).tocsr()
