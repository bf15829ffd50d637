"""Bases in fixed point."""

import numpy as np
import pytest

from prnet.geometry.decoding import BLOCK, FixedPoint


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
