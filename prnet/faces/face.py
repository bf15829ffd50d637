"""What every source of faces offers: a morphable model, its mesh, its UV layout, its landmarks."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.uv import UVLayout

# The classes every face divides its vertices into.
REGIONS = ("nose", "eyes", "mouth", "rest")


def fingerprint_of(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of the content of arrays by name, however a file holds them."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:12]


class Face(NamedTuple):
    """One face model. Letters: N vertices, T triangles, S shape and E expression bases.

    What a source does not know is None.
    """

    name: str
    morphable_model: MorphableModel  # float32, model frame
    uv: UVLayout
    triangles: Tensor  # (T, 3), outward in the y-down image frame
    landmark_index: Tensor  # (68,), vertices in iBUG order
    regions: dict[str, Tensor]  # (N,) bool each; `REGIONS`, which share out all vertices, and more
    mirror_index: Tensor | None = None  # (N,), the vertex on the other side; itself on the middle
    shape_std: Tensor | None = None  # (S,), standard deviation of each coefficient among people
    exp_std: Tensor | None = None  # (E,)
    exp_names: tuple[str, ...] | None = None
    fingerprint: str | None = None  # of what it was read from: two models may have equal sizes

    def describe(self) -> dict:
        """What a data set or a checkpoint must agree on, as plain values."""
        described = {
            "name": self.name,
            "vertices": self.morphable_model.num_vertices,
            "shape_bases": self.morphable_model.num_shape,
            "exp_bases": self.morphable_model.num_exp,
            "face_pixels": int(self.uv.face_index.numel()),
        }
        return described | ({"fingerprint": self.fingerprint} if self.fingerprint else {})

    def to(self, device: torch.device | str) -> "Face":
        """The face on another device. Modules move in place, as torch's do."""
        optional = ("mirror_index", "shape_std", "exp_std")
        moved = {name: getattr(self, name) for name in ("triangles", "landmark_index", *optional)}
        return self._replace(
            morphable_model=self.morphable_model.to(device),
            uv=self.uv.to(device),
            regions={name: region.to(device) for name, region in self.regions.items()},
            **{name: None if t is None else t.to(device) for name, t in moved.items()},
        )
