"""What `looks`, `shading` and `shadow` say of a sample's pixels, as one compiled loop for a CPU.

Every pixel is looked up, lit and written at once, in float64, so that nothing but the picture goes
through memory. The formulas are those of the torch modules, which remain what they are and what a
GPU runs; the two agree to rounding.

The loop is compiled once and kept beside this file until the file changes; constants of other
modules are frozen in it, so this file is to be saved anew after they change.

Letters: S side of the picture, R side of the shadow map, L skin layers.
"""

import math

import numba
import numpy as np

from prnet.synthetic.bank import TEXTURE_SIZE
from prnet.synthetic.looks import DULL_HAIR, EYE_HIGHLIGHT, MOUTH_HIGHLIGHT, WET_LIPS
from prnet.synthetic.palette import Canvas, Mesh, Palette
from prnet.synthetic.patterns import BEARD, HASH_BITS, LENSES
from prnet.synthetic.scene import EYE, MOUTH, NO_GROUP, SKIN
from prnet.synthetic.shading import SCLERA_EDGE, SKIN_WRAP
from prnet.synthetic.shadow import BIAS, GRAZING_BIAS, MOST_BIAS
from prnet.synthetic.textures import ABSORPTION, NUM_ABSORBING, SKIN_LAYERS

LIPS, BEARD_LAYER = SKIN_LAYERS.index("lips"), SKIN_LAYERS.index("beard")
NUM_LAYERS = len(SKIN_LAYERS)
ABSORBED = np.array(ABSORPTION)
WRAP = np.array(SKIN_WRAP)
COVERS = NUM_LAYERS - NUM_ABSORBING
# Bits of a half shifted into those of a float make it this many times too small.
FLOAT_FROM_HALF = 2.0**112
Triple = tuple[float, float, float]
# Infinite depths are compared, so those rules of arithmetic stay.
RELAXED = {"contract", "reassoc", "arcp", "nsz"}
compiled = numba.njit(cache=True, error_model="numpy", fastmath=RELAXED, forceinline=True)


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def draw_layer_cpu(
    mesh: Mesh,
    triangle: np.ndarray,  # (S, S), seen at each pixel; -1 where none
    near: np.ndarray,  # (S, S), its depth
    palette: Palette,
    shadow_matrix: np.ndarray,  # (3, 4), shadow map px from crop px
    shadow_depth: np.ndarray,  # (R, R); R = 0: nothing casts a shadow
    canvas: Canvas,
    hiding: float,  # a pixel of at least this alpha hides what is behind it
    is_glass: bool,
) -> None:
    """Draw a layer where it is nearer than what is drawn already."""
    # Arrays are taken out of their tuples once: each time costs a count of references.
    points, normals, attributes, eye_direction, triangles, kinds, two_sided, groups = mesh
    image, attention, depth = canvas
    irradiance, directions, lights = palette.irradiance, palette.directions, palette.lights
    skin = palette.tone, palette.gains, palette.cover_colors, palette.cover_strengths
    hair_color, surface, texture = palette.hair_color, palette.surface, palette.texture
    gaze, eye, eye_colors = palette.gaze, palette.eye, palette.eye_colors
    mouth_colors, face_mask = palette.mouth_colors, palette.face_mask
    paint, highlights = palette.paint, palette.highlights
    tone, gains, cover_colors, cover_strengths = skin
    size = len(near)
    layers = np.zeros(NUM_LAYERS)
    for row in range(size):
        for column in range(size):
            number = triangle[row, column]
            z = near[row, column]
            group = groups[number + 1]
            if group == NO_GROUP or not z > depth[row, column]:
                continue
            i, j, k = triangles[number, 0], triangles[number, 1], triangles[number, 2]
            a, b, c = _weights(points, i, j, k, float(column), float(row))
            normal = _normal(normals, two_sided[number], i, j, k, a, b, c)
            u = _between(attributes, 0, i, j, k, a, b, c)
            v = _between(attributes, 1, i, j, k, a, b, c)
            occlusion = _between(attributes, 2, i, j, k, a, b, c)
            alpha, translucency, is_face = 1.0, 0.0, True
            if group == SKIN:
                scalp = _between(attributes, 3, i, j, k, a, b, c)
                texel = _layers(texture, u, v, layers)
                albedo, gloss, sharpness, translucency = _skin(
                    layers, scalp, tone, gains, cover_colors, cover_strengths, hair_color, surface
                )
                is_face = face_mask[texel]
            elif group == EYE:
                x = _between(eye_direction, 0, i, j, k, a, b, c)
                y = _between(eye_direction, 1, i, j, k, a, b, c)
                deep = _between(eye_direction, 2, i, j, k, a, b, c)
                albedo = _eye(_unit(x, y, deep), gaze, eye, eye_colors)
                gloss, sharpness = EYE_HIGHLIGHT
            elif group == MOUTH:
                kind = kinds[number]
                albedo = mouth_colors[kind, 0], mouth_colors[kind, 1], mouth_colors[kind, 2]
                gloss, sharpness = MOUTH_HIGHLIGHT
            else:
                kind = kinds[number]
                albedo, alpha = _accessory(kind, u, v, paint)
                gloss, sharpness = highlights[kind, 0], highlights[kind, 1]
                is_face = False
            cosine, lit = _dot(normal, directions, 0), 1.0
            if len(shadow_depth):
                lit = _lit(shadow_matrix, shadow_depth, float(column), float(row), z, cosine)
            mirrored, bright = _highlights(
                directions, normal, cosine, occlusion, gloss, sharpness, lit
            )
            for channel in range(3):
                soft = max(_irradiance(irradiance, channel, normal), 0.01) * occlusion
                wrap = WRAP[channel] * translucency
                hard = max((cosine + wrap) / (1 + wrap), 0.0) * lights[0, channel] * lit
                shade = (soft + hard) * albedo[channel]
                shade += mirrored * lights[0, channel] + bright * lights[1, channel]
                behind = image[channel, row, column]
                image[channel, row, column] = behind + alpha * (shade - behind)
            if alpha >= hiding:
                attention[row, column] = is_face
                if not is_glass:
                    depth[row, column] = z


