"""Coefficients -> position maps in one GEMM: the bases composed with the UV layout, once.

Letters: B batch, C coefficients (shape then expression), P texels decoded, H W = map.
"""

import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.geometry import camera
from prnet.geometry.landmark_map import swap_sides
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.uv import UVLayout

# Bases that are resampled at once: few enough that they stay in the processor's cache.
CHUNK = 8


class PositionMapDecoder(nn.Module):
    """Position maps straight from a fit's coefficients.

    Interpolation on a triangle and the projection are both affine, so they commute: the mean and
    every basis are resampled to UV once, and a batch costs one (B, C) x (C, 3 P) product and one
    affine map a sample.

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
        self.num_shape = model.num_shape
        self.num_exp = model.num_exp
        wanted = uv.face_mask | uv.face_mask.flip(1)
        if texels == "all":
            wanted = torch.ones_like(wanted)
        texel_index = wanted.flatten().nonzero().squeeze(1)
        mean = uv.at_texels(model.mean[None], texel_index)[0].T.contiguous()  # (3, P)
        basis = model.mean.new_zeros(len(model.basis), 3, len(texel_index))
        for rows, vectors in zip(basis.split(CHUNK), model.basis.split(CHUNK), strict=True):
            rows.copy_(uv.at_texels(vectors, texel_index).transpose(1, 2))
        self.register_buffer("texel_index", texel_index, persistent=False)
        self.register_buffer("face_texels", uv.face_index.clone(), persistent=False)
        self.register_buffer("landmark_texels", uv.landmark_texels, persistent=False)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("basis", basis, persistent=False)  # (C, 3, P)
        at_landmarks = None if landmark_index is None else model.at_vertices(landmark_index)
        self.at_landmarks = at_landmarks

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
        points = self._points(shape_params, exp_params)
        points = torch.baddbmm(crop_from_model[:, :3, 3:], crop_from_model[:, :3, :3], points)
        return self._to_map(points, mirrored)

    def shape_map(
        self,
        shape_params: Tensor,  # (B, S)
        exp_params: Tensor,  # (B, E)
        *,
        mirrored: Tensor | None = None,  # (B,), bool
    ) -> Tensor:
        """The faces before any pose, (B, 3, H, W), model frame; where `mirrored`, mirrored.

        Raises:
            ValueError: as `forward`.
        """
        maps = self._to_map(self._points(shape_params, exp_params), mirrored)
        if mirrored is None:
            return maps
        sign = torch.ones(len(maps), 3, 1, 1, dtype=maps.dtype, device=maps.device)
        sign[:, 0, 0, 0] = torch.where(mirrored, -1.0, 1.0)
        return sign * maps

    def points_of(self, position_map: Tensor) -> tuple[Tensor, Tensor]:  # (B, C, H, W)
        """A map at the face's texels, (B, P, C), and at the cells of the landmarks, (B, 68, C)."""
        texels = position_map.flatten(2).mT
        return texels[:, self.face_texels], texels[:, self.landmark_texels]

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

    def _points(self, shape_params: Tensor, exp_params: Tensor) -> Tensor:
        """The texels decoded, (B, 3, P), model frame."""
        coefficients = torch.cat([shape_params, exp_params], -1)
        if coefficients.shape[1] != len(self.basis):
            raise ValueError(
                f"got {shape_params.shape[1]} shape and {exp_params.shape[1]} expression "
                f"coefficients, the face has {self.num_shape} and {self.num_exp} bases"
            )
        points = torch.addmm(self.mean.flatten(), coefficients, self.basis.flatten(1))
        return points.unflatten(1, (3, -1))

    def _to_map(
        self,
        points: Tensor,  # (B, 3, P)
        mirrored: Tensor | None,  # (B,), bool
    ) -> Tensor:
        """Points at their texels, (B, 3, H, W)."""
        side = self.resolution
        if points.shape[-1] == side * side:
            maps = points
        else:
            maps = points.new_zeros(points.shape[0], 3, side * side)
            maps[:, :, self.texel_index] = points
        maps = maps.unflatten(-1, (side, side))
        if mirrored is not None:
            maps = torch.where(mirrored[:, None, None, None], maps.flip(-1), maps)
        return maps
