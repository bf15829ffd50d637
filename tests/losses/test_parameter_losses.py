"""Losses on parameters: weights against their definition, known values, gradients, refusals."""

import copy
import math

import pytest
import torch
from torch import Tensor

from prnet.geometry.pose_parameters import DEPTH, NUM_POSE, FitParameters, posed_vertices
from prnet.losses.parameters import (
    MEAN_SCALE,
    ParameterLoss,
    landmark_consistency,
    wing,
    wpdc_weights,
)
from prnet.sample import FaceSample, PosedFit, Prediction
from tests.tiny import NUM_EXP, NUM_SHAPE

NUM_PARAMETERS = NUM_POSE + NUM_SHAPE + NUM_EXP
TERMS = ("pdc", "wpdc", "vdc", "wing", "landmarks_2d", "landmarks_3d")


@pytest.fixture(scope="module")
def double_face(face):
    """Gradients are checked in float64."""
    model = copy.deepcopy(face.morphable_model).double()
    return face._replace(morphable_model=model)


def random_fits(count: int, *, seed: int = 0) -> PosedFit:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    matrix = torch.zeros(count, 4, 4, dtype=torch.float64)
    matrix[:, :3, :3] = 1e-3 * torch.diag(torch.tensor([1.0, -1, 1])) + 2e-4 * normal(count, 3, 3)
    matrix[:, :3, 3] = torch.tensor([128.0, 120, 60]) + 10 * normal(count, 3)
    matrix[:, 3, 3] = 1
    shape_params, exp_params = 2e4 * normal(count, NUM_SHAPE), normal(count, NUM_EXP)
    return PosedFit(shape_params, exp_params, matrix, torch.zeros(count, dtype=torch.bool))


def make_loss(face, **terms) -> ParameterLoss:
    loss = ParameterLoss(num_shape=NUM_SHAPE, num_exp=NUM_EXP, num_random=20, **terms).double()
    loss.set_face(face)
    scales = torch.tensor([3e-4, 3e-4, 3e-4, 30.0]).repeat(3)
    std = torch.cat([scales, torch.full((NUM_SHAPE,), 2e4), torch.ones(NUM_EXP)])
    loss.set_statistics(torch.zeros(NUM_PARAMETERS), std)
    return loss


def sample_of(fit: PosedFit) -> FaceSample:
    return FaceSample(image=torch.zeros(len(fit.mirrored), 3, 2, 2), fit=fit)


def true_parameters(face, fit: PosedFit) -> Tensor:
    return FitParameters(face.morphable_model, face.mirror_index)(fit)


