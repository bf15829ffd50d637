"""Landmarks that somebody else found, for networks that take them beside the image.

Letters: B batch.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prnet.datasets.evaluation import EvaluationBatch
from prnet.datasets.landmark_files import files_of_landmarks, read_landmarks
from prnet.geometry import camera


class GivenLandmarks:
    """The landmarks of the images of a test set, by name."""

    def __init__(self, path: Path | str) -> None:
        """From a table of many images or a folder of files, pixel origin "zero_based" where they
        have none of their own (`prnet.datasets.landmark_files`).

        Raises:
            FileNotFoundError: no such file or folder, or nothing in it.
            ValueError: a file is not what it should be.
        """
        self.path = path
        self.by_name: dict[str, np.ndarray] = {}
        for file in files_of_landmarks(path):
            self.by_name |= read_landmarks(file, aflw_points=True)

    def of(self, batch: EvaluationBatch, *, pixel_origin: str) -> tuple[Tensor, Tensor]:
        """In crop px, (B, 68, 2), and which are seen, (B, 68), on the batch's device;
        `pixel_origin` is that of the network's labels.

        Raises:
            ValueError: an image has none.
        """
        lacking = [name for name in batch.names if name not in self.by_name]
        if lacking:
            raise ValueError(f"landmarks={self.path}: none for {lacking[0]}")
        points = np.stack([self.by_name[name][:, :2] for name in batch.names])
        device = batch.image_from_crop.device
        image_points = torch.from_numpy(points).to(device)
        image_points = camera.convert_origin(image_points, "zero_based", pixel_origin)
        seen = image_points.isfinite().all(-1)
        flat = torch.cat([image_points, torch.zeros_like(image_points[..., :1])], -1)
        crop_from_image = camera.invert_affine(batch.image_from_crop)
        crop_points = camera.transform_points(crop_from_image, flat)[..., :2]
        return torch.where(seen[..., None], crop_points, 0.0).float(), seen
