"""What a step computes before its gradient: of a batch's random numbers the sample, of the sample
the prediction, of both the losses; as it is, or compiled."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prnet.datasets.augment import AugmentRule, Draws, augmented
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.loss import Loss
from prnet.models.network import Network
from prnet.sample import FaceSample, FitBatch, Prediction


class Made(NamedTuple):
    """What a step makes of a batch."""

    prediction: Prediction
    sample: FaceSample
    losses: dict[str, Tensor]  # name -> weighted scalar


class _Around(NamedTuple):
    """The network's surroundings, which none of its wrappers is to take for parts of it."""

    loss_fn: Loss
    decoder: PositionMapDecoder
    rule: AugmentRule
    inputs: tuple[str, ...]
    targets: frozenset[str]


class Forward(nn.Module):
    """Batch and random numbers -> `Made`; its parameters are the network's alone."""

    def __init__(
        self,
        model: Network,
        loss_fn: Loss,
        decoder: PositionMapDecoder,
        rule: AugmentRule,
        *,
        scope: str = "no",  # one of `prnet.training.compiling.SCOPES`
        precision: str = "fp32",  # bf16: of the network alone
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        targets = frozenset(loss_fn.targets | set(model.inputs))
        self.around = _Around(loss_fn, decoder, rule, tuple(model.inputs), targets)
        self.network = torch.compile(model) if scope == "network" else model
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.bf16 = precision == "bf16"

    def forward(self, batch: FitBatch, draws: Draws) -> Made:
        loss_fn, decoder, rule, inputs, targets = self.around
        sample = augmented(batch, decoder, rule, draws, targets=targets)
        image = sample.image.contiguous(memory_format=self.memory_format)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            prediction = self.network(image, *(getattr(sample, name) for name in inputs))
        return Made(prediction, sample, loss_fn(prediction, sample))


def compiled(forward: Forward, scope: str) -> nn.Module:
    """The whole of it in one graph where the scope says so, of batches that have one size."""
    if scope not in ("step", "graphs"):
        return forward
    mode = "reduce-overhead" if scope == "graphs" else None
    return torch.compile(forward, dynamic=False, mode=mode)
