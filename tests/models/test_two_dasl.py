"""2DASL: the network and its landmark maps, the losses, the critic."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, distributed

from prnet.geometry.landmark_map import POINTS_18
from prnet.geometry.pose_parameters import DEPTH, FitParameters
from prnet.losses.critic import Critic, average_gradients, critic_loss, deception_loss
from prnet.losses.two_dasl import RELATIVE_WEIGHTS, TwoDASLLoss
from prnet.models.two_dasl import TwoDASL
from prnet.sample import FaceSample, PosedFit, Prediction
from tests.tiny import NUM_EXP, NUM_SHAPE

BASES = {"num_shape": NUM_SHAPE, "num_exp": NUM_EXP}
SMALL = {**BASES, "backbone": "mobilenet_v2", "input_side": 64}
NUM_PARAMETERS = 12 + NUM_SHAPE + NUM_EXP


@pytest.fixture
def model(face):
    torch.manual_seed(0)
    network = TwoDASL(**SMALL)
    network.set_face(face)
    scale = torch.ones(NUM_PARAMETERS)
    scale[[0, 1, 2, 4, 5, 6, 8, 9, 10]] = 1e-4
    scale[[3, 7]] = 10.0
    mean = torch.zeros(NUM_PARAMETERS)
    mean[[0, 5, 10]] = 1e-3
    mean[[3, 7, 11]] = torch.tensor([128.0, -128.0, 60.0])
    network.set_statistics(mean, scale)
    return network


def a_batch(face, count: int = 4, *, seed: int = 0) -> tuple[FaceSample, torch.Tensor]:
    """Faces, and predictions beside their truth."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    matrix = torch.zeros(count, 4, 4)
    matrix[:, :3, :3] = torch.diag(torch.tensor([1e-3, -1e-3, 1e-3])) + 1e-4 * normal(count, 3, 3)
    matrix[:, :3, 3] = torch.tensor([128.0, 128.0, 60.0]) + 5 * normal(count, 3)
    matrix[:, 3, 3] = 1
    fit = PosedFit(
        2e4 * normal(count, NUM_SHAPE),
        normal(count, NUM_EXP),
        matrix,
        torch.zeros(count, dtype=torch.bool),
    )
    true = FitParameters(face.morphable_model, face.mirror_index)(fit)
    sample = FaceSample(
        torch.rand(count, 3, 64, 64, generator=random),
        fit=fit,
        landmarks=256 * torch.rand(count, 68, 2, generator=random),
        landmarks_visible=torch.rand(count, 68, generator=random) > 0.1,
    )
    spread = torch.full((NUM_PARAMETERS,), 2e-5)
    spread[[3, 7, 11]] = 3.0
    spread[12:] = 0.3
    return sample, true + spread * normal(count, NUM_PARAMETERS)


def a_loss(face, **settings) -> TwoDASLLoss:
    loss_fn = TwoDASLLoss(**BASES, num_random=10, **settings)
    loss_fn.set_face(face)
    std, mean = torch.std_mean(loss_fn.supervised.fit_parameters(a_batch(face)[0].fit), dim=0)
    loss_fn.set_statistics(mean, std)
    return loss_fn


# The network.


def test_network_is_the_papers():
    """ResNet-50 of four channels, 8 x 8 features without the last stride, pooling by 7: 23.64 M."""
    network = TwoDASL()
    assert sum(p.numel() for p in network.parameters()) == 23_638_206
    body = network.backbone
    assert body.conv1.weight.shape == (64, 4, 7, 7)
    features = {}
    body.layer4.register_forward_hook(lambda *args: features.update(layer4=args[2].shape[1:]))
    body.avgpool.register_forward_hook(lambda *args: features.update(pooled=args[2]))
    seen = torch.rand(1, 4, 120, 120)
    with torch.inference_mode():
        assert network.eval().whitened(seen).shape == (1, 62)
    assert features["layer4"] == (2048, 8, 8)
    assert features["pooled"].shape == (1, 2048, 1, 1)


