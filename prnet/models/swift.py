"""The network that comes with the package: inverted residuals, and a head onto a rigid pose.

Ours, of no paper. Letters: B batch, C channels, H W image side, s input side, P parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from prnet.geometry.pose_parameters import MEAN_SCALE, NUM_POSE
from prnet.models.regressor import Regressor, start_near_mean_face

# Output channels, blocks, expansion inside them, and stride of the first.
STAGES = ((24, 1, 2, 2), (32, 2, 4, 2), (64, 3, 4, 2), (96, 2, 4, 1), (160, 2, 4, 2))
STRIDE = 32
STEM = 16
SQUEEZED = 32
# Of the 9 raw numbers of a pose: two rows of a rotation, logarithm of the scale, translation.
NUM_RAW_POSE = 9
# The head's output of 1 changes the logarithm of the scale, and moves the face, by so much.
UNIT_LOG_SCALE, UNIT_PX = 0.3, 60.0
CENTER_PX = 127.5


class InvertedResidual(nn.Module):
    """Expansion, depthwise 3x3, projection, and a shortcut where the shape stays (Sandler et al.,
    CVPR 2018)."""

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        return features + self.layers(features) if self.shortcut else self.layers(features)


class Swift(Regressor):
    """Inverted residuals, one fully connected layer that still sees where things are, and a head
    onto pose, identity and expression together.

    The pose is a rotation, a scale and a translation: no camera that shears can be predicted. Its
    rotation is Gram and Schmidt's of two rows (Zhou et al., CVPR 2019).
    """

    def __init__(
        self, *, width: float = 1.0, code: int = 256, input_side: int = 128, **shared: object
    ) -> None:
        """
        - `width`: factor of all channels, which become multiples of 8.
        - `code`: numbers that a face is coded in before the head.
        - `input_side`: px that the crop is averaged down to.
        - `shared`: the other options of every `Regressor`.

        Raises:
            ValueError: the side is no multiple of 32.
        """
        super().__init__(input_side=input_side, **shared)
        if self.input_side % STRIDE:
            raise ValueError(f"input_side: got {self.input_side}, expected a multiple of {STRIDE}")

        def widened(channels: int) -> int:
            return max(8, round(width * channels / 8) * 8)

        channels = widened(STEM)
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        for out_channels, blocks, expansion, stride in STAGES:
            for block in range(blocks):
                layers.append(
                    InvertedResidual(
                        channels,
                        widened(out_channels),
                        expansion=expansion,
                        stride=stride if block == 0 else 1,
                    )
                )
                channels = widened(out_channels)
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels, SQUEEZED, 1))
        self.code = nn.Linear(SQUEEZED * (self.input_side // STRIDE) ** 2, code)
        self.head = nn.Linear(code, NUM_RAW_POSE + self.num_parameters - NUM_POSE)
        start_near_mean_face(self)
        with torch.no_grad():  # the first and the second row of no rotation
            self.head.bias[0] = self.head.bias[4] = 1

    def whitened(self, image: Tensor) -> Tensor:  # (B, 3, s, s)
        """The raw numbers: 9 of the pose, then whitened coefficients, (B, 9 + S + E)."""
        return self.head(functional.relu(self.code(self.encoder(image).flatten(1))))

    def parameters_of(self, whitened: Tensor) -> Tensor:  # (B, 9 + S + E)
        """(B, P), float32 under autocast too."""
        with torch.autocast(whitened.device.type, enabled=False):
            raw, coefficients = whitened.to(self.parameter_std.dtype).split(
                [NUM_RAW_POSE, whitened.shape[1] - NUM_RAW_POSE], 1
            )
            scale = MEAN_SCALE * torch.exp(UNIT_LOG_SCALE * raw[:, 6])
            pose = torch.cat(
                [
                    scale[:, None, None] * gram_schmidt(raw[:, :3], raw[:, 3:6]),
                    functional.pad(UNIT_PX * raw[:, 7:], (0, 1))[..., None],
                ],
                -1,
            )
            # From the middle of the crop, y up as all poses are.
            center = pose.new_tensor([CENTER_PX, -CENTER_PX, 0.0])
            pose = torch.cat([pose[..., :3], pose[..., 3:] + center[:, None]], -1)
            coefficients = torch.addcmul(
                self.parameter_mean[NUM_POSE:], self.parameter_std[NUM_POSE:], coefficients
            )
            return torch.cat([pose.flatten(1), coefficients], 1)


def gram_schmidt(first: Tensor, second: Tensor) -> Tensor:  # (B, 3), (B, 3)
    """The rotation whose first row points along `first` and whose second lies in the plane of
    both, (B, 3, 3)."""
    first = functional.normalize(first, dim=1)
    second = second - (first * second).sum(1, keepdim=True) * first
    second = functional.normalize(second, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], 1)
