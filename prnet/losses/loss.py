"""What every loss of the package is to the trainer."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prnet.faces.face import Face
from prnet.geometry.position_map import PositionMapDecoder
from prnet.sample import FaceSample, Prediction


class Loss(nn.Module):
    """`forward(prediction, sample)` -> {term: weighted scalar}; the step minimises their sum.

    - `targets`: the fields of `FaceSample` that it compares with.
    - `needs`: the fields of `Prediction` that it compares; networks are matched by them.
    - `num_parameters`: how many parameters it compares, P; None: none.
    - `weighs_outside`: whether texels off the face have a weight, known with the face.

    `set_face` and `set_statistics` come before the first step. Buffer, not stored: `weight_mask`
    (H, W) of a loss on position maps, else None.
    """

    targets: frozenset[str]
    needs: frozenset[str]
    num_parameters: int | None = None
    weighs_outside = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight_mask", None, persistent=False)

    def set_face(self, face: Face) -> None:
        """The face whose maps or parameters are compared, on the device of both."""

    def set_statistics(
        self,
        mean: Tensor,  # (P,)
        std: Tensor,  # (P,)
    ) -> None:
        """The whitening of the network, for losses on parameters."""

    def start_step(self, epoch: float) -> None:
        """Called before a step with the epochs done, fractions too."""

    def after_step(self, prediction: Prediction, sample: FaceSample) -> dict[str, Tensor]:
        """Called after a step, for what the loss learns itself; scalars to be logged."""
        return {}

    def training_state(self) -> dict:
        """What a resumed run needs of the loss: plain values and tensors."""
        return {}

    def load_training_state(self, state: dict) -> None:
        """Go on from `training_state`.

        Raises:
            ValueError: the state of another loss.
        """
        if state:
            raise ValueError(
                f"resume: that run's loss had a state of its own ({', '.join(state)}), this one "
                "has none; resume with the same loss"
            )


def target_decoder(loss_fn: Loss, face: Face) -> PositionMapDecoder:
    """What makes the maps that a loss, which has its face, compares with; on the face's device.
    Texels off the face are made where they have a weight."""
    return PositionMapDecoder(
        face.morphable_model,
        face.uv,
        texels="all" if loss_fn.weighs_outside else "face",
        landmark_index=face.landmark_index,
    ).to(face.landmark_index.device)


def mean_over(
    values: Tensor,  # (B,)
    chosen: Tensor | None,  # (B,), bool; None: all
) -> Tensor:
    """Mean of the values chosen, 0 where none is, without asking the device how many there are."""
    if chosen is None:
        return values.mean()
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def root(squared: Tensor) -> Tensor:  # any shape, >= 0
    """Square root, elementwise, with the subgradient 0 at 0."""
    positive = squared > 0
    return torch.where(positive, squared, 1).sqrt() * positive


def lengths(vectors: Tensor) -> Tensor:  # (B, 3, H, W)
    """Euclidean, (B, H, W), with the subgradient 0 at 0."""
    # Written out, several times faster than torch's norm over the channels on a CPU.
    x, y, z = vectors.unbind(1)
    return root(x * x + y * y + z * z)


def require_coefficients(coefficients: Mapping[str, float]) -> None:
    """Raise ValueError unless the coefficients of a loss's terms are finite and none is below 0."""
    for name, value in coefficients.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"loss {name}: got {value}, expected a finite number >= 0")


def require_a_term(coefficients: Mapping[str, float]) -> None:
    """As `require_coefficients`; and one of them is above 0, or nothing would be learnt."""
    require_coefficients(coefficients)
    if not any(coefficients.values()):
        raise ValueError("loss: all coefficients are 0, nothing would be learnt")
