"""The landmark fitter: known faces recovered, stationarity, outliers, mirrors, what it refuses."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from prnet.faces.embedded import load_embedded
from prnet.geometry import camera
from prnet.geometry.fitting import (
    LandmarkFit,
    fit_landmarks,
    landmark_model,
    outline_paths,
    unfit_reason,
)
from prnet.geometry.levenberg_marquardt import Problem, State, jacobian_of, minimise, residual_of
from prnet.geometry.morphable_model import MorphableModel
from tests.tiny import NUM_EXP, NUM_SHAPE, tiny_face, tiny_rotation

HEIGHT = 160.0
FREE = {
    "shape_std": torch.full((NUM_SHAPE,), torch.inf),
    "exp_std": torch.full((NUM_EXP,), torch.inf),
}
PRIOR = {"shape_std": torch.full((NUM_SHAPE,), 2e4), "exp_std": torch.full((NUM_EXP,), 1.0)}
YAWS_DEG = [-100.0, -75.0, -30.0, 0.0, 10.0, 45.0, 88.0, 100.0]
# The landmark on the other side of the face, iBUG order.
SWAP = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
SWAP += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
SWAP += [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    """The 68 landmarks of the tiny face, float64."""
    face = tiny_face()
    bases = (face.shape_mean + face.exp_mean, face.shape_basis, face.exp_basis)
    whole = MorphableModel(*(torch.from_numpy(a) for a in bases))
    return whole.at_vertices(torch.from_numpy(face.landmark_index))


class Truth(NamedTuple):
    scale: Tensor  # (B,)
    rotation: Tensor  # (B, 3, 3)
    translation: Tensor  # (B, 3)
    shape_params: Tensor  # (B, S)
    exp_params: Tensor  # (B, E)
    angles: Tensor  # (B, 3)


def posed(model: MorphableModel, yaws_deg: list[float], *, seed: int = 0) -> tuple[Truth, Tensor]:
    """Random faces and their landmarks (B, 68, 3) in a picture of `HEIGHT` rows, "zero_based"."""
    random = np.random.default_rng(seed)
    count = len(yaws_deg)
    shape_params = torch.from_numpy(random.normal(0, 2e4, (count, NUM_SHAPE)))
    exp_params = torch.from_numpy(random.normal(0, 1, (count, NUM_EXP)))
    angles = random.uniform(-0.4, 0.4, (count, 3))
    angles[:, 1] = np.radians(yaws_deg)
    rotation = np.stack([tiny_rotation(*angle) for angle in angles])
    scale = random.uniform(4e-4, 6e-4, count)
    translation = np.concatenate([random.uniform(60, 90, (count, 2)), np.zeros((count, 1))], 1)
    vertices = model(shape_params, exp_params).numpy()
    plane = scale[:, None, None] * vertices @ rotation.transpose(0, 2, 1) + translation[:, None]
    landmarks = plane * [1, -1, 1] + [-1, HEIGHT, 0]
    pose = (torch.from_numpy(a) for a in (scale, rotation, translation))
    truth = Truth(*pose, shape_params, exp_params, torch.from_numpy(angles))
    return truth, torch.from_numpy(landmarks)


def fit(
    model: MorphableModel, landmarks: Tensor, weights: Tensor | None = None, **options
) -> LandmarkFit:
    options = {"image_height": torch.full((len(landmarks),), HEIGHT), **PRIOR, **options}
    return fit_landmarks(model, landmarks, weights, **options)


def turn_deg(first: Tensor, second: Tensor) -> Tensor:
    """The angle between rotations (B, 3, 3), degrees; exact for small ones."""
    return torch.rad2deg(
        2 * torch.asin(((first - second).flatten(1).norm(dim=1) / 8**0.5).clamp(max=1))
    )


# Known faces.


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("loss", ["squared", "huber", "geman_mcclure"])
def test_exact_landmarks_give_back_the_face(model: MorphableModel, dims: int, loss: str) -> None:
    truth, landmarks = posed(model, YAWS_DEG)
    found = fit(model, landmarks[..., :dims], loss=loss, tolerance=1e-9, **FREE)
    assert found.converged.all()
    assert (turn_deg(found.rotation, truth.rotation) < 1e-6).all()
    torch.testing.assert_close(found.scale, truth.scale, rtol=1e-7, atol=0)
    torch.testing.assert_close(found.translation, truth.translation, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.shape_params, truth.shape_params, rtol=0, atol=2e-2)  # of 2e4
    torch.testing.assert_close(found.exp_params, truth.exp_params, rtol=0, atol=1e-6)
    assert (found.residual < 1e-5).all()
    assert (found.nme < 1e-5).all()


def test_angles_are_those_that_were_chosen_beyond_profiles_too(model: MorphableModel) -> None:
    truth, landmarks = posed(model, YAWS_DEG)
    found = fit(model, landmarks, tolerance=1e-9, **FREE)
    torch.testing.assert_close(found.angles(), truth.angles, rtol=0, atol=1e-7)
    torch.testing.assert_close(camera.rotation_from_angles(found.angles()), found.rotation)


def test_a_depth_offset_of_the_landmarks_is_found(model: MorphableModel) -> None:
    _, landmarks = posed(model, [20.0])
    near = fit(model, landmarks + torch.tensor([0.0, 0.0, 55.0]), tolerance=1e-9, **FREE)
    torch.testing.assert_close(near.translation[0, 2].item(), 55.0, rtol=0, atol=1e-5)
    assert fit(model, landmarks[..., :2]).translation[0, 2] == 0


@pytest.mark.parametrize("origin", sorted(camera.PIXEL_ORIGINS))
def test_pixel_origin_and_picture_height_place_the_same_face(
    model: MorphableModel, origin: str
) -> None:
    """The fit goes the whole way back through `camera.image_from_model`."""
    _, landmarks = posed(model, [-35.0, 15.0])
    points = camera.convert_origin(landmarks[..., :2], "zero_based", origin)
    found = fit(model, points, pixel_origin=origin, tolerance=1e-9, **FREE)
    matrix = camera.image_from_model(
        found.scale,
        found.angles(),
        found.translation,
        torch.full((2,), HEIGHT).double(),
        pixel_origin=origin,
    )
    vertices = model(found.shape_params, found.exp_params)
    image = camera.transform_points(matrix, vertices)[..., :2]
    torch.testing.assert_close(image, points, rtol=0, atol=1e-5)


def test_a_larger_picture_of_the_same_face_changes_scale_alone(model: MorphableModel) -> None:
    _, landmarks = posed(model, [-50.0, 5.0, 65.0])
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 1.0, (3, 68, 2)))
    small = fit(model, landmarks[..., :2] + noise)
    large = fit(model, 4 * (landmarks[..., :2] + noise), image_height=torch.full((3,), 4 * HEIGHT))
    torch.testing.assert_close(large.scale, 4 * small.scale, rtol=1e-7, atol=0)
    torch.testing.assert_close(large.rotation, small.rotation, rtol=0, atol=1e-7)
    torch.testing.assert_close(large.shape_params, small.shape_params, rtol=1e-6, atol=1e-2)
    torch.testing.assert_close(large.nme, small.nme, rtol=1e-7, atol=0)
    torch.testing.assert_close(large.size, 4 * small.size)


def test_an_upside_down_and_a_lying_face_are_found(model: MorphableModel) -> None:
    angles = torch.tensor([[0.1, 0.3, np.pi], [-0.2, -0.6, np.pi / 2], [0.9, 0.2, 0.0]]).double()
    rotation = camera.rotation_from_angles(angles)
    plane = 5e-4 * model.mean @ rotation.transpose(1, 2)
    landmarks = plane[..., :2] * torch.tensor([1.0, -1.0]) + 80
    found = fit(model, landmarks)
    assert (turn_deg(found.rotation, rotation) < 1e-4).all()


# The minimum.


def random_problem(loss: str = "squared", dims: int = 2) -> tuple[Problem, State]:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    problem = Problem(
        mean=draw(1, 12, 3),
        basis=0.3 * draw(1, 4, 12, 3),
        target=torch.zeros(3, 12, dims, dtype=torch.float64),
        weights=draw(3, 12).abs(),
        precision=draw(4).abs(),
        lower=torch.full((4,), -torch.inf, dtype=torch.float64),
        upper=torch.full((4,), torch.inf, dtype=torch.float64),
        point_std=0.2,
        loss=loss,
        robust_scale=0.4,
    )
    rotation = camera.rotation_from_angles(0.5 * draw(3, 3))
    state = State(draw(3).exp(), rotation, draw(3, dims), draw(3, 4))
    # Far off for a few points, so that each loss has something to do.
    noise = 0.1 * draw(3, 12, dims) + (torch.arange(12) > 9)[:, None]
    problem = problem._replace(target=residual_of(problem, state) + noise)
    start = State(
        1.2 * state.scale,
        camera.rotation_from_angles(0.2 * draw(3, 3)) @ rotation,
        state.translation + 0.3,
        torch.zeros_like(state.coefficients),
    )
    return problem, start


def moved(state: State, step: Tensor) -> State:  # (B, P)
    """The oracle's retraction, differentiable: R <- exp([w]) R by its series at w = 0."""
    dims = state.translation.shape[1]
    growth, turn, shift, change = step.split([1, 3, dims, state.coefficients.shape[1]], 1)
    eye = torch.eye(3, dtype=step.dtype)
    cross = torch.linalg.cross(turn[:, None].expand(-1, 3, -1), eye.expand(len(turn), -1, -1)).mT
    return State(
        state.scale * growth[:, 0].exp(),
        (eye + cross) @ state.rotation,
        state.translation + shift,
        state.coefficients + change,
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_jacobian_is_autograds(dims: int) -> None:
    problem, state = random_problem(dims=dims)

    def residual(step: Tensor) -> Tensor:
        return residual_of(problem, moved(state, step)).flatten(1).sum(0)

    zero = torch.zeros(3, 4 + dims + 4, dtype=torch.float64)
    # (K D, B, P): every item's residual depends on its own step alone.
    expected = torch.autograd.functional.jacobian(residual, zero).transpose(0, 1)
    torch.testing.assert_close(jacobian_of(problem, state), expected)


def energy_of(problem: Problem, state: State) -> Tensor:
    """E written out, (B,)."""
    error = residual_of(problem, state).square().sum(-1) / problem.point_std**2
    limit = (problem.robust_scale / problem.point_std) ** 2
    if problem.loss == "huber":
        root = (error + 1e-300).sqrt()
        error = torch.where(error < limit, error, 2 * limit**0.5 * root - limit)
    elif problem.loss == "geman_mcclure":
        error = limit * error / (limit + error)
    prior = (problem.precision * state.coefficients**2).sum(1)
    return (problem.weights * error).sum(1) + prior


@pytest.mark.parametrize("loss", ["squared", "huber", "geman_mcclure"])
def test_where_it_stops_the_energy_is_flat_and_not_lower_nearby(loss: str) -> None:
    problem, state = random_problem(loss)
    solution = minimise(problem, state, max_iterations=500, tolerance=1e-9)
    assert solution.converged.all()
    torch.testing.assert_close(solution.energy, energy_of(problem, solution.state))
    assert (solution.energy < energy_of(problem, state)).all()
    step = torch.zeros(3, 10, dtype=torch.float64, requires_grad=True)
    energy_of(problem, moved(solution.state, step)).sum().backward()
    assert (step.grad.abs() < 1e-6 * solution.energy[:, None]).all()
    for seed in range(20):
        nearby = 1e-3 * torch.randn(3, 10, generator=torch.Generator().manual_seed(seed)).double()
        assert (energy_of(problem, moved(solution.state, nearby)) > solution.energy).all()


def test_too_few_iterations_are_admitted(model: MorphableModel) -> None:
    _, landmarks = posed(model, [40.0])
    assert not fit(model, landmarks, max_iterations=1).converged
    assert fit(model, landmarks, max_iterations=1).iterations == 1
    assert fit(model, landmarks).iterations < 30


def test_a_batch_is_its_items(model: MorphableModel) -> None:
    """Items leave the batch at different times and must not disturb each other."""
    _, landmarks = posed(model, [-90.0, 0.0, 35.0, 70.0])
    landmarks[1, 48:58, 0] += 30
    batch = fit(model, landmarks[..., :2], loss="geman_mcclure")
    assert batch.iterations.unique().numel() > 1
    for item in range(4):
        single = fit(model, landmarks[item : item + 1, :, :2], loss="geman_mcclure")
        for ours, alone in zip(batch, single, strict=True):
            torch.testing.assert_close(ours[item : item + 1], alone, rtol=1e-7, atol=1e-7)


# Noise, outliers, visibility, priors.


def test_noise_moves_the_pose_little(model: MorphableModel) -> None:
    truth, landmarks = posed(model, [-60.0, -20.0, 0.0, 40.0, 80.0], seed=2)
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, 1.0, (5, 68, 2)))
    found = fit(model, landmarks[..., :2] + noise)
    assert (turn_deg(found.rotation, truth.rotation) < 4).all()
    assert (found.scale / truth.scale - 1).abs().max() < 0.03
    # 136 numbers of deviation 1 px in some 13 unknowns leave a mean distance of about 1.2 px.
    assert ((found.residual.mean(1) > 0.9) & (found.residual.mean(1) < 1.4)).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_hand_over_the_mouth_is_let_go(model: MorphableModel, dims: int) -> None:
    truth, landmarks = posed(model, [-45.0, 0.0, 30.0], seed=4)
    landmarks = landmarks[..., :dims].clone()
    landmarks[:, 48:58, 1] -= 30
    errors = {
        loss: turn_deg(fit(model, landmarks, loss=loss).rotation, truth.rotation)
        for loss in ("squared", "huber", "geman_mcclure")
    }
    assert (errors["geman_mcclure"] < 1).all()
    assert (errors["huber"] < 0.5 * errors["squared"]).all()
    assert (errors["squared"] > 1).all()
    residual = fit(model, landmarks, loss="geman_mcclure").residual
    assert (residual[:, 48:58] > 25).all()
    assert (residual[:, :48] < 1.5).all()


