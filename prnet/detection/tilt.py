"""Which way is up for a face: the turns that may bring it upright, from the detector's five points.

The detector sees faces up to some 60 degrees of tilt, and is sure of its points only where they
are nearly upright. So a face that may be tilted is glanced at turned by every eighth of a circle,
and looked at closely at the turns that showed a face. What an upside-down face shows is often one
too: the readings that remain are told apart by a network's landmarks (`prnet.detection.settling`).

A tilt is in radians, positive where the face leans clockwise in the picture: its chin is then to
the left of its forehead.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from prnet.detection.detector import DOUBTFUL, Detection, FaceDetector, distinct, order

# A detection that is surer than this and leans less is taken as it is.
SURE, LEANING = 0.99, np.radians(30)
EIGHTHS = tuple(np.pi / 4 * np.arange(8))
# A look from a turn counts only where the face is nearly upright in it.
LARGEST_LEAN = np.radians(40)
# Tilts nearer to each other than this are one reading: a network takes up the rest.
APART = np.pi / 4
MOST_READINGS = 4
# A reading that is less sure than this share of the surest one is none.
CONTESTED = 0.5
LEAST_SURE = 0.05  # of a look
# Where a picture seems to show no face, so many of the surest hints of one are looked into.
MOST_HINTS, LEAST_HINT = 3, 0.1
# Two faces whose centres are nearer than this share of the smaller box are one.
SAME = 0.5
LOOK_SPAN = 2.2  # sides of the box that a look shows
# Px that a look is resampled to. The face is then some 70 px at a glance, 145 px in a close look.
# What either takes for a face differs where it is none, or is not upright: both are asked.
GLANCE, CLOSE = 160, 320


class Square(NamedTuple):
    """A part of a picture to look at."""

    center: np.ndarray  # (2,), px of the picture
    span: float  # its side, px of the picture


class FoundFace(NamedTuple):
    """A face, and which way is up for it."""

    detection: Detection
    tilt: float  # rad
    others: tuple["FoundFace", ...] = ()  # other readings of the same face, less sure


def find_faces(
    detector: FaceDetector,
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
) -> list[FoundFace]:
    """All faces of a picture, the largest first, those that lie or stand on their head too; of a
    picture that seems to show none, those that a hint in it, turned by any angle, leads to."""
    found = detector(picture)
    faces = [with_tilt(detector, picture, one) for one in found]
    certain = [face.detection for face in faces if face.detection.confidence >= DOUBTFUL]
    hints = _lying(detector, picture) if found else _hints(detector, picture)
    # Beside others a face rarely lies; where there is no other, one sure look is enough.
    least = DOUBTFUL if found else detector.threshold
    for hint in hints:
        if any(_same(hint, one) for one in certain):
            continue
        face = with_tilt(detector, picture, hint, turned=True)
        if face.detection.confidence >= least or (not found and hint.confidence >= DOUBTFUL):
            faces.append(face)
    return sorted(_different(faces), key=lambda face: order(face.detection))


def tilt_of(points: np.ndarray) -> float:  # (5, 2), px
    """Of the line from the eyes to the mouth."""
    down = points[3:].mean(0) - points[:2].mean(0)
    return float(np.arctan2(-down[0], down[1]))


def with_tilt(
    detector: FaceDetector,
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
    detection: Detection,
    *,
    turned: bool = False,  # the detection is of the picture turned so that the face is upright
) -> FoundFace:
    """The face as it is seen upright, its tilt, and other readings; the detection itself where it
    is sure and upright, or where no look finds a face."""
    if _is_clear(detection):
        return FoundFace(detection, tilt_of(detection.points))
    around = _around(detection)
    glances = _looks(detector, picture, around, EIGHTHS, GLANCE)
    # The box of a face that leans is less exact, however sure.
    if turned or not glances or abs(tilt_of(detection.points)) <= LARGEST_LEAN:
        glances.append(detection)
    looks, sure = [], False
    for tilt, glance in _readings(glances):
        closer = _looks(detector, picture, _around(glance), [tilt], CLOSE)
        looks.append(_mean(glance, *closer))
        sure |= any(one.confidence >= DOUBTFUL for one in closer)
    if not sure:
        looks += map(_mean, _looks(detector, picture, around, EIGHTHS, CLOSE))
    best, *others = (FoundFace(look, tilt) for tilt, look in _readings(looks))
    least = CONTESTED * best.detection.confidence
    return best._replace(others=tuple(o for o in others if o.detection.confidence >= least))


def _is_clear(detection: Detection) -> bool:
    """Sure, and upright enough for its points to say how it leans."""
    return detection.confidence >= SURE and abs(tilt_of(detection.points)) < LEANING


def _lying(
    detector: FaceDetector,
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
) -> list[Detection]:
    """The faces that the picture turned by quarters clearly shows."""
    longer = max(picture.shape[:2])
    sides = [side for side in detector.sides if side <= longer] or detector.sides[:1]
    # One size in the middle of the detector's own.
    side = round(float(np.sqrt(sides[0] * sides[-1])))
    last_x, last_y = picture.shape[1] - 1, picture.shape[0] - 1
    found = []
    for quarters in (1, 2, 3):  # anti-clockwise
        turned = np.ascontiguousarray(np.rot90(picture, quarters))
        for one in detector.at_side(turned, side, threshold=DOUBTFUL):
            if abs(tilt_of(one.points)) > LARGEST_LEAN:
                continue
            x, y = np.concatenate([one.box, one.points]).T
            back = {1: (last_x - y, x), 2: (last_x - x, last_y - y), 3: (y, last_y - x)}
            points = np.stack(back[quarters], 1)
            box = np.stack([points[:2].min(0), points[:2].max(0)])
            found.append(one._replace(box=box, points=points[2:]))
    return distinct(found)


def _same(one: Detection, other: Detection) -> bool:
    apart = np.linalg.norm(one.box.mean(0) - other.box.mean(0))
    return bool(apart <= SAME * min(one.size, other.size))


def _different(faces: Sequence[FoundFace]) -> list[FoundFace]:
    """The faces, in their order, without those that became another one, which is surer."""
    kept: list[FoundFace] = []
    for face in sorted(faces, key=lambda one: -one.detection.confidence):
        if not any(_same(face.detection, other.detection) for other in kept):
            kept.append(face)
    return [face for face in faces if any(face is one for one in kept)]


def _mean(*looks: Detection) -> Detection:
    """What a glance and a close look say together: one of them alone is half as sure."""
    weights = np.array([look.confidence for look in looks])
    confidence, weights = float(weights.sum() / 2), weights / weights.sum()
    box = np.tensordot(weights, [look.box for look in looks], 1)
    return Detection(confidence, box, np.tensordot(weights, [look.points for look in looks], 1))


def _readings(looks: Sequence[Detection]) -> list[tuple[float, Detection]]:
    """The surest looks of different tilts, with these, the surest first."""
    kept: list[tuple[float, Detection]] = []
    for look in sorted(looks, key=lambda one: -one.confidence):
        tilt = tilt_of(look.points)
        turns = [abs((tilt - other + np.pi) % (2 * np.pi) - np.pi) for other, _ in kept]
        if all(turn > APART for turn in turns):
            kept.append((tilt, look))
    return kept[:MOST_READINGS]


def _hints(
    detector: FaceDetector,
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
) -> list[Detection]:
    """What might be faces in a picture turned by any eighth, the surest first."""
    height, width = picture.shape[:2]
    middle, span = np.array([width - 1, height - 1]) / 2, float(np.hypot(height, width))
    # The turned picture in full, as large as the detector sees the upright one.
    side = round(detector.sides[0] * span / max(height, width))
    found = [
        one
        for tilt in EIGHTHS
        for one in _seen(detector, picture, Square(middle, span), tilt, side, LEAST_HINT)
    ]
    return distinct(found)[:MOST_HINTS]


def _around(detection: Detection) -> Square:
    return Square(detection.box.mean(0), LOOK_SPAN * detection.size)


def _looks(
    detector: FaceDetector,
    picture: np.ndarray,
    around: Square,
    tilts: Iterable[float],
    side: int,  # px
) -> list[Detection]:
    """The surest face in the middle of a square, turned by each of these tilts; none where none is
    seen."""
    found = []
    for tilt in tilts:
        seen = _seen(detector, picture, around, tilt, side, LEAST_SURE)
        away = [np.abs(one.box.mean(0) - around.center).max() for one in seen]
        central = (one for one, far in zip(seen, away, strict=True) if far <= around.span / 4)
        found += list(central)[:1]  # they come most sure first
    return found


def _seen(
    detector: FaceDetector,
    picture: np.ndarray,
    around: Square,
    tilt: float,
    side: int,  # px that the square is resampled to
    threshold: float,
) -> list[Detection]:
    """The nearly upright faces in a square that is turned by a tilt, px of the picture, most sure
    first."""
    scale = side / around.span
    middle = np.full(2, (side - 1) / 2)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    look_from_picture = np.column_stack([scale * turn, middle - scale * turn @ around.center])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    look = cv2.warpAffine(picture, look_from_picture, (side, side), flags=method)
    back = turn / scale  # x turn^T of a row vector is turn^-1 x
    found = []
    for one in detector.at_side(look, side, threshold=threshold):
        if abs(tilt_of(one.points)) > LARGEST_LEAN:
            continue
        points = (one.points - middle) @ back + around.center
        # The box is the upright face's: in the picture it lies at the same centre and size.
        half = (one.box[1] - one.box[0]) / (2 * scale)
        at = (one.box.mean(0) - middle) @ back + around.center
        found.append(Detection(one.confidence, np.stack([at - half, at + half]), points))
    return found
