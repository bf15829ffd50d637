"""The detector on a clean photo of one face, and the arithmetic of its anchors."""

import cv2
import numpy as np
import pytest
import skimage.data

from prnet.detection.detector import Detection, FaceDetector, anchors, decoded, distinct
from prnet.detection.tilt import find_faces, tilt_of

# The astronaut's eyes, nose tip and corners of the mouth, marked by eye, px.
POINTS = np.array([[202, 101], [244, 104], [221, 128], [202, 141], [241, 142]], dtype=float)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def test_the_astronaut_is_found_once_with_her_points(detector, astronaut):
    (found,) = detector(astronaut)
    assert found.confidence > 0.99
    assert (found.box[0] < POINTS.min(0)).all()
    assert (found.box[1] > POINTS.max(0)).all()
    assert np.abs(found.points - POINTS).max() < 8


@pytest.mark.parametrize("ratio", [0.25, 2.0])
def test_coordinates_are_of_the_picture_whatever_its_size(detector, astronaut, ratio):
    """Pixel centres at integers: a picture scaled by r has its point x at r (x + 1/2) - 1/2."""
    scaled = cv2.resize(astronaut, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    whole, part = detector(astronaut)[0], detector(scaled)[0]
    expected = ratio * (whole.points + 0.5) - 0.5
    assert np.abs(part.points - expected).max() < ratio * 3


def test_several_faces_are_found_largest_first(detector, astronaut):
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    group = np.zeros((512, 1024, 3), np.uint8)
    group[:, 512:], group[128:384, 128:384] = astronaut, small
    found = detector(group)
    assert len(found) == 2
    assert [one.box.mean(0)[0] > 512 for one in found] == [True, False]
    assert found[0].size == pytest.approx(2 * found[1].size, rel=0.1)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_faces_that_lie_are_found_beside_upright_ones(detector, astronaut, quarters):
    small = cv2.resize(astronaut[20:276, 90:346], (200, 200), interpolation=cv2.INTER_AREA)
    group = np.zeros((512, 760, 3), np.uint8)
    group[:, :512], group[150:350, 535:735] = astronaut, np.rot90(small, quarters)
    upright, lying = find_faces(detector, group)
    assert upright.detection.box.mean(0)[0] < 512
    assert upright.tilt == pytest.approx(0, abs=0.2)
    turns = (lying.tilt + np.pi / 2 * quarters) / (2 * np.pi)
    assert abs(turns - round(turns)) < 0.03
    middle = (np.array([221, 125]) - [90, 20]) * 200 / 256 - 100  # of her face
    for _ in range(quarters):
        middle = np.array([middle[1], -middle[0]])
    assert np.abs(lying.detection.box.mean(0) - middle - [635, 250]).max() < 15


def test_a_picture_without_a_face_has_none(detector):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert find_faces(detector, noise) == []


@pytest.mark.parametrize("degrees", [0, 20, 50, 90, 130, 180, 250, 315])
def test_tilt_of_a_turned_face(detector, astronaut, degrees):
    """Turned clockwise by hand; the tilt found is that turn's."""
    face = astronaut[20:240, 110:330]
    height, width = face.shape[:2]
    side = int(np.ceil(np.hypot(height, width)))
    # OpenCV's angle is anti-clockwise.
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    turn[:, 2] += (side - np.array([width, height])) / 2
    (found, *_) = find_faces(detector, cv2.warpAffine(face, turn, (side, side)))
    upright = tilt_of(POINTS)
    error = np.degrees(found.tilt - upright) - degrees
    assert abs((error + 180) % 360 - 180) < 8
    expected = (POINTS - [110, 20]) @ turn[:, :2].T + turn[:, 2]
    assert np.abs(found.detection.points - expected).max() < 12


def test_tilt_is_clockwise():
    assert tilt_of(POINTS) == pytest.approx(0.04, abs=0.05)
    quarter = np.array([[0.0, -1], [1, 0]])  # clockwise where y points down
    assert tilt_of(POINTS @ quarter.T) == pytest.approx(np.pi / 2 + 0.04, abs=0.05)


def test_anchors_of_a_picture_that_no_step_divides():
    """One grid a step, the last place of a row beyond the picture's edge where need be."""
    found = anchors(40, 70)
    assert len(found) == 2 * (5 * 9 + 3 * 5 + 2 * 3)
    assert found[0].tolist() == [4, 4, 16]
    assert found[1].tolist() == [4, 4, 32]
    assert found[-1].tolist() == [80, 48, 512]


def test_decoded_against_the_formula():
    priors = np.array([[100.0, 60.0, 32.0], [10.0, 10.0, 16.0]])
    offsets = np.array([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    points = np.tile([1.0, 2.0], (2, 5))
    scores = np.array([[0.1, 0.9], [0.8, 0.2]])
    (one,) = decoded(offsets, scores, points, priors, 0.5)
    center, half = np.array([103.2, 53.6]), np.array([16 * np.exp(0.1), 16])
    np.testing.assert_allclose(one.box, [center - half, center + half])
    np.testing.assert_allclose(one.points, np.tile([103.2, 66.4], (5, 1)))


def test_of_boxes_that_overlap_the_surest_is_kept():
    def at(left: float, confidence: float) -> Detection:
        corners = np.array([[left, 0.0], [left + 10, 10]])
        return Detection(confidence, corners, np.zeros((5, 2)))

    kept = distinct([at(0, 0.7), at(1, 0.9), at(30, 0.8)])
    assert [one.confidence for one in kept] == [0.9, 0.8]
    assert distinct([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sides": []}, "sides"), ({"sides": [20]}, "64"), ({"threshold": 1.0}, "threshold")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FaceDetector(**options)


def test_other_pictures_are_refused(detector):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        detector(np.zeros((10, 10), np.uint8))
