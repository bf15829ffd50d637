"""The photo on the face: a texture in the face's UV layout, unseen texels filled.

The photo's light is in it as it was taken.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch

from prnet.geometry.mesh import vertex_normals
from prnet.geometry.rasterize import rasterize
from prnet.reconstruction.reconstructor import FaceReconstruction

# A surface that turns farther away than this from the camera (the cosine) is not taken from the
# photo: its texels are smeared.
LEAST_FACING = 0.2
# A texel this far behind what is seen there is hidden, share of the face's depth.
DEPTH_TOLERANCE = 0.03
# Side of the picture in which the depth is compared, px.
DEPTH_SIDE = 256
# Width of the transition from seen to filled texels, share of the texture's side.
FEATHER = 0.02


class Texture(NamedTuple):
    """Rows v downward, columns u."""

    picture: np.ndarray  # (S, S, 3), uint8 RGB
    seen: np.ndarray  # (S, S), bool: taken from the photo; the others are filled by symmetry


def texture_of(face: FaceReconstruction, *, size: int = 512) -> Texture:
    """The texture of one face. What the photo does not show is taken from the other side of the
    face, what neither shows is filled from its neighbours."""
    position_map = _enlarged(face.position_map, size)  # (3, S, S), px
    x, y = position_map[:2]
    colours = colours_at(face.picture, x, y)
    height, width = face.picture.shape[:2]
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    mask = face.face.uv.face_mask.cpu().numpy().astype(np.uint8)
    on_face = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST) > 0
    seen = inside & on_face & _visible(face, position_map, size)

    weight = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), FEATHER * size)
    weight = np.clip(2 * weight - 1, 0, 1) * seen
    other = weight[:, ::-1] * (1 - weight)
    total = weight + other
    mixed = weight[..., None] * colours + other[..., None] * colours[:, ::-1]
    filled = np.where(total[..., None] > 1e-3, mixed / np.maximum(total, 1e-3)[..., None], 0)
    picture = _spread(filled, total > 1e-3)
    return Texture(np.rint(picture).clip(0, 255).astype(np.uint8), seen)


def colours_at(
    picture: np.ndarray,  # (H, W, 3), uint8 RGB
    x: np.ndarray,  # any shape, px
    y: np.ndarray,
) -> np.ndarray:
    """Bilinear; beyond the picture its border's, (..., 3), uint8."""
    height, width = picture.shape[:2]
    column, row = x.clip(0, width - 1), y.clip(0, height - 1)
    # OpenCV takes neither sides nor lists of 32,767 and more: the part that is asked for, in rows.
    left, top = int(column.min()), int(row.min())
    part = picture[top : int(row.max()) + 2, left : int(column.max()) + 2]
    count = column.size
    rows = np.zeros((2, -(-count // 256) * 256), np.float32)
    rows[0, :count], rows[1, :count] = (column - left).ravel(), (row - top).ravel()
    found = cv2.remap(part, *rows.reshape(2, -1, 256), cv2.INTER_LINEAR)
    return found.reshape(-1, 3)[:count].reshape(*x.shape, 3)


def _enlarged(values: np.ndarray, size: int) -> np.ndarray:  # (C, H, W)
    """A map at another size, bilinear, corner texels on corner texels."""
    tensor = torch.from_numpy(values)[None]
    options = {"mode": "bilinear", "align_corners": True}
    return torch.nn.functional.interpolate(tensor, size=(size, size), **options)[0].numpy()


def _visible(face: FaceReconstruction, position_map: np.ndarray, size: int) -> np.ndarray:
    """Texels that face the camera and lie behind nothing of the mesh, (S, S) bool."""
    vertices = torch.from_numpy(face.vertices).float()
    triangles = torch.from_numpy(face.triangles)
    low, high = vertices[:, :2].amin(0), vertices[:, :2].amax(0)
    scale = (DEPTH_SIDE - 1) / float((high - low).max())
    small = vertices.clone()
    small[:, :2] = (vertices[:, :2] - low) * scale
    raster = rasterize(small[None], triangles, height=DEPTH_SIDE, width=DEPTH_SIDE)
    places = (torch.from_numpy(position_map[:2]) - low[:, None, None]) * scale
    column, row = places.round().long().clamp(0, DEPTH_SIDE - 1)
    # Beside the mesh's outline a rounded place may show what lies behind it.
    nearest = raster.depth[0, row, column].numpy()
    extent = float(vertices[:, 2].amax() - vertices[:, 2].amin())
    unhidden = position_map[2] >= nearest - DEPTH_TOLERANCE * extent

    normals = vertex_normals(vertices[None], triangles)[0]
    facing = normals[:, 2].numpy().astype(np.float32)
    return unhidden & (_facing_map(face, facing, size) > LEAST_FACING)


def _facing_map(face: FaceReconstruction, facing: np.ndarray, size: int) -> np.ndarray:
    """How much each texel faces the camera, (S, S)."""
    uv = face.face.uv
    values = torch.from_numpy(facing)[None, :, None]
    if len(facing) == uv.face_index.numel():
        grid = torch.zeros(uv.resolution**2)
        grid[uv.face_index.cpu()] = values[0, :, 0]
        grid = grid.view(1, uv.resolution, uv.resolution)
    else:
        grid = uv.position_map(values.to(uv.face_index.device))[0].cpu()
    return _enlarged(grid.numpy(), size)[0]


def _spread(picture: np.ndarray, known: np.ndarray) -> np.ndarray:  # (S, S, 3); (S, S), bool
    """Unknown pixels as a mean of their neighbourhood, taken from ever coarser pictures."""
    if known.all() or not known.any() or min(known.shape) == 1:
        return picture
    weight = known.astype(np.float32)
    half = (-(-known.shape[1] // 2), -(-known.shape[0] // 2))
    options = {"interpolation": cv2.INTER_AREA}
    share = cv2.resize(weight, half, **options)
    mean = cv2.resize((picture * weight[..., None]).astype(np.float32), half, **options)
    mean = np.where(share[..., None] > 0, mean / np.maximum(share, 1e-6)[..., None], 0)
    coarse = _spread(mean, share > 0)
    fine = cv2.resize(coarse, known.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(known[..., None], picture, fine)
