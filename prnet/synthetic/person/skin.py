"""Skin of one texture: its grain, blood, pigment, folds, lips and paint.

Every function returns one layer, (H, W) float32 in [0, 1], and 0 where it changes nothing.
"""

import cv2
import numpy as np

from prnet.synthetic.noise import octave_noise, smoothstep
from prnet.synthetic.person.skin_chart import OVERSAMPLING, SkinChart, smooth_path

# Image left to right: outer eye corner, inner one, wing of the nose, corner of the mouth; and
# which way is outward.
SIDES = ((36, 39, 31, 48, -1), (45, 42, 35, 54, 1))


def detail_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Unevenness of several sizes and pores."""
    size = chart.size
    coarse = octave_noise(generator, size, (6, 12, 24), persistence=0.8)
    fine = octave_noise(generator, size, (size // 3, size // 2), persistence=1.0)
    pores = chart.blob(chart.landmarks[30], (0.8, 0.6))
    roughness = generator.uniform(0.02, 0.07)
    field = 0.4 + generator.uniform(0.04, 0.11) * coarse
    return field + roughness * (0.5 + pores) * fine


def redness_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Blood near the surface: cheeks, nose, chin, ears, lids; blotches, blush and pimples."""
    tone = generator.uniform(0.2, 1, 6)
    field = 0.6 * tone[0] * chart.blob(chart.landmarks[30], (0.22, 0.2))
    cheek_radii = generator.uniform(0.25, 0.45, 2)
    for outer, _, wing, _, outward in SIDES:
        middle = chart.between(outer, wing, 0.55) + [outward * 0.14 * chart.unit, 0]
        strength = 0.7 * tone[1] * generator.uniform(0.85, 1.15)
        field += strength * chart.blob(middle, tuple(cheek_radii))
    field += 0.35 * tone[2] * chart.blob(chart.between(57, 8, 0.55), (0.25, 0.15))
    field += 0.45 * tone[3] * chart.blur(chart.ears, 0.06) + 0.3 * tone[4] * chart.eyelids
    field *= 1 + 0.35 * octave_noise(generator, chart.size, (8, 16, 32))
    field += 0.05 * tone[5] * octave_noise(generator, chart.size, (5, 10, 20, 40))
    if generator.uniform() < 0.25:
        count = int(generator.exponential(18)) + 1
        field += _dots(chart, generator, count=count, radius=(0.006, 0.028), strength=(0.3, 1.0))
    return field


def spots_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Pigment: freckles over nose and cheeks, moles, patches of age."""
    moles = generator.poisson(3)
    field = _dots(chart, generator, count=moles, radius=(0.006, 0.02), strength=(0.4, 1))
    if generator.uniform() < 0.2:
        count = int(generator.uniform(80, 600))
        freckles = _dots(chart, generator, count=count, radius=(0.004, 0.013), strength=(0.1, 0.55))
        where = chart.blob(chart.between(28, 30, 0.3), (0.85, 0.4))
        field = np.maximum(field, freckles * np.clip(1.3 * where + 0.08, 0, 1))
    if generator.uniform() < 0.2:
        patches = smoothstep(octave_noise(generator, chart.size, (14, 28, 56)), 1.2, 2.4)
        field = np.maximum(field, generator.uniform(0.1, 0.4) * patches)
    return field


def shade_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Folds and hollows: forehead, brows, eyes, cheeks, chin; their number grows with age."""
    age = generator.uniform()
    fine, soft = chart.canvas(), chart.canvas()

    def wrinkle(points: list[np.ndarray], strength: float, width: float = 0.012) -> None:
        wobble = 0.008 * chart.unit * generator.standard_normal((len(points), 2))
        path = smooth_path(np.stack(points) + wobble)
        strength = float(np.clip(strength, 0, 1))
        chart.line(fine, path, width, strength)
        chart.line(soft, path, 4 * width, 0.6 * strength)

    _forehead(chart, generator, age, wrinkle)
    for outer, inner, wing, corner, outward in SIDES:
        _eye_folds(chart, generator, age, wrinkle, (outer, inner, outward))
        _cheek_folds(chart, generator, age, wrinkle, (wing, corner, outward))
    wrinkle(  # under the lower lip
        [chart.offset(58, -0.02, 0.13), chart.offset(57, 0, 0.1), chart.offset(56, 0.02, 0.13)],
        generator.uniform(0.1, 0.5),
        0.03,
    )
    field = chart.blur(chart.finish(fine), 0.004) + 0.5 * chart.blur(chart.finish(soft), 0.03)

    hollow = generator.uniform(0, 0.5) * (0.4 + 0.6 * age)
    for outer, inner, _, _, _ in SIDES:
        middle = chart.between(outer, inner, 0.6) + [0, 0.13 * chart.unit]
        field += hollow * chart.blob(middle, (0.2, 0.085))
        corner = chart.between(inner, 27, 0.3)
        field += generator.uniform(0, 0.3) * chart.blob(corner, (0.07, 0.12))
    return field


def lips_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """The red of the lips with its vertical lines and an edge that is not the mesh's."""
    noise = octave_noise(generator, chart.size, (24, 48), persistence=1.0)
    level = generator.uniform(0.3, 0.62)
    softness = generator.uniform(0.08, 0.28)
    lips = chart.blur(chart.lips, 0.012)
    lips = lips + 0.3 * noise * lips * (1 - lips)
    field = smoothstep(lips, level - softness, level + softness)
    rows, columns = chart.size // 6, chart.size // 2
    grid = generator.standard_normal((rows, columns), dtype=np.float32)
    lines = cv2.resize(grid, (chart.size, chart.size), interpolation=cv2.INTER_CUBIC)
    return field * (1 - generator.uniform(0, 0.16) * np.clip(lines, 0, 2))


