"""An evaluation protocol as data: every choice that moves a number of the table, by name.

Published systems agree on the formula and on little else. Which points are the truth, where the
pixels have their origin, what becomes of depth and whose box is the unit move a result by more than
the papers differ: 2 px of origin alone are 1.1 % NME on AFLW2000-3D. A protocol says it all and is
stored in the report.

Letters: B batch, P dense points.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from prnet.geometry.camera import PIXEL_ORIGINS
from prnet.metrics.nme import Z_ALIGNMENTS, align_depth, bbox_size, nme


class MetricKind(NamedTuple):
    points: str  # field of `FacePoints`
    dimensions: int


METRICS = {
    "nme_68_2d": MetricKind("landmarks", 2),
    "nme_68_3d": MetricKind("landmarks", 3),
    "nme_dense_2d": MetricKind("dense", 2),
    "nme_dense_3d": MetricKind("dense", 3),
}
CHOICES = {
    "landmarks": ("pt3d_68", "map"),
    "dense": ("none", "vertices", "map"),
    "pixel_origin": tuple(PIXEL_ORIGINS),
    "z_alignment": Z_ALIGNMENTS,
    "normalizer": ("box_68", "box_points"),
    "yaw_source": ("pose_para", "labels"),
}
CROP_SOURCES = ("landmarks", "box")
LARGEST_YAW_DEG = 90


class FacePoints(NamedTuple):
    """One side of a comparison, px of the image; None where there are no such points."""

    landmarks: Tensor | None  # (B, 68, 2 or 3), order of iBUG
    dense: Tensor | None  # (B, P, 3)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """The square of the image that a network is given; see `prnet.datasets.pictures.CropRule`.

    `source` "landmarks" frames the ground-truth landmarks, "box" the rectangle of the file `boxes`
    (CSV: name,left,top,right,bottom, image px).
    """

    source: str
    scale: float
    jitter: float
    span: float
    boxes: str | None

    def __post_init__(self) -> None:
        _require_choice("crop.source", self.source, CROP_SOURCES)
        if not (self.scale > 0 and self.span > 0 and self.jitter >= 0):
            raise ValueError(
                f"protocol.crop: got scale {self.scale}, span {self.span}, jitter {self.jitter}; "
                "expected scale and span above 0, jitter at least 0"
            )
        if self.source == "box" and self.boxes is None:
            raise ValueError(
                "protocol.crop.source is box: give protocol.crop.boxes=FILE.csv with columns "
                "name,left,top,right,bottom in image px"
            )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How predictions meet the truth.

    landmarks: "pt3d_68" of the file, or the 68 cells of the ground-truth position "map".
    dense: all "vertices" of the fit, its position "map" at the face pixels, or "none".
    pixel_origin: of all ground truth made from a fit; one of `camera.PIXEL_ORIGINS`.
    convert_origin: pt3d_68 and predictions are converted to `pixel_origin` from their own. Where
        false, they are scored as stored (pt3d_68 is "matlab"), as the published scripts do.
    z_alignment: both sides lose their own "mean" or "min" of z over the points scored, or "none".
        Then a position map's z counts from the smallest of its mesh, any other as in its file.
    normalizer: whose box is the unit, that of the ground-truth 68 ("box_68") or of the ground-truth
        points scored ("box_points").
    yaw_source: Pose_Para of the fit, or the labels of the CSV `yaw_labels` (name,yaw_deg).
    bins: upper edges of |yaw| in degrees, closed on the right; the last bin is open.
    """

    name: str
    metrics: tuple[str, ...]
    landmarks: str
    dense: str
    pixel_origin: str
    convert_origin: bool
    z_alignment: str
    normalizer: str
    yaw_source: str
    yaw_labels: str | None
    bins: tuple[float, ...]
    exclude: tuple[str, ...]
    crop: Crop

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            _require_choice(field, getattr(self, field), choices)
        if not self.metrics:
            raise ValueError(f"protocol.metrics is empty; choose among {', '.join(METRICS)}")
        for metric in self.metrics:
            _require_choice("metrics", metric, METRICS)
        edges = [0.0, *self.bins, float(LARGEST_YAW_DEG)]
        if not self.bins or any(low >= high for low, high in zip(edges, edges[1:], strict=False)):
            raise ValueError(
                f"protocol.bins: got {list(self.bins)}, expected ascending degrees between 0 and 90"
            )
        if self.yaw_source == "labels" and self.yaw_labels is None:
            raise ValueError(
                "protocol.yaw_source is labels: give protocol.yaw_labels=FILE.csv with columns "
                "name,yaw_deg"
            )

    @classmethod
    def from_values(cls, values: dict) -> "Protocol":
        """From the plain values of a configuration.

        Raises:
            ValueError: a value is not one of its choices.
        """
        lists = {
            "metrics": tuple(values["metrics"]),
            "bins": tuple(values["bins"]),
            "exclude": tuple(str(name) for name in values["exclude"]),
        }
        return cls(**{**values, **lists, "crop": Crop(**values["crop"])})

    def to_values(self) -> dict:
        """As plain values, for a report."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @property
    def landmark_origin(self) -> str:
        """The pixel origin that the ground-truth landmarks are scored in."""
        return "matlab" if self.landmarks_as_stored else self.pixel_origin

    @property
    def landmarks_as_stored(self) -> bool:
        return self.landmarks == "pt3d_68" and not self.convert_origin

    @property
    def scores_dense(self) -> bool:
        wanted = any(METRICS[metric].points == "dense" for metric in self.metrics)
        return wanted and self.dense != "none"

    @property
    def bin_labels(self) -> list[str]:
        edges = [0, *self.bins, LARGEST_YAW_DEG]
        return [f"{low:g}-{high:g}" for low, high in zip(edges, edges[1:], strict=False)]

    def bin_label(self, yaw_deg: float) -> str:
        """The bin of a signed yaw; beyond 90 degrees it is the last."""
        index = sum(abs(yaw_deg) > edge for edge in self.bins)
        return self.bin_labels[index]


def score(
    prediction: FacePoints,
    truth: FacePoints,
    protocol: Protocol,
) -> dict[str, Tensor]:
    """The protocol's metrics for which both sides have the points, {name: (B,)}, percent, float64.

    The points are in the same pixel origin already, or deliberately not (`convert_origin`).
    """
    errors = {}
    for metric in protocol.metrics:
        points, dimensions = METRICS[metric]
        predicted, true = getattr(prediction, points), getattr(truth, points)
        if predicted is None or true is None or predicted.shape[-1] < dimensions:
            continue
        predicted, true = predicted.double(), true.double()
        if dimensions == 3:
            predicted = align_depth(predicted, protocol.z_alignment)
            true = align_depth(true, protocol.z_alignment)
        unit = truth.landmarks if protocol.normalizer == "box_68" else true
        errors[metric] = nme(
            predicted[..., :dimensions], true[..., :dimensions], bbox_size(unit.double())
        )
    return errors


def _require_choice(field: str, value: object, choices: object) -> None:
    if value not in choices:
        raise ValueError(f"protocol.{field}: got {value!r}, expected one of {', '.join(choices)}")
