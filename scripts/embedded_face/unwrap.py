"""UV coordinates: a cylinder around the head, with local repairs where the head folds over it."""

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial import ConvexHull

# The window: angles to both sides of the nose, heights in mm, and the cylinder's axis at x = 0.
HALF_ANGLE = np.radians(105)
BOTTOM, TOP = -112.0, 98.0
AXIS_Z = -7.0
# Triangles this far beyond the window take part in the repairs.
MAX_ANGLE = np.radians(140)
LOWEST, HIGHEST = -153.0, 134.0

RINGS = 3  # of neighbours around a fold that are laid out anew with it
GROWTHS = (1.0, 1.1, 1.2, 1.35, 1.5, 1.7, 2.0)  # of a patch, until nothing folds
ROUNDS = 8  # of evening out the stretch
LEAST_AREA = 1e-9  # of a triangle that counts as laid out, in units of the window's area


def cylinder(vertices: np.ndarray) -> np.ndarray:  # (N, 3), mm
    """(u, v) of every vertex, (N, 2); the window is [0, 1]^2.

    Source: SADRNet eqs. 7 and 8.
    """
    angle = np.arctan2(vertices[:, 0], vertices[:, 2] - AXIS_Z)
    height = vertices[:, 1] - BOTTOM
    return np.stack([0.5 + angle / (2 * HALF_ANGLE), height / (TOP - BOTTOM)], -1)


def unwrap(
    vertices: np.ndarray,  # (N, 3), of the symmetric mean
    triangles: np.ndarray,  # (T, 3), counter-clockwise from outside
    mirror: np.ndarray,  # (N,)
) -> np.ndarray:
    """Symmetric UV coordinates (N, 2) in which no triangle of the window is turned over.

    The cylinder turns over the ears, the nostrils, the inner lips and the lids. Each such place is
    laid out anew within a convex ring of the cylinder's layout, by mean-value weights made more
    even by the stretch they leave.

    Raises:
        RuntimeError: a fold that no patch undoes.

    Source: Floater, "Mean value coordinates", 2003; Yoshizawa, Belyaev and Seidel, "A fast and
        simple stretch-minimizing mesh parameterization", 2004, with exponent 1/2.
    """
    uv = cylinder(vertices)
    triangles = triangles[_near_window(vertices, triangles)]
    layout = _Layout(vertices, triangles, uv)
    for fold in layout.folds():
        uv = layout.repaired(uv, fold)
    uv = (uv + uv[mirror] * [-1, 1] + [1, 0]) / 2
    require_upright(uv, triangles)
    return uv


def require_upright(uv: np.ndarray, triangles: np.ndarray) -> None:  # (N, 2), (T, 3)
    """Raise RuntimeError where a triangle within the window is turned over."""
    turned = (signed_areas(uv, triangles) <= LEAST_AREA) & in_window(uv, triangles)
    if turned.any():
        raise RuntimeError(f"uv: {turned.sum()} triangles of the window are turned over")


def in_window(uv: np.ndarray, triangles: np.ndarray) -> np.ndarray:  # (N, 2), (T, 3)
    """Which triangles have all corners in the window, (T,)."""
    return ((uv[triangles] > 0) & (uv[triangles] < 1)).all((1, 2))


def signed_areas(uv: np.ndarray, triangles: np.ndarray) -> np.ndarray:  # (N, 2), (T, 3)
    """Areas (T,), positive counter-clockwise."""
    origin, first, second = (uv[triangles[:, k]] for k in range(3))
    edge_1, edge_2 = first - origin, second - origin
    return (edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]) / 2


