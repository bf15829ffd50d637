"""The tiny face of `tests.tiny` on small UV maps, and maps of it in a known pose."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.faces.face import Face
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.uv import UVLayout
from prnet.losses.loss import Loss
from prnet.models.network import Network
from tests.tiny import NUM_EXP, NUM_SHAPE, tiny_face, tiny_rotation

FLIP = torch.tensor([1.0, -1.0, 1.0])


class SmallFace(NamedTuple):
    morphable_model: MorphableModel
    uv: UVLayout


def small_face(resolution: int) -> SmallFace:
    face = tiny_face()
    uv = UVLayout(
        face.uv_coords,
        np.concatenate([face.triangles, face.mouth_triangles]),
        face.landmark_index,
        face.regions[:3].any(0),
        resolution=resolution,
    )
    bases = (face.shape_mean + face.exp_mean, face.shape_basis, face.exp_basis)
    return SmallFace(MorphableModel(*(torch.from_numpy(a).float() for a in bases)), uv)


def with_face(module: Network | Loss, face: SmallFace | Face) -> Network | Loss:
    """A network or a loss once it has been given the face."""
    module.set_face(face)
    return module


class PosedFaces(NamedTuple):
    """Random faces whose pose is known; all tensors of one precision."""

    shape_map: Tensor  # (B, 3, H, W), micrometre
    position_map: Tensor  # (B, 3, H, W), crop px
    scale: Tensor  # (B,), crop px per micrometre
    rotation: Tensor  # (B, 3, 3)
    translation: Tensor  # (B, 3), px of the y-up plane
    angles: Tensor  # (B, 3), rad


def posed_faces(
    face: SmallFace, yaws_deg: list[float], *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> PosedFaces:
    """A face for each yaw, within the crop; the pose written out with the oracle's rotation."""
    random = np.random.default_rng(seed)
    count, side = len(yaws_deg), face.uv.resolution
    angles = np.stack([random.uniform(-0.3, 0.3, count) for _ in range(3)], -1)
    angles[:, 1] = np.radians(yaws_deg)
    rotation = torch.from_numpy(np.stack([tiny_rotation(*angle) for angle in angles]))
    shape_params = torch.from_numpy(random.normal(0, 2e4, (count, NUM_SHAPE)))
    exp_params = torch.from_numpy(random.normal(0, 1, (count, NUM_EXP)))
    shape_map = face.uv.position_map(face.morphable_model(shape_params.float(), exp_params.float()))
    shape_map = shape_map.double()
    scale = torch.from_numpy(0.6 * side / 2.1e5 * random.uniform(0.9, 1.1, count))
    # The pivot lies behind the face, which swings to one side; the translation takes it back.
    swing = 6e4 * scale * torch.from_numpy(np.sin(angles[:, 1]))
    translation = (torch.tensor([0.5, -0.5, 0.1]) * side).expand(count, 3).clone().double()
    translation[:, 0] += swing
    posed = torch.einsum("b,bij,bjhw->bihw", scale, rotation, shape_map)
    posed = (posed + translation[..., None, None]) * FLIP[:, None, None]
    tensors = (shape_map, posed, scale, rotation, translation, torch.from_numpy(angles))
    return PosedFaces(*(tensor.to(dtype) for tensor in tensors))
