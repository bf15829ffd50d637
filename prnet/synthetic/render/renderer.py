"""From parameters to pictures: a sample's head and what it wears, drawn over its background.

Letters: B batch, V vertices, S side of the picture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.faces.embedded import Head
from prnet.faces.face import Face
from prnet.geometry.depth import shift_depth
from prnet.sample import Fit
from prnet.synthetic.backgrounds import occluder
from prnet.synthetic.camera.develop import develop
from prnet.synthetic.camera.lens import SIZE_STEP
from prnet.synthetic.camera.pose import frame
from prnet.synthetic.parameters import SampleParameters, stack
from prnet.synthetic.render.bank import Bank
from prnet.synthetic.render.draw import draw_sample
from prnet.synthetic.render.palette import palettes_of
from prnet.synthetic.render.pixels import HIDING
from prnet.synthetic.render.scene import Scene, transform
from prnet.synthetic.srgb import linear_from_bytes
from prnet.synthetic.worn.accessories import Accessories

# A landmark counts as seen when it lies no more than this behind the surface, share of the side:
# lids and lips are folds, whose points lie a little inside.
LANDMARK_TOLERANCE = 0.025
# Keeps the noise of neighbouring seeds apart.
SEED_STRIDE = 1_000_003


class Rendering(NamedTuple):
    """Pictures and what is true of them."""

    image: Tensor  # (B, 3, S, S), sRGB in [0, 1]
    attention: Tensor  # (B, S, S), bool: visible face
    landmarks: Tensor  # (B, 68, 3), crop px
    landmarks_visible: Tensor  # (B, 68), bool
    crop_from_model: Tensor  # (B, 4, 4), z shifted to a minimum of 0 over the face
    shape_params: Tensor  # (B, 80)
    exp_params: Tensor  # (B, 51)
    index: Tensor  # (B,), int64, of the samples in their stream


class Renderer:
    """Draws batches of `SampleParameters`."""

    def __init__(self, head: Head, face: Face, *, size: int = 256) -> None:
        if size < 32 or size % SIZE_STEP:
            raise ValueError(f"size: got {size}, expected a multiple of {SIZE_STEP} px from 32 on")
        self.size = size
        self.landmark_model = head.morphable_model.at_vertices(head.landmark_index)
        self.scene = Scene(head, face, Accessories(head))

    def fits(self, items: Sequence[SampleParameters]) -> list[Fit]:
        """The samples' fits, in px of the picture."""
        framed = frame(items, self.landmark_model, self.size)
        angles, translations = framed.angles.numpy(), framed.translation.numpy()
        poses = zip(angles, translations, framed.scale.tolist(), strict=True)
        return [
            Fit(item.shape_params, item.exp_params, *pose)
            for item, pose in zip(items, poses, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, items: Sequence[SampleParameters], bank: Bank) -> Rendering:
        """Draw samples of one block of textures."""
        batch = stack(items)
        matrix = frame(items, self.landmark_model, self.size).crop_from_model.float()
        vertices = self.scene.vertices(batch.shape_params, batch.exp_params, batch.accessories)
        points = transform(matrix, vertices)
        depth_min = points[:, self.scene.window, 2].amin(1)
        points[..., 2] -= depth_min[:, None]
        matrix = shift_depth(matrix, depth_min)

        # The pictures start as backgrounds, and the samples are drawn over them.
        image = bank.background_crops([item.backdrop for item in items], self.size)
        bank.require_textures([item.texture for item in items])
        palettes = palettes_of(self.scene, batch, bank.textures)
        casts = (batch.light.shadow > 0).tolist()
        seen = [
            draw_sample(self.scene, *arguments, casts_shadow=cast)
            for *arguments, cast in zip(points, palettes, image, casts, strict=True)
        ]
        attention, depth = map(torch.stack, zip(*seen, strict=True))

        landmarks = points[:, self.scene.head.landmark_index]
        visible = self._visible(landmarks, depth)
        self._add_occluders(items, image, attention, landmarks, visible)
        develop(image, batch.film, batch.seed * SEED_STRIDE + batch.index)
        self._add_borders(items, image, attention)
        return Rendering(
            image,
            attention,
            landmarks,
            visible,
            matrix,
            batch.shape_params,
            batch.exp_params,
            batch.index,
        )

    def _visible(
        self,
        landmarks: Tensor,  # (B, 68, 3)
        depth: Tensor,  # (B, S, S)
    ) -> Tensor:
        """Landmarks in the picture with nothing in front of them, (B, 68) bool."""
        last = self.size - 1
        x, y, z = landmarks.unbind(-1)
        inside = (x >= 0) & (x <= last) & (y >= 0) & (y <= last)
        column, row = x.floor().clamp(0, last).long(), y.floor().clamp(0, last).long()
        farthest = torch.full_like(z, torch.inf)
        for down in (0, 1):
            for right in (0, 1):
                place = (row + down).clamp(max=last) * self.size + (column + right).clamp(max=last)
                near = depth.flatten(1).gather(1, place)
                # Background beside a contour does not say what lies in front of the landmark.
                farthest = torch.where(near > -torch.inf, torch.minimum(farthest, near), farthest)
        return inside & ((z >= farthest - LANDMARK_TOLERANCE * self.size) | farthest.isinf())

    def _add_occluders(
        self,
        items: Sequence[SampleParameters],
        image: Tensor,  # (B, 3, S, S), written
        attention: Tensor,  # (B, S, S), written
        landmarks: Tensor,  # (B, 68, 3)
        visible: Tensor,  # (B, 68), written
    ) -> None:
        """Flat things between camera and face, in the samples that have one."""
        for number, item in enumerate(items):
            if item.occluder_seed < 0:
                continue
            generator = np.random.Generator(np.random.PCG64(item.occluder_seed))
            picture, cover = occluder(generator, self.size)
            color = linear_from_bytes(picture)
            alpha = torch.from_numpy(cover)
            image[number].lerp_(color, alpha)
            clear = alpha < HIDING
            attention[number] &= clear
            column, row = landmarks[number, :, :2].round().clamp(0, self.size - 1).long().t()
            visible[number] &= clear[row, column]

    def _add_borders(
        self, items: Sequence[SampleParameters], image: Tensor, attention: Tensor
    ) -> None:
        """Black where the square reaches beyond the photo it was cut from."""
        place = (torch.arange(self.size) + 0.5) / self.size
        for number, item in enumerate(items):
            if item.framing.border.any():
                left, top, right, bottom = item.framing.border.astype(np.float32).tolist()
                columns = (place >= left) & (place <= 1 - right)
                rows = (place >= top) & (place <= 1 - bottom)
                inside = rows[:, None] & columns
                image[number] *= inside
                attention[number] &= inside
