"""The normalised mean error and its two ingredients: a size and a rule for depth.

Torch or numpy in, the same out; landmarks as arrays need no torch, whose import takes seconds.
Letters: B batch, K points, D coordinates: x, y and possibly z, px of one frame and pixel origin.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from prnet.checks import require_choice
from prnet.geometry.compiled import cached, in_memory, inlined

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", "Tensor", np.ndarray)

Z_ALIGNMENTS = ("none", "mean", "min")


def bbox_size(points: Values) -> Values:  # (B, K, 2 or more)
    """sqrt(w h) of the points' bounding box in x and y, (B,), float64, px: never its diagonal."""
    if isinstance(points, np.ndarray):
        return np.ptp(points[..., :2].astype(np.float64), axis=-2).prod(-1) ** 0.5
    import torch

    if in_memory(points):
        return torch.from_numpy(_box_sizes(points.detach().numpy()))
    sides = points[..., :2].amax(-2).double() - points[..., :2].amin(-2).double()  # (B, 2)
    return sides.prod(-1).sqrt()


def align_depth(points: Values, rule: str) -> Values:  # (B, K, 3)
    """The points with z moved so that its `rule` ("mean", "min") over the points is 0, (B, K, 3).

    A single picture does not show the absolute depth of a face, and the published systems count z
    from points of their own choice. "none" leaves z as it is.

    Raises:
        ValueError: another rule, or points without z.
    """
    _require_depth(points, rule)
    if rule == "none":
        return points
    depth = points[..., 2]
    if isinstance(points, np.ndarray):
        offset = depth.mean(-1) if rule == "mean" else depth.min(-1)
        return np.concatenate([points[..., :2], (depth - offset[..., None])[..., None]], -1)
    import torch

    offset = depth.mean(-1) if rule == "mean" else depth.amin(-1)  # (B,)
    return torch.cat([points[..., :2], (depth - offset[..., None])[..., None]], -1)


def nme(
    prediction: Values,  # (B, K, D)
    truth: Values,  # (B, K, D)
    size: Values,  # (B,), px
    visible: Values | None = None,  # (B, K), bool; None: all points
    *,
    z_alignment: str = "none",
) -> Values:
    """Mean over the (visible) points of |prediction - truth|, in percent of `size`, (B,).

    `z_alignment` is of both sides, by `align_depth`. An image without a visible point has NaN.
    What stands at an invisible point is not looked at. In memory, where nothing is differentiated,
    one compiled pass reads each number once or twice, takes distances in the points' own precision
    and sums in float64.

    Raises:
        ValueError: the shapes differ; as `align_depth`.

    Source: PRN section 4.2, where "bounding box size is used as the normalization factor"; whose
    box is up to the caller, but never the prediction's.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in shape"
        )
    if z_alignment != "none":
        _require_depth(truth, z_alignment)
    if isinstance(truth, np.ndarray):
        predicted, true = (side.astype(np.float64) for side in (prediction, truth))
        if z_alignment != "none":
            predicted, true = (align_depth(side, z_alignment) for side in (predicted, true))
        seen = np.ones(truth.shape[:2], np.bool_) if visible is None else visible
        distances = np.where(seen, np.linalg.norm(predicted - true, axis=-1), 0)  # (B, K)
        with np.errstate(invalid="ignore"):  # of no points
            return 100 * (distances.sum(-1) / seen.sum(-1)) / size
    import torch

    if in_memory(prediction, truth):
        seen = np.ones((0, 0), np.bool_) if visible is None else visible.numpy()
        rule = Z_ALIGNMENTS.index(z_alignment)
        means = _mean_distances(prediction.detach().numpy(), truth.detach().numpy(), seen, rule)
        return 100 * torch.from_numpy(means) / size
    if z_alignment != "none":
        prediction, truth = (align_depth(side, z_alignment) for side in (prediction, truth))
    distances = (prediction - truth).norm(dim=-1)  # (B, K)
    if visible is None:
        return 100 * distances.mean(-1) / size
    return 100 * torch.where(visible, distances, 0).sum(-1) / visible.sum(-1) / size


def _require_depth(points: Values, rule: str) -> None:
    require_choice("z alignment", rule, Z_ALIGNMENTS)
    if points.shape[-1] != 3:
        raise ValueError(f"points: got shape {tuple(points.shape)}, expected (B, K, 3)")


@cached()
def _box_sizes(points: np.ndarray) -> np.ndarray:  # (B, K, 2 or more) -> (B,)
    sizes = np.zeros(len(points))
    for sample in range(len(points)):
        low_x = high_x = points[sample, 0, 0]
        low_y = high_y = points[sample, 0, 1]
        for point in range(1, points.shape[1]):
            x, y = points[sample, point, 0], points[sample, point, 1]
            low_x, high_x = min(low_x, x), max(high_x, x)
            low_y, high_y = min(low_y, y), max(high_y, y)
        width, height = np.float64(high_x) - low_x, np.float64(high_y) - low_y
        sizes[sample] = np.sqrt(width * height)
    return sizes


@cached()
def _mean_distances(
    prediction: np.ndarray,  # (B, K, D)
    truth: np.ndarray,  # (B, K, D)
    visible: np.ndarray,  # (B, K), bool, or empty: all
    rule: int,  # of Z_ALIGNMENTS
) -> np.ndarray:
    means, shift = np.zeros(len(truth)), np.zeros(1, truth.dtype)
    for sample in range(len(truth)):
        predicted, true = prediction[sample], truth[sample]
        if rule > 0:
            shift[0] = _depth_shift(predicted, true, rule)
        seen = visible[sample] if visible.size else np.ones(0, np.bool_)
        means[sample] = _mean_distance(predicted, true, seen, shift[0])
    return means


@inlined(error_model="numpy")
def _depth_shift(
    predicted: np.ndarray,  # (K, 3)
    true: np.ndarray,  # (K, 3)
    rule: int,  # of Z_ALIGNMENTS
) -> float:
    """Of the predicted depth against the true one. Not with relaxed arithmetic, which would gather
    every third number into vectors, for three times as long."""
    if rule == 1:
        total = 0.0
        for point in range(len(true)):
            total += np.float64(predicted[point, 2]) - true[point, 2]
        return total / len(true)
    least, least_true = predicted[0, 2], true[0, 2]
    for point in range(len(true)):
        least = min(least, predicted[point, 2])
        least_true = min(least_true, true[point, 2])
    return np.float64(least) - least_true


@inlined(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _mean_distance(
    predicted: np.ndarray,  # (K, D)
    true: np.ndarray,  # (K, D)
    visible: np.ndarray,  # (K,), bool, or empty: all
    shift: float,  # of the predicted depth, in the points' precision
) -> float:
    total, seen = 0.0, 0
    for point in range(len(true)):
        if visible.size and not visible[point]:
            continue
        x = predicted[point, 0] - true[point, 0]
        y = predicted[point, 1] - true[point, 1]
        squared = x * x + y * y
        if true.shape[1] > 2:
            z = predicted[point, 2] - true[point, 2] - shift
            squared += z * z
        total += np.sqrt(squared)
        seen += 1
    return total / seen
