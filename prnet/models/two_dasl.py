"""2DASL's regressor: ResNet-50 on the image and a map of landmarks.

Source: Tu et al., arXiv 1903.09359, section 3.2, and the released test code.

Letters: B batch, H W image side, s input side, P parameters.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.geometry.landmark_map import (
    BACKGROUND,
    Rounding,
    landmark_map,
    points_18,
    resize_points,
    visible_18,
)
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.pose_parameters import crop_points
from prnet.models.regressor import Regressor, start_near_mean_face
from prnet.sample import Prediction

LandmarkMap = Literal["own", "given", "empty"]
Backbone = Literal["resnet50", "mobilenet_v2"]
# The side of the crops that landmarks and parameters are in the px of.
CROP_SIZE = 256
POOL_SIDE = 7


def resnet50(in_channels: int, num_outputs: int) -> nn.Module:
    """torchvision's ResNet-50 with 2DASL's edits: other input channels, no stride in the last
    stage, and 7 x 7 average pooling of stride 2, which leaves one value of a 120 px input (of the
    8 x 8 features the last row and column are not seen). Larger inputs are averaged on."""
    from torchvision import models  # as in `prnet.models.regressor`

    network = models.resnet50(num_classes=num_outputs)
    network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    first = network.layer4[0]
    first.conv2.stride = first.downsample[0].stride = (1, 1)
    network.avgpool = nn.Sequential(nn.AvgPool2d(POOL_SIDE, 2), nn.AdaptiveAvgPool2d(1))
    return network


def mobilenet_v2(in_channels: int, num_outputs: int) -> nn.Module:
    """torchvision's MobileNetV2 with other input channels and without dropout, whose draws a
    resumed run would not repeat: some 15 times less work, for CPUs."""
    from torchvision import models

    network = models.mobilenet_v2(num_classes=num_outputs, dropout=0.0)
    stem = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    network.features[0][0] = stem
    return network


BACKBONES = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2}


class TwoDASL(Regressor):
    """Image and landmark map -> parameters.

    In training the map is made of the landmarks given, but for `empty_map_share` of a batch, which
    sees an empty one, as the network does in use; the paper's detector is always at hand, hence
    0 there. With `cycle` a second pass of the same weights sees the image with the landmarks that
    the first one predicts (`Prediction.cycle_parameters`). A map has no gradient, so what the
    second pass is told improves the second pass alone.

    In eval mode `landmark_map` says where the map comes from: "own", the network itself, a pass
    with an empty map and one with what that pass predicts; "given", the landmarks of `forward`;
    "empty", none, also in training: the network sees the image alone.
    """

    inputs = ("landmarks", "landmarks_visible")

    def __init__(
        self,
        *,
        landmark_map: LandmarkMap = "own",
        map_rounding: Rounding = "nearest",
        cycle: bool = True,
        empty_map_share: float = 0.5,
        backbone: Backbone = "resnet50",
        **shared: object,
    ) -> None:
        """
        - `landmark_map`: where the map comes from in eval mode.
        - `map_rounding`: which pixel of the map a point is; "floor" as released.
        - `cycle`: whether a second pass is made in training.
        - `empty_map_share`: of a training batch, sees no landmarks.
        - `backbone`: ResNet-50, the paper's, has 23,638,206 parameters at 62 outputs.
        - `shared`: the options of every `Regressor`.

        Raises:
            ValueError: an option is none of its choices, the share is outside [0, 1], a cycle
                without maps, or an input too small for the pooling.
        """
        super().__init__(**shared)
        if not 0 <= empty_map_share <= 1:
            raise ValueError(f"empty_map_share: got {empty_map_share}, expected 0 to 1")
        if cycle and landmark_map == "empty":
            raise ValueError("cycle: needs a landmark map; landmark_map=empty has none")
        require_choice("backbone", backbone, BACKBONES)
        if backbone == "resnet50" and self.input_side <= 16 * (POOL_SIDE - 1):
            raise ValueError(
                f"input_side: got {self.input_side}, expected at least 97 for resnet50"
            )
        self.choose_landmark_map(landmark_map)
        require_choice("map_rounding", map_rounding, get_args(Rounding))
        self.map_rounding = map_rounding
        self.cycle = cycle
        self.empty_map_share = empty_map_share
        self.backbone = BACKBONES[backbone](4, self.num_parameters)
        start_near_mean_face(self.backbone)
        self.at_landmarks: MorphableModel | None = None

    def set_face(self, face: Face) -> None:
        """The face whose parameters these are.

        Raises:
            ValueError: it has fewer bases than the network coefficients.
        """
        super().set_face(face)
        model = face.morphable_model.truncated(self.num_shape, self.num_exp)
        self.at_landmarks = model.at_vertices(face.landmark_index)

    @property
    def predicts(self) -> frozenset[str]:
        """The parameters, and with a cycle those of its second pass."""
        return frozenset({"parameters"} | ({"cycle_parameters"} if self.cycle else set()))

    def choose_landmark_map(self, source: LandmarkMap) -> None:
        """Where the map comes from in eval mode.

        Raises:
            ValueError: another source.
        """
        require_choice("landmark_map", source, get_args(LandmarkMap))
        self.landmark_map = source

    def whitened(self, image: Tensor) -> Tensor:  # (B, 4, s, s), normalised RGB and map
        return self.backbone(image)

    def forward(
        self,
        image: Tensor,  # (B, 3, H, H), RGB in [0, 1]
        landmarks: Tensor | None = None,  # (B, 68, 2), crop px; None: an empty map
        visible: Tensor | None = None,  # (B, 68), bool; None: all
    ) -> Prediction:
        """Parameters; in training those of the cycle too, in eval mode the face.

        Raises:
            ValueError: another shape, no landmarks where they should be given, or no face yet.
        """
        picture = self.prepare(image)  # (B, 3, s, s)
        chosen = empty = picture.new_full((picture.shape[0], 1, *picture.shape[2:]), BACKGROUND)
        source = "given" if self.training and self.landmark_map == "own" else self.landmark_map
        if source == "given":
            if landmarks is not None:
                chosen = self.map_of(landmarks, visible)
            elif not self.training:
                raise ValueError("landmark_map=given: no landmarks; give them, or choose own")
            if self.training:
                # Batches come in random order, so any part of one is a random part.
                count = round(self.empty_map_share * len(chosen))
                chosen = torch.cat([empty[:count], chosen[count:]])
        parameters = self.see(picture, chosen)
        if self.training:
            second = self.see(picture, self.map_predicted(parameters)) if self.cycle else None
            return self.complete(parameters)._replace(cycle_parameters=second)
        if source == "own":
            parameters = self.see(picture, self.map_predicted(parameters))
        return self.complete(parameters)

    def see(self, picture: Tensor, map_: Tensor) -> Tensor:  # (B, 3, s, s), (B, 1, s, s)
        """One pass: parameters (B, P)."""
        seen = torch.cat([picture, map_.to(picture.dtype)], 1)
        return self.parameters_of(*self.run(seen))

    def map_predicted(self, parameters: Tensor) -> Tensor:  # (B, P)
        """The map of the landmarks that parameters stand for, (B, 1, s, s), without a gradient.

        Raises:
            ValueError: there is no face yet.
        """
        if self.at_landmarks is None:
            raise ValueError("the network has no face yet: call set_face")
        with torch.autocast(parameters.device.type, enabled=False):
            return self.map_of(crop_points(self.at_landmarks, parameters.detach()))

    def map_of(
        self,
        landmarks: Tensor,  # (B, 68, 2 or 3), crop px
        visible: Tensor | None = None,  # (B, 68), bool
    ) -> Tensor:
        """Their map, (B, 1, s, s)."""
        if visible is None:
            visible = torch.ones_like(landmarks[..., 0], dtype=torch.bool)
        points = resize_points(landmarks[..., :2], source=CROP_SIZE, target=self.input_side)
        seen = points_18(points), visible_18(visible)
        return landmark_map(*seen, size=self.input_side, rounding=self.map_rounding)
