"""Shadows of the hard light: the scene's depth as the light sees it.

Letters: V vertices, R side of the map.
"""

import numpy as np

from prnet.geometry.compiled import cached
from prnet.geometry.rasterize import z_buffer
from prnet.synthetic.render.scene import Scene, transform_into

# Part of the map's side that stays free around the head, for hair and hats.
MARGIN = 0.12
# A surface this far behind the one that the light sees is still lit, in px of the map; where light
# grazes it, a pixel of the map spans more depth.
BIAS, GRAZING_BIAS, MOST_BIAS = 0.8, 1.5, 5.0


def shadow_map(
    points: np.ndarray,  # (V, 3), crop px
    scene: Scene,
    direction: np.ndarray,  # (3,), unit vector toward the light
    side: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The depth of what casts shadows, (R, R), in px of a frame whose z points to the light; and
    the map to that frame from crop px, (3, 4)."""
    matrix, turned = np.zeros((3, 4), np.float32), np.zeros_like(points)
    _face_light(direction, points[: scene.num_head], side, matrix)
    transform_into(matrix[None], points[None], turned[None])
    _, depth = z_buffer(turned, scene.casting, side, side, cull_back_faces=True)
    return matrix, depth


@cached()
def _face_light(
    direction: np.ndarray,  # (3,), unit vector
    head: np.ndarray,  # (N, 3)
    side: int,
    matrix: np.ndarray,  # (3, 4), zeros; written
) -> None:
    """The map of crop px to a picture of the head that looks along the light."""
    x, y, z = direction[0], direction[1], direction[2]
    # Any vector that is not parallel to the light starts a right-handed frame.
    right_x, right_y, right_z = z, np.float32(0), -x
    if abs(y) > 0.9:
        right_x, right_y, right_z = np.float32(0), -z, y
    length = np.sqrt(right_x * right_x + right_y * right_y + right_z * right_z)
    right_x, right_y, right_z = right_x / length, right_y / length, right_z / length
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = right_x, right_y, right_z
    matrix[1, 0], matrix[1, 1] = y * right_z - z * right_y, z * right_x - x * right_z
    matrix[1, 2] = x * right_y - y * right_x
    matrix[2, 0], matrix[2, 1], matrix[2, 2] = x, y, z

    low_0, high_0 = np.float32(np.inf), np.float32(-np.inf)
    low_1, high_1 = low_0, high_0
    for point in range(len(head)):
        x, y, z = head[point, 0], head[point, 1], head[point, 2]
        across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z
        down = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z
        low_0, high_0 = min(low_0, across), max(high_0, across)
        low_1, high_1 = min(low_1, down), max(high_1, down)
    scale = np.float32((1 - 2 * MARGIN) * (side - 1)) / max(high_0 - low_0, high_1 - low_1)
    for row in range(3):
        for column in range(3):
            matrix[row, column] *= scale
    matrix[0, 3] = np.float32((side - 1) / 2) - scale * (low_0 + high_0) / 2
    matrix[1, 3] = np.float32((side - 1) / 2) - scale * (low_1 + high_1) / 2
