"""Mobile-FRNet (Joint Face Alignment and 3D Face Reconstruction with Efficient Convolution Neural
Networks, Figure 1 and Table 2).

Letters: B batch, C channels, H W height and width, s input side, P parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from prnet.models.attention import SpatialGroupEnhance, SqueezeExcitation
from prnet.models.regressor import Regressor, start_near_mean_face

STEM = 32
# Expansion t, output channels c, blocks n, stride s of the first: MobileNetV2's plan.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST = 1280
# Width inside a block of so many input channels, which the poster leaves open beyond its t = 6: for
# each one of the two least multiples of 64 (SGE's groups, and they divide into four scales) from
# 6 c on, such that both of the poster's sizes, with attention and without, are met within 2 %.
HIDDEN = {16: 128, 24: 192, 32: 256, 64: 448, 96: 576, 160: 1024}


def norm(channels: int, *, activation: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.BatchNorm2d(channels)]
    return [*layers, nn.ReLU6(inplace=True)] if activation else layers


class MultiScaleConv(nn.Module):
    """Depthwise 3x3 convolutions of channel groups, each fed what the one before it made (Res2Net,
    Gao et al., TPAMI 2019, eq. 1): the g-th group sees (2 g + 1) x (2 g + 1) pixels.

    The first group passes. With a stride nothing is handed on and the first group is averaged, as
    in the released Res2Net.
    """

    def __init__(self, channels: int, *, scales: int, stride: int) -> None:
        super().__init__()
        if channels % scales:
            raise ValueError(f"{channels} channels do not divide into {scales} scales")
        self.scales, self.stride = scales, stride
        width = channels // scales
        self.filters = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
            for _ in range(scales - 1)
        )

    @property
    def group_sizes(self) -> list[int]:
        """Channels of what `of_groups` takes: with a stride the groups do not meet, and one
        convolution does for all but the first."""
        width = len(self.filters[0].weight)
        return [width] * self.scales if self.stride == 1 else [width, (self.scales - 1) * width]

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return self.of_groups(features.split(self.group_sizes, 1))

    def of_groups(self, groups: Sequence[Tensor]) -> Tensor:
        """What `forward` makes of their channels."""
        first, *others = groups
        if self.stride > 1:
            weights = torch.cat([conv.weight for conv in self.filters]).to(first.dtype)
            made = functional.conv2d(*others, weights, None, self.stride, 1, groups=len(weights))
            return torch.cat([functional.avg_pool2d(first, 3, self.stride, padding=1), made], 1)
        made = [first]
        for index, (group, conv) in enumerate(zip(others, self.filters, strict=True)):
            made.append(conv(group if index == 0 else group + made[-1]))
        return torch.cat(made, 1)


class MobileBlock(nn.Module):
    """Expansion, multi-scale filters with spatial attention, projection, and a shortcut where the
    shape stays."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        stride: int,
        scales: int,
        sge_groups: int | None,
    ) -> None:
        super().__init__()
        hidden = in_channels
        layers: list[nn.Module] = []
        if expansion > 1:
            hidden = HIDDEN[in_channels]
            layers += [nn.Conv2d(in_channels, hidden, 1, bias=False), *norm(hidden)]
        layers += [MultiScaleConv(hidden, scales=scales, stride=stride), *norm(hidden)]
        if sge_groups is not None:
            layers.append(SpatialGroupEnhance(hidden, groups=min(sge_groups, hidden)))
        layers += [
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            *norm(out_channels, activation=False),
        ]
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        traced = torch.compiler.is_compiling() and not self.training
        made = self.in_groups(features) if traced else self.layers(features)
        return features + made if self.shortcut else made

    def in_groups(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        """`layers` in eval mode with an expansion of its own for each group of the filters: what
        runs a traced network keeps channels in blocks, and would copy all of them to split them."""
        if not isinstance(self.layers[0], nn.Conv2d):
            return self.layers(features)
        expansion, batch_norm, activation, filters, *rest = self.layers
        statistics = batch_norm.running_mean, batch_norm.running_var
        parts = (expansion.weight, *statistics, batch_norm.weight, batch_norm.bias)
        groups, start = [], 0
        for size in filters.group_sizes:
            # Sliced, not split: the exporter makes constants of slices.
            weight, *affine = (part[start : start + size] for part in parts)
            start += size
            # Either may be kept in half precision.
            expanded = functional.conv2d(features.to(weight.dtype), weight)
            expanded = expanded.to(batch_norm.weight.dtype)
            normed = functional.batch_norm(expanded, *affine, eps=batch_norm.eps)
            groups.append(activation(normed))
        made = filters.of_groups(groups)
        for layer in rest:
            made = layer(made)
        return made


class MobileFRNet(Regressor):
    """MobileNetV2's plan with multi-scale blocks, SGE inside each block and SE after each stage."""

    def __init__(
        self,
        *,
        attention: bool = True,
        scales: int = 4,
        sge_groups: int = 64,
        se_reduction: int = 2,
        **shared: object,
    ) -> None:
        """
        - `attention`: whether there are SGE and SE.
        - `scales`: groups of the multi-scale filters.
        - `sge_groups`: of each block.
        - `se_reduction`: by how much SE narrows a stage's channels.
        - `shared`: the options of every `Regressor`.
        """
        super().__init__(**shared)
        layers: list[nn.Module] = [
            nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False),
            *norm(STEM),
        ]
        channels = STEM
        for expansion, out_channels, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(
                    MobileBlock(
                        channels,
                        out_channels,
                        expansion=expansion,
                        stride=stride if block == 0 else 1,
                        scales=scales,
                        sge_groups=sge_groups if attention else None,
                    )
                )
                channels = out_channels
            if attention:
                layers.append(SqueezeExcitation(channels, reduction=se_reduction))
        layers += [nn.Conv2d(channels, LAST, 1, bias=False), *norm(LAST)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(LAST, self.num_parameters)
        start_near_mean_face(self)

    def whitened(self, image: Tensor) -> Tensor:  # (B, 3, s, s)
        return self.head(self.features(image).mean((2, 3)))
