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


def draw_headwear(generator: np.random.Generator, rule: HeadwearRule) -> HeadwearParameters:
    """One sample's hat, hood, scarf and clothes."""
    uniform, chance = generator.uniform, lambda rate: float(generator.random() < rate)
    hood = chance(rule.hood)
    headscarf = hood * chance(0.5)
    hat = chance(rule.hat / max(1 - rule.hood, 1e-9)) * (1 - hood)
    wrap = max(headscarf, chance(rule.wrap))
    style = _HATS[generator.integers(len(_HATS))](generator)
    return HeadwearParameters(
        hat_worn=np.float64(hat),
        **{name: np.float64(value) for name, value in style.items()},
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


def _cap(generator: np.random.Generator) -> dict[str, float]:
    """A cap with a visor; at times worn back to front."""
    uniform = generator.uniform
    return {
        "hat_row": uniform(0.9, 1.06),
        "hat_tilt": uniform(0.1, 0.3),
        "hat_gap_mm": uniform(5, 8),
        "hat_crown_mm": uniform(4, 18),
        "hat_square": uniform(0.0, 0.5),
        "brim_mm": uniform(45, 75) * float(generator.random() < 0.9),
        "brim_half_deg": uniform(48, 70),
        "brim_droop": uniform(0.0, 0.5),
    }


def _beanie(generator: np.random.Generator) -> dict[str, float]:
    """Knitted, without a brim."""
    uniform = generator.uniform
    return {
        "hat_row": uniform(0.9, 1.18),
        "hat_tilt": uniform(0.15, 0.42),
        "hat_gap_mm": uniform(5, 9),
        "hat_crown_mm": uniform(2, 30),
        "hat_square": uniform(0.0, 0.2),
        "brim_mm": 0.0,
        "brim_half_deg": 60.0,
        "brim_droop": 0.0,
    }


def _brimmed(generator: np.random.Generator) -> dict[str, float]:
    """A brim all round: from trilby to sun hat."""
    uniform = generator.uniform
    return {
        "hat_row": uniform(0.86, 1.0),
        "hat_tilt": uniform(0.0, 0.25),
        "hat_gap_mm": uniform(6, 10),
        "hat_crown_mm": uniform(10, 40),
        "hat_square": uniform(0.3, 1.0),
        "brim_mm": uniform(25, 110),
        "brim_half_deg": 180.0,
        "brim_droop": uniform(-0.2, 0.5),
    }


def _helmet(generator: np.random.Generator) -> dict[str, float]:
    """Thick and round, for the road or for work, with or without a peak."""
    uniform = generator.uniform
    return {
        "hat_row": uniform(0.9, 1.25),
        "hat_tilt": uniform(0.0, 0.35),
        "hat_gap_mm": uniform(14, 28),
        "hat_crown_mm": uniform(0, 20),
        "hat_square": 0.0,
        "brim_mm": uniform(0, 40),
        "brim_half_deg": uniform(60, 80),
        "brim_droop": uniform(-0.1, 0.2),
    }


# Drawn with equal chances; helmets are rare.
_HATS = (_cap,) * 4 + (_beanie,) * 2 + (_brimmed,) * 3 + (_helmet,)
