"""The similarity: known transforms, least squares, refusals, gradients."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from prnet.geometry.align import Similarity, nearest_rotation, umeyama
from prnet.geometry.camera import transform_points


def matrix_of(similarity: Similarity) -> torch.Tensor:
    """The map as (B, 4, 4), for `transform_points`."""
    matrix = torch.eye(4, dtype=similarity.scale.dtype).repeat(len(similarity.scale), 1, 1)
    matrix[:, :3, :3] = similarity.scale[:, None, None] * similarity.rotation
    matrix[:, :3, 3] = similarity.translation
    return matrix


def random_points(seed: int, batch: int = 4, count: int = 30) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, 3, generator=random, dtype=torch.float64)


def random_similarity(seed: int, batch: int = 4) -> Similarity:
    random = np.random.default_rng(seed)
    rotation = Rotation.random(batch, random_state=random).as_matrix()
    return Similarity(
        torch.from_numpy(random.uniform(1e-3, 50, batch)),
        torch.from_numpy(rotation),
        torch.from_numpy(random.normal(0, 100, (batch, 3))),
    )


def residual(
    similarity: Similarity,
    source: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean squared distance after alignment, (B,)."""
    squared = (transform_points(matrix_of(similarity), source) - target).square().sum(-1)
    weights = torch.ones_like(squared) if weights is None else weights
    return (weights * squared).sum(1) / weights.sum(1)


@pytest.mark.parametrize("seed", range(20))
def test_known_similarity_is_recovered(seed: int) -> None:
    source, known = random_points(seed), random_similarity(seed)
    target = transform_points(matrix_of(known), source)
    weights = torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 2, source.shape[:2]))
    for found in (umeyama(source, target), umeyama(source, target, weights)):
        for value, expected in zip(found, known, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


def test_three_points_of_a_plane_are_enough() -> None:
    source, known = random_points(3, count=3), random_similarity(3)
    target = transform_points(matrix_of(known), source)
    found = umeyama(source, target)
    torch.testing.assert_close(found.rotation, known.rotation, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.scale, known.scale, rtol=1e-10, atol=0)


def test_rotation_is_proper_for_any_input() -> None:
    for seed in range(10):
        source, target = random_points(seed), random_points(seed + 100)
        mirrored = source * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
        for to in (target, mirrored, -source):
            found = umeyama(source, to)
            identity = found.rotation @ found.rotation.mT
            torch.testing.assert_close(identity, torch.eye(3).double().expand(4, 3, 3))
            torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(4).double())
            assert (found.scale > 0).all()


def test_mirrored_face_is_refused_and_the_flip_recovers_it(face) -> None:
    vertices = face.morphable_model.mean.double()[None]
    flip = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    known = random_similarity(0, batch=1)
    image = flip * transform_points(matrix_of(known), vertices)
    size = known.scale * vertices.std()
    assert residual(umeyama(vertices, image), vertices, image).sqrt() > 0.1 * size

    found = umeyama(vertices, flip * image)
    torch.testing.assert_close(found.rotation, known.rotation)
    assert residual(found, vertices, flip * image).sqrt() < 1e-9 * size


def test_no_similarity_nearby_is_better() -> None:
    source, noise = random_points(5), random_points(6)
    target = transform_points(matrix_of(random_similarity(5)), source) + 5 * noise
    weights = torch.from_numpy(np.random.default_rng(5).uniform(0, 2, source.shape[:2]))
    found = umeyama(source, target, weights)
    best = residual(found, source, target, weights)
    for seed in range(50):
        random = np.random.default_rng(seed)
        turn = Rotation.from_rotvec(random.normal(0, 0.02, (4, 3))).as_matrix()
        moved = Similarity(
            found.scale * torch.from_numpy(random.normal(1, 0.02, 4)),
            torch.from_numpy(turn) @ found.rotation,
            found.translation + torch.from_numpy(random.normal(0, 0.1, (4, 3))),
        )
        assert (residual(moved, source, target, weights) > best).all()


def test_matches_scipy_without_scale() -> None:
    source, target = random_points(7), random_points(8)
    weights = torch.from_numpy(np.random.default_rng(7).uniform(0.1, 2, source.shape[:2]))
    found = umeyama(source, target, weights, with_scale=False)
    assert torch.equal(found.scale, torch.ones(4).double())
    share = (weights / weights.sum(1, keepdim=True))[..., None]
    source_centred = source - (share * source).sum(1, keepdim=True)
    target_centred = target - (share * target).sum(1, keepdim=True)
    for i in range(4):
        oracle, _ = Rotation.align_vectors(
            target_centred[i].numpy(), source_centred[i].numpy(), weights=weights[i].numpy()
        )
        np.testing.assert_allclose(found.rotation[i].numpy(), oracle.as_matrix(), atol=1e-10)


