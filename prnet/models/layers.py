"""Layers with the definitions of TensorFlow 1, in which PRN was published, and batch-norm statistics.

Letters: B batch, C channels, H W height and width, k kernel side.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

# tf.contrib's batch_norm as PRN sets it: epsilon 1e-3, decay 0.999 (torch's momentum is 1 - decay).
NORM_EPS = 1e-3
NORM_MOMENTUM = 1e-3


def same_padding(size: int, *, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis such that a convolution returns ceil(size / stride).

    Convention: TensorFlow's SAME; an odd total puts the extra zero after: (1, 2) for k = 4 at stride 1.
    """
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def conv2d_same(
    features: Tensor,  # (B, C, H, W)
    weight: Tensor,  # (C_out, C, k, k)
    *,
    stride: int,
) -> Tensor:
    """tf.nn.conv2d with padding SAME, (B, C_out, ceil(H / stride), ceil(W / stride))."""
    kernel_size = weight.shape[-1]
    top, bottom = same_padding(features.shape[-2], kernel_size=kernel_size, stride=stride)
    left, right = same_padding(features.shape[-1], kernel_size=kernel_size, stride=stride)
    if top == bottom and left == right:  # without the copy that padding apart would make
        return functional.conv2d(features, weight, stride=stride, padding=(top, left))
    padded = functional.pad(features, (left, right, top, bottom))
    return functional.conv2d(padded, weight, stride=stride)


def conv_transpose2d_same(
    features: Tensor,  # (B, C, H, W)
    weight: Tensor,  # (C, C_out, k, k), k >= stride
    *,
    stride: int,
) -> Tensor:
    """tf.nn.conv2d_transpose with padding SAME, (B, C_out, stride H, stride W).

    The transpose of `conv2d_same` on the larger side. Torch's padding trims both ends alike, so where SAME
    is lopsided (k = 4 at stride 1) the last row and column are dropped after it.
    """
    before, after = same_padding(stride, kernel_size=weight.shape[-1], stride=stride)
    grown = functional.conv_transpose2d(features, weight, stride=stride, padding=before)
    height, width = stride * features.shape[-2], stride * features.shape[-1]
    return grown[..., :height, :width] if after > before else grown


class SameConv2d(nn.Conv2d):
    """`conv2d_same` without bias, Xavier-uniform.

    `weight` is (out, in, k, k): TensorFlow's [k, k, in, out] by axes (3, 2, 0, 1).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, bias=False)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return conv2d_same(features, self.weight, stride=self.stride[0])


class SameConvTranspose2d(nn.ConvTranspose2d):
    """`conv_transpose2d_same` without bias, Xavier-uniform.

    `weight` is (in, out, k, k): TensorFlow's [k, k, out, in] by axes (3, 2, 0, 1), without a flip.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, bias=False)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return conv_transpose2d_same(features, self.weight, stride=self.stride[0])


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)


class _Moments:
    """Count, mean and sum of squared deviations per channel, merged batch by batch in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0  # (C,)
        self.deviation: Tensor | float = 0.0  # (C,)

    def add(self, features: Tensor) -> None:  # (B, C, H, W)
        variance, mean = torch.var_mean(features.float(), dim=(0, 2, 3), correction=0)
        variance, mean = variance.double(), mean.double()
        count = features.numel() // features.shape[1]
        total = self.count + count
        step = mean - self.mean
        # Chan, Golub and LeVeque: pairwise update of mean and squared deviations.
        self.mean = self.mean + step * (count / total)
        self.deviation = (
            self.deviation + variance * count + step.square() * (self.count * count / total)
        )
        self.count = total


@torch.no_grad()
def recompute_batch_norm(
    model: nn.Module,
    batches: Iterable[Tensor],  # each (B, C, H, W), what `model` takes; sizes may differ
) -> int:
    """Replace the running statistics of every BatchNorm2d by those of `batches`; return their number.

    With PRN's momentum of 0.001 running statistics lag thousands of steps behind the weights. Here they
    become the mean and the (unbiased) variance over all pixels of all batches together, of what the layer
    sees while its predecessors normalise by the statistics of each batch, as in training. An average of the
    batches' variances would miss the spread of their means. Weights, momentum and modes stay; on an error so do the
    statistics. Pass the bare module, not its compiled or distributed wrapper.

    Raises:
        ValueError: no batch, or statistics that are not finite.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    }
    moments = {name: _Moments() for name in norms}
    modes = {module: module.training for module in model.modules()}
    momenta = {name: norm.momentum for name, norm in norms.items()}
    steps = {name: norm.num_batches_tracked.clone() for name, norm in norms.items()}
    hooks = [
        norm.register_forward_pre_hook(lambda _, args, name=name: moments[name].add(args[0]))
        for name, norm in norms.items()
    ]
    num_batches = 0
    try:
        model.eval()
        for norm in norms.values():
            norm.train()
            norm.momentum = 0.0  # normalise by the batch, leave the running statistics
        for images in batches:
            model(images)
            num_batches += 1
    finally:
        for hook in hooks:
            hook.remove()
        for name, norm in norms.items():
            norm.momentum = momenta[name]
            norm.num_batches_tracked.copy_(steps[name])
        for module, training in modes.items():
            module.training = training

    if num_batches == 0:
        raise ValueError("batch-norm statistics: got no batch, expected at least one")
    for name, found in moments.items():
        if found.count and not (found.mean + found.deviation).isfinite().all():
            raise ValueError(f"batch-norm statistics: {name} sees values that are not finite")
    for name, norm in norms.items():
        found = moments[name]
        if found.count:
            norm.running_mean.copy_(found.mean)
            norm.running_var.copy_(found.deviation / max(found.count - 1, 1))
    return num_batches