@compiled
def _weights(
    points: np.ndarray, i: int, j: int, k: int, x: float, y: float
) -> tuple[float, float, float]:
    """Barycentric weights of a pixel."""
    u_0, v_0 = points[i, 0] - x, points[i, 1] - y
    u_1, v_1 = points[j, 0] - x, points[j, 1] - y
    u_2, v_2 = points[k, 0] - x, points[k, 1] - y
    edge_0, edge_1, edge_2 = u_1 * v_2 - v_1 * u_2, u_2 * v_0 - v_2 * u_0, u_0 * v_1 - v_0 * u_1
    scale = 1.0 / (edge_0 + edge_1 + edge_2)
    return scale * edge_0, scale * edge_1, scale * edge_2


@compiled
def _between(
    table: np.ndarray, column: int, i: int, j: int, k: int, a: float, b: float, c: float
) -> float:
    return a * table[i, column] + b * table[j, column] + c * table[k, column]


@compiled
def _unit(x: float, y: float, z: float) -> Triple:
    scale = 1 / math.sqrt(max(x * x + y * y + z * z, 1e-20))
    return scale * x, scale * y, scale * z


@compiled
def _dot(vector: Triple, table: np.ndarray, row: int) -> float:
    return vector[0] * table[row, 0] + vector[1] * table[row, 1] + vector[2] * table[row, 2]