def test_points_of_weight_zero_are_ignored() -> None:
    source, known = random_points(9), random_similarity(9)
    target = transform_points(matrix_of(known), source)
    weights = torch.ones(source.shape[:2], dtype=torch.float64)
    weights[:, ::3] = 0
    target[:, ::3] += 1e3 * random_points(10)[:, ::3]
    found = umeyama(source, target, weights)
    torch.testing.assert_close(found.rotation, known.rotation, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.scale, known.scale, rtol=1e-10, atol=0)


def test_doubled_weight_is_a_point_given_twice() -> None:
    source, target = random_points(11), random_points(12)
    weights = torch.ones(source.shape[:2], dtype=torch.float64)
    weights[:, :5] = 2
    twice = umeyama(*(torch.cat([points, points[:, :5]], 1) for points in (source, target)))
    for value, expected in zip(umeyama(source, target, weights), twice, strict=True):
        torch.testing.assert_close(value, expected)


def test_batch_equals_its_items() -> None:
    source, target = random_points(13), random_points(14)
    together = umeyama(source, target)
    for i in range(4):
        alone = umeyama(source[i : i + 1], target[i : i + 1])
        for value, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(value[i : i + 1], expected)


def test_float32_micrometres_to_pixels(face) -> None:
    """The magnitudes of real use: coordinates of 1e5 to pixels of 1e2 far from the origin."""
    known = random_similarity(15, batch=1)._replace(scale=torch.tensor([1.3e-3]).double())
    source = face.morphable_model.mean[None]
    target = transform_points(matrix_of(known), source.double()).float()
    found = umeyama(source, target)
    assert found.rotation.dtype == torch.float32
    assert (transform_points(matrix_of(found), source) - target).abs().max() < 1e-3


def test_arguments_are_left_alone_and_autocast_has_no_effect() -> None:
    source, target = random_points(16).float(), random_points(17).float()
    weights = torch.rand(source.shape[:2], generator=torch.Generator().manual_seed(0))
    copies = [argument.clone() for argument in (source, target, weights)]
    plain = umeyama(source, target, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = umeyama(source, target, weights)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))
    assert all(torch.equal(a, b) for a, b in zip((source, target, weights), copies, strict=True))


