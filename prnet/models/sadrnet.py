"""SADRNet (sections III-A to III-C; layer table from the released code), and its ablations.

Letters: B batch, C channels, H W image and map side, h w = H / 8, W / 8 attention side.
"""

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.geometry.align import nearest_rotation
from prnet.models import prn
from prnet.models.layers import chain
from prnet.models.network import Network, require_image, standardized
from prnet.models.sadrnet_layers import Layers, Layout
from prnet.models.self_alignment import DAMPING, Alignment, SelfAlignment, apply_pose
from prnet.sample import Pose, Prediction

Geometry = Literal["self_aligned", "regressed_pose", "pose_dependent"]
Initialization = Literal["xavier", "released"]

# PRN's layers: the attention acts inside the encoder, and a head is the end of the decoder.
LOW_LEVEL, HIGH_LEVEL = prn.ENCODER[:6], prn.ENCODER[6:]
DECODER, HEAD = prn.DECODER[:10], prn.DECODER[10:]
ATTENTION_WIDTH = 16
# Standard deviation of every convolution's weights at the start, as released. Through the norms'
# epsilon each layer then passes on less than it got, and what is left of the image after the
# decoder is soon outshone by the map that all images share.
RELEASED_STD = 1e-3
# Gains of the last norms else: P starts as noise of 28 px around the middle of the crop, S within
# 0.7 mm of the mean face. From gains of 1 Adam takes 10,000 steps of 1e-4.
POSE_DEPENDENT_GAIN = 0.1
DEFORMATION_GAIN = 0.01
CROP_MIDDLE = (0.46, 0.46, 0.23)
# The released code's unit of shape maps: 1.5e-5 of it is a micrometre.
SHAPE_UNIT = 1 / 1.5e-5


class PoseRegressor(nn.Module):
    """f, R, t from the encoder's features, for the ablation without self-alignment (Fig. 9b).

    The paper gives no parametrisation. Ours starts at a frontal face in the middle of the crop;
    R is the rotation nearest to a free 3 x 3 matrix (Levinson et al., NeurIPS 2020).
    """

    def __init__(self, channels: int, *, coordinate_scale: float) -> None:
        super().__init__()
        self.coordinate_scale = coordinate_scale
        self.linear = nn.Linear(channels, 13)
        self.register_buffer("middle", torch.tensor([0.5, -0.5, 0.25]), persistent=False)

    def forward(self, features: Tensor) -> Pose:  # (B, C, H, W)
        """Pose from model units to crop px, (B,), (B, 3, 3), (B, 3)."""
        with torch.autocast(features.device.type, enabled=False):
            pooled = features.to(self.linear.weight.dtype).mean((2, 3))
            matrix, log_scale, shift = self.linear(pooled).split([9, 1, 3], 1)
            identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
            return Pose(
                scale=self.coordinate_scale / 4 * log_scale.squeeze(1).exp(),
                rotation=nearest_rotation(matrix.unflatten(1, (3, 3)) + identity, damping=DAMPING),
                translation=self.coordinate_scale * (self.middle + shift),
            )


class MapHead(nn.Sequential):
    """Seven transposed convolutions to a map of three channels, the last without activation and in
    the weights' own precision under autocast too."""

    def __init__(self, layers: Layers, width: int, *, in_channels: int) -> None:
        super().__init__(
            *chain(layers.deconv, HEAD, width, in_channels=in_channels),
            layers.deconv(HEAD[-1][0] * width, 3, stride=1),
            layers.deconv(3, 3, stride=1),
            layers.deconv(3, 3, stride=1, relu=False),
        )

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W)
        *body, last = self
        for layer in body:
            features = layer(features)
        # bfloat16 has 8 significant bits: from 128 px up its numbers are 1 px apart.
        with torch.autocast(features.device.type, enabled=False):
            return last(features.to(last[0].weight.dtype))


