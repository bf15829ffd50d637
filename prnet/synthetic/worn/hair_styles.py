"""How hair is drawn: a style, then every number of `HairParameters` around that style.

Rates were counted by eye on some two hundred photographs of faces in the wild.
"""

import math
from typing import NamedTuple

import numpy as np

from prnet.synthetic.worn.hair import CONTROL_DEG, NATURAL_END, NUM_LOCKS, NUM_WAVES, HairParameters
from prnet.synthetic.worn.head_chart import NUM_COLUMNS, row_at

# Indices into CONTROL_DEG: the forehead up to its corners, and what a curtain of hair can cover.
FOREHEAD = slice(0, 4)
BROW_MM, EYE_MM = 58.0, 34.0  # y on the mean head


class HairRule(NamedTuple):
    """Shares of the styles, and ranges. Rates that depend on a style are of that style's heads."""

    worn: float  # else shaved or bald
    short: float  # of the heads with hair: ears free
    medium: float  # to the jaw or the chin, over the ears
    long: float  # to the shoulders
    tied: float  # back, with a bun or tail for half of them
    fringe: float  # over the forehead, of all but tied hair
    receding: float  # of short hair
    curly: float
    locks: float  # loose strands
    beard: float  # long, standing off the face
    volume: float  # factor of all thicknesses


class Style(NamedTuple):
    """Numbers of `HairParameters`, or ranges to draw them from."""

    top_mm: tuple[float, float]
    side_mm: tuple[float, float]
    hang: tuple[float, float] | float
    edge: tuple[float, float]


STYLES = {
    "short": Style((4, 32), (2.5, 12), (0.2, 0.6), (0.1, 0.4)),
    "medium": Style((6, 24), (6, 22), (0.5, 1.0), (0.3, 0.8)),
    "long": Style((5, 22), (5, 20), (0.5, 1.0), (0.3, 0.8)),
    "tied": Style((4, 15), (3, 8), 0.3, (0.1, 0.3)),
}


def draw_hair(generator: np.random.Generator, rule: HairRule) -> HairParameters:
    """One head of hair.

    Raises:
        ValueError: the styles' shares do not sum to 1.
    """
    shares = np.array([getattr(rule, style) for style in STYLES])
    if abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"hair styles: shares sum to {shares.sum():.4f}, expected 1")
    uniform, chance = generator.uniform, lambda rate: float(generator.random() < rate)
    worn = chance(rule.worn)
    style = tuple(STYLES)[generator.choice(len(STYLES), p=shares)]
    curly = chance(rule.curly)

    end_row = np.tile(np.array(NATURAL_END), (2, 1))
    # Hair starts to grow higher or lower, with a peak in the middle or corners that recede.
    end_row[:, :5] += generator.normal(0, 0.035)
    end_row[:, 0] += uniform(0, 0.05) * chance(0.3)
    if style == "short" and chance(rule.receding):
        end_row[:, 1:4] -= uniform(0.05, 0.22)
        end_row[:, 0] -= uniform(0.0, 0.15)
    end_row[:, 6] -= uniform(0, 0.25)
    _cut_style(generator, style, end_row)
    top, side, hang, edge = (
        uniform(*value) if isinstance(value, tuple) else value for value in STYLES[style]
    )
    if style != "tied" and chance(rule.fringe):
        _cut_fringe(generator, end_row, curtain=style == "long" and generator.random() < 0.4)
        edge = max(edge, uniform(0.25, 0.7))
    end_row += generator.normal(0, 0.015, end_row.shape)

    volume = rule.volume * np.exp(generator.normal(0, 0.2))
    lump = uniform(2, 9) if curly else uniform(0, 1.5)
    frequency = uniform(0.15, 0.4) if curly else uniform(0.05, 0.2)
    vector = generator.normal(0, frequency, (NUM_WAVES, 4))
    vector[:, 3] = uniform(0, 2 * math.pi, NUM_WAVES)
    free_end = style in ("medium", "long")
    clump = generator.normal(0, 1, NUM_COLUMNS) * uniform(0.3, 1.6)
    locks = _draw_locks(generator, style, curly)

    return HairParameters(
        worn=np.float64(worn),
        stubble=np.float64(uniform(0.5, 0.95) if worn else uniform(0, 0.8) * chance(0.6)),
        end_row=end_row,
        ragged=generator.normal(0, 1, NUM_COLUMNS) * uniform(0.005, 0.06 if free_end else 0.03),
        top_mm=np.float64(top * volume * (1.3 if curly else 1)),
        side_mm=np.float64(side * volume * (1.3 if curly else 1)),
        edge=np.float64(edge),
        hang=np.float64(hang),
        clump_mm=clump * (0.3 if style == "tied" else 1),
        wave_mm=np.float64(uniform(2, 7) if curly and free_end else uniform(0, 3) * free_end),
        wave_count=np.float64(uniform(6, 22)),
        lump_mm=np.float64(0.3 * lump if style == "tied" else lump),
        lump_vector=vector,
        lock_worn=np.float64(chance(rule.locks)),
        **locks,
        bun_worn=np.float64(style == "tied" and generator.random() < 0.6),
        **_draw_bun(generator),
        beard_worn=np.float64(chance(rule.beard)),
        beard_mm=np.float64(uniform(4, 16)),
        beard_length=np.float64(uniform(0.08, 0.3) if chance(0.8) else uniform(0.3, 1.0)),
        beard_taper=np.float64(uniform(0.3, 1.0)),
    )


