"""PRN, its TensorFlow-style layers and the recomputed batch-norm statistics."""

import copy

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from prnet.entry import CONFIG_DIR
from prnet.models.layers import (
    SameConv2d,
    SameConvTranspose2d,
    conv2d_same,
    conv_transpose2d_same,
    same_padding,
)
from prnet.models.prn import PRN, ResidualBlock
from prnet.sample import Prediction
from prnet.training.batch_norm import recompute_batch_norm

TORCH_FROM_TENSORFLOW = (3, 2, 0, 1)


@pytest.fixture(scope="module")
def published() -> PRN:
    torch.manual_seed(0)
    return PRN()


def tiny_prn(seed: int = 0) -> PRN:
    torch.manual_seed(seed)
    return PRN(width=2)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tensorflow_offset(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Output side and zeros before of tf.nn.conv2d SAME, by the case distinction of TF's manual."""
    remainder = size % stride
    total = max(kernel - (stride if remainder == 0 else remainder), 0)
    return -(-size // stride), total // 2


def tensorflow_conv2d(image: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """image (B, H, W, I), kernel (k, k, I, O): the sum of the definition, tap by tap."""
    batch, height, width, _ = image.shape
    size = kernel.shape[0]
    rows, top = tensorflow_offset(height, size, stride)
    columns, left = tensorflow_offset(width, size, stride)
    output = np.zeros((batch, rows, columns, kernel.shape[3]))
    for b, i, j, di, dj in np.ndindex(batch, rows, columns, size, size):
        y, x = stride * i + di - top, stride * j + dj - left
        if 0 <= y < height and 0 <= x < width:
            output[b, i, j] += image[b, y, x] @ kernel[di, dj]
    return output


def tensorflow_conv2d_transpose(image: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """image (B, H, W, I), kernel (k, k, O, I): the gradient of conv2d, each input scattered."""
    batch, height, width, _ = image.shape
    size = kernel.shape[0]
    rows, columns = stride * height, stride * width
    top = tensorflow_offset(rows, size, stride)[1]
    left = tensorflow_offset(columns, size, stride)[1]
    output = np.zeros((batch, rows, columns, kernel.shape[2]))
    for b, i, j, di, dj in np.ndindex(batch, height, width, size, size):
        y, x = stride * i + di - top, stride * j + dj - left
        if 0 <= y < rows and 0 <= x < columns:
            output[b, y, x] += kernel[di, dj] @ image[b, i, j]
    return output


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "expected"),
    [
        (256, 4, 1, (1, 2)),
        (256, 4, 2, (1, 1)),
        (255, 4, 2, (1, 2)),
        (256, 1, 2, (0, 0)),
        (7, 3, 1, (1, 1)),
        (7, 2, 3, (0, 1)),
    ],
)
def test_same_padding_has_tensorflows_known_values(size, kernel_size, stride, expected):
    assert same_padding(size, kernel_size=kernel_size, stride=stride) == expected


@pytest.mark.parametrize(
    ("kernel_size", "stride", "side"),
    [
        (4, 1, (6, 5)),
        (4, 2, (6, 8)),
        (4, 2, (7, 5)),
        (1, 1, (3, 4)),
        (1, 2, (6, 4)),
        (3, 1, (5, 4)),
    ],
)
def test_convolution_is_tensorflows(kernel_size, stride, side):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, *side, 3))
    kernel = rng.standard_normal((kernel_size, kernel_size, 3, 5))
    layer = SameConv2d(3, 5, kernel_size=kernel_size, stride=stride).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.transpose(TORCH_FROM_TENSORFLOW)))
        output = layer(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    expected = tensorflow_conv2d(image, kernel, stride).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(output.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 1), (4, 2), (3, 1), (2, 2), (5, 2)])