def test_own_map_is_made_of_what_an_empty_one_gives(model, face):
    """Two passes by hand: landmarks of the first, given to the second."""
    model.eval()
    image = torch.rand(2, 3, 256, 256)
    with torch.inference_mode():
        own = model(image)
        model.choose_landmark_map("empty")
        first = model(image)
        points = face.morphable_model.at_vertices(face.landmark_index)
        matrix = torch.cat([first.parameters[:, :12].unflatten(1, (3, 4))], 1)
        vertices = points(first.parameters[:, 12 : 12 + NUM_SHAPE], first.parameters[:, -NUM_EXP:])
        landmarks = torch.einsum("bij,bkj->bki", matrix[..., :3], vertices) + matrix[:, None, :, 3]
        model.choose_landmark_map("given")
        second = model(image, (landmarks * torch.tensor([1.0, -1.0, 1.0]))[..., :2])
    assert own.cycle_parameters is None
    torch.testing.assert_close(own.parameters, second.parameters)
    assert not torch.allclose(own.parameters, first.parameters, rtol=1e-6, atol=0)


def test_given_map_needs_landmarks_and_choices_are_named(model):
    model.eval()
    model.choose_landmark_map("given")
    with pytest.raises(ValueError, match="no landmarks"):
        model(torch.rand(1, 3, 256, 256))
    with pytest.raises(ValueError, match=r"landmark_map: got 'fan'"):
        TwoDASL(landmark_map="fan", **SMALL)
    with pytest.raises(ValueError, match="cycle"):
        TwoDASL(landmark_map="empty", cycle=True, **SMALL)
    with pytest.raises(ValueError, match=r"input_side: got 64"):
        TwoDASL(input_side=64)
    with pytest.raises(ValueError, match="map_rounding: got 'ceil', expected one of nearest"):
        TwoDASL(map_rounding="ceil", **SMALL)
    with pytest.raises(ValueError, match="empty_map_share"):
        TwoDASL(empty_map_share=1.5, **SMALL)


def test_a_share_of_a_training_batch_sees_an_empty_map(model):
    seen = []
    model.whitened = lambda image: (
        seen.append(image[:, 3]) or image.new_zeros(len(image), NUM_PARAMETERS)
    )
    model.train()
    model(torch.rand(4, 3, 256, 256), torch.full((4, 68, 2), 100.0))
    given, again = seen
    assert [(one > 0).sum().item() for one in given] == [0, 0, 1, 1]
    # 100 in a crop of 256 px lies in pixel floor(100.5 / 4) of 64.
    assert (given[2] > 0).nonzero().tolist() == [[25, 25]]
    assert all((one > 0).any() for one in again)


def test_the_map_is_rounded_as_it_is_asked_for():
    """100 in a crop of 256 px is 24.6 in 64: down, that is another pixel."""
    for rounding, pixel in (("nearest", 25), ("floor", 24)):
        network = TwoDASL(map_rounding=rounding, **SMALL)
        drawn = network.map_of(torch.full((1, 68, 2), 100.0))
        assert (drawn > 0).nonzero().tolist() == [[0, 0, pixel, pixel]]


def test_gradient_of_the_cycle_passes_the_last_pass_alone(model):
    model.train()
    landmarks = 256 * torch.rand(2, 68, 2)
    prediction = model(torch.rand(2, 3, 256, 256), landmarks)
    through_map = torch.autograd.grad(
        prediction.cycle_parameters.sum(),
        prediction.parameters,
        allow_unused=True,
        retain_graph=True,
    )
    assert through_map == (None,)
    weight = next(model.backbone.parameters())
    (gradient,) = torch.autograd.grad(prediction.cycle_parameters.sum(), weight)
    assert gradient.abs().sum() > 0


# The losses.