def test_points_without_a_weight_do_not_matter(model: MorphableModel) -> None:
    truth, landmarks = posed(model, [20.0, -70.0], seed=5)
    weights = torch.ones(2, 68)
    weights[0, 36:48] = 0
    weights[1, :30] = 0
    wild = landmarks[..., :2].clone()
    wild[0, 36:48] = 1e4
    wild[1, :30] = -77
    found = fit(model, wild, weights, loss="squared", tolerance=1e-9, **FREE)
    assert (turn_deg(found.rotation, truth.rotation) < 1e-5).all()
    assert (found.nme < 1e-5).all()
    assert (found.residual[0, 36:48] > 1e3).all()
    pairs = zip(wild.numpy(), weights.numpy(), strict=True)
    sides = [np.ptp(seen[mask > 0], axis=0) for seen, mask in pairs]
    np.testing.assert_allclose(found.size, np.sqrt(np.prod(sides, axis=1)))


def test_a_double_weight_is_a_point_twice() -> None:
    problem, state = random_problem("huber")
    doubled = problem._replace(weights=2 * problem.weights, precision=2 * problem.precision)
    first = minimise(problem, state, max_iterations=300, tolerance=1e-9)
    second = minimise(doubled, state, max_iterations=300, tolerance=1e-9)
    torch.testing.assert_close(second.energy, 2 * first.energy)
    for a, b in zip(first.state, second.state, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_tight_prior_holds_the_mean_face_and_a_wide_one_lets_go(model: MorphableModel) -> None:
    truth, landmarks = posed(model, [10.0, -40.0], seed=6)
    spread = [
        fit(model, landmarks, shape_std=std * PRIOR["shape_std"], exp_std=std * PRIOR["exp_std"])
        for std in (1e-4, 0.3, 100.0)
    ]
    sizes = torch.stack([(each.exp_params / truth.exp_params).abs().mean() for each in spread])
    assert sizes[0] < 1e-3 < sizes[1] < sizes[2]
    torch.testing.assert_close(spread[2].exp_params, truth.exp_params, rtol=0, atol=1e-3)
    assert (spread[0].nme > spread[1].nme).all()


def test_bounded_expressions_stay_inside_and_meet_the_optimality_conditions(
    model: MorphableModel,
) -> None:
    truth, landmarks = posed(model, [0.0, 30.0, -55.0], seed=7)
    found = fit(model, landmarks, exp_bounds=(0.0, 0.8), tolerance=1e-9, **FREE)
    assert found.converged.all()
    assert ((found.exp_params >= 0) & (found.exp_params <= 0.8)).all()
    outside = (truth.exp_params < 0) | (truth.exp_params > 0.8)
    assert outside.any()
    held = (found.exp_params == 0) | (found.exp_params == 0.8)
    assert held.any()
    assert not held.all()

    # Any feasible change of the coefficients alone makes the error no smaller.
    def error(exp_params: Tensor) -> Tensor:
        vertices = model(found.shape_params, exp_params)
        plane = found.scale[:, None, None] * vertices @ found.rotation.mT
        plane = plane + found.translation[:, None]
        image = plane * torch.tensor([1.0, -1.0, 1.0]) + torch.tensor([-1.0, HEIGHT, 0.0])
        return (image - landmarks).square().sum((1, 2))

    least = error(found.exp_params)
    for number in range(NUM_EXP):
        for change in (-1e-3, 1e-3):
            other = found.exp_params.clone()
            other[:, number] = (other[:, number] + change).clamp(0, 0.8)
            assert (error(other) >= least * (1 - 1e-9)).all()


# Mirrors.


def symmetric(model: MorphableModel) -> MorphableModel:
    """The mean made symmetric, without bases to speak of."""
    mean = (model.mean + model.mean[SWAP] * torch.tensor([-1.0, 1.0, 1.0])) / 2
    return MorphableModel(mean, model.basis[:NUM_SHAPE], model.basis[NUM_SHAPE:])


def test_the_mirrored_photo_has_the_mirrored_pose(model: MorphableModel) -> None:
    model = symmetric(model)
    angles = torch.tensor([[0.2, 0.7, -0.1], [-0.1, -1.2, 0.3]], dtype=torch.float64)
    plane = 5e-4 * model.mean @ camera.rotation_from_angles(angles).mT
    landmarks = plane[..., :2] * torch.tensor([1.0, -1.0]) + 80
    mirrored = landmarks[:, SWAP] * torch.tensor([-1.0, 1.0]) + torch.tensor([159.0, 0.0])
    found, other = fit(model, landmarks), fit(model, mirrored)
    torch.testing.assert_close(found.angles(), angles, rtol=0, atol=1e-6)
    flipped = torch.tensor([1.0, -1.0, -1.0])
    torch.testing.assert_close(other.angles(), angles * flipped, rtol=0, atol=1e-6)
    torch.testing.assert_close(other.scale, found.scale)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_mirrored_face_is_not_met_by_a_mirrored_pose(model: MorphableModel, dims: int) -> None:
    """Points whose sides are not swapped belong to no face; a reflection would fit them exactly."""
    _, landmarks = posed(model, [0.0, 25.0, -60.0])
    reflected = landmarks[..., :dims].clone()
    reflected[..., 0] *= -1
    found = fit(model, reflected, loss="squared")
    torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(3).double())
    assert (found.scale > 0).all()
    assert (found.nme > 5).all()


