"""What an evaluation reads: the interface of a test set, its items (the truth of an image and the
crop that a network is given), and their batches.

Letters: B batch, S shape and E expression coefficients, Hp Wp the picture's (padded) size.
"""

import copy
import math
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from prnet.datasets.attention_target import attention_target, silhouette
from prnet.datasets.built import BuiltSet
from prnet.datasets.pictures import (
    CROP_SIZE,
    CropRule,
    crop_matrix,
    crop_square,
    pad_pictures,
    pad_visible,
    picture_for_crop,
    whole_picture,
)
from prnet.datasets.records import extents_at_most
from prnet.datasets.warp import warp_to_crop
from prnet.detection.framing import Framing
from prnet.faces.face import Face
from prnet.files import read_bytes
from prnet.geometry import camera


class NetworkInput(NamedTuple):
    """A picture and where in it the crop lies."""

    picture: np.ndarray  # (Hp, Wp, 3), uint8 RGB
    crop_from_picture: Tensor  # (4, 4)
    image_from_crop: Tensor  # (4, 4), float64
    visible: np.ndarray | None = None  # (Hp, Wp), uint8, 255 where the face is seen; None: unknown
    # (L, 4, 4), float64, to the crops of earlier looks, in their order: a prediction is the mean
    # with that of the looks before, from the first on. Every image of a test set has as many (where
    # there were fewer looks, the first is there again), or none has: None.
    earlier_from_crop: Tensor | None = None


class EvaluationItem(NamedTuple):
    """One image; image px are zero_based unless said otherwise."""

    name: str
    yaw_deg: float  # of the fit, signed
    network_input: NetworkInput | None  # None where saved predictions are scored
    landmarks: Tensor | None = None  # (68, 3), float64, `pt3d_68` as stored, "matlab"
    shape_params: Tensor = torch.zeros(0)  # (S,)
    exp_params: Tensor = torch.zeros(0)  # (E,)
    image_from_model: Tensor | None = None  # (4, 4), float64; None where nothing is decoded
    # Of benchmarks with points or scans of their own.
    points: Tensor | None = None  # (K, 2 or 3), float64
    points_visible: Tensor | None = None  # (K,), bool; the others are not scored
    box: Tensor | None = None  # (4,), float64: left, top, right, bottom; the points' unit
    scan: Tensor | None = None  # (M, 3), float64, depth larger is nearer
    outer_eye: float | None = None  # px, 3D distance of the outer eye corners: the scan's unit
    angles: Tensor | None = None  # (3,), float64, rad: pitch, yaw, roll of the fit as it is stored
    detected: bool | None = None  # a detector found the face; None: none was asked


class EvaluationBatch(NamedTuple):
    """Items collated; fields as there."""

    names: list[str]
    yaw_deg: list[float]
    landmarks: Tensor | None  # (B, 68, 3)
    shape_params: Tensor  # (B, S)
    exp_params: Tensor  # (B, E)
    image_from_model: Tensor | None  # (B, 4, 4)
    picture: Tensor | None  # (B, 3, Hp, Wp), uint8, zero-padded at the right and the bottom
    crop_from_picture: Tensor | None  # (B, 4, 4)
    image_from_crop: Tensor | None  # (B, 4, 4)
    points: Tensor | None = None  # (B, K, 2 or 3)
    points_visible: Tensor | None = None  # (B, K)
    box: Tensor | None = None  # (B, 4)
    scan: list[Tensor] | None = None  # B of (M_b, 3), on the CPU: scans differ in size
    outer_eye: list[float] | None = None  # B
    angles: Tensor | None = None  # (B, 3)
    visible: Tensor | None = None  # (B, Hp, Wp), uint8
    earlier_from_crop: Tensor | None = None  # (B, L, 4, 4)
    detected: list[bool] | None = None  # B

    def to(self, device: torch.device | str) -> "EvaluationBatch":
        return EvaluationBatch(
            *(
                field.to(device, non_blocking=True) if isinstance(field, Tensor) else field
                for field in self
            )
        )


