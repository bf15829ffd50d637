"""Mobile-FRNet and its rivals: sizes against the poster's, attention and filters against loops."""

import pytest
import torch
from torch import nn

from prnet.models.attention import SpatialGroupEnhance, SqueezeExcitation
from prnet.models.mobile_frnet import HIDDEN, MobileBlock, MobileFRNet, MultiScaleConv
from prnet.models.network_size import count_operations, network_size
from prnet.models.regressor import TorchvisionRegressor
from prnet.models.two_dasl import TwoDASL


def size_of(network) -> tuple[float, float]:
    """Parameters in millions and operations in units of 1e9 at 120 px."""
    found = network_size(network, torch.zeros(1, 3, 120, 120))
    return found["params_m"], found["gflops"]


@pytest.mark.parametrize(("attention", "poster"), [(True, (2.60, 0.120)), (False, (2.40, 0.110))])
def test_size_is_the_posters(attention, poster):
    """Table 2, within 2 %."""
    assert size_of(MobileFRNet(attention=attention)) == pytest.approx(poster, rel=0.02)


@pytest.mark.parametrize(
    ("architecture", "poster"),
    [("resnext50_32x4d", (23.11, 1.319)), ("densenet121", (7.02, 0.800))],
)
def test_sizes_of_the_rivals_are_the_posters(architecture, poster):
    """Table 2: so the operations are counted as the poster counts them, to 1.2 %."""
    parameters, operations = size_of(TorchvisionRegressor(architecture=architecture))
    assert round(parameters, 2) == poster[0]
    assert operations == pytest.approx(poster[1], rel=0.012)


def test_mobilenet_v2_is_smaller_than_the_posters():
    """The poster's 2.38 M have room for a second head of 62."""
    parameters, operations = size_of(TorchvisionRegressor(architecture="mobilenet_v2"))
    head = 1280 * 62 + 62
    assert round(parameters, 2) == 2.30
    assert round(parameters + head / 1e6, 2) == 2.38
    assert round(operations, 3) == 0.099


def test_operations_are_counted():
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(150, 7),
    )
    multiply_accumulates, elementwise = count_operations(network, torch.zeros(2, 4, 5, 5))
    assert multiply_accumulates == 2 * (6 * 25 * 2 * 9 + 150 * 7)
    assert elementwise == 2 * 6 * 25 * (2 + 1)
    assert network.training


def test_inner_widths_hold_scales_and_groups():
    assert all(width % 64 == 0 and 6 * c <= width <= 8 * c for c, width in HIDDEN.items())


@torch.no_grad()
def test_sge_enhances_what_is_like_the_mean():
    """Against loops over images, groups and places."""
    torch.manual_seed(0)
    batch, channels, groups, height, width = 2, 6, 3, 4, 5
    layer = SpatialGroupEnhance(channels, groups=groups)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    features = torch.randn(batch, channels, height, width)
    expected = torch.zeros_like(features)
    for image, target in zip(features, expected, strict=True):
        for group in range(groups):
            own = image[group::groups].flatten(1)  # (C / G, S)
            alike = own.mean(1) @ own  # (S,)
            alike = (alike - alike.mean()) / (alike.std(correction=0) + 1e-5)
            gain = torch.sigmoid(layer.weight[group] * alike + layer.bias[group])
            target[group::groups] = (own * gain).unflatten(1, (height, width))
    torch.testing.assert_close(layer(features), expected)
    torch.testing.assert_close(layer.in_rows(features), expected)


def test_sge_starts_as_a_constant_gain():
    """w = 0 and b = 1, as published; also of one place, where nothing deviates."""
    layer = SpatialGroupEnhance(4, groups=2)
    for side in (1, 3):
        features = torch.randn(2, 4, side, side, requires_grad=True)
        enhanced = layer(features)
        torch.testing.assert_close(enhanced, features * torch.sigmoid(torch.ones(())))
        enhanced.sum().backward()
        assert features.grad.isfinite().all()
    with pytest.raises(ValueError, match="6 channels do not divide into 4 groups"):
        SpatialGroupEnhance(6, groups=4)


def test_squeeze_excitation_scales_channels():
    layer = SqueezeExcitation(4, reduction=2)
    features = torch.randn(3, 4, 5, 5)
    gain = (layer(features) / features).flatten(2)
    torch.testing.assert_close(gain, gain[..., :1].expand_as(gain), rtol=1e-4, atol=1e-5)
    code = torch.relu(layer.squeeze(features.mean((2, 3))))
    torch.testing.assert_close(gain[..., 0], torch.sigmoid(layer.excite(code)))


