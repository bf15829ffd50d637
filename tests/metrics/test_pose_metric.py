"""Head pose errors: conventions, wrapping, the gimbal, the rules that drop images."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from prnet.geometry import camera
from prnet.metrics.pose import (
    geodesic_deg,
    kept_by_fix,
    plausible_truth,
    pose_errors,
    pose_from_points,
    wrapped_difference_deg,
)


def random_angles(count: int, *, seed: int = 0) -> torch.Tensor:
    limits = torch.tensor([1.5, 1.5, 3.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return limits * (2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1)


def radians(*degrees: float) -> torch.Tensor:
    return torch.deg2rad(torch.tensor([degrees], dtype=torch.float64))


def test_perfect_pose_scores_zero():
    truth = random_angles(50)
    for error in pose_errors(camera.rotation_from_angles(truth), truth).values():
        assert error.shape == (50,)
        assert error.max() < 1e-9


def test_known_values():
    """Each angle to its own name; the mean is of the three."""
    truth = radians(10, -20, 30)
    errors = pose_errors(camera.rotation_from_angles(radians(11, -22, 34)), truth)
    names = ("pose_mae_pitch", "pose_mae_yaw", "pose_mae_roll", "pose_mae")
    assert [errors[name].item() for name in names] == pytest.approx([1, 2, 4, 7 / 3])
    assert set(errors) == {*names, "pose_geodesic"}


def test_angles_wrap():
    """Across +-180 degrees, and for truths written with whole turns more."""
    first, second = radians(179, -179, 700), radians(-179, 179, -700)
    assert wrapped_difference_deg(first, second)[0].tolist() == pytest.approx([2, 2, 40])
    truth = radians(5, 30, 179)
    rotation = camera.rotation_from_angles(radians(5, 30, -179))
    turns = truth + 2 * torch.pi * torch.tensor([[1.0, 0, -2]]).double()
    for angles in (truth, turns):
        errors = pose_errors(rotation, angles)
        assert errors["pose_mae_roll"].item() == pytest.approx(2)
        assert errors["pose_mae_pitch"].item() == pytest.approx(0, abs=1e-9)


def test_geodesic_matches_scipy_and_keeps_small_angles():
    first = Rotation.random(200, random_state=0)
    for size in (1e-9, 1e-4, 1.0, 2.5, np.pi - 1e-6):
        axes = np.random.default_rng(1).normal(size=(200, 3))
        axes *= size / np.linalg.norm(axes, axis=1, keepdims=True)
        second = first * Rotation.from_rotvec(axes)
        found = geodesic_deg(
            torch.from_numpy(first.as_matrix()), torch.from_numpy(second.as_matrix())
        )
        expected = torch.full((200,), np.degrees(size), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-13)


def test_at_the_gimbal_only_the_geodesic_error_means_something():
    """Yaw 89.9 degrees: a turn of half a degree is tens of degrees of pitch and roll."""
    truth = radians(20, 89.9, 20)
    tilted = camera.rotation_from_angles(truth) @ torch.from_numpy(
        Rotation.from_euler("x", 0.5, degrees=True).as_matrix()
    )
    errors = pose_errors(tilted, truth)
    assert errors["pose_geodesic"].item() == pytest.approx(0.5, abs=1e-6)
    assert errors["pose_mae_yaw"] < 1
    assert errors["pose_mae_pitch"] > 20
    assert not kept_by_fix(errors)


def test_truth_of_another_triple_is_the_same_turn():
    """(pitch, yaw, roll) and (pitch + 180, 180 - yaw, roll + 180) are one rotation."""
    truth = radians(10, 40, -5)
    alias = radians(190, 140, 175)
    rotation = camera.rotation_from_angles(truth)
    assert pose_errors(rotation, alias)["pose_geodesic"].item() == pytest.approx(0, abs=1e-6)
    assert pose_errors(rotation, alias)["pose_mae"] > 100
    assert plausible_truth(torch.cat([truth, alias])).tolist() == [True, False]


@pytest.mark.parametrize("moved", [False, True])
def test_pose_of_points_that_are_the_mean_face(face, moved):
    """Exact through the y flip, scale, shift and crop: the convention of the fits."""
    mean = face.morphable_model.mean.double()
    truth = random_angles(20, seed=1)
    ones = torch.ones(20, dtype=torch.float64)
    matrix = camera.image_from_model(
        1.3e-3 * ones, truth, 100 * torch.randn(20, 3).double(), 450 * ones
    )
    if moved:
        crop = camera.crop_from_image(torch.tensor([200.0, 180.0]).double(), 300 * ones[0])
        matrix = crop @ matrix
    rotation = pose_from_points(camera.transform_points(matrix, mean.expand(20, -1, -1)), mean)
    torch.testing.assert_close(rotation, camera.rotation_from_angles(truth), rtol=0, atol=1e-8)
    assert pose_errors(rotation, truth)["pose_mae"].max() < 1e-5


def test_pose_of_points_minds_the_flip_and_the_weights(face):
    mean = face.morphable_model.mean.double()
    truth = radians(5, 35, -10)
    points = mean @ camera.rotation_from_angles(truth)[0].T * torch.tensor([1.0, -1.0, 1.0])
    unflipped = pose_from_points(points[None] * torch.tensor([1.0, -1.0, 1.0]), mean)
    assert pose_errors(unflipped, truth)["pose_geodesic"] > 5
    damaged = points.clone()
    damaged[::3] += 1e5
    weights = torch.ones(1, len(mean), dtype=torch.float64)
    weights[:, ::3] = 0
    assert pose_errors(pose_from_points(damaged[None], mean), truth)["pose_mae"] > 0.5
    weighted = pose_from_points(damaged[None], mean, weights)
    assert pose_errors(weighted, truth)["pose_mae"] < 1e-6


def test_float32_predictions_are_measured_in_float64():
    truth = random_angles(10, seed=2)
    errors = pose_errors(camera.rotation_from_angles(truth).float(), truth.float())
    assert all(error.dtype == torch.float64 for error in errors.values())
    assert errors["pose_geodesic"].max() < 1e-4


def test_plausible_truth_is_closed_at_99_degrees():
    angles = torch.cat([radians(99, -99, 99), radians(0, 99.01, 0), radians(-972, 0, 0)])
    assert plausible_truth(angles).tolist() == [True, False, False]


def test_fix_drops_only_tilts_with_a_good_yaw():
    """SADRNet IV-D: more than 20 in pitch or roll, and less than 5 in yaw."""
    cases = torch.tensor(
        [[20, 0, 20], [20.1, 4.9, 0], [0, 4.9, 20.1], [90, 5, 90], [0, 60, 0]], dtype=torch.float64
    )
    errors = {f"pose_mae_{name}": cases[:, i] for i, name in enumerate(["pitch", "yaw", "roll"])}
    assert kept_by_fix(errors).tolist() == [True, False, False, True, True]


def test_wrong_input_is_refused():
    truth = random_angles(4)
    rotation = camera.rotation_from_angles(truth)
    with pytest.raises(ValueError, match=r"\(4, 3, 3\) and angles \(3, 3\), expected \(B, 3, 3\)"):
        pose_errors(rotation, truth[:3])
    with pytest.raises(ValueError, match=r"rotations \(4, 3\)"):
        pose_errors(truth, truth)
    bad = truth.clone()
    bad[0, 0] = torch.nan
    with pytest.raises(ValueError, match="true angles: holds values that are not finite"):
        pose_errors(rotation, bad)
    with pytest.raises(ValueError, match="predicted rotation: holds values"):
        pose_errors(camera.rotation_from_angles(bad), truth)
