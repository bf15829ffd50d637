"""Where the face is on a head scan: the embedded face, moved and shaped until it lies on it.

A scan comes in its own pose, with hair, neck and shoulders, and without landmarks. The fit gives
them all at once: which way the face looks, its eye corners and nose tip, and what of it is face.
Letters: N scan points, V vertices of the face's mask, S shape bases.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from prnet.faces.face import Face
from prnet.geometry.camera import rotation_from_angles
from prnet.geometry.icp import fit_similarity
from prnet.geometry.mesh import vertex_normals

MICROMETRE_PER_MILLIMETRE = 1000.0
NOSE_TIP = 30
# Poses that are tried first: any scan within some 25 degrees of one is found.
START_PITCHES_DEG = (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0)
START_YAWS_DEG = (-40.0, 0.0, 40.0)
# The nose is taken to be the foremost point of one of the slices of this height, mm.
SLICE_HEIGHT = 10.0
START_POINTS, START_SCAN_POINTS, STARTS_KEPT = 250, 6000, 16
# Larger distances count as this one, mm: hair, and parts that the scanner missed.
FAR = 12.0
# Error of the scan and of the model's shapes, mm; residuals beyond it lose their weight.
SURFACE_STD = 0.8
FIT_POINTS, FIT_ITERATIONS = 3000, 30
RIGID_POINTS, RIGID_ITERATIONS = 600, 15
# A fit has settled when its points move less, mm.
SETTLED = 0.01
# A fit that is farther off has not found the face, mm.
LARGEST_RESIDUAL = 3.0
# The points are not independent: a patch of this many says about as much as one of them.
PATCH = 5.0


class FaceOnScan(NamedTuple):
    """What a fit says about a scan; lengths in mm, points in the scan's own frame times its unit.

    `rotation` turns the scan upright and frontal: u = rotation^T s, up to a shift.
    """

    rotation: np.ndarray  # (3, 3), det +1, model frame -> scan frame
    landmarks: np.ndarray  # (68, 3), of the fitted face, those of a file in their place
    mask_points: np.ndarray  # (V, 3), the fitted face's mask
    residual: float  # mean distance of `mask_points` to the scan


def fit_face(
    points: np.ndarray,  # (N, 3), mm, y up, z toward the camera, give or take some 60 degrees
    triangles: np.ndarray,  # (T, 3)
    face: Face,  # with `shape_std`
    marked: Mapping[int, np.ndarray] | None = None,  # index of the 68 -> (3,), mm
) -> FaceOnScan:
    """The face model at its maximum a posteriori on a scan, neutral expression.

    E = sum_v w_v (n_v . (R V_v(a) + t - q_v))^2 / (PATCH std^2) + sum (a / shape_std)^2 by
    Gauss-Newton, q_v the nearest scan point and n_v its normal, w_v of Geman and McClure. It starts
    from the marked landmarks where there are three or more, else from the best of many poses that
    put the nose tip on a foremost point.

    Marked landmarks replace the fitted ones; the others are moved onto the scan's surface.

    Raises:
        ValueError: no pose brings the face near the scan.
    """
    mask = face.uv.face_mask.cpu().numpy()
    column, row = np.rint(face.uv.vertex_pixels.cpu().numpy()).astype(int).T
    side = len(mask)
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    in_mask = np.flatnonzero(inside)[mask[row[inside], column[inside]]]
    model = face.morphable_model
    unit = 1 / MICROMETRE_PER_MILLIMETRE
    mean = unit * model.mean.double().cpu().numpy()
    basis = unit * model.basis[: model.num_shape].double().cpu().numpy()
    landmark_index = face.landmark_index.cpu().numpy()
    std = face.shape_std.double().cpu().numpy()
    normals = vertex_normals(torch.from_numpy(points)[None], torch.from_numpy(triangles))[0].numpy()
    surface = _Surface(points, normals, cKDTree(points))

    random = np.random.default_rng(0)
    drawn = random.choice(in_mask, min(FIT_POINTS, len(in_mask)), replace=False)
    if marked is not None and len(marked) >= 3:
        indices = sorted(marked)
        _, rotation, translation = fit_similarity(
            mean[landmark_index[indices]],
            np.stack([marked[index] for index in indices]),
            with_scale=False,
        )
        starts = [(rotation, translation)]
    else:
        starts = _starts(points, mean[drawn], mean[landmark_index[NOSE_TIP]], random)
    few = mean[drawn[:RIGID_POINTS]], basis[:0, drawn[:RIGID_POINTS]]
    fits = [_refine(surface, *few, std[:0], start, iterations=RIGID_ITERATIONS) for start in starts]
    best = min(fits, key=lambda fit: surface.misfit(_place(*few, *fit)))
    rotation, translation, params = _refine(
        surface, mean[drawn], basis[:, drawn], std, best[:2], iterations=FIT_ITERATIONS
    )

    fitted = _place(mean, basis, rotation, translation, params)
    landmarks = surface.onto(fitted[landmark_index])
    for index, point in (marked or {}).items():
        landmarks[index] = point
    mask_points = fitted[in_mask]
    residual = float(surface.tree.query(mask_points)[0].mean())
    if residual > LARGEST_RESIDUAL:
        raise ValueError(
            f"no face found: the best fit is {residual:.1f} mm off on average; is dataset.unit "
            "right, y up and the face towards z? Three or more landmarks in a file say where it is"
        )
    return FaceOnScan(rotation, landmarks, mask_points, residual)


class _Surface(NamedTuple):
    points: np.ndarray  # (N, 3), mm
    normals: np.ndarray  # (N, 3), of either sign
    tree: cKDTree

    def onto(self, points: np.ndarray) -> np.ndarray:  # (K, 3)
        """Each point on the tangent plane of its nearest scan point, (K, 3)."""
        nearest = self.tree.query(points)[1]
        normals = self.normals[nearest]
        height = ((points - self.points[nearest]) * normals).sum(1, keepdims=True)
        return points - height * normals

    def misfit(self, face_points: np.ndarray) -> float:  # (V, 3)
        return float(np.minimum(self.tree.query(face_points)[0], FAR).mean())


def _place(
    mean: np.ndarray,  # (V, 3)
    basis: np.ndarray,  # (S, V, 3)
    rotation: np.ndarray,
    translation: np.ndarray,
    params: np.ndarray,  # (S,)
) -> np.ndarray:
    return (mean + np.tensordot(params, basis, 1)) @ rotation.T + translation


def _starts(
    points: np.ndarray,  # (N, 3), mm
    face_points: np.ndarray,  # (V, 3), mm, model frame
    nose_tip: np.ndarray,  # (3,), mm, model frame
    random: np.random.Generator,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The poses with the least misfit, each a rotation and a translation."""
    kept = random.choice(len(points), min(START_SCAN_POINTS, len(points)), replace=False)
    coarse = points[kept]
    tree = cKDTree(coarse)
    probes = random.choice(face_points, min(START_POINTS, len(face_points)), replace=False)
    found = []
    for pitch in START_PITCHES_DEG:
        for yaw in START_YAWS_DEG:
            angles = torch.tensor([pitch, yaw, 0.0], dtype=torch.float64).deg2rad()
            rotation = rotation_from_angles(angles).numpy()
            upright = coarse @ rotation
            slices = np.floor(upright[:, 1] / SLICE_HEIGHT)
            for number in np.unique(slices):
                members = np.flatnonzero(slices == number)
                tip = coarse[members[upright[members, 2].argmax()]]
                translation = tip - rotation @ nose_tip
                distances = tree.query(probes @ rotation.T + translation)[0]
                misfit = float(np.minimum(distances, 2 * FAR).mean())
                found.append((misfit, len(found), rotation, translation))
    return [(rotation, translation) for _, _, rotation, translation in sorted(found)[:STARTS_KEPT]]


