"""What lies on the vertices: paint masks, ambient occlusion, classes, eyeballs."""

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial import ConvexHull

from embedded_face.unwrap import cylinder, inside_convex
from prnet.faces.face import REGIONS
from prnet.geometry.mesh import vertex_normals
from prnet.geometry.rasterize import rasterize

NUM_DIRECTIONS = 96
PICTURE = 512  # px, from which the head's longest side is looked at
DEPTH_TOLERANCE = 0.8  # mm
SCATTERED = 0.2
# Where a vertex of the inside counts as its class: within so much of the landmarks' hull, mm.
CLASS_LANDMARKS = {"nose": (27, 36), "mouth": (48, 60)}
EYE_LANDMARKS = (*range(17, 27), *range(36, 48))
CLASS_MARGIN = {"nose": 7.0, "eyes": 9.0, "mouth": 7.0}
# Classes end here: behind it lies the rest of the head.
CLASS_HALF_ANGLE = 0.36  # of u, to both sides


def sample_mask(
    picture: np.ndarray,  # (H, W), in [0, 1]
    texture_coords: np.ndarray,  # (N, 2), u right, v up; NaN where the chart has none
) -> np.ndarray:
    """A mask at every vertex, (N,), 0 where it has no texture coordinates."""
    known = ~np.isnan(texture_coords).any(1)
    u, v = np.where(known[:, None], texture_coords, 0).T
    height, width = picture.shape
    position = [(1 - v) * (height - 1), u * (width - 1)]
    return np.where(known, map_coordinates(picture, position, order=1, mode="nearest"), 0)


def ambient_occlusion(
    vertices: np.ndarray,  # (N, 3)
    triangles: np.ndarray,  # (T, 3), counter-clockwise from outside
) -> np.ndarray:
    """The share of the sky's light that reaches every vertex, (N,), in [0, 1].

    The mean over directions all around of whether the vertex sees the sky there, weighted by the
    cosine to its normal; what is hidden still gets `SCATTERED` of it from its surroundings.
    """
    image_triangles = torch.from_numpy(np.ascontiguousarray(triangles[:, ::-1]))
    points = torch.from_numpy(vertices).float()
    flip = torch.tensor([1.0, -1.0, 1.0])
    normals = vertex_normals((points * flip)[None], image_triangles)[0] * flip
    radius = float(torch.linalg.vector_norm(points - points.mean(0), dim=1).max())
    scale = (PICTURE - 2) / (2 * radius)
    light = torch.zeros(len(points))
    total = torch.zeros(len(points))
    for rotation in _directions(NUM_DIRECTIONS):
        turned = (points - points.mean(0)) @ rotation.T * scale
        pixels = turned * flip + torch.tensor([PICTURE / 2, PICTURE / 2, 0])
        depth = rasterize(pixels[None], image_triangles, height=PICTURE, width=PICTURE).depth[0]
        column, row = pixels[:, :2].round().long().unbind(-1)
        nearest = depth[row, column]
        seen = turned[:, 2] >= nearest - DEPTH_TOLERANCE * scale
        cosine = (normals @ rotation[2]).clamp(min=0)
        light += cosine * seen
        total += cosine
    seen_share = light / total.clamp(min=1e-6)
    return (SCATTERED + (1 - SCATTERED) * seen_share).numpy()


def classify(
    vertices: np.ndarray,  # (N, 3), mm
    landmark_index: np.ndarray,  # (68,)
) -> np.ndarray:
    """Index into `prnet.faces.face.REGIONS` of every vertex, (N,), uint8.

    A class is what lies in front and, seen from the front, within a margin of its landmarks' hull.
    """
    landmarks = vertices[landmark_index, :2]
    front = np.abs(cylinder(vertices)[:, 0] - 0.5) < CLASS_HALF_ANGLE
    hulls = {name: landmarks[slice(*span)] for name, span in CLASS_LANDMARKS.items()}
    hulls["eyes"] = landmarks[list(EYE_LANDMARKS)]
    classes = np.full(len(vertices), REGIONS.index("rest"), dtype=np.uint8)
    # The later ones win where they overlap.
    for name in ("eyes", "nose", "mouth"):
        near = distance_to_hull(vertices[:, :2], hulls[name]) <= CLASS_MARGIN[name]
        classes[near & front] = REGIONS.index(name)
    return classes


def distance_to_hull(points: np.ndarray, corners: np.ndarray) -> np.ndarray:  # (N, 2), (K, 2)
    """Distance of every point to the convex hull of the corners, (N,), 0 inside."""
    hull = corners[ConvexHull(corners).vertices]
    nearest = np.full(len(points), np.inf)
    for start, end in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        along = end - start
        share = (((points - start) @ along) / (along @ along)).clip(0, 1)
        offset = points - start - share[:, None] * along
        nearest = np.minimum(nearest, np.linalg.norm(offset, axis=1))
    return np.where(inside_convex(points, hull), 0, nearest)


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:  # (N, 3)
    """Centre (3,) and radius of the sphere nearest to the points, |p|^2 = 2 c p + r^2 - |c|^2."""
    system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    *center, rest = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    return np.array(center), float(np.sqrt(rest + np.square(center).sum()))


def _directions(count: int) -> list[torch.Tensor]:
    """Rotations (3, 3) that turn each of the directions of a Fibonacci sphere to the camera."""
    height = 1 - 2 * (torch.arange(count) + 0.5) / count
    turn = torch.arange(count) * torch.pi * (3 - 5**0.5)
    level = (1 - height**2).sqrt()
    toward = torch.stack([level * turn.cos(), height, level * turn.sin()], -1)
    rotations = []
    for direction in toward:
        right = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), direction)
        right = right / torch.linalg.vector_norm(right)
        rotations.append(torch.stack([right, torch.linalg.cross(direction, right), direction]))
    return rotations
