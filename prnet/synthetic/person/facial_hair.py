"""Brows, lashes and beards of one texture, drawn hair by hair.

Every function returns one layer, (H, W) float32 in [0, 1]: how much of the skin hair covers.
"""

from typing import NamedTuple

import numpy as np

from prnet.synthetic.noise import octave_noise, smoothstep
from prnet.synthetic.person.skin_chart import SkinChart, along_path, smooth_path

# Landmarks of each brow and lid from the nose outward, and which way outward is.
BROWS = (((21, 20, 19, 18, 17), -1), ((22, 23, 24, 25, 26), 1))
UPPER_LIDS = (((39, 38, 37, 36), -1), ((42, 43, 44, 45), 1))
LOWER_LIDS = (((39, 40, 41, 36), -1), ((42, 47, 46, 45), 1))
UP = np.array([0.0, -1.0])


class BrowShape(NamedTuple):
    """Lengths in units of the chart."""

    lift: float  # above the landmarks
    arch: float  # further above in the middle
    thickness: float  # of the widest place
    taper: float  # where along the brow it begins to narrow
    start: float  # share left out at the nose
    end: float  # share of its length
    hairs: int
    fill: float  # how opaque between the hairs
    bushiness: float  # disorder of directions


def draw_brow_shape(generator: np.random.Generator) -> BrowShape:
    uniform = generator.uniform
    groomed = uniform() < 0.35
    return BrowShape(
        lift=generator.normal(-0.02, 0.015),
        arch=generator.normal(0.01, 0.02),
        thickness=uniform(0.08, 0.14) if groomed else uniform(0.11, 0.23),
        taper=uniform(0.4, 0.8),
        start=uniform(0, 0.12),
        end=uniform(0.82, 1.08),
        hairs=int(uniform(100, 260)),
        fill=uniform(0.4, 0.95) if groomed else uniform(0.2, 0.8),
        bushiness=uniform(0.05, 0.2) if groomed else uniform(0.15, 0.5),
    )


