"""The optimiser of a run."""

import torch
from torch import nn

from prnet.checks import require_choice
from prnet.training.plan import Plan


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Adam; AdamW, which leaves vectors (norms and biases) undecayed; or SGD with Nesterov's
    momentum.

    Raises:
        ValueError: another name.
    """
    require_choice("optimizer.name", plan.optimizer, ("adam", "adamw", "sgd"))
    settings = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    if plan.optimizer == "adamw":
        matrices, vectors = [], []
        for parameter in model.parameters():
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, **settings)
    if plan.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **settings)
    return torch.optim.SGD(
        model.parameters(), momentum=plan.momentum, nesterov=plan.momentum > 0, **settings
    )
