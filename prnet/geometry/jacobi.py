"""The singular value decomposition of 3 x 3 matrices in a fixed number of elementary steps.

No branch, no call of LAPACK and no value read back: it can be compiled, captured in a CUDA graph
and written as ONNX, where `torch.linalg.svd` cannot. Run step by step on a CPU it takes 0.9 ms,
where LAPACK takes 0.01: there, and there alone, LAPACK it is. Letters: B batch.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Of three turns. The error squares itself in each: random matrices are at rounding after four in
# float32 and after five in float64.
ROUNDS = {torch.float32: 4, torch.float64: 5}
PAIRS = ((0, 1), (0, 2), (1, 2))


def rotating_svd(
    matrix: Tensor,  # (B, 3, 3), finite, float32 or float64
) -> tuple[Tensor, Tensor, Tensor]:
    """M = U diag(s) V^T with det (U V^T) = +1: U (B, 3, 3), s (B, 3), V^T (B, 3, 3).

    s_1 >= s_2 >= |s_3| but for rounding; s_3 has the sign of det M. Singular vectors that are not
    determined are some orthonormal ones. Not for autograd.
    """
    if matrix.device.type == "cpu" and not torch.compiler.is_compiling():
        left, singular, right_t = torch.linalg.svd(matrix)
        sign = torch.ones_like(singular)
        sign[:, 2] = torch.linalg.det(left @ right_t).sign()
        return left, singular * sign, sign[..., None] * right_t
    return jacobi_svd(matrix)


def jacobi_svd(
    matrix: Tensor,  # (B, 3, 3), finite, float32 or float64
) -> tuple[Tensor, Tensor, Tensor]:
    """As `rotating_svd`, in steps; det U = det V = +1.

    Source: one-sided Jacobi (Hestenes, J. SIAM 1958).
    """
    tiny = torch.finfo(matrix.dtype).tiny
    size = matrix.abs().amax((1, 2), keepdim=True)
    # In units of the largest entry: no square overflows, and none that counts vanishes.
    unit = matrix / size.clamp(min=tiny)
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    # Pairs of columns of M V are turned, and with them those of V, until they are orthogonal, by
    # the angle that makes the left one of the two as long as it can be.
    long = list(unit.unbind(2))  # of M V, 3 of (B, 3)
    right = list(identity.unbind(2))
    for _ in range(ROUNDS[matrix.dtype]):
        for i, j in PAIRS:
            excess = _dot(long[i], long[i]) - _dot(long[j], long[j])
            angle = torch.atan2(2 * _dot(long[i], long[j]), excess) / 2
            cosine, sine = angle.cos(), angle.sin()
            for columns in (long, right):
                first, second = columns[i], columns[j]
                columns[i] = cosine * first + sine * second
                columns[j] = cosine * second - sine * first

    left_t, right_t = _frame(long[0], long[1]), _frame(right[0], right[1])
    singular = size[..., 0] * ((left_t @ unit) * right_t).sum(2)
    return left_t.mT, singular, right_t


def _frame(first: Tensor, second: Tensor) -> Tensor:  # (B, 3)
    """Orthonormal rows, det +1: along the first, then as near to the second as can be, (B, 3, 3).

    Where either is nothing, another direction takes its place.
    """
    x_axis = torch.eye(3, dtype=first.dtype, device=first.device)[:1]
    x = _unit(first, otherwise=x_axis)
    # The axis most across x; of two equals the first.
    axis = functional.one_hot(x.abs().argmin(1), 3).to(x.dtype)
    y = _unit(_rest(second, x), otherwise=_unit(_rest(axis, x), otherwise=x_axis))
    y = _unit(_rest(y, x), otherwise=y)  # once more: of a short second rounding is a large part
    return torch.stack([x, y, torch.linalg.cross(x, y)], 1)


def _rest(vector: Tensor, unit: Tensor) -> Tensor:  # (B, 3)
    """The part across a unit vector, (B, 3)."""
    return vector - _dot(vector, unit) * unit


def _dot(first: Tensor, second: Tensor) -> Tensor:  # (B, 3)
    """(B, 1)."""
    return (first * second).sum(1, keepdim=True)


def _unit(vector: Tensor, *, otherwise: Tensor) -> Tensor:  # (B, 3)
    """The vector at length 1; where it has none, the other."""
    length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    tiny = torch.finfo(vector.dtype).tiny
    return torch.where(length > tiny, vector / length.clamp(min=tiny), otherwise)
