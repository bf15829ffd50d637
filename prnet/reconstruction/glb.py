"""Faces as textured 3D models: the whole embedded head with its ARKit shapes, or the mesh alone.

Letters: N vertices, T triangles, E expression coefficients.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

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
    if is_whole_head(face):
        head = head_of(face, texture)
        write_head(path, head, head.coefficients, animation=animation)
    else:
        _write_mesh(path, face, texture, animation)


class Head(NamedTuple):
    """The whole head of one face, as files have it: at rest, in metres."""

    vertices: np.ndarray  # (N, 3)
    parts: Sequence[Part]
    names: Sequence[str]  # E, of the ARKit shapes
    coefficients: np.ndarray  # (E,), from 0 to 1: the photo's expression


class HeadLayout(NamedTuple):
    """What the heads of all faces share."""

    triangles: Tensor  # (T, 3), of the model's vertices
    source: np.ndarray  # (N,), the model's vertex that each vertex is a copy of
    corners: np.ndarray  # (T, 3), the triangles again, of the N vertices
    texture_coords: np.ndarray  # (N, 2), u and v, v DOWN
    offsets: np.ndarray  # (E, N, 3), float32, metres


def is_whole_head(face: FaceReconstruction) -> bool:
    """Whether the face comes as the embedded head, which its coefficients move."""
    return face.face.name == embedded.NAME


def head_of(face: FaceReconstruction, texture: Texture) -> Head:
    """The head of one face, for which `is_whole_head`."""
    head, layout = the_head(), head_layout()
    model = head.morphable_model
    found = named_coefficients(face)
    shape_params = torch.from_numpy(found.shape_params)[None]
    vertices = model(shape_params, shape_params.new_zeros(1, model.num_exp))[0]
    parts = [
        Part(layout.corners[chosen][:, ::-1], material)
        for material, chosen in _materials(head, head_picture(face, texture))
    ]
    rest = vertices.numpy()[layout.source] * METRES
    return Head(rest, parts, found.names, found.exp_params)


def write_head(
    path: Path | str,
    head: Head,
    coefficients: np.ndarray,  # (E,)
    *,
    animation: Animation | None = None,
) -> None:
    """The head with its morph targets, set to an expression."""
    layout = head_layout()
    write_glb(
        path,
        head.vertices,
        _head_normals(head.vertices),
        layout.texture_coords,
        head.parts,
        name="head",
        morphs=Morphs(head.names, layout.offsets, coefficients),
        animation=animation,
    )


def write_posed_head(
    path: Path | str,
    head: Head,
    coefficients: np.ndarray,  # (E,)
) -> None:
    """The head in one expression, without morph targets: a quarter of the file, read at once."""
    layout = head_layout()
    vertices = head.vertices + np.tensordot(coefficients, layout.offsets, 1)
    write_glb(
        path, vertices, _head_normals(vertices), layout.texture_coords, head.parts, name="head"
    )


def _head_normals(vertices: np.ndarray) -> np.ndarray:  # (N, 3), metres
    layout = head_layout()
    # The model's own vertices come first; in its own unit, since areas of metres are tiny.
    own = torch.from_numpy(vertices[: int(layout.source.max()) + 1] / METRES).float()
    return _unit(-vertex_normals(own[None], layout.triangles)[0].numpy()[layout.source])


@functools.cache
def head_layout() -> HeadLayout:
    """The layout, made once in a process."""
    head = the_head()
    model, triangles = head.morphable_model, head.triangles.numpy()
    chart = head.uv_coords.numpy()
    coords = np.column_stack([_in_picture(chart[:, 0]), 1 - _in_picture(chart[:, 1])])
    shown = _is_charted(chart, triangles)
    # Triangles beyond the chart get corners of their own, on the plain tone.
    plain = np.unique(triangles[~shown])
    copies = np.full(model.num_vertices, -1)
    copies[plain] = model.num_vertices + np.arange(len(plain))
    source = np.concatenate([np.arange(model.num_vertices), plain])
    return HeadLayout(
        triangles=head.triangles,
        source=source,
        corners=np.where(shown[:, None], triangles, copies[triangles]),
        texture_coords=np.concatenate([coords, np.tile(PLAIN_CORNER, (len(plain), 1))]),
        offsets=model.basis[model.num_shape :].numpy()[:, source] * np.float32(METRES),
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
