"""The colours of one person, drawn so that they go together.

Colours are linear RGB, (3,) float64.
"""

from typing import NamedTuple

import numpy as np


class SkinMaterial(NamedTuple):
    """One sample: numbers and (3,) arrays, float64. Gathered for pixels: tensors (M,) and (M, 3).

    Gains multiply what a layer of a texture absorbs, strengths what it covers.
    """

    skin_tone: np.ndarray
    detail_gain: float
    redness_gain: float
    spots_gain: float
    shade_gain: float
    lip_color: np.ndarray
    lip_strength: float
    makeup_color: np.ndarray
    makeup_strength: float
    beard_color: np.ndarray
    beard_strength: float
    brow_color: np.ndarray
    brow_strength: float
    hair_color: np.ndarray  # of the head
    lash_color: np.ndarray
    lash_strength: float
    specular: float  # strength of the highlight, 0.02 to 0.3
    roughness: float  # 0.25 to 0.7
    iris_color: np.ndarray
    sclera_color: np.ndarray
    teeth_color: np.ndarray


def linear(*srgb: int) -> np.ndarray:
    """A colour given as 8-bit sRGB."""
    encoded = np.array(srgb) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


# From the fairest skin to the darkest: more melanin takes blue first, then green.
TONE_RAMP = np.log(
    [
        linear(236, 203, 184),
        linear(229, 188, 164),
        linear(218, 170, 141),
        linear(198, 147, 114),
        linear(170, 120, 88),
        linear(136, 92, 67),
        linear(102, 67, 50),
        linear(73, 49, 39),
        linear(52, 36, 30),
    ]
)
HAIR_COLORS = {
    "black": linear(22, 18, 17),
    "dark brown": linear(48, 34, 26),
    "brown": linear(82, 58, 40),
    "light brown": linear(124, 92, 64),
    "blond": linear(190, 156, 108),
    "red": linear(136, 66, 36),
    "grey": linear(140, 136, 132),
    "white": linear(214, 210, 204),
}
# Shares of the first six on fair skin and on dark.
HAIR_SHARES = np.array([[0.14, 0.26, 0.24, 0.15, 0.15, 0.06], [0.86, 0.12, 0.02, 0, 0, 0]])
IRIS_COLORS = np.stack(
    [
        linear(52, 33, 22),
        linear(84, 56, 34),
        linear(112, 88, 48),
        linear(96, 108, 76),
        linear(98, 124, 148),
        linear(128, 140, 148),
    ]
)
IRIS_SHARES = np.array([[0.15, 0.2, 0.15, 0.12, 0.25, 0.13], [0.8, 0.18, 0.02, 0, 0, 0]])
LIPSTICKS = np.stack(
    [
        linear(168, 28, 38),
        linear(122, 22, 42),
        linear(196, 74, 96),
        linear(206, 112, 112),
        linear(150, 84, 76),
        linear(88, 26, 44),
    ]
)
EYE_SHADOWS = np.stack(
    [
        linear(62, 52, 52),
        linear(28, 26, 30),
        linear(112, 78, 62),
        linear(150, 96, 104),
        linear(70, 92, 138),
        linear(96, 70, 122),
        linear(188, 152, 110),
        linear(70, 112, 92),
    ]
)