def _cut_style(generator: np.random.Generator, style: str, end_row: np.ndarray) -> None:
    """Where the strands of a style end; changes end_row in place."""
    uniform = generator.uniform
    if style == "short":
        end_row[:, 10:] -= uniform(-0.05, 0.2)
        if generator.random() < 0.3:  # over the upper ear
            end_row[:, 7:9] += uniform(0.1, 0.3)
    elif style == "medium":
        _cut_curtain(generator, end_row, row_at(uniform(-75, 0)))
    elif style == "long":
        _cut_curtain(generator, end_row, row_at(uniform(-150, -95)))
        if generator.random() < 0.25:  # behind the ears
            for side in range(2) if generator.random() < 0.6 else [int(generator.random() < 0.5)]:
                end_row[side, :9] = np.array(NATURAL_END)[:9]
    else:
        end_row[:, 6] -= uniform(0, 0.2)


def _cut_curtain(generator: np.random.Generator, end_row: np.ndarray, length: float) -> None:
    """Hair hangs from the azimuth where the face opens, each side its own, round the back."""
    opening = generator.uniform(34, 80)
    for side in range(2):
        start = opening + generator.normal(0, 8)
        # The edge that frames the face slopes: shorter towards the front.
        slope = generator.uniform(6, 22)
        share = np.clip((np.array(CONTROL_DEG) - start) / slope + 0.5, 0, 1)
        end_row[side] = np.maximum(end_row[side], end_row[side] * (1 - share) + length * share)
    end_row[:, 9:] += generator.normal(0, 0.06)


def _cut_fringe(generator: np.random.Generator, end_row: np.ndarray, *, curtain: bool) -> None:
    """Hair over the forehead: straight, swept to one side, or parted in the middle."""
    uniform = generator.uniform
    angle = np.array(CONTROL_DEG, float)[FOREHEAD.start : 6]
    signed = np.stack([-angle, angle])
    height = uniform(EYE_MM + 4, 90)
    if curtain:
        target = row_at(height) - uniform(0.2, 0.6) * np.clip(1 - np.abs(signed) / 30, 0, 1)
    else:
        slope = uniform(-0.012, 0.012) * float(generator.random() < 0.6)
        target = row_at(height) + slope * signed
    # Rows above the level are polar angles; at the forehead both scales give nearly the same.
    width = uniform(35, 62)
    fade = np.clip((width - np.abs(signed)) / 8, 0, 1)
    limit = row_at(EYE_MM - 30)
    front = end_row[:, : len(angle)]
    end_row[:, : len(angle)] = np.maximum(front, front + fade * (np.minimum(target, limit) - front))


def _draw_locks(generator: np.random.Generator, style: str, curly: float) -> dict[str, np.ndarray]:
    uniform = generator.uniform
    spiky = style == "short" and generator.random() < 0.5
    azimuth = np.radians(uniform(-150, 150, NUM_LOCKS))
    row = uniform(0.15, 0.75, NUM_LOCKS)
    length = uniform(0.1, 0.35, NUM_LOCKS)
    lift = uniform(0, 3, NUM_LOCKS)
    if spiky:
        lift = uniform(2, 28) * uniform(0.2, 1.2, NUM_LOCKS)
        row = uniform(0.1, 0.6, NUM_LOCKS)
    elif style in ("medium", "long"):
        # Most frame the face at its sides; the others lie on the crown.
        azimuth = generator.choice([-1, 1], NUM_LOCKS) * np.radians(uniform(32, 110, NUM_LOCKS))
        length = uniform(0.2, 1.3 if style == "long" else 0.8, NUM_LOCKS)
        lift = uniform(0, 7, NUM_LOCKS)
    elif style == "tied":
        azimuth = generator.choice([-1, 1], NUM_LOCKS) * np.radians(uniform(40, 100, NUM_LOCKS))
        row = uniform(0.3, 0.6, NUM_LOCKS)
        length = uniform(0.1, 0.5, NUM_LOCKS)
    if curly:
        lift = lift + uniform(0, 8, NUM_LOCKS)
    width = 8 if style in ("medium", "long") else 4
    few = generator.random(NUM_LOCKS) < uniform(0.2, 1.0)
    return {
        "lock_azimuth": azimuth,
        "lock_row": row,
        "lock_length": length,
        "lock_sway": generator.normal(0, 0.6 if curly else 0.25, NUM_LOCKS),
        "lock_lift_mm": lift,
        "lock_width_mm": uniform(1.5, width, NUM_LOCKS) * few,
    }


def _draw_bun(generator: np.random.Generator) -> dict[str, np.ndarray]:
    uniform = generator.uniform
    tail = generator.random() < 0.5
    half = np.array([uniform(16, 28), uniform(45, 90), uniform(14, 24)])
    if not tail:
        half = uniform(18, 36) * np.exp(generator.normal(0, 0.12, 3))
    return {
        "bun_azimuth": np.float64(math.pi + generator.normal(0, 0.15)),
        "bun_row": np.float64(uniform(1.2, 1.6) if tail else uniform(0.1, 1.4)),
        "bun_half_mm": half,
    }
