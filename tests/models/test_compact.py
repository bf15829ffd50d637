"""The compact network: size, shapes, independence of the input's side, what it can represent."""

import pytest
import torch

from prnet.models.compact import Compact
from prnet.models.prn import PRN
from prnet.training.batch_norm import forgets_slowly


@pytest.fixture(scope="module")
def network() -> Compact:
    torch.manual_seed(0)
    network = Compact(input_side=64, width=2, rank=16, grid=16).eval()
    torch.nn.init.normal_(network.head.weight, std=0.1)
    return network


def test_parameter_count():
    """Encoder, squeeze (256 -> 32), bottleneck (512 -> 256) and head (256 -> 3 * 64 * 64)."""
    network = Compact()
    head = 256 * 12_288 + 12_288
    bottleneck = 512 * 256 + 256
    squeeze = 256 * 32 + 32
    assert sum(p.numel() for p in network.head.parameters()) == head
    encoder = sum(p.numel() for p in network.encoder.parameters())
    assert sum(p.numel() for p in network.parameters()) == head + bottleneck + squeeze + encoder
    assert encoder == 2_774_776


@pytest.mark.parametrize("side", [64, 128, 256])
def test_map_has_the_side_of_the_image(network, side):
    assert network(torch.rand(2, 3, side, side)).position_map.shape == (2, 3, side, side)


def test_batch_equals_items(network):
    images = torch.rand(3, 3, 64, 64)
    together = network(images).position_map
    apart = torch.cat([network(image[None]).position_map for image in images])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-3)


def test_output_is_the_head_resampled_between_the_corners(network):
    """Grid nodes lie on the map's corners, and a linear grid stays linear."""
    ramp = torch.linspace(-1, 1, 16)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(ramp.expand(3, 16, 16).flatten())
    position_map = network(torch.rand(1, 3, 256, 256)).position_map
    expected = torch.linspace(0, 255, 256).expand(1, 3, 256, 256)
    torch.testing.assert_close(position_map, expected, rtol=0, atol=1e-3)


def test_first_map_is_a_point():
    """Nothing is noise before training: every texel lies in the middle of the crop."""
    network = Compact(input_side=32, width=1, rank=8, grid=8).eval()
    position_map = network(torch.rand(1, 3, 64, 64)).position_map
    torch.testing.assert_close(position_map, torch.full_like(position_map, 127.5))


def test_larger_images_are_averaged_not_skipped():
    """Detail finer than the network's own input must not alias into it."""
    torch.manual_seed(0)
    network = Compact(input_side=64, width=2, rank=16, grid=16).eval()
    torch.nn.init.normal_(network.head.weight, std=0.1)
    checker = (torch.arange(256)[:, None] + torch.arange(256)) % 2
    fine = network(checker.float().expand(1, 3, 256, 256)).position_map
    flat = network(torch.full((1, 3, 256, 256), 0.5)).position_map
    torch.testing.assert_close(fine, flat, rtol=0, atol=0.5)


def test_every_parameter_gets_a_gradient():
    network = Compact(input_side=32, width=1, rank=8, grid=8)
    torch.nn.init.normal_(network.head.weight, std=0.1)  # at its start of 0 it passes nothing on
    network(torch.rand(2, 3, 32, 32)).position_map.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_bad_shapes_are_refused(network):
    with pytest.raises(ValueError, match="multiple of 32"):
        Compact(input_side=100)
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, H\)"):
        network(torch.rand(1, 3, 64, 96))


def test_batch_norm_needs_no_recomputing():
    """PRN's momentum of 0.001 forgets its start too slowly for a short run, torch's 0.1 not."""
    assert not forgets_slowly(Compact(input_side=32, width=1, rank=8, grid=8))
    assert forgets_slowly(PRN(width=1))
