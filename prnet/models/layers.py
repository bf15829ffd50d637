"""Layers with the definitions of TensorFlow 1, in which PRN was published, and rows of layers.

Letters: B batch, C channels, H W height and width, k kernel side.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

# tf.contrib's batch_norm as PRN sets it: epsilon 1e-3, decay 0.999 (torch's momentum is 1 - decay).
NORM_EPS = 1e-3
NORM_MOMENTUM = 1e-3


def same_padding(size: int, *, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis such that a convolution returns ceil(size / stride).

    Convention: TensorFlow's SAME; of an odd total the extra zero goes after: (1, 2) for k = 4 at
    stride 1, (1, 1) at stride 2 on an even side.
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
    if kernel_size == 1 and stride > 1:
        # The same numbers by the fast path: torch takes strided 1x1 convolutions in channels_last
        # to a slow one, whose backward in torch 2.15 writes out of bounds with few channels.
        features, stride = features[..., ::stride, ::stride], 1
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

    The transpose of `conv2d_same` on the larger side. Torch's padding trims both ends alike, so
    where SAME is lopsided (k = 4 at stride 1) the last row and column are dropped after it.
    """
    # On a side of `stride` times anything the padding is that of one stride.
    before, after = same_padding(stride, kernel_size=weight.shape[-1], stride=stride)
    grown = functional.conv_transpose2d(features, weight, stride=stride, padding=before)
    height, width = stride * features.shape[-2], stride * features.shape[-1]
    return grown[..., :height, :width] if after > before else grown


class _XavierNoBias:
    """Of a convolution: no bias, and weights that start Xavier-uniform."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, bias=False)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)


class SameConv2d(_XavierNoBias, nn.Conv2d):
    """`conv2d_same`; `weight` is (out, in, k, k), TensorFlow's [k, k, in, out] by axes
    (3, 2, 0, 1)."""

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return conv2d_same(features, self.weight, stride=self.stride[0])


class SameConvTranspose2d(_XavierNoBias, nn.ConvTranspose2d):
    """`conv_transpose2d_same`; `weight` is (in, out, k, k), TensorFlow's [k, k, out, in] by axes
    (3, 2, 0, 1), without a flip."""

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return conv_transpose2d_same(features, self.weight, stride=self.stride[0])


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)


def chain(
    layer: Callable[..., nn.Module],
    plan: tuple[tuple[int, int], ...],
    width: int,
    *,
    in_channels: int,
) -> list[nn.Module]:
    """One layer after the other, of `plan`'s output channels (in widths) and strides."""
    outputs = [multiple * width for multiple, _ in plan]
    inputs = [in_channels, *outputs[:-1]]
    return [layer(i, o, stride=s) for i, o, (_, s) in zip(inputs, outputs, plan, strict=True)]
