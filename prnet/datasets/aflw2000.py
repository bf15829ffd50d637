"""AFLW2000-3D as a test set, and the tables that may come with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from prnet.checks import require_finite
from prnet.datasets.evaluation import EvaluationItem, crop_picture
from prnet.datasets.fits import FacePair, FitFile, fit_matrix, pad_params, read_fit
from prnet.datasets.pictures import CropRule, crop_square, decode_picture
from prnet.files import read_csv, read_npy
from prnet.geometry.camera import pixel_origin_shift


class AFLW2000(Dataset):
    """Image + fit pairs as evaluation items.

    `crop` None reads no more than the truth: no network input, and with `decodes` False not even
    the picture, whose height places a fit in the image. `num_shape` and `num_exp` are those of the
    face.
    """

    def __init__(
        self,
        pairs: list[FacePair],
        *,
        num_shape: int = 0,
        num_exp: int = 0,
        decodes: bool = True,
        needs_landmarks: bool = True,
        crop: CropRule | None = None,
        boxes: Mapping[str, np.ndarray] | None = None,  # name -> (2, 2) corners, image px
    ) -> None:
        self.pairs = pairs
        self.num_shape = num_shape
        self.num_exp = num_exp
        self.decodes = decodes
        self.needs_landmarks = needs_landmarks or (crop is not None and boxes is None)
        self.crop = crop
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> EvaluationItem:
        pair = self.pairs[index]
        file = read_fit(pair.fit)
        if self.needs_landmarks and file.landmarks is None:
            raise ValueError(
                f"{pair.fit}: no pt3d_68, the 68 landmarks of AFLW2000-3D; without them choose "
                "protocol.landmarks=map, and for a network protocol.crop.source=box"
            )
        image_from_model = network_input = None
        if self.decodes or self.crop is not None:
            if not pair.picture.is_file():
                raise FileNotFoundError(f"{pair.picture}: missing picture of {pair.fit.name}")
            data = pair.picture.read_bytes()
            picture = decode_picture(data, source=pair.picture)
            image_from_model = fit_matrix(file.fit, picture.shape[0])
            if self.crop is not None:
                center, size = crop_square(
                    self._framed_points(pair, file), self.crop, seed_name=pair.name
                )
                network_input = crop_picture(
                    data, picture, center, size, self.crop, source=pair.picture
                )
        return EvaluationItem(
            name=pair.name,
            yaw_deg=float(np.degrees(file.fit.angles[1])),
            angles=torch.from_numpy(file.fit.angles),
            landmarks=None if file.landmarks is None else torch.from_numpy(file.landmarks),
            shape_params=torch.from_numpy(pad_params(file.fit.shape_params, self.num_shape)),
            exp_params=torch.from_numpy(pad_params(file.fit.exp_params, self.num_exp)),
            image_from_model=image_from_model,
            network_input=network_input,
        )

    def _framed_points(self, pair: FacePair, file: FitFile) -> np.ndarray:
        """What the crop is placed around, (K, 2 or more), image px."""
        if self.boxes is None:
            return file.landmarks[:, :2] + np.array(pixel_origin_shift("matlab", "zero_based"))
        return self.boxes[pair.name]


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
        return {name: float(yaw_deg) for name, (yaw_deg,) in rows.items()}
    values = read_npy(path, hint=hint)
    if values.shape != (len(names),) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: holds {values.dtype} {values.shape}, expected degrees ({len(names)},), one "
            "for each image in the order of the file names; it goes with the whole data set"
        )
    require_finite(f"{path}:", values)
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
