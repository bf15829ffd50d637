"""The position map regression network (PRN, section 3.2; layer table from the released code).

Letters: B batch, C channels, H W height and width.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from prnet.checks import require_choice
from prnet.models.layers import SameConv2d, SameConvTranspose2d, batch_norm, chain
from prnet.models.network import Network, require_image, standardized
from prnet.models.sadrnet_layers import Layout, ShiftedConvTranspose2d, WrapConv2d
from prnet.sample import Prediction

Output = Literal["sigmoid", "tanh"]
KERNEL_SIZE = 4
# Output channels in multiples of the width, and stride.
ENCODER = ((2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), (16, 1), (32, 2), (32, 1))
DECODER = ((32, 1), (16, 2), (16, 1), (16, 1), (8, 2), (8, 1), (8, 1), (4, 2), (4, 1), (4, 1))
DECODER += ((2, 2), (2, 1), (1, 2), (1, 1))
DOWNSAMPLING = 32


SAME_CONV = partial(SameConv2d, kernel_size=KERNEL_SIZE)


class ConvNorm(nn.Module):
    """Convolution, plain or transposed, then batch norm."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = batch_norm(conv.out_channels)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return self.norm(self.conv(features))


class ConvNormReLU(ConvNorm):
    """Convolution, plain or transposed, then batch norm, then ReLU."""

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return functional.relu(super().forward(features))


class ResidualBlock(nn.Module):
    """1x1 to half the width, 4x4, 1x1, plus the shortcut; norm and ReLU come after the sum.

    Neither the last 1x1 nor the shortcut is normalised on its own, as in the released network.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        conv: Callable[..., nn.Conv2d] = SAME_CONV,
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.reduce = ConvNormReLU(SameConv2d(in_channels, half, kernel_size=1))
        self.conv = ConvNormReLU(conv(half, half, stride=stride))
        self.expand = SameConv2d(half, out_channels, kernel_size=1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = SameConv2d(in_channels, out_channels, kernel_size=1, stride=stride)
        self.norm = batch_norm(out_channels)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        residual = self.expand(self.conv(self.reduce(features)))
        return functional.relu(self.norm(residual + self.shortcut(features)))


class PRN(Network):
    """Encoder of one convolution and ten residual blocks, decoder of 17 transposed convolutions.

    13,353,618 parameters at the published width of 16: encoder 3,587,872, decoder with head
    9,765,746. The paper's "160 MB" is those in float32 with both moments of Adam.

    Convention: the output is sigmoid(norm(...)) times `coordinate_scale`, in crop px: only
    coordinates in (0, coordinate_scale) can be predicted. 281.6 = 1.1 * 256, as released; so are
    the two hidden layers of three channels with ReLU before the head, a narrow bottleneck.
    """

    def __init__(
        self,
        *,
        width: int = 16,
        coordinate_scale: float = 281.6,
        layout: Layout = "same",
        output: Output = "sigmoid",
        standardize: bool = False,
    ) -> None:
        """
        - `width`: channels of the first layer; all others are multiples of it.
        - `coordinate_scale`: px that an output of 1 stands for.
        - `layout`: "same", as published; "released", that of SADRNet's released code, which the
          re-implementation in PyTorch shares (`prnet.models.sadrnet_layers`).
        - `output`: "sigmoid", as published, or the re-implementation's "tanh".
        - `standardize`: whether every channel of every image is brought to zero mean and unit
          variance first, as there.

        Raises:
            ValueError: no such layout or output.
        """
        super().__init__()
        require_choice("layout", layout, get_args(Layout))
        require_choice("output", output, get_args(Output))
        self.coordinate_scale = coordinate_scale
        self.output = torch.sigmoid if output == "sigmoid" else torch.tanh
        self.reach = (0.0 if output == "sigmoid" else -coordinate_scale, coordinate_scale)
        self.standardize = standardize

        block: Callable[..., nn.Module]
        stem: nn.Conv2d
        deconv: Callable[..., nn.ConvTranspose2d]
        if layout == "released":
            stem = nn.Conv2d(3, width, KERNEL_SIZE, padding=1, bias=False)
            block = partial(ResidualBlock, conv=WrapConv2d)
            deconv = partial(ShiftedConvTranspose2d, stride=1)
        else:
            stem = SAME_CONV(3, width)
            block = ResidualBlock
            deconv = partial(SameConvTranspose2d, kernel_size=KERNEL_SIZE)
        self.encoder = nn.Sequential(
            ConvNormReLU(stem), *chain(block, ENCODER, width, in_channels=width)
        )
        convs = chain(deconv, DECODER, width, in_channels=ENCODER[-1][0] * width)
        convs += [deconv(width, 3), deconv(3, 3)]
        self.decoder = nn.Sequential(*map(ConvNormReLU, convs))
        self.head = ConvNorm(deconv(3, 3))

    def forward(
        self,
        image: Tensor,  # (B, 3, H, W), RGB in [0, 1], H and W multiples of 32; 256 as published
    ) -> Prediction:
        """Position maps (B, 3, H, W) in crop px, float32 under autocast too.

        Raises:
            ValueError: another shape.
        """
        require_image(image, multiple_of=DOWNSAMPLING)
        return Prediction(*self.run(image))

    def layers(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, W)
        if self.standardize:
            image = standardized(image)
        features = self.decoder(self.encoder(image))  # (B, 3, H, W)
        # bfloat16 has 8 significant bits: from 128 px up its numbers are 1 px apart.
        with torch.autocast(image.device.type, enabled=False):
            logits = self.head(features.to(self.head.conv.weight.dtype))
            return (self.coordinate_scale * self.output(logits),)
