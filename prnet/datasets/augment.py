"""Augmentation of PRN section 3.3, batched on the device.

Only the similarity is drawn here; picture and position map are both made through it afterwards, so
neither is resampled twice and the map stays exact, also where the face leaves the frame.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.warp import make_sample
from prnet.geometry.position_map import PositionMapDecoder
from prnet.sample import FaceSample, FitBatch

NOISE_OCTAVES = (4, 16, 64)


class AugmentRule(NamedTuple):
    """Ranges to draw from. The defaults are PRN section 3.3; the paper gives no rate for
    occlusion."""

    rotation_deg: float = 45.0  # uniform in +-
    translation: float = 0.1  # uniform in +-, of the input size, each axis
    scale: tuple[float, float] = (0.9, 1.2)  # uniform
    color: tuple[float, float] = (0.6, 1.4)  # gain of each channel, uniform
    occlusion: float = 0.5  # probability of noise texture over part of the image
    occlusion_size: tuple[float, float] = (0.1, 0.5)  # sides of the patch, of the input size
    mirror: float = 0.0  # probability of a horizontal flip: 0.5 for sets without _Flip twins


def draw_similarity(
    count: int,
    rule: AugmentRule,
    generator: torch.Generator,
    *,
    size: int = CROP_SIZE,
) -> tuple[Tensor, Tensor]:
    """Random motions of the crop plane, (B, 4, 4), and which of them mirror x, (B,) bool.

    Rotation and scale are about the centre of the crop; scale applies to depth too, rotation and
    translation leave it (position maps of a face nearer to the camera, not elsewhere in depth).
    """
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    angle = uniform(-rule.rotation_deg, rule.rotation_deg) * (math.pi / 180)
    scale = uniform(*rule.scale)
    shift_x, shift_y = (uniform(-rule.translation, rule.translation) * size for _ in range(2))
    mirrored = torch.rand(count, generator=generator, device=device) < rule.mirror

    center = (size - 1) / 2
    sign = torch.where(mirrored, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    matrix = torch.zeros(count, 4, 4, device=device)
    # Mirror first, then rotate and scale: x' = cos s (x - c) - sin (y - c) + c + shift.
    matrix[:, 0, 0], matrix[:, 0, 1] = cos * sign, -sin
    matrix[:, 1, 0], matrix[:, 1, 1] = sin * sign, cos
    matrix[:, 2, 2] = scale
    matrix[:, 0, 3] = center + shift_x - center * (cos * sign - sin)
    matrix[:, 1, 3] = center + shift_y - center * (sin * sign + cos)
    matrix[:, 3, 3] = 1
    return matrix, mirrored


def scale_channels(
    image: Tensor,  # (B, 3, H, W), in [0, 1]
    gains: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Each colour channel times its own uniform gain, clipped to [0, 1]."""
    low, high = gains
    gain = torch.rand(len(image), 3, 1, 1, generator=generator, device=image.device)
    return (image * (low + (high - low) * gain)).clamp(0, 1)


def noise_texture(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Coloured noise of several octaves, (count, 3, size, size) in [0, 1]."""
    texture = torch.zeros(count, 3, size, size, device=generator.device)
    for cells in NOISE_OCTAVES:
        noise = torch.rand(count, 3, cells, cells, generator=generator, device=generator.device)
        texture += functional.interpolate(noise, size=size, mode="bilinear", align_corners=False)
    return texture / len(NOISE_OCTAVES)


def occlude(
    image: Tensor,  # (B, 3, H, W), in [0, 1]
    rule: AugmentRule,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Cover part of some images with noise texture (PRN section 3.3).

    An occluder is a rotated ellipse or rectangle with a wavy outline, anywhere over the image.

    Returns:
        The images, and which pixels are covered, (B, H, W) bool.
    """
    count, _, size, _ = image.shape
    device = image.device

    def uniform(low: float, high: float) -> Tensor:
        draw = torch.rand(count, 1, 1, generator=generator, device=device)
        return low + (high - low) * draw

    axis = torch.linspace(-0.5, 0.5, size, device=device)
    x = axis[None, None, :] - uniform(-0.5, 0.5)
    y = axis[None, :, None] - uniform(-0.5, 0.5)
    angle = uniform(0, math.pi)
    along = x * angle.cos() + y * angle.sin()
    across = y * angle.cos() - x * angle.sin()
    along = along + 0.04 * torch.sin(across * 30 + uniform(0, 2 * math.pi))
    along = along.abs() / (uniform(*rule.occlusion_size) / 2)
    across = across.abs() / (uniform(*rule.occlusion_size) / 2)
    ellipse = uniform(0, 1) < 0.5
    inside = torch.where(ellipse, along**2 + across**2 < 1, torch.maximum(along, across) < 1)
    covered = inside & (uniform(0, 1) < rule.occlusion)
    chosen = covered.flatten(1).any(1).nonzero().squeeze(1)
    occluded = image.clone()
    texture = noise_texture(len(chosen), size, generator)
    occluded[chosen] = torch.where(covered[chosen, None], texture, image[chosen])
    return occluded, covered


def augment(
    batch: FitBatch,
    decoder: PositionMapDecoder,
    rule: AugmentRule,
    generator: torch.Generator,
    *,
    targets: Collection[str] = ("position_map",),  # fields of `FaceSample`
) -> FaceSample:
    """One training batch: image and targets through the same random similarity, then colour and
    occlusion."""
    moved, mirrored = draw_similarity(len(batch.picture), rule, generator)
    sample = make_sample(batch, decoder, targets=targets, moved=moved, mirrored=mirrored)
    image = scale_channels(sample.image, rule.color, generator)
    image, _ = occlude(image, rule, generator)
    return sample._replace(image=image)
