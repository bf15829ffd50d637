"""Skin: a texture's layers, a person's colours, and the albedo they make together.

A texture says where things are, a material what they look like; any texture goes with any
material. Letters: M pixels, L layers, (H, W) the texture.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from prnet.synthetic.person.facial_hair import beard_layer, brow_layer, lash_layer
from prnet.synthetic.person.material import SkinMaterial
from prnet.synthetic.person.skin import (
    detail_layer,
    lips_layer,
    makeup_layer,
    redness_layer,
    shade_layer,
    spots_layer,
)
from prnet.synthetic.person.skin_chart import SkinChart

LAYER_MAKERS: dict[str, Callable[[SkinChart, np.random.Generator], np.ndarray]] = {
    "detail": detail_layer,
    "redness": redness_layer,
    "spots": spots_layer,
    "shade": shade_layer,
    "lips": lips_layer,
    "makeup": makeup_layer,
    "beard": beard_layer,
    "brow": brow_layer,
    "lash": lash_layer,
}
# The order of the layers of a texture; the first four absorb light, the others cover.
SKIN_LAYERS: tuple[str, ...] = tuple(LAYER_MAKERS)
NUM_ABSORBING = 4
# What their gains, colours and strengths are called in `SkinMaterial`.
ABSORBING, COVERS = SKIN_LAYERS[:NUM_ABSORBING], ("lip", "makeup", "beard", "brow", "lash")
# How strongly each of them absorbs red, green and blue: unevenness, blood, pigment, shadow.
ABSORPTION = ((0.8, 1.0, 1.1), (0.06, 1.0, 0.8), (0.75, 1.2, 1.5), (0.8, 1.0, 1.0))


def skin_layers(chart: SkinChart, generator: np.random.Generator) -> np.ndarray:
    """One texture, (L, size, size) uint8, in the order of SKIN_LAYERS.

    Row v and column u are those of the face's position map: pixel (i, j) of a texture of its
    resolution is the texel (i, j) of the map.
    """
    streams = generator.spawn(len(SKIN_LAYERS))
    layers = np.stack(
        [make(chart, stream) for make, stream in zip(LAYER_MAKERS.values(), streams, strict=True)]
    )
    return np.rint(255 * np.clip(layers, 0, 1)).astype(np.uint8)


def compose_albedo(
    layers: Tensor,  # (M, L), in [0, 1], order of SKIN_LAYERS
    material: SkinMaterial,  # tensors (M,) and (M, 3), or () and (3,) for one material
) -> Tensor:
    """Linear RGB, (M, 3) in [0, 1].

    Beer and Lambert: albedo = tone exp(-sum_k absorption_k gain_k layer_k); then lips, make-up,
    beard, brows and lashes cover it in turn.
    """
    gains = torch.stack([getattr(material, f"{name}_gain") for name in ABSORBING], -1)
    absorption = layers.new_tensor(ABSORPTION)
    absorbance = (layers[:, :NUM_ABSORBING] * gains) @ absorption
    albedo = material.skin_tone * absorbance.neg_().exp_()
    for layer, name in enumerate(COVERS, start=NUM_ABSORBING):
        color = getattr(material, f"{name}_color").expand_as(albedo)
        coverage = layers[:, layer] * getattr(material, f"{name}_strength")
        albedo = torch.lerp(albedo, color, coverage[:, None])
    return albedo.clamp_(0, 1)
