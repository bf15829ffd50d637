"""The network of the weights that come with the package: inverted residuals, points, and the face
nearest to them.

Ours, of no paper. Letters: B batch, C channels, H W image side, s input side, K points, P = 12 +
S + E parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from prnet.faces.embedded import MICROMETRES
from prnet.faces.face import Face
from prnet.faces.spread_points import NUM_LANDMARKS, PointFit, spread_points
from prnet.geometry.pose_parameters import NUM_POSE
from prnet.models.regressor import Regressor
from prnet.sample import Prediction

# Output channels, blocks, expansion inside them, and stride of the first.
STAGES = ((24, 1, 2, 2), (32, 2, 4, 2), (64, 3, 4, 2), (96, 2, 4, 1), (160, 2, 4, 2))
STRIDE = 32
STEM = 16
SQUEEZED = 32
# The head's output of 1 is this many crop px, from the middle of the crop in x and y.
UNIT_PX = 80.0
CENTER_PX = 127.5
LEAST_SIDE = 1e-3  # of a box, in units of the head: a network that was not trained has none


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
    """Inverted residuals, one fully connected layer that still sees where things are, and a linear
    head onto points of the face; pose and coefficients are those of the face nearest to them.

    Points learn a pose in fewer samples than a head onto the pose itself, and the fit to them is
    rigid: no camera that shears can be predicted. Buffer: `point_index` (K,), their vertices.
    """

    predicts = frozenset({"points"})

    def __init__(
        self,
        *,
        width: float = 1.0,
        code: int = 256,
        pairs: int = 150,
        noise_mm: float = 4.0,
        mirror_average: bool = True,
        num_shape: int = 80,
        num_exp: int = 51,
        input_side: int = 148,
        trim: int = 10,
        **shared: object,
    ) -> None:
        """
        - `width`: factor of all channels, which become multiples of 8.
        - `code`: numbers that a face is coded in before the head.
        - `pairs`: of vertices that it predicts beside the 68 landmarks.
        - `noise_mm`: error of the points that the fit to them expects; larger keeps faces nearer to
          the mean.
        - `mirror_average`: in eval mode the points are the mean of those that it sees in the image
          and in its mirror image.
        - `num_shape`, `num_exp`: coefficients that the fit finds; the embedded face's.
        - `input_side`: px that the crop is averaged down to.
        - `trim`: px at every edge of that which the layers do not see: the same layers see the face
          larger.
        - `shared`: the other options of every `Regressor`.

        Raises:
            ValueError: the side that is left is no multiple of 32, or the noise is not above 0.
        """
        super().__init__(num_shape=num_shape, num_exp=num_exp, input_side=input_side, **shared)
        seen_side = input_side - 2 * trim
        if trim < 0 or seen_side <= 0 or seen_side % STRIDE:
            raise ValueError(
                f"input_side, trim: got {input_side} and {trim}, expected input_side - 2 trim to "
                f"be a multiple of {STRIDE}"
            )
        if not noise_mm > 0:
            raise ValueError(f"noise_mm: got {noise_mm}, expected a number above 0")
        self.trim, self.seen_side = trim, seen_side
        self.pairs = pairs
        self.noise_mm = noise_mm
        self.mirror_average = mirror_average

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
        self.code = nn.Linear(SQUEEZED * (seen_side // STRIDE) ** 2, code)
        num_points = NUM_LANDMARKS + 2 * pairs
        self.head = nn.Linear(code, 3 * num_points)
        # All points start in the middle, where no noise has to be unlearnt.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("point_index", torch.zeros(num_points, dtype=torch.long))
        # Of every point the one on the other side.
        right, left = torch.arange(NUM_LANDMARKS, num_points).chunk(2)
        mirrored = torch.cat([torch.arange(NUM_LANDMARKS), left, right])
        self.register_buffer("mirrored", mirrored, persistent=False)
        self.fit: PointFit | None = None  # of eval mode

    def set_face(self, face: Face) -> None:
        """The face whose points these are; a network that was not trained yet chooses them.

        Raises:
            ValueError: it has fewer bases than the network coefficients.
        """
        super().set_face(face)
        if not self.point_index.any():
            self.point_index.copy_(spread_points(face, self.pairs))
        self.point_model = face.morphable_model.truncated(self.num_shape, self.num_exp).at_vertices(
            self.point_index
        )
        landmarks = self.point_model.mean[:NUM_LANDMARKS]
        in_mirror = landmarks * landmarks.new_tensor([-1, 1, 1])
        self.mirrored[:NUM_LANDMARKS] = torch.cdist(in_mirror, landmarks).argmin(1)
        self._renew_fit()

    def set_statistics(
        self,
        mean: Tensor,  # (P,)
        std: Tensor,  # (P,)
    ) -> None:
        super().set_statistics(mean, std)
        self._renew_fit()

    def train(self, mode: bool = True) -> "Swift":
        """As torch's; the fit is made anew, of the whitening there is by then."""
        super().train(mode)
        self._renew_fit()
        return self

    def _renew_fit(self) -> None:
        self.fit = None
        if self.depth_origin is not None and not self.training:
            spread = self.parameter_mean[NUM_POSE:], self.parameter_std[NUM_POSE:]
            noise = self.noise_mm * MICROMETRES
            self.fit = PointFit(self.point_model, *spread, noise=noise).to(self.head.weight.device)

    def layers(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, s, s), normalised
        """The points as they leave the head, in place of whitened parameters, (B, 3 K); with
        `mirror_average` in eval mode also how far apart the landmarks of both images are, (B,),
        % of the root of the area of their box."""
        if self.training or not self.mirror_average:
            return (self._seen(image),)
        both = torch.stack([image, image.flip(3)], 1).flatten(0, 1)
        points = self._seen(both).unflatten(1, (-1, 3)).unflatten(0, (-1, 2))  # (B, 2, K, 3)
        seen, in_mirror = points[:, 0], points[:, 1]
        turned_back = in_mirror[:, self.mirrored] * in_mirror.new_tensor([-1, 1, 1])
        mean = (seen + turned_back) / 2
        landmarks = mean[:, :NUM_LANDMARKS, :2]
        side = (landmarks.amax(1) - landmarks.amin(1)).prod(1).sqrt()
        offset = (seen - turned_back)[:, :NUM_LANDMARKS, :2]
        apart = offset.square().sum(2).sqrt().mean(1)
        return mean.flatten(1), 100 * apart / side.clamp(min=LEAST_SIDE)

    def whitened(self, image: Tensor) -> Tensor:  # (B, 3, s, s), normalised
        """The first of `layers`."""
        return self.layers(image)[0]

    def _seen(self, image: Tensor) -> Tensor:
        image = image.narrow(2, self.trim, self.seen_side).narrow(3, self.trim, self.seen_side)
        return self.head(functional.relu(self.code(self.encoder(image).flatten(1))))

    def points_of(self, whitened: Tensor) -> Tensor:  # (B, 3 K)
        """(B, K, 3), crop px, float32 under autocast too; depth from an origin of its own."""
        with torch.autocast(whitened.device.type, enabled=False):
            offset = whitened.to(self.parameter_std.dtype).unflatten(1, (-1, 3))
            x, y, z = (UNIT_PX * offset).unbind(2)
            return torch.stack([CENTER_PX + x, CENTER_PX + y, z], 2)

    def parameters_of(self, whitened: Tensor) -> Tensor:  # (B, 3 K)
        """Those of the face nearest to the points, (B, P).

        Raises:
            ValueError: no face yet, or not in eval mode.
        """
        if self.fit is None:
            raise ValueError("the network has no face yet: call set_face before eval mode")
        points = self.points_of(whitened)
        with torch.autocast(points.device.type, enabled=False):
            return self.fit(points)

    def forward(self, image: Tensor) -> Prediction:  # (B, 3, H, H), RGB in [0, 1]
        """Points; in eval mode the face nearest to them.

        Raises:
            ValueError: another shape, or eval mode without a face.
        """
        whitened, *apart = self.run(self.prepare(image))
        if self.training:
            return Prediction(points=self.points_of(whitened))
        prediction = self.complete(self.parameters_of(whitened))
        return prediction._replace(uncertainty=apart[0] if apart else None)
