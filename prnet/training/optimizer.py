"""The optimiser of a run."""

import torch
from torch import nn

from prnet.checks import require_choice
from prnet.training.plan import Plan


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Adam, or SGD with Nesterov's momentum.

    Raises:
        ValueError: another name.
    """
    require_choice("optimizer.name", plan.optimizer, ("adam", "sgd"))
    settings = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    if plan.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **settings)
    return torch.optim.SGD(
        model.parameters(), momentum=plan.momentum, nesterov=plan.momentum > 0, **settings
    )
