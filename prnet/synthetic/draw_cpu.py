"""Drawing one sample on a CPU: the compiled z-buffer and the compiled loop over its pixels.

Letters: V vertices, T triangles, S side of the picture.
"""

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.rasterize import Raster
from prnet.synthetic.accessories import LENS, OPAQUE
from prnet.synthetic.looks import HIDING, layer_in_use
from prnet.synthetic.palette import Canvas, Mesh, Palette
from prnet.synthetic.pixels_cpu import draw_layer_cpu
from prnet.synthetic.rasterize_cpu import nearest_cpu
from prnet.synthetic.scene import Scene
from prnet.synthetic.shadow import ShadowMap


def draw_cpu(
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
        shadow_map = ShadowMap(points[None], scene, direction, nearest, side // 2)
        matrix, seen_by_light = shadow_map.matrix[0].numpy(), shadow_map.depth[0].numpy()
    for kind, layer in scene.layers.items():
        if kind != OPAQUE and not layer_in_use(points[None], layer, side):
            continue
        raster = nearest(points[None], layer.triangles, side)
        tables = (points, normals, scene.attributes, scene.eye_direction)
        lists = (layer.triangles, layer.kind, layer.two_sided, layer.group)
        draw_layer_cpu(
            Mesh(*(tensor.numpy() for tensor in (*tables, *lists))),
            raster.triangle[0].numpy(),
            raster.depth[0].numpy(),
            palette,
            matrix,
            seen_by_light,
            canvas,
            HIDING,
            kind == LENS,
        )
    return attention, depth


def nearest(points: Tensor, triangles: Tensor, side: int) -> Raster:  # (1, V, 3); (T, 3)
    """What is seen of a mesh, without the weights, which few pixels need."""
    triangle, depth = nearest_cpu(points, triangles, (1, side, side), cull_back_faces=True)
    return Raster(triangle, depth.new_zeros(0), depth)
