"""Readings of a face told apart by a network: one that is scripted, so that the truth is known."""

from typing import NamedTuple

import numpy as np
import pytest

from prnet.detection.detector import Detection
from prnet.detection.framing import Framing, framing_of_detection, framing_of_points
from prnet.detection.settling import better_framing, five_points, misfit, settled
from prnet.detection.tilt import FoundFace, tilt_of


class Seen(NamedTuple):
    framing: Framing
    landmarks: np.ndarray


def upright_landmarks() -> np.ndarray:
    """A frontal face about the origin in sides of its box: (68, 3), order of iBUG."""
    angle = np.linspace(np.pi, 0, 17)
    points = np.zeros((68, 3))
    points[:17, 0], points[:17, 1] = 0.5 * np.cos(angle), 0.5 * np.sin(angle)
    points[17:27, 0], points[17:27, 1] = np.linspace(-0.4, 0.4, 10), -0.5
    points[27:36, 1] = np.linspace(-0.3, 0.1, 9)
    points[36:42, :2], points[42:48, :2] = [-0.2, -0.3], [0.2, -0.3]
    points[48:, 0], points[48:, 1] = np.linspace(-0.2, 0.2, 20), 0.25
    points[54] = [0.2, 0.25, 0]
    return points


FACE = upright_landmarks()


def placed(framing: Framing) -> np.ndarray:
    """The face that fills a framing, (68, 3)."""
    cos, sin = np.cos(framing.tilt), np.sin(framing.tilt)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return framing.size * FACE @ turn.T + [*framing.center, 0]


def reading(truth: Framing, tilt: float, confidence: float) -> FoundFace:
    """A detection of the true box whose five points are those of a face with this tilt."""
    down = np.array([-np.sin(tilt), np.cos(tilt)])
    side = truth.size / 0.86
    center = truth.center - 0.15 * side * down
    box = np.stack([center - side / 2, center + side / 2])
    five = five_points(placed(truth._replace(tilt=tilt)))
    return FoundFace(Detection(confidence, box, five), tilt)


def between(earlier: Seen, later: Seen) -> Seen:
    """The mean of two looks."""
    return later._replace(landmarks=(earlier.landmarks + later.landmarks) / 2)


class Network:
    """Sees faces where they are and as large, if the crop shows them nearly upright; else one that
    is half as large as the crop says."""

    def __init__(self, *truths: Framing) -> None:
        self.truths = truths
        self.calls: list[list[Framing]] = []

    def __call__(self, framings: list[Framing]) -> list[Seen]:
        self.calls.append(list(framings))
        return [Seen(one, self.landmarks(one)) for one in framings]

    def landmarks(self, framing: Framing) -> np.ndarray:
        truth = min(self.truths, key=lambda one: np.linalg.norm(one.center - framing.center))
        if np.cos(framing.tilt - truth.tilt) > 0.8:
            return placed(truth)
        return placed(framing._replace(size=framing.size / 2))


@pytest.mark.parametrize("tilt", [0.0, 1.0, -2.0, 3.1])
def test_the_network_overrules_a_surer_reading_upside_down(tilt):
    truth = Framing(np.array([200.0, 120]), 80.0, tilt)
    right, wrong = reading(truth, tilt, 0.8), reading(truth, tilt + np.pi, 0.95)
    for first, second in ((right, wrong), (wrong, right)):
        network = Network(truth)
        (face,) = settled([first._replace(others=(second,))], network, between)
        assert np.abs(face.landmarks - placed(truth)).max() < 1e-9
        assert [len(call) for call in network.calls] == [2]


def test_a_reading_alone_costs_one_call_and_faces_keep_their_order():
    truths = [Framing(np.array([x, 90.0]), size) for x, size in ((100, 50.0), (300, 30), (500, 40))]
    faces = [reading(truth, 0.0, 0.9) for truth in truths]
    faces[1] = reading(truths[1], np.pi, 0.95)._replace(others=(faces[1],))
    network = Network(*truths)
    found = settled(faces, network, between)
    assert [len(call) for call in network.calls] == [4]
    for face, truth in zip(found, truths, strict=True):
        assert np.abs(face.landmarks - placed(truth)).max() < 1e-9
    assert settled([], Network(*truths), between) == []


