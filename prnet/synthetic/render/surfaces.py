"""What a strip of pixels is made of: skin, eyes, mouth, hair, cloth, glass.

Each function fills colour, alpha, gloss, sharpness and translucency of a strip, and tells which
of its pixels are face. Colours are linear RGB.
"""

import math

import numpy as np

from prnet.synthetic.person.textures import ABSORPTION, NUM_ABSORBING, SKIN_LAYERS
from prnet.synthetic.render.bank import TEXTURE_SIZE
from prnet.synthetic.render.palette import (
    DULL_HAIR,
    EYE_HIGHLIGHT,
    MOUTH_HIGHLIGHT,
    WET_LIPS,
    Palette,
)
from prnet.synthetic.render.strips import (
    ALPHA,
    COLOR,
    FREE,
    GLOSS,
    SHARPNESS,
    STRIP,
    TRANSLUCENCY,
    F,
    clamp,
    compiled,
    exp,
    sin,
    smooth,
)
from prnet.synthetic.worn.patterns import BEARD, LENSES

LIPS, BEARD_LAYER = SKIN_LAYERS.index("lips"), SKIN_LAYERS.index("beard")
NUM_LAYERS = len(SKIN_LAYERS)
ABSORBED = np.array(ABSORPTION, np.float32)
NUM_COVERS = NUM_LAYERS - NUM_ABSORBING
LAYERS = FREE  # rows of the skin's layers
SCALP = LAYERS + NUM_LAYERS
ACROSS, ALONG, FINE, DOWN, UP = range(FREE, FREE + 5)
# The bits of a float16, put where a float32 has them, say a number this many times too small.
FLOAT_FROM_HALF = F(2.0**112)
HASH_BITS = 16
SCLERA_EDGE = 0.06  # half width of the edge of the iris, over its radius


@compiled
def between(
    table: np.ndarray,  # (V, columns)
    column: int,
    corners: np.ndarray,  # (3, STRIP), vertices
    weights: np.ndarray,  # (3, STRIP), theirs
    pixel: int,
) -> float:
    total = weights[0, pixel] * table[corners[0, pixel], column]
    total += weights[1, pixel] * table[corners[1, pixel], column]
    return total + weights[2, pixel] * table[corners[2, pixel], column]


@compiled
def skin(
    strip: np.ndarray,  # (ROWS, STRIP), written
    is_face: np.ndarray,  # (STRIP,), written
    count: int,  # of the strip's pixels
    corners: np.ndarray,  # (3, STRIP)
    weights: np.ndarray,  # (3, STRIP)
    attributes: np.ndarray,  # of `Layer`
    palette: Palette,
) -> None:
    """Albedo of `prnet.synthetic.person.textures.compose_albedo` with the scalp's stubble over it;
    lips shine, hair does not."""
    texture, face_mask, gains = palette.texture, palette.face_mask, palette.gains
    for pixel in range(count):
        u = between(attributes, 0, corners, weights, pixel)
        v = between(attributes, 1, corners, weights, pixel)
        strip[SCALP, pixel] = between(attributes, 3, corners, weights, pixel)
        is_face[pixel] = face_mask[_look_up(texture, u, v, strip, pixel)]

    tone, hair_color = palette.tone, palette.hair_color
    for channel in range(3):
        base, hair = tone[channel], hair_color[channel]
        stubble = palette.surface[0]
        a_0, a_1 = ABSORBED[0, channel] * gains[0], ABSORBED[1, channel] * gains[1]
        a_2, a_3 = ABSORBED[2, channel] * gains[2], ABSORBED[3, channel] * gains[3]
        for pixel in range(STRIP):
            absorbed = a_0 * strip[LAYERS, pixel] + a_1 * strip[LAYERS + 1, pixel]
            absorbed += a_2 * strip[LAYERS + 2, pixel] + a_3 * strip[LAYERS + 3, pixel]
            strip[COLOR + channel, pixel] = base * exp(-absorbed)
        for cover in range(NUM_COVERS):
            color = palette.cover_colors[cover, channel]
            strength = palette.cover_strengths[cover]
            for pixel in range(STRIP):
                value = strip[COLOR + channel, pixel]
                share = strength * strip[LAYERS + NUM_ABSORBING + cover, pixel]
                strip[COLOR + channel, pixel] = value + share * (color - value)
        for pixel in range(STRIP):
            value = clamp(strip[COLOR + channel, pixel], F(0), F(1))
            strip[COLOR + channel, pixel] = value + stubble * strip[SCALP, pixel] * (hair - value)
    stubble, specular, roughness = palette.surface
    beard = palette.cover_strengths[BEARD_LAYER - NUM_ABSORBING]
    sharp = F(28) - F(24) * roughness
    for pixel in range(STRIP):
        hairy = beard * strip[LAYERS + BEARD_LAYER, pixel] + stubble * strip[SCALP, pixel]
        dull = F(1) - F(DULL_HAIR) * min(hairy, F(1))
        wet = F(1) + F(WET_LIPS) * strip[LAYERS + LIPS, pixel]
        strip[ALPHA, pixel] = F(1)
        strip[GLOSS, pixel] = specular * wet * dull
        strip[SHARPNESS, pixel] = sharp * wet
        strip[TRANSLUCENCY, pixel] = dull


