"""Parameter regressors: vectors and faces, mirror images, whitening, the closed-form prediction."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prnet.datasets.augment import AugmentRule
from prnet.datasets.pictures import collate_fits
from prnet.datasets.synthetic import SyntheticSets
from prnet.datasets.training_sets import TrainingSets
from prnet.geometry import camera
from prnet.geometry.depth import DepthOrigin
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.pose_parameters import (
    DEPTH,
    NUM_POSE,
    FitParameters,
    MirrorImage,
    crop_points,
    posed_vertices,
    split_parameters,
)
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.parameters import ParameterLoss
from prnet.models.face_decoder import FaceDecoder
from prnet.models.regressor import Regressor, TorchvisionRegressor
from prnet.sample import PosedFit
from prnet.training.loop import train
from prnet.training.optimizer import make_optimizer
from prnet.training.schedule import milestone_decay
from prnet.training.statistics import parameter_statistics
from prnet.training.validation import draw_panel
from tests.plans import CPU, plan
from tests.tiny import NUM_EXP, NUM_SHAPE, tiny_rotation
from tests.worlds import shipped_rule

NUM_PARAMETERS = NUM_POSE + NUM_SHAPE + NUM_EXP
STILL = AugmentRule(rotation_deg=0, translation=0, scale=(1, 1), color=(1, 1), occlusion=0)


class TinyRegressor(Regressor):
    """A linear layer on a 6 x 6 image."""

    def __init__(self, **options) -> None:
        super().__init__(num_shape=NUM_SHAPE, num_exp=NUM_EXP, input_side=24, **options)
        self.head = nn.Linear(108, self.num_parameters)

    def whitened(self, image: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(image, 6).flatten(1))


def random_fit(yaws: list[float], *, mirrored: bool = False, extra: int = 0) -> PosedFit:
    """Frontal to profile faces in the middle of the crop; the pose written out with the oracle."""
    random = np.random.default_rng(3)
    count = len(yaws)
    matrix = np.zeros((count, 4, 4))
    for item, yaw in zip(matrix, yaws, strict=True):
        pitch, roll = random.uniform(-0.3, 0.3, 2)
        rotation = random.uniform(0.8, 1.2) * 1e-3 * tiny_rotation(pitch, yaw, roll)
        item[:3, :3] = np.diag([-1.0 if mirrored else 1.0, -1, 1]) @ rotation
        item[:3, 3] = [128, 125, 40]
        item[3, 3] = 1
    return PosedFit(
        torch.from_numpy(random.normal(0, 2e4, (count, NUM_SHAPE + extra))).float(),
        torch.from_numpy(random.normal(0, 1, (count, NUM_EXP + extra))).float(),
        torch.from_numpy(matrix).float(),
        torch.full((count,), mirrored),
    )


def symmetric_model() -> tuple[MorphableModel, Tensor]:
    """Ten pairs of vertices and one on the middle; symmetric and antisymmetric bases."""
    generator = torch.Generator().manual_seed(0)
    mirror_index = torch.cat([torch.arange(10, 20), torch.arange(10), torch.tensor([20])])
    sign = torch.tensor([-1.0, 1, 1])

    def field(kind: float) -> Tensor:
        points = 1e4 * torch.randn(21, 3, generator=generator)
        return points + kind * points[mirror_index] * sign

    bases = torch.stack([field(1), field(1), field(-1)]), torch.stack([field(1), field(-1)])
    return MorphableModel(field(1), *bases), mirror_index


def test_vector_and_fit_are_the_same_edge(face):
    fit = random_fit([0, 0.5, -1.3])
    parameters = FitParameters(face.morphable_model, face.mirror_index)(fit)
    assert parameters.shape == (3, NUM_PARAMETERS)
    taken_apart = split_parameters(parameters, NUM_SHAPE)
    torch.testing.assert_close(taken_apart.crop_from_model, fit.crop_from_model)
    assert torch.equal(taken_apart.shape_params, fit.shape_params)
    vector = torch.cat([field.flatten(1) for field in taken_apart], 1)
    assert torch.equal(vector, parameters)
    vertices = face.morphable_model(fit.shape_params, fit.exp_params)
    expected = camera.transform_points(fit.crop_from_model, vertices)
    torch.testing.assert_close(crop_points(face.morphable_model, parameters), expected)
    up = posed_vertices(face.morphable_model, parameters)
    torch.testing.assert_close(up, expected * torch.tensor([1.0, -1, 1]))


def test_leading_coefficients_of_longer_fits(face):
    """A network of fewer coefficients is taught the first; one of more is refused."""
    fit = random_fit([0.2], extra=5)
    model = face.morphable_model.truncated(2, 1)
    _, shape_params, exp_params = split_parameters(FitParameters(model, None)(fit), 2)
    assert torch.equal(shape_params, fit.shape_params[:, :2])
    assert torch.equal(exp_params, fit.exp_params[:, :1])
    with pytest.raises(ValueError, match="fits with 1 shape coefficients, the network predicts 2"):
        FitParameters(model, None)(fit._replace(shape_params=fit.shape_params[:, :1]))
    with pytest.raises(ValueError, match="4 and 3 bases"):
        face.morphable_model.truncated(5, 3)


@pytest.mark.parametrize("indexed", [True, False])
def test_mirrored_fit_is_the_mirror_image_of_the_face(indexed):
    """With bases closed under the mirror: vertex n lands where the mirror of its twin does, and the
    pose is a rotation again."""
    model, mirror_index = symmetric_model()
    fit = random_fit([0.1, 0.9], mirrored=True)
    fit = fit._replace(shape_params=fit.shape_params[:, :3] / 2e4)
    fit = fit._replace(exp_params=fit.exp_params[:, :2])
    convert = FitParameters(model, mirror_index if indexed else None)
    assert convert.mirror_image.residual < 1e-2
    parameters = convert(fit)
    vertices = model(fit.shape_params, fit.exp_params)
    expected = camera.transform_points(fit.crop_from_model, vertices)[:, mirror_index]
    torch.testing.assert_close(crop_points(model, parameters), expected, rtol=1e-4, atol=1e-3)
    pose = split_parameters(parameters, 3).pose[..., :3]
    assert (torch.linalg.det(pose / pose[:, :1].norm(dim=-1, keepdim=True)) > 0.9).all()


def test_mirror_image_leaves_the_least_squares_residual():
    """Of a mean with a bump on one side that no basis makes."""
    model, mirror_index = symmetric_model()
    bump = model.mean.clone()
    bump[0, 1] += 500
    lopsided = MorphableModel(bump, model.basis[:3], model.basis[3:])
    image = MirrorImage(lopsided, mirror_index)
    coefficients = torch.randn(1, 5)
    mirrored = lopsided(*image(coefficients).split([3, 2], 1))[0]
    wanted = lopsided(*coefficients.split([3, 2], 1))[0, mirror_index] * torch.tensor([-1.0, 1, 1])
    rows = model.basis.flatten(1)
    torch.testing.assert_close(rows @ (mirrored - wanted).flatten() / rows.norm(dim=1),
                               torch.zeros(5), rtol=0, atol=1.0)  # fmt: skip
    assert image.residual == pytest.approx(
        float((mirrored - wanted).square().sum(1).mean().sqrt()), rel=1e-2
    )
    assert 0 < image.residual <= 500 * (2 / 21) ** 0.5


def test_depth_starts_at_zero(face):
    """Over all vertices, exactly so for the mean face; other numbers stay."""
    fit = random_fit([0, 0.7, -1.5, 2.0])
    fit = fit._replace(shape_params=0 * fit.shape_params, exp_params=0 * fit.exp_params)
    parameters = FitParameters(face.morphable_model, None)(fit)
    moved = DepthOrigin(face.morphable_model)(parameters)
    depth = posed_vertices(face.morphable_model, moved)[..., 2].amin(1)
    torch.testing.assert_close(depth, torch.zeros(4), rtol=0, atol=1e-4)
    others = torch.arange(NUM_PARAMETERS) != DEPTH
    assert torch.equal(moved[:, others], parameters[:, others])


def test_prediction_in_closed_form(face):
    """Parameters of a fit -> the fit's position map and pose."""
    fit = random_fit([0.3, -0.8])
    network = TinyRegressor()
    network.set_face(face)
    network.eval()
    prediction = network.complete(FitParameters(face.morphable_model, None)(fit))
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    truth = decoder(fit.shape_params, fit.exp_params, fit.crop_from_model)
    points = FaceDecoder(network, face)
    position_map = points.position_map(prediction, points.mesh(prediction))
    torch.testing.assert_close(position_map[:, :2], truth[:, :2], rtol=0, atol=1e-3)
    shift = (position_map - truth)[:, 2].flatten(1)[:, decoder.places[0]]
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=0, atol=1e-3)

    flip = torch.diag(torch.tensor([1.0, -1, 1]))
    scaled = prediction.pose.scale[:, None, None] * prediction.pose.rotation
    torch.testing.assert_close(flip @ scaled, fit.crop_from_model[:, :3, :3], rtol=1e-4, atol=1e-8)
    up = prediction.pose.translation[:, :2]
    torch.testing.assert_close(up * torch.tensor([1.0, -1]), fit.crop_from_model[:, :2, 3])


