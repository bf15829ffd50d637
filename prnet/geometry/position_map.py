"""Coefficients -> position maps: the vertices that the map needs in one product, then its texels.

Letters: B batch, C coefficients (shape then expression), V vertices, P texels decoded, H W = map.
"""

import numpy as np
import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.geometry import camera
from prnet.geometry.compiled import in_memory
from prnet.geometry.decoding import FixedPoint, fill_texels, mark_pixels
from prnet.geometry.landmark_map import swap_sides
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.uv import UVLayout, interpolate

# A batch this small takes as long as its bases take to be read, which their fixed-point copy
# halves; bases of fewer bytes stay in the processor's cache.
FEW = 3
CACHED_BYTES = 2**24


def pixels_of(
    points: Tensor,  # (B, P, 2 or more), crop px
    *,
    size: int,
) -> Tensor:
    """The pixels that points fall into, from outside those of the border, (B, size, size) bool."""
    pixel = points[..., :2].clamp(0, size - 1).long()
    marked = torch.zeros(len(points), size * size, dtype=torch.bool, device=points.device)
    marked.scatter_(1, pixel[..., 1] * size + pixel[..., 0], True)
    return marked.unflatten(1, (size, size))


def map_of_mesh(
    uv: UVLayout,
    vertices: Tensor,  # (N, 3), model frame
    crop_from_model: Tensor,  # (4, 4)
) -> np.ndarray:
    """The position map of one mesh in memory, (H, W, 3), crop px, float32: moved and interpolated
    in one compiled pass."""
    side = uv.resolution
    places = np.broadcast_to(np.arange(side * side, dtype=np.uint32), (2, side * side))
    maps = np.zeros((1, 3, side * side), np.float32)
    fill_texels(
        np.zeros(vertices.shape, np.float32),
        vertices[None].float().contiguous().numpy(),
        crop_from_model[None].float().contiguous().numpy(),
        uv.vertex_index.flatten(0, 1).numpy().astype(np.uint32),
        uv.barycentric.flatten(0, 1).float().numpy(),
        np.ascontiguousarray(places),
        np.zeros(1, bool),
        maps,
    )
    return np.ascontiguousarray(maps[0].T).reshape(side, side, 3)