# The outline.


@pytest.fixture(scope="module")
def turned_outline() -> tuple[MorphableModel, Tensor, Tensor, Tensor]:
    """The embedded face turned by 50 degrees both ways, and its 68 points as people mark them.

    A far jaw point lies where the whole mesh ends at that height, found without any path.
    """
    face = load_embedded()
    mean, index = face.morphable_model.mean.double(), face.landmark_index
    angles = torch.zeros(2, 3, dtype=torch.float64)
    angles[:, 1] = torch.tensor([50.0, -50.0]).deg2rad()
    rotation = camera.rotation_from_angles(angles)
    plane = 1e-3 * mean @ rotation.mT  # (2, N, 3)
    points = plane[:, index, :2].clone()
    for item, far, sign in ((0, range(8), -1), (1, range(9, 17), 1)):
        for jaw in far:
            # What lies in front of the ear and is not the nose.
            seen = (mean[:, 1] - mean[index[jaw], 1]).abs() < 1500
            seen &= (mean[:, 2] >= mean[index[jaw], 2]) & ~face.regions["ears"]
            seen &= ~face.regions["nose"] & ~face.regions["mouth"]
            across = plane[item, :, 0].masked_fill(~seen | (sign * mean[:, 0] < 0), 0)
            vertex = (sign * across).argmax()
            points[item, jaw] = plane[item, vertex, :2]
    return face, index, rotation, points * torch.tensor([1.0, -1.0]) + 120


