"""What scripts/jitter.py measures, on paths of which it is known."""

import numpy as np
import pytest

from tests.load_script import load_script

FPS = 30.0


@pytest.fixture(scope="module")
def jitter():
    return load_script("jitter")


def path(times: np.ndarray) -> np.ndarray:
    """A face of 100 px whose points wander, (F, 68, 3)."""
    random = np.random.default_rng(0)
    points = random.uniform(0, 100, (68, 3))
    points[0], points[1] = 0, 100
    shift = np.stack([20 * np.sin(2 * times), 10 * np.cos(3 * times), 0 * times], -1)
    return points + shift[:, None]


def test_a_steady_motion_does_not_tremble_and_noise_does(jitter):
    steady = path(np.zeros(50)) + np.arange(50.0)[:, None, None] * [2, -1, 0]
    assert jitter.trembling_of(steady) == pytest.approx(0, abs=1e-9)
    # Second differences of noise have six times its variance; lengths are Rayleigh's.
    noisy = steady + np.random.default_rng(1).normal(0, 0.5, steady.shape)
    expected = np.sqrt(6) * 0.5 * np.sqrt(np.pi / 2)
    assert jitter.trembling_of(noisy) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("lag_ms", [0.0, 10.0, 50.0])
def test_a_delay_is_found_beside_a_constant_offset(jitter, lag_ms):
    times = np.arange(180) / FPS
    found = jitter.measured(path(times - lag_ms / 1000) + [3.0, -2.0, 0.0], path(times))
    assert found.lag_ms == pytest.approx(lag_ms, abs=1.5)
    if lag_ms == 0:
        assert found.error == pytest.approx(np.hypot(3, 2), rel=1e-6)


def test_made_heads_move_smoothly(jitter):
    names = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight")
    first = jitter.SyntheticFaces(
        jitter.SyntheticRule.from_values(jitter.shipped_dataset("synthetic")).world, size=32
    ).parameters(0)
    times = np.arange(0, 6, 1 / FPS)
    poses = np.array([jitter.moved(first, time_s, names).pose for time_s in times])
    assert np.abs(np.diff(poses, 2, axis=0)).max() < np.radians(0.4)
    assert np.degrees(poses[:, 0]).max() == pytest.approx(35, abs=0.5)
