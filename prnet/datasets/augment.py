"""Augmentation of PRN section 3.3 and SADRNet section III-E, and the film of poorer cameras,
batched on the device.

Only the similarity is drawn here; picture and position map are both made through it afterwards, so
neither is resampled twice and the map stays exact, also where the face leaves the frame.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from prnet.checks import require_choice
from prnet.datasets.attention_target import ATTENTIONS
from prnet.datasets.occluders import NOISE_SIDES, draw_cover
from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.warp import make_sample
from prnet.geometry.position_map import PositionMapDecoder
from prnet.sample import FaceSample, FitBatch

# Half a grey level: darker values are raised to it before they are exponentiated.
DARKEST = 1 / 512


class AugmentRule(NamedTuple):
    """Ranges to draw from. The defaults are PRN section 3.3; the paper gives no rate for
    occlusion."""

    rotation_deg: float = 45.0  # uniform in +-
    rotation_probability: float = 1.0
    translation: float = 0.1  # uniform in +-, of the input size, each axis
    scale: tuple[float, float] = (0.9, 1.2)  # uniform
    color: tuple[float, float] = (0.6, 1.4)  # gain of each channel, uniform
    color_probability: float = 1.0
    color_clip: bool = True  # to [0, 1]; False: bright pixels stay brighter than white
    color_last: bool = False  # over the occluders too
    exposure: tuple[float, float] = (1.0, 1.0)  # gain of all channels together, log-uniform
    gamma: tuple[float, float] = (1.0, 1.0)  # exponent, log-uniform
    contrast: tuple[float, float] = (1.0, 1.0)  # gain about the image's mean, log-uniform
    grey: float = 0.0  # probability of no colour
    blur: float = 0.0  # probability of fewer px than the crop has
    blur_side: tuple[int, int] = (64, 200)  # px that the crop then has, uniform
    noise: float = 0.0  # largest standard deviation of Gaussian noise, of white
    occlusion: float = 0.5  # probability of occluders over part of the image
    occluder: str = "noise"  # one of `prnet.datasets.occluders.OCCLUDERS`
    occlusion_size: tuple[float, float] = NOISE_SIDES  # sides of noise, of the input size
    mirror: float = 0.0  # probability of a horizontal flip: 0.5 for sets without _Flip twins
    attention: str = "silhouette"  # one of `prnet.datasets.attention_target.ATTENTIONS`


def draw_similarity(
    count: int, rule: AugmentRule, generator: torch.Generator
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
    shift_x, shift_y = (uniform(-rule.translation, rule.translation) * CROP_SIZE for _ in range(2))
    mirrored = torch.rand(count, generator=generator, device=device) < rule.mirror
    if rule.rotation_probability < 1:
        angle = angle * (uniform(0, 1) < rule.rotation_probability)

    center = (CROP_SIZE - 1) / 2
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
    *,
    probability: float = 1.0,
    clip: bool = True,
) -> Tensor:
    """In some images, each colour channel times its own uniform gain, clipped to [0, 1]."""
    low, high = gains
    gain = torch.rand(len(image), 3, 1, 1, generator=generator, device=image.device)
    gain = low + (high - low) * gain
    if probability < 1:
        chosen = torch.rand(len(image), 1, 1, 1, generator=generator, device=image.device)
        gain = torch.where(chosen < probability, gain, 1.0)
    image = image * gain
    return image.clamp(0, 1) if clip else image


def blurred(
    image: Tensor,  # (B, 3, H, W), in [0, 1]
    sides: tuple[int, int],
    generator: torch.Generator,
    *,
    probability: float,
) -> Tensor:
    """Some of the images with the detail of fewer px; of how many is drawn once a batch."""
    device, full = image.device, image.shape[-1]
    low, high = sides
    share = torch.rand((), generator=generator, device=device).item()
    side = min(full, low + round((high - low) * share))
    small = functional.interpolate(image, size=side, mode="area")
    soft = functional.interpolate(small, size=full, mode="bilinear", align_corners=False)
    chosen = torch.rand(len(image), 1, 1, 1, generator=generator, device=device)
    return torch.where(chosen < probability, soft, image)


def developed(
    image: Tensor,  # (B, 3, H, W), in [0, 1]
    rule: AugmentRule,
    generator: torch.Generator,
) -> Tensor:
    """Exposure, gamma, contrast, no colour and noise as the rule says; what it leaves out draws
    nothing."""
    device = image.device

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(image), 1, 1, 1, generator=generator, device=device)
        return low + (high - low) * drawn

    def log_uniform(limits: tuple[float, float]) -> Tensor:
        return uniform(math.log(limits[0]), math.log(limits[1])).exp()

    if tuple(rule.gamma) != (1, 1):
        image = image.clamp(min=DARKEST) ** log_uniform(rule.gamma)
    if tuple(rule.exposure) != (1, 1):
        image = (image * log_uniform(rule.exposure)).clamp(0, 1)
    if tuple(rule.contrast) != (1, 1):
        mean = image.mean((1, 2, 3), keepdim=True)
        image = (mean + (image - mean) * log_uniform(rule.contrast)).clamp(0, 1)
    if rule.grey:
        image = torch.where(uniform(0, 1) < rule.grey, image.mean(1, keepdim=True), image)
    if rule.noise:
        # Most pictures are nearly clean: the cube of a uniform number.
        grain = torch.randn(image.shape, generator=generator, device=device)
        image = (image + rule.noise * uniform(0, 1) ** 3 * grain).clamp(0, 1)
    return image


def augment(
    batch: FitBatch,
    decoder: PositionMapDecoder,
    rule: AugmentRule,
    generator: torch.Generator,
    *,
    targets: Collection[str] = ("position_map",),  # fields of `FaceSample`
) -> FaceSample:
    """One training batch: image and targets through the same random similarity, then colour and
    occluders; attention is what the occluders leave of it.

    Raises:
        ValueError: no such occluder or attention.
    """
    require_choice("augment.attention", rule.attention, ATTENTIONS)
    moved, mirrored = draw_similarity(len(batch.picture), rule, generator)

    def colored(image: Tensor) -> Tensor:
        settings = {"probability": rule.color_probability, "clip": rule.color_clip}
        return scale_channels(image, rule.color, generator, **settings)

    def disturb(image: Tensor) -> tuple[Tensor, Tensor]:
        if rule.blur:
            image = blurred(image, rule.blur_side, generator, probability=rule.blur)
        if not rule.color_last:
            image = colored(image)
        image = developed(image, rule, generator)
        cover = draw_cover(
            rule.occluder,
            len(image),
            image.shape[-1],
            generator,
            probability=rule.occlusion,
            noise_sides=rule.occlusion_size,
        )
        image = cover.over(image)
        return colored(image) if rule.color_last else image, cover.hides

    return make_sample(
        batch,
        decoder,
        targets=targets,
        moved=moved,
        mirrored=mirrored,
        disturb=disturb,
        attention=rule.attention,
    )