def test_transposed_convolution_is_tensorflows(kernel_size, stride):
    rng = np.random.default_rng(1)
    image = rng.standard_normal((2, 4, 5, 3))
    kernel = rng.standard_normal((kernel_size, kernel_size, 2, 3))
    layer = SameConvTranspose2d(3, 2, kernel_size=kernel_size, stride=stride).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.transpose(TORCH_FROM_TENSORFLOW)))
        output = layer(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    expected = tensorflow_conv2d_transpose(image, kernel, stride).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(output.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolution_is_the_adjoint(stride):
    """<conv x, y> = <x, conv^T y> with one and the same weight."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(4, 3, 4, 4, generator=generator, dtype=torch.float64)
    small = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    shape = (2, 3, 5 * stride, 6 * stride)
    large = torch.randn(shape, generator=generator, dtype=torch.float64)
    forward = (conv2d_same(large, weight, stride=stride) * small).sum()
    backward = (large * conv_transpose2d_same(small, weight, stride=stride)).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-12, atol=0)


@pytest.mark.parametrize("operation", [conv2d_same, conv_transpose2d_same])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_the_convolutions(operation, stride):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(1, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: operation(x, w, stride=stride), (features, weight))


def test_known_parameter_counts(published):
    decoder = num_parameters(published.decoder) + num_parameters(published.head)
    assert num_parameters(published.encoder) == 3_587_872
    assert decoder == 9_765_746
    assert num_parameters(published) == 13_353_618
    convolutions = [m.weight for m in published.modules() if isinstance(m, nn.Conv2d)]
    convolutions += [m.weight for m in published.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert sum(weight.numel() for weight in convolutions) == 13_341_728
    norms = [m for m in published.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(norm.weight.numel() for norm in norms) == 5_945
    running = sum(norm.running_mean.numel() + norm.running_var.numel() for norm in norms)
    assert running == 11_890
    num_buffers = sum(buffer.numel() for buffer in published.buffers())
    assert num_buffers == 11_890 + len(norms)  # and num_batches_tracked of each


def test_shape_of_every_stage(published):
    """Channels and side of the table of the released network at 256 px."""
    stages = [*published.encoder, *published.decoder, published.head]
    shapes = []
    hooks = [
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
        for stage in stages
    ]
    published.eval()
    with torch.inference_mode():
        prediction = published(torch.rand(1, 3, 256, 256))
    for hook in hooks:
        hook.remove()

    encoder = [(16, 256), (32, 128), (32, 128), (64, 64), (64, 64), (128, 32), (128, 32)]
    encoder += [(256, 16), (256, 16), (512, 8), (512, 8)]
    decoder = [(512, 8), (256, 16), (256, 16), (256, 16), (128, 32), (128, 32), (128, 32)]
    decoder += [(64, 64), (64, 64), (64, 64), (32, 128), (32, 128), (16, 256), (16, 256)]
    decoder += [(3, 256), (3, 256), (3, 256)]
    assert shapes == [(channels, side, side) for channels, side in encoder + decoder]
    assert isinstance(prediction, Prediction)
    assert prediction.position_map.shape == (1, 3, 256, 256)


def test_where_the_network_normalises(published):
    """No bias in any convolution; TF's constants; none on the shortcut or after the last 1x1."""
    for module in published.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.bias is None
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 1e-3)
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
    blocks = [module for module in published.modules() if isinstance(module, ResidualBlock)]
    shortcuts = [type(block.shortcut) for block in blocks]
    assert shortcuts == [SameConv2d, nn.Identity] * 5
    assert {type(block.expand) for block in blocks} == {SameConv2d}


def test_residual_block_by_hand():
    """ReLU(norm(expand(...) + shortcut)) with the norm once, after the sum."""
    torch.manual_seed(4)
    block = ResidualBlock(4, 6, stride=2).double().eval()
    for norm in (block.reduce.norm, block.conv.norm, block.norm):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 1)

    def normalise(features, norm):
        scale = norm.weight / torch.sqrt(norm.running_var + 1e-3)
        shift = norm.bias - scale * norm.running_mean
        return features * scale[:, None, None] + shift[:, None, None]

    features = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        hidden = torch.einsum("oi,bihw->bohw", block.reduce.conv.weight[:, :, 0, 0], features)
        hidden = normalise(hidden, block.reduce.norm).clamp_min(0)
        hidden = nn.functional.conv2d(hidden, block.conv.conv.weight, stride=2, padding=1)
        hidden = normalise(hidden, block.conv.norm).clamp_min(0)
        hidden = torch.einsum("oi,bihw->bohw", block.expand.weight[:, :, 0, 0], hidden)
        even = features[:, :, ::2, ::2]
        shortcut = torch.einsum("oi,bihw->bohw", block.shortcut.weight[:, :, 0, 0], even)
        expected = normalise(hidden + shortcut, block.norm).clamp_min(0)
        torch.testing.assert_close(block(features), expected, rtol=1e-12, atol=1e-12)


