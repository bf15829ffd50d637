"""How much work a network is: the operations that one forward pass really runs."""

import math
import statistics
import time

import torch
from torch import Tensor, nn

from prnet.models.network import Network
from prnet.models.regressor import Regressor

aten = torch.ops.aten
# Operations an element of what is read.
READING = {
    # Two names of one operator; which a version of torch runs differs.
    **dict.fromkeys((aten.native_batch_norm, aten._native_batch_norm_legit_no_training), 2),
    aten.mean: 1,
    aten.sum: 1,
    aten.std_mean: 2,
    aten.avg_pool2d: 1,
    aten.max_pool2d_with_indices: 1,
    aten._adaptive_avg_pool2d: 1,
}
# Operations an element of what is written, which may be larger than what is read.
WRITING = {
    aten.addcmul: 2,
    **dict.fromkeys((aten.add, aten.add_, aten.sub, aten.mul, aten.div), 1),
    **dict.fromkeys((aten.relu, aten.relu_, aten.hardtanh, aten.hardtanh_, aten.sigmoid), 1),
}
# As torch's counter takes them: functions of the shapes.
ELEMENTWISE = {
    **{
        operator: lambda read, *_, times=times, **__: times * math.prod(read)
        for operator, times in READING.items()
    },
    **{
        operator: lambda *_, out_shape, times=times, **__: times * math.prod(out_shape)
        for operator, times in WRITING.items()
    },
}


@torch.no_grad()
def count_operations(model: nn.Module, image: Tensor) -> tuple[int, int]:
    """Multiply-accumulates of convolutions and matrix products, and operations on single elements
    (norms, activations, pools, sums and products), in eval mode; copies and views are not counted.

    Of a regressor all up to its parameters, without the face that they are of.
    """
    # Triton comes with it.
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    with FlopCounterMode(display=False, custom_mapping=ELEMENTWISE) as counter:
        if isinstance(model, Regressor):
            prepared = model.prepare(image)
            model.whitened(prepared[:, :1].expand(-1, model.input_channels, -1, -1))
        else:
            model(image)
    model.train(training)
    counts = counter.get_flop_counts()["Global"]
    elementwise = sum(count for operator, count in counts.items() if operator in ELEMENTWISE)
    # Torch counts a multiply-accumulate as two.
    return (sum(counts.values()) - elementwise) // 2, elementwise


def network_size(model: nn.Module, image: Tensor) -> dict[str, float]:
    """Parameters in millions, as 32-bit floats in MB of 1024^2 bytes, and operations of a crop
    (1, 3, H, W) in units of 1e9, by the names of a report; the papers of small networks call the
    sum of both kinds FLOPs."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "params_m": parameters / 1e6,
        "weights_mb": 4 * parameters / 2**20,
        "gflops": sum(count_operations(model, image)) / 1e9,
    }


@torch.no_grad()
def latency_ms(model: Network, image: Tensor, *, passes: int = 20) -> float:
    """Milliseconds from one crop (1, 3, H, W) to the prediction, in eval mode: the median of so
    many passes after three that are not counted."""
    training = model.training
    model.eval()
    beside = ()
    if model.landmark_map == "given":
        beside = (image.new_full((1, 68, 2), image.shape[-1] / 2),)
    spent = []
    for _ in range(3 + passes):
        start = time.perf_counter()
        model(image, *beside)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)
        spent.append(1000 * (time.perf_counter() - start))
    model.train(training)
    return statistics.median(spent[3:])