@compiled
def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@compiled
def _smooth(value: float, low: float, high: float) -> float:
    share = _clamp((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3 - 2 * share)


@compiled
def _normal(
    normals: np.ndarray, two_sided: bool, i: int, j: int, k: int, a: float, b: float, c: float
) -> Triple:
    x = _between(normals, 0, i, j, k, a, b, c)
    y = _between(normals, 1, i, j, k, a, b, c)
    z = _between(normals, 2, i, j, k, a, b, c)
    # A sheet turns its visible side to the camera.
    if z < 0 and two_sided:
        return _unit(-x, -y, -z)
    return _unit(x, y, z)


@compiled
def _layers(texture: np.ndarray, column: float, row: float, layers: np.ndarray) -> int:
    """Skin layers between four texels, written; the nearest texel."""
    last = TEXTURE_SIZE - 1.0
    column, row = _clamp(column, 0.0, last), _clamp(row, 0.0, last)
    left, top = min(math.floor(column), last - 1), min(math.floor(row), last - 1)
    right, down = column - left, row - top
    first = int(top) * TEXTURE_SIZE + int(left)
    weight_1, weight_2, weight_3 = right * (1 - down), down * (1 - right), right * down
    weight_0 = (1 - right) * (1 - down)
    for layer in range(NUM_LAYERS):
        upper = weight_0 * _float(texture[first, layer])
        upper += weight_1 * _float(texture[first + 1, layer])
        lower = weight_2 * _float(texture[first + TEXTURE_SIZE, layer])
        lower += weight_3 * _float(texture[first + TEXTURE_SIZE + 1, layer])
        layers[layer] = FLOAT_FROM_HALF * (upper + lower)
    return int(np.rint(row)) * TEXTURE_SIZE + int(np.rint(column))


@compiled
def _float(half: int) -> float:
    """A float16 in [0, 1] by its bits, over `FLOAT_FROM_HALF`."""
    return np.uint32(np.uint32(half) << 13).view(np.float32)


@compiled
def _skin(
    layers: np.ndarray,  # (L,)
    scalp: float,
    tone: np.ndarray,  # this and the following as in `Palette`
    gains: np.ndarray,
    cover_colors: np.ndarray,
    cover_strengths: np.ndarray,
    hair_color: np.ndarray,
    surface: np.ndarray,
) -> tuple[Triple, float, float, float]:
    red = green = blue = 0.0
    for layer in range(NUM_ABSORBING):
        amount = gains[layer] * layers[layer]
        red += ABSORBED[layer, 0] * amount
        green += ABSORBED[layer, 1] * amount
        blue += ABSORBED[layer, 2] * amount
    red, green, blue = math.exp(-red), math.exp(-green), math.exp(-blue)
    red, green, blue = tone[0] * red, tone[1] * green, tone[2] * blue
    for cover in range(COVERS):
        share = cover_strengths[cover] * layers[NUM_ABSORBING + cover]
        red += share * (cover_colors[cover, 0] - red)
        green += share * (cover_colors[cover, 1] - green)
        blue += share * (cover_colors[cover, 2] - blue)
    red, green, blue = _clamp(red, 0.0, 1.0), _clamp(green, 0.0, 1.0), _clamp(blue, 0.0, 1.0)
    stubble = surface[0] * scalp
    red += stubble * (hair_color[0] - red)
    green += stubble * (hair_color[1] - green)
    blue += stubble * (hair_color[2] - blue)
    hairy = layers[BEARD_LAYER] * cover_strengths[BEARD_LAYER - NUM_ABSORBING] + stubble
    dull = 1 - DULL_HAIR * min(hairy, 1.0)
    wet = 1 + WET_LIPS * layers[LIPS]
    return (red, green, blue), surface[1] * wet * dull, (28 - 24 * surface[2]) * wet, dull


@compiled
def _eye(direction: Triple, gaze: np.ndarray, eye: np.ndarray, colors: np.ndarray) -> Triple:
    iris_angle, pupil = eye[0], eye[1]
    cosine = direction[0] * gaze[0] + direction[1] * gaze[1] + direction[2] * gaze[2]
    angle = math.acos(_clamp(cosine, -1.0, 1.0))
    radius = angle / iris_angle
    around = math.atan2(direction[1] - gaze[1], direction[0] - gaze[0])
    shade = 1 + 0.22 * math.sin(23 * around + 6 * radius) * math.sin(11 * around - 3)
    shade *= 0.55 + 0.9 * _clamp(radius - pupil, 0.0, 0.5)
    shade *= 1 - 0.75 * _smooth(radius, 0.78, 1.0)
    shade *= 1 - 0.97 * _smooth(radius, pupil + 0.06, pupil - 0.06)
    redness = 0.3 * _smooth(angle, 0.6, 1.3)
    share = _smooth(radius, 1 - SCLERA_EDGE, 1 + SCLERA_EDGE)
    red, green, blue = colors[0, 0] * shade, colors[0, 1] * shade, colors[0, 2] * shade
    return (
        red + share * (colors[1, 0] * (1 - 0.3 * redness) - red),
        green + share * (colors[1, 1] * (1 - redness) - green),
        blue + share * (colors[1, 2] * (1 - redness) - blue),
    )


@compiled
def _accessory(kind: int, u: float, v: float, paint: np.ndarray) -> tuple[Triple, float]:
    """Colour and alpha of `patterns.accessory_color`."""
    scale_u, scale_v, contrast = paint[kind, 6], paint[kind, 7], paint[kind, 8]
    mix, opacity, ragged, seed = paint[kind, 9], paint[kind, 10], paint[kind, 11], paint[kind, 12]
    across, along = u * scale_u, v * scale_v
    cell, alpha = seed * 4093 + math.floor(across), 1.0
    if kind <= BEARD:
        fine = _cell_noise(cell, 0.0)
        bend = 1.2 * math.sin(along + seed) + 2.5 * math.sin(0.11 * across + seed)
        tress = math.sin(0.43 * across + bend) * math.sin(0.19 * across - bend + 2 * seed)
        tress = 0.5 + 0.5 * tress
        share, brightness = tress * tress, 1.1 * fine + 1.1 * tress - 1.1
        length = 1 - ragged * (0.6 * fine + 0.4 * tress)
        alpha = 1 - _smooth(v - length, -0.03, 0.03)
        alpha *= _smooth(opacity + 0.4 - fine + 0.5 * (1 - v), 0.0, 0.6)
        if kind == BEARD:
            alpha *= _smooth(v + 0.2 * fine, 0.05, 0.45)
    else:
        brightness = 2 * _cell_noise(cell, math.floor(along)) - 1
        if kind == LENSES:
            share = _smooth(0.9 * v + 0.35 * u - 0.6 - 0.1 * (seed % 5), 0.1, 0.5)
            alpha = _clamp(opacity * (0.75 + 0.5 * v) + 0.3 * share * mix, 0.0, 0.98)
        else:
            place = along + seed * 0.37
            share = _smooth(place - math.floor(place), 0.45, 0.55)
    share *= mix
    gain = 1 + contrast * brightness
    red = gain * (paint[kind, 0] + share * (paint[kind, 3] - paint[kind, 0]))
    green = gain * (paint[kind, 1] + share * (paint[kind, 4] - paint[kind, 1]))
    blue = gain * (paint[kind, 2] + share * (paint[kind, 5] - paint[kind, 2]))
    return (_clamp(red, 0.0, 1.0), _clamp(green, 0.0, 1.0), _clamp(blue, 0.0, 1.0)), alpha


@compiled
def _cell_noise(column: float, row: float) -> float:
    mixed = (np.int64(column) * 73856093) ^ (np.int64(row) * 19349663)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed ^ (mixed >> 16)) & (2**HASH_BITS - 1)) / 2**HASH_BITS


