"""What the compiled loops take: one sample's light and colours, and the constants of its looks.

Letters: B batch, L skin layers, K kinds of accessories, P numbers of their paint.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.synthetic.parameters import SampleParameters
from prnet.synthetic.person.textures import ABSORBING, COVERS
from prnet.synthetic.render.scene import MOUTH_PARTS, Scene
from prnet.synthetic.worn.head_chart import UM_PER_MM
from prnet.synthetic.worn.patterns import KIND_NAMES, with_body_colors

MOUTH_COLORS = {"cavity": (0.16, 0.03, 0.025), "tongue": (0.42, 0.13, 0.12)}  # linear RGB
# Strength and sharpness of highlights.
EYE_HIGHLIGHT = (0.55, 180.0)
MOUTH_HIGHLIGHT = (0.12, 60.0)
DULL = (0.01, 8.0)
HIGHLIGHTS = {
    "hair": (0.05, 14.0),
    "beard": (0.03, 14.0),
    "glasses_frame": (0.3, 60.0),
    "lens": (0.5, 150.0),
    "hand": (0.06, 14.0),
    "object": (0.15, 40.0),
}
HIGHLIGHT_TABLE = np.array([HIGHLIGHTS.get(name, DULL) for name in KIND_NAMES], np.float32)
# Wet lips shine, hair does not.
WET_LIPS, DULL_HAIR = 0.8, 0.7


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


def palettes_of(
    scene: Scene,
    batch: SampleParameters,  # tensors, leading B
    textures: Tensor,  # (n, texels, L), float16 in [0, 1]
) -> Iterator[Palette]:
    """Each sample's light and colours."""
    light, material, eyes = batch.light, batch.material, batch.eyes
    half, bright = half_vector(light.direction), half_vector(light.highlight)
    teeth = material.teeth_color
    mouth = [
        teeth.new_tensor(MOUTH_COLORS[part]).expand_as(teeth) if part in MOUTH_COLORS else teeth
        for part in MOUTH_PARTS
    ]
    iris_angle = torch.asin(eyes.iris_mm * UM_PER_MM / scene.head.eye_radius)
    stubble = batch.accessories.hair.stubble
    columns = (
        light.irradiance,
        torch.stack([light.direction, half, bright], 1),
        torch.stack([light.color, light.highlight_color], 1),
        material.skin_tone,
        torch.stack([getattr(material, f"{name}_gain") for name in ABSORBING], 1),
        torch.stack([getattr(material, f"{name}_color") for name in COVERS], 1),
        torch.stack([getattr(material, f"{name}_strength") for name in COVERS], 1),
        material.hair_color,
        torch.stack([stubble, material.specular, material.roughness], 1),
        eyes.gaze,
        torch.stack([iris_angle, eyes.pupil], 1),
        torch.stack([material.iris_color, material.sclera_color], 1),
        torch.stack(mouth, 1),
        with_body_colors(
            batch.accessories.paint, hair_color=material.hair_color, skin_color=material.skin_tone
        ),
    )
    arrays = [column.contiguous().numpy() for column in columns]
    # Compiled loops have no float16, so they take its bits.
    bits, face_mask = textures.numpy().view(np.uint16), scene.face_mask.numpy()
    for number, *fields in zip(batch.texture.tolist(), *arrays, strict=True):
        yield Palette(*fields, HIGHLIGHT_TABLE, bits[number], face_mask)


def half_vector(direction: Tensor) -> Tensor:  # (B, 3), unit vectors toward the light
    """Between light and camera, (B, 3) unit vectors."""
    half = direction + direction.new_tensor([0.0, 0.0, 1.0])
    return half / half.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
