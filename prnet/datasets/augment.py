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

from prnet.checks import require_choice
from prnet.datasets.attention_target import ATTENTIONS
from prnet.datasets.occluders import (
    NOISE_SIDES,
    OCCLUDERS,
    CoverNumbers,
    covered,
    draw_cover_numbers,
)
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


def require_rule(rule: AugmentRule) -> None:
    """Raise ValueError unless its occluder and its attention are there to be chosen."""
    require_choice("augment.attention", rule.attention, ATTENTIONS)
    require_choice("augment.occluder", rule.occluder, OCCLUDERS)


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
    # Mirror first, then rotate and scale: x' = cos s (x - c) - sin (y - c) + c + shift.
    to_x = center + shift_x - center * (cos * sign - sin)
    to_y = center + shift_y - center * (sin * sign + cos)
    none, one = torch.zeros_like(scale), torch.ones_like(scale)
    rows = [cos * sign, -sin, none, to_x, sin * sign, cos, none, to_y]
    rows += [none, none, scale, none, none, none, none, one]
    return torch.stack(rows, 1).unflatten(1, (4, 4)), mirrored


def reach_of(rule: AugmentRule) -> float:
    """How far from the middle of the crop, along x and y, what an image shows can have been, crop
    px."""
    angle = math.radians(min(abs(rule.rotation_deg), 45.0))
    side = (CROP_SIZE - 1) / 2 + rule.translation * CROP_SIZE
    return side * (math.cos(angle) + math.sin(angle)) / rule.scale[0]


class Film(NamedTuple):
    """What `developed` does to every image; None: nothing."""

    gamma: Tensor | None = None  # (B, 1, 1, 1), exponents
    exposure: Tensor | None = None  # (B, 1, 1, 1), gains
    contrast: Tensor | None = None  # (B, 1, 1, 1), gains about the mean
    grey: Tensor | None = None  # (B, 1, 1, 1), bool
    grain: Tensor | None = None  # (B, 3, H, W), of white


class Draws(NamedTuple):
    """All random numbers of one batch's augmentation: `augmented` draws none, reads none back from
    the device and has the shapes of every other batch."""

    moved: Tensor  # (B, 4, 4), of `draw_similarity`
    mirrored: Tensor  # (B,), bool
    softening: Tensor | None  # (H, H), of `softening_to`; None: no image is blurred
    soft: Tensor | None  # (B, 1, 1, 1), bool: blurred
    gain: Tensor  # (B, 3, 1, 1), of the colour channels
    film: Film
    cover: CoverNumbers | None  # None: no image has an occluder


def draw(count: int, size: int, rule: AugmentRule, generator: torch.Generator) -> Draws:
    """Of `count` images of `size` px, on the generator's device; what the rule leaves out draws
    nothing.

    Raises:
        ValueError: no such occluder.
    """
    moved, mirrored = draw_similarity(count, rule, generator)
    softening, soft = draw_blur(count, size, rule, generator) if rule.blur else (None, None)
    gain = None if rule.color_last else draw_gain(count, rule, generator)
    film = draw_film(count, size, rule, generator)
    cover = draw_cover_numbers(rule.occluder, count, generator) if rule.occlusion else None
    if gain is None:
        gain = draw_gain(count, rule, generator)
    return Draws(moved, mirrored, softening, soft, gain, film, cover)


def draw_gain(count: int, rule: AugmentRule, generator: torch.Generator) -> Tensor:
    """In some images every colour channel's own uniform gain, else 1, (B, 3, 1, 1)."""
    options = {"generator": generator, "device": generator.device}
    low, high = rule.color
    gain = low + (high - low) * torch.rand(count, 3, 1, 1, **options)
    if rule.color_probability < 1:
        chosen = torch.rand(count, 1, 1, 1, **options)
        gain = torch.where(chosen < rule.color_probability, gain, 1.0)
    return gain


