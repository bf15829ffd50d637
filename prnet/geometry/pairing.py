"""Nearest neighbours of a cloud that moves a little at a time, and the similarity of the pairs:
the inside of `prnet.geometry.icp`.

Letters: Q queries, M static points, K candidates.
"""

import math

import numpy as np

from prnet.geometry.compiled import cached, inlined
from prnet.geometry.search_tree import STACK, SearchTree, nearest_points

# Neighbours remembered for a query: enough that few of them are searched for a second time.
NUM_CANDIDATES = 4
RELAXED = {"contract", "reassoc", "nsz"}


class Pairing:
    """Pairs of queries and static points under a similarity, and the plain step from there.

    Distances to the static points are found by moving the queries, forth or back, so that one tree
    serves throughout. A query keeps its neighbour while it is known to be nearest: it may move by
    half of what the second nearest is farther. Then its candidates are compared, which settles it
    as long as the nearest of them is nearer than any other point can be. Else the tree is searched,
    no farther than its candidates are. All of that is exact.
    """

    def __init__(
        self,
        queries: np.ndarray,  # (Q, 3), float64
        tree: SearchTree,
        with_scale: bool,
        from_target: bool,
        trim: float,
    ) -> None:
        self.queries = queries
        self.tree = tree
        self.static = tree.points  # (M, 3)
        self.largest = max(np.abs(queries).max(), np.abs(tree.points).max())
        self.with_scale = with_scale
        self.from_target = from_target
        self.num_kept = max(round((1 - trim) * len(queries)), 3)
        count, kept = len(queries), min(NUM_CANDIDATES, len(tree.points))
        self.neighbour = np.zeros(count, np.int64)  # of `static`, once `match` or `step` was called
        self.candidates = np.zeros((count, kept), np.int64)
        self.checked = np.zeros((count, 3))  # where the neighbour was last settled
        self.slack = np.zeros(count)  # how far from there it stays nearest
        self.searched = np.zeros((count, 3))  # where the candidates were found
        self.reach = np.full(count, -np.inf)  # nearer than this to there are only candidates

    def match(self, params: np.ndarray) -> np.ndarray:  # (7,)
        """Make `neighbour` each query's nearest static point; how far they are, (Q,), in the
        target's unit."""
        scale, matrix, shift = self._settle(params)
        unit = scale if self.from_target else 1.0
        return unit * np.sqrt(_squares(self.queries, matrix, shift, self.static, self.neighbour))

    def step(self, params: np.ndarray) -> tuple[float, np.ndarray]:  # (7,)
        """Mean squared distance of the pairs kept, and the parameters that fit them best, (7,).

        Raises:
            ValueError: the paired points of one side coincide or lie on a line.
        """
        scale, matrix, shift = self._settle(params)
        queries, neighbour = self.queries, self.neighbour
        if self.num_kept < len(queries):
            squares = _squares(queries, matrix, shift, self.static, neighbour)
            kept = np.argpartition(squares, self.num_kept - 1)[: self.num_kept]
            queries, neighbour = queries[kept], neighbour[kept]
        squared, *moments = _moments(queries, matrix, shift, self.static, neighbour)
        if self.from_target:
            means, covariance, variances = moments
            moments = means[::-1], covariance.T, variances[::-1]
            squared *= scale**2
        return squared, _best_params(*moments, self.largest, self.with_scale)

    def _settle(self, params: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:  # (7,)
        """Make `neighbour` the nearest static point of every query; the scale, and the matrix
        (3, 3) and shift (3,) that moved the queries."""
        scale, rotation, translation = motion_of(params)
        if self.from_target:
            matrix = rotation.T / scale
            shift = -matrix @ translation
        else:
            matrix, shift = scale * rotation, translation
        _settle(
            self.queries,
            matrix,
            shift,
            self.tree,
            self.neighbour,
            self.candidates,
            self.checked,
            self.slack,
            self.searched,
            self.reach,
        )
        return scale, matrix, shift


def motion_of(params: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:  # (7,)
    """Scale, rotation and translation of a rotation vector, a translation and log scale."""
    x, y, z = params[:3].tolist()
    half = math.sqrt(x * x + y * y + z * z) / 2
    share = math.sin(half) / (2 * half) if half > 0 else 0.5
    rotation = _rotation_of(math.cos(half), share * x, share * y, share * z)
    return math.exp(params[6]), rotation, params[3:6]


def _rotation_of(w: float, x: float, y: float, z: float) -> np.ndarray:
    """Of a unit quaternion, (3, 3)."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _best_params(
    means: np.ndarray,  # (2, 3), of source and target
    covariance: np.ndarray,  # (3, 3), of target source^T
    variances: np.ndarray,  # (2,)
    largest: float,  # of all coordinates' absolute values
    with_scale: bool,
) -> np.ndarray:
    """The parameters of the least-squares similarity of pairs with these moments, (7,).

    `align.umeyama` finds the same from points; one matrix of nine numbers costs torch so long that
    an ICP would spend half of its time here.

    Raises:
        ValueError: the points of one side coincide or lie on a line.

    Source: Horn, "Closed-form solution of absolute orientation using unit quaternions", JOSA 1987.
    """
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = covariance.tolist()  # source's letter first
    values, vectors = np.linalg.eigh(
        [
            [xx + yy + zz, yz - zy, zx - xz, xy - yx],
            [yz - zy, xx - yy - zz, xy + yx, zx + xz],
            [zx - xz, xy + yx, yy - xx - zz, yz + zy],
            [xy - yx, zx + xz, yz + zy, zz - xx - yy],
        ]
    )
    # The largest and the third add up to twice the covariance's second singular value, which must
    # exceed what the rounding of the coordinates alone brings into it, as in `umeyama`.
    rounding = np.finfo(np.float64).eps * largest * np.sqrt(variances).sum()
    if values[3] + values[1] <= 8 * rounding:
        raise ValueError(
            "the paired points of one side coincide or lie on a line, so no rotation is determined"
        )
    w, x, y, z = (vectors[:, 3] * np.copysign(1, vectors[0, 3])).tolist()
    sine = math.sqrt(x * x + y * y + z * z)  # of half the angle
    angle = 2 * math.atan2(sine, w) / sine if sine > 0 else 2.0
    scale = values[3] / variances[0] if with_scale else 1.0
    shift = means[1] - scale * _rotation_of(w, x, y, z) @ means[0]
    return np.array([angle * x, angle * y, angle * z, *shift, math.log(scale)])


@inlined(inline="always")
def _move(
    point: np.ndarray,  # (3,)
    matrix: np.ndarray,  # (3, 3)
    shift: np.ndarray,  # (3,)
) -> tuple[float, float, float]:
    """matrix point + shift."""
    x, y, z = point[0], point[1], point[2]
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + shift[0],
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + shift[1],
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + shift[2],
    )


@inlined(inline="always")
def _apart(moved: tuple[float, float, float], point: np.ndarray) -> float:  # (3,)
    """Squared distance."""
    x, y, z = moved[0] - point[0], moved[1] - point[1], moved[2] - point[2]
    return x * x + y * y + z * z


@cached(fastmath=RELAXED)
def _settle(
    queries: np.ndarray,  # (Q, 3)
    matrix: np.ndarray,  # (3, 3)
    shift: np.ndarray,  # (3,)
    tree: SearchTree,
    neighbour: np.ndarray,  # (Q,); written, as are the others
    candidates: np.ndarray,  # (Q, K)
    checked: np.ndarray,  # (Q, 3)
    slack: np.ndarray,  # (Q,)
    searched: np.ndarray,  # (Q, 3)
    reach: np.ndarray,  # (Q,)
) -> None:
    """Make `neighbour` each moved query's nearest point."""
    static, num_candidates = tree.points, candidates.shape[1]
    squares = np.zeros(num_candidates)
    waiting, distances = np.zeros(STACK, np.int64), np.zeros(STACK)
    for query in range(len(queries)):
        x, y, z = _move(queries[query], matrix, shift)
        gone = _apart((x, y, z), checked[query])
        if gone < slack[query] * slack[query]:
            continue
        # One that was never searched begins with those of the query before, which mostly lies
        # beside it.
        known = reach[query] >= 0
        begin = query if known else max(query - 1, 0)
        nearest, second, farthest = np.inf, np.inf, 0.0
        for point in candidates[begin]:
            squared = _apart((x, y, z), static[point])
            farthest = max(farthest, squared)
            if squared < nearest:
                nearest, second = squared, nearest
                neighbour[query] = point
            elif squared < second:
                second = squared
        nearest, second = np.sqrt(nearest), np.sqrt(second)
        beyond = reach[query] - np.sqrt(_apart((x, y, z), searched[query]))
        checked[query, 0], checked[query, 1], checked[query, 2] = x, y, z
        if nearest > beyond:
            bound = farthest if query or known else np.inf
            nearest_points(tree, x, y, z, bound, candidates[query], squares, waiting, distances)
            neighbour[query] = candidates[query, 0]
            searched[query, 0], searched[query, 1], searched[query, 2] = x, y, z
            nearest, second = np.sqrt(squares[0]), np.sqrt(squares[1])
            reach[query] = beyond = np.sqrt(squares[num_candidates - 1])
        slack[query] = (min(second, beyond) - nearest) / 2


@cached(fastmath=RELAXED)
def _squares(
    queries: np.ndarray,  # (Q, 3)
    matrix: np.ndarray,  # (3, 3)
    shift: np.ndarray,  # (3,)
    static: np.ndarray,  # (M, 3)
    neighbour: np.ndarray,  # (Q,)
) -> np.ndarray:
    """Squared distance of every moved query from its neighbour, (Q,)."""
    squares = np.zeros(len(queries))
    for query in range(len(queries)):
        moved = _move(queries[query], matrix, shift)
        squares[query] = _apart(moved, static[neighbour[query]])
    return squares


@cached(fastmath=RELAXED)
def _moments(
    queries: np.ndarray,  # (Q, 3)
    matrix: np.ndarray,  # (3, 3)
    shift: np.ndarray,  # (3,)
    static: np.ndarray,  # (M, 3)
    neighbour: np.ndarray,  # (Q,)
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Mean squared distance of the moved queries from their neighbours. And, of the queries where
    they are and of their neighbours: means (2, 3), mean of neighbour query^T about them (3, 3),
    variances (2,)."""
    count = len(queries)
    # About the first pair, so that points which all coincide have a variance of 0.
    a, b, c = queries[0]
    d, e, f = static[neighbour[0]]
    # Numbers, not arrays, are summed into: those stay in registers.
    squared = query_variance = static_variance = 0.0
    x_sum = y_sum = z_sum = u_sum = v_sum = w_sum = 0.0
    ux = uy = uz = vx = vy = vz = wx = wy = wz = 0.0
    for query in range(count):
        point = neighbour[query]
        x, y, z = queries[query, 0], queries[query, 1], queries[query, 2]
        u, v, w = static[point, 0], static[point, 1], static[point, 2]
        moved_x, moved_y, moved_z = _move((x, y, z), matrix, shift)
        squared += (moved_x - u) ** 2 + (moved_y - v) ** 2 + (moved_z - w) ** 2
        x, y, z, u, v, w = x - a, y - b, z - c, u - d, v - e, w - f
        x_sum += x
        y_sum += y
        z_sum += z
        u_sum += u
        v_sum += v
        w_sum += w
        query_variance += x * x + y * y + z * z
        static_variance += u * u + v * v + w * w
        ux += u * x
        uy += u * y
        uz += u * z
        vx += v * x
        vy += v * y
        vz += v * z
        wx += w * x
        wy += w * y
        wz += w * z
    means = np.array([[x_sum, y_sum, z_sum], [u_sum, v_sum, w_sum]]) / count
    covariance = np.array([[ux, uy, uz], [vx, vy, vz], [wx, wy, wz]]) / count
    variances = np.array([query_variance, static_variance]) / count
    covariance -= means[1][:, None] * means[0]
    variances -= (means * means).sum(1)
    means += np.array([[a, b, c], [d, e, f]])
    return squared / count, means, covariance, variances