def makeup_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Where eye shadow lies: the upper lid, up to the brow or out to the temple."""
    reach = generator.uniform(0.15, 0.9)
    wing = generator.uniform(0, 0.2)
    field = np.zeros((chart.size, chart.size), np.float32)
    for eye, brow, outward in (
        ((36, 37, 38, 39), (17, 19, 20, 21), -1),
        ((45, 44, 43, 42), (26, 24, 23, 22), 1),
    ):
        lid = list(chart.landmarks[list(eye)])
        height = reach * generator.uniform(0.9, 1.1)
        upper = [chart.between(e, b, height) for e, b in zip(eye, brow, strict=True)]
        upper[0] = upper[0] + chart.unit * np.array([outward * wing, 0])
        field = np.maximum(field, chart.region([*lid, *upper[::-1]], 0.025))
    return np.clip(1.2 * field, 0, 1)


def _dots(
    chart: SkinChart,
    generator: np.random.Generator,
    *,
    count: int,
    radius: tuple[float, float],  # units
    strength: tuple[float, float],
) -> np.ndarray:
    """Round spots anywhere on the face, (H, W)."""
    canvas = chart.canvas()
    low = chart.landmarks[[0, 8, 16]].min(0) - [0, 0.9 * chart.unit]
    high = chart.landmarks[[0, 8, 16]].max(0)
    centers = generator.uniform(low, high, (count, 2)) * OVERSAMPLING
    # Small ones are many.
    radii = radius[0] * (radius[1] / radius[0]) ** (generator.uniform(0, 1, count) ** 2)
    radii = np.maximum(np.rint(radii * chart.unit * OVERSAMPLING), 1).astype(int)
    shades = np.rint(255 * generator.uniform(*strength, count)).astype(int)
    for center, dot, shade in zip(centers, radii, shades, strict=True):
        cv2.circle(canvas, center.astype(int).tolist(), int(dot), int(shade), -1, cv2.LINE_AA)
    return chart.blur(chart.finish(canvas), 0.006)


def _forehead(chart, generator, age, wrinkle) -> None:
    """Lines across the forehead and two between the brows."""
    count = generator.poisson(4 * age**1.5)
    heights = np.sort(generator.uniform(0.15, 0.85, count))
    for height in heights:
        dip = generator.normal(0.01, 0.015)
        ends = generator.uniform(-0.12, 0.12, 2)
        raised = np.array([0, -height * chart.unit])
        # Place from brow to brow, and how far from the level there, x and y.
        line = ((0, ends[0], 0.03), (0.3, 0, 0), (0.5, 0, dip), (0.7, 0, 0), (1, ends[1], 0.03))
        points = [
            chart.between(19, 24, place) + raised + [x * chart.unit, y * chart.unit]
            for place, x, y in line
        ]
        wrinkle(points, generator.uniform(0.15, 0.8) * age)
    for brow, inward in ((21, 1), (22, -1)):
        strength = generator.uniform(-0.5, 0.9) * age
        top = chart.offset(brow, inward * 0.03, -0.12)
        wrinkle([top, chart.offset(brow, inward * 0.04, 0.08)], strength)


def _eye_folds(chart, generator, age, wrinkle, side) -> None:
    """The crease of the upper lid, the bag below the eye, crow's feet."""
    outer, inner, outward = side
    upper = (37, 38) if outer == 36 else (44, 43)
    lower = (41, 40) if outer == 36 else (46, 47)
    height = generator.uniform(0.03, 0.075)
    crease = [
        chart.offset(outer, outward * 0.03, -0.01),
        *(chart.offset(lid, 0, -height) for lid in upper),
        chart.offset(inner, 0, -0.02),
    ]
    wrinkle(crease, generator.uniform(0.1, 0.75), 0.014)
    drop = generator.uniform(0.08, 0.13)
    bag = [
        chart.offset(outer, -outward * 0.02, 0.6 * drop),
        *(chart.offset(lid, 0, drop) for lid in lower),
        chart.offset(inner, -outward * 0.01, 0.06),
    ]
    wrinkle(bag, generator.uniform(-0.3, 0.8) * (0.4 + 0.6 * age), 0.016)
    for _ in range(generator.poisson(3 * age**2)):
        turn = generator.uniform(-0.6, 0.7)
        start = chart.offset(outer, outward * generator.uniform(0.05, 0.1), 0.08 * turn)
        reach = chart.unit * generator.uniform(0.08, 0.22)
        end = start + reach * np.array([outward * np.cos(turn), np.sin(turn)])
        wrinkle([start, end], generator.uniform(0.15, 0.6) * age, 0.008)


def _cheek_folds(chart, generator, age, wrinkle, side) -> None:
    """From the wing of the nose past the mouth; from its corner toward the chin."""
    wing, corner, outward = side
    fold = [
        chart.offset(wing, outward * 0.05, -0.04),
        chart.between(wing, corner, 0.5) + [outward * 0.12 * chart.unit, 0],
        chart.offset(corner, outward * 0.11, 0.02),
    ]
    wrinkle(fold, generator.uniform(-0.1, 0.7) * (0.35 + 0.65 * age), 0.018)
    if age > 0.45:
        line = [
            chart.offset(corner, outward * 0.04, 0.04),
            chart.offset(corner, outward * 0.06, 0.22),
        ]
        wrinkle(line, generator.uniform(0, 0.6) * age, 0.015)