def test_a_jaw_on_the_outline_gives_the_turn_that_a_fixed_one_misses(turned_outline) -> None:
    face, index, rotation, points = turned_outline
    options = {
        "image_height": torch.full((2,), 240.0),
        "shape_std": face.shape_std,
        "exp_std": face.exp_std,
        "exp_bounds": (0.0, 1.0),
    }
    found = {}
    for jaw in ("fixed", "outline"):
        model, paths = landmark_model(face.morphable_model, index, jaw=jaw)
        found[jaw] = fit_landmarks(model, points, jaw_paths=paths, **options)
    errors = {jaw: turn_deg(each.rotation, rotation) for jaw, each in found.items()}
    assert (errors["outline"] < 0.5 * errors["fixed"]).all()
    assert (errors["outline"] < 1.5).all()
    assert (found["outline"].nme < 0.5 * found["fixed"].nme).all()


def test_outline_paths_start_at_the_landmark_and_run_inward_at_its_height() -> None:
    face = load_embedded()
    mean, index = face.morphable_model.mean, face.landmark_index
    paths = outline_paths(mean, index, num_steps=12)
    assert paths.shape == (17, 12)
    assert (paths[:, 0] == index[:17]).all()
    height = mean[index, 1].amax() - mean[index, 1].amin()
    assert ((mean[paths, 1] - mean[index[:17], None, 1]).abs() <= 0.015 * height).all()
    assert (paths[8] == index[8]).all()
    for jaw in (2, 3, 4, 5, 11, 12, 13, 14):
        across = mean[paths[jaw], 0].abs()
        assert (paths[jaw] != index[jaw]).sum() >= 8
        assert across.min() < 0.5 * across[0]


