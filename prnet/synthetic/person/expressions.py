"""Expressions of the embedded face as people make them: moods, then single muscles, then gaze.

Coefficients are the ARKit blend shapes of `Head.exp_names`, each from 0 (rest) to about 1. A name
without Left or Right in the tables below stands for both sides.
"""

import functools
from collections.abc import Sequence

import numpy as np

from prnet.synthetic.noise import clipped

# One share and one set of intensities a mood; the shares are relative.
MOODS: tuple[tuple[float, dict[str, float]], ...] = (
    (3.0, {"mouthSmile": 0.6, "cheekSquint": 0.3, "eyeSquint": 0.2, "mouthDimple": 0.2}),
    (
        3.0,
        {
            "mouthSmile": 0.85,
            "jawOpen": 0.16,
            "mouthUpperUp": 0.35,
            "mouthLowerDown": 0.3,
            "cheekSquint": 0.55,
            "eyeSquint": 0.4,
        },
    ),
    (1.5, {"mouthSmile": 0.75, "jawOpen": 0.55, "mouthUpperUp": 0.4, "eyeSquint": 0.5}),
    (2.0, {"jawOpen": 0.22, "mouthFunnel": 0.25, "mouthLowerDown": 0.15}),
    (1.5, {"jawOpen": 0.12, "mouthUpperUp": 0.2, "mouthLowerDown": 0.3, "mouthStretch": 0.2}),
    (1.2, {"jawOpen": 0.7, "eyeWide": 0.7, "browInnerUp": 0.7, "browOuterUp": 0.6}),
    (1.0, {"jawOpen": 0.95, "mouthStretch": 0.4, "eyeSquint": 0.5, "mouthLowerDown": 0.3}),
    (1.0, {"browDown": 0.8, "eyeSquint": 0.5, "mouthPress": 0.6, "noseSneer": 0.3}),
    (0.8, {"browDown": 0.7, "noseSneer": 0.7, "mouthUpperUp": 0.6, "jawOpen": 0.2}),
    (1.0, {"browInnerUp": 0.7, "mouthFrown": 0.7, "mouthShrugLower": 0.4}),
    (1.0, {"mouthPucker": 0.9, "mouthFunnel": 0.2}),
    (0.6, {"mouthFunnel": 0.9, "jawOpen": 0.3}),
    (0.5, {"cheekPuff": 0.9, "mouthPress": 0.3, "mouthPucker": 0.3}),
    (0.6, {"mouthRollLower": 0.7, "mouthRollUpper": 0.6, "mouthPress": 0.4}),
    (0.7, {"mouthShrugLower": 0.7, "mouthShrugUpper": 0.5, "browInnerUp": 0.3}),
    (0.6, {"mouthPress": 0.7, "mouthDimple": 0.5}),
)
MOOD_SHARES = np.array([share for share, _ in MOODS])
MOOD_SHARES /= MOOD_SHARES.sum()
# Muscles that hardly pull at once, the first with each of the others: the weaker of two gives way.
OPPOSED = (
    ("mouthSmile", "mouthFrown", "mouthPucker"),
    ("mouthStretch", "mouthPucker"),
    ("mouthFunnel", "mouthSmile", "mouthRollLower", "mouthRollUpper"),
    ("mouthUpperUp", "mouthRollUpper"),
    ("mouthLowerDown", "mouthRollLower", "mouthPress"),
    ("mouthUpperUp", "mouthPress"),
    ("jawOpen", "mouthPress", "mouthRollLower", "mouthShrugLower"),
    ("cheekPuff", "jawOpen", "mouthUpperUp", "mouthLowerDown"),
    ("browDown", "browOuterUp"),
    ("eyeWide", "eyeBlink", "eyeSquint"),
    ("mouthLeft", "mouthRight"),
    ("jawLeft", "jawRight"),
)
# Blend shapes that only gaze and lids set.
LED = ("eyeBlink", "eyeLookUp", "eyeLookDown", "eyeLookIn", "eyeLookOut", "mouthClose")
# Gaze at which a lid has moved all the way, degrees.
FULL_GAZE_DEG = 32.0
LIMIT = 1.1