def framed_input(
    source: Path,  # of the picture
    points: np.ndarray,  # (K, 2 or more), image px, which the crop is placed around
    rule: CropRule,
    *,
    name: str,
    decoded: np.ndarray | None = None,  # (H, W, 3), the picture in full, where it is at hand
    tilt: float = 0.0,  # rad, clockwise, of the face
) -> NetworkInput:
    """The network input of one image.

    Raises:
        OSError, ValueError: the picture cannot be read, or the points span less than a pixel.
    """
    center, size = crop_square(points, rule, seed_name=name)
    data = read_bytes(source)
    if decoded is None:
        data = whole_picture(data, source=source)
    options = {"source": source, "decoded": decoded, "tilt": tilt}
    return NetworkInput(
        *picture_for_crop(data, center, size, rule, **options),
        camera.invert_affine(crop_matrix(center, size, rule, tilt=tilt)),
    )


class Demands(NamedTuple):
    """What a protocol asks of a test set."""

    crop: CropRule | None = None  # of the network's input; None: saved predictions are scored
    boxes: Path | str | None = None  # file of the rectangles that the crop frames; None: landmarks
    # What finds the faces of a picture, (H, W, 3), where `crop.source` is "detector": of each the
    # boxes that it was looked at in, `MOST_LOOKS` or fewer, the last its own.
    finder: Callable[[np.ndarray], Sequence[tuple[Framing, ...]]] | None = None
    yaw_labels: Path | str | None = None  # file of yaws in place of those of the fits
    exclude: Sequence[str] = ()  # names of images
    stored_landmarks: bool = True  # the files' own `pt3d_68` are scored against
    decodes_fits: bool = True  # points that are made of the fits are scored against


class TestSet(Dataset):
    """Images with their truth, as evaluation items, and what is known of all of them.

    Those of `prnet.datasets.test_sets` are made by their `open` from a configuration.

    name: of the data set; names: of its images, in the order of the items.
    metric: the one that can be measured on it; None: those of the protocol.
    point_groups: for each of the points that the data set has of its own, the indices of the 68
        landmarks whose mean it is; None: it has no points but the 68.
    truth_face: the face of the fits that its truth is made of; None: `no_face` says why.
    has_fits: whether there may be such a face.
    takes_lists: whether a protocol may name boxes, yaw labels and images to exclude, or have faces
        detected.
    takes_predictions: whether saved predictions can be scored, or networks alone.
    protocols: those to choose where another cannot be used, for a message.
    options: of its configuration, which its constructor takes.
    """

    __test__ = False  # pytest takes classes of such a name for tests

    name: str
    names: Sequence[str]
    metric: str | None = None
    point_groups: Sequence[Sequence[int]] | None = None
    truth_face: Face | None = None
    no_face = "the data set has no fits"
    has_fits = True
    takes_lists = False
    takes_predictions = True
    protocols: tuple[str, ...] = ("default",)
    options: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, data_dir: Path | str, options: Mapping, demands: Demands, _face: Face | None
    ) -> "TestSet":
        """The test set as a configuration and a protocol want it."""
        own = {option: options[option] for option in cls.options}
        return cls(data_dir, **own, crop=demands.crop)

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict:
        """Loader processes need no face, which is large."""
        return {**self.__dict__, "truth_face": None}

    def with_truth_face(self, face: Face | None, no_face: str = "") -> "TestSet":
        """The same images, their truth made of this face."""
        other = copy.copy(self)
        other.truth_face, other.no_face = face, no_face
        return other

    def yaw_labels(self, names: Sequence[str]) -> Mapping[str, float] | None:
        """Degrees that replace the yaws of the items, for at least these images; None: nothing
        does."""
        return None

    def picture_height(self, name: str) -> int:
        """Of an image, px; raises ValueError where it is not known."""
        raise ValueError(f"{name}: a mesh with y up, and the height of its picture is not known")

    def notes(self) -> dict:
        """What a report says about the data set, as plain values."""
        return {}

    def among(self, names: Container[str]) -> Dataset:
        """The items whose images are among these names, in their order."""
        chosen = [index for index, name in enumerate(self.names) if name in names]
        return self if len(chosen) == len(self.names) else Subset(self, chosen)


