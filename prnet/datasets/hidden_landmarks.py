"""Landmarks that are marked as hidden by their numbers, and 68 points that are no face of a photo.

MERL-RAV and others write (-1, -1) or (0, 0) for a point that is not seen and (-x, -y) for one that
lies at (x, y) behind something. A point may also truly lie left of and above the picture: where the
others, seen as an affine picture of the mean face, expect it tells which.
"""

import functools
from typing import NamedTuple

import numpy as np

from prnet.checks import require_choice
from prnet.datasets.fits import LEAST_SPAN
from prnet.faces.embedded import load_embedded

CHOICES = ("auto", "negative", "none")
# So many points place the others.
LEAST_KNOWN = 8
# How far from where the others expect it a point at (-1, -1) or (0, 0) is one that is not seen,
# in units of the face's size.
NEAR = 0.05
# A face seen from behind, further than a camera sees 68 landmarks, is one that is mirrored. Between
# the two a profile and the mirror image of another, which have the same points, are not told apart.
LOOKING, MIRRORED = 0.5, -0.5
MIRRORED_FACE = (
    "the landmarks are a mirrored face: x and y exchanged, y counted from below, or left and right "
    "in another order than iBUG's"
)
# What is left of the points of a face beside their affine picture, at most, in units of their own
# deviation.
FACE_RESIDUAL = 0.3


class Marks(NamedTuple):
    """How many points of a photo were marked."""

    unseen: int = 0
    hidden: int = 0  # at (x, y), behind something


def resolve_hidden(
    points: np.ndarray,  # (68, 2 or 3), as they are stored, NaN where not seen
    how: str,
) -> tuple[np.ndarray, Marks]:
    """The points where they are, NaN where they are not seen, and how many were marked.

    - "none": every number is a place.
    - "negative": (-1, -1) and (0, 0) are not seen, two negative coordinates a place with its sign
      changed.
    - "auto": the same where the other points do not expect it at the numbers as they are.

    Raises:
        ValueError: none of the three.
    """
    require_choice("hidden", how, CHOICES)
    x, y = points[:, :2].T
    absent = ((x == -1) & (y == -1)) | ((x == 0) & (y == 0))
    negative = (x < 0) & (y < 0) & ~absent
    if how == "none" or not (absent | negative).any():
        return points, Marks()
    if how == "auto":
        expected, size = _expected(points[:, :2], ~(absent | negative) & np.isfinite(x))
        if expected is None:
            negative[:] = False
        else:
            stored = np.linalg.norm(expected - points[:, :2], axis=1)
            changed = np.linalg.norm(expected + points[:, :2], axis=1)
            negative &= changed < stored
            absent &= stored > NEAR * size
    resolved = points.astype(np.float64)
    resolved[negative, :2] *= -1
    resolved[absent] = np.nan
    return resolved, Marks(int(absent.sum()), int(negative.sum()))


def landmark_fault(points: np.ndarray) -> str | None:  # (68, 2 or 3), NaN where not seen
    """Why points are no face of a photo, whatever its size; None: they may be one."""
    seen = np.isfinite(points[:, :2]).all(1)
    if not seen.any():
        return "none of 68 landmarks is seen"
    low, high = points[seen, :2].min(0), points[seen, :2].max(0)
    if (high - low).max() < LEAST_SPAN:
        return (
            f"the landmarks lie from {low[0]:.3g} to {high[0]:.3g} in x and {low[1]:.3g} to "
            f"{high[1]:.3g} in y; expected px, not shares of the picture"
        )
    facing = facing_of(points)
    return MIRRORED_FACE if facing is not None and facing < MIRRORED else None


def facing_of(points: np.ndarray) -> float | None:  # (68, 2 or 3), NaN where not seen
    """How much a face looks into the camera: 1 straight, 0 in profile, below 0 from behind or
    mirrored. None: too few points are seen, or they are no face."""
    seen = np.isfinite(points[:, :2]).all(1)
    affine = _affine(points[:, :2], seen)
    if affine is None:
        return None
    across, down = affine[:3].T
    residual = (_mean_face() @ affine - points[:, :2])[seen]
    if not residual.std() < FACE_RESIDUAL * points[seen, :2].std():
        return None
    # Toward the camera, the third row of the rotation; y is counted downward.
    lengths = np.linalg.norm(across) * np.linalg.norm(down)
    return float(-np.cross(across, down)[2] / lengths)


def is_right_handed(landmarks: np.ndarray) -> bool:  # (68, 3)
    """Whether a face lies in a frame with y up and z toward the camera, or one turned from it; the
    image's, with y down, is left-handed."""
    linear = np.linalg.lstsq(_mean_face(), landmarks, rcond=None)[0][:3]
    return bool(np.linalg.det(linear) > 0)


def require_in_picture(
    points: np.ndarray,  # (68, 2 or 3), zero_based px, NaN where not seen
    height: int,
    width: int,
) -> None:
    """Raise ValueError unless at least half of the points that are seen lie in the picture, and
    none farther outside than the picture is large."""
    seen = np.flatnonzero(np.isfinite(points[:, :2]).all(1))
    outside = np.maximum(-0.5 - points[seen, :2], points[seen, :2] - [width - 0.5, height - 0.5])
    outside = outside.max(1)
    inside = int((outside <= 0).sum())
    if 2 * inside < len(seen):
        raise ValueError(f"{inside} of {len(seen)} landmarks inside {width} x {height}")
    if len(seen) and outside.max() > max(height, width):
        worst = seen[outside.argmax()]
        x, y = points[worst, :2]
        raise ValueError(f"landmark {worst} at ({x:.5g}, {y:.5g}), far outside {width} x {height}")


@functools.cache
def _mean_face() -> np.ndarray:  # (68, 4), homogeneous, y up
    face = load_embedded()
    points = face.morphable_model.mean[face.landmark_index].double().numpy()
    points = (points - points.mean(0)) / points.std()
    return np.concatenate([points, np.ones((len(points), 1))], 1)


def _affine(points: np.ndarray, known: np.ndarray) -> np.ndarray | None:  # (68, 2), (68,)
    """The affine map of the mean face to the points that are known, (4, 2); None: too few."""
    if known.sum() < LEAST_KNOWN:
        return None
    return np.linalg.lstsq(_mean_face()[known], points[known], rcond=None)[0]


def _expected(points: np.ndarray, known: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Where each point is by those that are known, (68, 2), and the size of the face, px."""
    affine = _affine(points, known)
    if affine is None:
        return None, 0.0
    expected = _mean_face() @ affine
    return expected, float(np.sqrt(np.ptp(expected, axis=0).prod()))
