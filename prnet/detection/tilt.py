"""Which way is up for a face: the turn that brings it upright, from the detector's five points.

The detector sees faces up to some 60 degrees of tilt, and is sure of its points only where they
are nearly upright. So a face that may be tilted is looked at again, turned by every eighth of a
circle, and once more at the turn it is most sure of.

A tilt is in radians, positive where the face leans clockwise in the picture: its chin is then to
the left of its forehead.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from prnet.detection.detector import Detection, FaceDetector, distinct

# A detection that is surer than this and leans less is taken as it is.
SURE, LEANING = 0.99, np.radians(30)
EIGHTHS = tuple(np.pi / 4 * np.arange(8))
# A look from a turn counts only where the face is nearly upright in it.
LARGEST_LEAN = np.radians(40)
LOOK_SIDE = 160  # px
LOOK_SPAN = 2.2  # sides of the box that a look shows


class Square(NamedTuple):
    """A part of a picture to look at."""

    center: np.ndarray  # (2,), px of the picture
    span: float  # its side, px of the picture
    side: int  # px that it is resampled to


class FoundFace(NamedTuple):
    """A face, and which way is up for it."""

    detection: Detection
    tilt: float  # rad


def find_faces(
    detector: FaceDetector,
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
) -> list[FoundFace]:
    """All faces of a picture, the largest first; of one that seems to show none, the faces seen
    with the picture turned."""
    found = detector(picture)
    if not found:
        height, width = picture.shape[:2]
        corners = np.array([[0.0, 0.0], [width - 1, height - 1]])
        around = Square(corners.mean(0), float(np.hypot(height, width)), detector.sides[0])
        looks = _looks(detector, picture, around, EIGHTHS[1:], detector.threshold)
        found = sorted(distinct(looks), key=lambda one: -one.size)
    return [with_tilt(detector, picture, one) for one in found]


def tilt_of(points: np.ndarray) -> float:  # (5, 2), px
    """Of the line from the eyes to the mouth."""
    down = points[3:].mean(0) - points[:2].mean(0)
    return float(np.arctan2(-down[0], down[1]))


def with_tilt(
    detector: FaceDetector,
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
    detection: Detection,
) -> FoundFace:
    """The face with its points as seen upright, and its tilt; the detection itself where it is
    sure and upright, or where no look finds a face."""
    tilt = tilt_of(detection.points)
    if detection.confidence >= SURE and abs(tilt) < LEANING:
        return FoundFace(detection, tilt)
    around = Square(detection.box.mean(0), LOOK_SPAN * detection.size, LOOK_SIDE)
    found = _looks(detector, picture, around, EIGHTHS)
    if abs(tilt) <= LARGEST_LEAN:
        found.append(detection)
    if not found:
        return FoundFace(detection, tilt)
    best = _surest(found)
    best = _surest([best, *_looks(detector, picture, around, [tilt_of(best.points)])])
    return FoundFace(best, tilt_of(best.points))


def _surest(found: Sequence[Detection]) -> Detection:
    return max(found, key=lambda one: one.confidence)


def _looks(
    detector: FaceDetector,
    picture: np.ndarray,
    around: Square,
    tilts: Iterable[float],
    threshold: float = 0.05,
) -> list[Detection]:
    """The nearly upright faces in a part of the picture that is turned by each of these tilts, px
    of the picture; of a part around one face, that face."""
    scale = around.side / around.span
    middle = np.full(2, (around.side - 1) / 2)
    reach = around.side / (4 if around.side == LOOK_SIDE else 2)
    found = []
    for tilt in tilts:
        turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        look_from_picture = np.column_stack([scale * turn, middle - scale * turn @ around.center])
        look = cv2.warpAffine(
            picture,
            look_from_picture,
            (around.side, around.side),
            flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        for one in detector.at_side(look, around.side, threshold=threshold):
            off_center = np.abs(one.box.mean(0) - middle).max()
            if off_center > reach or abs(tilt_of(one.points)) > LARGEST_LEAN:
                continue
            back = turn / scale  # x turn^T of a row vector is turn^-1 x
            points = (one.points - middle) @ back + around.center
            # The box is the upright face's: in the picture it lies at the same centre and size.
            half = (one.box[1] - one.box[0]) / (2 * scale)
            at = (one.box.mean(0) - middle) @ back + around.center
            found.append(Detection(one.confidence, np.stack([at - half, at + half]), points))
    return found
