"""Faces in a picture: RetinaFace (Deng et al., CVPR 2020) on MobileNet, run by OpenCV.

The network comes with the package (ASSETS.md says from where, and what it was trained on). Px are
of the picture, centres at integers. Letters: A anchors, D detections.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

ASSET = Path(__file__).resolve().parents[1] / "assets" / "detector" / "retinaface.onnx"
OUTPUTS = ("loc", "conf", "landmarks")
# Mean of its training pictures, BGR.
MEAN = (104.0, 117.0, 123.0)
# Px from one anchor's centre to the next -> sides of the anchors there.
ANCHORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
# What the network's outputs are scaled by: offsets of centres and points, logarithms of sides.
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
# Below this confidence a large box is more often no face than a small one that is surer.
DOUBTFUL = 0.9
# Boxes that overlap by more than this are one face.
OVERLAP = 0.4


class Detection(NamedTuple):
    """One face."""

    confidence: float  # 0 to 1
    box: np.ndarray  # (2, 2), upper left and lower right corner, px
    points: np.ndarray  # (5, 2), px: eyes, nose tip, corners of the mouth, the picture's left first

    @property
    def size(self) -> float:
        """Side of the square with the box's area, px."""
        return float(np.sqrt(np.prod(self.box[1] - self.box[0])))


def order(one: Detection) -> tuple[bool, float]:
    """Sorts the largest face first, and after them those that are doubtful."""
    return one.confidence < DOUBTFUL, -one.size


class FaceDetector:
    """Finds faces; small ones in large pictures too."""

    def __init__(
        self,
        *,
        sides: Sequence[int] = (320, 960),
        threshold: float = 0.6,
    ) -> None:
        """Read the network.

        sides: px that the picture's longer side is resampled to, one after the other: a face is
            found from some 12 px there up to about the picture's size at the smallest. Sides far
            beyond the picture's own are left out.
        threshold: the least confidence.

        Raises:
            ValueError: no sides, one below 64 px, or a threshold outside [0, 1).
        """
        if not sides or min(sides) < 64:
            raise ValueError(f"detector sides: got {list(sides)}, expected px, 64 and more")
        if not 0 <= threshold < 1:
            raise ValueError(f"detector threshold: got {threshold}, expected 0 to below 1")
        self.sides = sorted(sides)
        self.threshold = threshold
        self.network = cv2.dnn.readNetFromONNX(np.fromfile(ASSET, np.uint8))

    def __call__(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
    ) -> list[Detection]:
        """All faces, the largest first, and after them those that are doubtful.

        Raises:
            ValueError: not a picture of that kind.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(
                f"picture: got {picture.dtype} {picture.shape}, expected uint8 (H, W, 3)"
            )
        longer = max(picture.shape[:2])
        sides = [side for side in self.sides if side <= longer] or self.sides[:1]
        found = [one for side in sides for one in self.at_side(picture, side)]
        return sorted(distinct(found), key=order)

    def at_side(
        self,
        picture: np.ndarray,  # (H, W, 3), uint8 RGB
        side: int,  # px
        *,
        threshold: float | None = None,  # None: the detector's own
    ) -> list[Detection]:
        """The faces seen with the picture's longer side resampled to `side`, most sure first."""
        height, width = picture.shape[:2]
        ratio = side / max(height, width)
        size = max(round(width * ratio), 1), max(round(height * ratio), 1)
        if ratio != 1:
            method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
            picture = cv2.resize(picture, size, interpolation=method)
        self.network.setInput(cv2.dnn.blobFromImage(picture, 1.0, mean=MEAN[::-1], swapRB=True))
        outputs = (output[0] for output in self.network.forward(OUTPUTS))
        least = self.threshold if threshold is None else threshold
        found = decoded(*outputs, anchors(*size[::-1]), least)
        # A resampled pixel's centre is at half its width, as is the picture's own.
        stretch = np.array([width, height]) / size
        return [
            one._replace(box=one.box * stretch - 0.5, points=one.points * stretch - 0.5)
            for one in distinct(found)
        ]


def anchors(height: int, width: int) -> np.ndarray:
    """Centre x, y and side of every anchor in a picture of this size, (A, 3), px from its corner:
    row by row, the sides of a place one after the other, the finest grid first."""
    grids = []
    for step, sides in ANCHORS.items():
        rows, columns = math.ceil(height / step), math.ceil(width / step)
        y, x, side = np.meshgrid(
            step * (np.arange(rows) + 0.5), step * (np.arange(columns) + 0.5), sides, indexing="ij"
        )
        grids.append(np.stack([x, y, side], -1).reshape(-1, 3))
    return np.concatenate(grids)


def decoded(
    offsets: np.ndarray,  # (A, 4), of centres and logarithms of sides
    scores: np.ndarray,  # (A, 2), background and face, which add to 1
    point_offsets: np.ndarray,  # (A, 10)
    priors: np.ndarray,  # (A, 3), `anchors`
    threshold: float,
) -> list[Detection]:
    """The anchors that see a face, px from the corner of the network's input."""
    seen = scores[:, 1] >= max(threshold, np.finfo(np.float32).eps)
    center, side = priors[seen, :2], priors[seen, 2:]
    middle = center + CENTER_VARIANCE * side * offsets[seen, :2]
    half = side * np.exp(SIZE_VARIANCE * offsets[seen, 2:]) / 2
    points = center[:, None] + CENTER_VARIANCE * side[:, None] * point_offsets[seen].reshape(
        -1, 5, 2
    )
    boxes = np.stack([middle - half, middle + half], 1)
    return [
        Detection(float(confidence), box, five)
        for confidence, box, five in zip(scores[seen, 1], boxes, points, strict=True)
    ]


def distinct(found: Sequence[Detection]) -> list[Detection]:
    """One detection a face, the most sure one (non-maximum suppression), most sure first."""
    if not found:
        return []
    boxes = [[*one.box[0], *(one.box[1] - one.box[0])] for one in found]
    scores = [one.confidence for one in found]
    kept = cv2.dnn.NMSBoxes(boxes, scores, 0.0, OVERLAP)
    return [found[index] for index in np.asarray(kept, int).ravel()]