def draw_expression(
    names: Sequence[str],
    generator: np.random.Generator,
    *,
    gaze_deg: np.ndarray,  # (2,), to the subject's left and up, from straight ahead
    neutral_share: float,
    strength: float,
) -> np.ndarray:
    """Coefficients in the order of `names`, (E,), float64.

    A share is neutral but for gaze and lids. The others are one or two moods of random intensity,
    with a few muscles beside them and sides that differ; `strength` scales the intensity.
    """
    neutral = generator.uniform() < neutral_share
    lids = _draw_lids(generator)
    weights: dict[str, float] = dict.fromkeys(names, 0.0)
    if not neutral:
        for base, value in _draw_muscles(names, generator).items():
            for name in _sides(base, weights):
                # Half the faces are even; in the others one side leads.
                share = 1 + 0.12 * generator.normal() * (generator.uniform() < 0.5)
                weights[name] = float(clipped(strength * value * share, 0, LIMIT))
        if generator.uniform() < 0.12:
            _one_sided(weights, generator)
        # The lips meet over an open jaw only as far as it is open.
        if generator.uniform() < 0.15:
            weights["mouthClose"] = weights["jawOpen"] * generator.uniform(0.3, 0.95)
    _add_gaze(weights, gaze_deg, lids)
    return np.array([weights[name] for name in names])


def _draw_muscles(names: Sequence[str], generator: np.random.Generator) -> dict[str, float]:
    """Intensity of each muscle, both sides alike."""
    total: dict[str, float] = {}
    for intensity in (generator.uniform(0.25, 1.25), 0.6 * generator.beta(1, 2.5)):
        _, mood = MOODS[generator.choice(len(MOODS), p=MOOD_SHARES)]
        for base, value in mood.items():
            part = intensity * value * np.exp(0.25 * generator.normal())
            total[base] = total.get(base, 0.0) + part
    for base in generator.choice(_muscles(tuple(names)), generator.poisson(2.0)).tolist():
        total[base] = total.get(base, 0.0) + generator.beta(1.2, 2.5)
    for first, *others in OPPOSED:
        for second in others:
            if total.get(first, 0) and total.get(second, 0):
                total[min(second, first, key=total.get)] *= 0.2
    return total


@functools.cache
def _muscles(names: tuple[str, ...]) -> np.ndarray:
    """What may be drawn one by one, sorted."""
    return np.array(sorted({_base(name) for name in names} - set(LED)))


def _one_sided(weights: dict[str, float], generator: np.random.Generator) -> None:
    """One side of the mouth, a cheek or a brow rests: a crooked smile, a raised brow."""
    part = generator.choice(["mouth", "brow", "noseSneer", "cheek"])
    side = generator.choice(["Left", "Right"])
    for name in weights:
        if name.startswith(part) and name.endswith(side) and name != f"mouth{side}":
            weights[name] *= 0.25


def _draw_lids(generator: np.random.Generator) -> np.ndarray:
    """How far the left and the right lid are closed, (2,); more often than people blink, since a
    network does not learn what it seldom sees."""
    kind = generator.uniform()
    if kind < 0.1:
        return np.array([1.0, 1.0]) * generator.uniform(0.92, 1.0)
    if kind < 0.26:
        return np.array([1.0, 1.0]) * generator.uniform(0.2, 0.9)
    if kind < 0.31:
        wink = np.array([generator.uniform(0.85, 1.0), generator.uniform(0, 0.25)])
        return wink[:: generator.choice([1, -1])]
    return np.clip(generator.normal(0.06, 0.08, 2).mean() + 0.02 * generator.normal(size=2), 0, 1)


def _add_gaze(weights: dict[str, float], gaze_deg: np.ndarray, lids: np.ndarray) -> None:
    left, up = np.clip(gaze_deg / FULL_GAZE_DEG, -1, 1).tolist()
    for side, outward, lid in (("Left", left, lids[0]), ("Right", -left, lids[1])):
        weights[f"eyeLookOut{side}"] = max(outward, 0.0)
        weights[f"eyeLookIn{side}"] = max(-outward, 0.0)
        weights[f"eyeLookUp{side}"] = max(up, 0.0)
        weights[f"eyeLookDown{side}"] = max(-up, 0.0) * (1 - lid)
        # A lid cannot close further than closed, nor a wide eye blink.
        weights[f"eyeBlink{side}"] = float(lid) * (1 - 0.5 * weights[f"eyeLookDown{side}"])
        weights[f"eyeWide{side}"] *= 1 - float(lid)
        weights[f"eyeSquint{side}"] *= 1 - 0.6 * float(lid)


def _base(name: str) -> str:
    """The name without its side; mouthLeft and jawLeft are muscles of their own."""
    if name in ("mouthLeft", "mouthRight", "jawLeft", "jawRight"):
        return name
    return name.removesuffix("Left").removesuffix("Right")


def _sides(base: str, weights: dict[str, float]) -> list[str]:
    return [base] if base in weights else [f"{base}Left", f"{base}Right"]