def test_an_unknown_jaw_is_refused(model: MorphableModel) -> None:
    with pytest.raises(ValueError, match="jaw: got 'loose', expected one of fixed, outline"):
        landmark_model(model, torch.arange(68), jaw="loose")


# What is refused.


def test_every_bad_item_is_named_with_its_reason(model: MorphableModel) -> None:
    _, landmarks = posed(model, [0.0] * 5)
    weights = torch.ones(5, 68)
    weights[1, 5:] = 0
    landmarks[3, 7, 1] = torch.nan
    landmarks[4] = landmarks[4, :1] + torch.arange(68)[:, None] * torch.tensor([3.0, 1.0, 2.0])
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is asserted below
        fit(model, landmarks, weights)
    assert str(error.value) == (
        "item 1: 5 landmarks of positive weight, expected at least 6; "
        "item 3: the landmarks hold coordinates that are not finite; "
        "item 4: the landmarks coincide or lie on a line"
    )


@pytest.mark.parametrize(
    ("weight", "reason"),
    [(-1.0, "at least 0"), (torch.inf, "finite"), (torch.nan, "finite")],
)
def test_bad_weights_are_refused(model: MorphableModel, weight: float, reason: str) -> None:
    _, landmarks = posed(model, [0.0])
    weights = torch.ones(1, 68)
    weights[0, 4] = weight
    with pytest.raises(ValueError, match=f"item 0: weights: .*{reason}"):
        fit(model, landmarks, weights)


