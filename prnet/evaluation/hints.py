"""What may be wrong with saved predictions that are nowhere near the truth: y flipped, x and y
exchanged, px of another picture, points in another order."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prnet.evaluation.protocol import METRICS
from prnet.evaluation.score import FacePoints
from prnet.metrics.nme import bbox_size, nme
from prnet.metrics.parts import moved_flat

# A mean error, percent, from which on something must be wrong with the files rather than with the
# method; what is left of it where a cause is found; images of a metric that are looked at.
FAR_OFF = 40.0
EXPLAINED = 15.0
MOST_IMAGES = 200
# Points of a face in any order: their centre is off by at most this share of the box, their spread
# by at most this factor, and they have no more to do with the truth than this correlation.
CENTRE, SPREAD, CORRELATION = 0.2, 2.5, 0.35

FLIPPED_Y = "y seems to be flipped (it should count from the top of the picture)"
FLIPPED_X = "x seems to be flipped (it should count from the left of the picture)"
EXCHANGED = "x and y seem to be exchanged"
ELSEWHERE = (
    "the shape is right and its place or size is not (px of a crop, of a resized picture, or in "
    "0..1, where px of the original picture are expected)"
)
OTHER_ORDER = "the points lie about the face in another order (shuffled, or of another mesh)"
UNKNOWN = "none of the usual causes fits: are they predictions of these pictures?"


def cause_of(predicted: Tensor, truth: Tensor) -> str:  # (N, 2) both, px of the image
    """The likeliest cause of an error that is far off."""
    size = bbox_size(truth[None])

    def left(points: Tensor) -> float:
        """The error with the translation given."""
        points = points - points.mean(0) + truth.mean(0)
        return nme(points[None], truth[None], size).item()

    undone = {
        FLIPPED_Y: left(predicted * predicted.new_tensor([1, -1])),
        FLIPPED_X: left(predicted * predicted.new_tensor([-1, 1])),
        EXCHANGED: left(predicted.flip(-1)),
        ELSEWHERE: nme(moved_flat(predicted[None], truth[None]), truth[None], size).item(),
    }
    likeliest = min(undone, key=undone.get)
    if undone[likeliest] < EXPLAINED:
        return likeliest
    centred = [points - points.mean(0) for points in (predicted, truth)]
    spreads = [points.norm().item() for points in centred]
    offset = (predicted.mean(0) - truth.mean(0)).norm() / size.squeeze()
    first, second = map(torch.view_as_complex, (points.contiguous() for points in centred))
    correlation = (first.conj() @ second).abs().item() / max(spreads[0] * spreads[1], 1e-300)
    alike = 1 / SPREAD < spreads[0] / max(spreads[1], 1e-300) < SPREAD
    if offset < CENTRE and alike and correlation < CORRELATION:
        return OTHER_ORDER
    return UNKNOWN


class Hints:
    """Looks at the images of saved predictions whose error is far off."""

    def __init__(self) -> None:
        self.errors: dict[str, list[float]] = {}  # metric -> one an image
        self.causes: dict[str, dict[str, int]] = {}  # metric -> cause -> images

    def add(self, predicted: FacePoints, truth: FacePoints, errors: Mapping[str, Tensor]) -> None:
        for metric, values in errors.items():
            kind = METRICS[metric]
            if kind.dimensions != 2:
                continue
            self.errors.setdefault(metric, []).extend(values.tolist())
            causes = self.causes.setdefault(metric, {})
            for index in (values > FAR_OFF).nonzero().flatten().tolist():
                if sum(causes.values()) == MOST_IMAGES:
                    break
                sides = (getattr(side, kind.points)[index, :, :2] for side in (predicted, truth))
                first, second = (points.double() for points in sides)
                if kind.points == "points" and truth.visible is not None:
                    seen = truth.visible[index]
                    first, second = first[seen], second[seen]
                cause = cause_of(first, second)
                causes[cause] = causes.get(cause, 0) + 1

    def found(self) -> list[str]:
        """A sentence a metric whose mean is far off."""
        sentences = []
        for metric, values in self.errors.items():
            if (mean := sum(values) / len(values)) > FAR_OFF:
                causes = sorted(self.causes[metric].items(), key=lambda item: -item[1])
                listed = "; ".join(f"in {count} {cause}" for cause, count in causes)
                looked = sum(count for _, count in causes)
                sentences.append(
                    f"{METRICS[metric].title}: a mean of {mean:.0f} % is no method's error; of "
                    f"{looked} images beyond {FAR_OFF:g} %, {listed}"
                )
        return sentences
