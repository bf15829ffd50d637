"""How much work a network is: the operations that one forward pass really runs."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prnet.models.regressor import Regressor

aten = torch.ops.aten
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1}  # place of the left factor
# Operations an element of what is read (reductions) or written (all else).
REDUCTIONS = {
    aten.mean: 1,
    aten.sum: 1,
    aten.std_mean: 2,
    aten.avg_pool2d: 1,
    aten.max_pool2d_with_indices: 1,
    aten._adaptive_avg_pool2d: 1,
}
ELEMENTWISE = {
    aten.native_batch_norm: 2,
    aten.addcmul: 2,
    **dict.fromkeys((aten.add, aten.add_, aten.sub, aten.mul, aten.div), 1),
    **dict.fromkeys((aten.relu, aten.relu_, aten.hardtanh, aten.hardtanh_, aten.sigmoid), 1),
}


class Operations(NamedTuple):
    """The work of one forward pass."""

    multiply_accumulates: int  # of convolutions and matrix products
    elementwise: int  # of norms (2 an element), activations, pools, sums and products

    @property
    def total(self) -> int:
        """What the papers of small networks call FLOPs."""
        return self.multiply_accumulates + self.elementwise


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.multiply_accumulates = 0
        self.elementwise = 0

    def __torch_dispatch__(self, operator, _types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        kind = operator.overloadpacket
        first = result[0] if isinstance(result, tuple | list) else result
        if kind is aten.convolution:
            transposed = args[6]  # then every value of the input meets a filter, else of the output
            met = args[0] if transposed else first
            self.multiply_accumulates += met.numel() * math.prod(args[1].shape[1:])
        elif kind in PRODUCTS:
            self.multiply_accumulates += first.numel() * args[PRODUCTS[kind]].shape[-1]
        elif kind in REDUCTIONS:
            self.elementwise += REDUCTIONS[kind] * args[0].numel()
        elif kind in ELEMENTWISE:
            self.elementwise += ELEMENTWISE[kind] * first.numel()
        return result


@torch.no_grad()
def count_operations(module: nn.Module, *inputs: Tensor) -> Operations:
    """What `module(*inputs)` takes, in eval mode; copies and views are not counted."""
    training = module.training
    module.eval()
    with _Counter() as counter:
        module(*inputs)
    module.train(training)
    return Operations(counter.multiply_accumulates, counter.elementwise)


class _NetworkAlone(nn.Module):
    """A regressor up to its parameters; any other network as it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> None:
        if isinstance(self.model, Regressor):
            prepared = self.model.prepare(image)
            self.model.whitened(prepared[:, :1].expand(-1, self.model.input_channels, -1, -1))
        else:
            self.model(image)


def network_size(model: nn.Module, image: Tensor) -> dict[str, float]:
    """Parameters in millions and operations of a crop (1, 3, H, W) in units of 1e9, by the names of
    a report."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    operations = count_operations(_NetworkAlone(model), image)
    return {"params_m": parameters / 1e6, "gflops": operations.total / 1e9}
