"""Pose or shape: the parts of the 68 landmarks' error, over all images of an evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from prnet.checks import name_list
from prnet.evaluation.means import summarize
from prnet.evaluation.points import NO_DEPTH
from prnet.evaluation.protocol import Protocol
from prnet.metrics.parts import HOLDINGS, NEAR_FRONTAL_DEG, PARTS, error_parts, mean_head

NO_LANDMARKS = "one side has no 68 landmarks"
NO_FRONTAL = (
    f"no image has a yaw within {NEAR_FRONTAL_DEG:g} degrees, which the mean face is made of"
)
# Of `spread`; a face in profile has some 0.3 times its own size over its coordinates.
LEAST_SPREAD = 1e-6
# Images of the largest error that are named.
NUM_WORST = 20


class LandmarkPairs:
    """The true and the predicted landmarks of the images scored so far."""

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}  # name -> predicted, truth
        self.lacking: dict[str, list[str]] = {}  # why -> names

    def add(
        self,
        names: Sequence[str],
        predicted: Tensor | None,  # (B, 68, 2 or 3), in the pixel origin that it is scored in
        truth: Tensor | None,  # (B, 68, 2 or 3)
    ) -> None:
        if predicted is None or truth is None:
            self.lacking.setdefault(NO_LANDMARKS, []).extend(names)
        elif predicted.shape[-1] < 3 or truth.shape[-1] < 3:
            self.lacking.setdefault(NO_DEPTH, []).extend(names)
        else:
            columns = (predicted.double().cpu(), truth.double().cpu())
            self.pairs |= zip(names, zip(*columns, strict=True), strict=True)

    def parts(self, yaws_deg: Mapping[str, float]) -> tuple[dict[str, dict[str, float]], str]:
        """Image -> the numbers of `error_parts`, or nothing and why."""
        for why, names in self.lacking.items():
            return {}, why if not self.pairs else f"{why} ({name_list(names)})"
        names = list(self.pairs)
        predicted, truth = map(torch.stack, zip(*self.pairs.values(), strict=True))
        frontal = torch.tensor([abs(yaws_deg[name]) < NEAR_FRONTAL_DEG for name in names])
        if not frontal.any():
            return {}, NO_FRONTAL
        flat = [n for n, pair in self.pairs.items() if min(map(spread, pair)) < LEAST_SPREAD]
        if flat:
            return {}, f"the 68 landmarks lie on a line or in a point ({name_list(flat)})"
        parts = error_parts(predicted, truth, mean_head(truth[frontal]))
        rows = torch.stack(list(parts.values()), 1).tolist()
        named = [dict(zip(parts, row, strict=True)) for row in rows]
        return dict(zip(names, named, strict=True)), ""


def spread(points: Tensor) -> float:  # (68, 3)
    """How far the points are from lying on a line: their second singular value over their size."""
    return float(torch.linalg.svdvals(points - points.mean(0))[1] / points.abs().max().clamp(min=1))


def summarize_parts(
    rows: Sequence[Mapping],  # of a report's images: name, yaw_deg, parts
    protocol: Protocol,
) -> dict:
    """Means of every part by yaw bin, the error by how the head is held, and the worst images."""
    yaws_deg = [row["yaw_deg"] for row in rows]
    columns = {name: np.array([row["parts"][name] for row in rows]) for name in (*PARTS, *HOLDINGS)}
    error = columns["as_it_is"]
    holdings = {}
    for name, edges in HOLDINGS.items():
        holdings[name] = []
        for low, high in zip(edges, edges[1:], strict=False):
            last = high == edges[-1]
            chosen = (columns[name] >= low) & ((columns[name] < high) | last)
            if chosen.any():
                group = {"from": low, "to": high, "n": int(chosen.sum())}
                holdings[name].append({**group, "mean": float(error[chosen].mean())})
    order = np.argsort(-error, kind="stable")[:NUM_WORST]
    return {
        "quantities": {name: summarize(columns[name], yaws_deg, protocol) for name in PARTS},
        **holdings,
        "worst": [{"name": rows[i]["name"], "error": float(error[i])} for i in order],
    }
