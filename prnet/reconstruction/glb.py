"""Faces as textured 3D models: the whole embedded head with its ARKit shapes, or the mesh alone.

Letters: N vertices, T triangles, E expression coefficients.
"""

import functools
from pathlib import Path

import cv2
import numpy as np
import torch

from prnet.export.gltf import Animation, Material, Morphs, Part, write_glb
from prnet.faces import embedded
from prnet.geometry.mesh import vertex_normals
from prnet.reconstruction.coefficients import named_coefficients
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.texture import Texture, texture_of

METRES = 1e-6  # in a micrometre
# The picture of a head shows the face window in its middle and the skin's plain tone around it; its
# corner is for triangles that the chart does not show.
WINDOW_SHARE = 0.5
PLAIN_CORNER = (0.01, 0.99)
# How far beyond the face the photo fades into the plain tone, share of the window.
FADE = 0.08
# Linear RGB of what no photo shows.
COLORS = {
    "cavity": (0.10, 0.02, 0.02),
    "upper_teeth": (0.72, 0.68, 0.60),
    "lower_teeth": (0.72, 0.68, 0.60),
    "tongue": (0.40, 0.13, 0.12),
}  # lashes are left out: the photo has them


def write_face_glb(
    path: Path | str,
    face: FaceReconstruction,
    *,
    texture: Texture | None = None,  # None: `texture_of` the face
    animation: Animation | None = None,  # of a video; weights only where there are coefficients
) -> None:
    """PATH.glb of one face: metres, +Y up, looking toward +Z, turned to the front.

    With the embedded face the whole head at rest, its 51 ARKit shapes as morph targets set to the
    photo's expression, eyeballs, teeth and tongue; of a network of maps the head that lies nearest
    to its map. With any other face the mesh that was predicted, without morph targets.
    """
    texture = texture or texture_of(face)
    if face.face.name == embedded.NAME:
        _write_head(path, face, texture, animation)
    else:
        _write_mesh(path, face, texture, animation)


def _write_head(
    path: Path | str, face: FaceReconstruction, texture: Texture, animation: Animation | None
) -> None:
    head = the_head()
    model = head.morphable_model
    found = named_coefficients(face)
    shape_params = torch.from_numpy(found.shape_params)[None]
    vertices = model(shape_params, shape_params.new_zeros(1, model.num_exp))[0]
    triangles = head.triangles
    chart = head.uv_coords.numpy()
    coords = np.column_stack([_in_picture(chart[:, 0]), 1 - _in_picture(chart[:, 1])])
    shown = _is_charted(chart, triangles.numpy())
    # Triangles beyond the chart get corners of their own, on the plain tone.
    plain = np.unique(triangles[~torch.from_numpy(shown)].numpy())
    copies = np.full(len(vertices), -1)
    copies[plain] = len(vertices) + np.arange(len(plain))
    corners = np.where(shown[:, None], triangles.numpy(), copies[triangles.numpy()])
    source = np.concatenate([np.arange(len(vertices)), plain])
    coords = np.concatenate([coords, np.tile(PLAIN_CORNER, (len(plain), 1))])

    normals = -vertex_normals(vertices[None], triangles)[0].numpy()
    parts = [
        Part(corners[chosen][:, ::-1], material)
        for material, chosen in _materials(head, head_picture(face, texture))
    ]
    offsets = model.basis[model.num_shape :].numpy()[:, source] * METRES
    write_glb(
        path,
        vertices.numpy()[source] * METRES,
        _unit(normals[source]),
        coords,
        parts,
        name="head",
        morphs=Morphs(found.names, offsets, found.exp_params),
        animation=animation,
    )


@functools.cache
def the_head() -> embedded.Head:
    """The embedded head, read once in a process."""
    return embedded.load_head()


def _write_mesh(
    path: Path | str, face: FaceReconstruction, texture: Texture, animation: Animation | None
) -> None:
    vertices = frontal_vertices(face)
    triangles = torch.from_numpy(face.triangles)
    normals = -vertex_normals(torch.from_numpy(vertices)[None], triangles)[0].numpy()
    size = len(texture.picture)
    coords = (0.5 + (size - 1) * face.texture_coords) / size
    write_glb(
        path,
        vertices * METRES,
        _unit(normals),
        np.column_stack([coords[:, 0], 1 - coords[:, 1]]),
        [Part(face.triangles[:, ::-1], Material("skin", texture=encoded(texture.picture)))],
        animation=animation,
    )


def frontal_vertices(face: FaceReconstruction) -> np.ndarray:
    """The mesh in the model frame, micrometre: y up, turned to the front, (N, 3) float32."""
    up = face.vertices.astype(np.float64) * [1, -1, 1]
    moved = (up - face.pose.translation) @ face.pose.rotation / face.pose.scale
    return moved.astype(np.float32)


def head_picture(face: FaceReconstruction, texture: Texture) -> np.ndarray:
    """The texture of the whole head, (S, S, 3) uint8 RGB: the photo's in the middle, fading into
    the plain tone of its skin."""
    window = len(texture.picture)
    side = round(window / WINDOW_SHARE)
    mask = face.face.uv.face_mask.cpu().numpy().astype(np.uint8)
    mask = cv2.resize(mask, (window, window), interpolation=cv2.INTER_NEAREST)
    usable = texture.seen if texture.seen.any() else mask > 0
    tone = np.median(texture.picture[usable].reshape(-1, 3), 0)
    picture = np.full((side, side, 3), np.rint(tone), np.uint8)
    beyond = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    share = np.clip(1 - beyond / (FADE * window), 0, 1)[..., None]
    low = (side - window) // 2
    mixed = share * texture.picture + (1 - share) * tone
    picture[low : low + window, low : low + window] = np.rint(mixed)
    return picture


def encoded(picture: np.ndarray) -> bytes:  # (H, W, 3), uint8 RGB
    """A PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _in_picture(chart: np.ndarray) -> np.ndarray:
    """u or v of the face window -> of the head's picture; texel centres of the window lie at
    integers, those of glTF at halves, which moves them by less than a texel."""
    return (1 - WINDOW_SHARE) / 2 + WINDOW_SHARE * chart


def _is_charted(chart: np.ndarray, triangles: np.ndarray) -> np.ndarray:  # (N, 2), (T, 3)
    """Triangles that the head's picture shows, (T,) bool."""
    corners = _in_picture(chart[triangles])
    inside = (corners.min((1, 2)) >= 0) & (corners.max((1, 2)) <= 1)
    return inside & (np.ptp(chart[triangles][..., 0], axis=1) < embedded.SEAM_SPAN)


def _materials(head: embedded.Head, picture: np.ndarray) -> list[tuple[Material, np.ndarray]]:
    """Each material and its triangles, (T,) bool."""
    names = np.array(head.region_names)[head.triangle_region.numpy()]
    photo = np.isin(names, embedded.SURFACE_REGIONS)
    chosen = [(Material("skin", texture=encoded(picture)), photo)]
    for name, color in COLORS.items():
        own = np.char.startswith(names, name)
        chosen.append((Material(name, color), own))
    return [(material, own) for material, own in chosen if own.any()]


def _unit(normals: np.ndarray) -> np.ndarray:  # (N, 3)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-6, normals / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
