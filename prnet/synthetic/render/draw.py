"""Drawing one sample: the z-buffer of each layer, and the compiled loop over its pixels.

Letters: V vertices, S side of the picture.
"""

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.rasterize import z_buffer
from prnet.synthetic.render.normals import quad_normals
from prnet.synthetic.render.palette import Palette
from prnet.synthetic.render.pixels import draw_layer
from prnet.synthetic.render.scene import Scene
from prnet.synthetic.render.shadow import shadow_map
from prnet.synthetic.worn.accessories import LENS, OPAQUE

# What lies this many sides behind the face is not worn.
BEHIND = -4.0


def draw_sample(
    scene: Scene,
    points: Tensor,  # (V, 3), crop px
    palette: Palette,
    image: Tensor,  # (3, S, S), drawn over
    *,
    casts_shadow: bool,
) -> tuple[Tensor, Tensor]:
    """Draw one sample; attention (S, S) bool, and depth (S, S), -inf where there is background."""
    normals, side = quad_normals(points, scene.diagonals), image.shape[-1]
    depth = torch.full_like(image[0], -torch.inf)
    attention = torch.zeros_like(depth, dtype=torch.bool)
    canvas, corners = (image.numpy(), attention.numpy(), depth.numpy()), points.numpy()
    matrix, seen_by_light = np.zeros((3, 4), np.float32), np.zeros((0, 0), np.float32)
    if casts_shadow:
        matrix, seen_by_light = shadow_map(corners, scene, palette.directions[0], side // 2)
    for kind, layer in scene.layers.items():
        if kind != OPAQUE and corners[scene.worn[kind], 2].max() <= BEHIND * side:
            continue
        seen = z_buffer(corners, layer.triangles, side, side, cull_back_faces=True)
        draw_layer(
            corners,
            normals.numpy(),
            layer,
            *seen,
            palette,
            matrix,
            seen_by_light,
            *canvas,
            kind == LENS,
        )
    return attention, depth