def test_weights_start_xavier_uniform(published):
    for module in published.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight.detach()
            area = weight.shape[2] * weight.shape[3]
            limit = (6 / (area * (weight.shape[0] + weight.shape[1]))) ** 0.5
            assert weight.abs().max() <= limit
            if weight.numel() > 4096:
                assert weight.abs().max() > 0.99 * limit
                assert abs(weight.std().item() / (limit / 3**0.5) - 1) < 0.05
                assert abs(weight.mean().item()) < 0.05 * limit


def test_output_is_the_scaled_sigmoid_of_the_normalised_head():
    """BN's beta alone sets the output: sigmoid(0) half way, saturation at 0 and at the scale."""
    model = PRN(width=2, coordinate_scale=100.0).eval()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        model.head.norm.weight.zero_()
        for beta, expected in [(0.0, 50.0), (-200.0, 0.0), (200.0, 100.0), (1.0, 73.10585786)]:
            model.head.norm.bias.fill_(beta)
            output = model(image).position_map
            torch.testing.assert_close(output, torch.full_like(output, expected))


def test_published_range(published):
    published.train()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(6)
        output = copy.deepcopy(published)(
            torch.rand(2, 3, 64, 64, generator=generator)
        ).position_map
    assert published.coordinate_scale == 281.6
    assert output.min() >= 0
    assert 256 < output.max() <= 281.6  # the whole range is used, and never left


def test_gradient_reaches_every_parameter():
    model = tiny_prn()
    generator = torch.Generator().manual_seed(7)
    output = model(torch.rand(4, 3, 64, 64, generator=generator)).position_map
    (output * torch.randn(output.shape, generator=generator)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_batch_is_its_items():
    model = tiny_prn().eval().double()
    images = torch.rand(3, 3, 64, 32, generator=torch.Generator().manual_seed(8)).double()
    with torch.inference_mode():
        together = model(images).position_map
        apart = torch.cat([model(image[None]).position_map for image in images])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)


def test_channels_last_changes_nothing():
    model = tiny_prn().eval().double()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(9)).double()
    with torch.inference_mode():
        expected = model(images).position_map
        model.to(memory_format=torch.channels_last)
        output = model(images.contiguous(memory_format=torch.channels_last)).position_map
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-9)


def test_gradients_in_channels_last_are_the_same():
    model = tiny_prn().double()
    generator = torch.Generator().manual_seed(17)
    images = torch.rand(2, 3, 64, 64, generator=generator, dtype=torch.float64)
    weight = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    (model(images).position_map * weight).sum().backward()
    images = images.contiguous(memory_format=torch.channels_last)
    (other(images).position_map * weight).sum().backward()
    for (name, left), right in zip(model.named_parameters(), other.parameters(), strict=True):
        scale = left.grad.abs().max()
        assert (left.grad - right.grad).abs().max() <= 1e-6 * scale, name


def test_bfloat16_keeps_coordinates_in_float32():
    """Under autocast the network runs in bfloat16, coordinates are not on its 1-px grid."""
    model = tiny_prn().eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(10))
    recompute_batch_norm(model, [images])
    seen = {}
    model.decoder[0].register_forward_hook(lambda _, __, out: seen.update(decoder=out.dtype))
    model.head.register_forward_hook(lambda _, __, out: seen.update(head=out.dtype))
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            output = model(images).position_map
        features = model.encoder(images)
    assert seen == {"decoder": torch.bfloat16, "head": torch.float32}
    assert features.dtype == torch.float32  # autocast ends with its block
    assert output.dtype == torch.float32
    assert ((output - output.bfloat16().float()).abs() > 0.1).float().mean() > 0.3


