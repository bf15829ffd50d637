"""Where crops lie: a turn of picture and face changes no crop."""

import numpy as np
import pytest
import torch

from prnet.detection.detector import Detection
from prnet.detection.framing import (
    LEAST_TILT,
    crop_from_picture,
    framing_of_detection,
    framing_of_points,
)
from prnet.detection.tilt import FoundFace
from prnet.geometry import camera


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Clockwise about the origin, y down."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, -sin], [sin, cos]]).T


def in_crop(points: np.ndarray, **framing: object) -> np.ndarray:
    matrix = crop_from_picture([framing_of_points(points, **framing)], scale=1.5)[0]
    flat = np.column_stack([points, np.zeros(len(points))])
    return camera.transform_points(matrix, torch.from_numpy(flat)).numpy()[:, :2]


@pytest.mark.parametrize("angle", [0.3, 1.5, -2.8, np.pi])
def test_a_turned_face_has_the_same_crop(angle):
    points = np.random.default_rng(1).normal([200, 100], [30, 40], (68, 2))
    upright = in_crop(points)
    assert np.abs(in_crop(turned(points, angle), tilt=angle) - upright).max() < 1e-9
    # Its box's middle is the crop's, and the box's mean side is the crop's over the scale.
    low, high = upright.min(0), upright.max(0)
    np.testing.assert_allclose((low + high) / 2, 127.5)
    assert (high - low).mean() == pytest.approx(255 / 1.5)


def test_without_a_tilt_it_is_the_published_crop():
    points = np.random.default_rng(2).uniform(0, 300, (68, 2))
    matrix = crop_from_picture([framing_of_points(points)], scale=1.6)[0]
    center, side = camera.box_from_points(torch.from_numpy(points))
    assert torch.equal(matrix, camera.crop_from_image(center, 1.6 * side))


def test_depth_is_scaled_like_x_and_y():
    matrix = crop_from_picture([framing_of_points(np.eye(2) * 80, tilt=1.0)], scale=1.0)[0]
    assert torch.linalg.det(matrix[:2, :2]) == pytest.approx(float(matrix[2, 2]) ** 2)
    assert matrix[2, 3] == 0


@pytest.mark.parametrize("tilt", [0.0, 0.5 * LEAST_TILT, 2.0])
def test_framing_of_a_detection_lies_below_its_centre(tilt):
    """Down means down the face; a small tilt is left in the crop."""
    box = np.array([[100.0, 50.0], [180.0, 150.0]])
    found = FoundFace(Detection(1.0, box, np.zeros((5, 2))), tilt)
    framing = framing_of_detection(found)
    offset = framing.center - box.mean(0)
    assert turned(offset[None], -tilt)[0] == pytest.approx([0, 0.15 * np.sqrt(8000)])
    assert framing.size == pytest.approx(0.86 * np.sqrt(8000))
    assert framing.tilt == (tilt if tilt >= LEAST_TILT else 0.0)


@pytest.mark.parametrize(
    ("points", "message"), [([[1, 1], [1, 1]], "spans 0 px"), ([[1, np.nan], [3, 3]], "finite")]
)
def test_points_that_frame_nothing_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        framing_of_points(np.array(points, dtype=float))
