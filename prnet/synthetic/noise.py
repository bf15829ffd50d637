"""Smooth random fields and smooth steps, for textures, backgrounds and what is worn."""

from collections.abc import Sequence

import cv2
import numpy as np
from torch import Tensor


def octave_noise(
    generator: np.random.Generator, size: int, cells: Sequence[int], *, persistence: float = 0.7
) -> np.ndarray:
    """A field of mean 0 and standard deviation 1, (size, size), float32.

    Octave i is white noise on a grid of `cells[i]` cells a side, enlarged smoothly, and
    `persistence` times as strong as the one before.
    """
    field = np.zeros((size, size), np.float32)
    for octave, count in enumerate(cells):
        grid = generator.standard_normal((count, count), dtype=np.float32)
        field += persistence**octave * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    field -= field.mean()
    return field / max(float(field.std()), 1e-6)


def clipped(value: float, low: float, high: float) -> float:
    """`numpy.clip` of one number, a tenth of its time."""
    return min(max(value, low), high)


def smoothstep(
    value: np.ndarray | Tensor,
    low: float | np.ndarray | Tensor,
    high: float | np.ndarray | Tensor,
) -> np.ndarray | Tensor:
    """0 below `low`, 1 above `high`, with level ends; `low` above `high` falls instead."""
    share = ((value - low) / (high - low)).clip(0, 1)
    return share * share * (3 - 2 * share)
