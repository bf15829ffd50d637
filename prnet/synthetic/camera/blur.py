"""Round blur: the transfer function of `lens.transferred` as two passes of a few taps.

Letters: S side of the picture, R reach of the blur.
"""

import math

import numpy as np
from torch import Tensor

from prnet.geometry.compiled import cached, inlined

# Taps beyond this much of the blur's weight are left out.
TAIL = 5e-4
RELAXED = {"contract", "nsz"}


def blur(
    image: Tensor,  # (3, S, S), not written to
    variance: float,  # of the blur, px^2
    sharpening: float,  # gain of the detail finer than `detail`
    detail: float,  # variance, px^2
    border: int,  # the picture is mirrored so far, and R no larger
    blurred: Tensor,  # (3, S, S), zeros; written
) -> None:
    """The picture times G(f) (1 + a (1 - g(f))) for Gaussians G and g.

    Gaussians are products of functions of x and of y, so each of the two terms (1 + a) G and a G g
    is a pass along the columns and one along the rows.
    """
    side = image.shape[-1] + 2 * border
    _add_blurred(
        image.numpy(), _taps(variance, side, border), np.float32(1 + sharpening), blurred.numpy()
    )
    if sharpening > 0:
        taps = _taps(variance + detail, side, border)
        _add_blurred(image.numpy(), taps, np.float32(-sharpening), blurred.numpy())


def _taps(variance: float, side: int, border: int) -> np.ndarray:
    """Weights of a blur of the Gaussian transfer function from its middle on, (R + 1,) float32;
    with both sides they sum to 1."""
    decay = -2 * math.pi**2 * variance * np.fft.rfftfreq(side) ** 2
    half = np.fft.irfft(np.exp(decay), side)[: border + 1]
    beyond = np.abs(half)[::-1].cumsum()[::-1]  # weight from each tap on
    half = half[: max(1, int((beyond > TAIL).sum()))]
    return (half / (2 * half.sum() - half[0])).astype(np.float32)


@cached(fastmath=RELAXED)
def _add_blurred(
    image: np.ndarray,  # (3, S, S)
    taps: np.ndarray,  # (R + 1,)
    gain: float,
    total: np.ndarray,  # (3, S, S), written
) -> None:
    """Add the blurred picture times a factor; it is mirrored about its outermost pixels."""
    size, reach = image.shape[1], len(taps) - 1
    room = np.zeros(size + 2 * reach, np.float32)
    middle, result = room[reach : reach + size], np.zeros(size, np.float32)
    for channel in range(3):
        for row in range(size):
            _start(image[channel, row], taps[0], middle)
            for tap in range(1, reach + 1):
                above, below = abs(row - tap), size - 1 - abs(size - 1 - row - tap)
                _accumulate(image[channel, above], image[channel, below], taps[tap], middle)
            for tap in range(1, reach + 1):
                room[reach - tap] = middle[tap]
                room[reach + size - 1 + tap] = middle[size - 1 - tap]
            _start(middle, taps[0], result)
            for tap in range(1, reach + 1):
                before, behind = room[reach - tap :], room[reach + tap :]
                _accumulate(before, behind, taps[tap], result)
            for column in range(size):
                total[channel, row, column] += gain * result[column]


@inlined(forceinline=True, error_model="numpy", fastmath=RELAXED)
def _start(values: np.ndarray, weight: float, total: np.ndarray) -> None:
    for place in range(len(total)):
        total[place] = weight * values[place]


@inlined(forceinline=True, error_model="numpy", fastmath=RELAXED)
def _accumulate(one: np.ndarray, other: np.ndarray, weight: float, total: np.ndarray) -> None:
    for place in range(len(total)):
        total[place] += weight * (one[place] + other[place])