def test_every_scale_sees_two_pixels_more():
    """An impulse in all groups spreads to 1, 3, 5 and 7 pixels."""
    layer = MultiScaleConv(8, scales=4, stride=1)
    for conv in layer.filters:
        nn.init.ones_(conv.weight)
    impulse = torch.zeros(1, 8, 15, 15)
    impulse[..., 7, 7] = 1
    reached = (layer(impulse)[0] != 0).any(1).sum(1)
    assert reached.tolist() == [1, 1, 3, 3, 5, 5, 7, 7]


def test_strided_scales_do_not_hand_on():
    layer = MultiScaleConv(4, scales=4, stride=2)
    features = torch.randn(1, 4, 8, 8)
    made = layer(features)
    assert made.shape == (1, 4, 4, 4)
    torch.testing.assert_close(made[:, 2:3], layer.filters[1](features[:, 2:3]))
    torch.testing.assert_close(made[:, :1], nn.functional.avg_pool2d(features[:, :1], 3, 2, 1))
    with pytest.raises(ValueError, match="do not divide"):
        MultiScaleConv(6, scales=4, stride=1)


@pytest.mark.parametrize(("expansion", "stride"), [(1, 1), (6, 1), (6, 2)])
def test_what_is_traced_has_norms_in_its_convolutions(expansion, stride):
    """The same numbers, also where norms have seen something."""
    torch.manual_seed(0)
    block = MobileBlock(16, 16, expansion=expansion, stride=stride, scales=4, sge_groups=16)
    block(torch.randn(4, 16, 9, 9))
    for name, values in block.named_parameters():
        if values.ndim == 1:
            nn.init.normal_(values, float("weight" in name), 0.5)
    block.eval()
    features = torch.randn(2, 16, 9, 9)
    torch.testing.assert_close(block.in_groups(features), block.layers(features))


def test_batch_equals_items_and_every_parameter_learns():
    torch.manual_seed(0)
    network = MobileFRNet(input_side=64)
    for module in network.modules():
        if isinstance(module, SpatialGroupEnhance):
            nn.init.normal_(module.weight)
    images = torch.rand(2, 3, 64, 64)
    network.eval()
    apart = torch.cat([network.whitened(image[None]) for image in images])
    torch.testing.assert_close(network.whitened(images), apart, rtol=1e-4, atol=1e-5)
    network.train()
    network.whitened(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_without_attention_there_is_none():
    kinds = {type(module) for module in MobileFRNet(attention=False).modules()}
    assert not kinds & {SpatialGroupEnhance, SqueezeExcitation}


def test_training_steps_do_not_depend_on_torchs_own_random_numbers():
    """MobileNetV2 comes with dropout; a resumed run must meet the same losses."""
    model = TorchvisionRegressor(architecture="mobilenet_v2").train()
    image = torch.rand(2, 3, 120, 120, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.whitened(image), model.whitened(image))


def test_operations_of_transposed_convolutions_are_those_of_their_convolution():
    """The transpose of a linear map has as many products: 4 x 4, stride 2, without borders cut."""
    down = nn.Conv2d(5, 7, 4, stride=2, bias=False)
    up = nn.ConvTranspose2d(7, 5, 4, stride=2, bias=False)
    small, large = torch.zeros(1, 7, 9, 9), torch.zeros(1, 5, 20, 20)
    expected = 9 * 9 * 7 * 5 * 16
    assert count_operations(down, large) == (expected, 0)
    assert count_operations(up, small) == (expected, 0)


def test_sizes_for_reports_are_of_the_network_alone(face):
    """With and without a face to decode; 2DASL's has a fourth channel."""
    found = network_size(MobileFRNet(), torch.zeros(1, 3, 256, 256))
    assert (found["params_m"], found["gflops"]) == pytest.approx((2.60, 0.120), rel=0.02)
    model = MobileFRNet(num_shape=4, num_exp=3)
    found = network_size(model, torch.zeros(1, 3, 256, 256))
    model.set_face(face)
    assert network_size(model, torch.zeros(1, 3, 256, 256)) == found
    assert model.training
    found = network_size(TwoDASL(), torch.zeros(1, 3, 256, 256))
    assert found["params_m"] == pytest.approx(23.638206)
    assert found["weights_mb"] == pytest.approx(90.173, abs=1e-3)  # four bytes each
    assert 1.5 < found["gflops"] < 2.2  # ResNet-50's 1.27, with the last stage at twice its side
