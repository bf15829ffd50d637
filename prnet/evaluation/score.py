"""The errors of a batch under a protocol, from the two sides of the comparison.

Letters: B batch, P dense points, K points of a data set's own, N points of a surface.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prnet.evaluation.protocol import METRICS, Protocol
from prnet.metrics.nme import bbox_size, nme
from prnet.metrics.pose import kept_by_fix, plausible_truth, pose_errors


class FacePoints(NamedTuple):
    """One side of a comparison, px of the image; None where there is no such thing."""

    landmarks: Tensor | None = None  # (B, 68, 2 or 3), order of iBUG
    dense: Tensor | None = None  # (B, P, 3)
    points: Tensor | None = None  # (B, K, 2 or 3), the data set's own
    visible: Tensor | None = None  # (B, K), bool, of the truth; None: all are scored
    box: Tensor | None = None  # (B, 4), left, top, right, bottom, of the truth: unit of `points`
    surface: Sequence[Tensor] | None = None  # B of (N, 3), float64, to be reconstructed
    surface_unit: Sequence[float] | None = None  # B, px, of the truth; None: by the protocol
    rotation: Tensor | None = None  # (B, 3, 3), of the prediction, model frame -> y-up image
    angles: Tensor | None = None  # (B, 3), of the truth, rad

    def rows(self, chosen: slice) -> "FacePoints":
        """Those of some images of the batch."""
        return FacePoints(*(None if field is None else field[chosen] for field in self))


def score(prediction: FacePoints, truth: FacePoints, protocol: Protocol) -> dict[str, Tensor]:
    """The protocol's metrics for which both sides have what they compare, {name: (B,)}, float64.

    Percent, or degrees for the head pose. Points are in the same pixel origin already, or
    deliberately not (`convert_origin`). `nme_rec` takes seconds a face, so it is not among them:
    see `prnet.evaluation.reconstructions`.
    """
    turns = _pose_errors(prediction, truth, protocol)
    errors = {}
    for metric in protocol.metrics:
        kind = METRICS[metric]
        if metric in turns:
            errors[metric] = turns[metric]
        if kind.points not in ("landmarks", "dense", "points"):
            continue
        predicted, true = getattr(prediction, kind.points), getattr(truth, kind.points)
        if predicted is None or true is None or predicted.shape[-1] < kind.dimensions:
            continue
        if kind.points == "points":
            size = bbox_size(truth.box.unflatten(-1, (2, 2)))  # of its two corners
        else:
            unit = truth.landmarks if protocol.normalizer == "box_68" else true
            size = bbox_size(unit)
        errors[metric] = nme(
            predicted[..., : kind.dimensions],
            true[..., : kind.dimensions],
            size,
            truth.visible if kind.points == "points" else None,
            z_alignment=protocol.z_alignment if kind.dimensions == 3 else "none",
        )
    return errors


def _pose_errors(
    prediction: FacePoints, truth: FacePoints, protocol: Protocol
) -> dict[str, Tensor]:
    """Nothing where the protocol or one of the sides has no head pose."""
    if not protocol.scores("rotation") or prediction.rotation is None or truth.angles is None:
        return {}
    return pose_errors(prediction.rotation, truth.angles)


def pose_left_out(prediction: FacePoints, truth: FacePoints, protocol: Protocol) -> Tensor | None:
    """Images that the protocol leaves out of the head pose, (B,) bool; None where it has none."""
    turns = _pose_errors(prediction, truth, protocol)
    if not turns:
        return None
    left_out = torch.zeros(len(truth.angles), dtype=torch.bool, device=truth.angles.device)
    if protocol.pose.images == "plausible":
        left_out |= ~plausible_truth(truth.angles)
    if protocol.pose.fix:
        left_out |= ~kept_by_fix(turns)
    return left_out


def group_landmarks(
    landmarks: Tensor,  # (B, 68, 2 or 3)
    groups: Sequence[Sequence[int]],  # of each of the K points: which of the 68 it is the mean of
) -> Tensor:
    """The points of a data set with landmarks of its own, (B, K, 2 or 3)."""
    return torch.stack([landmarks[:, list(group)].mean(1) for group in groups], 1)
