"""SADRNet: sizes, layouts, what each ablation predicts, its parts against their definitions."""

import math

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from prnet.geometry.camera import angles_from_rotation
from prnet.losses.sadrnet import SADRNetLoss
from prnet.models.layers import SameConvTranspose2d
from prnet.models.sadrnet import SADRNet
from prnet.models.sadrnet_layers import ShiftedConvTranspose2d, WrapConv2d
from prnet.sample import FaceSample, Prediction
from tests.plans import configuration
from tests.small_face import SmallFace, posed_faces, small_face, with_face

LAYOUTS = ("same", "released")
# Table IV: attention, self-alignment, deformation.
TICKS = {
    "sadrnet_ablation_a": (False, False, False),
    "sadrnet_ablation_b": (False, False, True),
    "sadrnet_ablation_c": (False, True, True),
    "sadrnet_ablation_d": (True, False, False),
    "sadrnet_ablation_e": (True, True, False),
    "sadrnet": (True, True, True),
}


@pytest.fixture(scope="module")
def small() -> SmallFace:
    return small_face(64)


def tiny_sadrnet(small: SmallFace, seed: int = 0, **options) -> SADRNet:
    torch.manual_seed(seed)
    model = SADRNet(width=2, **options)
    model.set_face(small)
    return model


def tiny_of(name: str, small: SmallFace) -> SADRNet:
    """The network of an experiment at a small width."""
    cfg = configuration(f"+experiment={name}")
    torch.manual_seed(0)
    model = instantiate(cfg.model.network, width=2)
    model.set_face(small)
    return model


