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

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        width = features.shape[1] // self.scales
        if self.stride == 1:
            return self.of_groups(features.split(width, 1))
        # The groups do not meet, and one convolution does for all but the first.
        first, others = features.split([width, features.shape[1] - width], 1)
        weights = torch.cat([conv.weight for conv in self.filters]).to(first.dtype)
        made = functional.conv2d(others, weights, None, self.stride, 1, groups=len(weights))
        return torch.cat([functional.avg_pool2d(first, 3, self.stride, padding=1), made], 1)

    def of_groups(self, groups: Sequence[Tensor]) -> Tensor:
        """What `forward` makes of their channels, without a stride."""
        first, *others = groups
        made = [first]
        for index, (group, conv) in enumerate(zip(others, self.filters, strict=True)):
            made.append(conv(group if index == 0 else group + made[-1]))
        return torch.cat(made, 1)

    def as_filters(self) -> Tensor:
        """What `forward` does with a stride as 3x3 filters, (C, 1, 3, 3)."""
        weights = [conv.weight for conv in self.filters]
        return torch.cat([torch.full_like(weights[0], 1 / 9), *weights])


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
        """`layers` in eval mode for what runs a traced network: it keeps channels in blocks, would
        copy all of them to split them, and joins an activation to a convolution alone. So each
        group of the filters has an expansion of its own, and norms are convolutions."""
        expands = isinstance(self.layers[0], nn.Conv2d)
        filters, norm_of_filters, activation, *rest = self.layers[3 if expands else 0 :]
        scale, shift = scale_and_shift(norm_of_filters)
        width = len(filters.filters[0].weight)

        def expanded(part: slice) -> Tensor:
            if not expands:
                return features[:, part]
            expansion, batch_norm = self.layers[:2]
            # Sliced, not split: the exporter makes constants of slices.
            gain, bias = (each[part] for each in scale_and_shift(batch_norm))
            return activation(convolved(features, expansion.weight[part], gain, bias))

        if filters.stride > 1:
            made, weights = expanded(slice(None)), filters.as_filters()
        else:
            parts = (slice(start, start + width) for start in range(0, len(scale), width))
            made = filters.of_groups([expanded(part) for part in parts])
            weights = made.new_ones(len(scale), 1, 1, 1)
        stride = filters.stride
        made = activation(convolved(made, weights, scale, shift, stride=stride, groups=len(scale)))
        for layer in rest:
            made = layer(made)
        return made


def scale_and_shift(batch_norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A norm in eval mode is x scale + shift, (C,) each, float32."""
    variance = batch_norm.running_var.float()
    scale = batch_norm.weight.float() * torch.rsqrt(variance + batch_norm.eps)
    return scale, batch_norm.bias.float() - batch_norm.running_mean.float() * scale


def convolved(
    features: Tensor,  # (B, C, H, W)
    weight: Tensor,  # (D, C / groups, k, k), which may be kept in half precision
    scale: Tensor,  # (D,)
    shift: Tensor,  # (D,)
    *,
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution with its norm, (B, D, H / stride, W / stride)."""
    kind, padding = weight.dtype, weight.shape[-1] // 2
    weight, shift = (weight * scale[:, None, None, None]).to(kind), shift.to(kind)
    return functional.conv2d(features.to(kind), weight, shift, stride, padding, groups=groups)


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