def brow_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Two brows of one shape, each a little different."""
    shape = draw_brow_shape(generator)
    canvas, body = chart.canvas(), chart.canvas()
    for landmarks, outward in BROWS:
        side = shape._replace(
            lift=shape.lift + generator.normal(0, 0.007),
            thickness=shape.thickness * generator.uniform(0.92, 1.08),
        )
        _one_brow(chart, generator, side, chart.landmarks[list(landmarks)], outward, canvas, body)
    if generator.uniform() < 0.08:
        _hairs_between_brows(chart, generator, canvas)
    filled = chart.blur(chart.finish(body), 0.015)
    gaps = 1 + 0.25 * octave_noise(generator, chart.size, (32, 64), persistence=1.0)
    return np.maximum(chart.finish(canvas), shape.fill * filled * gaps)


def _one_brow(chart, generator, shape: BrowShape, points, outward, canvas, body) -> None:
    step = np.linspace(0, 1, len(points))
    height = shape.lift + shape.arch * np.sin(np.pi * step)
    path = smooth_path(points + chart.unit * height[:, None] * UP)

    def half_width(share: np.ndarray) -> np.ndarray:  # (M,)
        narrow = 1 - smoothstep(share, shape.taper, 1.05)
        blunt = 0.55 + 0.45 * smoothstep(share, 0, 0.25)
        return 0.5 * shape.thickness * chart.unit * np.maximum(narrow * blunt, 0.08)

    share = np.linspace(shape.start, min(shape.end, 1.0), 20)
    middle = along_path(path, share)
    edge = half_width(share)[:, None] * UP
    chart.fill(body, [*(middle + edge), *(middle - edge)[::-1]])

    share = generator.uniform(shape.start, shape.end, shape.hairs)
    across = generator.uniform(-1, 1, shape.hairs)
    ahead = along_path(path, np.clip(share + 0.05, 0, 1))
    roots = along_path(path, np.clip(share, 0, 1))
    tangent = ahead - along_path(path, np.clip(share - 0.05, 0, 1))
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    # Beyond the last landmark the brow goes on straight.
    beyond = np.maximum(share - 1, 0)[:, None] * np.linalg.norm(points[-1] - points[0])
    roots = roots + beyond * tangent + (across * half_width(share))[:, None] * UP
    # At the nose hairs stand up; further out they lie along, from both edges toward the middle.
    rise = (1 - smoothstep(share, 0.05, 0.4)) * 1.4 - 0.5 * across * smoothstep(share, 0.2, 0.6)
    rise += shape.bushiness * generator.standard_normal(shape.hairs)
    lengths = generator.uniform(0.05, 0.1, shape.hairs) * (0.7 + 2.5 * shape.thickness)
    bend = outward * generator.uniform(0, 0.35, shape.hairs)
    directions = tangent + rise[:, None] * UP
    chart.strokes(canvas, roots, directions, lengths, bend=bend, thickness=2)


def _hairs_between_brows(chart, generator, canvas) -> None:
    count = int(generator.uniform(15, 60))
    share = generator.uniform(0, 1, (count, 1))
    roots = (1 - share) * chart.landmarks[21] + share * chart.landmarks[22]
    roots = roots + 0.04 * chart.unit * generator.standard_normal((count, 2))
    directions = UP + 0.4 * generator.standard_normal((count, 2))
    lengths = generator.uniform(0.04, 0.08, count)
    chart.strokes(canvas, roots, directions, lengths, bend=np.zeros(count), shades=(0.35, 0.6))


def lash_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """The dark edge of the lids, lashes, and eyeliner on some."""
    canvas, liner = chart.canvas(), chart.canvas()
    length = generator.uniform(0.02, 0.07)
    upper_line, lower_line = generator.uniform(0.4, 1), generator.uniform(0.05, 0.5)
    lined = generator.uniform() < 0.3
    width, wing = generator.uniform(0.02, 0.06), generator.uniform(0, 0.12)
    for lids, strength, scale, way in (
        (UPPER_LIDS, upper_line, 1.0, -1),
        (LOWER_LIDS, lower_line, 0.5, 1),
    ):
        for landmarks, outward in lids:
            path = smooth_path(chart.landmarks[list(landmarks)])
            chart.line(canvas, path, 0.012 + 0.008 * strength, strength)
            count = int(34 * scale)
            share = generator.uniform(0.1, 1, count)
            roots = along_path(path, share)
            directions = np.stack(
                [outward * (share - 0.25) * 1.6, np.full(count, float(way))], -1
            ) + 0.15 * generator.standard_normal((count, 2))
            lengths = scale * length * generator.uniform(0.6, 1.2, count) * (0.5 + 0.5 * share)
            bend = outward * way * generator.uniform(0, 0.4, count)
            shades = (0.7 * strength, strength)
            chart.strokes(canvas, roots, directions, lengths, bend=bend, shades=shades)
            if lined and way < 0:
                tip = path[-1] + chart.unit * wing * np.array([outward, -0.5])
                chart.line(liner, np.concatenate([path[6:], [tip]]), width)
            elif lined:
                chart.line(liner, path, 0.5 * width, 0.7)
    return np.maximum(chart.finish(canvas), chart.blur(0.9 * chart.finish(liner), 0.006))


def beard_layer(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Stubble, beard, moustache or goatee: where hair grows, and hairs."""
    density = chart.blur(_beard_density(chart, generator), generator.uniform(0.01, 0.07))
    patches = octave_noise(generator, chart.size, (8, 16, 32))
    density = np.clip(density * (1 + generator.uniform(0, 0.35) * patches), 0, 1)
    density *= 1 - smoothstep(chart.blur(chart.lips, 0.01), 0.15, 0.5)

    length = generator.choice([0.008, 0.02, 0.05]) * generator.uniform(0.7, 1.5)
    count = int(generator.uniform(1500, 2600))
    low, high = chart.landmarks.min(0), chart.landmarks.max(0) + [0, 0.35 * chart.unit]
    roots = generator.uniform([low[0], chart.landmarks[33, 1]], high, (count, 2))
    cell = np.clip(np.rint(roots), 0, chart.size - 1).astype(int)
    roots = roots[density[cell[:, 1], cell[:, 0]] > generator.uniform(0, 1, count)]
    away = (roots - chart.landmarks[51]) / chart.unit
    directions = np.stack([0.5 * away[:, 0], np.full(len(roots), 1.0)], -1)
    directions += 0.35 * generator.standard_normal(directions.shape)
    lengths = length * generator.uniform(0.5, 1.5, len(roots))
    bend = 0.3 * generator.standard_normal(len(roots))
    canvas = chart.canvas()
    chart.strokes(canvas, roots, directions, lengths, bend=bend, thickness=2)
    shadow = generator.uniform(0.25, 0.95)
    grain = 1 + 0.2 * octave_noise(generator, chart.size, (64, 128), persistence=1.0)
    return np.maximum(shadow * density * grain, chart.finish(canvas) * (density > 0.02))


