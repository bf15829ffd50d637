"""The mathematics of strips of pixels."""

import numpy as np

from prnet.synthetic.render.strips import F, compiled, exp, sin, smooth


@compiled
def tabulated(values: np.ndarray) -> np.ndarray:  # (N,), float32
    results = np.zeros((3, len(values)), np.float32)
    for place in range(len(values)):
        results[0, place] = exp(values[place])
        results[1, place] = sin(values[place])
        results[2, place] = smooth(values[place], F(-1), F(3))
    return results


def test_functions_agree_with_numpy() -> None:
    values = np.linspace(-80, 80, 40_001, dtype=np.float32)
    got = tabulated(values).astype(np.float64)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(got[0], np.exp(exact), rtol=1e-5)
    np.testing.assert_allclose(got[1], np.sin(exact), atol=1e-5)
    share = np.clip((exact + 1) / 4, 0, 1)
    np.testing.assert_allclose(got[2], share * share * (3 - 2 * share), atol=1e-6)


def test_exponentials_far_out_are_zero_and_finite() -> None:
    far = tabulated(np.array([-1e6, -200, 200, 1e6], np.float32))[0]
    assert far[:2].max() < 1e-37
    assert np.isfinite(far).all()
    assert far[2:].min() > 1e37