@compiled
def _look_up(
    texture: np.ndarray,  # (texels, L), bits of float16
    column: float,
    row: float,
    strip: np.ndarray,  # its layers written
    pixel: int,
) -> int:
    """Skin layers between four texels; the nearest texel."""
    last = TEXTURE_SIZE - 1.0
    column, row = clamp(column, 0.0, last), clamp(row, 0.0, last)
    left, top = min(math.floor(column), last - 1), min(math.floor(row), last - 1)
    right, down = column - left, row - top
    first = int(top) * TEXTURE_SIZE + int(left)
    weight_0, weight_1 = F((1 - right) * (1 - down)), F(right * (1 - down))
    weight_2, weight_3 = F(down * (1 - right)), F(right * down)
    for layer in range(NUM_LAYERS):
        upper = weight_0 * _float(texture[first, layer])
        upper += weight_1 * _float(texture[first + 1, layer])
        lower = weight_2 * _float(texture[first + TEXTURE_SIZE, layer])
        lower += weight_3 * _float(texture[first + TEXTURE_SIZE + 1, layer])
        strip[LAYERS + layer, pixel] = FLOAT_FROM_HALF * (upper + lower)
    return int(np.rint(row)) * TEXTURE_SIZE + int(np.rint(column))


@compiled
def _float(half: int) -> float:
    """A float16 in [0, 1] by its bits, over `FLOAT_FROM_HALF`."""
    return np.uint32(np.uint32(half) << 13).view(np.float32)


@compiled
def eyes(
    strip: np.ndarray,  # (ROWS, STRIP), written
    is_face: np.ndarray,  # (STRIP,), written
    count: int,
    corners: np.ndarray,  # (3, STRIP)
    weights: np.ndarray,  # (3, STRIP)
    directions: np.ndarray,  # (V, 3), from the eye's centre
    palette: Palette,
) -> None:
    """Sclera, limbus, iris with radial fibres, pupil; few pixels, so one at a time."""
    gaze, colors = palette.gaze, palette.eye_colors
    iris_angle, pupil = palette.eye
    for pixel in range(count):
        x = between(directions, 0, corners, weights, pixel)
        y = between(directions, 1, corners, weights, pixel)
        z = between(directions, 2, corners, weights, pixel)
        scale = 1 / math.sqrt(max(x * x + y * y + z * z, 1e-20))
        x, y, z = scale * x, scale * y, scale * z
        angle = math.acos(clamp(x * gaze[0] + y * gaze[1] + z * gaze[2], -1.0, 1.0))
        radius = F(angle / iris_angle)
        around = math.atan2(y - gaze[1], x - gaze[0])
        fibres = sin(F(23 * around + 6 * radius)) * sin(F(11 * around - 3))
        shade = F(1) + F(0.22) * fibres
        shade *= F(0.55) + F(0.9) * clamp(radius - pupil, F(0), F(0.5))
        shade *= F(1) - F(0.75) * smooth(radius, F(0.78), F(1))
        shade *= F(1) - F(0.97) * smooth(radius, pupil + F(0.06), pupil - F(0.06))
        redness = F(0.3) * smooth(F(angle), F(0.6), F(1.3))
        share = smooth(radius, F(1 - SCLERA_EDGE), F(1 + SCLERA_EDGE))
        for channel in range(3):
            iris = colors[0, channel] * shade
            red = F(0.3) * redness if channel == 0 else redness
            strip[COLOR + channel, pixel] = iris + share * (
                colors[1, channel] * (F(1) - red) - iris
            )
        is_face[pixel] = True
    _uniform(strip, EYE_HIGHLIGHT)


@compiled
def mouth(
    strip: np.ndarray,  # (ROWS, STRIP), written
    is_face: np.ndarray,  # (STRIP,), written
    color: np.ndarray,  # (3,)
) -> None:
    for channel in range(3):
        strip[COLOR + channel] = color[channel]
    is_face[:] = True
    _uniform(strip, MOUTH_HIGHLIGHT)


