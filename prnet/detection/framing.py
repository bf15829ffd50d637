"""Where the crop of a face lies: from a detection, from landmarks, or from a box."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.detection.tilt import FoundFace
from prnet.geometry import camera

# Where the box of the 68 landmarks lies in a detector's box, measured in a frame in which the face
# is upright: so much below its centre, and its mean side, both in sides of the detector's box. On
# the package's own synthetic faces 0.17 and 0.85.
DOWN, SHARE = 0.15, 0.86
# Tilts below this stay in the crop: networks are trained on such faces, and in profile the five
# points say the tilt no better than that.
LEAST_TILT = np.radians(15)


class Framing(NamedTuple):
    """The box of a face's 68 landmarks, in a frame in which the face is upright."""

    center: np.ndarray  # (2,), px of the picture
    size: float  # mean side, px of the picture
    tilt: float = 0.0  # rad, clockwise in the picture


def framing_of_detection(found: FoundFace) -> Framing:
    """The box that the landmarks are expected to have."""
    down = np.array([-np.sin(found.tilt), np.cos(found.tilt)])
    size = found.detection.size
    center = found.detection.box.mean(0) + DOWN * size * down
    return Framing(center, SHARE * size, found.tilt if abs(found.tilt) >= LEAST_TILT else 0.0)


def framing_of_points(
    points: np.ndarray,  # (K, 2 or more), px: landmarks, or two corners of a box
    *,
    tilt: float = 0.0,
) -> Framing:
    """The box of points.

    Raises:
        ValueError: they span less than a pixel, or are not finite.
    """
    points = np.asarray(points, dtype=np.float64)[:, :2]
    if not np.isfinite(points).all():
        raise ValueError("points that frame a face hold coordinates that are not finite")
    upright_from_picture = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    upright = points @ upright_from_picture.T
    low, high = upright.min(0), upright.max(0)
    size = float((high - low).mean())
    if not size >= 1:
        raise ValueError(f"the face spans {size:.3g} px, expected at least 1")
    return Framing((low + high) / 2 @ upright_from_picture, size, tilt)


def crop_from_picture(
    framings: list[Framing],
    *,
    scale: float,  # side of the crop over the mean side of the landmarks' box
    span: float = 255.0,  # crop px from edge to edge
) -> Tensor:
    """Picture px -> crop px, (B, 4, 4), float64."""
    return camera.crop_from_image(
        torch.tensor(np.stack([framing.center for framing in framings]), dtype=torch.float64),
        torch.tensor([scale * framing.size for framing in framings], dtype=torch.float64),
        span=span,
        tilt=torch.tensor([framing.tilt for framing in framings], dtype=torch.float64),
    )


def overlap(first: Framing, second: Framing) -> float:
    """Intersection over union of two boxes, as squares that are not turned."""
    apart = np.abs(first.center - second.center)
    shared = np.clip((first.size + second.size) / 2 - apart, 0, min(first.size, second.size)).prod()
    return float(shared / (first.size**2 + second.size**2 - shared))