def directly(loss_fn, face, parameters, cycle, sample) -> dict[str, float]:
    """The terms as the paper writes them, point by point, float64 numpy."""

    def landmarks(vector: np.ndarray) -> np.ndarray:
        coefficients = vector[12:]
        vertices = face.morphable_model.mean + torch.einsum(
            "c,cnd->nd", torch.from_numpy(coefficients).float(), face.morphable_model.basis
        )
        pose = vector[:12].reshape(3, 4).copy()
        pose[2, 3] = 0
        points = vertices[face.landmark_index].double().numpy() @ pose[:, :3].T + pose[:, 3]
        return points * [1, -1, 1] / 256

    weights = np.array(RELATIVE_WEIGHTS) * 18 / sum(RELATIVE_WEIGHTS)
    terms = {"landmarks_2d": 0.0, "landmarks_3d": 0.0, "cycle": 0.0}
    count = len(parameters)
    for first, second, given, visible in zip(
        parameters.double().numpy(),
        cycle.double().numpy(),
        sample.landmarks.numpy() / 256,
        sample.landmarks_visible.numpy(),
        strict=True,
    ):
        once, again = landmarks(first), landmarks(second)
        for x, y in zip(once, again, strict=True):
            terms["landmarks_3d"] += math.dist(x, y) / count
        for weight, parts in zip(weights, POINTS_18, strict=True):
            if not all(visible[part] for part in parts):
                continue
            target = np.mean([given[part] for part in parts], 0)
            for name, points in (("landmarks_2d", once), ("cycle", again)):
                middle = np.mean([points[part] for part in parts], 0)
                terms[name] += weight * math.dist(middle[:2], target) / count
    return {name: value * loss_fn.weights[name] for name, value in terms.items()}


def test_losses_are_the_papers_sums(face):
    sample, parameters = a_batch(face)
    _, cycle = a_batch(face, seed=1)
    loss_fn = a_loss(face)
    losses = loss_fn(Prediction(parameters=parameters, cycle_parameters=cycle), sample)
    assert list(losses) == ["wpdc", "landmarks_2d", "landmarks_3d", "cycle", "self_critic"]
    for name, value in directly(loss_fn, face, parameters, cycle, sample).items():
        assert float(losses[name]) == pytest.approx(value, rel=2e-3), name
    assert loss_fn.weights == {
        "landmarks_2d": 0.005,
        "landmarks_3d": 0.005,
        "cycle": 1.0,
        "self_critic": 0.005,
    }
    whitened = (parameters - loss_fn.parameter_mean) / loss_fn.supervised.parameter_std
    whitened[:, DEPTH] = 0
    belief = torch.sigmoid(loss_fn.critic(sample.image, whitened))
    expected = 0.005 * (1 - belief).log().mean()
    torch.testing.assert_close(losses["self_critic"], expected)


def test_point_weights_keep_their_mean_and_their_proportions():
    mask = TwoDASLLoss(**BASES).point_weights
    plain = TwoDASLLoss(**BASES, weighted_points=False).point_weights
    assert float(mask.mean()) == pytest.approx(1)
    assert plain.tolist() == [1.0] * 18
    ratios = (mask / mask.min()).round().int().tolist()
    brows, eyes, nose, mouth = [1] * 6, [2] * 6, [4] * 3, [2, 4, 2]
    assert ratios == [*brows, *eyes, *nose, *mouth]


def test_unit_of_points(face):
    sample, parameters = a_batch(face)
    prediction = Prediction(parameters=parameters, cycle_parameters=parameters)
    side, px = (
        a_loss(face, point_unit=unit)(prediction, sample)["landmarks_2d"] for unit in ("side", "px")
    )
    torch.testing.assert_close(px, 120 * side)


def test_supervision_is_over_the_images_with_a_fit(face):
    sample, parameters = a_batch(face)
    has_fit = torch.tensor([True, False, True, False])
    loss_fn = a_loss(face, landmarks_2d=0, landmarks_3d=0, cycle=0, self_critic=0)
    leaf = parameters.clone().requires_grad_()
    losses = loss_fn(Prediction(parameters=leaf), sample._replace(has_fit=has_fit))
    part = sample._replace(fit=PosedFit(*(field[has_fit] for field in sample.fit)))
    alone = loss_fn(Prediction(parameters=parameters[has_fit]), part)
    torch.testing.assert_close(losses["wpdc"].detach(), alone["wpdc"])
    losses["wpdc"].backward()
    assert (leaf.grad.abs().sum(1) > 0).tolist() == has_fit.tolist()

    none = sample._replace(has_fit=torch.zeros(4, dtype=torch.bool))
    leaf = parameters.clone().requires_grad_()
    losses = loss_fn(Prediction(parameters=leaf), none)
    assert float(losses["wpdc"].detach()) == 0
    losses["wpdc"].backward()
    assert (leaf.grad == 0).all()


