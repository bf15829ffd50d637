"""MobileNet (Howard et al., arXiv 1704.04861), as 3DDFA_V2 has it.

Letters: B batch, s input side, P parameters.
"""

from torch import Tensor, nn

from prnet.models.regressor import Regressor, start_near_mean_face

STEM = 32
# Output channels and stride of each depthwise-separable block.
PLAN = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2))
PLAN += ((1024, 1),)


def separable(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    """A 3x3 convolution of each channel alone, then 1x1, each with norm and ReLU."""
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
    )
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(
        *(depthwise, nn.BatchNorm2d(in_channels), nn.ReLU()),
        *(pointwise, nn.BatchNorm2d(out_channels), nn.ReLU()),
    )


class MobileNetV1(Regressor):
    """Parameters from a MobileNet: 3.27 M of its own at 62 outputs and width 1, 0.85 M at 0.5."""

    def __init__(self, *, width: float = 1.0, **shared: object) -> None:
        """
        - `width`: of every layer, in that of the paper's largest.
        - `shared`: the options of every `Regressor`.
        """
        super().__init__(**shared)
        channels = int(STEM * width)
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential()
        for outputs, stride in PLAN:
            self.blocks.append(separable(channels, int(outputs * width), stride=stride))
            channels = int(outputs * width)
        self.head = nn.Linear(channels, self.num_parameters)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        start_near_mean_face(self)

    def whitened(self, image: Tensor) -> Tensor:  # (B, 3, s, s)
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))
