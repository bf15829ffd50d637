"""An evaluation protocol as data: every choice that moves a number of the table, by name.

Published systems agree on the formulas and on little else. Which points are the truth, where the
pixels have their origin, what becomes of depth and whose box is the unit move a result by more than
the papers differ: 2 px of origin alone are 1.1 % NME on AFLW2000-3D. A protocol says it all and is
stored in the report.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from prnet.checks import require_choice
from prnet.datasets.evaluation import Demands
from prnet.datasets.pictures import CropRule
from prnet.geometry.camera import PIXEL_ORIGINS
from prnet.geometry.icp import DIRECTIONS, STARTS, IcpRule
from prnet.metrics.nme import Z_ALIGNMENTS
from prnet.metrics.reconstruction import NORMALIZERS, RECONSTRUCTION_METRICS


class MetricKind(NamedTuple):
    points: str  # field of `prnet.evaluation.score.FacePoints` that is compared
    dimensions: int
    title: str
    unit: str = "%"  # or "deg"


METRICS = {
    "nme_68_2d": MetricKind("landmarks", 2, "68 landmarks, 2D"),
    "nme_68_3d": MetricKind("landmarks", 3, "68 landmarks, 3D"),
    "nme_dense_2d": MetricKind("dense", 2, "dense, 2D"),
    "nme_dense_3d": MetricKind("dense", 3, "dense, 3D"),
    "nme_points_2d": MetricKind("points", 2, "the data set's own points, 2D"),
    "nme_rec": MetricKind("surface", 3, "reconstruction"),
    "pose_mae_yaw": MetricKind("rotation", 3, "yaw", "deg"),
    "pose_mae_pitch": MetricKind("rotation", 3, "pitch", "deg"),
    "pose_mae_roll": MetricKind("rotation", 3, "roll", "deg"),
    "pose_mae": MetricKind("rotation", 3, "mean of yaw, pitch, roll", "deg"),
    "pose_geodesic": MetricKind("rotation", 3, "angle between the rotations", "deg"),
}
CHOICES = {
    "landmarks": ("pt3d_68", "map"),
    "dense": ("none", "vertices", "map"),
    "pixel_origin": tuple(PIXEL_ORIGINS),
    "z_alignment": Z_ALIGNMENTS,
    "normalizer": ("box_68", "box_points"),
    "yaw_source": ("pose_para", "labels"),
    "crop.source": ("landmarks", "box", "detector"),
    "reconstruction.metric": tuple(RECONSTRUCTION_METRICS),
    "reconstruction.normalizer": NORMALIZERS,
    "reconstruction.direction": DIRECTIONS,
    "reconstruction.start": STARTS,
    "pose.points": ("dense", "landmarks"),
    "pose.images": ("all", "plausible"),
}
LARGEST_YAW_DEG = 90


@dataclass(frozen=True, kw_only=True)
class FramingRule:
    """The square of the image that a network is given; see `prnet.datasets.pictures.CropRule`.

    `source` "landmarks" frames the ground-truth landmarks, "box" the rectangle of the file `boxes`
    (CSV: name,left,top,right,bottom, image px), "detector" what `prnet.detection` finds, tilt
    taken out, as `prnet.reconstruct` does; a face that is not found is framed by the whole picture.
    """

    source: str
    scale: float
    jitter: float
    span: float
    boxes: str | None

    def __post_init__(self) -> None:
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
class ReconstructionRule:
    """What `nme_rec` is: one of `RECONSTRUCTION_METRICS`, its unit, and, for those with an ICP of
    ours, its rule (`prnet.geometry.icp.IcpRule`)."""

    metric: str
    normalizer: str
    direction: str
    iterations: int
    tolerance: float
    trim: float
    start: str
    levels: tuple[int, ...]
    memory: int

    @property
    def rule(self) -> IcpRule:
        return IcpRule(**{field: getattr(self, field) for field in IcpRule._fields})


@dataclass(frozen=True, kw_only=True)
class PoseRule:
    """Whose head pose is scored, and how a prediction without one gets it.

    points: the rotation is that of the similarity from the mean face to the predicted face pixels
        ("dense") or to the 68 "landmarks". A network that predicts a pose has its own.
    images: "all", or without the truths beyond 99 degrees ("plausible"), which leaves 1,969 of
        AFLW2000-3D.
    fix: also without the images that SADRNet's row "fix" leaves out by their predictions.
    """

    points: str
    images: str
    fix: bool


@dataclass(frozen=True, kw_only=True)
class BalancedRule:
    """Random subsets with as many images of each bin; `per_bin` None: none are drawn."""

    per_bin: int | None
    draws: int
    seed: int

    def __post_init__(self) -> None:
        if self.draws < 1 or (self.per_bin is not None and self.per_bin < 1):
            raise ValueError(
                f"protocol.balanced: got per_bin {self.per_bin}, draws {self.draws}; expected at "
                "least 1 of both, or per_bin null"
            )


@dataclass(frozen=True, kw_only=True)
class CurveRule:
    """Where cumulative curves end: their area is up to there, a failure is an error beyond."""

    limit_percent: float
    limit_deg: float

    def __post_init__(self) -> None:
        for limit in (self.limit_percent, self.limit_deg):
            if not (math.isfinite(limit) and limit > 0):
                raise ValueError(f"protocol.curve: got a limit of {limit}, expected it above 0")

    def limit(self, metric: str) -> float:
        return self.limit_deg if METRICS[metric].unit == "deg" else self.limit_percent


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How predictions meet the truth.

    landmarks: "pt3d_68" of the file, or the 68 cells of the ground-truth position "map".
    dense: all "vertices" of the fit, its position "map" at the face pixels, or "none". They are
        also the surface that a reconstruction is measured on.
    pixel_origin: of all ground truth made from a fit; one of `camera.PIXEL_ORIGINS`.
    convert_origin: pt3d_68 and predictions are converted to `pixel_origin` from their own. Where
        false, they are scored as stored (pt3d_68 is "matlab"), as the published scripts do.
    z_alignment: both sides lose their own "mean" or "min" of z over the points scored, or "none".
        Then a position map's z counts from the smallest of its mesh, any other as in its file.
    normalizer: whose box is the unit, that of the ground-truth 68 ("box_68") or of the ground-truth
        points scored ("box_points").
    yaw_source: Pose_Para of the fit, or the labels of the file `yaw_labels`: CSV (name,yaw_deg), or
        an .npy of degrees in the order of all file names.
    bins: upper edges of |yaw| in degrees, closed on the right; the last bin is open.
    drop_worst: so many images of the largest error are left out of every metric, each its own.
    parts: the error of the 68 landmarks is taken apart too, into pose and shape
        (`prnet.metrics.parts`).
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
    drop_worst: int
    parts: bool
    crop: FramingRule
    reconstruction: ReconstructionRule
    pose: PoseRule
    balanced: BalancedRule
    curve: CurveRule

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            require_choice(f"protocol.{field}", attrgetter(field)(self), choices)
        if not self.metrics:
            raise ValueError(f"protocol.metrics is empty; choose among {', '.join(METRICS)}")
        for metric in self.metrics:
            require_choice("protocol.metrics", metric, METRICS)
        edges = [0.0, *self.bins, float(LARGEST_YAW_DEG)]
        if not self.bins or any(low >= high for low, high in zip(edges, edges[1:], strict=False)):
            raise ValueError(
                f"protocol.bins: got {list(self.bins)}, expected ascending degrees between 0 and 90"
            )
        if self.yaw_source == "labels" and self.yaw_labels is None:
            raise ValueError(
                "protocol.yaw_source is labels: give protocol.yaw_labels=FILE.csv with columns "
                "name,yaw_deg, or an .npy"
            )
        if self.drop_worst < 0:
            raise ValueError(f"protocol.drop_worst: got {self.drop_worst}, expected at least 0")
        by_2dasl = "nme_rec" in self.metrics and self.reconstruction.metric == "rec_2dasl"
        if by_2dasl and self.dense == "map":
            raise ValueError(
                "protocol.reconstruction.metric is rec_2dasl, which takes every 50th vertex: "
                "choose protocol.dense=vertices"
            )

    @classmethod
    def from_values(cls, values: dict) -> "Protocol":
        """From the plain values of a configuration.

        Raises:
            ValueError: a value is not one of its choices.
        """
        rules = {
            field.name: field.type(**_with_tuples(values[field.name]))
            for field in dataclasses.fields(cls)
            if dataclasses.is_dataclass(field.type)
        }
        exclude = tuple(str(name) for name in values["exclude"])
        return cls(**{**_with_tuples(values), "exclude": exclude, **rules})

    def to_values(self) -> dict:
        """As plain values, for a report: those that JSON would give back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def demands(self, *, network: bool) -> Demands:
        """What a test set has to have; for a `network`, pictures too."""
        crop = CropRule(self.crop.source, self.crop.scale, self.crop.jitter, self.crop.span)
        return Demands(
            crop=crop if network else None,
            boxes=self.crop.boxes if self.crop.source == "box" else None,
            yaw_labels=self.yaw_labels if self.yaw_source == "labels" else None,
            exclude=self.exclude,
            stored_landmarks=self.landmarks == "pt3d_68" and self.needs_true_landmarks,
            decodes_fits=self.scores_dense
            or (self.landmarks == "map" and self.needs_true_landmarks),
        )

    @property
    def landmark_origin(self) -> str:
        """The pixel origin that the ground-truth landmarks are scored in."""
        as_stored = self.landmarks == "pt3d_68" and not self.convert_origin
        return "matlab" if as_stored else self.pixel_origin

    def scores(self, *kinds: str) -> bool:
        """Whether a metric compares one of these fields of `FacePoints`."""
        return any(METRICS[metric].points in kinds for metric in self.metrics)

    @property
    def scores_dense(self) -> bool:
        """Whether dense points are needed, to compare them or as a surface."""
        return self.scores("dense", "surface") and self.dense != "none"

    @property
    def needs_landmarks(self) -> bool:
        """Whether a prediction has to have the 68 landmarks."""
        turned = self.scores("rotation") and self.pose.points == "landmarks"
        return self.scores("landmarks", "points") or self.parts or turned

    @property
    def needs_true_landmarks(self) -> bool:
        """Whether the truth has to have them, to be compared or as a unit. A scan has its own."""
        of_dense = self.scores("dense") and self.normalizer == "box_68"
        of_surface = self.scores("surface") and self.reconstruction.normalizer != "box"
        return self.scores("landmarks") or self.parts or of_dense or of_surface

    @property
    def bin_labels(self) -> list[str]:
        edges = [0, *self.bins, LARGEST_YAW_DEG]
        return [f"{low:g}-{high:g}" for low, high in zip(edges, edges[1:], strict=False)]

    def bin_label(self, yaw_deg: float) -> str:
        """The bin of a signed yaw; beyond 90 degrees it is the last."""
        index = sum(abs(yaw_deg) > edge for edge in self.bins)
        return self.bin_labels[index]


def _with_tuples(values: dict) -> dict:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
