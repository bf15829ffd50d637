"""Faces followed from frame to frame, each under one number.

Between two looks of the detector at the whole picture, a face's crop is that of its last
landmarks, and the detector looks at a small picture around it to say how sure it is. What keeps
faces apart when they meet, and finds one again, is where it was heading and its colours in the
face's own UV layout, which do not change as a head turns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from prnet.detection.framing import (
    LEAST_TILT,
    Framing,
    crop_from_picture,
    framing_of_detection,
    framing_of_points,
    overlap,
)
from prnet.detection.settling import five_points
from prnet.detection.tilt import FoundFace, find_faces, tilt_of
from prnet.reconstruction.reconstructor import (
    FaceReconstruction,
    Reconstructor,
    reduced_picture,
)
from prnet.reconstruction.texture import colours_at

# A look around a face: its side, px, and how many sides of the landmarks' box it shows.
LOOK_SIDE, LOOK_SCALE = 160, 2.4
# Boxes that share less are not of one face; two faces whose boxes share more are one.
SAME, MERGED = 0.3, 0.45
# A face fits the box in which the detector sees it when the two share so much.
FITTING = 0.45
# A face that has moved or grown by more since the last frame, share of its box, is looked at once
# more, in a crop around where it is.
FAR = 0.12
# Faces whose boxes share more have met: neither's colours are learned from then.
MEETING = 0.05
# The detector looks at the whole picture so many times more often while a face is missed.
SOONER = 3
# How fast what is remembered of colours and speed follows.
LEARNING = 0.1
# Colours at every so many texels.
STRIDE = 8
# A face comes back with colours that differ by less, share of full range, and at a place that is
# off by less, sides of its box, than it could have gone; each counts in these.
COLOUR_LIMIT, PLACE_LIMIT = 0.2, 1.0
# Sides of its box that a face out of sight may go in a second, and how long its heading is trusted.
GOING, HEADING_SECONDS = 3.0, 0.5
LARGEST_GROWTH = 2.0


class Following(NamedTuple):
    """How faces are followed."""

    detect_every: int = 10  # frames from one look at the whole picture to the next
    keep_confidence: float = 0.3  # a face below it is lost
    remember: float = 5.0  # s that a face out of sight keeps its number

    def checked(self) -> "Following":
        """Itself.

        Raises:
            ValueError: a value out of its range.
        """
        if self.detect_every < 1 or not 0 <= self.keep_confidence < 1 or self.remember < 0:
            raise ValueError(
                f"video: got {self._asdict()}, expected detect_every 1 or more, keep_confidence "
                "0 to below 1, remember 0 or more"
            )
        return self


class TrackedFace(NamedTuple):
    """A face of one frame."""

    number: int  # from 1, in order of appearance
    face: FaceReconstruction  # its confidence is that of the frame


@dataclass
class _Track:
    """What is known of one face."""

    number: int
    framing: Framing
    seen_s: float
    colours: np.ndarray  # (K, 3)
    velocity: np.ndarray  # (2,), px a second
    live: bool = True

    def expected(self, time_s: float) -> np.ndarray:
        """Where its centre would be, (2,), px."""
        return self.framing.center + self.velocity * min(time_s - self.seen_s, HEADING_SECONDS)

    def unlike(self, framing: Framing, colours: np.ndarray, time_s: float) -> float:
        """How little a face seen now is this one: 0 the same, from 2 on, or infinite, another."""
        gone = time_s - self.seen_s
        place = np.linalg.norm(framing.center - self.expected(time_s)) / self.framing.size
        place /= PLACE_LIMIT + GOING * gone
        growth = np.exp(abs(np.log(framing.size / self.framing.size))) / LARGEST_GROWTH
        colour = np.abs(colours - self.colours).mean() / COLOUR_LIMIT
        return float("inf") if max(place, growth, colour) > 1 else float(place + colour)


class Tracker:
    """The faces of a video, frame by frame.

    >>> tracker = Tracker(prnet.load())
    >>> for frame in VideoReader("a.mp4"):
    ...     for number, face in tracker(frame.picture, frame.time_s):
    """

    def __init__(self, reconstructor: Reconstructor, following: Following | None = None) -> None:
        self.reconstructor = reconstructor
        self.following = (following or Following()).checked()
        self._tracks: list[_Track] = []
        self._count = 0
        self._until_search = 0

    def __call__(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
        time_s: float,  # later than at the call before
    ) -> list[TrackedFace]:
        """The faces of the next frame, by number."""
        oldest = time_s - self.following.remember
        self._tracks = [track for track in self._tracks if track.live or track.seen_s >= oldest]
        live = [track for track in self._tracks if track.live]
        followed = dict(self._followed(picture, live))
        self._part(followed, time_s)
        faces = {n: face for n, face in followed.items() if face is not None}
        lost = any(face is None for face in followed.values())
        self._until_search -= 1
        if lost or self._until_search < 0:
            faces |= self._searched(picture, time_s, faces)
            away = any(track.number not in faces for track in self._tracks)
            every = self.following.detect_every
            self._until_search = (every // SOONER if away else every) - 1
        self._learn(faces, time_s)
        return [TrackedFace(number, faces[number]) for number in sorted(faces)]

    def _followed(
        self, picture: np.ndarray, live: Sequence[_Track]
    ) -> Iterator[tuple[int, FaceReconstruction | None]]:
        """Number and face as it follows from the last frame, None where it is lost."""
        framings = [track.framing for track in live]
        faces = self.reconstructor.framed(picture, framings)
        landed = [_landed(face) for face in faces]
        far = [i for i, framing in enumerate(framings) if _moved(framing, landed[i]) > FAR]
        again = self.reconstructor.framed(picture, [landed[i] for i in far])
        for i, face in zip(far, again, strict=True):
            faces[i], landed[i], framings[i] = face, _landed(face), landed[i]
        for track, face, framing, crop in zip(live, faces, landed, framings, strict=True):
            fits = framing is not None and overlap(framing, crop) >= SAME
            confidence = self._confidence(picture, framing) if fits else 0.0
            kept = confidence >= self.following.keep_confidence
            yield track.number, replace(face, confidence=confidence) if kept else None

    def _confidence(self, picture: np.ndarray, framing: Framing) -> float:
        """The detector's, of a face that is where the landmarks are; 0 where it sees none."""
        matrix = crop_from_picture([framing], scale=LOOK_SCALE, span=LOOK_SIDE - 1.0)[0]
        part, picture_from_part = reduced_picture(picture, matrix)
        look_from_part = (matrix @ picture_from_part).numpy()[:2, [0, 1, 3]]
        look = cv2.warpAffine(part, look_from_part, (LOOK_SIDE, LOOK_SIDE))
        here = Framing(np.full(2, (LOOK_SIDE - 1) / 2), LOOK_SIDE / LOOK_SCALE)
        found = self.reconstructor.detector.at_side(look, LOOK_SIDE, threshold=0.05)
        fitting = [
            one.confidence
            for one in found
            if overlap(framing_of_detection(FoundFace(one, 0.0)), here) >= FITTING
        ]
        return max(fitting, default=0.0)

    def _part(self, followed: dict[int, FaceReconstruction | None], time_s: float) -> None:
        """Of two tracks that are on one face, that stays which it resembles."""
        numbers = [number for number, face in followed.items() if face is not None]
        for i, first in enumerate(numbers):
            for second in numbers[i + 1 :]:
                faces = followed[first], followed[second]
                if any(face is None for face in faces) or _share(*faces) <= MERGED:
                    continue
                pair = [(self._track(n), followed[n]) for n in (first, second)]
                unlike = [
                    track.unlike(_framing(face), colours_of(face), time_s) for track, face in pair
                ]
                followed[first if unlike[0] > unlike[1] else second] = None

    def _searched(
        self,
        picture: np.ndarray,
        time_s: float,
        faces: dict[int, FaceReconstruction],
    ) -> dict[int, FaceReconstruction]:
        """Number -> face of what the detector finds beside those that are followed."""
        found = find_faces(self.reconstructor.detector, picture)
        kept = [_framing(face) for face in faces.values()]
        found = [
            one
            for one in found
            if all(overlap(framing_of_detection(one), other) < SAME for other in kept)
        ]
        new = [
            face
            for face in self.reconstructor.of_found(picture, found)
            if _landed(face) and all(_share(face, one) < MERGED for one in faces.values())
        ]
        away = [track for track in self._tracks if track.number not in faces]
        result = {}
        for index, track in self._recognised(new, away, time_s).items():
            result[track.number] = new[index]
        for index, face in enumerate(new):
            # Half a face that comes out from behind another resembles nobody yet: it waits.
            half = away and any(_share(face, one) > MEETING for one in faces.values())
            if not half and not any(face is one for one in result.values()):
                self._count += 1
                track = _Track(
                    self._count, _framing(face), time_s, colours_of(face), np.zeros(2), live=False
                )
                self._tracks.append(track)
                result[track.number] = new[index]
        return result

    def _recognised(
        self, new: Sequence[FaceReconstruction], away: Sequence[_Track], time_s: float
    ) -> dict[int, _Track]:
        """Index of a face -> the track that it goes on with."""
        if not new or not away:
            return {}
        cost = np.array(
            [[t.unlike(_framing(face), colours_of(face), time_s) for t in away] for face in new]
        )
        rows, columns = linear_sum_assignment(np.where(np.isinf(cost), 1e6, cost))
        pairs = zip(rows, columns, strict=True)
        return {int(i): away[j] for i, j in pairs if np.isfinite(cost[i, j])}

    def _learn(self, faces: dict[int, FaceReconstruction], time_s: float) -> None:
        """Take this frame into what is known."""
        for track in self._tracks:
            face = faces.get(track.number)
            if face is None:
                track.live = False
                continue
            framing = framing_of_landmarks(face.landmarks, face.framing.tilt)
            alone = all(_share(face, one) < MEETING for one in faces.values() if one is not face)
            if track.live and alone:
                moved = (framing.center - track.framing.center) / (time_s - track.seen_s)
                track.velocity = track.velocity + 3 * LEARNING * (moved - track.velocity)
                track.colours = track.colours + LEARNING * (colours_of(face) - track.colours)
            track.framing, track.seen_s, track.live = framing, time_s, True

    def _track(self, number: int) -> _Track:
        return next(track for track in self._tracks if track.number == number)


