"""A sample's pixels as compiled loops: what is seen there, its shadow, its light.

The pixels that a layer shows are sorted by what is seen there, and drawn a strip at a time: what
has to be looked up is, pixel by pixel, and then loops over the strip compute, several pixels an
instruction. Nothing but the picture goes through memory.

Matte: irradiance of the soft lights times occlusion, plus the hard light with a clamped cosine
that reaches beyond the terminator on skin. Highlights: a spherical Gaussian
exp(sharpness (n . h - 1)) about the half vector h of each light. Everything is linear RGB, in the
crop frame (x right, y down, z toward the camera).

Letters: S side of the picture, R side of the shadow map.
"""

import math

import numpy as np

from prnet.geometry.compiled import cached
from prnet.synthetic.render.palette import Palette
from prnet.synthetic.render.scene import ACCESSORY_LOOK, EYE, LOOKS, MOUTH_LOOK, SKIN, Layer
from prnet.synthetic.render.shadow import BIAS, GRAZING_BIAS, MOST_BIAS
from prnet.synthetic.render.strips import (
    ALPHA,
    COLOR,
    COSINE,
    FREE,
    GLOSS,
    LIT,
    NORMAL,
    OCCLUSION,
    RELAXED,
    ROWS,
    SHARPNESS,
    STRIP,
    TRANSLUCENCY,
    F,
    clamp,
    compiled,
    exp,
)
from prnet.synthetic.render.surfaces import accessories, between, eyes, mouth, skin

NUM_LOOKS = len(LOOKS)
# A pixel hides what is behind it when it covers at least this share.
HIDING = 0.5
# How far beyond the terminator light still leaks through skin, for red, green and blue.
SKIN_WRAP = np.array((0.30, 0.12, 0.07), np.float32)
MIRRORED, BRIGHT = FREE, FREE + 1  # rows


@cached(fastmath=RELAXED)
def draw_layer(
    points: np.ndarray,  # (V, 3), crop px
    normals: np.ndarray,  # (V, 3)
    layer: Layer,
    numbers: np.ndarray,  # (S, S), of the triangle seen at each pixel; -1 where none
    near: np.ndarray,  # (S, S), its depth
    palette: Palette,
    shadow_matrix: np.ndarray,  # (3, 4), shadow map px from crop px
    shadow_depth: np.ndarray,  # (R, R); R = 0: nothing casts a shadow
    image: np.ndarray,  # (3, S, S), written
    attention: np.ndarray,  # (S, S), bool, written
    depth: np.ndarray,  # (S, S), of the nearest thing that hides, written
    is_glass: bool,
) -> None:
    """Draw a layer where it is nearer than what is drawn already."""
    # Arrays are taken out of their tuples once: each time costs a count of references.
    triangles, two_sided, looks, attributes, eye_direction = layer
    mouth_colors, paint, highlights = palette.mouth_colors, palette.paint, palette.highlights
    places, ends = _sorted(looks, numbers, near, depth)
    strip = np.zeros((ROWS, STRIP), np.float32)
    corners = np.zeros((3, STRIP), np.uint32)
    weights = np.zeros((3, STRIP))
    is_face = np.zeros(STRIP, np.bool_)
    start = 0
    for look in range(NUM_LOOKS):
        while start < ends[look]:
            count = min(STRIP, ends[look] - start)
            for pixel in range(count):
                row, column = places[start + pixel] >> 16, places[start + pixel] & 0xFFFF
                number = int(numbers[row, column])
                i, j, k = triangles[number, 0], triangles[number, 1], triangles[number, 2]
                corners[0, pixel], corners[1, pixel], corners[2, pixel] = i, j, k
                a, b, c = _weights(points, i, j, k, float(column), float(row))
                weights[0, pixel], weights[1, pixel], weights[2, pixel] = a, b, c
                z = between(normals, 2, corners, weights, pixel)
                # A sheet turns its visible side to the camera.
                sign = -1.0 if z < 0 and two_sided[number] else 1.0
                strip[NORMAL, pixel] = sign * between(normals, 0, corners, weights, pixel)
                strip[NORMAL + 1, pixel] = sign * between(normals, 1, corners, weights, pixel)
                strip[NORMAL + 2, pixel] = sign * z
                strip[OCCLUSION, pixel] = between(attributes, 2, corners, weights, pixel)
            if look == SKIN:
                skin(strip, is_face, count, corners, weights, attributes, palette)
            elif look == EYE:
                eyes(strip, is_face, count, corners, weights, eye_direction, palette)
            elif look < ACCESSORY_LOOK:
                mouth(strip, is_face, mouth_colors[look - MOUTH_LOOK])
            else:
                kind = look - ACCESSORY_LOOK
                accessories(
                    strip,
                    is_face,
                    count,
                    corners,
                    weights,
                    attributes,
                    kind,
                    paint[kind],
                    highlights[kind],
                )
            _turn(strip, palette.directions)
            if len(shadow_depth):
                for pixel in range(count):
                    row, column = places[start + pixel] >> 16, places[start + pixel] & 0xFFFF
                    z, cosine = near[row, column], strip[COSINE, pixel]
                    strip[LIT, pixel] = _lit(
                        shadow_matrix, shadow_depth, float(column), float(row), z, cosine
                    )
            else:
                strip[LIT] = F(1)
            _shade(strip, palette.irradiance, palette.directions, palette.lights)
            for pixel in range(count):
                row, column = places[start + pixel] >> 16, places[start + pixel] & 0xFFFF
                alpha = strip[ALPHA, pixel]
                for channel in range(3):
                    behind = image[channel, row, column]
                    shade = strip[COLOR + channel, pixel]
                    image[channel, row, column] = behind + alpha * (shade - behind)
                if alpha >= HIDING:
                    attention[row, column] = is_face[pixel]
                    if not is_glass:
                        depth[row, column] = near[row, column]
            start += count


