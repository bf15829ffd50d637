"""Built sets of photos of which 2D landmarks alone are known (`prnet.building.landmarks_only`), and
opening a built set of either kind.

Letters: S shape and E expression coefficients.
"""

from pathlib import Path

import numpy as np
import torch

from prnet.datasets.built import BuiltSet, read_built_info
from prnet.datasets.pictures import FitItem
from prnet.datasets.records import PICTURE_FIELDS
from prnet.geometry import camera

KIND = "landmarks"
# image px, NaN where not seen
RECORD = np.dtype([*PICTURE_FIELDS, ("landmarks", "<f4", (68, 2))])


class LandmarkSet(BuiltSet):
    """A built set without fits, for networks of any face: the coefficients of its items are 0."""

    has_fits = False

    def __init__(self, directory: Path | str, num_shape: int, num_exp: int) -> None:
        super().__init__(directory)
        self.num_shape, self.num_exp = num_shape, num_exp

    def __reduce__(self) -> tuple:
        return LandmarkSet, (self.directory, self.num_shape, self.num_exp)

    def __getitem__(self, index: int) -> FitItem:
        record = self.record(index)
        data = self._picture_bytes(record.values)
        picture, crop_from_picture = record.picture(data, source=self.names[index])
        points = torch.zeros(68, 3, dtype=torch.float64)
        points[:, :2] = torch.from_numpy(record.values["landmarks"].astype(np.float64))
        return FitItem(
            picture=picture,
            crop_from_picture=crop_from_picture,
            crop_from_model=torch.eye(4, dtype=torch.float64),
            shape_params=torch.zeros(self.num_shape),
            exp_params=torch.zeros(self.num_exp),
            landmarks=camera.transform_points(record.crop_from_image(), points)[:, :2],
            has_fit=False,
        )


def open_set(directory: Path | str, face: dict) -> BuiltSet:
    """A built set of either kind, for a network of `face` (`Face.describe`).

    Raises:
        FileNotFoundError, ValueError: not a built set, or made with another face.
    """
    _, layout = read_built_info(directory)
    if layout.get("kind") == KIND:
        return LandmarkSet(directory, face["shape_bases"], face["exp_bases"])
    built = BuiltSet(directory)
    built.require_face(face)
    return built
