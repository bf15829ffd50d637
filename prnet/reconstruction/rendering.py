"""Reconstructed faces drawn by the z-buffer: what is seen at each pixel, and pictures of it.

Letters: N vertices, T triangles, P pixels that show the mesh, C channels.
"""

from typing import NamedTuple

import numpy as np
import torch

from prnet.geometry.rasterize import rasterize
from prnet.reconstruction.glb import frontal_vertices
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.texture import Texture, colours_at

# Between the mesh and the border of a frontal picture, share of its side.
MARGIN = 0.05


class Seen(NamedTuple):
    """The pixels that show a mesh, and its values there."""

    rows: np.ndarray  # (P,)
    columns: np.ndarray  # (P,)
    values: np.ndarray  # (P, C)


def seen_values(
    vertices: np.ndarray,  # (N, 3), picture px, z toward the camera
    triangles: np.ndarray,  # (T, 3), outward in the y-down frame
    values: np.ndarray,  # (N, C), at the vertices
    *,
    height: int,
    width: int,
) -> Seen:
    """What the z-buffer shows of the outer side of a mesh, its values between the vertices; nothing
    beyond the picture."""
    # Only the part of the picture in which the mesh lies is drawn.
    low = np.maximum(np.floor(vertices[:, :2].min(0)), 0).astype(int)
    high = np.minimum(np.ceil(vertices[:, :2].max(0)) + 1, [width, height]).astype(int)
    if (high <= low).any():
        return Seen(*np.zeros((2, 0), np.int64), np.zeros((0, values.shape[1]), np.float32))
    mesh = torch.from_numpy(vertices - np.append(low, 0)).float()[None]
    raster = rasterize(
        mesh,
        torch.from_numpy(triangles),
        height=int(high[1] - low[1]),
        width=int(high[0] - low[0]),
        cull_back_faces=True,
    )
    number = raster.triangle[0].numpy()
    rows, columns = np.nonzero(number >= 0)
    weights = raster.barycentric[0].numpy()[rows, columns]  # (P, 3)
    corners = values[triangles[number[rows, columns]]]  # (P, 3, C)
    return Seen(rows + low[1], columns + low[0], np.einsum("pk,pkc->pc", weights, corners))


def coordinate_code(face: FaceReconstruction) -> np.ndarray:
    """The projected normalised coordinate code, (H, W, 3) uint8: red, green and blue say which
    point of the mean face is seen, x from the subject's right to the left, y upward, z toward the
    front, each from its least to its greatest value on the mean; black beside the face.

    Source: PNCC of 3DDFA (Zhu et al., CVPR 2016): NCC_d = (S_d - min S_d) / (max S_d - min S_d) of
        the mean shape S, d = x, y, z, drawn at the fitted vertices by the z-buffer.
    """
    mean, uv = face.face.morphable_model.mean, face.face.uv
    low, high = mean.amin(0), mean.amax(0)
    code = (mean - low) / (high - low)
    if face.shape_params is None:  # a network of maps, whose mesh is the face pixels
        code = uv.at_texels(code[None], uv.face_index)[0]
    height, width = face.picture.shape[:2]
    seen = seen_values(
        face.vertices, face.triangles, code.cpu().numpy(), height=height, width=width
    )
    picture = np.zeros((height, width, 3), np.uint8)
    picture[seen.rows, seen.columns] = np.rint(255 * seen.values)
    return picture


def texture_colours(texture: Texture, coords: np.ndarray) -> np.ndarray:  # (P, 2), u and v
    """Of places in the UV layout, (P, 3) uint8."""
    last = len(texture.picture) - 1
    return colours_at(texture.picture, last * coords[:, 0], last * (1 - coords[:, 1]))


def frontal_picture(face: FaceReconstruction, texture: Texture, *, size: int = 512) -> np.ndarray:
    """The textured mesh from the front, (size, size, 3) uint8 RGB, on black."""
    points = frontal_vertices(face) * [1, -1, 1]
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    scale = (1 - 2 * MARGIN) * (size - 1) / (high - low).max()
    points *= scale
    points[:, :2] += (size - 1) / 2 - scale * (low + high) / 2
    seen = seen_values(points, face.triangles, face.texture_coords, height=size, width=size)
    picture = np.zeros((size, size, 3), np.uint8)
    picture[seen.rows, seen.columns] = texture_colours(texture, seen.values)
    return picture