def livelier(model: SADRNet) -> SADRNet:
    """Weights of an order at which every layer passes signal on, as after training."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def images(seed: int = 0, count: int = 2, side: int = 64) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def sample_of(small: SmallFace, yaws_deg: list[float]) -> FaceSample:
    known = posed_faces(small, yaws_deg)
    count, side = len(yaws_deg), small.uv.resolution
    attention = torch.rand(
        count, side // 8, side // 8, generator=torch.Generator().manual_seed(1)
    ).round()
    return FaceSample(images(1, count, side), known.position_map, known.shape_map, attention)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_number_of_parameters(layout) -> None:
    model = SADRNet(layout=layout)
    encoder = sum(num_parameters(part) for part in (model.stem, model.low_level, model.high_level))
    assert encoder == 3_589_856
    assert num_parameters(model.attention) == 2_068_736
    assert num_parameters(model.decoder) == 9_703_040
    assert num_parameters(model.pose_dependent_head) == 62_706
    assert num_parameters(model.deformation_head) == 62_706
    assert num_parameters(model) == 15_487_044


@pytest.mark.parametrize("name", TICKS)
def test_ablations_are_the_papers_ticks(name, small) -> None:
    """Table IV and Fig. 9: what each row has, and so what it predicts."""
    attention, aligned, deformation = TICKS[name]
    model = tiny_of(name, small).eval()
    predicted = model(images())
    assert predicted.position_map.shape == (2, 3, 64, 64)
    assert (predicted.attention_logits is not None) == attention
    # A shape of its own, from the mean face or from scratch, needs a pose: aligned or regressed.
    has_shape = aligned or deformation
    assert (predicted.shape_map is not None) == (predicted.pose is not None) == has_shape
    assert (predicted.pose_dependent_map is not None) == (aligned or not deformation)
    assert (model.pose_regressor is not None) == (deformation and not aligned)
    if has_shape:
        # Both heads start near zero: S at the mean face, unless it is regressed from scratch.
        mean = small.uv.position_map(small.morphable_model.mean[None])
        near_mean = (predicted.shape_map - mean).abs().max() < 1e-2 * mean.abs().max()
        assert bool(near_mean) == deformation
    else:
        assert predicted.position_map is predicted.pose_dependent_map


@pytest.mark.parametrize("name", TICKS)
def test_every_parameter_of_every_ablation_learns(name, small) -> None:
    """Finite, and none without a gradient (data-parallel training would refuse it)."""
    cfg = configuration(f"+experiment={name}")
    loss_fn = with_face(instantiate(cfg.loss, coordinate_scale=70), small)
    model = livelier(tiny_of(name, small))
    sample = sample_of(small, [10.0, -50.0])
    sum(loss_fn(model(sample.image), sample).values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("initialization", ["xavier", "released"])
def test_thirty_steps_find_the_faces(initialization) -> None:
    """From the start, whose maps are blank as published, to faces of the right place and size."""
    small = small_face(32)
    torch.manual_seed(0)
    model = SADRNet(width=4, coordinate_scale=35.0, initialization=initialization)
    model.set_face(small)
    loss_fn = with_face(SADRNetLoss(coordinate_scale=35.0), small)
    sample = sample_of(small, [0.0, 40.0, -40.0, 80.0])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    history = []
    for _ in range(30):
        losses = loss_fn(model(sample.image), sample)
        history.append({name: value.item() for name, value in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(math.isfinite(value) for losses in history for value in losses.values())
    blank = small.uv.weight_mask((16, 12, 3, 0)) * sample.position_map.norm(dim=1) / 35
    blank = blank.mean(0).sum() / small.uv.face_mask.sum()
    blank = blank.item()
    least = 0.6
    if initialization == "released":
        assert history[0]["pose_dependent"] == pytest.approx(blank, rel=0.02)
        least = 0.5
    assert history[-1]["pose_dependent"] < 0.6 * blank
    assert history[-1]["geometry"] < least * history[0]["geometry"]


def test_result_is_the_aligned_sum_of_mean_face_and_deformation(small) -> None:
    """Eqs. 2 and 3 from the outputs themselves: G = F (f R S + t), px and micrometres outside."""
    model = livelier(tiny_sadrnet(small, shape_unit=5e4, coordinate_scale=70.0)).eval()
    found: dict[str, Tensor] = {}
    for name in ("deformation_head", "pose_dependent_head"):
        getattr(model, name).register_forward_hook(
            lambda _, __, output, name=name: found.__setitem__(name, output)
        )
    with torch.no_grad():
        predicted = model(images())
    mean = small.uv.position_map(small.morphable_model.mean[None])
    torch.testing.assert_close(predicted.shape_map, mean + 5e4 * found["deformation_head"])
    torch.testing.assert_close(predicted.pose_dependent_map, 70 * found["pose_dependent_head"])
    scale, rotation, translation = predicted.pose
    posed = torch.einsum("b,bij,bjhw->bihw", scale, rotation, predicted.shape_map)
    posed = (posed + translation[..., None, None]) * torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    torch.testing.assert_close(predicted.position_map, posed, rtol=1e-4, atol=1e-3)
    aligned, _ = model.alignment(
        predicted.shape_map / 5e4,
        predicted.pose_dependent_map,
        torch.sigmoid(predicted.attention_logits),
    )
    torch.testing.assert_close(predicted.position_map, aligned, rtol=1e-4, atol=1e-3)


def test_attention_weighs_features_by_its_exponential(small) -> None:
    """Eq. 9, A in (0, 1)."""
    model = livelier(tiny_sadrnet(small))
    seen: list[Tensor] = []
    model.low_level.register_forward_hook(lambda _, __, output: seen.append(output))
    model.high_level.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = model(images()).attention_logits
    assert logits.shape == (2, 8, 8)
    assert logits.std() > 0.01
    weight = torch.exp(1 / (1 + torch.exp(-logits)))[:, None]
    torch.testing.assert_close(seen[1], seen[0] * weight)


@pytest.mark.parametrize("stride", [1, 2])
def test_released_transposed_convolution_is_tensorflows_one_pixel_up_and_left(stride) -> None:
    torch.manual_seed(0)
    released = ShiftedConvTranspose2d(3, 5, stride=stride)
    same = SameConvTranspose2d(3, 5, kernel_size=4, stride=stride)
    same.load_state_dict(released.state_dict())
    features = images(2, side=8)
    shifted, plain = released(features), same(features)
    assert shifted.shape == plain.shape == (2, 5, 8 * stride, 8 * stride)
    torch.testing.assert_close(shifted[..., :-1, :-1], plain[..., 1:, 1:])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [8, 9])
def test_released_convolution_wraps_two_before_and_one_after(stride, side) -> None:
    """A tap at row 2, column 2 of the kernel hits the pixel itself; tap 0 the second before it."""
    torch.manual_seed(0)
    layer = WrapConv2d(1, 1, stride=stride)
    image = images(3, side=side)[:, :1]
    for tap in range(4):
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[0, 0, tap, 3] = 1
        expected = torch.roll(image, (2 - tap, -1), (2, 3))[..., ::stride, ::stride]
        assert torch.equal(layer(image), expected)


def test_released_layout_loses_a_row_and_a_column_and_finds_them_again(small) -> None:
    sides = {}
    for layout in LAYOUTS:
        model = tiny_sadrnet(small, layout=layout).eval()
        stem = model.stem(images())
        sides[layout] = (stem.shape[-1], model.low_level(stem).shape[-1])
        assert model(images()).position_map.shape == (2, 3, 64, 64)
    assert sides == {"same": (64, 8), "released": (63, 8)}


def test_layouts_have_the_same_parameters(small) -> None:
    same, released = (tiny_sadrnet(small, layout=layout).state_dict() for layout in LAYOUTS)
    assert {name: t.shape for name, t in same.items()} == {n: t.shape for n, t in released.items()}


def test_face_is_no_part_of_the_weights(small) -> None:
    model = tiny_sadrnet(small)
    bare = SADRNet(width=2)
    assert model.state_dict().keys() == bare.state_dict().keys()
    bare.load_state_dict(model.state_dict())
    bare.set_face(small)
    with torch.no_grad():
        assert torch.equal(bare.eval()(images()).position_map, model.eval()(images()).position_map)
    assert model.to("meta").mean_shape_map.device.type == "meta"
    assert model.alignment.texels.device.type == "meta"


def test_standardised_images_hide_gain_and_offset(small) -> None:
    """As the released network: a gain a channel changes nothing (IMAGE_EPS apart)."""
    gain, offset = torch.tensor([0.6, 1.0, 1.3])[:, None, None], 0.05
    image = 0.7 * images()
    for standardize in (True, False):
        model = livelier(tiny_sadrnet(small, standardize=standardize)).eval()
        with torch.no_grad():
            plain, changed = (model(x).pose_dependent_map for x in (image, gain * image + offset))
        moved = (changed - plain).abs().max() / plain.abs().max()
        assert (moved < 0.05) == standardize


def test_regressed_pose_starts_frontal_and_in_the_middle(small) -> None:
    predicted = tiny_of("sadrnet_ablation_b", small).eval()(images())
    torch.testing.assert_close(angles_from_rotation(predicted.pose.rotation), torch.zeros(2, 3))
    assert predicted.pose.scale[0].item() == pytest.approx(70 * 1.5e-5)  # px per micrometre
    assert predicted.pose.translation[0].tolist() == pytest.approx([140.0, -140.0, 70.0])


@pytest.mark.parametrize("name", ["sadrnet", "sadrnet_ablation_b", "sadrnet_ablation_d"])
def test_bfloat16_leaves_float32_maps(name, small) -> None:
    model = livelier(tiny_of(name, small))
    sample = sample_of(small, [0.0, 30.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = model(sample.image)
    tensors = [predicted.position_map, predicted.pose_dependent_map, predicted.shape_map]
    tensors += [predicted.attention_logits, *(predicted.pose or ())]
    for tensor in tensors:
        if tensor is not None:
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
    predicted.position_map.square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_occluder_over_everything_does_no_harm(small) -> None:
    """The attention saturated at nothing, in training: values and gradients stay finite."""
    model = tiny_sadrnet(small)
    with torch.no_grad():
        model.attention[4].weight.fill_(-100.0)
    sample = sample_of(small, [0.0, 60.0])._replace(attention=torch.zeros(2, 8, 8))
    losses = with_face(SADRNetLoss(), small)(model(sample.image), sample)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_any_coordinate_is_in_reach(small) -> None:
    assert tiny_sadrnet(small).reach == (-math.inf, math.inf)


def test_released_configuration_names_the_released_choices(small) -> None:
    model = tiny_of("sadrnet_released", small)
    assert model.alignment.alignment == "released"
    assert model.standardize
    momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.5}
    assert isinstance(model.decoder[0][0], ShiftedConvTranspose2d)
    assert isinstance(model.low_level[0].conv, WrapConv2d)
    assert model.low_level[0].conv_norm.eps == 1e-5
    assert model.stem[1].eps == model.decoder[0][1].eps == 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "tf"}, "layout: got 'tf', expected one of"),
        ({"geometry": "direct"}, "geometry: got 'direct', expected one of"),
        ({"alignment": "icp"}, "alignment: got 'icp', expected one of"),
        ({"coordinate_scale": 0.0}, r"coordinate_scale: got 0\.0, expected a positive number"),
        ({"shape_unit": math.nan}, "shape_unit: got nan, expected a positive number"),
    ],
)
def test_bad_options_raise(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        SADRNet(width=2, **options)


def test_bad_input_raises(small) -> None:
    model = tiny_sadrnet(small)
    for shape in ((2, 1, 64, 64), (3, 64, 64), (2, 3, 48, 64)):
        with pytest.raises(ValueError, match=r"image: got shape .*multiples of 32"):
            model(torch.zeros(shape))
    with pytest.raises(
        ValueError, match=r"got side \(96, 96\), the face's UV maps have \(64, 64\)"
    ):
        model(torch.zeros(2, 3, 96, 96))
    with pytest.raises(ValueError, match="no face yet: call set_face"):
        SADRNet(width=2)(images())


def test_network_without_a_shape_needs_no_face() -> None:
    predicted = SADRNet(width=2, geometry="pose_dependent")(images(side=32))
    assert isinstance(predicted, Prediction)
    assert predicted.position_map.shape == (2, 3, 32, 32)


def test_the_image_reaches_the_maps_at_the_start(small):
    """Of the spread of the last features across texels, that across images is a fifth and more; the
    released start, made for far more steps, begins lower in every layer."""
    image = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    image = nn.functional.interpolate(image, size=64, mode="bilinear")
    spread = {}
    for initialization in ("xavier", "released"):
        torch.manual_seed(0)
        model = SADRNet(width=4, initialization=initialization)
        model.set_face(small)
        features = []
        model.decoder.register_forward_hook(lambda *call, found=features: found.append(call[-1]))
        with torch.no_grad():
            prediction = model(image)
        spread[initialization] = features[0].std(0).mean()
        assert prediction.position_map.isfinite().all()
    assert spread["xavier"] > 0.2
    assert spread["released"] < 0.5 * spread["xavier"]


def test_the_start_is_a_mean_face_amid_the_crop(small):
    model = tiny_sadrnet(small)
    image = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prediction = model(image)
    middle = prediction.pose_dependent_map.mean((0, 2, 3))
    torch.testing.assert_close(middle, 280 * torch.tensor([0.46, 0.46, 0.23]))
    mean = small.uv.position_map(small.morphable_model.mean[None])
    assert (prediction.shape_map - mean).std() < 1000  # micrometres
    assert prediction.attention_logits.abs().max() < 0.1
