"""What lies behind a face, and flat things in front of it.

Pictures are (size, size, 3) uint8, sRGB.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from prnet.files import visible_files
from prnet.synthetic.noise import octave_noise

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# Clutter is drawn on a canvas of this side: what lies behind a face is mostly out of focus.
CANVAS = 128


class BackgroundFolder:
    """A user's own pictures, found in all sub-folders."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise FileNotFoundError(f"{directory}: no such folder of background pictures")
        self.paths = visible_files(self.directory, PICTURE_SUFFIXES, below=True)
        if not self.paths:
            raise FileNotFoundError(
                f"{directory}: holds no background picture; expected "
                f"{', '.join(sorted(PICTURE_SUFFIXES))} in it or below"
            )

    def read(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """A random square of a random picture, mirrored half of the time, (size, size, 3) uint8.

        Raises:
            ValueError: a file that is no picture.
        """
        path = self.paths[generator.integers(len(self.paths))]
        data = np.fromfile(path, np.uint8)
        try:
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        except cv2.error:  # of a header that promises more than memory holds
            picture = None
        if picture is None:
            raise ValueError(
                f"{path}: not a picture that OpenCV can decode ({len(data)} bytes); "
                "take it out of the folder"
            )
        height, width = picture.shape[:2]
        side = max(1, round(min(height, width) * generator.uniform(0.3, 1.0)))
        top = generator.integers(height - side + 1)
        left = generator.integers(width - side + 1)
        square = cv2.cvtColor(picture[top : top + side, left : left + side], cv2.COLOR_BGR2RGB)
        square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(square[:, ::-1]) if generator.uniform() < 0.5 else square


def procedural_background(generator: np.random.Generator, size: int) -> np.ndarray:
    """One of several kinds of made-up surroundings, (size, size, 3) uint8."""
    make = KINDS[generator.choice(len(KINDS), p=KIND_SHARES)]
    canvas = make(generator)
    # A room is rarely lit evenly.
    if generator.uniform() < 0.5:
        canvas = canvas * (1 + generator.uniform(0, 0.5) * _ramp(generator)[..., None])
    canvas = np.clip(canvas, 0, 1).astype(np.float32)
    if generator.uniform() < 0.35:
        canvas = cv2.GaussianBlur(canvas, (0, 0), generator.uniform(0.5, 5))
    return _enlarged(canvas, size)


def occluder(generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A flat thing in front of the camera: its colours and how much of each pixel it covers.

    Returns:
        (size, size, 3) uint8 and (size, size) float32 in [0, 1].
    """
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    draw = OCCLUDERS[generator.choice(len(OCCLUDERS), p=OCCLUDER_SHARES)]
    for _ in range(1 + (generator.uniform() < 0.25)):
        draw(generator, mask)
    alpha = mask.astype(np.float32) / 255
    if generator.uniform() < 0.3:
        alpha = cv2.GaussianBlur(alpha, (0, 0), generator.uniform(0.5, 3))
    alpha = np.clip(cv2.resize(alpha, (size, size), interpolation=cv2.INTER_LINEAR), 0, 1)
    if draw is _border and generator.uniform() < 0.6:
        # Beyond the edge of a photo crops are black, now and then white.
        level = 255 * (generator.uniform() < 0.15)
        return np.full((size, size, 3), level, np.uint8), alpha
    return procedural_background(generator, size), alpha


def _enlarged(canvas: np.ndarray, size: int) -> np.ndarray:  # (CANVAS, CANVAS, 3), in [0, 1]
    interpolation = cv2.INTER_CUBIC if size > CANVAS else cv2.INTER_AREA
    picture = cv2.resize(canvas, (size, size), interpolation=interpolation)
    picture *= 255
    return np.clip(np.rint(picture, out=picture), 0, 255, out=picture).astype(np.uint8)


def _color(generator: np.random.Generator, spread: float = 0.07) -> np.ndarray:
    """A colour, (3,): any brightness, mostly muted, a few vivid."""
    if generator.uniform() < 0.15:
        spread = 0.3
    color = generator.beta(0.9, 1.1) + spread * generator.standard_normal(3)
    return np.clip(color, 0, 1)


def _ramp(generator: np.random.Generator) -> np.ndarray:
    """A plane from -1 to 1 in some direction, (CANVAS, CANVAS)."""
    angle = generator.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, CANVAS, dtype=np.float32)
    plane = np.cos(angle) * axis + np.sin(angle) * axis[:, None]
    return plane / np.abs(plane).max()


def _mix(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between two colours (3,) by a share (CANVAS, CANVAS), (CANVAS, CANVAS, 3) float32."""
    share = np.clip(share, 0, 1)[..., None]
    return ((1 - share) * first + share * second).astype(np.float32)


def _points(generator: np.random.Generator, count: int, spread: float) -> np.ndarray:
    """A convex polygon's corners somewhere on the canvas, (K, 2) int32."""
    center = generator.uniform(-0.1, 1.1, 2)
    points = center + spread * generator.standard_normal((count, 2))
    return cv2.convexHull((points * CANVAS).astype(np.int32))[:, 0]


def _studio(generator: np.random.Generator) -> np.ndarray:
    """A backdrop with one soft light."""
    center = generator.uniform(0, 1, 2)
    axis = np.linspace(0, 1, CANVAS)
    distance = np.hypot(axis - center[0], axis[:, None] - center[1])
    falloff = np.exp(-((distance / generator.uniform(0.4, 1.5)) ** 2))
    color = _color(generator)
    if generator.uniform() < 0.35:
        color = np.full(3, generator.uniform(0.8, 1.0)) * np.clip(
            generator.normal(1, 0.02, 3), 0, 1
        )
    return _mix(falloff, color * generator.uniform(0.4, 1), color)


def _gradient(generator: np.random.Generator) -> np.ndarray:
    bent = (_ramp(generator) + 1) / 2 + 0.15 * octave_noise(generator, CANVAS, (2, 3))
    return _mix(bent, _color(generator), _color(generator))


def _clouds(generator: np.random.Generator) -> np.ndarray:
    first = octave_noise(
        generator, CANVAS, (3, 6, 12, 24, 48), persistence=generator.uniform(0.4, 0.9)
    )
    second = octave_noise(generator, CANVAS, (2, 4, 8, 16))
    canvas = _mix(0.5 + 0.4 * first, _color(generator), _color(generator))
    share = np.clip(0.3 * second, 0, 1)[..., None]
    return canvas * (1 - share) + share * _color(generator)


def _clutter(generator: np.random.Generator) -> np.ndarray:
    """Furniture, windows, people, signs: shapes in front of each other."""
    canvas = np.ascontiguousarray(_gradient(generator))
    for _ in range(generator.integers(4, 22)):
        color = tuple(map(float, _color(generator, 0.12)))
        kind = generator.integers(4)
        if kind == 0:
            cv2.fillConvexPoly(canvas, _points(generator, 5, generator.uniform(0.05, 0.3)), color)
        elif kind == 1:
            corner = generator.uniform(-0.2, 1.0, 2) * CANVAS
            other = corner + generator.exponential(0.25, 2) * CANVAS
            cv2.rectangle(
                canvas, corner.astype(int).tolist(), other.astype(int).tolist(), color, -1
            )
        elif kind == 2:
            ends = (generator.uniform(-0.2, 1.2, (2, 2)) * CANVAS).astype(int).tolist()
            cv2.line(canvas, *ends, color, int(generator.integers(1, 9)))
        else:
            center = (generator.uniform(0, 1, 2) * CANVAS).astype(int).tolist()
            axes = (generator.exponential(0.12, 2) * CANVAS + 1).astype(int).tolist()
            cv2.ellipse(canvas, center, axes, generator.uniform(0, 180), 0, 360, color, -1)
    grain = octave_noise(generator, CANVAS, (32, 64, 128), persistence=1.0)
    canvas = canvas * (1 + generator.uniform(0, 0.12) * grain[..., None])
    if generator.uniform() < 0.7:
        canvas = cv2.GaussianBlur(canvas, (0, 0), generator.uniform(0.5, 4))
    return canvas


def _foliage(generator: np.random.Generator) -> np.ndarray:
    """Leaves: small bright blades over darkness, in greens or autumn colours."""
    hue = generator.uniform(-0.15, 0.3)
    leaf = np.array([0.3 + hue, 0.45, 0.15]) * generator.uniform(0.5, 1.6)
    depth = octave_noise(generator, CANVAS, (4, 8, 16, 32))
    canvas = _mix(0.4 + 0.3 * depth, leaf * 0.25, leaf * 0.9)
    count = int(generator.integers(80, 260))
    centers = generator.uniform(0, CANVAS, (count, 2))
    angles = generator.uniform(0, np.pi, count)
    long = generator.uniform(0.5, 1.2, count) * generator.uniform(2, 12)
    shades = leaf * generator.uniform(0.3, 1.8, (count, 1)) + generator.normal(0, 0.04, (count, 3))
    for center, angle, length, shade in zip(centers, angles, long, shades, strict=True):
        along = length * np.array([np.cos(angle), np.sin(angle)])
        across = 0.3 * np.array([-along[1], along[0]])
        blade = center + np.stack([along, across, -along, -across])
        cv2.fillConvexPoly(canvas, np.rint(blade).astype(np.int32), tuple(map(float, shade)))
    return canvas


def _bokeh(generator: np.random.Generator) -> np.ndarray:
    """Lights out of focus."""
    canvas = _gradient(generator) * np.float32(generator.uniform(0.1, 0.7))
    radius = generator.uniform(3, 14)
    lights = np.zeros_like(canvas)
    for _ in range(generator.integers(8, 45)):
        center = generator.uniform(0, CANVAS, 2).astype(int).tolist()
        light = generator.uniform(0.1, 0.7) * (0.6 + 0.4 * _color(generator, 0.4))
        disc = int(radius * generator.uniform(0.6, 1.3))
        cv2.circle(lights, center, disc, tuple(map(float, light)), -1)
    return cv2.GaussianBlur(canvas + lights, (0, 0), 0.8)


def _pattern(generator: np.random.Generator) -> np.ndarray:
    """Boards, bricks, blinds, tiles: periodic in one or two directions, slightly in perspective."""
    axis = np.linspace(-1, 1, CANVAS)
    angle = generator.choice([0, np.pi / 2, generator.uniform(0, np.pi)]) + generator.normal(
        0, 0.04
    )
    x = np.cos(angle) * axis + np.sin(angle) * axis[:, None]
    y = np.cos(angle) * axis[:, None] - np.sin(angle) * axis
    depth = 1 + generator.uniform(-0.4, 0.4) * x
    rows = y * depth * generator.uniform(2, 12)
    columns = x * generator.uniform(1.5, 8) + 0.5 * (np.floor(rows) % 2)
    gap = generator.uniform(0.05, 0.5)
    seam = rows % 1 < gap
    if generator.uniform() < 0.5:
        seam |= columns % 1 < gap * generator.uniform(0.3, 1)
    shade = generator.normal(1, 0.12, 256)
    each = shade[(np.floor(rows) * 7 + np.floor(columns) * 13).astype(int) % 256]
    grain = octave_noise(generator, CANVAS, (8, 32, 64))
    canvas = _mix(seam.astype(float), _color(generator), _color(generator))
    return canvas * (each * (1 + 0.07 * grain))[..., None]


def _fabric(generator: np.random.Generator) -> np.ndarray:
    """Cloth: a fine weave, checks or none, and folds."""
    folds = octave_noise(generator, CANVAS, (3, 5, 8))
    axis = np.arange(CANVAS) + 4 * folds
    period = generator.uniform(2.5, 16)
    across, along = (np.sin(2 * np.pi * field / period) for field in (axis, axis.T))
    weave = (across + generator.uniform(0, 1) * along) / 2
    canvas = _mix(0.5 + generator.uniform(0.1, 1) * weave, _color(generator), _color(generator))
    return canvas * (1 + generator.uniform(0.05, 0.25) * folds)[..., None]


def _dark(generator: np.random.Generator) -> np.ndarray:
    return _clouds(generator) * generator.uniform(0, 0.15)


def _polygon(generator: np.random.Generator, mask: np.ndarray) -> None:
    corners = _points(generator, int(generator.integers(3, 9)), generator.uniform(0.06, 0.22))
    cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_AA)


def _ellipse(generator: np.random.Generator, mask: np.ndarray) -> None:
    center = (generator.normal(0.5, 0.3, 2) * CANVAS).astype(int).tolist()
    axes = (generator.uniform(0.07, 0.3, 2) * CANVAS).astype(int).tolist()
    turn = generator.uniform(0, 180)
    cv2.ellipse(mask, center, axes, turn, 0, 360, 255, -1, cv2.LINE_AA)


def _stroke(generator: np.random.Generator, mask: np.ndarray) -> None:
    """A bent band such as an arm, a strap or a branch."""
    middle = generator.uniform(0.1, 0.9, 2)
    ends = generator.uniform(-0.3, 1.3, (2, 2))
    share = np.linspace(0, 1, 12)[:, None]
    path = (1 - share) ** 2 * ends[0] + 2 * share * (1 - share) * middle + share**2 * ends[1]
    width = int(np.exp(generator.uniform(np.log(1), np.log(22))))
    cv2.polylines(mask, [np.rint(path * CANVAS).astype(np.int32)], False, 255, width, cv2.LINE_AA)


def _bars(generator: np.random.Generator, mask: np.ndarray) -> None:
    """Parallel bars: a fence, a blind, strands."""
    angle = generator.uniform(0, np.pi)
    axis = np.linspace(-1, 1, CANVAS)
    phase = (np.cos(angle) * axis + np.sin(angle) * axis[:, None]) * generator.uniform(1, 4)
    mask[(phase + generator.uniform()) % 1 < generator.uniform(0.05, 0.3)] = 255


def _border(generator: np.random.Generator, mask: np.ndarray) -> None:
    """A band along one side of the picture."""
    depth = int(CANVAS * generator.beta(1.2, 3.5))
    view = np.rot90(mask, generator.integers(4))
    view[:depth] = 255


KINDS: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (
    _studio,
    _gradient,
    _clouds,
    _clutter,
    _foliage,
    _bokeh,
    _pattern,
    _fabric,
    _dark,
)
KIND_SHARES = (0.2, 0.08, 0.12, 0.27, 0.09, 0.05, 0.09, 0.05, 0.05)
OCCLUDERS: tuple[Callable[[np.random.Generator, np.ndarray], None], ...] = (
    _polygon,
    _ellipse,
    _stroke,
    _bars,
    _border,
)
OCCLUDER_SHARES = (0.28, 0.2, 0.25, 0.04, 0.23)