def _beard_density(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """One style of where a beard grows, (H, W), crisp."""
    style = generator.choice(6, p=[0.42, 0.15, 0.15, 0.1, 0.1, 0.08])
    moustache = _moustache(chart, generator)
    if style <= 1:
        cheeks = _cheeks(chart, generator)
        return np.maximum(cheeks, moustache) if style == 0 else cheeks
    goatee = _goatee(chart, generator)
    if style == 2:
        return np.maximum(goatee, moustache)
    if style == 3:
        return moustache
    if style == 4:
        return goatee
    sideburn = generator.uniform(0.3, 0.9)
    burns = np.zeros_like(moustache)
    for outer, lobe, jaw, inward in ((0, 1, 3, 1), (16, 15, 13, -1)):
        top, bottom = chart.offset(outer, 0, -0.1), chart.between(lobe, jaw, sideburn)
        across = np.array([inward * 0.22 * chart.unit, 0])
        burns = np.maximum(burns, chart.region([top, top + across, bottom + across, bottom]))
    return burns


def _cheeks(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """Cheeks, jaw, chin and throat below a line from the ears to the mouth."""
    height = generator.uniform(-0.05, 0.2)
    throat = generator.uniform(0.08, 0.4)
    jaw = chart.landmarks[1:16]
    lower = [
        point + [0, throat * chart.unit * np.sin(np.pi * k / 14)] for k, point in enumerate(jaw)
    ]
    right_cheek = chart.between(54, 13, 0.5) - [0, height * chart.unit]
    left_cheek = chart.between(48, 3, 0.5) - [0, height * chart.unit]
    front = 0.16 * chart.unit
    # Down one side of the face, along the throat, up the other, back above the mouth.
    outline = [
        chart.offset(0, 0.0, -0.15),
        *lower,
        chart.offset(16, 0.0, -0.15),
        chart.offset(16, 0, -0.15) - [front, 0],
        chart.landmarks[15] - [front, 0],
        right_cheek,
        chart.between(54, 35, 0.3),
        chart.landmarks[54],
        chart.landmarks[57],
        chart.landmarks[48],
        chart.between(48, 31, 0.3),
        left_cheek,
        chart.landmarks[1] + [front, 0],
        chart.offset(0, 0, -0.15) + [front, 0],
    ]
    region = chart.region(outline)
    if generator.uniform() < 0.6:
        # Bare beside the tuft below the lower lip.
        for corner, inward in ((58, -1), (56, 1)):
            bare = chart.blob(chart.offset(corner, inward * 0.06, 0.1), (0.09, 0.07))
            region *= 1 - generator.uniform(0.3, 1) * bare
    return region


def _moustache(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    reach, drop = generator.uniform(0.0, 0.08), generator.uniform(-0.02, 0.12)
    return chart.region(
        [
            chart.between(31, 50, 0.35),
            chart.between(33, 51, 0.3),
            chart.between(35, 52, 0.35),
            chart.offset(54, reach, drop - 0.03),
            chart.offset(54, reach - 0.02, drop + 0.03),
            *chart.landmarks[[54, 53, 52, 51, 50, 49, 48]],
            chart.offset(48, 0.02 - reach, drop + 0.03),
            chart.offset(48, -reach, drop - 0.03),
        ]
    )


def _goatee(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    width = generator.uniform(0.35, 1.0)
    bottom = generator.uniform(0.0, 0.2)
    left, right = chart.between(57, 48, width), chart.between(57, 54, width)
    return chart.region(
        [
            left,
            chart.landmarks[57] + [0, 0.02 * chart.unit],
            right,
            chart.between(9, 10, width) + [0, bottom * chart.unit],
            chart.offset(8, 0, bottom + 0.03),
            chart.between(7, 6, width) + [0, bottom * chart.unit],
        ]
    )
