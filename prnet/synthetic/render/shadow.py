"""Shadows of the hard light: the scene's depth as the light sees it.

Letters: V vertices, R side of the map.
"""

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.rasterize import z_buffer
from prnet.synthetic.render.scene import Scene, transform

# Part of the map's side that stays free around the head, for hair and hats.
MARGIN = 0.12
# A surface this far behind the one that the light sees is still lit, in px of the map; where light
# grazes it, a pixel of the map spans more depth.
BIAS, GRAZING_BIAS, MOST_BIAS = 0.8, 1.5, 5.0


def shadow_map(
    points: Tensor,  # (V, 3), crop px
    scene: Scene,
    direction: Tensor,  # (3,), unit vector toward the light
    side: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The depth of what casts shadows, (R, R), in px of a frame whose z points to the light; and
    the map to that frame from crop px, (3, 4)."""
    # Any vector that is not parallel to the light starts a right-handed frame.
    axis = torch.tensor([1.0, 0, 0] if direction[1].abs() > 0.9 else [0, 1.0, 0])
    right = torch.linalg.cross(axis, direction)
    right = right / right.square().sum().sqrt()
    frame = torch.stack([right, torch.linalg.cross(direction, right), direction])
    frame = torch.cat([frame, torch.zeros(3, 1)], -1)  # (3, 4)

    head = transform(frame[None], points[None, : scene.num_head])[0]
    low, high = head.amin(0), head.amax(0)
    scale = (1 - 2 * MARGIN) * (side - 1) / (high - low)[:2].amax()
    matrix = scale * frame
    matrix[:2, 3] = (side - 1) / 2 - (scale * (low + high) / 2)[:2]
    turned = transform(matrix[None], points[None])[0]
    _, depth = z_buffer(turned.numpy(), scene.casting, side, side, cull_back_faces=True)
    return matrix.numpy(), depth
