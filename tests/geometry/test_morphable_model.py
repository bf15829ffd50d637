"""The linear model against the written-out sum."""

import numpy as np
import pytest
import torch

from prnet.geometry.morphable_model import MorphableModel
from tests.tiny import NUM_EXP, NUM_SHAPE, tiny_face


def random_params(batch: int, shape: int, exp: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return (
        2e4 * torch.randn(batch, shape, generator=random),
        torch.randn(batch, exp, generator=random),
    )


def test_vertices_are_the_mean_and_the_weighted_bases(face) -> None:
    """Both means exactly once, the coefficients of either kind with their own basis."""
    tiny = tiny_face()
    shape_params, exp_params = random_params(5, NUM_SHAPE, NUM_EXP)
    found = face.morphable_model(shape_params, exp_params)
    for i in range(5):
        expected = tiny.vertices(shape_params[i].double().numpy(), exp_params[i].double().numpy())
        np.testing.assert_allclose(found[i].numpy(), expected, atol=0.05)  # of 1e5


def test_zero_coefficients_give_the_mean(face) -> None:
    model = face.morphable_model
    tiny = tiny_face()
    found = model(torch.zeros(2, NUM_SHAPE), torch.zeros(2, NUM_EXP))
    assert torch.equal(found, model.mean.expand(2, -1, -1))
    np.testing.assert_allclose(model.mean.numpy(), tiny.shape_mean + tiny.exp_mean, atol=0.02)


def test_leading_coefficients_of_a_longer_fit_are_used(face) -> None:
    """300W-LP has 199 and 29 coefficients: those beyond the bases must not move into the next."""
    shape_params, exp_params = random_params(3, 199, 29)
    found = face.morphable_model(shape_params, exp_params)
    expected = face.morphable_model(shape_params[:, :NUM_SHAPE], exp_params[:, :NUM_EXP])
    assert torch.equal(found, expected)
    leading = face.morphable_model.leading_coefficients(shape_params, exp_params)
    assert torch.equal(leading[:, :NUM_SHAPE], shape_params[:, :NUM_SHAPE])
    assert torch.equal(leading[:, NUM_SHAPE:], exp_params[:, :NUM_EXP])


def test_too_few_coefficients_raise(face) -> None:
    with pytest.raises(ValueError, match="shape_params: got 3 values, the model has 4 bases"):
        face.morphable_model(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="exp_params: got 2 values, the model has 3 bases"):
        face.morphable_model(torch.zeros(1, 4), torch.zeros(1, 2))


def test_model_at_vertices_is_the_model_seen_there(face) -> None:
    model = face.morphable_model
    index = torch.tensor([30, 8, 97, 30])
    shape_params, exp_params = random_params(2, NUM_SHAPE, NUM_EXP)
    reduced = model.at_vertices(index)
    assert (reduced.num_vertices, reduced.num_shape, reduced.num_exp) == (4, NUM_SHAPE, NUM_EXP)
    torch.testing.assert_close(
        reduced(shape_params, exp_params), model(shape_params, exp_params)[:, index]
    )


def test_batch_equals_its_items(face) -> None:
    shape_params, exp_params = random_params(4, NUM_SHAPE, NUM_EXP)
    together = face.morphable_model(shape_params, exp_params)
    for i in range(4):
        alone = face.morphable_model(shape_params[i : i + 1], exp_params[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_gradient_of_the_coefficients() -> None:
    random = torch.Generator().manual_seed(0)
    mean, basis = torch.randn(5, 3, generator=random), torch.randn(3, 5, 3, generator=random)
    model = MorphableModel(mean, basis[:2], basis[2:]).double()
    params = [torch.randn(2, count).double().requires_grad_() for count in (2, 1)]
    assert torch.autograd.gradcheck(model, params)


def test_constants_are_buffers_that_stay_out_of_checkpoints(face) -> None:
    model = face.morphable_model
    assert not list(model.parameters())
    assert model.state_dict() == {}
    assert {name for name, _ in model.named_buffers()} == {"mean", "basis"}


def test_wrong_shapes_raise() -> None:
    mean, basis = torch.zeros(5, 3), torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match=r"mean: got shape \(15,\), expected \(N, 3\)"):
        MorphableModel(mean.flatten(), basis, basis)
    with pytest.raises(
        ValueError, match=r"shape_basis: got shape \(2, 4, 3\), expected \(\*, 5, 3"
    ):
        MorphableModel(mean, basis[:, :4], basis)
    with pytest.raises(ValueError, match=r"exp_basis: got shape \(2, 15\)"):
        MorphableModel(mean, basis, basis.flatten(1))