def test_bfloat16_training_step():
    model = tiny_prn()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(11))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images).position_map
    output.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "shape", [(3, 256, 256), (1, 4, 256, 256), (1, 256, 256, 3), (1, 3, 250, 256), (1, 3, 256, 255)]
)
def test_other_image_shapes_raise(shape):
    with pytest.raises(ValueError, match=rf"got shape \({shape[0]}, .* multiples of 32"):
        tiny_prn()(torch.zeros(shape))


def test_shipped_configuration_is_the_published_network():
    cfg = OmegaConf.load(f"{CONFIG_DIR}/model/prn.yaml")
    with torch.device("meta"):
        model = instantiate(cfg.network)
        default = PRN()
    assert cfg.name == "prn"
    assert num_parameters(model) == 13_353_618
    assert model.coordinate_scale == default.coordinate_scale == 281.6


def spread_batches(sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """Batches of very different means, so that the spread between batches counts."""
    generator = torch.Generator().manual_seed(12)
    return [
        torch.randn(size, 3, 32, 32, generator=generator) * (1 + i) + 5 * i
        for i, size in enumerate(sizes)
    ]


def test_recomputed_statistics_are_those_of_all_pixels():
    """Known value: a first layer's statistics over the batches are those over their union."""
    torch.manual_seed(13)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=1e-3))
    batches = spread_batches((5, 2, 3))
    assert recompute_batch_norm(model, batches) == 3
    with torch.no_grad():
        everything = model[0].double()(torch.cat(batches).double())
    variance, mean = torch.var_mean(everything, dim=(0, 2, 3))
    torch.testing.assert_close(model[1].running_mean.double(), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), variance, rtol=1e-6, atol=0)


def test_recomputed_statistics_of_one_batch_reproduce_training_mode():
    """With the batch's own statistics everywhere, eval mode is training mode.

    But for the n - 1 in running variances, which is taken back here.
    """
    model = tiny_prn(14).double()
    images = spread_batches((4,))[0].double()
    with torch.no_grad():
        expected = copy.deepcopy(model).train()(images).position_map
        untrained = model.eval()(images).position_map
    recompute_batch_norm(model, [images])
    biased = {m: (m.running_var.clone(), n) for m, n in pixels_per_norm(model, images).items()}
    for norm, (variance, count) in biased.items():
        norm.running_var.copy_(variance * (count - 1) / count)
    with torch.no_grad():
        exact = model(images).position_map
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-6)
    assert (untrained - expected).abs().mean() > 1


def pixels_per_norm(model: nn.Module, images: torch.Tensor) -> dict[nn.BatchNorm2d, int]:
    counts = {}
    hooks = [
        module.register_forward_hook(
            lambda norm, args, _: counts.update({norm: args[0].numel() // args[0].shape[1]})
        )
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return counts


@pytest.mark.parametrize("training", [True, False])
def test_recomputing_leaves_everything_else(training):
    model = tiny_prn(15).train(training)
    model.encoder[0].norm.momentum = None
    model.decoder[3].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    batches = spread_batches((2, 2))
    recompute_batch_norm(model, batches)
    changed = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert [module.training for module in model.modules()] == modes
    assert model.encoder[0].norm.momentum is None
    assert model.decoder[0].norm.momentum == 1e-3
    assert not any(module._forward_pre_hooks for module in model.modules())
    again = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recompute_batch_norm(model, batches)  # nothing of the first time is left in the second
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def failing_batches():
    yield torch.rand(2, 3, 32, 32)
    raise OSError("disk gone")


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        (lambda: [], ValueError, "got no batch"),
        (lambda: [torch.full((2, 3, 32, 32), torch.nan)], ValueError, r"encoder\.0\.norm.*finite"),
        (failing_batches, OSError, "disk gone"),
    ],
)
def test_failed_recomputation_changes_nothing(batches, error, message):
    model = tiny_prn(16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message):
        recompute_batch_norm(model, batches())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert model.head.norm.momentum == 1e-3
    assert not any(module._forward_pre_hooks for module in model.modules())
