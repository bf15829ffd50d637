"""Drawing one sample on a CPU: the compiled z-buffer and the compiled loop over its pixels.

Letters: V vertices, T triangles, S side of the picture.
"""

import numpy as np
import torch
from torch import Tensor

from prnet.synthetic.rasterize_cpu import z_buffer
from prnet.synthetic.render.looks import HIDING, layer_in_use
from prnet.synthetic.render.palette import Canvas, Palette
from prnet.synthetic.render.pixels import draw_layer
from prnet.synthetic.render.scene import Scene
from prnet.synthetic.render.shadow import ShadowMap
from prnet.synthetic.worn.accessories import LENS, OPAQUE


def draw_sample(
    scene: Scene,
    points: Tensor,  # (V, 3), crop px
    palette: Palette,
    image: Tensor,  # (3, S, S), drawn over
    *,
    casts_shadow: bool,
) -> tuple[Tensor, Tensor]:
    """Draw one sample; attention and depth, (S, S)."""
    normals, side = scene.normals(points[None])[0], image.shape[-1]
    depth = torch.full_like(image[0], -torch.inf)
    attention = torch.zeros_like(depth, dtype=torch.bool)
    canvas = Canvas(image.numpy(), attention.numpy(), depth.numpy())
    matrix, seen_by_light = np.zeros((3, 4), np.float32), np.zeros((0, 0), np.float32)
    if casts_shadow:
        direction = torch.from_numpy(palette.directions[:1])
        shadow_map = ShadowMap(points[None], scene, direction, _depth, side // 2)
        matrix, seen_by_light = shadow_map.matrix[0].numpy(), shadow_map.depth[0].numpy()
    for kind, mesh in scene.meshes.items():
        if kind != OPAQUE and not layer_in_use(points[None], scene.layers[kind], side):
            continue
        seen = z_buffer(points.numpy(), mesh.triangles, side, side, cull_back_faces=True)
        draw_layer(
            points.numpy(),
            normals.numpy(),
            mesh,
            *seen,
            palette,
            matrix,
            seen_by_light,
            canvas,
            HIDING,
            kind == LENS,
        )
    return attention, depth


def _depth(points: Tensor, scene: Scene, side: int) -> Tensor:  # (1, V, 3)
    """Of what casts shadows, (1, side, side)."""
    _, depth = z_buffer(points[0].numpy(), scene.casting_corners, side, side, cull_back_faces=True)
    return torch.from_numpy(depth)[None]
