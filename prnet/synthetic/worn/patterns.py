"""The colours and patterns of accessories; `prnet.synthetic.render.surfaces` draws them.

Letters: B batch, K kinds, P paint numbers.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

KIND_NAMES = ("hair", "beard", "glasses_frame", "lens", "hat", "hood", "garment", "hand", "object")
HAIR, BEARD, GLASSES_FRAME, LENSES, HAT, HOOD, GARMENT, HAND, OBJECT = range(len(KIND_NAMES))
# What has a colour and a pattern of its own.
CLOTH = (HAT, HOOD, GARMENT, OBJECT)
# A strand of hair, a thread of cloth: cells along u over the whole sheet.
HAIR_STRANDS = 700.0


class Paint(NamedTuple):
    """How each kind looks: the columns of the paint, in this order, all scalars."""

    red: float | np.ndarray  # linear RGB
    green: float | np.ndarray
    blue: float | np.ndarray
    second_red: float | np.ndarray  # highlights of hair, stripes of cloth, sky in a lens
    second_green: float | np.ndarray
    second_blue: float | np.ndarray
    scale_u: float | np.ndarray  # cells over u
    scale_v: float | np.ndarray
    contrast: float | np.ndarray  # of the cells' brightness
    mix: float | np.ndarray  # how much of the second colour
    alpha: float | np.ndarray  # of a lens; share of solid hair among the strands
    ragged: float | np.ndarray  # share of a strand's length that its end varies by
    seed: float | np.ndarray  # whole number below 1000


def draw_paint(
    generator: np.random.Generator,
    *,
    sun: bool,  # sunglasses
) -> np.ndarray:
    """The paint (K, P) of one sample; hair and hand get their colours from `with_body_colors`."""
    uniform = generator.uniform
    seed = float(generator.integers(1000))
    paint = np.zeros((len(KIND_NAMES), len(Paint._fields)))
    paint[HAIR] = Paint(
        *np.zeros(6),
        scale_u=HAIR_STRANDS * uniform(0.5, 1.2),
        scale_v=uniform(2, 6),
        contrast=uniform(0.2, 0.6),
        mix=uniform(0.0, 0.6),
        alpha=uniform(0.55, 1.0),
        ragged=uniform(0.02, 0.3),
        seed=seed,
    )
    paint[BEARD] = paint[HAIR]
    paint[BEARD, Paint._fields.index("ragged")] = uniform(0.15, 0.6)
    paint[BEARD, Paint._fields.index("scale_u")] *= 0.5
    color = _colors(generator, 1 + 2 * len(CLOTH))
    frame = color[-1] if generator.random() < 0.4 else np.full(3, uniform(0.01, 0.08))
    if generator.random() < 0.25:
        frame = np.array([0.55, 0.45, 0.3]) * uniform(0.4, 1.2)
    paint[GLASSES_FRAME] = Paint(*frame, *frame, 1, 1, 0.0, 0.0, 1, 0, seed)
    tint = np.full(3, uniform(0.0, 0.06)) + uniform(0, 0.06, 3)
    sky = np.clip(uniform(0.2, 0.9) * (1 + generator.normal(0, 0.2, 3)), 0, 1)
    dark = uniform(0.6, 0.97) if sun else uniform(0.0, 0.12)
    paint[LENSES] = Paint(*tint, *sky, 1, 1, 0.0, uniform(0, 0.9), dark, 0, seed)
    for number, kind in enumerate(CLOTH):
        striped = generator.random() < 0.25
        paint[kind] = Paint(
            *color[2 * number],
            *color[2 * number + 1],
            scale_u=uniform(20, 120),
            scale_v=uniform(3, 40),
            contrast=uniform(0.0, 0.15),
            mix=float(striped) * uniform(0.3, 1.0),
            alpha=1,
            ragged=0,
            seed=seed,
        )
    paint[HAND] = Paint(*np.zeros(6), 9, 14, uniform(0.0, 0.06), 0.0, 1, 0, seed)
    return paint


def with_body_colors(
    paint: Tensor,  # (B, K, P)
    *,
    hair_color: Tensor,  # (B, 3), linear RGB
    skin_color: Tensor,  # (B, 3), linear RGB
) -> Tensor:
    """The paint with the sample's own hair and skin put in, (B, K, P); hair shines lighter in
    places, hands are as the face."""
    painted = paint.clone()
    for kind in (HAIR, BEARD):
        painted[:, kind, 0:3] = hair_color
        painted[:, kind, 3:6] = (1.8 * hair_color + 0.03).clamp(max=1)
    painted[:, HAND, 0:3] = skin_color
    painted[:, HAND, 3:6] = skin_color
    return painted


def _colors(generator: np.random.Generator, count: int) -> np.ndarray:
    """Cloth: mostly grey, dark or white, at times of a strong colour; linear RGB (count, 3)."""
    value = generator.uniform(0.01, 1.0, (count, 1)) ** 2
    strong = generator.random((count, 1)) < 0.45
    tint = generator.normal(size=(count, 3)) * np.where(strong, 0.5, 0.08)
    return np.clip(value * np.exp(tint), 0.004, 0.95)