def test_training_predicts_parameters_alone(face):
    network = TinyRegressor().train()
    prediction = network(torch.rand(2, 3, 64, 64))
    assert prediction.pose is None
    assert prediction.parameters.shape == (2, NUM_PARAMETERS)
    with pytest.raises(ValueError, match="set_face"):
        network.eval()(torch.rand(2, 3, 64, 64))
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, H\)"):
        network(torch.rand(2, 3, 64, 32))
    network.set_face(face)
    assert network(torch.rand(2, 3, 64, 64)).pose.rotation.shape == (2, 3, 3)
    stored = set(network.state_dict())
    assert stored == {"parameter_mean", "parameter_std", "head.weight", "head.bias"}


def test_whitening_is_undone_in_full_precision():
    """A std of 4e5 times bfloat16 would be 1000 off."""
    network = TinyRegressor()
    mean = torch.linspace(1e5, 4e5, NUM_PARAMETERS)
    std = torch.full((NUM_PARAMETERS,), 4e5)
    std[3] = 0  # never varies
    network.set_statistics(mean, std)
    image = torch.rand(2, 3, 24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        whitened = network.whitened(network.prepare(image))
        assert whitened.dtype == torch.bfloat16
        parameters = network(image).parameters
    assert parameters.dtype == torch.float32
    expected = mean + whitened.float() * torch.where(std > 0, std, 1)
    torch.testing.assert_close(parameters, expected)


def test_input_is_normalised_as_published():
    """0 and 255 become -127.5 / 128 and 127.5 / 128; the order of the channels is a choice; finer
    detail than the input's is averaged."""
    image = torch.stack([torch.zeros(24, 24), torch.ones(24, 24), torch.full((24, 24), 0.5)])[None]
    network = TinyRegressor()
    seen = network.prepare(image)[0, :, 0, 0]
    torch.testing.assert_close(seen, torch.tensor([-127.5 / 128, 127.5 / 128, 0.0]))
    swapped = TinyRegressor(channel_order="bgr").prepare(image)[0, :, 0, 0]
    assert torch.equal(swapped, seen.flip(0))
    checker = ((torch.arange(96)[:, None] + torch.arange(96)) % 2).float().expand(1, 3, 96, 96)
    inner = network.prepare(checker)[..., 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="channel_order: got 'grb'"):
        TinyRegressor(channel_order="grb")
    with pytest.raises(ValueError, match="architecture: got 'vgg'"):
        TorchvisionRegressor(architecture="vgg")


def test_statistics_are_the_training_sets(built_dir, face):
    """Against the batches that training sees, pictures and all."""
    sets = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    mean, std = parameter_statistics(sets, TinyRegressor(), face, STILL)
    batch = collate_fits([sets.concatenated()[i] for i in range(len(sets))])
    pose = batch.crop_from_model[:, :3] * torch.tensor([1.0, -1, 1])[:, None]
    rows = torch.cat([pose.flatten(1), batch.shape_params, batch.exp_params], 1).double().numpy()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(std, rows.std(0, ddof=1), rtol=1e-3)


def test_statistics_are_of_4096_samples(built_dir, face, monkeypatch):
    sets = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    fits = sets.posed_fits(4)
    asked = []
    monkeypatch.setattr(sets, "posed_fits", lambda count: asked.append(count) or fits)
    parameter_statistics(sets, TinyRegressor(), face, STILL)
    assert asked == [4096]


def test_statistics_hold_the_augmentation(built_dir, face):
    """Turning by up to 45 degrees varies the entries of the roll."""
    sets = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    _, still = parameter_statistics(sets, TinyRegressor(), face, STILL)
    _, moved = parameter_statistics(sets, TinyRegressor(), face, AugmentRule())
    assert moved[1] > 1.5 * still[1]
    assert moved[4] > 1.5 * still[4]


def test_synthetic_fits_without_pictures():
    """As those that come with the pictures, but for where z starts."""
    rule = shipped_rule(size=48, samples_per_epoch=3, held_out=0)
    sets = SyntheticSets(rule)
    fits = sets.posed_fits(8)
    rendered = sets.rendered.fits(range(3))
    torch.testing.assert_close(fits.shape_params, rendered.shape_params)
    torch.testing.assert_close(fits.exp_params, rendered.exp_params)
    for known in (slice(0, 2), slice(3, 4)):
        torch.testing.assert_close(
            fits.crop_from_model[:, known], rendered.crop_from_model[:, known], rtol=1e-4, atol=1e-4
        )
    linear = slice(0, 3)
    torch.testing.assert_close(
        fits.crop_from_model[:, 2, linear], rendered.crop_from_model[:, 2, linear]
    )


def test_decay_of_adam_is_the_l2_regulariser_of_weights_alone():
    """As PRNet's network file has it: 0.0002 / 2 times the sum of their squares in the loss."""
    decayed, plain = (torch.nn.Linear(4, 3) for _ in range(2))
    plain.load_state_dict(decayed.state_dict())
    settings = {"optimizer": "adam", "learning_rate": 0.1}
    optimizers = [
        make_optimizer(decayed, plan(weight_decay=2e-4, **settings)),
        make_optimizer(plain, plan(weight_decay=0.0, **settings)),
    ]
    image = torch.rand(8, 4)
    for _ in range(5):
        loss = plain(image).square().mean() + 1e-4 * plain.weight.square().sum()
        for optimizer, value in zip(
            optimizers, (decayed(image).square().mean(), loss), strict=True
        ):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    for one, other in zip(decayed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_optimizers():
    network = TinyRegressor()
    chosen = make_optimizer(network, plan(optimizer="sgd", momentum=0.9, weight_decay=5e-4))
    assert isinstance(chosen, torch.optim.SGD)
    group = chosen.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 5e-4)
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        chosen = make_optimizer(network, plan(optimizer=name, weight_decay=0.02))
        assert type(chosen) is kind
        matrices, vectors = chosen.param_groups
        assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.02, 0.0)
        assert matrices["params"] == [network.head.weight]
        assert vectors["params"] == [network.head.bias]
    with pytest.raises(ValueError, match="got 'lion', expected one of adam, adamw, sgd"):
        make_optimizer(network, plan(optimizer="lion"))