@compiled
def _sorted(
    looks: np.ndarray,  # (T,)
    numbers: np.ndarray,  # (S, S)
    near: np.ndarray,  # (S, S)
    depth: np.ndarray,  # (S, S), of what is drawn
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, as one number, of the pixels that are nearer than what is drawn, in the
    order of what is seen there; where in that list each look ends."""
    size = len(near)
    found = np.zeros(size * size, np.int32)
    look_of = np.zeros(size * size, np.uint8)
    ends = np.zeros(NUM_LOOKS + 1, np.int64)
    total = 0
    for row in range(size):
        for column in range(size):
            if near[row, column] > depth[row, column]:
                look = looks[int(numbers[row, column])]
                found[total], look_of[total] = row << 16 | column, look
                ends[look] += 1
                total += 1
    for look in range(NUM_LOOKS):
        ends[look + 1] += ends[look]
    order = np.zeros(total, np.int32)
    for index in range(total - 1, -1, -1):
        look = look_of[index]
        ends[look] -= 1
        order[ends[look]] = found[index]
    return order, ends[1:]


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
def _turn(strip: np.ndarray, directions: np.ndarray) -> None:
    """Unit normals, and their cosine with the hard light."""
    x_0, y_0, z_0 = directions[0, 0], directions[0, 1], directions[0, 2]
    for pixel in range(STRIP):
        x, y, z = strip[NORMAL, pixel], strip[NORMAL + 1, pixel], strip[NORMAL + 2, pixel]
        scale = F(1) / np.sqrt(max(x * x + y * y + z * z, F(1e-20)))
        x, y, z = scale * x, scale * y, scale * z
        strip[NORMAL, pixel], strip[NORMAL + 1, pixel], strip[NORMAL + 2, pixel] = x, y, z
        strip[COSINE, pixel] = x * x_0 + y * y_0 + z * z_0


@compiled
def _lit(
    matrix: np.ndarray, depth: np.ndarray, x: float, y: float, z: float, cosine: float
) -> float:
    """Share of the hard light that arrives at a pixel: four texels, weighed by their distance."""
    last = len(depth) - 1
    across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
    down = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
    toward = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
    slope = math.sqrt(max(1.0 - cosine * cosine, 0.0)) / max(cosine, 0.05)
    reach = toward + min(BIAS + GRAZING_BIAS * slope, MOST_BIAS)
    left, top = math.floor(across), math.floor(down)
    across -= left
    down -= top
    total = 0.0
    for below in range(2):
        row = int(clamp(top + below, 0, last))
        for beside in range(2):
            column = int(clamp(left + beside, 0, last))
            if depth[row, column] <= reach:
                weight = across if beside else 1 - across
                total += weight * (down if below else 1 - down)
    return total


@compiled
def _shade(
    strip: np.ndarray,  # colours are albedo, and become radiance
    irradiance: np.ndarray,  # (9, 3)
    directions: np.ndarray,  # (3, 3)
    lights: np.ndarray,  # (2, 3)
) -> None:
    """Light on each surface, toward the camera."""
    x_1, y_1, z_1 = directions[1, 0], directions[1, 1], directions[1, 2]
    x_2, y_2, z_2 = directions[2, 0], directions[2, 1], directions[2, 2]
    for pixel in range(STRIP):
        x, y, z = strip[NORMAL, pixel], strip[NORMAL + 1, pixel], strip[NORMAL + 2, pixel]
        grazing = clamp(F(1) - z, F(0), F(1))
        strength = strip[GLOSS, pixel] * strip[OCCLUSION, pixel]
        strength *= F(1) + F(3) * grazing * grazing * grazing
        sharpness = strip[SHARPNESS, pixel]
        lobe = exp(sharpness * (x * x_1 + y * y_1 + z * z_1 - F(1)))
        lit = strip[LIT, pixel] if strip[COSINE, pixel] > F(0) else F(0)
        bright = exp(F(0.6) * sharpness * (x * x_2 + y * y_2 + z * z_2 - F(1)))
        strip[MIRRORED, pixel] = strength * lit * lobe
        strip[BRIGHT, pixel] = F(0.6) * strength * bright
    for channel in range(3):
        one, of_x, of_y, of_z = (
            irradiance[0, channel],
            irradiance[1, channel],
            irradiance[2, channel],
            irradiance[3, channel],
        )
        of_xx, of_yy, of_xy = irradiance[4, channel], irradiance[5, channel], irradiance[6, channel]
        of_xz, of_yz = irradiance[7, channel], irradiance[8, channel]
        light_0, light_1 = lights[0, channel], lights[1, channel]
        wrapped = SKIN_WRAP[channel]
        for pixel in range(STRIP):
            x, y, z = strip[NORMAL, pixel], strip[NORMAL + 1, pixel], strip[NORMAL + 2, pixel]
            soft = one + x * (of_x + x * of_xx + y * of_xy + z * of_xz)
            soft += y * (of_y + y * of_yy + z * of_yz) + z * of_z
            soft = max(soft, F(0.01)) * strip[OCCLUSION, pixel]
            wrap = wrapped * strip[TRANSLUCENCY, pixel]
            hard = max((strip[COSINE, pixel] + wrap) / (F(1) + wrap), F(0))
            hard *= light_0 * strip[LIT, pixel]
            value = (soft + hard) * strip[COLOR + channel, pixel]
            value += strip[MIRRORED, pixel] * light_0 + strip[BRIGHT, pixel] * light_1
            strip[COLOR + channel, pixel] = value
