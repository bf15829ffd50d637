"""Building blocks of SADRNet in its two layouts.

Letters: B batch, C channels, H W height and width. "same" pads like TensorFlow, as PRN. "released"
is what the public weights were trained with, under the PyTorch of then: a stem that loses a row and
a column, 4x4 convolutions over an image that wraps around, and transposed convolutions whose result
lies one pixel up and to the left of TensorFlow's. Parameters are the same in both.
"""

from functools import partial
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from prnet.checks import require_choice
from prnet.models.layers import NORM_EPS, SameConv2d, SameConvTranspose2d

Layout = Literal["same", "released"]

KERNEL_SIZE = 4
# Of the norms inside the residual blocks; everywhere else `NORM_EPS`.
BLOCK_NORM_EPS = 1e-5
# Rows above and below (columns before and after) of the wrapped-around padding: PyTorch before 1.5
# split `padding=3` so.
WRAP_PADDING = (2, 1)


class WrapConv2d(nn.Conv2d):
    """A 4x4 convolution without bias on an image that continues at its opposite side."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, KERNEL_SIZE, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return super().forward(functional.pad(features, WRAP_PADDING * 2, mode="circular"))


class ShiftedConvTranspose2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution to (B, C_out, stride H, stride W) that drops the first row and
    column, where TensorFlow's drops the last."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(
            in_channels,
            out_channels,
            KERNEL_SIZE,
            stride=stride,
            padding=1,
            output_padding=stride - 1,
            bias=False,
        )

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return super().forward(features)[..., 1:, 1:]


class Layers:
    """Makes the layers of one layout, each a convolution without bias with norm and ReLU."""

    def __init__(self, layout: Layout, *, norm_momentum: float) -> None:
        require_choice("layout", layout, get_args(Layout))
        self.layout = layout
        self.norm_momentum = norm_momentum

    def norm(self, channels: int, *, eps: float = NORM_EPS) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=eps, momentum=self.norm_momentum)

    def stem(self, out_channels: int) -> nn.Sequential:
        conv: nn.Module = SameConv2d(3, out_channels, kernel_size=KERNEL_SIZE)
        if self.layout == "released":
            conv = nn.Conv2d(3, out_channels, KERNEL_SIZE, padding=1, bias=False)
        return nn.Sequential(conv, self.norm(out_channels), nn.ReLU())

    def conv(self, in_channels: int, out_channels: int, *, stride: int) -> nn.Conv2d:
        """4x4, alone: inside a residual block."""
        if self.layout == "released":
            return WrapConv2d(in_channels, out_channels, stride=stride)
        return SameConv2d(in_channels, out_channels, kernel_size=KERNEL_SIZE, stride=stride)

    def conv3(self, in_channels: int, out_channels: int) -> nn.Sequential:
        conv = SameConv2d(in_channels, out_channels, kernel_size=3)
        return nn.Sequential(conv, self.norm(out_channels), nn.ReLU())

    def deconv(
        self, in_channels: int, out_channels: int, *, stride: int, relu: bool = True
    ) -> nn.Sequential:
        conv: nn.Module
        if self.layout == "released":
            conv = ShiftedConvTranspose2d(in_channels, out_channels, stride=stride)
        else:
            conv = SameConvTranspose2d(
                in_channels, out_channels, kernel_size=KERNEL_SIZE, stride=stride
            )
        activation = [nn.ReLU()] if relu else []
        return nn.Sequential(conv, self.norm(out_channels), *activation)

    def block(self, in_channels: int, out_channels: int, *, stride: int) -> "ResidualBlock":
        return ResidualBlock(self, in_channels, out_channels, stride=stride)


class ResidualBlock(nn.Module):
    """1x1 to half the width, 4x4, 1x1, each with a norm, plus the shortcut; ReLU after the sum.

    Unlike PRN's block, the last 1x1 and the shortcut are normalised each, and not their sum.
    """

    def __init__(self, layers: Layers, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        norm = partial(layers.norm, eps=BLOCK_NORM_EPS)
        self.reduce = SameConv2d(in_channels, half, kernel_size=1)
        self.reduce_norm = norm(half)
        self.conv = layers.conv(half, half, stride=stride)
        self.conv_norm = norm(half)
        self.expand = SameConv2d(half, out_channels, kernel_size=1)
        self.expand_norm = norm(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            projection = SameConv2d(in_channels, out_channels, kernel_size=1, stride=stride)
            self.shortcut = nn.Sequential(projection, norm(out_channels))

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        residual = functional.relu(self.reduce_norm(self.reduce(features)))
        residual = functional.relu(self.conv_norm(self.conv(residual)))
        residual = self.expand_norm(self.expand(residual))
        return functional.relu(residual + self.shortcut(features))
