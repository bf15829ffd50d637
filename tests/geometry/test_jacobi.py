"""Singular vectors in a fixed number of steps: LAPACK's, in every degenerate case too."""

import pytest
import torch
from torch import Tensor

from prnet.geometry import align
from prnet.geometry.align import nearest_rotation
from prnet.geometry.jacobi import jacobi_svd, rotating_svd, rotation_by_squaring

COUNT = 2000
# Singular values; the last is negative for a matrix that reflects. The rotation is determined where
# s_2 + s_3 is not 0.
DETERMINED = {
    "any": (1.0, 0.7, 0.4),
    "ball": (1.0, 1.0, 1.0),
    "planar": (1.0, 0.6, 0.0),
    "round and planar": (1.0, 1.0, 0.0),
    "nearly planar": (1.0, 0.5, 1e-7),
    "thin": (1.0, 0.1, 1e-3),
    "mirrored": (1.0, 0.6, -0.3),
    "huge": (1e12, 5e11, 2e11),
    "minute": (1e-15, 5e-16, 2e-16),
}
OPEN = {
    "nothing": (0.0, 0.0, 0.0),
    "collinear": (1.0, 0.0, 0.0),
    "nearly collinear": (1.0, 1e-7, 1e-9),
    "mirrored with two alike": (1.0, 0.5, -0.5),
    "mirrored ball": (1.0, 1.0, -1.0),
}


@pytest.fixture(autouse=True)
def in_steps(monkeypatch) -> None:
    """As where there is no LAPACK."""
    monkeypatch.setattr(align, "rotating_svd", jacobi_svd)


def rotations(seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    frames, _ = torch.linalg.qr(torch.randn(COUNT, 3, 3, generator=random, dtype=torch.float64))
    return frames * torch.linalg.det(frames).sign()[:, None, None]


def matrices(values: tuple[float, ...]) -> Tensor:
    """With these singular values, (B, 3, 3), among them the diagonal and its permutations."""
    diagonal = torch.diag(torch.tensor(values, dtype=torch.float64))
    turned = rotations(0) @ diagonal @ rotations(1)
    turned[0], turned[1], turned[2] = diagonal, diagonal.roll(1, 0), diagonal.flip(0, 1)
    return turned


def by_lapack(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest rotation and the sum of the singular values that it collects, in float64."""
    left, values, right = torch.linalg.svd(matrix.double())
    sign = torch.ones_like(values)
    sign[:, 2] = torch.linalg.det(left @ right).sign()
    return (left * sign[:, None]) @ right, (values * sign).sum(1)


@pytest.mark.parametrize("rotation", [nearest_rotation, rotation_by_squaring])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [*DETERMINED, *OPEN])
def test_the_rotation_is_the_best(kind, dtype, rotation):
    matrix = matrices((DETERMINED | OPEN)[kind]).to(dtype)
    found = rotation(matrix).double()
    eps = torch.finfo(dtype).eps
    size = matrix.double().abs().amax().clamp(min=1e-300)
    identity = torch.eye(3, dtype=torch.float64).expand_as(found)
    torch.testing.assert_close(found @ found.mT, identity, rtol=0, atol=20 * eps)
    assert (torch.linalg.det(found) > 0).all()
    best, trace = by_lapack(matrix)
    reached = (found * matrix.double()).sum((1, 2))
    assert ((reached - trace).abs() <= 20 * eps * size).all()
    if kind in DETERMINED:
        largest, second, third = DETERMINED[kind]
        close = 4 * eps * largest / (second + third)
        assert (found - best).abs().max() < max(close, 1e-5 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_squaring_tells_the_best_apart_as_far_as_rounding_does(gap):
    """Of two rotations that are nearly as good the better: off by rounding of the matrix, which
    their nearness enlarges, and by no more."""
    matrix = matrices((1.0, 0.5, gap - 0.5)).float()
    best, _ = by_lapack(matrix)
    assert (rotation_by_squaring(matrix) - best).abs().max() < 30 * torch.finfo().eps / gap


@pytest.mark.parametrize("kind", [*DETERMINED, *OPEN])
def test_the_parts_are_a_decomposition(kind):
    matrix = matrices((DETERMINED | OPEN)[kind])
    left, values, right = jacobi_svd(matrix)
    largest = max(abs(value) for value in (DETERMINED | OPEN)[kind])
    assert ((left * values[:, None]) @ right - matrix).abs().max() <= 1e-14 * largest
    expected = torch.tensor((DETERMINED | OPEN)[kind], dtype=torch.float64).expand_as(values)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-14 * largest)
    for frame in (left, right):
        torch.testing.assert_close(torch.linalg.det(frame), torch.ones(COUNT).double())


def test_nothing_and_what_is_not_finite_turn_nothing():
    matrix = torch.zeros(3, 3, 3)
    matrix[1], matrix[2] = torch.nan, torch.inf
    assert torch.equal(nearest_rotation(matrix), torch.eye(3).expand(3, 3, 3))


@pytest.mark.parametrize("kind", ["any", "ball", "planar", "round and planar", "mirrored"])
def test_the_gradient_is_right_where_the_rotation_is_determined(kind):
    matrix = matrices(DETERMINED[kind])[:6].requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, [matrix])


@pytest.mark.parametrize("damping", [0.0, 1e-3])
@pytest.mark.parametrize("kind", [*DETERMINED, *OPEN])
def test_the_gradient_is_finite_everywhere(kind, damping):
    matrix = matrices((DETERMINED | OPEN)[kind]).float().requires_grad_()
    nearest_rotation(matrix, damping=damping).square().sum().backward()
    assert matrix.grad.isfinite().all()


@pytest.mark.parametrize("kind", [*DETERMINED, *OPEN])
def test_lapack_in_its_place_says_the_same(kind):
    matrix = matrices((DETERMINED | OPEN)[kind])
    (left, values, right), (_, expected, _) = rotating_svd(matrix), jacobi_svd(matrix)
    largest = max(abs(value) for value in (DETERMINED | OPEN)[kind])
    assert ((left * values[:, None]) @ right - matrix).abs().max() <= 1e-14 * largest
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-14 * largest)
    torch.testing.assert_close(torch.linalg.det(left @ right), torch.ones(COUNT).double())


def test_it_is_one_graph_without_a_branch(monkeypatch):
    """What compilation, CUDA graphs and ONNX ask for."""
    monkeypatch.setattr(align, "rotating_svd", rotating_svd)
    matrix = matrices(DETERMINED["any"])[:4].float()
    program = torch.export.export(Rotation(), (matrix,))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [name for name in calls if "svd" in name or "local_scalar" in name]
    assert len(calls) < 100  # each costs the exporter and the runtime; the decomposition has 500
    torch.testing.assert_close(program.module()(matrix), nearest_rotation(matrix))
    matrix[0], matrix[1] = 0, torch.nan
    assert torch.equal(program.module()(matrix)[:2], torch.eye(3).expand(2, 3, 3))


class Rotation(torch.nn.Module):
    def forward(self, matrix: Tensor) -> Tensor:
        return nearest_rotation(matrix)
