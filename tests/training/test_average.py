"""The moving average of a network's weights."""

import pytest
import torch
from torch import nn

from prnet.training.average import WeightAverage


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def moved(net: nn.Module) -> None:
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape).mul(3).to(tensor.dtype))


def test_weights_and_statistics_follow_the_recursion_and_counters_are_copied() -> None:
    net = small()
    average = WeightAverage(net, 0.9)
    expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for step in range(1, 200):
        moved(net)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
            else:
                expected[name] = tensor.clone()
    for name, tensor in average.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


def test_without_a_decay_the_network_itself_is_kept() -> None:
    net = small()
    average = WeightAverage(net, 0.0)
    average.update(1)
    assert average.model is net
    assert average.state() == {}


def test_a_run_goes_on_from_its_average_and_no_other_run_does() -> None:
    net = small()
    average = WeightAverage(net, 0.9)
    moved(net)
    average.update(1)
    later = WeightAverage(small(), 0.9)
    later.load_state(average.state())
    for name, tensor in later.model.state_dict().items():
        torch.testing.assert_close(tensor, average.model.state_dict()[name])
    with pytest.raises(ValueError, match=r"trainer\.average is 0 in one of the two runs"):
        WeightAverage(small(), 0.0).load_state(average.state())
    with pytest.raises(ValueError, match=r"expected at least 0 and below 1"):
        WeightAverage(small(), 1.0)