def draw_blur(
    count: int, size: int, rule: AugmentRule, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """To how many px blurred images are softened, one number a batch, as `softening_to` has it, and
    which these are, (B, 1, 1, 1) bool."""
    options = {"generator": generator, "device": generator.device}
    low, high = rule.blur_side
    share = torch.rand((), **options).double()
    side = (low + (share * (high - low)).round()).clamp(max=size)
    chosen = torch.rand(count, 1, 1, 1, **options)
    return softening_to(side, size), chosen < rule.blur


def softening_to(side: Tensor, size: int) -> Tensor:  # scalar, float64, whole
    """What a row or column of `size` px becomes that is averaged down to `side` px and enlarged
    again linearly, as a matrix (size, size): whatever the side, it has this shape."""
    row = torch.arange(size, dtype=torch.float64, device=side.device)[:, None]
    column = row.T
    start, end = (row * size / side).floor(), ((row + 1) * size / side).ceil()
    averaged = ((start <= column) & (column < end) & (row < side)) / (end - start)
    place = ((row + 0.5) * side / size - 0.5).clamp(min=0)
    first = place.floor()
    second = torch.minimum(first + 1, side - 1)
    share = place - first
    enlarged = (1 - share) * (column == first) + share * (column == second)
    return (enlarged @ averaged).float()


def draw_film(count: int, size: int, rule: AugmentRule, generator: torch.Generator) -> Film:
    """Exposure, gamma, contrast, no colour and noise as the rule says."""
    options = {"generator": generator, "device": generator.device}

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, **options)

    def log_uniform(limits: tuple[float, float]) -> Tensor | None:
        if tuple(limits) == (1, 1):
            return None
        return uniform(math.log(limits[0]), math.log(limits[1])).exp()

    film = Film(log_uniform(rule.gamma), log_uniform(rule.exposure), log_uniform(rule.contrast))
    if rule.grey:
        film = film._replace(grey=uniform(0, 1) < rule.grey)
    if rule.noise:
        # Most pictures are nearly clean: the cube of a uniform number.
        grain = torch.randn(count, 3, size, size, **options)
        film = film._replace(grain=rule.noise * uniform(0, 1) ** 3 * grain)
    return film


def developed(image: Tensor, film: Film) -> Tensor:  # (B, 3, H, W), in [0, 1]
    """The images as another camera would have them, in [0, 1]."""
    if film.gamma is not None:
        image = image.clamp(min=DARKEST) ** film.gamma
    if film.exposure is not None:
        image = (image * film.exposure).clamp(0, 1)
    if film.contrast is not None:
        mean = image.mean((1, 2, 3), keepdim=True)
        image = (mean + (image - mean) * film.contrast).clamp(0, 1)
    if film.grey is not None:
        image = torch.where(film.grey, image.mean(1, keepdim=True), image)
    if film.grain is not None:
        image = (image + film.grain).clamp(0, 1)
    return image


def augment(
    batch: FitBatch,
    decoder: PositionMapDecoder,
    rule: AugmentRule,
    generator: torch.Generator,
    *,
    targets: Collection[str] = ("position_map",),  # fields of `FaceSample`
) -> FaceSample:
    """`augmented` by numbers of the generator.

    Raises:
        ValueError: no such occluder or attention.
    """
    require_rule(rule)
    draws = draw(len(batch.picture), CROP_SIZE, rule, generator)
    return augmented(batch, decoder, rule, draws, targets=targets)


def augmented(
    batch: FitBatch,
    decoder: PositionMapDecoder,
    rule: AugmentRule,
    draws: Draws,
    *,
    targets: Collection[str] = ("position_map",),  # fields of `FaceSample`
) -> FaceSample:
    """One training batch: image and targets through the same random similarity, then colour and
    occluders; attention is what the occluders leave of it."""

    def colored(image: Tensor) -> Tensor:
        # In place: the image is ours, and new memory takes longer than the product.
        image = image.mul_(draws.gain)
        return image.clamp_(0, 1) if rule.color_clip else image

    def disturb(image: Tensor) -> tuple[Tensor, Tensor | None]:
        if draws.soft is not None:
            soft = draws.softening @ image @ draws.softening.T
            image = torch.where(draws.soft, soft, image)
        if not rule.color_last:
            image = colored(image)
        image = developed(image, draws.film)
        hides = None
        if draws.cover is not None:
            settings = {"probability": rule.occlusion, "noise_sides": rule.occlusion_size}
            image, hides = covered(image, rule.occluder, draws.cover, **settings)
        return colored(image) if rule.color_last else image, hides

    return make_sample(
        batch,
        decoder,
        targets=targets,
        moved=draws.moved,
        mirrored=draws.mirrored,
        disturb=disturb,
        attention=rule.attention,
    )