@pytest.mark.parametrize(
    ("away", "grown", "again"), [(0.02, 1.02, False), (0.3, 1, True), (0, 1.4, True)]
)
def test_a_box_that_is_off_is_framed_anew(away, grown, again):
    truth = Framing(np.array([200.0, 120]), 80.0, 0.7)
    shown = truth._replace(center=truth.center + [80 * away, 0], size=80 * grown)
    network = Network(truth)
    (face,) = settled([reading(shown, 0.7, 0.9)], network, between)
    assert len(network.calls) == 1 + again
    assert (misfit(face) < 1e-9) == again
    if again:
        np.testing.assert_allclose(face.framing.center, truth.center)
        assert face.framing.size == pytest.approx(80)
        assert face.framing.tilt == pytest.approx(0.7)


class Taken(Network):
    """Errs by a share of what the crop is off in x."""

    def __init__(self, truth: Framing, *, share: float = 0.2) -> None:
        super().__init__(truth)
        self.share = share

    def landmarks(self, framing: Framing) -> np.ndarray:
        truth = super().landmarks(framing)
        error = self.share * (framing.center[0] - self.truths[0].center[0])
        return truth + [error, 0, 0]


def test_a_face_that_is_framed_anew_is_the_mean_of_both_looks():
    truth = Framing(np.array([200.0, 120]), 80.0)
    network = Taken(truth)
    (face,) = settled(
        [reading(truth._replace(center=truth.center + [20, 0]), 0, 0.9)], network, between
    )
    # The first look errs by 4 px, the second, framed by it, by 0.8.
    assert (face.landmarks - placed(truth))[:, 0] == pytest.approx(2.4)
    assert face.framing.center[0] == pytest.approx(204)


def test_a_box_that_stays_off_is_framed_anew_once_more():
    """Each look errs by four fifths of what its crop is off, so that no box is ever near enough."""
    truth = Framing(np.array([200.0, 120]), 80.0)
    network = Taken(truth, share=0.8)
    shown = truth._replace(center=truth.center + [100, 0])
    (face,) = settled([reading(shown, 0, 0.9)], network, between)
    # 80 px; framed at 80 px 64, the mean 72; framed at 72 px 57.6, the mean 64.8.
    assert [len(call) for call in network.calls] == [1, 1, 1]
    assert face.framing.center[0] == pytest.approx(272)
    assert (face.landmarks - placed(truth))[:, 0] == pytest.approx(64.8)


def test_a_look_at_a_leaning_face_counts_for_nothing():
    truth = Framing(np.array([200.0, 120]), 80.0, 0.6)
    network = Taken(truth)
    shown = truth._replace(center=truth.center + [20, 0], tilt=0.0)
    (face,) = settled([reading(shown, 0.0, 0.9)], network, between)
    assert face.framing.tilt == pytest.approx(0.6)
    assert (face.landmarks - placed(truth))[:, 0] == pytest.approx(0.8, abs=0.3)


def test_a_lean_in_the_crop_is_taken_out_as_far_as_networks_need_it():
    truth = Framing(np.array([200.0, 120]), 80.0, 0.7)
    upright = truth._replace(tilt=0.0)
    assert better_framing(Seen(upright, placed(truth))).tilt == pytest.approx(0.7)
    slight = truth._replace(tilt=0.03)
    assert better_framing(Seen(upright, placed(slight))) is None
    larger = slight._replace(size=1.4 * truth.size)
    assert better_framing(Seen(upright, placed(larger))).tilt == 0


def test_a_framing_that_its_landmarks_fill_has_no_misfit():
    found = reading(Framing(np.array([30.0, 40]), 20.0), 1.2, 1.0)
    framing = framing_of_detection(found)
    assert misfit(Seen(framing, placed(framing))) == pytest.approx(0, abs=1e-9)
    assert tilt_of(five_points(placed(framing))) == pytest.approx(1.2)
    own = framing_of_points(placed(framing), tilt=1.2)
    np.testing.assert_allclose(own.center, framing.center)
