"""The camera's settings in one sample, and what becomes of its picture later.

Lengths are in px of a picture of 256 px and scale with the picture's side.
"""

import math
from typing import NamedTuple

import numpy as np

from prnet.synthetic.noise import clipped


class FilmParameters(NamedTuple):
    """One sample: numbers and (3,) or (2,) arrays, float64. A batch: the same with B leading."""

    exposure: float  # stops
    white_balance: np.ndarray  # (3,), gain of linear R, G, B
    saturation: float  # 0 grey, 1 as it is
    contrast: float  # of encoded values about 0.5
    gamma: float  # exponent of encoded values
    vignette: float  # share of the light lost in the corners
    blur_px: float  # standard deviation
    defocus_px: float  # radius of the disc
    motion_px: float  # length of the straight path
    motion_angle: float  # radians, from x to y
    sharpening: float  # gain of the finest detail
    aberration_px: np.ndarray  # (2,), x and y by which red is shifted, and blue against it
    resolution: float  # side of the picture as taken, over the side asked for: (0, 1]
    read_noise: float  # standard deviation in the dark, linear light
    shot_noise: float  # variance per unit of light
    jpeg_quality: float  # 1 to 99 as libjpeg's; 100 and more: not compressed


def draw_film(generator: np.random.Generator) -> FilmParameters:
    """A camera, its settings and what became of the picture since."""
    uniform, normal = generator.uniform, generator.normal

    def sometimes(share: float, value: float) -> float:
        return value if uniform() < share else 0.0

    cast = 2.5 if uniform() < 0.15 else 1.0
    warmth, tint = cast * normal(0.01, 0.06), cast * normal(0, 0.025)
    white_balance = np.exp([warmth, tint, -1.3 * warmth])
    grey = uniform() < 0.08
    noise = np.exp(uniform(math.log(0.001), math.log(0.03)))
    aberration, angle = sometimes(0.3, abs(normal(0, 0.6))), uniform(0, 2 * math.pi)
    return FilmParameters(
        exposure=clipped(normal(-0.05, 0.33), -1.3, 0.8),
        white_balance=white_balance,
        # Toned monochrome keeps the white balance.
        saturation=0.0 if grey else clipped(normal(1.0, 0.22), 0.2, 1.6),
        contrast=clipped(normal(1.05, 0.16), 0.6, 1.6),
        gamma=float(np.exp(clipped(normal(0, 0.16), -0.45, 0.45))),
        vignette=sometimes(0.4, uniform(0.05, 0.6)),
        blur_px=uniform(0.35, 0.8) + sometimes(0.15, uniform(0, 1.5)),
        defocus_px=sometimes(0.06, uniform(0.8, 3.5)),
        motion_px=sometimes(0.05, uniform(1.5, 7)),
        motion_angle=uniform(0, math.pi),
        sharpening=sometimes(0.35, uniform(0.2, 1.5)),
        aberration_px=aberration * np.array([math.cos(angle), math.sin(angle)]),
        resolution=1.0 if uniform() < 0.65 else float(np.exp(uniform(math.log(0.22), 0))),
        read_noise=noise * uniform(0.1, 0.5),
        shot_noise=noise**2 * uniform(0.3, 3),
        jpeg_quality=100.0 if uniform() < 0.2 else 15 + 82 * generator.beta(2.2, 1.1),
    )
