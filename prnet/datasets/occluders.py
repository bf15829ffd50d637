"""Occluders laid over images: PRN's noise texture and SADRNet's random shapes, batched on the
device.

Letters: B batch, S side of the image.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from prnet.checks import require_choice
from prnet.geometry.compiled import in_memory

OCCLUDERS = ("noise", "sadrnet")
# Sides of PRN's patches, share of the image; not in the paper.
NOISE_SIDES = (0.1, 0.5)
NOISE_OCTAVES = (4, 16, 64)

# Centre, angle, phase of the outline, both sides, which shape, and whether there is one.
NOISE_NUMBERS = 8

# SADRNet's released occluders. One uniform number an image: from the first bound on there is a
# second occluder, from the second on a third.
COUNT_BOUNDS = (3 / 15, 8 / 15)
# Of each of the three: area, aspect, left, top, the wave's four, filling, and its colour.
SHAPE_NUMBERS = 12
# Which of an image's numbers says whether it has an occluder.
HAS_ONE = {"noise": NOISE_NUMBERS - 1, "sadrnet": 0}
AREA = (0.02, 0.3)  # share of the image
ASPECT = (0.3, 1 / 0.3)  # height over width
WAVE = 0.08  # at most: amplitudes of the outline, share of the side, and radians a px
GREY_SHARE, CONSTANT_SHARE = 0.25, 0.8125  # one grey; that or one colour; the rest are tints


class Cover(NamedTuple):
    """What lies over a batch of images: image -> gain image + paint."""

    gain: Tensor  # (B, 1 or 3, S, S)
    paint: Tensor  # (B, 3, S, S)
    hides: Tensor  # (B, S, S), bool: nothing of the face is seen there

    def over(self, image: Tensor) -> Tensor:  # (B, 3, S, S), in [0, 1]
        """The images with the occluders, (B, 3, S, S) in [0, 1]."""
        return image * self.gain + self.paint


class CoverNumbers(NamedTuple):
    """The random numbers behind a `Cover`, those of every image whether it has an occluder or not:
    how many there are depends on no number drawn. Uniform in [0, 1)."""

    each: Tensor  # (R, B), R as many as the occluder takes an image
    textures: tuple[Tensor, ...] = ()  # of noise, an octave each, (B, 3, c, c)


def draw_cover_numbers(occluder: str, count: int, generator: torch.Generator) -> CoverNumbers:
    """Those of `count` images, on the generator's device.

    Raises:
        ValueError: `occluder` is none of `OCCLUDERS`.
    """
    require_choice("occluder", occluder, OCCLUDERS)
    options = {"generator": generator, "device": generator.device}
    if occluder == "sadrnet":
        each = 2 + (1 + len(COUNT_BOUNDS)) * SHAPE_NUMBERS
        return CoverNumbers(torch.rand(each, count, **options))
    each = torch.rand(NOISE_NUMBERS, count, **options)
    return CoverNumbers(each, tuple(torch.rand(count, 3, c, c, **options) for c in NOISE_OCTAVES))


def covered(
    image: Tensor,  # (B, 3, S, S), in [0, 1]; may be written
    occluder: str,
    numbers: CoverNumbers,
    *,
    probability: float,
    noise_sides: tuple[float, float] = NOISE_SIDES,
) -> tuple[Tensor, Tensor]:
    """The images with the occluders of their numbers, and which pixels they hide, (B, S, S) bool.

    In memory only those are looked at that have one; elsewhere all, since how many there are
    depends on no number drawn.
    """
    settings = {"probability": probability, "noise_sides": noise_sides}
    if not in_memory(image):
        cover = cover_of(occluder, numbers, image.shape[-1], **settings)
        return cover.over(image), cover.hides
    have_one = numbers.each[HAS_ONE[occluder]] < probability
    some = have_one.nonzero().squeeze(1)
    own = CoverNumbers(numbers.each[:, some], tuple(one[some] for one in numbers.textures))
    cover = cover_of(occluder, own, image.shape[-1], **settings)
    hides = torch.zeros_like(image[:, 0], dtype=torch.bool)
    image[some], hides[some] = cover.over(image[some]), cover.hides
    return image, hides


def cover_of(
    occluder: str,
    numbers: CoverNumbers,
    size: int,
    *,
    probability: float,
    noise_sides: tuple[float, float] = NOISE_SIDES,
) -> Cover:
    """Occluders for some of the images, of the numbers drawn for all."""
    if occluder == "noise":
        return noise_cover(numbers, size, probability=probability, sides=noise_sides)
    return shape_cover(numbers, size, probability=probability)


def draw_cover(
    occluder: str,
    count: int,
    size: int,
    generator: torch.Generator,
    *,
    probability: float,
    noise_sides: tuple[float, float] = NOISE_SIDES,
) -> Cover:
    """Occluders for some of `count` images, on the generator's device.

    Raises:
        ValueError: `occluder` is none of `OCCLUDERS`.
    """
    numbers = draw_cover_numbers(occluder, count, generator)
    settings = {"probability": probability, "noise_sides": noise_sides}
    return cover_of(occluder, numbers, size, **settings)


def noise_texture(octaves: Sequence[Tensor], size: int) -> Tensor:  # (B, 3, c, c) each
    """Coloured noise of several octaves, enlarged bilinearly, (B, 3, S, S) in [0, 1]."""
    # Enlarging is linear along either axis, so all octaves are two products of matrices: on a CPU
    # five times as fast as one interpolation after the other.
    enlarge = [_enlarging(octave.shape[-1], size, octave) / len(octaves) for octave in octaves]
    rows = [octave @ matrix.T for octave, matrix in zip(octaves, enlarge, strict=True)]
    return len(octaves) * torch.cat(enlarge, 1) @ torch.cat(rows, 2)


def _enlarging(cells: int, size: int, like: Tensor) -> Tensor:
    """`size` samples of a piecewise linear function of so many cells, (S, c)."""
    cell = torch.eye(cells, dtype=like.dtype, device=like.device)
    return functional.interpolate(cell[None], size=size, mode="linear", align_corners=False)[0].T


def noise_cover(
    numbers: CoverNumbers,
    size: int,
    *,
    probability: float,
    sides: tuple[float, float] = NOISE_SIDES,  # of the patch, share of the image
) -> Cover:
    """Noise texture over part of some images (PRN section 3.3): on each a rotated ellipse or
    rectangle with a wavy outline, centred anywhere on the image."""
    drawn = iter(numbers.each[..., None, None])  # (B, 1, 1) each

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * next(drawn)

    axis = torch.linspace(-0.5, 0.5, size, device=numbers.each.device)
    x = axis[None, None, :] - uniform(-0.5, 0.5)
    y = axis[None, :, None] - uniform(-0.5, 0.5)
    angle = uniform(0, math.pi)
    along = x * angle.cos() + y * angle.sin()
    across = y * angle.cos() - x * angle.sin()
    along += (across * 30).add_(uniform(0, 2 * math.pi)).sin_().mul_(0.04)
    along = along.div_(uniform(*sides) / 2).square_()
    across = across.div_(uniform(*sides) / 2).square_()
    ellipse = uniform(0, 1) < 0.5
    inside = torch.where(ellipse, along + across, torch.maximum(along, across)) < 1
    covered = inside & (uniform(0, 1) < probability)
    paint = noise_texture(numbers.textures, size).mul_(covered[:, None])
    return Cover((~covered[:, None]).float(), paint, covered)


def shape_cover(numbers: CoverNumbers, size: int, *, probability: float) -> Cover:
    """One to three occluders over some images (SADRNet section III-B; numbers and outline of the
    released code).

    Each is a rectangle of whole px whose upper left corner may be any pixel, bent by a wave along
    either axis that shortens towards the lower right, filled with a grey, with a colour, or with a
    tint that the face is seen through.
    """
    occluded, number, *drawn = numbers.each  # (B,) each
    occluded = occluded < probability
    axis = torch.arange(size, device=occluded.device, dtype=torch.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    # What lies over a pixel is one of eight: each of three occluders or not. Of an image these are
    # few numbers, and only which of them a pixel has is as many as the pixels.
    which = torch.zeros(len(occluded), size, size, dtype=torch.uint8, device=occluded.device)
    gain = torch.ones(len(occluded), 3, 1, device=occluded.device)  # (B, 3, 1 to 8)
    paint = torch.zeros_like(gain)
    hides = torch.zeros_like(occluded[:, None])  # (B, 1 to 8)
    for layer, lower_bound in enumerate((0.0, *COUNT_BOUNDS)):
        own = torch.stack(drawn[layer * SHAPE_NUMBERS : (layer + 1) * SHAPE_NUMBERS])  # (12, B)
        area = (AREA[0] + (AREA[1] - AREA[0]) * own[0]) * size**2
        aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * own[1]
        width, height = (area / aspect).sqrt().floor(), (area * aspect).sqrt().floor()
        left, top = (size * own[2:4]).floor()
        wave = -WAVE + 2 * WAVE * own[4:8].T.reshape(-1, 2, 2, 1, 1)
        bent_x, bent_y = bent(x, y, wave)
        # Of an image without an occluder no pixel lies to the left of this.
        right = torch.where(occluded & (number >= lower_bound), left + width, left)
        left, top, right, bottom = (
            border[:, None, None] for border in (left, top, right, top + height)
        )
        inside = (bent_x >= left).logical_and_(bent_x < right)
        inside.logical_and_(bent_y >= top).logical_and_(bent_y < bottom)
        which.add_(inside, alpha=2**layer)
        fill, color = own[8], own[9:12].T  # (B,), (B, 3)
        color = torch.where((fill < GREY_SHARE)[:, None], color[:, :1], color)[..., None]
        solid = (fill < CONSTANT_SHARE)[:, None]
        laid = torch.where(solid[..., None], 0.0, color)
        gain = torch.cat([gain, gain * laid], 2)
        paint = torch.cat([paint, paint * laid + (color - laid)], 2)
        hides = torch.cat([hides, hides | solid], 1)
    which = which.flatten(1).long()
    looked_up = [table.gather(2, which[:, None].expand(-1, 3, -1)) for table in (gain, paint)]
    looked_up.append(hides.gather(1, which))
    return Cover(*(pixels.unflatten(-1, (size, size)) for pixels in looked_up))


def bent(
    x: Tensor,  # (1, 1, S), px
    y: Tensor,  # (1, S, 1), px
    wave: Tensor,  # (b, 2, 2, 1, 1): along each axis how far it moves, and how fast
) -> tuple[Tensor, Tensor]:
    """Where the pixel at (x, y) of an occluder is taken from, whole px of the image, (b, S, S)
    twice: SADRNet's released outline.

    With amplitudes a and radians a px b: x + S a_x sin(b_x y + a_y x y / S) and
    y + S a_y sin(b_y x + b_x x y / S); the first has an amplitude in its phase, as released.
    """
    size = x.shape[-1]
    (far_x, fast_x), (far_y, fast_y) = (axis.unbind(1) for axis in wave.unbind(1))
    # In place: new memory for every step would take longer than the steps.
    moved_x = (far_y * x * y).div_(size).add_(fast_x * y).sin_().mul_(size * far_x).add_(x)
    moved_y = (fast_x * x * y).div_(size).add_(fast_y * x).sin_().mul_(size * far_y).add_(y)
    return tuple(moved.clamp_(0, size - 1).floor_() for moved in (moved_x, moved_y))


class ImageOccluder(NamedTuple):
    """The occluders of an evaluation: every image has them, and its name alone tells which."""

    occluder: str  # one of `OCCLUDERS`
    seed: int = 0

    def __call__(
        self,
        image: Tensor,  # (B, 3, S, S), in [0, 1]
        names: list[str],
    ) -> tuple[Tensor, Tensor]:
        """The images with the occluders, and which pixels they hide, (B, S, S) bool; the same in
        any batch, in any order and on any device.

        Raises:
            ValueError: `occluder` is none of `OCCLUDERS`.
        """
        covers = [self._draw(name, image.shape[-1]) for name in names]
        cover = Cover(*(torch.cat(fields).to(image.device) for fields in zip(*covers, strict=True)))
        return cover.over(image), cover.hides

    def _draw(self, name: str, size: int) -> Cover:
        digest = hashlib.sha256(f"{self.seed} {self.occluder} {name}".encode()).digest()
        # Drawn on the CPU: generators of other devices give other numbers.
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        return draw_cover(self.occluder, 1, size, generator, probability=1.0)
