"""The singular value decomposition of 3 x 3 matrices, and the nearest rotation alone, in a fixed
number of elementary steps.

No branch, no call of LAPACK and no value read back: they can be compiled, captured in a CUDA graph
and written as ONNX, where `torch.linalg.svd` cannot. Run step by step on a CPU the decomposition
takes 0.9 ms, where LAPACK takes 0.01: there, and there alone, LAPACK it is. A gradient needs the
decomposition, 560 nodes of an ONNX file; without one the rotation will do, 85 nodes.
Letters: B batch.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Of three turns. The error squares itself in each: random matrices are at rounding after four in
# float32 and after five in float64.
ROUNDS = {torch.float32: 4, torch.float64: 5}
PAIRS = ((0, 1), (0, 2), (1, 2))
# Of two squarings each: eigenvalues further apart than rounding are so in their 2^24th powers, in
# float64 in their 2^54th.
SQUARINGS = {torch.float32: 12, torch.float64: 27}


def _horn() -> Tensor:
    """What makes of M the matrix Q with q^T Q q = tr(R(q)^T M), (9, 16), and of q q^T R(q) by its
    transpose: R = (w^2 - |u|^2) I + 2 u u^T + 2 w [u]_x of q = (w, u)."""
    horn = torch.zeros(3, 3, 4, 4)  # row and column of M, of Q
    eye = torch.eye(3)
    horn[:, :, 0, 0] = eye
    for k in range(3):
        horn[:, :, k + 1, k + 1] -= eye
        across = torch.linalg.cross(eye[k].expand(3, 3), eye).T  # [e_k]_x
        horn[:, :, 0, k + 1] += across
        horn[:, :, k + 1, 0] += across
        for j in range(3):
            horn[k, j, k + 1, j + 1] += 1
            horn[k, j, j + 1, k + 1] += 1
    return horn.flatten(2).flatten(0, 1)


HORN = _horn()


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


def rotation_by_squaring(
    matrix: Tensor,  # (B, 3, 3), finite, float32 or float64
) -> Tensor:
    """The rotation R, det +1, that maximises tr(R^T M), (B, 3, 3); not for autograd.

    Its unit quaternion is the eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix,
    which grows beyond the others as the matrix is squared; of equal ones any in their span.

    Source: Horn, JOSA A 1987, section 4.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    horn = HORN.to(matrix)
    form = (matrix / matrix.abs().amax((1, 2), keepdim=True).clamp(min=tiny)).flatten(1) @ horn
    # No eigenvalue is below minus the norm: with it added the largest is the largest in size.
    norm = torch.linalg.vector_norm(form, dim=1, keepdim=True)
    power = (form / norm.clamp(min=tiny)).unflatten(1, (4, 4)) + torch.eye(4).to(matrix)
    for _ in range(SQUARINGS[matrix.dtype]):
        power = power @ power
        power = power @ power
        power = power / power.amax((1, 2), keepdim=True)  # on its diagonal
    longest = power.diagonal(dim1=1, dim2=2).argmax(1)
    quaternion = power.gather(2, longest[:, None, None].expand(-1, 4, 1))  # (B, 4, 1)
    quaternion = quaternion / torch.linalg.vector_norm(quaternion, dim=1, keepdim=True)
    return ((quaternion @ quaternion.mT).flatten(1) @ horn.T).unflatten(1, (3, 3))


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
