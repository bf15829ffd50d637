"""The oracle of the renderer: one sample drawn by the formulas alone, whole layers at once.

Geometry, z-buffer and shadow map are the renderer's; what is seen at a pixel, its light and its
shadow are worked out here a second time. Letters: V vertices, M pixels, S side of the picture.
"""

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.rasterize import rasterize
from prnet.synthetic.camera.lighting import polynomial_terms
from prnet.synthetic.parameters import stack
from prnet.synthetic.person.textures import SKIN_LAYERS, compose_albedo
from prnet.synthetic.render.bank import TEXTURE_SIZE
from prnet.synthetic.render.normals import quad_normals
from prnet.synthetic.render.palette import DULL, HIGHLIGHTS, MOUTH_COLORS
from prnet.synthetic.render.pixels import HIDING
from prnet.synthetic.render.scene import ACCESSORY_LOOK, LOOKS, transform
from prnet.synthetic.render.shadow import shadow_map
from prnet.synthetic.world import SyntheticFaces
from prnet.synthetic.worn.accessories import LENS
from prnet.synthetic.worn.patterns import BEARD, LENSES, Paint, with_body_colors
from prnet.synthetic.worn.solids import select


def paint(faces: SyntheticFaces, item: tuple, matrix: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB (3, S, S) before the camera, and attention (S, S), of parameters whose
    `crop_from_model` (4, 4) is known."""
    scene, bank, side = faces.renderer.scene, faces.bank(0), faces.size
    batch = stack([item])
    person = select(batch, 0)
    vertices = scene.vertices(batch.shape_params, batch.exp_params, batch.accessories)
    points = transform(matrix[None], vertices)
    normals = quad_normals(points[0], scene.diagonals).double().numpy()
    image = bank.background_crops([item.backdrop], side)[0].double().numpy()
    bank.require_textures([item.texture])
    texture = bank.textures[item.texture].double().numpy()
    paints = with_body_colors(
        batch.accessories.paint,
        hair_color=batch.material.hair_color,
        skin_color=batch.material.skin_tone,
    )[0].double()
    depth, attention = np.full((side, side), -np.inf), np.zeros((side, side), bool)
    shadows = None
    if item.light.shadow:
        light = person.light.direction.numpy()
        shadows = shadow_map(points[0].numpy(), scene, light, side // 2)

    for kind, layer in scene.layers.items():
        triangles = torch.from_numpy(layer.triangles.astype(np.int64))
        raster = rasterize(points, triangles, height=side, width=side, cull_back_faces=True)
        near = raster.depth[0].double().numpy()
        rows, columns = np.nonzero(near > depth)
        number = raster.triangle[0].numpy()[rows, columns]
        corners = triangles.numpy()[number]
        weights = raster.barycentric[0].double().numpy()[rows, columns, :, None]
        normal = unit((normals[corners] * weights).sum(1))
        flip = layer.two_sided[number] & (normal[:, 2] < 0)
        normal[flip] *= -1
        attributes = (layer.attributes[corners] * weights).sum(1)
        direction = unit((layer.eye_direction[corners] * weights).sum(1))
        albedo, alpha = np.zeros((len(rows), 3)), np.ones(len(rows))
        gloss, sharpness, translucency = np.zeros((3, len(rows)))
        is_face = np.ones(len(rows), bool)
        for look, name in enumerate(LOOKS):
            at = layer.look[number] == look
            uv = attributes[at, :2]
            if not at.any():
                continue
            if name == "skin":
                found = skin(texture, scene.face_mask.numpy(), attributes[at], person)
                albedo[at], gloss[at], sharpness[at], translucency[at], is_face[at] = found
            elif name == "eye":
                angle = np.arcsin(item.eyes.iris_mm * 1000 / scene.head.eye_radius)
                albedo[at] = eye_color(direction[at], item, angle)
                gloss[at], sharpness[at] = 0.55, 180
            elif look < ACCESSORY_LOOK:
                albedo[at] = MOUTH_COLORS.get(name, item.material.teeth_color)
                gloss[at], sharpness[at] = 0.12, 60
            else:
                worn = look - ACCESSORY_LOOK
                color, cover = accessory_color(worn, torch.from_numpy(uv), paints[worn])
                albedo[at], alpha[at] = color.numpy(), cover.numpy()
                gloss[at], sharpness[at] = HIGHLIGHTS.get(name, DULL)
                is_face[at] = False
        lit = np.ones(len(rows))
        if shadows is not None:
            place = np.stack([columns, rows, near[rows, columns], np.ones(len(rows))], -1)
            lit = arriving(*shadows, place, normal @ item.light.direction)
        surface = albedo, normal, attributes[:, 2], gloss, sharpness, translucency
        radiance = shade(*surface, item.light, lit)
        behind = image[:, rows, columns]
        image[:, rows, columns] = behind + alpha * (radiance.T - behind)
        hiding = alpha >= HIDING
        attention[rows[hiding], columns[hiding]] = is_face[hiding]
        if kind != LENS:
            depth[rows[hiding], columns[hiding]] = near[rows[hiding], columns[hiding]]
    return image, attention


def skin(
    texture: np.ndarray, face_mask: np.ndarray, attributes: np.ndarray, person: tuple
) -> tuple:
    """Albedo, gloss, sharpness, translucency and whether it is face."""
    last, material = TEXTURE_SIZE - 1, person.material
    column, row = attributes[:, :2].clip(0, last).T
    left, top = np.minimum(np.floor([column, row]), last - 1).astype(int)
    right, down = (column - left)[:, None], (row - top)[:, None]
    first = top * TEXTURE_SIZE + left
    upper = texture[first] * (1 - right) + texture[first + 1] * right
    first += TEXTURE_SIZE
    layers = upper * (1 - down) + down * (texture[first] * (1 - right) + texture[first + 1] * right)
    stubble = attributes[:, 3] * float(person.accessories.hair.stubble)
    albedo = compose_albedo(torch.from_numpy(layers).float(), material).double().numpy()
    albedo += stubble[:, None] * (material.hair_color.double().numpy() - albedo)
    hairy = layers[:, SKIN_LAYERS.index("beard")] * float(material.beard_strength) + stubble
    dull = 1 - 0.7 * hairy.clip(max=1)
    wet = 1 + 0.8 * layers[:, SKIN_LAYERS.index("lips")]
    nearest = np.rint(row).astype(int) * TEXTURE_SIZE + np.rint(column).astype(int)
    sharpness = (28 - 24 * float(material.roughness)) * wet
    return albedo, float(material.specular) * wet * dull, sharpness, dull, face_mask[nearest]


def eye_color(direction: np.ndarray, item: tuple, iris_angle: float) -> np.ndarray:  # (M, 3)
    """Albedo of the eyeball, (M, 3): sclera, limbus, iris with radial fibres, pupil."""
    gaze, pupil = item.eyes.gaze, item.eyes.pupil
    angle = np.arccos((direction @ gaze).clip(-1, 1))
    radius = angle / iris_angle  # 1 at the limbus
    around = np.arctan2(direction[:, 1] - gaze[1], direction[:, 0] - gaze[0])
    shade_of_iris = 1 + 0.22 * np.sin(23 * around + 6 * radius) * np.sin(11 * around - 3)
    shade_of_iris *= 0.55 + 0.9 * (radius - pupil).clip(0, 0.5)
    shade_of_iris *= 1 - 0.75 * smooth(radius, 0.78, 1.0)
    shade_of_iris *= 1 - 0.97 * smooth(radius, pupil + 0.06, pupil - 0.06)
    redness = 0.3 * smooth(angle, 0.6, 1.3)[:, None]
    white = item.material.sclera_color * (1 - redness * [0.3, 1.0, 1.0])
    iris = item.material.iris_color * shade_of_iris[:, None]
    return iris + (white - iris) * smooth(radius, 0.94, 1.06)[:, None]


def accessory_color(
    kind: int,  # into KIND_NAMES
    uv: Tensor,  # (M, 2)
    paint: Tensor,  # (len(Paint),)
) -> tuple[Tensor, Tensor]:
    """Linear RGB (M, 3) in [0, 1] and alpha (M,) in [0, 1]; alpha is 1 but for hair and lenses."""
    columns = Paint(*paint)
    u, v = uv.unbind(-1)
    first, second, alpha = paint[0:3], paint[3:6], torch.ones_like(v)
    across, along = u * columns.scale_u, v * columns.scale_v
    cell = columns.seed * 4093 + across.floor()
    if kind <= BEARD:
        fine = cell_noise(cell, torch.zeros_like(along))
        # Hair also gathers in tresses some ten strands wide, which bend along their way.
        bend = 1.2 * (along + columns.seed).sin() + 2.5 * (0.11 * across + columns.seed).sin()
        tress = (0.43 * across + bend).sin() * (0.19 * across - bend + 2 * columns.seed).sin()
        tress = 0.5 + 0.5 * tress
        brightness, share = 1.1 * fine + 1.1 * tress - 1.1, tress * tress
        # Each strand ends at its own length; thin hair shows what is behind between its strands.
        length = 1 - columns.ragged * (0.6 * fine + 0.4 * tress)
        alpha = 1 - smooth(v - length, -0.03, 0.03)
        alpha = alpha * smooth(columns.alpha + 0.4 - fine + 0.5 * (1 - v), 0.0, 0.6)
        if kind == BEARD:  # which begins as thin as it ends
            alpha = alpha * smooth(v + 0.2 * fine, 0.05, 0.45)
    else:
        brightness = 2 * cell_noise(cell, along.floor()) - 1
        share = smooth((along + columns.seed * 0.37).remainder(1.0), 0.45, 0.55)
        if kind == LENSES:
            share = smooth(0.9 * v + 0.35 * u - 0.6 - 0.1 * (columns.seed % 5), 0.1, 0.5)
            alpha = columns.alpha * (0.75 + 0.5 * v) + 0.3 * share * columns.mix
    rgb = first + (second - first) * (share * columns.mix)[:, None]
    rgb = rgb * (1 + columns.contrast * brightness)[:, None]
    return rgb.clamp(0, 1), alpha.clamp(0, 0.98 if kind == LENSES else 1)


def cell_noise(column: Tensor, row: Tensor) -> Tensor:  # (M,), whole numbers
    """Uniform noise in [0, 1), one value for every cell."""
    mixed = column.long() * 73856093 ^ row.long() * 19349663
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed ^ (mixed >> 16)) & 0xFFFF).double() / 2**16


def shade(
    albedo: np.ndarray,  # (M, 3)
    normal: np.ndarray,  # (M, 3)
    occlusion: np.ndarray,  # (M,), as the rest
    gloss: np.ndarray,
    sharpness: np.ndarray,
    translucency: np.ndarray,
    light: tuple,  # `prnet.synthetic.camera.lighting.Light`
    lit: np.ndarray,  # share of the hard light that arrives
) -> np.ndarray:
    """Radiance toward the camera, (M, 3)."""
    soft = (polynomial_terms(normal) @ light.irradiance).clip(min=0.01) * occlusion[:, None]
    cosine = normal @ light.direction
    wrap = np.array([0.30, 0.12, 0.07]) * translucency[:, None]
    hard = ((cosine[:, None] + wrap) / (1 + wrap)).clip(min=0) * light.color * lit[:, None]
    strength = gloss * occlusion * (1 + 3 * (1 - normal[:, 2]).clip(0, 1) ** 3)
    total = (soft + hard) * albedo
    for direction, color, share, width in (
        (light.direction, light.color, (cosine > 0) * lit, 1.0),
        (light.highlight, light.highlight_color, 0.6, 0.6),
    ):
        half = unit((direction + [0.0, 0.0, 1.0])[None])[0]
        lobe = share * strength * np.exp(width * sharpness * (normal @ half - 1))
        total = total + lobe[:, None] * color
    return total


def arriving(
    matrix: np.ndarray,  # (3, 4), shadow map px from crop px
    depth: np.ndarray,  # (R, R)
    place: np.ndarray,  # (M, 4), crop px and 1
    cosine: np.ndarray,  # (M,), between normal and light
) -> np.ndarray:
    """Share of the hard light that arrives, (M,): four texels, weighed by their distance."""
    x, y, z = matrix.astype(np.float64) @ place.T
    slope = np.sqrt((1 - cosine**2).clip(min=0)) / cosine.clip(min=0.05)
    reach = z + (0.8 + 1.5 * slope).clip(max=5.0)
    left, top = np.floor(x), np.floor(y)
    total = np.zeros(len(z))
    for below, row_weight in ((0, 1 - (y - top)), (1, y - top)):
        for beside, weight in ((0, 1 - (x - left)), (1, x - left)):
            row, column = (
                np.clip(v, 0, len(depth) - 1).astype(int) for v in (top + below, left + beside)
            )
            total += weight * row_weight * (depth[row, column] <= reach)
    return total


def smooth(value, low, high):
    """0 below `low`, 1 above `high`, with level ends; `low` above `high` falls instead."""
    share = ((value - low) / (high - low)).clip(0, 1)
    return share * share * (3 - 2 * share)


def unit(vectors: np.ndarray) -> np.ndarray:  # (M, 3)
    """Vectors of length 1; zero stays zero."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-10)
