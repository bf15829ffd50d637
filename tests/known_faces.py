"""Reconstructions of faces whose coefficients and pose are known, with pictures painted on them."""

import numpy as np
import torch

from prnet.detection.framing import framing_of_points
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.reconstruction.reconstructor import FaceReconstruction, HeadPose
from prnet.reconstruction.rendering import seen_values

SIDE = 240  # px of the picture


def known_face(
    face: Face,
    *,
    seed: int = 0,
    angles_deg: tuple[float, float, float] = (5.0, 20.0, -8.0),
    of_map: bool = False,  # as a network of maps would leave it
    paint: tuple[float, float, float] = (1.0, 2.0, 3.0),  # frequencies of the pattern
    scale: float = 0.6,  # share of the picture's side that the face fills
) -> FaceReconstruction:
    """A rigidly posed face in the middle of a picture: a smooth pattern in u and v on noise."""
    random = np.random.default_rng(seed)
    model, uv = face.morphable_model, face.uv
    std = torch.ones(model.num_shape) if face.shape_std is None else face.shape_std
    shape_params = (0.7 * std.numpy() * random.normal(size=model.num_shape)).astype(np.float32)
    exp_params = 0.6 * random.uniform(0, 1, model.num_exp) * (random.random(model.num_exp) < 0.2)
    exp_params = exp_params.astype(np.float32)
    there = model(*(torch.from_numpy(c)[None] for c in (shape_params, exp_params)))[0].double()
    rotation = camera.rotation_from_angles(torch.tensor(angles_deg).double().deg2rad())
    turned = there @ rotation.T
    low, high = turned.amin(0), turned.amax(0)
    px = scale * SIDE / float((high - low)[:2].max())
    translation = torch.tensor([SIDE / 2, -SIDE / 2, 0]) - px * (low + high) / 2
    translation[2] = -px * low[2]
    points = ((px * turned + translation) * torch.tensor([1.0, -1, 1])).float()

    position_map = uv.position_map(points[None])[0]
    if of_map:
        row, column = uv.face_index // uv.resolution, uv.face_index % uv.resolution
        coords = torch.stack([column, uv.resolution - 1 - row], 1) / (uv.resolution - 1)
        triangles, landmarks = uv.grid_triangles, uv.landmarks(position_map[None])[0]
        points = uv.face_points(position_map[None])[0]
    else:
        coords = uv.vertex_pixels / (uv.resolution - 1) * torch.tensor([1, -1])
        coords = coords + torch.tensor([0.0, 1])
        triangles, landmarks = face.triangles, points[face.landmark_index]
    picture = random.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    seen = seen_values(points.numpy(), triangles.numpy(), coords.numpy(), height=SIDE, width=SIDE)
    picture[seen.rows, seen.columns] = pattern(seen.values, paint)
    return FaceReconstruction(
        face=face,
        picture=picture,
        framing=framing_of_points(landmarks.numpy()),
        confidence=0.9,
        uncertainty=2.0,
        vertices=points.numpy(),
        triangles=triangles.numpy(),
        texture_coords=coords.numpy().astype(np.float32),
        landmarks=landmarks.numpy(),
        position_map=position_map.numpy(),
        pose=HeadPose(px, rotation.numpy(), translation.numpy()),
        shape_params=None if of_map else shape_params,
        exp_params=None if of_map else exp_params,
    )


def pattern(coords: np.ndarray, frequencies: tuple[float, float, float]) -> np.ndarray:  # (P, 2)
    """The colour at u and v, (P, 3), uint8: a wave a channel, its crests at an angle of its own."""
    phase = coords @ np.array([[1.0, 0.3, 0.7], [0.2, 1.0, 0.7]]) * frequencies
    return np.rint(150 + 60 * np.sin(2 * np.pi * phase)).astype(np.uint8)