def test_six_points_are_enough_and_one_place_is_none(model: MorphableModel) -> None:
    points = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    assert unfit_reason(points, torch.ones(6)) is None
    assert unfit_reason(points[:5], torch.ones(5)).startswith("5 landmarks")
    assert unfit_reason(torch.ones(68, 2), torch.ones(68)) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l1"}, "loss: got 'l1', expected one of squared, huber, geman_mcclure"),
        ({"pixel_origin": "one"}, "pixel origin: got 'one', expected one of"),
        ({"shape_std": torch.ones(3)}, r"shape_std: got \(3,\), expected \(4,\)"),
        ({"exp_std": torch.zeros(3)}, "exp_std: expected values above 0"),
        ({"image_height": torch.ones(2)}, r"image_height: got \(2,\), expected \(1,\)"),
        ({"weights": torch.ones(1, 67)}, r"weights: got \(1, 67\), expected \(1, 68\)"),
        ({"jaw_paths": torch.zeros(16, 4)}, r"jaw_paths: got \(16, 4\), expected \(17, M\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    model: MorphableModel, options: dict, message: str
) -> None:
    _, landmarks = posed(model, [0.0])
    with pytest.raises(ValueError, match=message):
        fit(model, landmarks, **options)


@pytest.mark.parametrize("shape", [(68, 2), (1, 68, 4), (1, 68, 1)])
def test_shapes_of_landmarks_are_refused(model: MorphableModel, shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"landmarks: got shape .*expected \(B, K, 2\) or"):
        fit(model, torch.rand(shape))


def test_a_model_of_other_vertices_is_refused(model: MorphableModel) -> None:
    with pytest.raises(ValueError, match="got 67 landmarks for a model of 68 vertices"):
        fit(model, torch.rand(1, 67, 2))


def test_arguments_are_not_written_to(model: MorphableModel) -> None:
    _, landmarks = posed(model, [30.0])
    weights, before = torch.ones(1, 68), landmarks.clone()
    fit(model, landmarks, weights)
    assert torch.equal(landmarks, before)
    assert torch.equal(weights, torch.ones(1, 68))
