"""The optimiser of a run."""

import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.training.plan import Plan

CPU = torch.device("cpu")


def make_optimizer(
    model: nn.Module, plan: Plan, device: torch.device = CPU
) -> torch.optim.Optimizer:
    """Adam, AdamW, or SGD with Nesterov's momentum. The decay of the first two leaves vectors
    (norms and biases) alone; Adam's is TensorFlow's L2 regulariser, decay / 2 times the sum of
    squares in the loss. On a CUDA `device` the learning rate is a tensor there, as whoever captures
    the step needs it.

    Raises:
        ValueError: another name.
    """
    require_choice("optimizer.name", plan.optimizer, ("adam", "adamw", "sgd"))
    settings = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    on_card = device.type == "cuda"
    if plan.optimizer == "sgd":
        momentum = {"momentum": plan.momentum, "nesterov": plan.momentum > 0}
        optimizer = torch.optim.SGD(model.parameters(), **momentum, **settings)
        return with_rates_on(device, optimizer) if on_card else optimizer
    matrices, vectors = [], []
    for parameter in model.parameters():
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    kind = torch.optim.Adam if plan.optimizer == "adam" else torch.optim.AdamW
    optimizer = kind(groups, capturable=on_card, **settings)
    return with_rates_on(device, optimizer) if on_card else optimizer


def with_rates_on(device: torch.device, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same with learning rates that are tensors."""
    # Not given to torch's constructor, which would read them back.
    for group in optimizer.param_groups:
        group["lr"] = torch.full((), group["lr"], device=device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of all groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Go on from `state`, of whichever device that run was on."""
    own = [(group["lr"], group.get("capturable")) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, (rate, capturable) in zip(optimizer.param_groups, own, strict=True):
        group["lr"] = rate
        if capturable is not None:
            group["capturable"] = capturable