class PositionMapDecoder(nn.Module):
    """Position maps straight from a fit's coefficients.

    Only vertices of triangles with a texel are decoded: one (B, C) x (C, 3 V) product, one affine
    map a sample and an interpolation. In memory, where nothing is differentiated, the last two are
    a compiled pass, and up to `FEW` faces of a large model are read from bases in fixed point
    (`FixedPoint`: within 1e-3 px for the BFM).

    `texels` "face" decodes the face mask (and its mirror image, for flipped samples) and leaves
    zero elsewhere; "all" decodes all H W texels, for losses that weigh the neck.
    """

    def __init__(
        self,
        model: MorphableModel,
        uv: UVLayout,
        *,
        texels: str = "face",
        landmark_index: Tensor | None = None,  # (68,), vertices; for `landmarks`
    ) -> None:
        super().__init__()
        require_choice("texels", texels, ("face", "all"))
        self.resolution = uv.resolution
        wanted = uv.face_mask | uv.face_mask.flip(1)
        if texels == "all":
            wanted = torch.ones_like(wanted)
        texel_index = wanted.flatten().nonzero().squeeze(1)
        column = texel_index % uv.resolution
        used, corners = uv.vertex_index.flatten(0, 1)[texel_index].unique(return_inverse=True)
        self.model = model.at_vertices(used)
        places = torch.stack([texel_index, texel_index + uv.resolution - 1 - 2 * column])
        self.register_buffer("places", places.int(), persistent=False)  # (2, P), second mirrored
        self.register_buffer("corners", corners.int(), persistent=False)  # (P, 3), among the V
        weights = uv.barycentric.flatten(0, 1)[texel_index].to(model.mean.dtype)
        self.register_buffer("weights", weights, persistent=False)  # (P, 3)
        self.register_buffer("face_texels", uv.face_index.clone(), persistent=False)
        rows = torch.searchsorted(texel_index, uv.face_index)
        self.register_buffer("face_rows", rows, persistent=False)  # (F,), of these among the P
        self.register_buffer("landmark_texels", uv.landmark_texels, persistent=False)
        at_landmarks = None if landmark_index is None else model.at_vertices(landmark_index)
        self.at_landmarks = at_landmarks
        self.fixed_point: FixedPoint | None = None

    def forward(
        self,
        shape_params: Tensor,  # (B, S)
        exp_params: Tensor,  # (B, E)
        crop_from_model: Tensor,  # (B, 4, 4)
        *,
        mirrored: Tensor | None = None,  # (B,), bool
    ) -> Tensor:
        """Position maps (B, 3, H, W), crop px.

        Where `mirrored`, `crop_from_model` is the edge into a horizontally flipped crop; the texels
        swap sides, since the subject's left cheek is now seen as the right one.

        Raises:
            ValueError: the coefficients are not as many as the bases.
        """
        offsets = self.offsets(shape_params, exp_params)
        return self.maps(offsets, crop_from_model, mirrored=mirrored)

    def shape_map(
        self,
        offsets: Tensor,  # (B, V, 3), of `offsets`
        *,
        mirrored: Tensor | None = None,  # (B,), bool
    ) -> Tensor:
        """The faces before any pose, (B, 3, H, W), model frame; where `mirrored`, mirrored."""
        matrix = torch.eye(4, dtype=offsets.dtype, device=offsets.device)
        matrix = matrix.repeat(len(offsets), 1, 1)
        if mirrored is not None:
            matrix[:, 0, 0] = torch.where(mirrored, -1.0, 1.0)
        return self.maps(offsets, matrix, mirrored=mirrored)

    def points_of(self, position_map: Tensor) -> tuple[Tensor, Tensor]:  # (B, C, H, W)
        """A map at the face's texels, (B, P, C), and at the cells of the landmarks, (B, 68, C)."""
        texels = position_map.flatten(2).mT
        return texels[:, self.face_texels], texels[:, self.landmark_texels]

    def face_pixels(
        self,
        offsets: Tensor,  # (B, V, 3), of `offsets`
        matrix: Tensor,  # (B, 4, 4)
        *,
        size: int,
    ) -> Tensor:
        """`pixels_of` the face's texels as `maps` has them, (B, size, size) bool."""
        if not in_memory(offsets, matrix):
            return pixels_of(self.points_of(self.maps(offsets, matrix))[0], size=size)
        marked = torch.zeros(len(offsets), size, size, dtype=torch.bool)
        mark_pixels(
            self.model.mean.numpy(),
            offsets.detach().contiguous().numpy(),
            matrix.detach().to(offsets.dtype).contiguous().numpy(),
            self.corners[self.face_rows].numpy().view(np.uint32),
            self.weights[self.face_rows].numpy(),
            marked.numpy(),
        )
        return marked

    def landmarks(
        self,
        shape_params: Tensor,  # (B, S)
        exp_params: Tensor,  # (B, E)
        crop_from_model: Tensor,  # (B, 4, 4)
        *,
        mirrored: Tensor | None = None,  # (B,), bool
    ) -> Tensor:
        """The 68 landmarks as vertices of the mesh, (B, 68, 3), crop px; as `forward` where
        mirrored."""
        vertices = self.at_landmarks(shape_params, exp_params)
        points = camera.transform_points(crop_from_model, vertices)
        return points if mirrored is None else swap_sides(points, mirrored)

    def offsets(
        self,
        shape_params: Tensor,  # (B, S)
        exp_params: Tensor,  # (B, E)
    ) -> Tensor:
        """The vertices less their mean, (B, V, 3), model frame: what all maps of a face share.

        Raises:
            ValueError: as `forward`.
        """
        model = self.model
        coefficients = torch.cat([shape_params, exp_params], -1)
        if coefficients.shape[1] != len(model.basis):
            raise ValueError(
                f"got {shape_params.shape[1]} shape and {exp_params.shape[1]} expression "
                f"coefficients, the face has {model.num_shape} and {model.num_exp} bases"
            )
        basis = model.basis.flatten(1)
        if not in_memory(coefficients, basis):
            return (coefficients @ basis).unflatten(1, (-1, 3))
        few = len(coefficients) <= FEW and basis.nbytes > CACHED_BYTES
        if few and coefficients.dtype == basis.dtype == torch.float32:
            if self.fixed_point is None:
                self.fixed_point = FixedPoint.of(basis.numpy())
            offsets = self.fixed_point.weighed(coefficients.numpy())
        else:
            # numpy's product of so few rows takes half as long as torch's on some processors.
            offsets = coefficients.detach().numpy() @ basis.numpy()
        return torch.from_numpy(offsets).unflatten(1, (-1, 3))

    def maps(
        self,
        offsets: Tensor,  # (B, V, 3), of `offsets`
        matrix: Tensor,  # (B, 4, 4)
        *,
        mirrored: Tensor | None = None,  # (B,), bool
    ) -> Tensor:
        """Vertices through the matrix, at their texels, (B, 3, H, W); `mirrored` as `forward`."""
        side, mean = self.resolution, self.model.mean
        shape = len(offsets), 3, side * side
        if in_memory(offsets, matrix):
            # numpy's zeros come in large pages, torch's page by page, which costs as much again.
            maps = torch.from_numpy(np.zeros(shape, offsets.detach().numpy().dtype))
            flips = np.zeros(len(maps), bool) if mirrored is None else mirrored.numpy()
            corners, places = (
                table.numpy().view(np.uint32) for table in (self.corners, self.places)
            )
            fill_texels(
                mean.numpy(),
                offsets.detach().contiguous().numpy(),
                matrix.detach().to(maps.dtype).contiguous().numpy(),
                corners,
                self.weights.numpy(),
                places,
                flips,
                maps.numpy(),
            )
            return maps.unflatten(-1, (side, side))
        vertices = camera.transform_points(matrix, mean + offsets)
        points = interpolate(vertices, self.corners, self.weights).mT  # (B, 3, P)
        if points.shape[-1] == side * side:
            maps = points
        else:
            maps = points.new_zeros(shape)
            maps[:, :, self.places[0]] = points
        maps = maps.unflatten(-1, (side, side))
        if mirrored is not None:
            maps = torch.where(mirrored[:, None, None, None], maps.flip(-1), maps)
        return maps
