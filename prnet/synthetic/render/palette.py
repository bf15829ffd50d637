"""What the compiled loops of a CPU take: one sample's light and colours, and its picture.

Letters: B batch, S side of the picture, L skin layers, K kinds of
accessories, P numbers of their paint.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.synthetic.render.looks import DULL, HIGHLIGHTS, MICROMETRES, MOUTH_COLORS, Person
from prnet.synthetic.render.scene import MOUTH_PARTS, Scene
from prnet.synthetic.render.shading import half_vector
from prnet.synthetic.worn.accessories import KIND_NAMES

HIGHLIGHT_TABLE = np.array([HIGHLIGHTS.get(name, DULL) for name in KIND_NAMES], np.float32)


class Palette(NamedTuple):
    """One sample's light and colours; linear RGB."""

    irradiance: np.ndarray  # (9, 3)
    directions: np.ndarray  # (3, 3): the hard light, its half vector, that of the highlight
    lights: np.ndarray  # (2, 3): the hard light, the highlight
    tone: np.ndarray  # (3,)
    gains: np.ndarray  # (4,), of the layers that absorb
    cover_colors: np.ndarray  # (5, 3), of the layers that cover
    cover_strengths: np.ndarray  # (5,)
    hair_color: np.ndarray  # (3,)
    surface: np.ndarray  # (3,): stubble, specular, roughness
    gaze: np.ndarray  # (3,)
    eye: np.ndarray  # (2,): angle of the iris, pupil
    eye_colors: np.ndarray  # (2, 3): iris, sclera
    mouth_colors: np.ndarray  # (parts, 3)
    paint: np.ndarray  # (K, P)
    highlights: np.ndarray  # (K, 2)
    texture: np.ndarray  # (texels, L), bits of float16
    face_mask: np.ndarray  # (texels,)


class Canvas(NamedTuple):
    """What is drawn; written."""

    image: np.ndarray  # (3, S, S)
    attention: np.ndarray  # (S, S), bool
    depth: np.ndarray  # (S, S), of the nearest thing that hides


def palettes_of(
    scene: Scene,
    persons: Person,  # leading B
    textures: Tensor,  # (n, texels, L), float16 in [0, 1]
) -> Iterator[Palette]:
    """Each sample's light and colours."""
    light, material, eyes = persons.light, persons.material, persons.eyes
    half, bright = half_vector(light.direction.t()).t(), half_vector(light.highlight.t()).t()
    covers = ("lip", "makeup", "beard", "brow", "lash")
    gains = ("detail", "redness", "spots", "shade")
    teeth = material.teeth_color
    mouth = [
        teeth.new_tensor(MOUTH_COLORS[part]).expand_as(teeth) if part in MOUTH_COLORS else teeth
        for part in MOUTH_PARTS
    ]
    iris_angle = torch.asin(eyes.iris_mm * MICROMETRES / scene.head.eye_radius)
    columns = (
        light.irradiance,
        torch.stack([light.direction, half, bright], 1),
        torch.stack([light.color, light.highlight_color], 1),
        material.skin_tone,
        torch.stack([getattr(material, f"{name}_gain") for name in gains], 1),
        torch.stack([getattr(material, f"{name}_color") for name in covers], 1),
        torch.stack([getattr(material, f"{name}_strength") for name in covers], 1),
        material.hair_color,
        torch.stack([persons.stubble, material.specular, material.roughness], 1),
        eyes.gaze,
        torch.stack([iris_angle, eyes.pupil], 1),
        torch.stack([material.iris_color, material.sclera_color], 1),
        torch.stack(mouth, 1),
        persons.paint,
    )
    arrays = [column.contiguous().numpy() for column in columns]
    # Compiled loops know no float16, but its bits.
    bits, face_mask = textures.numpy().view(np.uint16), scene.face_mask.numpy()
    for number, *fields in zip(persons.texture.tolist(), *arrays, strict=True):
        yield Palette(*fields, HIGHLIGHT_TABLE, bits[number], face_mask)