@compiled
def _lit(
    matrix: np.ndarray, depth: np.ndarray, x: float, y: float, z: float, cosine: float
) -> float:
    """`ShadowMap.lit` of one pixel."""
    last = len(depth) - 1
    across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
    down = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
    toward = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
    slope = math.sqrt(max(1 - cosine * cosine, 0.0)) / max(cosine, 0.05)
    reach = toward + min(BIAS + GRAZING_BIAS * slope, MOST_BIAS)
    left, top = math.floor(across), math.floor(down)
    across -= left
    down -= top
    total = 0.0
    for below in range(2):
        row = int(_clamp(top + below, 0, last))
        for beside in range(2):
            column = int(_clamp(left + beside, 0, last))
            if depth[row, column] <= reach:
                weight = across if beside else 1 - across
                total += weight * (down if below else 1 - down)
    return total


@compiled
def _highlights(
    directions: np.ndarray,  # (3, 3), of `Palette`
    normal: Triple,
    cosine: float,
    occlusion: float,
    gloss: float,
    sharpness: float,
    lit: float,
) -> tuple[float, float]:
    """Highlights of the hard light and of the brightest light."""
    strength = gloss * occlusion * (1 + 3 * _clamp(1 - normal[2], 0.0, 1.0) ** 3)
    lobe = 0.0
    if cosine > 0 and lit > 0:
        lobe = strength * lit * math.exp(sharpness * (_dot(normal, directions, 1) - 1))
    bright = math.exp(0.6 * sharpness * (_dot(normal, directions, 2) - 1))
    return lobe, 0.6 * strength * bright


@compiled
def _irradiance(terms: np.ndarray, channel: int, normal: Triple) -> float:
    """`shading.irradiance`, which may be negative here."""
    x, y, z = normal
    inner = (
        terms[1, channel] + x * terms[4, channel] + y * terms[6, channel] + z * terms[7, channel]
    )
    other = terms[2, channel] + y * terms[5, channel] + z * terms[8, channel]
    return terms[0, channel] + x * inner + y * other + z * terms[3, channel]
