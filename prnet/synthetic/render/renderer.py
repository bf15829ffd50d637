"""From parameters to pictures: deferred shading of head, hair and glasses over a background.

Letters: B batch, V vertices, M covered pixels, S side of the picture, R side of the shadow map. A
block is the part of a batch that is drawn at once: a sample on a CPU, where its pixels then stay
in the cache, the whole batch on a GPU.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.faces.embedded import Head
from prnet.faces.face import Face
from prnet.geometry.depth import shift_depth
from prnet.geometry.rasterize import Raster, rasterize
from prnet.sample import Fit
from prnet.synthetic.backgrounds import occluder
from prnet.synthetic.camera.film import develop
from prnet.synthetic.camera.pose import frame
from prnet.synthetic.parameters import FaceParameters, stack
from prnet.synthetic.render.bank import Bank
from prnet.synthetic.render.draw_cpu import draw_cpu
from prnet.synthetic.render.looks import (
    HIDING,
    Person,
    Pixels,
    interpolate,
    layer_in_use,
    look_at,
    persons_of,
    pixel_light,
)
from prnet.synthetic.render.palette import palettes_of
from prnet.synthetic.render.scene import NO_GROUP, Layer, Scene, transform
from prnet.synthetic.render.shading import PixelLight, dot, linear_from_bytes, shade, unit
from prnet.synthetic.render.shadow import ShadowMap
from prnet.synthetic.worn.accessories import CUTOUT, LENS, OPAQUE, Accessories

# A landmark counts as seen when it lies no more than this behind the surface, share of the side:
# lids and lips are folds, whose points lie a little inside.
LANDMARK_TOLERANCE = 0.025
# Pictures are cut into JPEG's blocks of 16 px.
SIZE_STEP = 16
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
    """Draws batches of `FaceParameters`."""

    def __init__(
        self,
        head: Head,
        face: Face,
        *,
        size: int = 256,
        device: torch.device | str = "cpu",
    ) -> None:
        if size < 32 or size % SIZE_STEP:
            raise ValueError(f"size: got {size}, expected a multiple of {SIZE_STEP} px from 32 on")
        self.size = size
        self.device = torch.device(device)
        self.landmark_model = head.morphable_model.at_vertices(head.landmark_index)
        self.scene = Scene(head, face, Accessories(head)).to(self.device)
        self._draws_blocks = self.device.type != "cpu"

    def __call__(self, items: Sequence[FaceParameters], bank: Bank) -> Rendering:
        """Draw samples of one block of textures."""
        with torch.no_grad():
            return self._render(items, bank)

    def fits(self, items: Sequence[FaceParameters]) -> list[Fit]:
        """The samples' fits, in px of the picture."""
        framed = frame(items, self.landmark_model, self.size)
        return [
            Fit(
                item.shape_params,
                item.exp_params,
                angles.numpy(),
                translation.numpy(),
                float(scale),
            )
            for item, scale, angles, translation in zip(
                items, framed.scale, framed.angles, framed.translation, strict=True
            )
        ]

    def _render(self, items: Sequence[FaceParameters], bank: Bank) -> Rendering:
        batch = stack(items, self.device)
        matrix = frame(items, self.landmark_model, self.size).crop_from_model
        matrix = matrix.float().to(self.device)
        vertices = self.scene.vertices(batch.shape_params, batch.exp_params, batch.accessories)
        points = transform(matrix, vertices)
        depth_min = points[:, self.scene.window, 2].amin(1)
        points[..., 2] -= depth_min[:, None]
        matrix = shift_depth(matrix, depth_min)

        # The pictures start as backgrounds, and the blocks draw over them.
        image = bank.background_crops([item.backdrop for item in items], self.size)
        bank.require_textures([item.texture for item in items])
        persons = persons_of(batch)
        if self._draws_blocks:
            attention, depth = self._draw(points, persons, bank.textures, image)
        else:
            palettes = palettes_of(self.scene, persons, bank.textures)
            casts = (batch.light.shadow > 0).tolist()
            seen = [
                draw_cpu(self.scene, *arguments, casts_shadow=cast)
                for *arguments, cast in zip(points, palettes, image, casts, strict=True)
            ]
            attention, depth = map(torch.stack, zip(*seen, strict=True))

        landmarks = points[:, self.scene.head.landmark_index]
        visible = self._visible(landmarks, depth)
        self._add_occluders(items, image, attention, landmarks, visible)
        image = develop(image, batch.film, batch.seed * SEED_STRIDE + batch.index)
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

    def _draw(
        self,
        points: Tensor,  # (b, V, 3), crop px
        person: Person,  # leading b
        textures: Tensor,  # (n, texels, L)
        image: Tensor,  # (b, 3, S, S), drawn over
    ) -> tuple[Tensor, Tensor]:
        """Draw one block; attention and depth, (b, S, S)."""
        scene = self.scene
        normals = scene.normals(points)
        direction = person.light.direction
        shadow_map = ShadowMap(points, scene, direction, _depth, self.size // 2)

        depth = torch.full_like(image[:, 0], -torch.inf)
        attention = torch.zeros_like(depth, dtype=torch.bool)
        for kind in (OPAQUE, CUTOUT, LENS):
            layer = scene.layers[kind]
            if kind != OPAQUE and not layer_in_use(points, layer, self.size):
                continue
            raster = _nearest(points, layer.triangles, self.size)
            near = raster.depth
            pixels, groups = self._pixels(normals, layer, raster, depth)
            if not len(pixels.place):
                continue
            look = look_at(scene, layer, person, textures, pixels, groups)
            light = pixel_light(person.light, pixels.sample)
            casts = person.light.shadow[pixels.sample]
            lit = self._lit(shadow_map, light, casts, pixels, near)
            self._write(image, pixels, shade(look.surface, light, lit), look.alpha, kind)
            hiding = look.alpha >= HIDING
            seen = torch.where(hiding, look.is_face, attention.view(-1).gather(0, pixels.place))
            attention.view(-1).scatter_(0, pixels.place, seen)
            if kind != LENS:
                near = near.view(-1).gather(0, pixels.place)
                far = depth.view(-1).gather(0, pixels.place)
                depth.view(-1).scatter_(0, pixels.place, torch.where(hiding, near, far))
        return attention, depth

    def _pixels(
        self,
        normals: Tensor,  # (b, V, 3)
        layer: Layer,
        raster: Raster,
        depth: Tensor,  # (b, S, S), of what is drawn already
    ) -> tuple[Pixels, list[slice]]:
        """The pixels where a layer is nearer than what is drawn, and each group's slice."""
        triangle, near = raster.triangle.view(-1), raster.depth.view(-1)
        group = layer.group.index_select(0, triangle + 1)
        group = torch.where(near > depth.view(-1), group, NO_GROUP)
        order = torch.sort(group, stable=True).indices
        ends = torch.bincount(group, minlength=NO_GROUP).cumsum(0)[:NO_GROUP].tolist()
        place = order[: ends[-1]]
        sample = place // self.size**2
        groups = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        triangle = triangle.index_select(0, place)
        weights = raster.barycentric.view(-1, 3).index_select(0, place)
        found = self._interpolate(normals, layer, triangle, weights, sample)
        return Pixels(place, sample, layer.kind.index_select(0, triangle), *found), groups

    def _interpolate(
        self,
        normals: Tensor,  # (b, V, 3)
        layer: Layer,
        triangle: Tensor,  # (M,)
        weights: Tensor,  # (M, 3)
        sample: Tensor,  # (M,)
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Corners (M, 3), their weights (M, 3), unit normals (3, M) and attributes (4, M)."""
        corners = layer.triangles.index_select(0, triangle)
        rows = corners + self.scene.num_vertices * sample[:, None]
        normal = unit(interpolate(normals.view(-1, 3), rows, weights))
        # A sheet turns its visible side to the camera.
        flip = layer.two_sided.index_select(0, triangle) & (normal[2] < 0)
        normal = torch.where(flip, -normal, normal)
        return corners, weights, normal, interpolate(self.scene.attributes, corners, weights)

    def _write(
        self,
        image: Tensor,  # (b, 3, S, S), written
        pixels: Pixels,
        radiance: Tensor,  # (3, M)
        alpha: Tensor,  # (M,)
        kind: int,
    ) -> None:
        """Put pixels into the pictures, over what is there."""
        texels = self.size**2
        place = pixels.place + 2 * texels * pixels.sample
        flat = image.view(-1)
        for channel, values in enumerate(radiance):
            index = place + channel * texels
            if kind != OPAQUE:
                values = torch.lerp(flat.gather(0, index), values, alpha)
            flat.scatter_(0, index, values)

    def _lit(
        self,
        shadow_map: ShadowMap,
        light: PixelLight,
        casts: Tensor,  # (M,), 1 where the light casts shadows
        pixels: Pixels,
        depth: Tensor,  # (b, S, S)
    ) -> Tensor:
        """Share of the hard light that arrives, (M,)."""
        within = pixels.place % self.size**2
        row = within // self.size
        column = within - row * self.size
        z = depth.view(-1).index_select(0, pixels.place)
        position = torch.stack([column.to(z), row.to(z), z])
        lit = shadow_map.lit(position, dot(pixels.normal, light.direction), pixels.sample)
        return 1 - casts * (1 - lit)

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
                # The background beside a contour tells nothing.
                farthest = torch.where(near > -torch.inf, torch.minimum(farthest, near), farthest)
        return inside & ((z >= farthest - LANDMARK_TOLERANCE * self.size) | farthest.isinf())

    def _add_occluders(
        self,
        items: Sequence[FaceParameters],
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
            alpha = torch.from_numpy(cover).to(self.device)
            image[number].lerp_(color.to(self.device), alpha)
            clear = alpha < HIDING
            attention[number] &= clear
            column, row = landmarks[number, :, :2].round().clamp(0, self.size - 1).long().t()
            visible[number] &= clear[row, column]

    def _add_borders(
        self, items: Sequence[FaceParameters], image: Tensor, attention: Tensor
    ) -> None:
        """Black where the square reaches beyond the photo it was cut from."""
        place = (torch.arange(self.size, device=self.device) + 0.5) / self.size
        for number, item in enumerate(items):
            if item.framing.border.any():
                left, top, right, bottom = item.framing.border.astype(np.float32).tolist()
                columns = (place >= left) & (place <= 1 - right)
                rows = (place >= top) & (place <= 1 - bottom)
                inside = rows[:, None] & columns
                image[number] *= inside
                attention[number] &= inside


def _nearest(points: Tensor, triangles: Tensor, side: int) -> Raster:  # (b, V, 3); (T, 3)
    return rasterize(points, triangles, height=side, width=side, cull_back_faces=True)


def _depth(points: Tensor, scene: Scene, side: int) -> Tensor:  # (b, V, 3)
    """Of what casts shadows, (b, side, side)."""
    return _nearest(points, scene.casting, side).depth
