"""What every network of the package is to those who train, score and export it.

Letters: B batch, H W image side, P parameters, s the network's own input side.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from prnet.faces.face import Face

# Of the standardisation (x - mean) / sqrt(variance + 0.001) of SADRNet's released code.
IMAGE_EPS = 1e-3


class Network(nn.Module):
    """Image -> `prnet.sample.Prediction`; a subclass says what it takes and what it predicts.

    - `predicts`: the fields of `Prediction` that it fills in training; losses are matched by them.
    - `inputs`: the fields of `FaceSample` that `forward` is given in training, after the image.
    - `num_parameters`: how many parameters it predicts, P; None: none.
    - `reach`: the least and the greatest coordinate that it can predict, crop px.
    - `needs_statistics`: whether `set_statistics` must be called before a training from scratch.
    - `landmark_map`: where the landmarks that it is given come from in eval mode; None: it takes
      none.
    - `engine`: what runs `layers` in eval mode in torch's place (`prnet.export.runtime`).
    """

    predicts: frozenset[str] = frozenset({"position_map"})
    inputs: tuple[str, ...] = ()
    num_parameters: int | None = None
    reach: tuple[float, float] = (-float("inf"), float("inf"))
    needs_statistics = False
    landmark_map: str | None = None
    engine: Callable[[Tensor], tuple[Tensor, ...]] | None = None

    def layers(self, image: Tensor) -> tuple[Tensor, ...]:
        """Most of the work, plain layers without a face: what another runtime can do as well."""
        raise NotImplementedError

    def run(self, image: Tensor) -> tuple[Tensor, ...]:
        """`layers`, by the engine where there is one."""
        return self.layers(image) if self.engine is None or self.training else self.engine(image)

    def set_face(self, face: Face) -> None:
        """The face that the network computes with, on the device of both; most need none."""

    def set_statistics(
        self,
        mean: Tensor,  # (P,)
        std: Tensor,  # (P,)
    ) -> None:
        """Mean and deviation of the parameters over the training set, for those that whiten."""

    def choose_landmark_map(self, source: str) -> None:
        """Where the landmarks come from in eval mode.

        Raises:
            ValueError: the network takes none, or another source is meant.
        """
        raise ValueError(f"landmark_map={source}: this network takes no landmarks; leave it out")


def require_image(image: Tensor, *, multiple_of: int) -> None:
    """Raise ValueError unless an image is (B, 3, H, W), H and W multiples of the stride of all
    layers."""
    if image.ndim != 4 or image.shape[1] != 3 or any(n % multiple_of for n in image.shape[2:]):
        raise ValueError(
            f"image: got shape {tuple(image.shape)}, expected (B, 3, H, W) with H and W "
            f"multiples of {multiple_of}"
        )


def standardized(image: Tensor) -> Tensor:  # (B, 3, H, W)
    """Every channel of every image at zero mean and unit variance."""
    variance, mean = torch.var_mean(image, (2, 3), correction=0, keepdim=True)
    return (image - mean) * (variance + IMAGE_EPS).rsqrt()


def resized(
    image: Tensor,  # (B, 3, H, H)
    side: int,
) -> Tensor:
    """The image at the network's own side, (B, 3, s, s), averaged where it is larger.

    Raises:
        ValueError: another shape.
    """
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
        raise ValueError(f"image: got shape {tuple(image.shape)}, expected (B, 3, H, H)")
    if image.shape[-1] == side:
        return image
    antialias = image.shape[-1] > side
    return functional.interpolate(image, size=side, mode="bilinear", antialias=antialias)
