"""Which way is up for a face: the turn that brings it upright, from the detector's five points.

The detector sees faces up to some 60 degrees of tilt, and is sure of its points only where they
are nearly upright. So a face that may be tilted is looked at again, turned by every eighth of a
circle, and once more at the turn it is most sure of.

A tilt is in radians, positive where the face leans clockwise in the picture: its chin is then to
the left of its forehead.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from prnet.detection.detector import Detection, FaceDetector

# A detection that is surer than this and leans less is taken as it is.
SURE, LEANING = 0.99, np.radians(30)
TURNS = 8
# What the confidence of an upright face is worth over that of one upside down.
UPRIGHT_BONUS = 0.01
# A look from a turn counts only where the face is nearly upright in it.
LARGEST_LEAN = np.radians(40)
LOOK_SIDE = 160  # px
LOOK_SPAN = 2.2  # sides of the box that a look shows


class FoundFace(NamedTuple):
    """A face, and which way is up for it."""

    detection: Detection
    tilt: float  # rad


def find_faces(
    detector: FaceDetector,
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
) -> list[FoundFace]:
    """All faces of a picture, the largest first; of one that seems to show none, the faces seen
    with the picture on its side or upside down."""
    found = detector(picture)
    for quarters in (1, 2, 3):
        if found:
            break
        turned = np.ascontiguousarray(np.rot90(picture, quarters))
        found = [_turned_back(one, quarters, turned.shape[:2]) for one in detector(turned)]
    return [with_tilt(detector, picture, one) for one in found]


def _turned_back(detection: Detection, quarters: int, size: tuple[int, int]) -> Detection:
    """A detection in a picture of `size` (height, width) that numpy.rot90 made, in the picture it
    was made of."""

    def back(points: np.ndarray) -> np.ndarray:
        height, width = size
        for _ in range(quarters):
            points = np.stack([height - 1 - points[:, 1], points[:, 0]], 1)
            height, width = width, height
        return points

    corners = back(detection.box)
    return Detection(
        detection.confidence, np.stack([corners.min(0), corners.max(0)]), back(detection.points)
    )


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
    eighths = 2 * np.pi * np.arange(TURNS) / TURNS
    found = _looks(detector, picture, detection, eighths)
    if abs(tilt) <= LARGEST_LEAN:
        found.append(detection)
    if not found:
        return FoundFace(detection, tilt)
    best = _surest(found)
    best = _surest([best, *_looks(detector, picture, detection, [tilt_of(best.points)])])
    return FoundFace(best, tilt_of(best.points))


def _surest(found: Iterable[Detection]) -> Detection:
    """The most sure look; of two that are nearly as sure the more upright one, as faces mostly
    are."""

    def rank(one: Detection) -> float:
        return one.confidence - UPRIGHT_BONUS * abs(tilt_of(one.points)) / np.pi

    return max(found, key=rank)


def _looks(
    detector: FaceDetector,
    picture: np.ndarray,
    detection: Detection,
    tilts: Iterable[float],
) -> list[Detection]:
    """What is seen of a face that is turned upright by each of these tilts, px of the picture."""
    center = detection.box.mean(0)
    scale = LOOK_SIDE / (LOOK_SPAN * detection.size)
    middle = np.full(2, (LOOK_SIDE - 1) / 2)
    found = []
    for tilt in tilts:
        turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        look_from_picture = np.column_stack([scale * turn, middle - scale * turn @ center])
        look = cv2.warpAffine(
            picture,
            look_from_picture,
            (LOOK_SIDE, LOOK_SIDE),
            flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        for one in detector.at_side(look, LOOK_SIDE, threshold=0.05):
            off_center = np.abs(one.box.mean(0) - middle).max()
            if off_center > LOOK_SIDE / 4 or abs(tilt_of(one.points)) > LARGEST_LEAN:
                continue
            back = turn / scale  # x turn^T of a row vector is turn^-1 x
            points = (one.points - middle) @ back + center
            # The box is the upright face's: in the picture it lies at the same centre and size.
            half = (one.box[1] - one.box[0]) / (2 * scale)
            at = (one.box.mean(0) - middle) @ back + center
            found.append(Detection(one.confidence, np.stack([at - half, at + half]), points))
    return found