class _Layout:
    """The mesh around the window and its layout on the cylinder."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray) -> None:
        self.vertices = vertices
        self.triangles = triangles
        self.cylinder = uv
        count = len(vertices)
        sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        ends = np.concatenate([sides, sides[:, ::-1]]).T
        entries = coo_array((np.ones(ends.shape[1]), ends), shape=(count, count))
        self.neighbours = entries.tocsr()
        _, uses = np.unique(np.sort(sides, axis=1), axis=0, return_counts=True)
        edges = np.unique(np.sort(sides, axis=1), axis=0)
        self.border = np.isin(np.arange(count), edges[uses == 1])
        self.present = np.isin(np.arange(count), triangles)
        corners = vertices[triangles]
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.areas = np.linalg.norm(cross, axis=1) / 2
        self.mean_value = self._mean_value_weights()

    def folds(self) -> list[np.ndarray]:
        """Vertices of each place where the cylinder's layout folds, with some rings around it."""
        turned = signed_areas(self.cylinder, self.triangles) <= LEAST_AREA
        turned &= in_window(self.cylinder, self.triangles)
        near = np.isin(np.arange(len(self.vertices)), self.triangles[turned])
        for _ in range(RINGS):
            near |= self.neighbours @ near.astype(float) > 0
        index = np.flatnonzero(near)
        count, label = connected_components(self.neighbours[index][:, index], directed=False)
        return [index[label == k] for k in range(count)]

    def repaired(self, uv: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """The layout with one patch laid out anew, as small a patch as undoes the fold."""
        for growth in GROWTHS:
            free = self._patch(fold, growth)
            best = self._most_even(uv, free)
            if best is not None:
                return best
        center = self.vertices[fold].mean(0).round()
        raise RuntimeError(f"uv: the fold around {center.tolist()} mm cannot be undone")

    def _patch(self, fold: np.ndarray, growth: float) -> np.ndarray:
        """Which vertices are free, (N,): the connected ones within the fold's grown hull."""
        hull = self.cylinder[fold][ConvexHull(self.cylinder[fold]).vertices]
        hull = hull.mean(0) + growth * (hull - hull.mean(0))
        free = inside_convex(self.cylinder, hull) & self.present & ~self.border
        index = np.flatnonzero(free)
        label = connected_components(self.neighbours[index][:, index], directed=False)[1]
        own = np.bincount(label[np.isin(index, fold)]).argmax()
        free[index[label != own]] = False
        return free

    def _most_even(self, uv: np.ndarray, free: np.ndarray) -> np.ndarray | None:
        """The least stretched of several layouts of the free vertices; None where all fold."""
        rows = np.flatnonzero(free)
        touched = np.flatnonzero(free[self.triangles].any(1))
        weights = self.mean_value[rows]
        best, least = None, np.inf
        for _ in range(ROUNDS):
            shares = (diags_array(1 / weights.sum(1)) @ weights).tocsr()
            system = (eye_array(len(rows)) - shares[:, rows]).tocsc()
            trial = uv.copy()
            trial[rows] = spsolve(system, shares @ np.where(free[:, None], 0, uv))
            triangles, areas = self.triangles[touched], self.areas[touched]
            stretch = squared_stretch(self.vertices, trial, triangles)
            total = (stretch * areas).sum()
            if total < least and (signed_areas(trial, triangles) > LEAST_AREA).all():
                best, least = trial, total
            # Neighbours that are stretched draw less, so that the layout opens up around them.
            around = [np.bincount(triangles[:, k], areas, len(uv)) for k in range(3)]
            stretched = [np.bincount(triangles[:, k], areas * stretch, len(uv)) for k in range(3)]
            mean = np.sqrt(sum(stretched) / np.maximum(sum(around), 1e-12))
            mean[mean == 0] = 1
            weights = (weights @ diags_array(mean**-0.5)).tocsr()
        return best

    def _mean_value_weights(self) -> csr_array:
        """w_ij = (tan(a / 2) + tan(b / 2)) / |x_j - x_i|, a and b the angles beside edge ij."""
        rows, columns, weights = [], [], []
        for k in range(3):
            here, first, second = (self.triangles[:, (k + s) % 3] for s in range(3))
            edge_1 = self.vertices[first] - self.vertices[here]
            edge_2 = self.vertices[second] - self.vertices[here]
            length_1, length_2 = np.linalg.norm(edge_1, axis=1), np.linalg.norm(edge_2, axis=1)
            cosine = (edge_1 * edge_2).sum(1) / np.maximum(length_1 * length_2, 1e-9)
            half = np.tan(np.arccos(cosine.clip(-1, 0.9999)) / 2).clip(1e-3, 50)
            # Lengths below 0.05 mm would outweigh everything around them.
            weights += [half / length_1.clip(min=0.05), half / length_2.clip(min=0.05)]
            rows += [here, here]
            columns += [first, second]
        entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
        return coo_array(entries, shape=(len(self.vertices), len(self.vertices))).tocsr()


def squared_stretch(
    vertices: np.ndarray,  # (N, 3)
    uv: np.ndarray,  # (N, 2)
    triangles: np.ndarray,  # (T, 3)
) -> np.ndarray:
    """Half the squared length of the two tangents of the map from UV to the surface, (T,).

    Source: Sander et al., "Texture mapping progressive meshes", 2001, section 3.
    """
    q = vertices[triangles]
    p = uv[triangles]
    double_area = 2 * np.abs(signed_areas(uv, triangles)).clip(min=1e-12)[:, None]
    following, last = np.roll(p, -1, axis=1), np.roll(p, 1, axis=1)
    along_u = (q * (following - last)[..., 1:]).sum(1) / double_area
    along_v = (q * (last - following)[..., :1]).sum(1) / double_area
    return ((along_u**2).sum(1) + (along_v**2).sum(1)) / 2


def inside_convex(points: np.ndarray, hull: np.ndarray) -> np.ndarray:  # (N, 2), (H, 2)
    """Which points lie within a convex polygon given counter-clockwise, (N,)."""
    inside = np.ones(len(points), dtype=bool)
    for start, end in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        along, offset = end - start, points - start
        inside &= along[0] * offset[:, 1] - along[1] * offset[:, 0] >= 0
    return inside


def _near_window(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    angle = np.abs(np.arctan2(vertices[:, 0], vertices[:, 2] - AXIS_Z))[triangles]
    height = vertices[triangles, 1]
    low, high = height.min(1), height.max(1)
    return (angle.max(1) < MAX_ANGLE) & (low > LOWEST) & (high < HIGHEST)
