"""What each pixel of a drawn mesh is made of: skin, eyes, mouth, hair, cloth.

Letters: b samples of a block, M pixels of a layer, m of one group, L skin layers.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from prnet.synthetic.camera.lighting import Light
from prnet.synthetic.parameters import Eyes, FaceParameters, select
from prnet.synthetic.person.textures import SKIN_LAYERS, SkinMaterial, compose_albedo
from prnet.synthetic.render.bank import TEXTURE_SIZE
from prnet.synthetic.render.scene import EYE, GROUPS, MOUTH, MOUTH_PARTS, SKIN, Layer, Scene
from prnet.synthetic.render.shading import EyePaint, PixelLight, Surface, eye_color, unit
from prnet.synthetic.worn.accessories import KIND_NAMES, accessory_color, accessory_paint

MOUTH_COLORS = {"cavity": (0.16, 0.03, 0.025), "tongue": (0.42, 0.13, 0.12)}
MICROMETRES = 1000.0  # in a millimetre
# Strength and sharpness of highlights.
EYE_HIGHLIGHT = (0.55, 180.0)
MOUTH_HIGHLIGHT = (0.12, 60.0)
DULL = (0.01, 8.0)
# Wet lips shine, hair does not.
WET_LIPS, DULL_HAIR = 0.8, 0.7
# A pixel hides what is behind it when it covers at least this share.
HIDING = 0.5
# What lies this many sides behind the face is not worn.
BEHIND = -4.0
HIGHLIGHTS = {
    "hair": (0.05, 14.0),
    "beard": (0.03, 14.0),
    "glasses_frame": (0.3, 60.0),
    "lens": (0.5, 150.0),
    "hand": (0.06, 14.0),
    "object": (0.15, 40.0),
}


class Person(NamedTuple):
    """What looks depend on, of the samples of a block: tensors (b, ...)."""

    light: Light
    material: SkinMaterial
    eyes: Eyes
    texture: Tensor  # number of the skin texture
    stubble: Tensor  # strength of the hair's colour on the scalp's skin
    paint: Tensor  # (K, numbers), of the accessories


class Pixels(NamedTuple):
    """Covered pixels of a block. Those of one group of `scene.GROUPS` lie side by side."""

    place: Tensor  # (M,), index into (b, S, S)
    sample: Tensor  # (M,)
    kind: Tensor  # (M,), of `scene.Layer`
    corners: Tensor  # (M, 3), vertices
    weights: Tensor  # (M, 3), of the corners
    normal: Tensor  # (3, M), unit vectors
    attributes: Tensor  # (4, M): u, v, occlusion, scalp hair

    def part(self, where: slice) -> "Pixels":
        return Pixels(
            self.place[where],
            self.sample[where],
            self.kind[where],
            self.corners[where],
            self.weights[where],
            self.normal[:, where],
            self.attributes[:, where],
        )


class Look(NamedTuple):
    """How pixels meet light, cover what is behind them, and whether they are face."""

    surface: Surface
    alpha: Tensor  # (M,)
    is_face: Tensor  # (M,), bool


def interpolate(
    table: Tensor,  # (V, C)
    corners: Tensor,  # (M, n), rows of the table
    weights: Tensor,  # (M, n)
) -> Tensor:
    """Weighted sums of rows, (C, M) float32."""
    rows = functional.embedding_bag(
        corners, table, per_sample_weights=weights.to(table.dtype), mode="sum"
    )
    return torch.stack(rows.float().unbind(1))


def layer_in_use(points: Tensor, layer: Layer, side: int) -> bool:  # (b, V, 3), crop px
    """Whether any sample wears what this layer draws; what is not worn lies far behind."""
    worn = points[..., 2].index_select(1, layer.vertices).amax()
    return bool(worn > BEHIND * side)


def persons_of(batch: FaceParameters) -> Person:  # tensors, leading B
    """What looks depend on, leading B."""
    material, accessories = batch.material, batch.accessories
    paint = accessory_paint(
        accessories, hair_color=material.hair_color, skin_color=material.skin_tone
    )
    stubble = accessories.hair.stubble
    return Person(batch.light, material, batch.eyes, batch.texture, stubble, paint)


def pixel_light(light: Light, sample: Tensor) -> PixelLight:  # (b, ...); (M,)
    """Each pixel's light."""
    return PixelLight(*(_planar(getattr(light, name)[sample]) for name in PixelLight._fields))


def _planar(field: Tensor) -> Tensor:  # (m, ...)
    """The pixels as the last dimension, (..., m)."""
    return field.movedim(0, -1)


def look_at(
    scene: Scene,
    layer: Layer,
    person: Person,
    textures: Tensor,  # (n, texels, L), float16 in [0, 1]
    pixels: Pixels,
    groups: list[slice],
) -> Look:
    """What is seen at every pixel of a layer."""
    looks = []
    for group, where in zip(GROUPS, groups, strict=True):
        if where.stop > where.start:
            part = pixels.part(where)
            if group == SKIN:
                look = _skin(scene, person, textures, part)
            elif group == EYE:
                look = _eyes(scene, person, part)
            elif group == MOUTH:
                look = _mouth(person, part)
            else:
                look = _accessories(layer, person, part)
            looks.append(look)
    if len(looks) == 1:
        return looks[0]
    surfaces = zip(*(look.surface for look in looks), strict=True)
    return Look(
        Surface(*(torch.cat(field, -1) for field in surfaces)),
        torch.cat([look.alpha for look in looks]),
        torch.cat([look.is_face for look in looks]),
    )