def spread(seed: int, count: int = 3) -> Tensor:
    """Errors of a plausible size for every parameter."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([1e-4, 1e-4, 1e-4, 5.0] * 3 + [1e4] * NUM_SHAPE + [0.5] * NUM_EXP)
    return size.double() * torch.randn(count, NUM_PARAMETERS, generator=generator).double()


@pytest.mark.parametrize("normalizer", ["max", "sum"])
def test_wpdc_weights_are_what_each_error_alone_moves(double_face, normalizer):
    """One parameter at a time is replaced and all points are projected anew, in loops.

    For the coefficients the camera is the mean one, as released.
    """
    points = double_face.morphable_model.at_vertices(torch.arange(0, 98, 3))
    true = true_parameters(double_face, random_fits(3))
    difference = spread(1)
    coefficients = true[:, NUM_POSE:].tensor_split([NUM_SHAPE], 1)
    shape = points(*coefficients)
    mean_camera = MEAN_SCALE * torch.eye(3, 4, dtype=torch.float64)

    expected = torch.zeros_like(true)
    for item in range(len(true)):
        for index in range(NUM_PARAMETERS):
            before = true[item].clone()
            if index >= NUM_POSE:
                before[:NUM_POSE] = mean_camera.flatten()
            after = before.clone()
            after[index] += difference[item, index]
            moved = posed_vertices(points, after[None]) - posed_vertices(points, before[None])
            expected[item, index] = moved.norm() + 1e-6
        expected[item, DEPTH] = 0
        total = expected[item].max() if normalizer == "max" else expected[item].sum()
        expected[item] /= total
    weights = wpdc_weights(difference, shape, points.basis, normalizer=normalizer)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-9)
    assert weights[:, DEPTH].eq(0).all()


def test_the_constant_is_3ddfas_in_our_crop():
    assert pytest.approx(5.7339936e-4 * 256 / 120) == MEAN_SCALE


def test_wpdc_is_the_weighted_square_of_whitened_errors(double_face):
    """Its gradient takes the weights as constants: 2 w d / std^2 over the number of entries."""
    fit = random_fits(3)
    loss = make_loss(double_face, wpdc=1.0)
    true = true_parameters(double_face, fit)
    predicted = (true + spread(2)).requires_grad_()
    value = loss(Prediction(parameters=predicted), sample_of(fit))["wpdc"]
    value.backward()

    index = torch.cat([double_face.landmark_index, loss.random_vertices(true)])
    points = double_face.morphable_model.at_vertices(index)
    shape = points(*true[:, NUM_POSE:].tensor_split([NUM_SHAPE], 1))
    weights = wpdc_weights(predicted - true, shape, points.basis)
    whitened = (predicted - true).detach() / loss.parameter_std
    torch.testing.assert_close(value, (weights * whitened**2).mean())
    expected = 2 * weights * whitened / loss.parameter_std / predicted.numel()
    torch.testing.assert_close(predicted.grad, expected)


@pytest.mark.parametrize("offset", [1.0, -3.0])
def test_printed_wpdc_is_a_weighted_mean_of_the_squares(double_face, offset):
    """Weights that add up to 1: where every error is so many deviations, the loss is its square,
    whatever the number of parameters."""
    fit = random_fits(3)
    loss = make_loss(double_face, wpdc=1.0, normalizer="sum")
    predicted = true_parameters(double_face, fit) + offset * loss.parameter_std
    value = loss(Prediction(parameters=predicted), sample_of(fit))["wpdc"]
    assert value.item() == pytest.approx(offset**2, rel=1e-9)


@pytest.mark.parametrize("term", [term for term in TERMS if term != "wpdc"])
def test_gradcheck(double_face, term):
    fit = random_fits(2)
    loss = make_loss(double_face, **{term: 1.0})
    true = true_parameters(double_face, fit)
    offset = (spread(3, 2) / loss.parameter_std).requires_grad_()

    def value(whitened: Tensor) -> Tensor:
        parameters = true + whitened * loss.parameter_std
        return loss(Prediction(parameters=parameters), sample_of(fit))[term]

    assert torch.autograd.gradcheck(value, (offset,), atol=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_truth_costs_nothing_and_depth_is_not_supervised(double_face, term):
    fit = random_fits(3)
    loss = make_loss(double_face, **{term: 2.0})
    parameters = true_parameters(double_face, fit)
    parameters[:, DEPTH] += 50
    parameters.requires_grad_()
    value = loss(Prediction(parameters=parameters), sample_of(fit))[term]
    assert value.item() == 0
    value.backward()
    assert parameters.grad[:, DEPTH].eq(0).all()


def test_point_losses_of_a_shift(double_face):
    """3 px to the right and 4 px up: a distance of 5 px at every point."""
    fit = random_fits(4)
    others = {"wing": 1.0, "landmarks_2d": 0.5, "landmarks_3d": 1.0}
    loss = make_loss(double_face, vdc=1.0, vdc_unit="crop", **others)
    parameters = true_parameters(double_face, fit)
    parameters[:, 3] += 3
    parameters[:, 7] += 4
    values = loss(Prediction(parameters=parameters), sample_of(fit))
    assert values["vdc"].item() == pytest.approx(25)
    assert values["landmarks_2d"].item() == pytest.approx(0.5 * 68 * 5)
    assert values["landmarks_3d"].item() == pytest.approx(68 * 5)
    expected = 10 * (math.log(1 + 3 / 2) + math.log(1 + 4 / 2)) / 3
    assert values["wing"].item() == pytest.approx(expected)


def test_vdc_is_3ddfas(double_face):
    """As released, `((points - true points) ** 2).mean()` of a 120 px input: 13.65 times less than
    the squared distance in px of the 256 crop."""
    fit = random_fits(3)
    loss = make_loss(double_face, vdc=1.0)
    true = true_parameters(double_face, fit)
    predicted = true + spread(4)
    value = loss(Prediction(parameters=predicted), sample_of(fit))["vdc"]

    index = torch.cat([double_face.landmark_index, loss.random_vertices(true)])
    points = double_face.morphable_model.at_vertices(index)
    predicted[:, DEPTH] = true[:, DEPTH]
    offset = posed_vertices(points, predicted) - posed_vertices(points, true)
    torch.testing.assert_close(value, (offset * 120 / 256).square().mean())
    in_crop = make_loss(double_face, vdc=1.0, vdc_unit="crop")
    other = in_crop(Prediction(parameters=predicted), sample_of(fit))["vdc"]
    assert (other / value).item() == pytest.approx(13.6533, abs=1e-4)


def test_wing_is_a_logarithm_and_then_a_line():
    values = wing(torch.tensor([0.0, 1.0, -1.0, 10.0, 25.0], dtype=torch.float64))
    near = 10 * math.log(1.5)
    edge = 10 * math.log(6)
    expected = torch.tensor([0, near, near, edge, edge + 15], dtype=torch.float64)
    torch.testing.assert_close(values, expected)


def test_landmark_consistency_weighs_distances():
    """4 * 5 + 1 * 2 for the first face; coinciding points have a gradient of 0, not NaN."""
    prediction = torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    prediction.requires_grad_()
    values = landmark_consistency(prediction, torch.tensor([4.0, 1.0]))
    assert values.tolist() == [22, 0]
    values.sum().backward()
    torch.testing.assert_close(prediction.grad[0, 0], torch.tensor([2.4, 3.2]))
    assert prediction.grad[1].eq(0).all()


def test_random_vertices_are_the_batchs_own(double_face):
    """The same at every call, others for another batch, none twice."""
    loss = make_loss(double_face, vdc=1.0)
    first, second = (true_parameters(double_face, random_fits(3, seed=s)) for s in (0, 1))
    chosen = loss.random_vertices(first)
    assert torch.equal(chosen, loss.random_vertices(first))
    assert not torch.equal(chosen, loss.random_vertices(second))
    assert len(chosen.unique()) == 20


def test_refusals(double_face):
    with pytest.raises(ValueError, match="all coefficients are 0"):
        ParameterLoss()
    with pytest.raises(ValueError, match="vdc: got -1"):
        ParameterLoss(vdc=-1)
    with pytest.raises(ValueError, match="normalizer: got 'mean'"):
        ParameterLoss(wpdc=1, normalizer="mean")
    with pytest.raises(ValueError, match="vdc_unit: got 'mm', expected one of 3ddfa, crop"):
        ParameterLoss(vdc=1, vdc_unit="mm")
    with pytest.raises(ValueError, match="40 shape and 10 expression"):
        ParameterLoss(vdc=1).set_face(double_face)
    sample = sample_of(random_fits(2))
    with pytest.raises(ValueError, match="no parameters"):
        make_loss(double_face, vdc=1.0)(Prediction(position_map=torch.zeros(1)), sample)
    with pytest.raises(ValueError, match="no face yet"):
        ParameterLoss(vdc=1)(Prediction(parameters=torch.zeros(2, 62)), sample)