def draw_material(generator: np.random.Generator) -> SkinMaterial:
    """One person."""
    uniform, normal = generator.uniform, generator.normal
    darkness = generator.beta(1.0, 1.5)  # place on the ramp
    age = generator.beta(1.3, 2.0)
    bearded, painted = _manner(generator)

    tone = skin_tone(darkness) * np.exp(normal(0, 0.05) + normal(0, [0.02, 0.03, 0.05]))
    hair = _hair_color(generator, darkness, age)
    # Brows are darker than fair hair and keep their colour longer; few are as light.
    toward_dark = uniform(0.35, 1) if uniform() < 0.88 else 0.0
    brow = _mixed_colors(hair, HAIR_COLORS["dark brown"], toward_dark) * uniform(0.6, 1.0)
    beard = _mixed_colors(hair, HAIR_COLORS["dark brown"], uniform(0.1, 0.7))
    shares = _between(IRIS_SHARES, darkness)
    iris = IRIS_COLORS[generator.choice(len(IRIS_COLORS), p=shares)] * np.exp(normal(0, 0.2))
    lips, lip_strength = _lips(generator, tone, painted)
    yellow = 0.4 * age + uniform(0, 0.6)
    return SkinMaterial(
        skin_tone=np.clip(tone, 0.01, 0.97),
        detail_gain=uniform(0.15, 0.7) * (0.5 if painted else 1.0),
        redness_gain=uniform(0.05, 0.75) * (1 - 0.55 * darkness),
        spots_gain=uniform(0.3, 1.4) * (0.5 if painted else 1.0),
        shade_gain=(0.15 + 0.85 * age) * uniform(0.4, 1.3),
        lip_color=np.clip(lips, 0.005, 0.95),
        lip_strength=lip_strength,
        makeup_color=EYE_SHADOWS[generator.integers(len(EYE_SHADOWS))] * uniform(0.5, 1.3),
        makeup_strength=uniform(0.1, 0.85) if painted and uniform() < 0.6 else 0.0,
        beard_color=beard,
        beard_strength=bearded,
        brow_color=np.clip(brow, 0.003, 0.9),
        brow_strength=uniform(0.6, 1.0) if uniform() < 0.9 else uniform(0.05, 0.5),
        hair_color=hair,
        lash_color=np.full(3, uniform(0.004, 0.02)),
        lash_strength=uniform(0.55, 1.0) if painted else uniform(0.15, 0.7),
        specular=float(np.exp(uniform(np.log(0.02), np.log(0.3)))),
        roughness=uniform(0.25, 0.7),
        iris_color=np.clip(iris, 0.005, 0.8),
        sclera_color=np.clip(
            uniform(0.5, 0.85) * np.array([1.0, 0.93 - 0.04 * yellow, 0.9 - 0.12 * yellow]), 0, 1
        ),
        teeth_color=np.clip(
            uniform(0.5, 0.85) * np.array([1.0, 0.96 - 0.06 * yellow, 0.88 - 0.25 * yellow]), 0, 1
        ),
    )


def skin_tone(darkness: float) -> np.ndarray:  # 0 fairest, 1 darkest
    """A colour of the ramp, (3,)."""
    place = np.clip(darkness, 0, 1) * (len(TONE_RAMP) - 1)
    steps = np.arange(len(TONE_RAMP))
    return np.exp([np.interp(place, steps, TONE_RAMP[:, channel]) for channel in range(3)])


def _between(shares: np.ndarray, darkness: float) -> np.ndarray:  # (2, K)
    """Probabilities for a skin between fair and dark, (K,)."""
    weight = np.clip((darkness - 0.15) / 0.4, 0, 1)
    return (1 - weight) * shares[0] + weight * shares[1]


def _manner(generator: np.random.Generator) -> tuple[float, bool]:
    """How strong the beard is, 0 for most, and whether there is make-up."""
    uniform = generator.uniform
    if uniform() >= 0.5:
        return 0.0, bool(uniform() < 0.55)
    kind = uniform()
    if kind < 0.45:
        return 0.0, False
    return (uniform(0.08, 0.4) if kind < 0.75 else uniform(0.5, 1.0)), False


def _hair_color(generator: np.random.Generator, darkness: float, age: float) -> np.ndarray:
    """Natural hair, greyer with age; dyed on a few."""
    uniform = generator.uniform
    shares = _between(HAIR_SHARES, darkness)
    color = list(HAIR_COLORS.values())[generator.choice(len(shares), p=shares)]
    if uniform() < 0.012:
        color = uniform(0.02, 0.5, 3)
    grey = HAIR_COLORS["white" if uniform() < 0.35 else "grey"]
    greyness = np.clip((age - 0.45) / 0.35, 0, 1) * uniform(0, 1)
    mixed = (1 - greyness) * color + greyness * grey
    return np.clip(mixed * np.exp(generator.normal(0, 0.2)), 0.004, 0.9)


def _mixed_colors(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Between two colours in the logarithm, as dyes mix, (3,)."""
    return np.exp((1 - share) * np.log(first) + share * np.log(second))


def _lips(
    generator: np.random.Generator,
    tone: np.ndarray,
    painted: bool,
) -> tuple[np.ndarray, float]:
    """The colour of the lips and how much it covers; lipstick on many who are made up."""
    uniform = generator.uniform
    if painted and uniform() < 0.7:
        return LIPSTICKS[generator.integers(len(LIPSTICKS))] * uniform(0.6, 1.3), uniform(0.5, 0.97)
    # Thin skin: the tone with more blood and less contrast between people.
    blood = np.array([uniform(0.72, 0.95), uniform(0.42, 0.66), uniform(0.45, 0.72)])
    return tone * blood, uniform(0.45, 0.95)
