"""AFLW2000-3D as a test set, and the tables that may come with it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch

from prnet.checks import name_list, require_degrees, require_finite
from prnet.datasets.evaluation import (
    Demands,
    EvaluationItem,
    NetworkInput,
    TestSet,
    framed_input,
)
from prnet.datasets.fits import (
    FacePair,
    FitOfAnotherFace,
    find_aflw2000,
    fit_matrix,
    pad_params,
    read_fit,
    require_fit_of,
)
from prnet.datasets.pictures import CropRule, crop_matrix, crop_square, decode_picture
from prnet.detection.framing import Framing, framing_of_points, overlap
from prnet.detection.settling import MOST_LOOKS
from prnet.faces.face import Face
from prnet.files import read_bytes, read_npy
from prnet.files.csv_tables import read_csv
from prnet.geometry.camera import pixel_origin_shift

log = logging.getLogger(__name__)

# A detected box that shares less than this with the true one is another face's.
LEAST_OVERLAP = 0.3


@dataclass(eq=False)
class AFLW2000(TestSet):
    """Image + fit pairs as evaluation items."""

    name = "aflw2000"
    takes_lists = True

    pairs: list[FacePair]
    truth_face: Face | None = None  # of the fits; None: they are not decoded
    _: KW_ONLY
    # Points are made of the fits. Where not, and without a `crop`, no picture is read: its height
    # is what places a fit in the image.
    decodes: bool = True
    needs_landmarks: bool = True  # a file without `pt3d_68` is refused
    crop: CropRule | None = None  # how a network's input is framed; None: there is none
    # Name -> corners (2, 2), image px, of what the crop frames; None: the landmarks.
    boxes: Mapping[str, np.ndarray] | None = None
    # What finds the faces of a picture, where `crop.source` is "detector"; as `Demands.finder`.
    finder: Callable[[np.ndarray], Sequence[tuple[Framing, ...]]] | None = None
    labels: Path | str | None = None  # of yaws that replace those of the fits; `read_yaw_labels`
    all_names: Sequence[str] | None = None  # of the whole data set, where `pairs` are a part of it

    def __post_init__(self) -> None:
        self.names = [pair.name for pair in self.pairs]
        model = self.truth_face.morphable_model if self.truth_face else None
        self.num_shape, self.num_exp = (model.num_shape, model.num_exp) if model else (0, 0)

    @classmethod
    def open(
        cls, data_dir: Path | str, _options: Mapping, demands: Demands, face: Face | None
    ) -> "AFLW2000":
        """DATA_DIR/AFLW2000 without the images that are excluded.

        Raises:
            FileNotFoundError, ValueError: there is no picture, or the boxes are not what they
                should be.
        """
        every = find_aflw2000(data_dir)
        names = [pair.name for pair in every]
        absent = sorted(set(demands.exclude) - set(names))
        if absent:
            log.warning("protocol.exclude names images that are not there: %s", name_list(absent))
        pairs = [pair for pair in every if pair.name not in demands.exclude]
        boxes = None
        if demands.crop is not None and demands.boxes is not None:
            boxes = read_boxes(demands.boxes)
            require_named(boxes, [pair.name for pair in pairs], source=demands.boxes)
        return cls(
            pairs,
            face,
            decodes=demands.crop is not None or (face is not None and demands.decodes_fits),
            needs_landmarks=demands.stored_landmarks,
            crop=demands.crop,
            boxes=boxes,
            finder=demands.finder,
            labels=demands.yaw_labels,
            all_names=names,
        )

    def yaw_labels(self, names: Sequence[str]) -> dict[str, float] | None:
        """Those of the file; every one of `names` has to have one."""
        if self.labels is None:
            return None
        labels = read_yaw_labels(self.labels, self.all_names or self.names)
        require_named(labels, names, source=self.labels)
        return labels

    def picture_height(self, name: str) -> int:
        picture = self.pairs[self.names.index(name)].picture
        return decode_picture(picture.read_bytes(), source=picture).shape[0]

    def __getitem__(self, index: int) -> EvaluationItem:
        pair = self.pairs[index]
        try:
            return self._item(pair)
        except FitOfAnotherFace:
            raise
        except ValueError as error:
            raise ValueError(f"{error}; protocol.exclude=[{pair.name}] leaves it out") from error

    def _item(self, pair: FacePair) -> EvaluationItem:
        file = read_fit(pair.fit)
        if self.decodes and self.truth_face is not None:
            require_fit_of(self.truth_face.name, file.fit, source=pair.fit)
        needs_landmarks = self.needs_landmarks or (self.crop is not None and self.boxes is None)
        if needs_landmarks and file.landmarks is None:
            raise ValueError(
                f"{pair.fit}: no pt3d_68, the 68 landmarks of AFLW2000-3D; without them choose "
                "protocol.landmarks=map, and for a network protocol.crop.source=box"
            )
        image_from_model = network_input = detected = None
        if self.decodes or self.crop is not None:
            if not pair.picture.is_file():
                raise FileNotFoundError(f"{pair.picture}: missing picture of {pair.fit.name}")
            picture = decode_picture(read_bytes(pair.picture), source=pair.picture)
            image_from_model = fit_matrix(file.fit, picture.shape[0])
            if self.crop is not None:
                if self.boxes is not None:
                    framed = self.boxes[pair.name]
                else:
                    shift = pixel_origin_shift("matlab", "zero_based")
                    framed = file.landmarks[:, :2] + np.array(shift)
                options = {"name": pair.name, "decoded": picture}
                if self.crop.source == "detector":
                    looks = detected_looks(self.finder(picture), framed)
                    detected = looks is not None
                    looks = looks or (whole_picture_framing(picture),)
                    network_input = detected_input(pair.picture, looks, self.crop, **options)
                else:
                    network_input = framed_input(pair.picture, framed, self.crop, **options)
        return EvaluationItem(
            name=pair.name,
            yaw_deg=float(np.degrees(file.fit.angles[1])),
            angles=torch.from_numpy(file.fit.angles),
            landmarks=None if file.landmarks is None else torch.from_numpy(file.landmarks),
            shape_params=torch.from_numpy(pad_params(file.fit.shape_params, self.num_shape)),
            exp_params=torch.from_numpy(pad_params(file.fit.exp_params, self.num_exp)),
            image_from_model=image_from_model,
            network_input=network_input,
            detected=detected,
        )


def detected_looks(
    faces: Sequence[tuple[Framing, ...]],  # of the picture, as `Demands.finder` returns them
    truth: np.ndarray,  # (K, 2), image px, of the face that is asked for
) -> tuple[Framing, ...] | None:
    """The boxes of the face whose own lies nearest to that which is asked for; None where that is
    another face's."""
    wanted = framing_of_points(truth)
    best = max(faces, key=lambda looks: overlap(looks[-1], wanted), default=None)
    return None if best is None or overlap(best[-1], wanted) < LEAST_OVERLAP else best


