"""Round blur on a CPU: the transfer function of `film` as two passes of a few taps.

Letters: S side of the picture, R reach of the blur.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

# Taps beyond this much of the blur's weight are left out.
TAIL = 5e-4


def blur_cpu(
    image: Tensor,  # (3, S, S), not written to
    variance: float,  # of the blur, px^2
    sharpening: float,  # gain of the detail finer than `detail`
    detail: float,  # variance, px^2
    border: int,  # the picture is mirrored so far, and R no larger
) -> Tensor:
    """The picture times G(f) (1 + a (1 - g(f))) for Gaussians G and g, (3, S, S).

    Gaussians are products of functions of x and of y, so each of the two terms (1 + a) G and a G g
    is a pass along the rows and one along the columns.
    """
    planes, side = image.numpy(), image.shape[-1] + 2 * border
    blurred = _filtered(planes, _taps(variance, side, border))
    if sharpening > 0:
        coarse = _filtered(planes, _taps(variance + detail, side, border))
        blurred += np.float32(sharpening) * (blurred - coarse)
    return torch.from_numpy(blurred)


def _taps(variance: float, side: int, border: int) -> np.ndarray:
    """Weights of a blur of the Gaussian transfer function, (2 R + 1,), that sum to 1."""
    decay = -2 * math.pi**2 * variance * np.fft.rfftfreq(side) ** 2
    half = np.fft.irfft(np.exp(decay), side)[: border + 1]
    beyond = np.abs(half)[::-1].cumsum()[::-1]  # weight from each tap on
    half = half[: max(1, int((beyond > TAIL).sum()))]
    taps = np.concatenate([half[:0:-1], half])
    return taps / taps.sum()


def _filtered(planes: np.ndarray, taps: np.ndarray) -> np.ndarray:  # (3, S, S); (2 R + 1,)
    border = cv2.BORDER_REFLECT_101
    return np.stack([cv2.sepFilter2D(p, cv2.CV_32F, taps, taps, borderType=border) for p in planes])
