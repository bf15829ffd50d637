"""What every source of faces offers: a morphable model, its mesh, its UV layout, its landmarks."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.uv import UVLayout


class Face(NamedTuple):
    """One face model. Letters: N vertices, T triangles."""

    name: str
    morphable_model: MorphableModel  # float32, model frame
    uv: UVLayout
    triangles: Tensor  # (T, 3), outward in the y-down image frame
    landmark_index: Tensor  # (68,), vertices in iBUG order

    def describe(self) -> dict:
        """What a data set or a checkpoint must agree on, as plain values."""
        return {
            "name": self.name,
            "vertices": self.morphable_model.num_vertices,
            "shape_bases": self.morphable_model.num_shape,
            "exp_bases": self.morphable_model.num_exp,
            "face_pixels": int(self.uv.face_index.numel()),
        }

    def to(self, device: torch.device | str) -> "Face":
        """The face on another device. Modules move in place, as torch's do."""
        return self._replace(
            morphable_model=self.morphable_model.to(device),
            uv=self.uv.to(device),
            triangles=self.triangles.to(device),
            landmark_index=self.landmark_index.to(device),
        )


def require_finite(name: str, array: np.ndarray, source: object) -> None:
    """Raise ValueError where a model file holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise ValueError(f"{source}: {name} holds values that are not finite; the file is damaged")
