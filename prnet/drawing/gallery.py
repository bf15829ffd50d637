"""What a network made of some test images, to look at: the first ones and the worst."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.datasets.pictures import write_picture
from prnet.drawing.pictures import draw_landmarks, draw_mesh, tile, to_picture
from prnet.faces.face import Face

COLUMNS = 8


class Shown(NamedTuple):
    """One image kept."""

    error: float
    photo: np.ndarray  # (H, W, 3), uint8
    position_map: Tensor  # (3, H, W), crop px


class Gallery:
    """Collects the first `count` images and the `count` of the largest error."""

    def __init__(self, face: Face, *, count: int = COLUMNS) -> None:
        self.face = face
        self.count = count
        self.first: list[Shown] = []
        self.worst: list[Shown] = []

    def add(
        self,
        images: Tensor,  # (B, 3, H, W), RGB in [0, 1]
        position_maps: Tensor,  # (B, 3, H, W), crop px
        errors: Mapping[str, Tensor],  # metric -> (B,)
    ) -> None:
        """Look at one batch. The first metric tells the worst; where there is none, all are 0."""
        ranks = next(iter(errors.values()), torch.zeros(len(images))).tolist()
        least = self.worst[-1].error if len(self.worst) == self.count else -float("inf")
        for image, position_map, error in zip(images, position_maps, ranks, strict=True):
            if len(self.first) == self.count and error <= least:
                continue
            shown = Shown(error, to_picture(image), position_map.float().cpu())
            if len(self.first) < self.count:
                self.first.append(shown)
            self.worst.append(shown)
        self.worst = sorted(self.worst, key=lambda shown: -shown.error)[: self.count]

    def write(self, path: Path | str) -> None:
        """Landmarks over photos and meshes over photos: the first images, then the worst."""
        uv = self.face.uv
        pictures = []
        for row in (self.first, self.worst):
            maps = torch.stack([shown.position_map for shown in row]).to(uv.face_index.device)
            for shown, landmarks in zip(row, uv.landmarks(maps), strict=True):
                pictures.append(draw_landmarks(shown.photo, landmarks))
            for shown, vertices in zip(row, uv.face_points(maps), strict=True):
                pictures.append(draw_mesh(shown.photo, vertices, uv.grid_triangles))
        write_picture(path, tile(pictures, columns=len(self.first)))
