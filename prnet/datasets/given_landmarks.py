"""Landmarks that somebody else found, for networks that take them beside the image.

Letters: B batch.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prnet.checks import name_list
from prnet.datasets.evaluation import EvaluationBatch
from prnet.datasets.landmark_files import SUFFIXES, files_of_landmarks, read_landmarks
from prnet.files import visible_files
from prnet.geometry import camera


class GivenLandmarks:
    """The landmarks of images by their names in a test set or a built set."""

    def __init__(self, path: Path | str) -> None:
        """From a table of many images or a folder of files, pixel origin "zero_based" where they
        have none of their own (`prnet.datasets.landmark_files`). Of a file in a sub-folder the
        name is SUB-FOLDER/NAME, as in a built set.

        Raises:
            FileNotFoundError: no such file or folder, or nothing in it.
            ValueError: a file is not what it should be.
        """
        self.path = path
        self.by_name: dict[str, np.ndarray] = {}
        below = visible_files(path, SUFFIXES, below=True) if Path(path).is_dir() else []
        for file in below or files_of_landmarks(path):
            folder = file.parent.relative_to(path) if below else Path()
            found = read_landmarks(file, aflw_points=True)
            self.by_name |= {(folder / name).as_posix(): points for name, points in found.items()}

    def points(self, names: Sequence[str]) -> np.ndarray:
        """Of these images, (N, 68, 2), image px, "zero_based"; NaN where not seen.

        Raises:
            ValueError: an image has none, or none that is seen.
        """
        lacking = [name for name in names if name not in self.by_name]
        if lacking:
            raise ValueError(
                f"landmarks={self.path}: none for {name_list(lacking)} of {len(names)} images"
            )
        points = np.stack([self.by_name[name][:, :2] for name in names])
        unseen = np.isnan(points).any(2).all(1)
        if unseen.any():
            raise ValueError(
                f"landmarks={self.path}: not one point is seen of "
                f"{name_list(names[index] for index in np.flatnonzero(unseen))}"
            )
        return points

    def of(self, batch: EvaluationBatch, *, pixel_origin: str) -> tuple[Tensor, Tensor]:
        """In crop px, (B, 68, 2), and which are seen, (B, 68), on the batch's device;
        `pixel_origin` is that of the network's labels.

        Raises:
            ValueError: an image has none.
        """
        device = batch.image_from_crop.device
        image_points = torch.from_numpy(self.points(batch.names)).to(device)
        image_points = camera.convert_origin(image_points, "zero_based", pixel_origin)
        seen = image_points.isfinite().all(-1)
        flat = torch.cat([image_points, torch.zeros_like(image_points[..., :1])], -1)
        crop_from_image = camera.invert_affine(batch.image_from_crop)
        crop_points = camera.transform_points(crop_from_image, flat)[..., :2]
        return torch.where(seen[..., None], crop_points, 0.0).float(), seen
