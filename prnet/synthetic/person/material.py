"""The colours of one person, drawn so that they go together.

Colours are linear RGB, (3,) float64.
"""

from typing import NamedTuple

import numpy as np

from prnet.synthetic.noise import clipped


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


def linear(srgb: str) -> np.ndarray:
    """A colour given as 8-bit sRGB in hexadecimal, rrggbb."""
    encoded = np.array(list(bytes.fromhex(srgb))) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def linear_rows(srgb: str) -> np.ndarray:
    """Several of them with spaces between, (K, 3)."""
    return np.stack([linear(color) for color in srgb.split()])


# From the fairest skin to the darkest: more melanin takes blue first, then green.
TONE_RAMP = np.log(linear_rows("eccbb8 e5bca4 daaa8d c69372 aa7858 885c43 664332 493127 34241e"))
HAIR_COLORS = {
    "black": linear("161211"),
    "dark brown": linear("30221a"),
    "brown": linear("523a28"),
    "light brown": linear("7c5c40"),
    "blond": linear("be9c6c"),
    "red": linear("884224"),
    "grey": linear("8c8884"),
    "white": linear("d6d2cc"),
}
# Shares of the first six on fair skin and on dark.
HAIR_SHARES = np.array([[0.14, 0.26, 0.24, 0.15, 0.15, 0.06], [0.86, 0.12, 0.02, 0, 0, 0]])
IRIS_COLORS = linear_rows("342116 543822 705830 606c4c 627c94 808c94")
IRIS_SHARES = np.array([[0.15, 0.2, 0.15, 0.12, 0.25, 0.13], [0.8, 0.18, 0.02, 0, 0, 0]])
LIPSTICKS = linear_rows("a81c26 7a162a c44a60 ce7070 96544c 581a2c")
EYE_SHADOWS = linear_rows("3e3434 1c1a1e 704e3e 966068 465c8a 60467a bc986e 46705c")


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
    place = clipped(darkness, 0, 1) * (len(TONE_RAMP) - 1)
    steps = np.arange(len(TONE_RAMP))
    return np.exp([np.interp(place, steps, TONE_RAMP[:, channel]) for channel in range(3)])


def _between(shares: np.ndarray, darkness: float) -> np.ndarray:  # (2, K)
    """Probabilities for a skin between fair and dark, (K,)."""
    weight = clipped((darkness - 0.15) / 0.4, 0, 1)
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
    greyness = clipped((age - 0.45) / 0.35, 0, 1) * uniform(0, 1)
    mixed = (1 - greyness) * color + greyness * grey
    return np.clip(mixed * np.exp(generator.normal(0, 0.2)), 0.004, 0.9)


def _mixed_colors(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Between two colours in the logarithm, as dyes mix, (3,)."""
    return np.exp((1 - share) * np.log(first) + share * np.log(second))


def _lips(
    generator: np.random.Generator, tone: np.ndarray, painted: bool
) -> tuple[np.ndarray, float]:
    """The colour of the lips and how much it covers; lipstick on many who are made up."""
    uniform = generator.uniform
    if painted and uniform() < 0.7:
        return LIPSTICKS[generator.integers(len(LIPSTICKS))] * uniform(0.6, 1.3), uniform(0.5, 0.97)
    # Thin skin: the tone with more blood and less contrast between people.
    blood = np.array([uniform(0.72, 0.95), uniform(0.42, 0.66), uniform(0.45, 0.72)])
    return tone * blood, uniform(0.45, 0.95)
