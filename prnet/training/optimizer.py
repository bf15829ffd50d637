"""The optimiser of a run."""

import torch
from torch import nn

from prnet.checks import require_choice
from prnet.training.plan import Plan


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Adam, AdamW, or SGD with Nesterov's momentum. The decay of the first two leaves vectors
    (norms and biases) alone; Adam's is TensorFlow's L2 regulariser, decay / 2 times the sum of
    squares in the loss.

    Raises:
        ValueError: another name.
    """
    require_choice("optimizer.name", plan.optimizer, ("adam", "adamw", "sgd"))
    settings = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    if plan.optimizer == "sgd":
        momentum = {"momentum": plan.momentum, "nesterov": plan.momentum > 0}
        return torch.optim.SGD(model.parameters(), **momentum, **settings)
    matrices, vectors = [], []
    for parameter in model.parameters():
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    kind = torch.optim.Adam if plan.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, **settings)