def _look(
    pixels: Pixels,
    albedo: Tensor,  # (3, m)
    gloss: Tensor | float,
    sharpness: Tensor | float,
    *,
    translucency: Tensor | float = 0.0,
    alpha: Tensor | float = 1.0,
    is_face: Tensor | bool = False,
) -> Look:
    like = albedo[0]

    def full(value: Tensor | float) -> Tensor:
        return value if isinstance(value, Tensor) else torch.full_like(like, value)

    surface = Surface(
        albedo,
        pixels.normal,
        pixels.attributes[2],
        full(gloss),
        full(sharpness),
        full(translucency),
    )
    if not isinstance(is_face, Tensor):
        is_face = torch.full_like(like, is_face, dtype=torch.bool)
    return Look(surface, full(alpha), is_face)


def _skin(scene: Scene, person: Person, textures: Tensor, pixels: Pixels) -> Look:
    material = select(person.material, pixels.sample)
    column, row, _, scalp = pixels.attributes
    layers, texel = _sample_texture(textures, column, row, person.texture[pixels.sample])
    albedo = torch.stack(compose_albedo(layers.t(), material).unbind(1))
    stubble = scalp * person.stubble[pixels.sample]
    albedo = torch.lerp(albedo, _planar(material.hair_color), stubble)

    hairy = layers[SKIN_LAYERS.index("beard")] * material.beard_strength + stubble
    dull = 1 - DULL_HAIR * hairy.clamp_(max=1)
    wet = 1 + WET_LIPS * layers[SKIN_LAYERS.index("lips")]
    return _look(
        pixels,
        albedo,
        material.specular * wet * dull,
        (28 - 24 * material.roughness) * wet,
        translucency=dull,
        is_face=scene.face_mask.index_select(0, texel),
    )


def _sample_texture(
    textures: Tensor,  # (n, texels, L)
    column: Tensor,  # (m,)
    row: Tensor,  # (m,)
    number: Tensor,  # (m,), the texture of each pixel
) -> tuple[Tensor, Tensor]:
    """Skin layers between four texels, (L, m), and the nearest texel, (m,)."""
    last = TEXTURE_SIZE - 1
    column, row = column.clamp(0, last), row.clamp(0, last)
    left, top = column.floor().clamp_(max=last - 1), row.floor().clamp_(max=last - 1)
    right, down = column - left, row - top
    upper_right, lower_right = right * (1 - down), right * down
    weights = torch.stack([1 - down - upper_right, upper_right, down - lower_right, lower_right], 1)
    first = torch.add(left, top, alpha=TEXTURE_SIZE).to(torch.int32)
    nearest = torch.add(column.round(), row.round(), alpha=TEXTURE_SIZE).to(torch.int32)
    corners = first[:, None] + torch.tensor(
        [0, 1, TEXTURE_SIZE, TEXTURE_SIZE + 1], dtype=torch.int32, device=first.device
    )
    corners = corners + (number * TEXTURE_SIZE**2).to(torch.int32).view(-1, 1)
    table = textures.view(-1, textures.shape[-1])
    return interpolate(table, corners, weights), nearest


def _eyes(scene: Scene, person: Person, pixels: Pixels) -> Look:
    direction = unit(interpolate(scene.eye_direction, pixels.corners, pixels.weights))
    material = select(person.material, pixels.sample)
    eyes = select(person.eyes, pixels.sample)
    albedo = eye_color(
        direction,
        EyePaint(
            gaze=_planar(eyes.gaze),
            iris_angle=torch.asin(eyes.iris_mm * MICROMETRES / scene.head.eye_radius),
            pupil=eyes.pupil,
            iris_color=_planar(material.iris_color),
            sclera_color=_planar(material.sclera_color),
        ),
    )
    return _look(pixels, albedo, *EYE_HIGHLIGHT, is_face=True)


def _mouth(person: Person, pixels: Pixels) -> Look:
    teeth = _planar(person.material.teeth_color[pixels.sample])
    parts = teeth.new_tensor([MOUTH_COLORS.get(name, (0.0, 0.0, 0.0)) for name in MOUTH_PARTS])
    albedo = parts.index_select(0, pixels.kind).t()
    is_teeth = pixels.kind == MOUTH_PARTS.index("teeth")
    return _look(pixels, torch.where(is_teeth, teeth, albedo), *MOUTH_HIGHLIGHT, is_face=True)


def _accessories(layer: Layer, person: Person, pixels: Pixels) -> Look:
    kind, paint = pixels.kind, person.paint[pixels.sample, pixels.kind]
    color, alpha = accessory_color(kind, pixels.attributes[:2].t(), paint)
    highlights = color.new_tensor([HIGHLIGHTS.get(name, DULL) for name in KIND_NAMES])
    gloss, sharpness = highlights.index_select(0, kind).unbind(1)
    return _look(pixels, torch.stack(color.unbind(1)), gloss, sharpness, alpha=alpha)
