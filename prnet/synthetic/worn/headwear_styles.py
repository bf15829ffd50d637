"""How hats, hoods and clothes are drawn: a kind of hat, then every number around it."""

import math
from typing import NamedTuple

import numpy as np

from prnet.synthetic.worn.head_chart import row_at
from prnet.synthetic.worn.headwear import HeadwearParameters


class HeadwearRule(NamedTuple):
    """Probabilities; a hood takes precedence over a hat."""

    hat: float
    hood: float
    wrap: float  # a scarf or high collar, besides the one that comes with a headscarf
    garment: float


class Hat(NamedTuple):
    """A kind of hat: numbers of `HeadwearParameters`, or ranges to draw them from."""

    hat_row: tuple[float, float]
    hat_tilt: tuple[float, float]
    hat_gap_mm: tuple[float, float]
    hat_crown_mm: tuple[float, float]
    hat_square: tuple[float, float] | float
    brim_mm: tuple[float, float] | float
    brim_half_deg: tuple[float, float] | float
    brim_droop: tuple[float, float] | float


# With a visor on most; knitted; a brim all round, from trilby to sun hat; thick and
# round, for the road or for work, with or without a peak.
CAP = Hat((0.9, 1.06), (0.1, 0.3), (5, 8), (4, 18), (0.0, 0.5), (45, 75), (48, 70), (0.0, 0.5))
BEANIE = Hat((0.9, 1.18), (0.15, 0.42), (5, 9), (2, 30), (0.0, 0.2), 0.0, 60.0, 0.0)
BRIMMED = Hat((0.86, 1), (0.0, 0.25), (6, 10), (10, 40), (0.3, 1), (25, 110), 180.0, (-0.2, 0.5))
HELMET = Hat((0.9, 1.25), (0.0, 0.35), (14, 28), (0, 20), 0.0, (0, 40), (60, 80), (-0.1, 0.2))
# Drawn with equal chances; helmets are rare.
HATS = (CAP,) * 4 + (BEANIE,) * 2 + (BRIMMED,) * 3 + (HELMET,)
VISOR_SHARE = 0.9  # of the caps


def draw_headwear(generator: np.random.Generator, rule: HeadwearRule) -> HeadwearParameters:
    """One sample's hat, hood, scarf and clothes."""
    uniform, chance = generator.uniform, lambda rate: float(generator.random() < rate)
    hood = chance(rule.hood)
    headscarf = hood * chance(0.5)
    hat = chance(rule.hat / max(1 - rule.hood, 1e-9)) * (1 - hood)
    wrap = max(headscarf, chance(rule.wrap))
    hat_numbers = _draw_hat(generator, HATS[generator.integers(len(HATS))])
    return HeadwearParameters(
        hat_worn=np.float64(hat),
        **hat_numbers,
        hat_slant=np.float64(generator.normal(0, 0.04)),
        hood_worn=np.float64(hood),
        hood_front_row=np.float64(uniform(0.4, 0.72)),
        hood_open_deg=np.float64(uniform(40, 68)),
        hood_gap_mm=np.float64(uniform(5, 9) if headscarf else uniform(9, 24)),
        hood_hang=np.float64(uniform(0.2, 0.7) if headscarf else uniform(0.5, 1.0)),
        wrap_worn=np.float64(wrap),
        wrap_row=np.float64(row_at(uniform(-82, -66) if headscarf else uniform(-115, -72))),
        wrap_rise=np.float64(uniform(0.0, 0.3)),
        wrap_gap_mm=np.float64(uniform(8, 16) if headscarf else uniform(6, 28)),
        garment_worn=np.float64(chance(rule.garment)),
        garment_row=np.float64(uniform(2.25, 2.75)),
        garment_neckline=np.float64(uniform(0.0, 0.5)),
        garment_gap_mm=np.float64(uniform(3, 8)),
        fold_mm=np.float64(uniform(0.0, 2.5)),
        fold_vector=np.stack(
            [generator.integers(2, 9, 3), generator.normal(0, 6, 3), uniform(0, 2 * math.pi, 3)], -1
        ).astype(float),
    )


def _draw_hat(generator: np.random.Generator, kind: Hat) -> dict[str, np.float64]:
    drawn = {}
    for name, value in zip(Hat._fields, kind, strict=True):
        drawn[name] = np.float64(generator.uniform(*value) if isinstance(value, tuple) else value)
        if name == "brim_mm" and kind is CAP:
            drawn[name] *= generator.random() < VISOR_SHARE
    return drawn
