"""Occluders laid over images: PRN's noise texture and SADRNet's random shapes, batched on the
device.

Letters: B batch, S side of the image.
"""

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from prnet.checks import require_choice

OCCLUDERS = ("noise", "sadrnet")
# Sides of PRN's patches, share of the image; not in the paper.
NOISE_SIDES = (0.1, 0.5)
NOISE_OCTAVES = (4, 16, 64)

# SADRNet's released occluders. One uniform number an image: from the first bound on there is a
# second occluder, from the second on a third.
COUNT_BOUNDS = (3 / 15, 8 / 15)
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
    require_choice("occluder", occluder, OCCLUDERS)
    if occluder == "noise":
        return noise_cover(count, size, generator, probability=probability, sides=noise_sides)
    return shape_cover(count, size, generator, probability=probability)


def noise_texture(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Coloured noise of several octaves, (count, 3, size, size) in [0, 1]."""
    texture = torch.zeros(count, 3, size, size, device=generator.device)
    for cells in NOISE_OCTAVES:
        noise = torch.rand(count, 3, cells, cells, generator=generator, device=generator.device)
        texture += functional.interpolate(noise, size=size, mode="bilinear", align_corners=False)
    return texture / len(NOISE_OCTAVES)


def noise_cover(
    count: int,
    size: int,
    generator: torch.Generator,
    *,
    probability: float,
    sides: tuple[float, float] = NOISE_SIDES,  # of the patch, share of the image
) -> Cover:
    """Noise texture over part of some images (PRN section 3.3): on each a rotated ellipse or
    rectangle with a wavy outline, centred anywhere on the image."""
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator, device=device)

    axis = torch.linspace(-0.5, 0.5, size, device=device)
    x = axis[None, None, :] - uniform(-0.5, 0.5)
    y = axis[None, :, None] - uniform(-0.5, 0.5)
    angle = uniform(0, math.pi)
    along = x * angle.cos() + y * angle.sin()
    across = y * angle.cos() - x * angle.sin()
    along = along + 0.04 * torch.sin(across * 30 + uniform(0, 2 * math.pi))
    along = along.abs() / (uniform(*sides) / 2)
    across = across.abs() / (uniform(*sides) / 2)
    ellipse = uniform(0, 1) < 0.5
    inside = torch.where(ellipse, along**2 + across**2 < 1, torch.maximum(along, across) < 1)
    covered = inside & (uniform(0, 1) < probability)
    chosen = covered.flatten(1).any(1).nonzero().squeeze(1)
    paint = torch.zeros(count, 3, size, size, device=device)
    paint[chosen] = noise_texture(len(chosen), size, generator) * covered[chosen, None]
    return Cover((~covered[:, None]).float(), paint, covered)


def shape_cover(count: int, size: int, generator: torch.Generator, *, probability: float) -> Cover:
    """One to three occluders over some images (SADRNet section III-B; numbers and outline of the
    released code).

    Each is a rectangle of whole px whose upper left corner may be any pixel, bent by a wave along
    either axis that shortens towards the lower right, filled with a grey, with a colour, or with a
    tint that the face is seen through.
    """
    device = generator.device
    occluded = torch.rand(count, generator=generator, device=device) < probability
    chosen = occluded.nonzero().squeeze(1)  # (b,)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        draw = torch.rand(len(chosen), *shape, 1, 1, generator=generator, device=device)
        return low + (high - low) * draw

    number = uniform(0, 1)  # (b, 1, 1)
    axis = torch.arange(size, device=device, dtype=torch.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    gain = torch.ones(len(chosen), 3, size, size, device=device)
    paint = torch.zeros_like(gain)
    hides = torch.zeros(len(chosen), size, size, dtype=torch.bool, device=device)
    for lower_bound in (0.0, *COUNT_BOUNDS):
        area, aspect = uniform(*AREA) * size**2, uniform(*ASPECT)
        width, height = (area / aspect).sqrt().floor(), (area * aspect).sqrt().floor()
        left, top = uniform(0, size).floor(), uniform(0, size).floor()
        bent_x, bent_y = bent(x, y, uniform(-WAVE, WAVE, 2, 2))
        inside = (bent_x >= left) & (bent_x < left + width)
        inside &= (bent_y >= top) & (bent_y < top + height)
        inside &= number >= lower_bound
        fill = uniform(0, 1)
        color = uniform(0, 1, 3)  # (b, 3, 1, 1)
        color = torch.where((fill < GREY_SHARE)[:, None], color[:, :1], color)
        solid = fill < CONSTANT_SHARE
        laid = torch.where(solid[:, None], 0.0, color)
        gain = torch.where(inside[:, None], gain * laid, gain)
        paint = torch.where(inside[:, None], paint * laid + (color - laid), paint)
        hides |= inside & solid

    def spread(drawn: Tensor, elsewhere: float) -> Tensor:
        """To all images of the batch."""
        return drawn.new_full((count, *drawn.shape[1:]), elsewhere).index_copy(0, chosen, drawn)

    return Cover(spread(gain, 1.0), spread(paint, 0.0), spread(hides, False))


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
    moved_x = x + size * far_x * torch.sin(fast_x * y + far_y * x * y / size)
    moved_y = y + size * far_y * torch.sin(fast_y * x + fast_x * x * y / size)
    return tuple(moved.clamp(0, size - 1).floor() for moved in (moved_x, moved_y))


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
