"""A small network for CPUs and short runs: a residual encoder and a linear head onto the map.

Ours, of no paper. Letters: B batch, C channels, H W image side, G side of the map's own grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from prnet.models.network import Network, resized
from prnet.sample import Prediction

# Residual blocks of each stage, and channels in multiples of the width; every stage halves the
# side.
STAGES = ((1, 4), (2, 8), (2, 16), (2, 32))
POOLED_SIDE = 4
# The head's output of 1 is this many crop px from the middle of the crop, which spans 2 of them.
UNIT_PX = 127.5


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016); a strided shortcut averages
    first."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        residual = functional.relu(self.first_norm(self.first(features)))
        return functional.relu(self.second_norm(self.second(residual)) + self.shortcut(features))


class Compact(Network):
    """Position maps from a residual encoder at a reduced side and one linear layer.

    A position map is nearly bilinear in pose and shape, so few numbers say it all: the head takes
    `rank` of them to every texel of a `grid` x `grid` map, which is resampled to the input's side.
    There is no sigmoid: any coordinate can be predicted.
    """

    def __init__(
        self,
        *,
        input_side: int = 128,
        width: int = 8,
        rank: int = 256,
        grid: int = 64,
    ) -> None:
        """
        - `input_side`: the image is averaged down to it first; a multiple of 32.
        - `width`: the stages have 4, 8, 16 and 32 times as many channels.
        - `rank`: numbers that a face is coded in.
        - `grid`: side of the map before it is resampled.

        Raises:
            ValueError: the side is no multiple of 32.
        """
        super().__init__()
        if input_side % 32:
            raise ValueError(f"input_side: got {input_side}, expected a multiple of 32")
        self.input_side = input_side
        self.grid = grid
        channels = 3 * width
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        for blocks, multiple in STAGES:
            for block in range(blocks):
                stride = 2 if block == 0 else 1
                layers.append(BasicBlock(channels, multiple * width, stride=stride))
                channels = multiple * width
        self.encoder = nn.Sequential(*layers)
        self.squeeze = nn.Conv2d(channels, channels // 8, 1)
        self.bottleneck = nn.Linear(channels // 8 * POOLED_SIDE**2, rank)
        self.head = nn.Linear(rank, 3 * grid**2)
        # Neighbouring texels start alike: from torch's own start a short run keeps its noise.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        image: Tensor,  # (B, 3, H, H), RGB in [0, 1]; H a multiple of input_side, or smaller
    ) -> Prediction:
        """Position maps (B, 3, H, H) in crop px, float32 under autocast too.

        Raises:
            ValueError: another shape.
        """
        return Prediction(*self.run(image))

    def layers(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, H)
        side = image.shape[-1]
        image = resized(image, self.input_side)
        features = functional.adaptive_avg_pool2d(self.squeeze(self.encoder(image)), POOLED_SIDE)
        code = functional.relu(self.bottleneck(features.flatten(1)))  # (B, rank)
        # bfloat16 has 8 significant bits: from 128 px up its numbers are 1 px apart.
        with torch.autocast(image.device.type, enabled=False):
            grid = self.head(code.to(self.head.weight.dtype)).unflatten(
                1, (3, self.grid, self.grid)
            )
            grid = UNIT_PX * (1 + grid)
            position_map = functional.interpolate(
                grid, size=side, mode="bilinear", align_corners=True
            )
        return (position_map,)
