"""The one-euro filter against its formula, and what smoothing a face may not change."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from prnet.detection.framing import Framing
from prnet.reconstruction.reconstructor import FaceReconstruction, HeadPose
from prnet.reconstruction.smoothing import (
    FaceSmoother,
    OneEuro,
    RotationOneEuro,
    Smoothing,
    Strength,
)

OPEN = Strength(1e9, 0.0)


def one_euro(values, times, min_cutoff, beta):
    """Algorithm 1 of the paper, number by number."""

    def alpha(cutoff, period):
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / period)

    last, speed, found = values[0], 0.0, [values[0]]
    for k in range(1, len(values)):
        period = times[k] - times[k - 1]
        share = alpha(1.0, period)
        speed = share * (values[k] - last) / period + (1 - share) * speed
        share = alpha(min_cutoff + beta * abs(speed), period)
        last = share * values[k] + (1 - share) * last
        found.append(last)
    return np.array(found)


@pytest.fixture
def signal() -> tuple[np.ndarray, np.ndarray]:
    """Two noisy waves at uneven times."""
    random = np.random.default_rng(2)
    times = np.cumsum(random.uniform(0.01, 0.08, 60))
    waves = np.stack([np.sin(3 * times), 0.2 * np.cos(times)], -1)
    return waves + random.normal(0, 0.05, waves.shape), times


@pytest.mark.parametrize(("min_cutoff", "beta"), [(1.0, 0.0), (0.5, 2.0), (3.0, 0.1)])
def test_an_array_is_filtered_as_its_numbers_by_the_formula(signal, min_cutoff, beta):
    values, times = signal
    one = OneEuro(Strength(min_cutoff, beta))
    found = np.stack([one(value, time_s) for value, time_s in zip(values, times, strict=True)])
    for column in (0, 1):
        expected = one_euro(values[:, column], times, min_cutoff, beta)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-12)


def test_speeds_are_measured_in_the_unit(signal):
    values, times = signal
    small, large = OneEuro(Strength(1, 3)), OneEuro(Strength(1, 3))
    for value, time_s in zip(values, times, strict=True):
        np.testing.assert_allclose(
            large(250 * value, time_s, unit=250.0), 250 * small(value, time_s)
        )


def test_limits(signal):
    values, times = signal
    through = OneEuro(OPEN)
    for value, time_s in zip(values, times, strict=True):
        np.testing.assert_allclose(through(value, time_s), value, atol=1e-6)
    still = OneEuro(Strength(0.1, 5))
    assert all(still(np.full(2, 7.0), time_s).tolist() == [7, 7] for time_s in times)


def test_noise_at_rest_shrinks_as_a_low_pass_filter_shrinks_it():
    """Without beta: the variance of an exponential mean is share / (2 - share)."""
    random = np.random.default_rng(0)
    one, period = OneEuro(Strength(1.0, 0.0)), 1 / 30
    found = np.stack([one(random.normal(size=2000), k * period) for k in range(120)])
    share = 1 / (1 + 1 / (2 * math.pi * period))
    assert found[60:].std() == pytest.approx(math.sqrt(share / (2 - share)), rel=0.02)


def test_beta_trades_trembling_for_lag():
    """A ramp is followed with the delay of the filter: shorter the larger beta is."""
    delays = []
    for beta in (0.0, 1.0, 10.0):
        one = OneEuro(Strength(1.0, beta))
        for k in range(200):
            found = one(np.array([k / 30]), k / 30)
        delays.append(199 / 30 - float(found[0]))
    assert delays[0] == pytest.approx(1 / (2 * math.pi), rel=1e-3)
    assert delays[0] > 1.5 * delays[1] > 2 * delays[2]


def test_turns_about_one_axis_are_filtered_as_their_angle(signal):
    values, times = signal
    axis = np.array([2.0, -1.0, 2.0]) / 3
    turning, scalar = RotationOneEuro(Strength(0.7, 1.5)), OneEuro(Strength(0.7, 1.5))
    for angle, time_s in zip(2 * values[:, 0], times, strict=True):
        found = turning(Rotation.from_rotvec(angle * axis).as_matrix(), time_s)
        expected = Rotation.from_rotvec(scalar(np.array(angle), time_s) * axis).as_matrix()
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_half_turn_has_no_seam():
    """Angles that pass from +180 to -180 degrees are one way."""
    one = RotationOneEuro(Strength(1.0, 0.5))
    for k, degrees in enumerate(range(170, 191)):
        found = one(Rotation.from_euler("z", degrees, degrees=True).as_matrix(), k / 30)
    angle = Rotation.from_matrix(found).as_euler("zyx", degrees=True)[0] % 360
    assert 180 < angle < 190


def moved(face: FaceReconstruction, factor: float, shift: np.ndarray) -> FaceReconstruction:
    """As in a picture that is so much larger, and shifted, (3,) px."""
    down = shift * [1, -1, 1]
    pose = face.pose
    return replace(
        face,
        vertices=(factor * face.vertices + shift).astype(np.float32),
        landmarks=(factor * face.landmarks + shift).astype(np.float32),
        framing=Framing(factor * face.framing.center + shift[:2], factor * face.framing.size),
        pose=HeadPose(factor * pose.scale, pose.rotation, factor * pose.translation + down),
    )


@pytest.fixture(scope="module")
def sequence(her_face) -> list[FaceReconstruction]:
    """Her face, trembling and drifting."""
    random = np.random.default_rng(1)
    found = []
    for k in range(8):
        noise = random.normal(0, 0.5, 3)
        one = moved(her_face, 1 + random.normal(0, 0.01), [2.0 * k, k, 0] + noise)
        points = one.landmarks + random.normal(0, 0.4, one.landmarks.shape).astype(np.float32)
        found.append(replace(one, landmarks=points))
    return found


def test_without_smoothing_a_face_stays_what_it_is(sequence):
    smoother = FaceSmoother(Smoothing(OPEN, OPEN, OPEN))
    for k, face in enumerate(sequence):
        same = smoother(face, k / 30)
        np.testing.assert_allclose(same.vertices, face.vertices, atol=1e-3)
        np.testing.assert_allclose(same.landmarks, face.landmarks, atol=1e-3)
        np.testing.assert_allclose(same.pose.translation, face.pose.translation, atol=1e-3)
        np.testing.assert_allclose(same.pose.rotation, face.pose.rotation, atol=1e-6)
        np.testing.assert_allclose(same.exp_params, face.exp_params, atol=1e-6)


def test_smoothing_does_not_know_how_large_the_picture_is(sequence):
    small, large = FaceSmoother(Smoothing()), FaceSmoother(Smoothing())
    shift = np.array([300.0, -80.0, 5.0])
    for k, face in enumerate(sequence):
        expected = moved(small(face, k / 30), 3.0, shift)
        found = large(moved(face, 3.0, shift), k / 30)
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=2e-2)
        np.testing.assert_allclose(found.pose.translation, expected.pose.translation, atol=2e-2)


def test_a_map_has_its_points_smoothed_and_no_coefficients(sequence):
    smoother = FaceSmoother(Smoothing())
    maps = [replace(face, shape_params=None, exp_params=None) for face in sequence]
    found = [smoother(face, k / 30) for k, face in enumerate(maps)]
    assert found[-1].exp_params is None

    def trembling(faces):
        return np.abs(np.diff([face.landmarks for face in faces], 2, axis=0)).mean()

    assert trembling(found) < 0.8 * trembling(maps)


def test_the_smoothed_pose_still_says_where_the_mesh_is(sequence, her_face):
    """The model's points under the smoothed pose lie at the smoothed vertices as before."""
    smoother = FaceSmoother(Smoothing())
    for k, face in enumerate(sequence):
        smooth = smoother(face, k / 30)

    def model_points(one: FaceReconstruction) -> np.ndarray:
        up = one.vertices * [1.0, -1.0, 1.0]
        return (up - one.pose.translation) @ one.pose.rotation / one.pose.scale

    size = her_face.framing.size / her_face.pose.scale
    np.testing.assert_allclose(
        model_points(smooth) / size, model_points(her_face) / size, atol=0.01
    )


def test_impossible_strengths_are_refused():
    with pytest.raises(ValueError, match=r"smoothing\.pose: got min_cutoff 0"):
        Smoothing.of(pose={"min_cutoff": 0, "beta": 1})
    with pytest.raises(ValueError, match=r"smoothing\.points.*beta -1"):
        Smoothing.of(points={"min_cutoff": 1, "beta": -1})
