"""The 68 landmarks: a table of points on the mean, and the vertices that are slid on to them.

Order of iBUG, from 0. The subject's right half and the middle are given, in mm; the left half is
their mirror image.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from embedded_face.unwrap import signed_areas

RIGHT_HALF = {
    0: (-68.4, 19.0, 25.3),
    1: (-66.2, 0.4, 26.7),
    2: (-62.8, -16.3, 29.2),
    3: (-58.3, -30.8, 32.7),
    4: (-52.8, -46.2, 41.2),
    5: (-44.6, -59.7, 57.7),
    6: (-34.5, -66.4, 76.7),
    7: (-20.7, -71.9, 93.5),
    8: (0.0, -76.2, 101.0),
    17: (-51.6, 40.2, 80.8),
    18: (-45.1, 44.8, 91.4),
    19: (-35.6, 46.5, 99.8),
    20: (-26.8, 45.6, 104.1),
    21: (-18.0, 43.0, 106.1),
    27: (0.0, 26.0, 108.5),
    28: (0.0, 14.2, 115.9),
    29: (0.0, 3.6, 124.2),
    30: (0.0, -5.1, 129.0),
    31: (-10.7, -12.5, 109.1),
    32: (-6.7, -13.5, 112.9),
    33: (0.0, -15.4, 115.9),
    36: (-39.6, 26.5, 89.1),
    37: (-34.6, 32.1, 96.0),
    38: (-25.7, 32.2, 97.9),
    39: (-18.9, 26.2, 94.0),
    40: (-25.4, 22.3, 95.0),
    41: (-34.2, 22.4, 93.6),
    48: (-23.3, -35.9, 101.3),
    49: (-14.6, -30.1, 110.0),
    50: (-5.3, -26.8, 114.5),
    51: (0.0, -28.1, 115.7),
    57: (0.0, -43.2, 113.2),
    58: (-7.6, -42.5, 111.7),
    59: (-13.8, -40.5, 107.8),
    60: (-21.9, -36.3, 102.0),
    61: (-6.7, -34.0, 112.7),
    62: (0.0, -34.0, 114.1),
    66: (0.0, -37.6, 110.5),
    67: (-7.8, -38.2, 109.6),
}
# Landmark of the subject's left half -> the one it mirrors.
MIRRORED = {
    **{16 - k: k for k in range(8)},
    **{26 - k: 17 + k for k in range(5)},
    **{35: 31, 34: 32},
    **{45: 36, 44: 37, 43: 38, 42: 39, 47: 40, 46: 41},
    **{54: 48, 53: 49, 52: 50, 56: 58, 55: 59, 64: 60, 63: 61, 65: 67},
}


# A slid vertex leaves the triangles around it this share of their area; it is drawn back by steps.
LEAST_SHARE, HOLD = 0.2, 0.9


class Landmarks(NamedTuple):
    """Vertices and the places they are slid to, K = 68."""

    index: np.ndarray  # (K,), vertices
    corners: np.ndarray  # (K, 3), vertices of the triangle each is slid into
    weights: np.ndarray  # (K, 3)

    def slid(self, values: np.ndarray) -> np.ndarray:  # (N, ...)
        """Positions or coordinates of the vertices with the landmarks in their places."""
        moved = values.copy()
        moved[self.index] = (self.weights[..., None] * values[self.corners]).sum(1)
        return moved


def mirrored_points() -> np.ndarray:
    """All of them, (68, 3)."""
    points = np.zeros((68, 3))
    for landmark, point in RIGHT_HALF.items():
        points[landmark] = point
    for landmark, source in MIRRORED.items():
        points[landmark] = points[source] * [-1, 1, 1]
    return points


def place_landmarks(
    vertices: np.ndarray,  # (N, 3), mm, of the symmetric mean
    uv: np.ndarray,  # (N, 2)
    triangles: np.ndarray,  # (T, 3)
    on_skin: np.ndarray,  # (T,), bool: triangles that landmarks may lie on
    mirror: np.ndarray,  # (N,)
) -> Landmarks:
    """The vertices nearest to the table's points, slid there as far as the mesh allows.

    Exactly symmetric: the middle stays in the middle, the left half mirrors the right half.
    """
    index, corners, weights = snap(mirrored_points(), vertices, triangles[on_skin])
    weights = held_back(uv, triangles, index, corners, weights)
    in_middle = mirror[index] == index
    weights[in_middle] *= (mirror[corners] == corners)[in_middle]
    weights /= weights.sum(1, keepdims=True)
    for landmark, source in MIRRORED.items():
        index[landmark] = mirror[index[source]]
        corners[landmark], weights[landmark] = mirror[corners[source]], weights[source]
    return Landmarks(index, corners, weights)


def snap(
    points: np.ndarray,  # (68, 3), mm on the mean
    vertices: np.ndarray,  # (N, 3)
    triangles: np.ndarray,  # (T, 3), those that landmarks may lie on
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The vertex nearest to every point (68,), and where around it the point lies.

    That is the nearest place of the triangles around the vertex, as three vertices (68, 3) and
    their weights (68, 3): the vertex slid there makes its neighbours' triangles smaller or larger,
    but turns none over.

    Raises:
        ValueError: two points share a vertex.
    """
    allowed = np.unique(triangles)
    index = allowed[cKDTree(vertices[allowed]).query(points)[1]]
    used, uses = np.unique(index, return_counts=True)
    if (uses > 1).any():
        shared = [np.flatnonzero(index == vertex).tolist() for vertex in used[uses > 1]]
        raise ValueError(f"landmarks {shared[0]} fall on one vertex; move their points apart")
    corners, weights = [], []
    for point, vertex in zip(points, index, strict=True):
        around = triangles[(triangles == vertex).any(1)]
        candidates = [nearest_in_triangle(point, vertices[triangle]) for triangle in around]
        offsets = [point - w @ vertices[t] for w, t in zip(candidates, around, strict=True)]
        best = int(np.argmin(np.linalg.norm(offsets, axis=1)))
        corners.append(around[best])
        weights.append(candidates[best])
    return index, np.array(corners), np.array(weights)


