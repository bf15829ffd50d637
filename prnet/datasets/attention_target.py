"""The attention target of SADRNet (section III-B): where the face is seen, batched on the device.

Letters: B batch, P points of the face, M `MOUTH_POINTS`, S side of the crop, h side of the
attention.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Of SADRNet's side branch, an eighth of the crop.
ATTENTION_SIZE = 32
# Gaps between neighbouring points up to twice this many px are closed.
CLOSING = 3
# By how many px the released code enlarges the face.
RELEASED_REACH = 2
ATTENTIONS = ("silhouette", "released")
# Points across and along the mouth.
MOUTH_POINTS = 32


def silhouette(
    points: Tensor,  # (B, P, 2 or more), crop px, as dense as the texels of a position map
    landmarks: Tensor,  # (B, 68, 2 or more), crop px
    *,
    size: int,
) -> Tensor:
    """The pixels whose centre lies on the face, whichever side it turns, (B, size, size) bool.

    Points outside the crop count only for what they surround. The points, and more between the
    lips, are dropped into cells whose corners are pixel centres; gaps are closed; a pixel is inside
    where all four cells around it hold a part of the face. For points without gaps that is the
    exact silhouette along any straight border: cells around the pixels would make the face half a
    pixel too large.

    See `released_silhouette` for that of the released code.
    """
    # The inner lips from corner to corner, 60 to 64 and 60, 67 to 65, 64 of iBUG.
    upper, rest = landmarks[:, 60:65, :2], landmarks[:, 65:68, :2]
    lower = torch.cat([upper[:, :1], rest.flip(1), upper[:, 4:]], 1)
    lips = torch.stack([upper.mT, lower.mT], 2)
    mouth = functional.interpolate(  # (B, 2, 2, 5) -> (B, 2, M, M)
        lips, (MOUTH_POINTS, MOUTH_POINTS), mode="bilinear", align_corners=True
    )
    points = torch.cat([points[..., :2], mouth.flatten(2).mT], 1)
    # Of the outermost cells, which take the points far outside, nothing must reach the crop.
    margin = 2 * CLOSING + 1
    side = size + 1 + 2 * margin
    cell = (points.floor() + (1 + margin)).clamp(0, side - 1).long()
    canvas = torch.zeros(len(points), side * side, dtype=torch.bool, device=points.device)
    canvas.scatter_(1, cell[..., 1] * side + cell[..., 0], True)
    closed = _any_in_window(canvas.view(-1, side, side), 2 * CLOSING + 1)
    # One more than closing takes back: from the cells to the pixels between four of them.
    inside = ~_any_in_window(~closed, 2 * CLOSING + 2)
    return inside[:, 1:-1, 1:-1]


def released_silhouette(
    pixels: Tensor,  # (B, S, S), bool: of `pixels_of` the points; written
) -> Tensor:
    """The face as SADRNet's released code draws it, (B, S, S) bool: the points' pixels with 2 px
    around them, and in the upper left corner the texels that are not of the face, all at (0, 0)."""
    pixels[:, 0, 0].fill_(True)
    around = functional.pad(pixels, 4 * [RELEASED_REACH])
    return _any_in_window(around, 2 * RELEASED_REACH + 1)


def _any_in_window(maps: Tensor, side: int) -> Tensor:  # (B, H, W), bool
    """Whether any of the `side` x `side` cells from each on is set, smaller by `side` - 1.

    On a CPU an order of magnitude faster than max pooling.
    """
    for dim in (1, 2):
        reach = 1
        while reach < side:
            step = min(reach, side - reach)
            length = maps.shape[dim] - step
            maps = maps.narrow(dim, 0, length) | maps.narrow(dim, step, length)
            reach += step
    return maps


def attention_target(
    seen: Tensor,  # (B, S, S), bool or share in [0, 1]: the face without what was laid over it
    covered: Tensor | None,  # (B, S, S), bool: nothing of the face is seen there
    *,
    size: int = ATTENTION_SIZE,
    overlapping: bool = False,
) -> Tensor:
    """The share of every attention pixel in which the face is seen, (B, size, size) in [0, 1].

    `overlapping` lets every pixel reach over half of its neighbours, less the farther they are, as
    the released code's resizing by Pillow does.

    Raises:
        ValueError: `size` does not divide the side of the crop.
    """
    if seen.shape[-1] % size:
        raise ValueError(f"attention of {size} px: no divisor of the crop's {seen.shape[-1]} px")
    seen = seen.float()
    if covered is not None:
        seen = seen.masked_fill(covered, 0.0)
    if overlapping:
        return functional.interpolate(seen[:, None], size=size, mode="bilinear", antialias=True)[
            :, 0
        ]
    return functional.avg_pool2d(seen[:, None], seen.shape[-1] // size)[:, 0]


def attention_iou(
    logits: Tensor,  # (B, h, h)
    target: Tensor,  # (B, h, h), in [0, 1]
) -> Tensor:
    """Intersection over union of the pixels that are more than half face, (B,); 1 where neither has
    any."""
    predicted, true = (logits > 0).flatten(1), (target > 0.5).flatten(1)
    union = (predicted | true).sum(1)
    return torch.where(union > 0, (predicted & true).sum(1) / union.clamp(min=1), 1.0)
