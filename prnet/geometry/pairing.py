"""Nearest neighbours of a cloud that moves a little at a time, and the similarity of the pairs:
the inside of `prnet.geometry.icp`.

Letters: Q queries, M static points, K candidates.
"""

import numba
import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from prnet.geometry.align import Moments, require_rotation, similarity_of

# Neighbours remembered for a query: enough that few of them are searched for a second time.
NUM_CANDIDATES = 4
OPTIONS = {"cache": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}


class Pairing:
    """Pairs of queries and static points under a similarity, and the plain step from there.

    Distances to the static points are found by moving the queries, forth or back, so that one tree
    serves throughout. A query keeps its neighbour while it is known to be nearest: it may move by
    half of what the second nearest is farther. Then its candidates are compared, which settles it
    as long as the nearest of them is nearer than any other point can be. All of that is exact.
    """

    def __init__(
        self,
        queries: np.ndarray,  # (Q, 3), float64
        tree: cKDTree,
        with_scale: bool,
        from_target: bool,
        trim: float,
    ) -> None:
        self.queries = queries
        self.tree = tree
        self.with_scale = with_scale
        self.from_target = from_target
        self.num_kept = max(round((1 - trim) * len(queries)), 3)
        self.neighbour = None  # (Q,), once `match` was called
        self.num_candidates = min(NUM_CANDIDATES, tree.n)

    def match(self, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (7,)
        """Each query's nearest static point (Q, 3), and its distance (Q,), of the target's unit."""
        scale, rotation, translation = motion_of(params)
        if self.from_target:
            matrix = rotation.T / scale
            shift = -matrix @ translation
        else:
            matrix, shift = scale * rotation, translation
        moved = _moved(self.queries, matrix, shift)
        if self.neighbour is None:
            self._search_all(moved)
        else:
            self._settle(moved)
        unit = scale if self.from_target else 1.0
        return _paired(moved, self.tree.data, self.neighbour, unit)

    def step(self, params: np.ndarray) -> tuple[float, np.ndarray]:  # (7,)
        """Mean squared distance of the pairs kept, and the parameters that fit them best, (7,).

        Raises:
            ValueError: the paired points of one side coincide or lie on a line.
        """
        static, distances = self.match(params)
        queries = self.queries
        if self.num_kept < len(queries):
            kept = np.argpartition(distances, self.num_kept - 1)[: self.num_kept]
            static, distances, queries = static[kept], distances[kept], queries[kept]
        source, target = (static, queries) if self.from_target else (queries, static)
        moments, largest = _moments_of(source, target)
        require_rotation(moments, *largest)
        found = similarity_of(moments, with_scale=self.with_scale)
        turn = Rotation.from_matrix(found.rotation[0].numpy()).as_rotvec()
        stepped = np.concatenate([turn, found.translation[0].numpy(), found.scale.log().numpy()])
        # Not a dot product: BLAS would start threads for it in every process.
        return float(np.square(distances).mean()), stepped

    def _search_all(self, moved: np.ndarray) -> None:  # (Q, 3)
        distances, self.candidates = self.tree.query(moved, k=self.num_candidates)
        self.neighbour = self.candidates[:, 0].copy()
        self.checked = moved.copy()  # where the neighbour was last settled
        self.slack = (distances[:, 1] - distances[:, 0]) / 2  # how far from there it stays nearest
        self.searched = moved.copy()  # where the candidates were found
        self.reach = distances[:, -1].copy()  # nearer than this to there are only candidates

    def _settle(self, moved: np.ndarray) -> None:  # (Q, 3)
        """Make `neighbour` the nearest static point of every moved query."""
        lost = np.flatnonzero(
            _compare_candidates(
                moved,
                self.tree.data,
                self.neighbour,
                self.candidates,
                self.checked,
                self.slack,
                self.searched,
                self.reach,
            )
        )
        distances, self.candidates[lost] = self.tree.query(moved[lost], k=self.num_candidates)
        self.neighbour[lost] = self.candidates[lost, 0]
        self.searched[lost] = moved[lost]
        self.reach[lost] = distances[:, -1]
        self.slack[lost] = (distances[:, 1] - distances[:, 0]) / 2


def motion_of(params: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:  # (7,)
    """Scale, rotation and translation of a rotation vector, a translation and log scale."""
    return float(np.exp(params[6])), Rotation.from_rotvec(params[:3]).as_matrix(), params[3:6]


def _moments_of(
    source: np.ndarray,  # (Q, 3)
    target: np.ndarray,  # (Q, 3)
) -> tuple[Moments, list[torch.Tensor]]:
    """Of equally weighted pairs, and the largest coordinate of either side, both for a batch of
    one."""
    means, covariance, variances, largest = _sums(source, target)
    source_mean, target_mean, covariance, variances, largest = (
        torch.from_numpy(values) for values in (*means, covariance, variances, largest)
    )
    moments = Moments(
        source_mean[None], target_mean[None], covariance[None], variances[:1], variances[1:]
    )
    return moments, [largest[:1], largest[1:]]


@numba.njit(**OPTIONS)
def _compare_candidates(
    moved: np.ndarray,  # (Q, 3)
    static: np.ndarray,  # (M, 3)
    neighbour: np.ndarray,  # (Q,); written, as are `checked` and `slack`
    candidates: np.ndarray,  # (Q, K)
    checked: np.ndarray,  # (Q, 3)
    slack: np.ndarray,  # (Q,)
    searched: np.ndarray,  # (Q, 3)
    reach: np.ndarray,  # (Q,)
) -> np.ndarray:
    """Settle every query that its candidates can settle; which it cannot be, (Q,)."""
    lost = np.zeros(len(moved), np.bool_)
    for query in range(len(moved)):
        x, y, z = moved[query]
        apart_x, apart_y, apart_z = (
            x - checked[query, 0],
            y - checked[query, 1],
            z - checked[query, 2],
        )
        gone = apart_x * apart_x + apart_y * apart_y + apart_z * apart_z
        if gone < slack[query] * slack[query]:
            continue
        nearest, second = np.inf, np.inf
        for point in candidates[query]:
            apart_x, apart_y, apart_z = (
                x - static[point, 0],
                y - static[point, 1],
                z - static[point, 2],
            )
            squared = apart_x * apart_x + apart_y * apart_y + apart_z * apart_z
            if squared < nearest:
                nearest, second = squared, nearest
                neighbour[query] = point
            elif squared < second:
                second = squared
        apart_x, apart_y, apart_z = (
            x - searched[query, 0],
            y - searched[query, 1],
            z - searched[query, 2],
        )
        gone = apart_x * apart_x + apart_y * apart_y + apart_z * apart_z
        beyond = reach[query] - np.sqrt(gone)
        nearest = np.sqrt(nearest)
        checked[query] = moved[query]
        slack[query] = (min(np.sqrt(second), beyond) - nearest) / 2
        lost[query] = nearest > beyond
    return lost


@numba.njit(**OPTIONS)
def _moved(
    points: np.ndarray,  # (Q, 3)
    matrix: np.ndarray,  # (3, 3)
    shift: np.ndarray,  # (3,)
) -> np.ndarray:
    """matrix point + shift, (Q, 3)."""
    moved = np.zeros_like(points)
    for point in range(len(points)):
        x, y, z = points[point, 0], points[point, 1], points[point, 2]
        for axis in range(3):
            turned = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2] * z
            moved[point, axis] = turned + shift[axis]
    return moved


@numba.njit(**OPTIONS)
def _paired(
    moved: np.ndarray,  # (Q, 3)
    static: np.ndarray,  # (M, 3)
    neighbour: np.ndarray,  # (Q,)
    unit: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours, (Q, 3), and how far they are in `unit`, (Q,)."""
    points = np.zeros_like(moved)
    distances = np.zeros(len(moved))
    for query in range(len(moved)):
        squared = 0.0
        for axis in range(3):
            points[query, axis] = static[neighbour[query], axis]
            squared += (moved[query, axis] - points[query, axis]) ** 2
        distances[query] = unit * np.sqrt(squared)
    return points, distances


@numba.njit(**OPTIONS)
def _sums(
    source: np.ndarray,  # (Q, 3)
    target: np.ndarray,  # (Q, 3)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means (2, 3), mean of target source^T about them (3, 3), variances and largest absolute
    coordinates (2,), of source and target."""
    count = len(source)
    # Numbers, not arrays, are summed into: those stay in registers.
    a = b = c = d = e = f = 0.0
    for pair in range(count):
        a += source[pair, 0]
        b += source[pair, 1]
        c += source[pair, 2]
        d += target[pair, 0]
        e += target[pair, 1]
        f += target[pair, 2]
    means = np.array([[a, b, c], [d, e, f]]) / count
    (a, b, c), (d, e, f) = means
    source_variance = target_variance = 0.0
    source_largest = target_largest = 0.0
    ux = uy = uz = vx = vy = vz = wx = wy = wz = 0.0
    for pair in range(count):
        x, y, z = source[pair, 0], source[pair, 1], source[pair, 2]
        u, v, w = target[pair, 0], target[pair, 1], target[pair, 2]
        source_largest = max(source_largest, abs(x), abs(y), abs(z))
        target_largest = max(target_largest, abs(u), abs(v), abs(w))
        x, y, z, u, v, w = x - a, y - b, z - c, u - d, v - e, w - f
        source_variance += x * x + y * y + z * z
        target_variance += u * u + v * v + w * w
        ux += u * x
        uy += u * y
        uz += u * z
        vx += v * x
        vy += v * y
        vz += v * z
        wx += w * x
        wy += w * y
        wz += w * z
    covariance = np.array([[ux, uy, uz], [vx, vy, vz], [wx, wy, wz]]) / count
    variances = np.array([source_variance, target_variance]) / count
    return means, covariance, variances, np.array([source_largest, target_largest])
