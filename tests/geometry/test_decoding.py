"""Bases in fixed point, and the sums of many faces."""

import numpy as np
import pytest

from prnet.geometry.decoding import BLOCK, NEAR, FixedPoint, weighed_bases


@pytest.mark.parametrize("count", [1, 8, 19])
def test_fixed_point_is_as_exact_as_it_says(count):
    """Every displacement to 2^-16 of the largest of its basis and block, whatever the basis' unit;
    a basis of zeros moves nothing."""
    random = np.random.default_rng(0)
    scales = 10.0 ** random.integers(-3, 5, (count, 1))
    basis = (random.normal(size=(count, BLOCK + 7)) * scales).astype(np.float32)
    basis[count // 2] = 0
    coefficients = (random.normal(size=(2, count)) / scales.T).astype(np.float32)
    basis[:, BLOCK:] *= 100
    got = FixedPoint.of(basis).weighed(coefficients)
    error = np.abs(got - coefficients.astype(float) @ basis)
    for block in (slice(0, BLOCK), slice(BLOCK, None)):
        bound = np.abs(coefficients) @ (np.abs(basis[:, block]).max(1) / 2**16)
        assert (error[:, block].max(1) <= bound * 1.01).all()


@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_a_face_of_many_is_the_same_in_any_batch(count):
    """To the bit, whatever stands beside it and wherever it stands; and to rounding what it is."""
    random = np.random.default_rng(1)
    mean, basis, coefficients = (
        random.normal(size=shape).astype(np.float32)
        for shape in (2 * NEAR + 3, (count, 2 * NEAR + 3), (7, count))
    )
    together = weighed_bases(mean, basis, coefficients)
    exact = mean + coefficients.astype(float) @ basis
    np.testing.assert_allclose(together, exact, atol=1e-5)
    for order in ([3], [6, 0], [2, 5, 1, 0, 3], [6, 5, 4, 3, 2, 1, 0]):
        np.testing.assert_array_equal(
            weighed_bases(mean, basis, coefficients[order]), together[order]
        )