def test_second_stage_is_the_vertex_distance_alone(face):
    sample, parameters = a_batch(face)
    prediction = Prediction(parameters=parameters, cycle_parameters=parameters)
    loss_fn = a_loss(face, stage="both", stage_1_epochs=2)
    names = []
    for epoch in (0.0, 1.9, 2.0):
        loss_fn.start_step(epoch)
        names.append(list(loss_fn(prediction, sample)))
    assert names[0] == names[1]
    assert len(names[0]) == 5
    assert names[2] == ["vdc"]
    before = [p.clone() for p in loss_fn.critic.parameters()]
    assert loss_fn.after_step(prediction, sample) == {}
    assert all(map(torch.equal, before, loss_fn.critic.parameters()))


def test_loss_refuses_what_it_cannot_do(face):
    sample, parameters = a_batch(face)
    with pytest.raises(ValueError, match="no parameters"):
        a_loss(face)(Prediction(position_map=sample.image), sample)
    with pytest.raises(ValueError, match=r"loss cycle: got -1"):
        TwoDASLLoss(cycle=-1)
    with pytest.raises(ValueError, match=r"supervision: got 'l2'"):
        TwoDASLLoss(supervision="l2")
    with pytest.raises(ValueError, match=r"point_unit: got 'mm'"):
        TwoDASLLoss(point_unit="mm")
    with pytest.raises(ValueError, match=r"vdc_unit: got 'mm'"):
        TwoDASLLoss(vdc_unit="mm")
    with pytest.raises(ValueError, match="set_face"):
        TwoDASLLoss(**BASES)(Prediction(parameters=parameters), sample)


# The critic.


def test_critic_losses_are_the_papers_logarithms():
    true, made = torch.tensor([0.3, -2.0]), torch.tensor([1.5, 0.0, -4.0])
    expected = -true.sigmoid().log().mean() - (1 - made.sigmoid()).log().mean()
    torch.testing.assert_close(critic_loss(true, made), expected)
    torch.testing.assert_close(deception_loss(made), (1 - made.sigmoid()).log().mean())
    chosen, none = torch.tensor([True, False, True]), torch.zeros(3, dtype=torch.bool)
    of_true = -true.sigmoid().log().mean()
    torch.testing.assert_close(critic_loss(true, made, made=none), of_true)
    torch.testing.assert_close(deception_loss(made, chosen), deception_loss(made[chosen]))
    some = critic_loss(made, made, true=chosen, made=~chosen)
    torch.testing.assert_close(some, critic_loss(made[chosen], made[~chosen]))
    # To be taken for true lowers the regressor's loss.
    assert deception_loss(made + 1) < deception_loss(made)


def test_critic_learns_which_parameters_are_made(face):
    """`after_step` alone: the true ones against shifted ones, in a set of both kinds."""
    torch.manual_seed(0)
    loss_fn = a_loss(face, critic_learning_rate=1e-3)
    taught = []
    for step in range(30):
        sample, _ = a_batch(face, seed=step)
        true = loss_fn.supervised.fit_parameters(sample.fit)
        std = true.std(0)
        loss_fn.set_statistics(true.mean(0), std)
        sample = sample._replace(has_fit=torch.tensor([True, True, False, False]))
        taught.append(loss_fn.after_step(Prediction(parameters=true + 2 * std), sample)["critic"])
    assert taught[0] == pytest.approx(2 * math.log(2), abs=0.1)
    assert sum(taught[-5:]) / 5 < 0.3
    with torch.no_grad():
        scores = [
            loss_fn.critic(sample.image, (true + shift * std - true.mean(0)) / std).mean()
            for shift in (0, 2)
        ]
    assert scores[0] > scores[1] + 2


