"""Linear light and sRGB (IEC 61966-2-1), values in [0, 1]."""

import cv2
import numpy as np
import torch
from torch import Tensor


def srgb_encode(linear: Tensor) -> Tensor:
    """sRGB from linear light."""
    return torch.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-4) ** (1 / 2.4) - 0.055
    )


def linear_from_srgb(encoded: Tensor) -> Tensor:
    """Linear light from sRGB."""
    curve = ((encoded + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, encoded / 12.92, curve)


def linear_from_bytes(picture: np.ndarray) -> Tensor:  # (H, W, 3) uint8, sRGB
    """Linear light, (3, H, W)."""
    table = linear_from_srgb(torch.arange(256) / 255).numpy()
    return torch.from_numpy(cv2.LUT(picture, table)).permute(2, 0, 1)