def _refine(
    surface: _Surface,
    mean: np.ndarray,  # (V, 3)
    basis: np.ndarray,  # (S, V, 3)
    std: np.ndarray,  # (S,)
    start: tuple[np.ndarray, np.ndarray],
    *,
    iterations: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Newton on distances to the tangent planes: rotation (3, 3), translation (3,) and shape
    coefficients (S,); without bases (S = 0) the fit is rigid."""
    rotation, translation = start
    params = np.zeros(len(std))
    prior = 1 / std**2
    before = np.full_like(mean, np.inf)
    for _ in range(iterations):
        shaped = (mean + np.tensordot(params, basis, 1)) @ rotation.T
        placed = shaped + translation
        if np.abs(placed - before).max() < SETTLED:
            break
        before = placed
        _, nearest = surface.tree.query(placed)
        normals = surface.normals[nearest]
        residual = ((placed - surface.points[nearest]) * normals).sum(1)
        # The scale follows the residuals: far from the scan all points pull, and outliers lose
        # their weight only when most points are near.
        scale = max(SURFACE_STD, 1.5 * float(np.median(np.abs(residual))))
        weight = 1 / (1 + (residual / scale) ** 2) ** 2
        shape_columns = np.einsum("svi,vi->vs", basis, normals @ rotation)
        jacobian = np.concatenate([np.cross(shaped, normals), normals, shape_columns], 1)
        weighted = jacobian * (weight / (PATCH * SURFACE_STD**2))[:, None]
        normal_matrix = weighted.T @ jacobian
        gradient = weighted.T @ residual
        normal_matrix[6:, 6:] += np.diag(prior)
        gradient[6:] += prior * params
        normal_matrix[np.diag_indices_from(normal_matrix)] += 1e-9 * normal_matrix.trace()
        step = -np.linalg.solve(normal_matrix, gradient)
        rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ rotation
        translation = translation + step[3:6]
        params = params + step[6:]
    return rotation, translation, params