def test_critic_judges_the_images_without_a_fit(face):
    """The regressor is to deceive it there alone, and it learns from the fits and from these; in a
    batch of fits, from all."""
    sample, parameters = a_batch(face)
    loss_fn = a_loss(face, landmarks_2d=0, landmarks_3d=0, cycle=0)
    true = loss_fn.supervised.fit_parameters(sample.fit)

    def score(parameters: Tensor, chosen: Tensor) -> Tensor:
        whitened = (parameters - loss_fn.parameter_mean) / loss_fn.supervised.parameter_std
        whitened[:, DEPTH] = 0
        return loss_fn.critic(sample.image[chosen], whitened[chosen])

    for fitted in ([True, False, True, True], [True] * 4):
        has_fit = torch.tensor(fitted)
        made = ~has_fit if not has_fit.all() else has_fit
        leaf = parameters.clone().requires_grad_()
        mixed = sample._replace(has_fit=has_fit)
        loss_fn(Prediction(parameters=leaf), mixed)["self_critic"].backward()
        assert torch.equal(leaf.grad.abs().sum(1) > 0, made)

        with torch.no_grad():
            expected = critic_loss(score(true, has_fit), score(parameters, made))
        taught = loss_fn.after_step(Prediction(parameters=parameters), mixed)
        torch.testing.assert_close(taught["critic"], expected)


def test_critic_is_not_taught_by_the_regressors_step(face):
    sample, parameters = a_batch(face)
    loss_fn = a_loss(face)
    prediction = Prediction(
        parameters=parameters.clone().requires_grad_(), cycle_parameters=parameters
    )
    sum(loss_fn(prediction, sample).values()).backward()
    assert (prediction.parameters.grad.abs().sum(1) > 0).all()
    stepped, fresh = (a_loss(face) for _ in range(2))
    for one in (stepped, fresh):
        one.critic.load_state_dict(loss_fn.critic.state_dict())
    for p in stepped.critic.parameters():
        p.grad = torch.full_like(p, 7.0)
    for one in (stepped, fresh):
        one.after_step(prediction, sample)
    for a, b in zip(stepped.critic.parameters(), fresh.critic.parameters(), strict=True):
        assert torch.equal(a, b)


def test_critic_has_the_papers_layers():
    critic = Critic(62)
    linear = [m.out_features for m in critic.layers if isinstance(m, torch.nn.Linear)]
    assert linear == [512, 1024, 1024, 1]
    kinds = [type(m).__name__ for m in critic.encoder]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d"] * 6 + ["Flatten"]
    channels = [m.out_channels for m in critic.encoder if isinstance(m, torch.nn.Conv2d)]
    assert channels == [16, 32, 64, 64, 128, 128]  # not in the paper
    seen = []
    critic.encoder.register_forward_pre_hook(lambda _, given: seen.extend(given))
    with torch.no_grad():
        assert critic(torch.rand(2, 3, 256, 256), torch.rand(2, 62)).shape == (2,)
        image = torch.rand(2, 3, 120, 120)
        critic.encode(image)
    assert seen[0].shape == (2, 3, 120, 120)
    assert torch.equal(seen[1], 2 * image - 1)


def test_critic_has_an_adam_of_its_own_rate():
    for settings, rate in (({}, 1e-4), ({"critic_learning_rate": 3e-3}, 3e-3)):
        optimizer = TwoDASLLoss(**BASES, **settings).critic_optimizer
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.param_groups[0]["lr"] == rate


def test_gradients_of_processes_are_averaged(monkeypatch):
    """Of two, whose other has three times these."""
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    average_gradients(layer)
    assert layer.weight.grad.tolist() == [[1, 1]]
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda gradient: gradient.mul_(4))
    average_gradients(layer)
    assert layer.weight.grad.tolist() == [[2, 2]]
    assert layer.bias.grad.tolist() == [2]