def test_3ddfas_schedule():
    """x 0.2 in the first 5 epochs and after 30 and 40."""
    rates = [
        milestone_decay(epoch, 50, milestones=[30, 40], factor=0.2, warmup_epochs=5)
        for epoch in (0, 4.9, 5, 29.9, 30, 45)
    ]
    assert rates == pytest.approx([0.2, 0.2, 1, 1, 0.2, 0.04])


def test_loop_teaches_parameters_and_draws_them(built_dir, face, tmp_path):
    """Fewer px after some steps, and the validation panel."""
    sets = TrainingSets([built_dir], validation_fraction=0.25, face=face.describe())
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    torch.manual_seed(0)
    network = TinyRegressor()
    loss_fn = ParameterLoss(num_shape=NUM_SHAPE, num_exp=NUM_EXP, num_random=30, vdc=1.0)
    network.set_face(face)
    loss_fn.set_face(face)
    network.set_statistics(*parameter_statistics(sets, network, face, STILL))
    loss_fn.set_statistics(network.parameter_mean, network.parameter_std)
    values = []
    loss_fn.register_forward_hook(lambda _, __, losses: values.append(losses["vdc"].item()))
    train(
        network,
        loss_fn,
        sets,
        decoder,
        plan=plan(max_steps=40, batch_size=6, learning_rate=0.02, save_every=100),
        rule=STILL,
        schedule=lambda _epoch, _total: 1.0,
        processes=CPU,
        run_dir=tmp_path,
        header={"model": {"name": "tiny"}, "face": face.describe()},
        validate=None,
        resume=None,
    )
    assert sum(values[-5:]) < 0.3 * sum(values[:5])
    panel = draw_panel(network, sets.shown(2), face, decoder)
    assert panel.shape == (2 * (256 + 12), 4 * 256, 3)