def held_back(
    uv: np.ndarray,  # (N, 2)
    triangles: np.ndarray,  # (T, 3)
    index: np.ndarray,  # (K,)
    corners: np.ndarray,  # (K, 3)
    weights: np.ndarray,  # (K, 3)
) -> np.ndarray:
    """The weights of slid vertices, (K, 3), each drawn back to its vertex until none of the
    triangles around it has lost more than most of its area in UV.
    """
    weights = weights.copy()
    for k, vertex in enumerate(index):
        around = triangles[(triangles == vertex).any(1)]
        area = signed_areas(uv, around)
        moved = uv.copy()
        while True:
            moved[vertex] = weights[k] @ uv[corners[k]]
            if (signed_areas(moved, around) >= LEAST_SHARE * area).all():
                break
            weights[k] = HOLD * weights[k] + (1 - HOLD) * (corners[k] == vertex)
    return weights


def nearest_in_triangle(point: np.ndarray, corners: np.ndarray) -> np.ndarray:  # (3,), (3, 3)
    """Weights (3,) of the corners at the place of a triangle that is nearest to a point."""
    edges = corners[1:] - corners[0]
    inner = np.linalg.lstsq(edges.T, point - corners[0], rcond=None)[0]
    weights = np.array([1 - inner.sum(), *inner])
    if weights.min() >= 0:
        return weights
    best, least = weights, np.inf
    for k in range(3):
        start, along = corners[k], corners[(k + 1) % 3] - corners[k]
        share = np.clip((point - start) @ along / (along @ along), 0, 1)
        distance = np.linalg.norm(point - start - share * along)
        if distance < least:
            least = distance
            best = np.zeros(3)
            best[[k, (k + 1) % 3]] = 1 - share, share
    return best