def whole_picture_framing(picture: np.ndarray) -> Framing:  # (H, W, 3)
    height, width = picture.shape[:2]
    return framing_of_points(np.array([[0.0, 0.0], [width - 1, height - 1]]))


def detected_input(
    source: Path,
    looks: tuple[Framing, ...],  # the last is the crop's
    rule: CropRule,
    *,
    name: str,
    decoded: np.ndarray,  # (H, W, 3), the picture in full
) -> NetworkInput:
    """The network input of a detected face; as `framed_input`."""

    def corners(framing: Framing) -> np.ndarray:
        half = framing.size / 2
        return np.stack([framing.center - half, framing.center + half])

    *earlier, own = (looks[0],) * (MOST_LOOKS - len(looks)) + looks
    made = framed_input(source, corners(own), rule, name=name, decoded=decoded, tilt=own.tilt)
    squares = [crop_square(corners(one), rule, seed_name=name) for one in earlier]
    earlier_from_image = [
        crop_matrix(*square, rule, tilt=one.tilt)
        for square, one in zip(squares, earlier, strict=True)
    ]
    return made._replace(earlier_from_crop=torch.stack(earlier_from_image) @ made.image_from_crop)


def require_named(table: Mapping[str, object], names: Sequence[str], *, source: object) -> None:
    """Raise ValueError if a table lacks one of the images."""
    lacking = [name for name in names if name not in table]
    if lacking:
        raise ValueError(f"{source}: no line for {name_list(lacking)} of {len(names)} images")


def read_yaw_labels(path: Path | str, names: Sequence[str] = ()) -> dict[str, float]:
    """A CSV with columns name,yaw_deg, or an .npy of degrees as 3DDFA's repository has it, one for
    each of `names`, all images of the data set, in ascending order: {name: degrees}.

    Raises:
        FileNotFoundError: no such file.
        ValueError: other columns, a value that is no number, or an .npy of another length.
    """
    hint = "choose protocol.yaw_source=pose_para, or give protocol.yaw_labels=FILE.csv"
    path = Path(path)
    if path.suffix != ".npy":
        rows = read_csv(path, ("name", "yaw_deg"), hint=hint).rows
        require_degrees(path, np.array(list(rows.values())))
        return {name: float(yaw_deg) for name, (yaw_deg,) in rows.items()}
    values = read_npy(path, hint=hint)
    if values.shape != (len(names),) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: holds {values.dtype} {values.shape}, expected degrees ({len(names)},), one "
            "for each image in the order of the file names; it goes with the whole data set"
        )
    require_finite(f"{path}:", values)
    require_degrees(path, values)
    return dict(zip(sorted(names), values.astype(float).tolist(), strict=True))


def read_boxes(path: Path | str) -> dict[str, np.ndarray]:
    """A CSV with columns name,left,top,right,bottom in image px: {name: (2, 2) corners}.

    Raises:
        FileNotFoundError: no such file.
        ValueError: other columns, a value that is no number, or a box without an area.
    """
    hint = "choose protocol.crop.source=landmarks, or give protocol.crop.boxes=FILE.csv"
    table = read_csv(Path(path), ("name", "left", "top", "right", "bottom"), hint=hint)
    boxes = {name: row.reshape(2, 2) for name, row in table.rows.items()}
    for name, corners in boxes.items():
        if not (corners[1] > corners[0]).all():
            raise ValueError(
                f"{path}: the box of {name} has no area; expected left < right and top < bottom"
            )
    return boxes
