"""Shadows of the hard light: the scene's depth as the light sees it.

Letters: b samples, V vertices, M pixels, R side of the map.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from prnet.synthetic.render.scene import Scene, transform
from prnet.synthetic.render.shading import dot

# Part of the map's side that stays free around the head, for hair and hats.
MARGIN = 0.12
# A surface this far behind the one that the light sees is still lit, in px of the map; where light
# grazes it, a pixel of the map spans more depth.
BIAS, GRAZING_BIAS, MOST_BIAS = 0.8, 1.5, 5.0


class ShadowMap:
    """Depth maps of a block, one a sample, in frames whose z points to the light."""

    def __init__(
        self,
        points: Tensor,  # (b, V, 3), crop px
        scene: Scene,
        direction: Tensor,  # (b, 3), unit vectors toward the light
        depth_of: Callable[[Tensor, Scene, int], Tensor],  # of what casts shadows
        side: int,
    ) -> None:
        self.side = side
        axis = torch.zeros_like(direction)
        # Any vector that is not parallel to the light starts a right-handed frame.
        steep = direction[:, 1].abs() > 0.9
        axis[:, 0], axis[:, 1] = steep.float(), (~steep).float()
        right = torch.linalg.cross(axis, direction)
        right = right / right.square().sum(1, keepdim=True).sqrt()
        frame = torch.stack([right, torch.linalg.cross(direction, right), direction], 1)
        frame = torch.cat([frame, torch.zeros_like(frame[..., :1])], -1)  # (b, 3, 4)

        head = transform(frame, points[:, : scene.num_head])
        low, high = head.amin(1), head.amax(1)
        scale = (1 - 2 * MARGIN) * (side - 1) / (high - low)[:, :2].amax(1)
        self.matrix = scale[:, None, None] * frame
        middle = scale[:, None] * (low + high) / 2
        self.matrix[:, :2, 3] = (side - 1) / 2 - middle[:, :2]
        self.depth = depth_of(transform(self.matrix, points), scene, side)

    def lit(
        self,
        position: Tensor,  # (3, M), crop px
        cosine: Tensor,  # (M,), between normal and light
        sample: Tensor,  # (M,)
    ) -> Tensor:
        """Share of the light that arrives, (M,): four texels, weighed by their distance."""
        rows = self.matrix[sample].movedim(0, -1)
        x, y, z = (dot(position, row) + row[3] for row in rows)
        slope = (1 - cosine.square()).clamp(min=0).sqrt() / cosine.clamp(min=0.05)
        reach = z + (BIAS + GRAZING_BIAS * slope).clamp(max=MOST_BIAS)
        left, top = x.floor(), y.floor()
        across, down = x - left, y - top
        total = torch.zeros_like(z)
        depth = self.depth.flatten()
        start = sample * self.side**2
        for below, row_weight in ((0, 1 - down), (1, down)):
            row = (top + below).clamp(0, self.side - 1).long() * self.side + start
            for beside, weight in ((0, 1 - across), (1, across)):
                column = (left + beside).clamp(0, self.side - 1).long()
                seen = depth[row + column] <= reach
                total += weight * row_weight * seen
        return total