class HeldOut(TestSet):
    """Samples of a built set as evaluation items: the truth is their fit, decoded; so is the yaw.

    Image px are in the pixel origin that the set was built with.
    """

    name = "held out"

    def __init__(self, built: BuiltSet, indices: np.ndarray) -> None:
        self.built = built
        self.indices = indices
        self.names = [built.names[int(index)] for index in indices]

    def picture_bytes(self) -> int:
        """Of all pictures, decoded: no fewer than they take."""
        records = self.built.records[self.indices]
        extents = extents_at_most(records, self.built.crop_rule, math.inf)
        return 3 * int(extents.prod(1).sum())

    def __getitem__(self, position: int) -> EvaluationItem:
        index = int(self.indices[position])
        item, record = self.built[index], self.built.record(index)
        angles = record.fit().angles
        return EvaluationItem(
            name=self.built.names[index],
            yaw_deg=float(np.degrees(angles[1])),
            angles=torch.from_numpy(angles),
            shape_params=item.shape_params,
            exp_params=item.exp_params,
            image_from_model=record.image_from_model(),
            network_input=NetworkInput(
                item.picture,
                item.crop_from_picture,
                camera.invert_affine(record.crop_from_image()),
            ),
        )


class Joined(TestSet):
    """Several test sets of one face, one after the other."""

    def __init__(self, parts: Sequence[TestSet]) -> None:
        self.name = parts[0].name
        self.names = [name for part in parts for name in part.names]
        self.items = ConcatDataset(parts)

    def __getitem__(self, index: int) -> EvaluationItem:
        return self.items[index]


class Kept(TestSet):
    """Another test set of one face whose items are made once, on first use, and stay in memory."""

    def __init__(self, items: TestSet) -> None:
        self.name, self.names = items.name, items.names
        self.items = items
        self.made: dict[int, EvaluationItem] = {}

    def __getitem__(self, index: int) -> EvaluationItem:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[EvaluationItem]:
        missing = [index for index in indices if index not in self.made]
        if missing:
            together = getattr(self.items, "__getitems__", None)
            items = together(missing) if together else map(self.items.__getitem__, missing)
            self.made.update(zip(missing, items, strict=True))
        return [self.made[index] for index in indices]


def collate_evaluation(items: list[EvaluationItem]) -> EvaluationBatch:
    """Stack items; a field that one of them lacks is lacking in the batch."""

    def listed(field: str, of: Sequence = items) -> list | None:
        values = [getattr(one, field) for one in of]
        return None if not values or any(value is None for value in values) else values

    def stack(field: str, of: Sequence = items) -> Tensor | None:
        values = listed(field, of)
        return None if values is None else torch.stack(values)

    inputs = listed("network_input") or []
    pictured = bool(inputs)
    stacked = ("landmarks", "image_from_model", "points", "points_visible", "box", "angles")
    return EvaluationBatch(
        names=listed("name"),
        yaw_deg=listed("yaw_deg"),
        shape_params=stack("shape_params").float(),
        exp_params=stack("exp_params").float(),
        picture=pad_pictures([one.picture for one in inputs]) if pictured else None,
        crop_from_picture=stack("crop_from_picture", inputs).float() if pictured else None,
        image_from_crop=stack("image_from_crop", inputs),
        visible=pad_visible([one.visible for one in inputs]) if pictured else None,
        earlier_from_crop=stack("earlier_from_crop", inputs),
        scan=listed("scan"),
        outer_eye=listed("outer_eye"),
        detected=listed("detected"),
        **{field: stack(field) for field in stacked},
    )


def true_attention(
    batch: EvaluationBatch,
    face: Face | None,  # of the fits
    covered: Tensor | None,  # (B, S, S), bool, what was laid over the crops and hides the face
    *,
    size: int,
) -> Tensor | None:
    """Where the face is seen, (B, size, size) in [0, 1]; None where neither a mask nor a fit tells.

    As `prnet.datasets.warp.make_sample`: the mask that the batch brings, or the fit's silhouette.
    """
    if batch.visible is not None:
        seen = warp_to_crop(batch.visible[:, None], batch.crop_from_picture)[:, 0]
        return attention_target(seen, covered, size=size)
    if face is None or batch.image_from_model is None:
        return None
    vertices = face.morphable_model(batch.shape_params, batch.exp_params)
    crop_from_model = camera.invert_affine(batch.image_from_crop) @ batch.image_from_model
    vertices = camera.transform_points(crop_from_model.float(), vertices)
    seen = silhouette(
        face.uv.at_texels(vertices, face.uv.face_index),
        face.uv.at_texels(vertices, face.uv.landmark_texels),
        size=CROP_SIZE,
    )
    return attention_target(seen, covered, size=size)