class SADRNet(Network):
    """Two faces from one encoder-decoder, aligned: G = f R (mean + D) + t with f, R, t from P.

    The attention A of a side branch weighs the features, F exp(A) (eq. 9), and the landmarks of the
    alignment. 15,487,044 parameters at the published width of 16, in either layout: encoder
    3,589,856, attention 2,068,736, shared decoder 9,703,040, heads 62,706 each.

    Convention: the heads have no activation. P leaves in crop px, `coordinate_scale` times its head
    (280, as released); S = mean + D in the model frame, in units of `shape_unit` model units inside
    the network (66,667 micrometres, as released) and in model units outside.

    The mean face and the landmark cells are the face's, not the network's, and in no checkpoint:
    call `set_face` before the first forward pass.
    """

    def __init__(
        self,
        *,
        layout: Layout = "same",
        width: int = 16,
        attention: bool = True,
        geometry: Geometry = "self_aligned",
        deformation: bool = True,
        alignment: Alignment = "least_squares",
        visibility_floor: float = 0.1,
        standardize: bool = False,
        norm_momentum: float = 0.1,
        coordinate_scale: float = 280.0,
        shape_unit: float = SHAPE_UNIT,
        initialization: Initialization = "xavier",
    ) -> None:
        """
        - `layout`: "same", padded like PRN; "released", as the public weights need it.
        - `width`: channels of the first layer; all others are multiples of it.
        - `attention`: whether there is a side branch that predicts A.
        - `geometry`: what G is. "self_aligned", as in the paper; "regressed_pose", S posed by f, R,
          t from the encoder (no P); "pose_dependent", P itself (no S).
        - `deformation`: whether S is the mean face and D; else it is regressed from scratch.
        - `alignment`, `visibility_floor`: see `SelfAlignment`.
        - `standardize`: whether every channel of every image is brought to zero mean and unit
          variance first, as the released network does.
        - `norm_momentum`: torch's; 0.5 as released.
        - `coordinate_scale`: px, and `shape_unit`, model units, that an output of 1 stands for.
        - `initialization`: the paper gives none; PRN's, or the released code's small normal
          weights.

        Raises:
            ValueError: no such layout, geometry or alignment, or a scale that is not positive.
        """
        super().__init__()
        require_choice("geometry", geometry, get_args(Geometry))
        require_choice("alignment", alignment, get_args(Alignment))
        require_choice("initialization", initialization, get_args(Initialization))
        for name, value in (("coordinate_scale", coordinate_scale), ("shape_unit", shape_unit)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: got {value}, expected a positive number")
        self.geometry = geometry
        self.deformation = deformation
        self.alignment_rule = alignment
        self.visibility_floor = visibility_floor
        self.standardize = standardize
        self.coordinate_scale = coordinate_scale
        self.shape_unit = shape_unit
        self.alignment: SelfAlignment | None = None
        self.register_buffer("mean_shape_map", None, persistent=False)

        layers = Layers(layout, norm_momentum=norm_momentum)
        self.stem = layers.stem(width)
        self.low_level = nn.Sequential(*chain(layers.block, LOW_LEVEL, width, in_channels=width))
        channels = LOW_LEVEL[-1][0] * width
        self.attention: nn.Sequential | None = None
        if attention:
            branch = ATTENTION_WIDTH * width
            self.attention = nn.Sequential(
                layers.conv3(channels, branch),
                *(layers.conv3(branch, branch) for _ in range(3)),
                layers.conv3(branch, 1)[0],
            )
        self.high_level = nn.Sequential(
            *chain(layers.block, HIGH_LEVEL, width, in_channels=channels)
        )
        channels = HIGH_LEVEL[-1][0] * width
        regressor = partial(PoseRegressor, channels, coordinate_scale=coordinate_scale)
        self.pose_regressor = regressor() if geometry == "regressed_pose" else None
        self.decoder = nn.Sequential(*chain(layers.deconv, DECODER, width, in_channels=channels))
        head = partial(MapHead, layers, width, in_channels=DECODER[-1][0] * width)
        self.pose_dependent_head = head() if geometry != "regressed_pose" else None
        self.deformation_head = head() if geometry != "pose_dependent" else None
        self.reset_parameters(initialization)

    @property
    def predicts(self) -> frozenset[str]:
        """The maps of the heads that the options leave, and the pose that joins two."""
        parts = {
            "pose_dependent_map": self.pose_dependent_head,
            "shape_map": self.deformation_head,
            "attention_logits": self.attention,
            "pose": self.deformation_head,
        }
        return frozenset(
            {"position_map", *(name for name, part in parts.items() if part is not None)}
        )

    def reset_parameters(self, initialization: Initialization) -> None:
        """Weights of every convolution, gains of the last norms, and a pose regressor of zeros."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                if initialization == "released":
                    nn.init.normal_(module.weight, std=RELEASED_STD)
                else:
                    nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
        if initialization == "released":
            return
        if self.attention is not None:
            nn.init.normal_(self.attention[-1].weight, std=RELEASED_STD)
        if self.pose_dependent_head is not None:
            last = self.pose_dependent_head[-1][1]
            nn.init.constant_(last.weight, POSE_DEPENDENT_GAIN)
            with torch.no_grad():
                last.bias.copy_(torch.tensor(CROP_MIDDLE))
        if self.deformation_head is not None and self.deformation:
            nn.init.constant_(self.deformation_head[-1][1].weight, DEFORMATION_GAIN)

    def set_face(self, face: Face) -> None:
        device = self.stem[0].weight.device
        mean = face.uv.position_map(face.morphable_model.mean[None])[0]  # (3, H, W), model frame
        self.mean_shape_map = (mean / self.shape_unit).to(device)
        self.alignment = SelfAlignment(
            face.uv, alignment=self.alignment_rule, floor=self.visibility_floor
        ).to(device)

    def forward(
        self,
        image: Tensor,  # (B, 3, H, W), RGB in [0, 1]; H and W those of the face's UV maps
    ) -> Prediction:
        """All that the network predicts, float32 under autocast too.

        Raises:
            ValueError: another shape, or `set_face` has not been called.
        """
        self._require(image)
        made = iter(self.run(image))
        logits = next(made) if self.attention is not None else None
        posed = self.coordinate_scale * next(made) if self.pose_dependent_head is not None else None
        shape = next(made) if self.deformation_head is not None else None
        attention = None if logits is None else torch.sigmoid(logits)
        pose = None
        if shape is not None and self.deformation:
            shape = shape + self.mean_shape_map  # eq. 3
        if self.geometry == "self_aligned":
            position_map, pose = self.alignment(shape, posed, attention)
        elif self.geometry == "regressed_pose":
            pose = self.pose_regressor(next(made))
            position_map = apply_pose(pose, shape)
        else:
            position_map = posed
        return Prediction(
            position_map,
            pose_dependent_map=posed,
            shape_map=None if shape is None else self.shape_unit * shape,
            attention_logits=logits,
            pose=None if pose is None else pose._replace(scale=pose.scale / self.shape_unit),
        )

    def layers(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, W)
        """Of those that the options leave: logits (B, h, w), float32; the heads' outputs
        (B, 3, H, W); for the pose regressor the encoder's features."""
        if self.standardize:
            image = standardized(image)
        features = self.low_level(self.stem(image))  # (B, C, h, w)
        made: list[Tensor] = []
        if self.attention is not None:
            logits = self.attention(features).squeeze(1)  # (B, h, w)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            features = features * torch.sigmoid(logits).exp()[:, None].to(features.dtype)  # eq. 9
            made.append(logits)
        encoded = self.high_level(features)
        decoded = self.decoder(encoded)
        heads = self.pose_dependent_head, self.deformation_head
        made += [head(decoded) for head in heads if head is not None]
        return (*made, encoded) if self.pose_regressor is not None else tuple(made)

    def _require(self, image: Tensor) -> None:
        require_image(image, multiple_of=prn.DOWNSAMPLING)
        if self.deformation_head is None:
            return
        if self.mean_shape_map is None:
            raise ValueError("SADRNet has no face yet: call set_face(face) first")
        if image.shape[2:] != self.mean_shape_map.shape[1:]:
            raise ValueError(
                f"image: got side {tuple(image.shape[2:])}, the face's UV maps have "
                f"{tuple(self.mean_shape_map.shape[1:])}; crop to that"
            )
