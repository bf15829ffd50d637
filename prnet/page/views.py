"""The pictures that the page shows of a face, each drawn around it at one size."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch

from prnet.drawing.pictures import draw_landmarks, draw_mask, draw_mesh, draw_position_map
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.rendering import seen_values
from prnet.reconstruction.texture import Texture

SIDE = 640  # px of every picture
# Side of what is shown of the photo over that of the face's box.
MARGIN = 2.4
THUMBNAIL_SIDE = 120


class CloseUp(NamedTuple):
    """The photo around a face, and the face's points in it."""

    picture: np.ndarray  # (S, S, 3), uint8 RGB; black beyond the photo
    vertices: np.ndarray  # (N, 3), float32, px of the picture
    landmarks: np.ndarray  # (68, 3)


def close_up(face: FaceReconstruction, *, side: int = SIDE) -> CloseUp:
    """The photo around a face at a given size."""
    scale = side / (MARGIN * face.framing.size)
    center, middle = face.framing.center, (side - 1) / 2
    # Of a large face it is drawn larger and averaged down: bilinear interpolation skips pixels.
    step = max(round(1 / scale), 1)
    shift = (step * side - 1) / 2 - step * scale * center
    matrix = np.column_stack([step * scale * np.eye(2), shift])
    drawn = cv2.warpAffine(face.picture, matrix, (step * side, step * side))
    picture = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA)

    def placed(points: np.ndarray) -> np.ndarray:
        return ((points - [*center, 0]) * scale + [middle, middle, 0]).astype(np.float32)

    return CloseUp(picture, placed(face.vertices), placed(face.landmarks))


def thumbnail(face: FaceReconstruction) -> np.ndarray:
    """A small picture to choose a face by, (S, S, 3)."""
    return close_up(face, side=THUMBNAIL_SIDE).picture


def _mesh(face: FaceReconstruction, _texture: Texture) -> np.ndarray:
    shown = close_up(face)
    triangles = torch.from_numpy(face.triangles)
    return draw_mesh(shown.picture, shown.vertices, triangles, opacity=0.6)


def _landmarks(face: FaceReconstruction, _texture: Texture) -> np.ndarray:
    shown = close_up(face)
    return draw_landmarks(shown.picture, shown.landmarks)


def _depth(face: FaceReconstruction, _texture: Texture) -> np.ndarray:
    """Nearer is brighter, from the mesh's farthest point to its nearest."""
    mesh = close_up(face).vertices
    seen = seen_values(mesh, face.triangles, mesh[:, 2:], height=SIDE, width=SIDE)
    grey = np.rint(255 * seen.values / max(float(mesh[:, 2].max()), 1e-6)).clip(0, 255)
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[seen.rows, seen.columns] = grey
    return picture


def _position_map(face: FaceReconstruction, _texture: Texture) -> np.ndarray:
    """x, y and z as red, green and blue, each from its least to its greatest on the face."""
    mask = face.face.uv.face_mask.cpu().numpy() > 0
    inside = face.position_map[:, mask]  # (3, texels)
    low, high = inside.min(1)[:, None, None], inside.max(1)[:, None, None]
    scaled = 255 * (face.position_map - low) / np.maximum(high - low, 1e-6) * mask
    drawn = draw_position_map(scaled)
    return cv2.resize(drawn, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)


def _texture(_face: FaceReconstruction, texture: Texture) -> np.ndarray:
    return texture.picture


def _seen(_face: FaceReconstruction, texture: Texture) -> np.ndarray:
    """The texture with what was filled in darkened."""
    return draw_mask(texture.picture, texture.seen)


VIEWS: dict[str, Callable[[FaceReconstruction, Texture], np.ndarray]] = {
    "Mesh": _mesh,
    "Landmarks": _landmarks,
    "Depth": _depth,
    "Position map": _position_map,
    "Texture": _texture,
    "Seen texels": _seen,
}
