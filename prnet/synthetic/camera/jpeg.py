"""What JPEG does to a picture, batched: every sample at a quality of its own.

Letters: B batch, S side of the square picture, C planes (H, W), N blocks of 8 x 8.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# ITU-T T.81, tables K.1 and K.2.
LUMINANCE_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF 1.02; Cb and Cr are centred on 0. The way back adds this to Y.
YCBCR_FROM_RGB = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
RGB_FROM_CHROMA = ((0.0, 1.402), (-0.344136, -0.714136), (1.772, 0.0))


def compress(image: Tensor, quality: Tensor) -> Tensor:  # (B, 3, S, S), in [0, 1]; (B,), 1 to 100
    """What JPEG at libjpeg's `quality` leaves of a picture, (B, 3, S, S) in [0, 1].

    YCbCr with chroma at half the side (4:2:0), blockwise DCT, the standard's tables, triangle
    filter on the way back; S a multiple of 16.
    """
    size = image.shape[-1]
    from_rgb = image.new_tensor(YCBCR_FROM_RGB) * 255
    # Both are bytes in a JPEG encoder, so at high quality their rounding matters.
    luma = (image * from_rgb[0, :, None, None]).sum(1, keepdim=True).round_() - 128
    luma = _quantised(luma, quantisation_table(LUMINANCE_TABLE, quality)) + 128

    half = image[..., ::2] + image[..., 1::2]
    half = (half[..., ::2, :] + half[..., 1::2, :]) / 4
    chroma = (from_rgb[1:] @ half.flatten(2)).round_().unflatten(-1, (size // 2, size // 2))
    chroma = _quantised(chroma, quantisation_table(CHROMINANCE_TABLE, quality))
    chroma = functional.interpolate(chroma, size=size, mode="bilinear", align_corners=False)
    color = (image.new_tensor(RGB_FROM_CHROMA) @ chroma.flatten(2)).view(image.shape)
    return color.add_(luma).div_(255).clamp_(0, 1)


def quantisation_table(base: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:  # (B,)
    """Steps of the 64 coefficients at libjpeg's quality, (B, 64), row by row."""
    quality = quality.round().clamp(1, 100)[:, None]
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = quality.new_tensor(base).flatten() * percent
    return ((steps + 50) / 100).floor().clamp(1, 255)


def _quantised(planes: Tensor, table: Tensor) -> Tensor:  # (B, C, H, W); (B, 64)
    """Blocks of 8 x 8 to their cosine coefficients, rounded to steps of the table, and back."""
    count, channels, height, width = planes.shape
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8)
    blocks = blocks.transpose(3, 4).reshape(count, -1, 64)  # (B, N, 64)
    transform = _block_transform(planes.device)
    steps = table[:, None]
    coefficients = (blocks @ transform.T).div_(steps).round_().mul_(steps)
    blocks = (coefficients @ transform).view(count, channels, height // 8, width // 8, 8, 8)
    return blocks.transpose(3, 4).reshape(planes.shape)


def _block_transform(device: torch.device) -> Tensor:
    """The orthonormal two-dimensional DCT-II of a block as a matrix, (64, 64)."""
    index = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi * index[:, None] * (2 * index + 1) / 16) / 2  # (8, 8)
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).float().to(device)