@compiled
def _uniform(strip: np.ndarray, highlight: tuple[float, float]) -> None:
    """Nothing shines through; gloss and sharpness are the same everywhere."""
    strip[ALPHA] = F(1)
    strip[TRANSLUCENCY] = F(0)
    strip[GLOSS], strip[SHARPNESS] = F(highlight[0]), F(highlight[1])


@compiled
def accessories(
    strip: np.ndarray,  # (ROWS, STRIP), written
    is_face: np.ndarray,  # (STRIP,), written
    count: int,
    corners: np.ndarray,  # (3, STRIP)
    weights: np.ndarray,  # (3, STRIP)
    attributes: np.ndarray,  # of `Layer`
    kind: int,
    paint: np.ndarray,  # (P,), of `patterns.Paint`
    highlight: np.ndarray,  # (2,)
) -> None:
    """Hair of strands and tresses, striped cloth, lenses with the sky in them."""
    is_hair, is_lens = kind <= BEARD, kind == LENSES
    scale_u, scale_v, contrast = paint[6], paint[7], paint[8]
    mix, opacity, ragged, seed = paint[9], paint[10], paint[11], paint[12]
    is_face[:] = False
    _uniform(strip, highlight)
    # Where one cell ends and the next begins is worked out in float64.
    for pixel in range(count):
        u = between(attributes, 0, corners, weights, pixel)
        v = between(attributes, 1, corners, weights, pixel)
        across, along = u * scale_u, v * scale_v
        row = 0.0 if is_hair else math.floor(along)
        strip[FINE, pixel] = _cell_noise(seed * 4093.0 + math.floor(across), row)
        place = along + seed * 0.37
        strip[DOWN, pixel], strip[UP, pixel] = v, u
        strip[ACROSS, pixel] = across
        strip[ALONG, pixel] = along if is_hair else place - math.floor(place)
    if is_hair:
        phase = F(seed % (2 * math.pi))
        for pixel in range(STRIP):
            across, along, fine = strip[ACROSS, pixel], strip[ALONG, pixel], strip[FINE, pixel]
            v = strip[DOWN, pixel]
            bend = F(1.2) * sin(along + phase) + F(2.5) * sin(F(0.11) * across + phase)
            tress = sin(F(0.43) * across + bend) * sin(F(0.19) * across - bend + F(2) * phase)
            tress = F(0.5) + F(0.5) * tress
            length = F(1) - ragged * (F(0.6) * fine + F(0.4) * tress)
            alpha = F(1) - smooth(v - length, F(-0.03), F(0.03))
            alpha *= smooth(opacity + F(0.4) - fine + F(0.5) * (F(1) - v), F(0), F(0.6))
            strip[ALPHA, pixel] = alpha
            strip[ACROSS, pixel] = tress * tress * mix
            strip[ALONG, pixel] = F(1) + contrast * F(1.1) * (fine + tress - F(1))
        if kind == BEARD:
            for pixel in range(STRIP):
                rooted = strip[DOWN, pixel] + F(0.2) * strip[FINE, pixel]
                strip[ALPHA, pixel] *= smooth(rooted, F(0.05), F(0.45))
    else:
        fifth = F(0.1 * (seed % 5))
        for pixel in range(STRIP):
            u, v = strip[UP, pixel], strip[DOWN, pixel]
            brightness = F(2) * strip[FINE, pixel] - F(1)
            share = smooth(strip[ALONG, pixel], F(0.45), F(0.55))
            if is_lens:
                share = smooth(F(0.9) * v + F(0.35) * u - F(0.6) - fifth, F(0.1), F(0.5))
                alpha = opacity * (F(0.75) + F(0.5) * v) + F(0.3) * share * mix
                strip[ALPHA, pixel] = clamp(alpha, F(0), F(0.98))
            strip[ACROSS, pixel] = share * mix
            strip[ALONG, pixel] = F(1) + contrast * brightness
    for channel in range(3):
        first, second = paint[channel], paint[3 + channel]
        for pixel in range(STRIP):
            value = first + strip[ACROSS, pixel] * (second - first)
            strip[COLOR + channel, pixel] = clamp(strip[ALONG, pixel] * value, F(0), F(1))


@compiled
def _cell_noise(column: float, row: float) -> float:
    """Uniform noise in [0, 1), one value for every cell: an integer hash, so that a surface needs
    no table."""
    mixed = (np.int64(column) * 73856093) ^ (np.int64(row) * 19349663)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed ^ (mixed >> 16)) & (2**HASH_BITS - 1)) / 2**HASH_BITS
