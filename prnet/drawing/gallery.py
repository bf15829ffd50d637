"""What a network made of some test images, to look at: the first ones and the worst, each with its
name and its error, the truth beside the prediction."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.datasets.evaluation import EvaluationBatch
from prnet.datasets.pictures import write_picture
from prnet.drawing.pictures import draw_heading, draw_landmarks, draw_mesh, tile, to_picture
from prnet.faces.face import Face
from prnet.geometry import camera

COUNT = 8
# Faces a row of the sheet, each two pictures wide.
FACES_A_ROW = 4
NAME_HEIGHT, HEADING_HEIGHT = 28, 44  # px


class Shown(NamedTuple):
    """One image kept. Points are in crop px; None where there is no truth of the kind."""

    name: str
    error: float | None  # None: no metric was computed
    photo: np.ndarray  # (H, W, 3), uint8
    landmarks: Tensor  # (68, 3)
    mesh: Tensor  # (P, 3), at the face pixels of the network's face
    true_landmarks: Tensor | None  # (68, 2 or 3)
    true_mesh: Tensor | None  # (P, 3), at the face pixels of the face of the truth


class Gallery:
    """Collects the first `count` images and the `count` of the largest error."""

    def __init__(self, face: Face, truth_face: Face | None = None, *, count: int = COUNT) -> None:
        """`face`: of the network; `truth_face`: of the fits, None where they are not decoded."""
        self.face = face
        self.truth_face = truth_face
        self.count = count
        self.total = 0
        self.metric = ""
        self.first: list[Shown] = []
        self.worst: list[Shown] = []

    def add(
        self,
        batch: EvaluationBatch,
        images: Tensor,  # (B, 3, H, W), RGB in [0, 1], what the network saw
        decoded: Callable[[int], tuple[Tensor, Tensor]],
        errors: Mapping[str, Tensor],  # title of a metric -> (B,)
        true_landmarks: Tensor | None,  # (B, 68, 2 or 3), zero-based image px
    ) -> None:
        """Look at one batch. The first metric tells the worst. `decoded` is asked for the images
        that are kept: by their place in the batch landmarks (68, 3) and mesh (P, 3), crop px."""
        self.metric = next(iter(errors), "")
        ranks = errors[self.metric].tolist() if errors else [None] * len(images)
        for index, error in enumerate(ranks):
            least = self.worst[-1].error if len(self.worst) == self.count else None
            is_first = len(self.first) < self.count
            if not (is_first or least is None or (error is not None and error > least)):
                continue
            shown = Shown(
                batch.names[index],
                error,
                to_picture(images[index]),
                *(points.float().cpu() for points in decoded(index)),
                *self._truth(batch, index, true_landmarks),
            )
            if is_first:
                self.first.append(shown)
            self.worst = sorted([*self.worst, shown], key=lambda one: -(one.error or 0))
            self.worst = self.worst[: self.count]
        self.total += len(images)

    def _truth(
        self, batch: EvaluationBatch, index: int, landmarks: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The true landmarks and the true mesh of one image, in crop px."""
        crop_from_image = camera.invert_affine(batch.image_from_crop[index : index + 1])
        if landmarks is not None:
            flat = torch.nn.functional.pad(landmarks[index, :, :2].double(), (0, 1))[None]
            landmarks = camera.transform_points(crop_from_image, flat)[0].cpu()
        if self.truth_face is None or batch.image_from_model is None:
            return landmarks, None
        face, one = self.truth_face, slice(index, index + 1)
        crop_from_model = crop_from_image @ batch.image_from_model[one]
        # The face stays where it is, which need not be where the network runs.
        device = face.uv.face_index.device
        fit = (batch.shape_params[one].to(device), batch.exp_params[one].to(device))
        vertices, crop_from_model = face.morphable_model(*fit).double(), crop_from_model.to(device)
        points = face.uv.at_texels(vertices, face.uv.face_index)
        return landmarks, camera.transform_points(crop_from_model, points)[0].cpu()

    def write(self, path: Path | str) -> None:
        """The sheet: a block of rows of the first images, then one of the worst. Of every image
        landmarks and mesh, at the left as predicted, at the right the truth."""
        blocks = {f"the first {len(self.first)} of {self.total} images": self.first}
        if self.metric:
            worst = f"the worst {len(self.worst)} of {self.total} by {self.metric}"
            blocks[worst] = self.worst
        columns = min(FACES_A_ROW, len(self.first))
        rows = []
        for heading, block in blocks.items():
            faces = [self._drawn(shown) for shown in block]
            sheet = tile(faces, columns=columns)
            text = f"{heading}; left: predicted, right: truth"
            rows.append(draw_heading(text, width=sheet.shape[1], height=HEADING_HEIGHT))
            rows.append(sheet)
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
        write_picture(path, np.concatenate(padded))

    def _drawn(self, shown: Shown) -> np.ndarray:
        """Name and error over two by two pictures, a dark edge around them."""
        true_landmarks = true_mesh = shown.photo
        if shown.true_landmarks is not None:
            true_landmarks = draw_landmarks(shown.photo, shown.true_landmarks)
        if shown.true_mesh is not None:
            triangles = self.truth_face.uv.grid_triangles
            true_mesh = draw_mesh(shown.photo, shown.true_mesh, triangles)
        pictures = [
            draw_landmarks(shown.photo, shown.landmarks),
            true_landmarks,
            draw_mesh(shown.photo, shown.mesh, self.face.uv.grid_triangles),
            true_mesh,
        ]
        block = tile(pictures, columns=2)
        text = shown.name if shown.error is None else f"{shown.name}: {shown.error:.2f}"
        name = draw_heading(text, width=block.shape[1], height=NAME_HEIGHT)
        return np.pad(np.concatenate([name, block]), ((0, 6), (0, 6), (0, 0)))
