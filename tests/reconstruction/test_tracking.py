"""Faces keep their numbers: through crossings, misses and cuts, whatever the detector is asked."""

import numpy as np
import pytest

from prnet.reconstruction.reconstructor import Reconstructor
from prnet.reconstruction.tracking import Following, Tracker, framing_of_landmarks

SPAN = 150  # px of a pasted face's part


@pytest.fixture(scope="module")
def heads(astronaut) -> dict[str, np.ndarray]:
    """Two who differ by their colours: the astronaut, and her mirror image in other light."""
    head = np.ascontiguousarray(astronaut[50:200, 150:300])
    other = head[:, ::-1].astype(np.float32) * [0.55, 0.75, 1.0]
    return {"her": head, "other": other.astype(np.uint8)}


def scene(heads, width: int = 520, **places: int) -> np.ndarray:
    """Heads with their left edge at a place, the last one in front."""
    picture = np.full((190, width, 3), 110, np.uint8)
    for name, left in places.items():
        low, high = max(left, 0), min(left + SPAN, width)
        if low < high:
            picture[20 : 20 + SPAN, low:high] = heads[name][:, low - left : high - left]
    return picture


def centers(tracked) -> dict[int, float]:
    return {number: float(face.landmarks[:, 0].mean()) for number, face in tracked}


def test_a_face_is_followed_without_looking_at_the_whole_picture(reconstructor, heads, monkeypatch):
    searches = []
    detector = type(reconstructor.detector)
    whole = detector.__call__
    monkeypatch.setattr(
        detector, "__call__", lambda self, picture: searches.append(1) or whole(self, picture)
    )
    tracker = Tracker(reconstructor, Following(detect_every=5))
    for k in range(7):
        found = centers(tracker(scene(heads, her=60 + 9 * k), k / 30))
        assert list(found) == [1]
        assert found[1] == pytest.approx(60 + 9 * k + 73, abs=7)
    assert len(searches) == 2


def test_faces_that_cross_keep_their_numbers(reconstructor, heads):
    tracker = Tracker(reconstructor, Following(detect_every=3))
    seen: list[dict[int, float]] = []
    places = [(20 + 26 * k, 350 - 26 * k) for k in range(13)]
    for k, (her, other) in enumerate(places):
        seen.append(centers(tracker(scene(heads, her=her, other=other), k / 15)))
    assert set(seen[0]) == {1, 2}
    first = {number: "her" if place < 250 else "other" for number, place in seen[0].items()}
    for k, found in enumerate(seen):
        assert set(found) <= {1, 2}, f"frame {k}"
        for number, place in found.items():
            expected = places[k][first[number] == "other"] + 75
            assert place == pytest.approx(expected, abs=30), f"frame {k}"  # half hidden
    hidden = [k for k, found in enumerate(seen) if len(found) < 2]
    assert hidden  # they do hide each other
    assert set(seen[-1]) == {1, 2}


def test_who_leaves_and_comes_back_is_known_and_who_comes_instead_is_not(reconstructor, heads):
    tracker = Tracker(reconstructor, Following(detect_every=1, remember=2.0))
    empty = scene(heads)
    assert list(centers(tracker(scene(heads, her=100), 0.0))) == [1]
    assert list(centers(tracker(scene(heads, her=100), 0.1))) == [1]
    assert tracker(empty, 0.2) == []
    assert list(centers(tracker(scene(heads, her=130), 0.4))) == [1]
    assert tracker(empty, 0.5) == []
    assert list(centers(tracker(scene(heads, other=130), 0.6))) == [2]
    assert list(centers(tracker(scene(heads, other=120, her=300), 0.8))) == [1, 2]
    assert tracker(empty, 0.9) == []
    assert list(centers(tracker(scene(heads, her=300), 5.0))) == [3]


def test_a_face_that_jumps_is_found_again_at_once(reconstructor, heads):
    tracker = Tracker(reconstructor, Following(detect_every=100))
    for k, place in enumerate((30, 30, 330, 330)):
        found = centers(tracker(scene(heads, her=place), k / 30))
        assert list(found.values()) == [pytest.approx(place + 73, abs=7)]


def test_confidence_is_the_frames_own(reconstructor, heads):
    tracker = Tracker(reconstructor, Following(detect_every=100))
    clear = scene(heads, her=60)
    tracker(clear, 0.0)
    (sure,) = tracker(clear, 0.1)
    veiled = (0.12 * clear + 0.88 * 110).astype(np.uint8)
    found = tracker(veiled, 0.2)
    assert sure.face.confidence > 0.95
    assert not found or found[0].face.confidence < sure.face.confidence


def test_a_tilt_does_not_come_and_go():
    """Turned by 12 degrees a face that was upright stays so, and one that was tilted, tilted."""
    points = np.zeros((68, 3))
    points[36:42], points[42:48] = [-30, -30, 0], [30, -30, 0]
    points[48], points[54], points[30] = [-20, 30, 0], [20, 30, 0], [0, 0, 9]
    points[:17, 0], points[:17, 1] = np.linspace(-60, 60, 17), 50

    def tilt(degrees: float, last: float) -> float:
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        return np.degrees(framing_of_landmarks(turned, np.radians(last)).tilt)

    assert tilt(12, 0) == 0
    assert tilt(12, 16) == pytest.approx(12)
    assert tilt(5, 16) == 0
    assert tilt(40, 0) == pytest.approx(40)


def test_values_out_of_range_are_refused(reconstructor: Reconstructor):
    for wrong in ({"detect_every": 0}, {"keep_confidence": 1.0}, {"remember": -1.0}):
        with pytest.raises(ValueError, match=f"video: got .*{next(iter(wrong))}"):
            Tracker(reconstructor, Following(**wrong))
