"""Networks that regress the parameters of a face model: what they share, and plain backbones.

Letters: B batch, H W image and map side, s input side, S shape and E expression coefficients,
P = 12 + S + E.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.geometry.depth import DepthOrigin
from prnet.geometry.pose_parameters import NUM_POSE, rigid_pose, split_parameters
from prnet.models.network import Network, resized
from prnet.sample import Prediction

ChannelOrder = Literal["rgb", "bgr"]
Architecture = Literal["mobilenet_v2", "resnet50", "resnext50_32x4d", "densenet121"]
# Standard deviation of the last layer's weights at the start.
HEAD_STD = 0.01


def start_near_mean_face(network: nn.Module) -> None:
    """Let the last linear layer give whitened numbers near 0: the mean face in the mean pose."""
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    nn.init.normal_(last.weight, std=HEAD_STD)
    nn.init.zeros_(last.bias)


class Regressor(Network):
    """Image -> whitened parameters -> a face, in closed form.

    A subclass gives `whitened`. In training only the parameters leave the network; in eval mode
    also the pose, for which `set_face` must have been called, and the parameters' t_z is that of a
    mesh that starts at z = 0; `prnet.models.face_decoder` makes points of them. The pose's 3 x 3
    block is free, as published: the points are its affine camera's, and `Prediction.pose` the
    scaled rotation nearest to it.

    Buffers: `parameter_mean`, `parameter_std` (P,), which come with the checkpoint; those of the
    face do not.
    """

    predicts = frozenset({"parameters"})
    needs_statistics = True

    def __init__(
        self,
        *,
        num_shape: int = 40,
        num_exp: int = 10,
        input_side: int = 120,
        channel_order: ChannelOrder = "rgb",
    ) -> None:
        """
        - `num_shape`, `num_exp`: coefficients that it regresses beside the 12 numbers of the pose.
        - `input_side`: px that the crop is resized to; it enters as (255 image - 127.5) / 128.
        - `channel_order`: "bgr" as published, or "rgb".

        Raises:
            ValueError: another channel order.
        """
        super().__init__()
        require_choice("channel_order", channel_order, get_args(ChannelOrder))
        self.num_shape, self.num_exp = num_shape, num_exp
        self.num_parameters = NUM_POSE + num_shape + num_exp
        self.input_side = input_side
        self.channel_order = channel_order
        self.register_buffer("parameter_mean", torch.zeros(self.num_parameters))
        self.register_buffer("parameter_std", torch.ones(self.num_parameters))
        self.depth_origin: DepthOrigin | None = None

    @property
    def input_channels(self) -> int:
        """3, or 4 with a landmark map."""
        return next(self.parameters()).shape[1]

    def set_statistics(
        self,
        mean: Tensor,  # (P,)
        std: Tensor,  # (P,); 0 where a parameter never varies, which is then left unscaled
    ) -> None:
        """The whitening, from the training set."""
        self.parameter_mean.copy_(mean)
        self.parameter_std.copy_(torch.where(std > 0, std, 1))

    def set_face(self, face: Face) -> None:
        """The face whose parameters these are.

        Raises:
            ValueError: it has fewer bases than the network coefficients.
        """
        model = face.morphable_model.truncated(self.num_shape, self.num_exp)
        self.depth_origin = DepthOrigin(model)

    def whitened(self, image: Tensor) -> Tensor:  # (B, 3, s, s), normalised
        """(P,) numbers of mean 0 and variance 1 over the training set, (B, P)."""
        raise NotImplementedError

    def layers(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, s, s), normalised
        return (self.whitened(image),)

    def prepare(self, image: Tensor) -> Tensor:  # (B, 3, H, H), RGB in [0, 1]
        """The network's own input, (B, 3, s, s)."""
        image = resized(image, self.input_side)
        if self.channel_order == "bgr":
            image = image.flip(1)
        return (image * 255 - 127.5) / 128

    def parameters_of(self, whitened: Tensor) -> Tensor:  # (B, P)
        """Whitened numbers in their units, (B, P), float32 under autocast too."""
        with torch.autocast(whitened.device.type, enabled=False):
            whitened = whitened.to(self.parameter_std.dtype)
            return torch.addcmul(self.parameter_mean, self.parameter_std, whitened)

    def forward(self, image: Tensor) -> Prediction:  # (B, 3, H, H), RGB in [0, 1]
        """Parameters; in eval mode the pose too.

        Raises:
            ValueError: another shape, or eval mode without a face.
        """
        return self.complete(self.parameters_of(*self.run(self.prepare(image))))

    def complete(self, parameters: Tensor) -> Prediction:  # (B, P)
        """What the parameters mean: in training nothing but themselves."""
        if self.training:
            return Prediction(parameters=parameters)
        if self.depth_origin is None:
            raise ValueError("the network has no face yet: call set_face before eval mode")
        with torch.autocast(parameters.device.type, enabled=False):
            parameters = self.depth_origin(parameters)
            pose = rigid_pose(split_parameters(parameters, self.num_shape).pose)
            return Prediction(pose=pose, parameters=parameters)


class TorchvisionRegressor(Regressor):
    """A classifier of torchvision with parameters for classes, from scratch: the rivals of
    Mobile-FRNet (its Table 2)."""

    def __init__(self, *, architecture: Architecture, **shared: object) -> None:
        """`shared`: the options of every `Regressor`."""
        super().__init__(**shared)
        require_choice("architecture", architecture, get_args(Architecture))
        # Importing it takes two seconds, and most networks need none of it.
        from torchvision import models

        build = getattr(models, architecture)
        self.backbone: nn.Module = build(num_classes=self.num_parameters)
        for module in self.backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # its draws are no function of the step: a resumed run would differ
        start_near_mean_face(self.backbone)

    def whitened(self, image: Tensor) -> Tensor:  # (B, 3, s, s)
        return self.backbone(image)
