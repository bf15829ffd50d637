"""The normalised mean error and its two ingredients: a size and a rule for depth.

Letters: B batch, K points, D coordinates: x, y and possibly z, px of one frame and pixel origin.
"""

import torch
from torch import Tensor

from prnet.checks import require_choice

Z_ALIGNMENTS = ("none", "mean", "min")


def bbox_size(points: Tensor) -> Tensor:  # (B, K, 2 or more)
    """sqrt(w h) of the points' bounding box in x and y, (B,), px: never its diagonal."""
    sides = points[..., :2].amax(-2) - points[..., :2].amin(-2)  # (B, 2)
    return sides.prod(-1).sqrt()


def align_depth(points: Tensor, rule: str) -> Tensor:  # (B, K, 3)
    """The points with z moved so that its `rule` ("mean", "min") over the points is 0, (B, K, 3).

    A single picture does not show the absolute depth of a face, and the published systems count z
    from points of their own choice. "none" leaves z as it is.

    Raises:
        ValueError: another rule, or points without z.
    """
    require_choice("z alignment", rule, Z_ALIGNMENTS)
    if points.shape[-1] != 3:
        raise ValueError(f"points: got shape {tuple(points.shape)}, expected (B, K, 3)")
    if rule == "none":
        return points
    depth = points[..., 2]
    offset = depth.mean(-1) if rule == "mean" else depth.amin(-1)  # (B,)
    return torch.cat([points[..., :2], (depth - offset[..., None])[..., None]], -1)


def nme(
    prediction: Tensor,  # (B, K, D)
    truth: Tensor,  # (B, K, D)
    size: Tensor,  # (B,), px
    visible: Tensor | None = None,  # (B, K), bool; None: all points
) -> Tensor:
    """Mean over the (visible) points of |prediction - truth|, in percent of `size`, (B,).

    An image without a visible point has NaN. What stands at an invisible point is not looked at.

    Raises:
        ValueError: the shapes differ.

    Source: PRN section 4.2, where "bounding box size is used as the normalization factor"; whose
    box is up to the caller, but never the prediction's.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in shape"
        )
    distances = (prediction - truth).norm(dim=-1)  # (B, K)
    if visible is None:
        return 100 * distances.mean(-1) / size
    return 100 * torch.where(visible, distances, 0).sum(-1) / visible.sum(-1) / size
