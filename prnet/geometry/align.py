"""The least-squares similarity between two point sets. Letters: B batch, N points.

Across the y-flip between model frame and image the true map is a reflection. Flip one side with
F = diag(1, -1, 1), align with det R = +1, and flip the result back: for a y-up and b y-down, align
a to F b, then b = F (s R a + t). A solver that may reflect would find a mirrored face perfect.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from prnet.geometry.jacobi import rotating_svd, rotation_by_squaring


class Similarity(NamedTuple):
    """target = scale rotation source + translation, on column vectors."""

    scale: Tensor  # (B,)
    rotation: Tensor  # (B, 3, 3), det +1
    translation: Tensor  # (B, 3)


def umeyama(
    source: Tensor,  # (B, N, 3)
    target: Tensor,  # (B, N, 3)
    weights: Tensor | None = None,  # (B, N), >= 0; None: uniform
    *,
    with_scale: bool = True,
    damping: float | None = None,
) -> Similarity:
    """Least-squares similarity: min sum_n w_n |s R source_n + t - target_n|^2.

    Convention: column vectors, det R = +1 (a mirrored face is not a face); any one frame and unit.
    `with_scale=False` fixes s = 1. Computed in the precision of the points, outside autocast. The
    gradient is finite for every accepted input, equal singular values included.

    `damping` (see `nearest_rotation`) is for points that a network is still learning to predict:
    only shapes and dtypes are refused then, and no value is read back from the device. Where the
    rotation is not determined it is one of the best, weights of sum 0 count as equal, and a NaN
    comes out as NaN in scale and translation.

    Raises:
        ValueError: shapes or dtypes differ, fewer than 3 points; without `damping` also weights
            negative or of sum zero, a value is not finite, or the points of either side coincide
            or lie on a line.

    Source: Umeyama, PAMI 1991, eqs. 34-43, with weights in every sum. SADRNet's self-alignment
    (section III-C) is this with visibility weights, apart from its scale, a ratio of mean distances
    (eq. 14), and its translation, printed without the scale (eq. 18).
    """
    if weights is None:
        weights = source.new_ones(source.shape[:2])
    _require_shapes(source, target, weights)
    if damping is None:
        _require_values(source, target, weights)
    tiny = torch.finfo(source.dtype).tiny

    with torch.autocast(source.device.type, enabled=False):
        share = weight_shares(weights)[..., None]  # (B, N, 1)
        source_mean = (share * source).sum(1)  # (B, 3)
        target_mean = (share * target).sum(1)
        source_centred = source - source_mean[:, None]
        target_centred = target - target_mean[:, None]
        covariance = (share * target_centred).transpose(1, 2) @ source_centred  # (B, 3, 3)
        source_variance = (share * source_centred.square()).sum((1, 2))  # (B,)
        target_variance = (share * target_centred.square()).sum((1, 2))

        if damping is None:
            # Rank 2 is needed: a line leaves the turn about itself open. The second singular value
            # must exceed what the rounding of the coordinates alone brings into the covariance.
            singular = torch.linalg.svdvals(covariance.detach())
            rounding = torch.finfo(source.dtype).eps * (
                source.detach().abs().amax((1, 2)) * target_variance.detach().sqrt()
                + target.detach().abs().amax((1, 2)) * source_variance.detach().sqrt()
            )
            flat = singular[:, 1] <= 4 * rounding
            if flat.any():
                raise ValueError(
                    f"items {flat.nonzero().flatten().tolist()}: the weighted points of one side "
                    "coincide or lie on a line, so no rotation is determined"
                )

        rotation = nearest_rotation(covariance, damping=damping or 0.0)
        scale = torch.ones_like(source_variance)
        if with_scale:
            # A source that is one point but for rounding gives 0, not a noise divided by a noise.
            least = torch.finfo(source.dtype).eps ** 2 * source_mean.detach().square().sum(1) + tiny
            scale = (rotation * covariance).sum((1, 2)) / source_variance.clamp(min=least)
        translation = target_mean - scale[:, None] * (rotation @ source_mean[..., None]).squeeze(-1)
    return Similarity(scale, rotation, translation)


def weight_shares(weights: Tensor) -> Tensor:  # (B, N), >= 0
    """The weights divided by their sum, (B, N); equal ones where the sum is 0."""
    total = weights.sum(1, keepdim=True)
    weights = torch.where(total > 0, weights, 1)
    return weights / weights.sum(1, keepdim=True)


def nearest_rotation(
    matrix: Tensor,  # (B, 3, 3)
    *,
    damping: float = 0.0,
) -> Tensor:
    """The rotation R, det +1, that maximises tr(R^T M), (B, 3, 3).

    Of rank 1 or 0, or a mirror image with equal least singular values, M leaves a choice; R is one
    of the best. A matrix that is not finite gives the identity.

    Differentiable: with M = U S V^T, D = diag(1, 1, det(U V^T)), R = U D V^T = U W^T, S' = S D and
    A = U^T dM W, dR = U [(A - A^T)_ij / (s'_i + s'_j)] W^T. Unlike autograd through the
    decomposition this never divides by a difference of singular values (they are all equal for a
    ball or a cube). Near a choice it grows without bound; `damping` d > 0 replaces 1 / x by
    x / (x^2 + (d s_1)^2), at most 1 / (2 d s_1) and off by (d s_1 / x)^2 of itself.
    """
    if torch.compiler.is_compiling() and not matrix.requires_grad:
        return rotation_by_squaring(_finite(matrix))  # a seventh of the graph
    return _NearestRotation.apply(matrix, damping)


def _finite(matrix: Tensor) -> Tensor:  # (B, 3, 3)
    """The identity in place of matrices that are not."""
    finite = matrix.isfinite().all(-1).all(-1)[:, None, None]
    return torch.where(finite, matrix, torch.eye(3, dtype=matrix.dtype, device=matrix.device))


class _NearestRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrix: Tensor, damping: float) -> Tensor:
        left, singular, right_t = rotating_svd(_finite(matrix))
        ctx.damping = damping
        ctx.save_for_backward(left, singular, right_t)
        return left @ right_t

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        left, singular, right_t = ctx.saved_tensors
        # In units of the largest, so that no square overflows or vanishes.
        largest = singular[:, :1].clamp(min=torch.finfo(singular.dtype).tiny)
        relative = singular / largest
        sums = relative[:, :, None] + relative[:, None, :]
        # A sum of zero is a mirror image with two directions to choose from: there R itself jumps.
        defined = sums > torch.finfo(sums.dtype).eps
        damped = torch.where(defined, sums, 1).reciprocal()
        if ctx.damping:
            damped = sums / (sums.square() + ctx.damping**2)
        inverse = torch.where(defined, damped, 0) / largest[..., None]
        turned = left.transpose(1, 2) @ gradient @ right_t.transpose(1, 2) * inverse
        return left @ (turned - turned.transpose(1, 2)) @ right_t, None


def _require_shapes(source: Tensor, target: Tensor, weights: Tensor) -> None:
    if source.ndim != 3 or source.shape[-1] != 3 or source.shape != target.shape:
        raise ValueError(
            f"got points {tuple(source.shape)} and {tuple(target.shape)}, expected both (B, N, 3)"
        )
    if source.dtype != target.dtype or source.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"got points of {source.dtype} and {target.dtype}, expected one of float32 and float64"
        )
    if source.shape[1] < 3:
        raise ValueError(f"got {source.shape[1]} points, a similarity needs at least 3")
    if weights.shape != source.shape[:2]:
        raise ValueError(
            f"weights: got shape {tuple(weights.shape)}, expected {tuple(source.shape[:2])}"
        )


def _require_values(source: Tensor, target: Tensor, weights: Tensor) -> None:
    for name, points in (("source", source), ("target", target)):
        if not points.isfinite().all():
            raise ValueError(f"{name}: holds coordinates that are not finite")
    if not (weights.isfinite() & (weights >= 0)).all():
        raise ValueError("weights: expected finite values of at least 0")
    if not (weights.sum(1) > 0).all():
        raise ValueError("weights: a row sums to zero, nothing is left to align")