def framing_of_landmarks(landmarks: np.ndarray, last_tilt: float) -> Framing:  # (68, 3), px
    """The crop of the next frame. A tilt is taken out from where photos have it taken out, and
    left in again only well below, so that it does not come and go.

    Raises:
        ValueError: as `framing_of_points`.
    """
    tilt = tilt_of(five_points(landmarks))
    least = LEAST_TILT if last_tilt == 0 else 0.6 * LEAST_TILT
    return framing_of_points(landmarks, tilt=tilt if abs(tilt) >= least else 0.0)


def _landed(face: FaceReconstruction) -> Framing | None:
    """The next crop by a face's landmarks; None where they span nothing."""
    try:
        return framing_of_landmarks(face.landmarks, face.framing.tilt)
    except ValueError:
        return None


def _moved(before: Framing, after: Framing | None) -> float:
    """How far a box went and how much its size changed, share of its side."""
    if after is None:
        return 0.0
    apart = np.abs(after.center - before.center).max() / before.size
    return float(max(apart, abs(np.log(after.size / before.size))))


def colours_of(face: FaceReconstruction) -> np.ndarray:
    """The face's colours at some texels of its UV layout, (K, 3), 0 to 1."""
    mask = face.face.uv.face_mask.cpu().numpy()[::STRIDE, ::STRIDE] > 0
    x, y = face.position_map[:2, ::STRIDE, ::STRIDE][:, mask]
    return colours_at(face.picture, x, y).astype(np.float32) / 255


def _framing(face: FaceReconstruction) -> Framing:
    return framing_of_points(face.landmarks)


def _share(first: FaceReconstruction, second: FaceReconstruction) -> float:
    return overlap(_framing(first), _framing(second))
