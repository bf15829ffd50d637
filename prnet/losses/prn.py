"""PRN's loss, eq. 1: the distance of two position maps under a weight mask.

Letters: B batch, H W map side. The mask is `prnet.geometry.uv.UVLayout.weight_mask`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import cv2
import torch
from torch import Tensor

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.losses.loss import Loss, lengths
from prnet.sample import FaceSample, Prediction

Reduction = Literal["sum", "mean"]


def weighted_norm(
    prediction: Tensor,  # (B, 3, H, W)
    target: Tensor,  # (B, 3, H, W)
    weight: Tensor,  # (H, W) or (B, H, W), >= 0
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Weighted Euclidean distance of two position maps, (B,): PRN eq. 1, the norm not squared.

    "sum" is eq. 1 as written. "mean" divides it by the sum of the weights: the weighted mean
    distance in the maps' unit (px), whatever the resolution and the scale of the weights; 0 where a
    sample's weights are all 0. Adam's step does not depend on such a factor (its epsilon and weight
    decay apart), so both train alike.

    Differentiable; where the maps agree exactly the subgradient 0 is taken.

    Raises:
        ValueError: shapes that do not fit each other, or another reduction.
    """
    if prediction.shape != target.shape or prediction.ndim != 4:
        raise ValueError(
            f"position maps: got {tuple(prediction.shape)} and {tuple(target.shape)}, "
            "expected two of (B, 3, H, W)"
        )
    batch, _, *side = prediction.shape
    if list(weight.shape) not in (side, [batch, *side]):
        raise ValueError(
            f"weight: got {tuple(weight.shape)}, expected {tuple(side)} or {(batch, *side)}"
        )
    require_choice("reduction", reduction, get_args(Reduction))

    total = (lengths(prediction - target) * weight).sum((-2, -1))
    if reduction == "sum":
        return total
    normaliser = weight.sum((-2, -1))
    return total / torch.where(normaliser > 0, normaliser, 1)


def read_weight_picture(
    path: Path | str,
    face_mask: Tensor,  # (H, W), bool
) -> Tensor:
    """PRNet's uv_weight_mask.png as it is, (H, W) float32, 16 at a landmark, 0 off the face.

    The picture holds 255:64:48 with anti-aliased halos and 48, not 0, on the neck; only the product
    with the face mask is the paper's 16:4:3:0.

    Raises:
        FileNotFoundError: no readable picture there.
        ValueError: another size than the face mask.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise FileNotFoundError(f"{path}: not a readable picture; clone PRNet for its Data/uv-data")
    if picture.shape != face_mask.shape:
        raise ValueError(f"{path}: got {picture.shape}, expected {tuple(face_mask.shape)}")
    return torch.from_numpy(picture).float() / 16 * face_mask.cpu()


class PRNLoss(Loss):
    """PRN's loss: `weighted_norm` under the face's weight mask, averaged over the batch."""

    targets = frozenset({"position_map"})
    needs = frozenset({"position_map"})

    def __init__(
        self,
        *,
        weights: Sequence[float] = (16, 4, 3, 0),
        weight_picture: Path | str | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        """
        - `weights`: of landmarks : eyes, nose and mouth : rest of the face : neck and all else.
        - `weight_picture`: replaces them by PRNet's uv_weight_mask.png (see `read_weight_picture`).
        - `reduction`: see `weighted_norm`.

        Raises:
            ValueError: not four finite weights >= 0 with one > 0, or another reduction.
        """
        super().__init__()
        ratio = tuple(float(weight) for weight in weights)
        if len(ratio) != 4 or not all(0 <= weight < float("inf") for weight in ratio):
            raise ValueError(
                f"loss weights: got {list(ratio)}, expected four finite numbers >= 0 "
                "(landmarks; eyes, nose and mouth; rest of the face; outside)"
            )
        if not any(ratio):
            raise ValueError(f"loss weights: {list(ratio)} leave no texel any weight")
        require_choice("reduction", reduction, get_args(Reduction))
        self.weights = ratio
        self.weight_picture = weight_picture
        self.reduction = reduction

    def set_face(self, face: Face) -> None:
        """Make the weight mask of the face's UV layout.

        Raises:
            FileNotFoundError, ValueError: as `read_weight_picture`, or the picture weighs nothing.
        """
        mask = face.uv.weight_mask(self.weights)
        if self.weight_picture is not None:
            mask = read_weight_picture(self.weight_picture, face.uv.face_mask).to(mask.device)
        if not mask.any():
            raise ValueError(f"{self.weight_picture}: leaves no texel of the face any weight")
        self.weight_mask = mask
        self.weighs_outside = bool(mask[~face.uv.face_mask].any())

    def forward(self, prediction: Prediction, sample: FaceSample) -> dict[str, Tensor]:
        """The loss as {"position_map": scalar}, in px for the reduction "mean"."""
        distance = weighted_norm(
            prediction.position_map,
            sample.position_map,
            self.weight_mask,
            reduction=self.reduction,
        )
        return {"position_map": distance.mean()}