@pytest.mark.parametrize("with_scale", [True, False])
def test_gradient_is_right(with_scale: bool) -> None:
    source, target = random_points(18, batch=2, count=6), random_points(19, batch=2, count=6)
    weights = torch.rand(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = [argument.requires_grad_() for argument in (source, target, weights + 0.1)]
    assert torch.autograd.gradcheck(lambda *args: umeyama(*args, with_scale=with_scale), inputs)


def test_gradient_survives_equal_singular_values() -> None:
    """The corners of a cube: all three singular values are the same."""
    corners = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    source = corners.double()[None]
    target = transform_points(matrix_of(random_similarity(20, batch=1)), source)
    target = target.requires_grad_()
    assert torch.autograd.gradcheck(lambda points: umeyama(source, points), [target])


def test_gradient_is_finite_for_a_mirrored_cube() -> None:
    """The best rotation is not unique there; a gradient of zero is as good as any, NaN is not."""
    corners = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    source = corners.double()[None]
    target = (-source).requires_grad_()
    umeyama(source, target).rotation.square().sum().backward()
    assert target.grad.isfinite().all()


LINE = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flat", [LINE, torch.zeros_like(LINE)], ids=["line", "one point"])
def test_points_without_a_rotation_raise(flat, dtype, offset) -> None:
    flat = (flat + offset).to(dtype)[None].repeat(2, 1, 1)
    full = random_points(21, batch=2, count=5).to(dtype)
    for source, target in ((flat, full), (full, flat), (flat, flat)):
        with pytest.raises(ValueError, match=r"items \[0, 1\].*coincide or lie on a line"):
            umeyama(source, target)
    mixed = torch.cat([full[:1], flat[:1]])
    with pytest.raises(ValueError, match=r"items \[1\]"):
        umeyama(mixed, full)


def test_weights_that_leave_two_points_raise() -> None:
    weights = torch.zeros(4, 30, dtype=torch.float64)
    weights[:, :2] = 1
    with pytest.raises(ValueError, match="lie on a line"):
        umeyama(random_points(22), random_points(23), weights)


def test_bad_arguments_raise() -> None:
    points = random_points(24)
    ones = torch.ones(4, 30, dtype=torch.float64)
    broken = points.clone()
    broken[1, 2, 0] = torch.nan
    empty_row = ones.clone()
    empty_row[2] = 0
    for arguments, message in (
        ((points, points[:, :-1]), r"\(4, 30, 3\) and \(4, 29, 3\)"),
        ((points[..., :2], points[..., :2]), r"expected both \(B, N, 3\)"),
        ((points[0], points[0]), r"expected both \(B, N, 3\)"),
        ((points[:, :2], points[:, :2]), "got 2 points"),
        ((points, points.float()), "expected one of float32 and float64"),
        ((points.half(), points.half()), "float16"),
        ((broken, points), "source: holds coordinates that are not finite"),
        ((points, broken), "target: holds coordinates that are not finite"),
        ((points, points, ones[:, :-1]), r"weights: got shape \(4, 29\), expected \(4, 30\)"),
        ((points, points, -ones), "at least 0"),
        ((points, points, ones * torch.nan), "expected finite values"),
        ((points, points, empty_row), "a row sums to zero"),
    ):
        with pytest.raises(ValueError, match=message):
            umeyama(*arguments)


def test_damping_changes_no_value_and_hardly_a_gradient() -> None:
    source, target = random_points(30), random_points(31)
    weights = torch.rand(4, 30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = []
    for damping in (None, 1e-3):
        moved = target.clone().requires_grad_()
        found = umeyama(source, moved, weights, damping=damping)
        found.rotation[:, 0, 1].sum().backward()
        gradients.append((found, moved.grad))
    (exact, exact_gradient), (damped, damped_gradient) = gradients
    assert all(torch.equal(a, b) for a, b in zip(exact, damped, strict=True))
    assert not torch.equal(exact_gradient, damped_gradient)
    torch.testing.assert_close(damped_gradient, exact_gradient, rtol=1e-3, atol=1e-8)


def test_damped_gradient_is_bounded_and_follows_the_formula() -> None:
    """M = diag(1, s, 0): a turn about x moves R by 1 / s, damped by s / (s^2 + d^2)."""
    for small in (1e-1, 1e-3, 1e-6, 0.0):
        diagonal = torch.tensor([[1.0, small, 0.0]], dtype=torch.float64)
        matrix = torch.diag_embed(diagonal).requires_grad_()
        rotation = nearest_rotation(matrix, damping=1e-2)
        torch.testing.assert_close(rotation, torch.eye(3).double()[None])
        rotation[0, 1, 2].backward()
        expected = small / (small**2 + 1e-4)
        assert matrix.grad[0, 1, 2].item() == pytest.approx(expected, rel=1e-9)
        assert matrix.grad[0, 2, 1].item() == pytest.approx(-expected, rel=1e-9)
        assert matrix.grad.abs().max() <= 1 / (2 * 1e-2)


def test_nearest_rotation_maximises_the_trace() -> None:
    random = np.random.default_rng(32)
    matrix = torch.from_numpy(random.normal(size=(20, 3, 3)))
    best = nearest_rotation(matrix)
    torch.testing.assert_close(torch.linalg.det(best), torch.ones(20).double())
    trace = (best * matrix).sum((1, 2))
    for other in torch.from_numpy(Rotation.random(300, random_state=random).as_matrix()):
        assert (trace >= (other * matrix).sum((1, 2)) - 1e-12).all()


def test_damped_similarity_refuses_no_value() -> None:
    """What raises without damping comes out finite, but for NaN, and leaves the others alone."""
    source, target = random_points(33, count=5), random_points(34, count=5)
    weights = torch.ones(4, 5, dtype=torch.float64)
    source[1], target[2], weights[3] = LINE, 7.0, 0.0
    known = umeyama(source[:1], target[:1])
    broken = target.clone()
    broken[1, 0, 0] = torch.nan
    for to, finite in ((target, [True] * 4), (broken, [True, False, True, True])):
        inputs = [tensor.clone().requires_grad_() for tensor in (source, to, weights)]
        found = umeyama(*inputs, damping=1e-3)
        assert found.scale.isfinite().tolist() == finite
        assert found.rotation.isfinite().all()
        torch.testing.assert_close(found.rotation[0], known.rotation[0])
        sum(value[finite].square().sum() for value in found).backward()
        for tensor in inputs:
            assert tensor.grad[finite].isfinite().all()
    plain = umeyama(source[3:], target[3:])  # weights of sum 0 count as equal
    torch.testing.assert_close(found.rotation[3:], plain.rotation)
