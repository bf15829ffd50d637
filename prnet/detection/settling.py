"""Which reading of a face holds: the one whose crop shows a network a face where it should be.

The network is asked for every reading, and again where its landmarks lie far from the box that it
was given: the face is then the mean of its looks.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from prnet.detection.framing import Framing, framing_of_detection, framing_of_points
from prnet.detection.tilt import LEANING, FoundFace, tilt_of

# A face whose box differs from what was framed by more than this (distance of the centres and
# logarithm of the sizes, in sides), or that leans in its crop, is framed anew: networks learn crops
# that are off by more, but are the better the less they are off.
LARGEST_MISFIT = 0.05
MOST_LOOKS = 3  # at one face
# Of the 68 landmarks those that the detector's five points are.
EYES, NOSE, MOUTH = (slice(36, 42), slice(42, 48)), 30, (48, 54)


class Prediction(Protocol):
    """What a network makes of a framing."""

    framing: Framing
    landmarks: np.ndarray  # (68, 2 or more), px of the picture


Predicted = TypeVar("Predicted", bound=Prediction)


def settled(
    faces: Sequence[FoundFace],
    predict: Callable[[Sequence[Framing]], Sequence[Predicted]],
    mean: Callable[[Predicted, Predicted], Predicted],  # of two looks at one face, the later second
) -> list[Predicted]:
    """The prediction of each face, of its best reading; where that was framed anew, the mean with
    what was seen before, which counts as much in all, unless the face leaned there."""
    readings = [(face, *face.others) for face in faces]
    framings = [framing_of_detection(one) for own in readings for one in own]
    predictions = iter(predict(framings))
    best = [
        max(((one, next(predictions)) for one in own), key=lambda pair: agreement(*pair))[1]
        for own in readings
    ]
    for _ in range(MOST_LOOKS - 1):
        anew = {
            place: framing
            for place, prediction in enumerate(best)
            if (framing := better_framing(prediction)) is not None
        }
        if not anew:
            break
        for place, prediction in zip(anew, predict(list(anew.values())), strict=True):
            leaned = best[place].framing.tilt != prediction.framing.tilt
            best[place] = prediction if leaned else mean(best[place], prediction)
    return best


def agreement(face: FoundFace, prediction: Prediction) -> float:
    """How well a network's landmarks agree with a reading: the detector's confidence, less what
    their box is off and how far they lie from the detector's five points, in sides of the box."""
    points = five_points(prediction.landmarks)
    apart = np.linalg.norm(points - face.detection.points, axis=1).mean() / prediction.framing.size
    return face.detection.confidence - misfit(prediction) - 2 * float(apart)


def misfit(prediction: Prediction) -> float:
    """What the box of the landmarks is off from what was framed, in sides of that: the distance of
    the centres and the logarithm of the sizes."""
    framing = prediction.framing
    own = framing_of_points(prediction.landmarks, tilt=framing.tilt)
    away = np.linalg.norm(own.center - framing.center) / framing.size
    return float(away + abs(np.log(own.size / framing.size)))


def better_framing(prediction: Prediction) -> Framing | None:
    """The box of the landmarks, turned by their tilt where they lean in the crop; None where what
    was framed is near enough."""
    tilt = tilt_of(five_points(prediction.landmarks))
    lean = (tilt - prediction.framing.tilt + np.pi) % (2 * np.pi) - np.pi
    leans = abs(lean) > LEANING
    if not leans and misfit(prediction) <= LARGEST_MISFIT:
        return None
    kept = tilt if leans else prediction.framing.tilt
    return framing_of_points(prediction.landmarks, tilt=kept)


def five_points(landmarks: np.ndarray) -> np.ndarray:  # (68, 2 or more)
    """Eyes, nose tip, corners of the mouth, (5, 2), the face's right first: the picture's left
    where it is upright."""
    eyes = [landmarks[own, :2].mean(0) for own in EYES]
    return np.stack([*eyes, landmarks[NOSE, :2], *(landmarks[corner, :2] for corner in MOUTH)])
