"""What is written of a face, by the names of the option `outputs`.

| name         | file                    | content                                               |
|--------------|-------------------------|-------------------------------------------------------|
| npz          | STEM.npz                | landmarks, vertices, triangles, pose, coefficients    |
| glb          | STEM.glb                | textured head with ARKit's morph targets              |
| overlay      | STEM_overlay.jpg        | mesh and landmarks on the photo                       |
| obj          | STEM.obj, .mtl, .png    | the mesh with its texture                             |
| ply          | STEM.ply                | the mesh with the photo's colours at its vertices     |
| landmarks    | STEM_landmarks.json     | the 68 points                                         |
| pose         | STEM_pose.json          | angles, rotation, scale, translation                  |
| arkit        | STEM_arkit.json, .csv   | the 51 coefficients; a line of Live Link Face's       |
| texture      | STEM_texture.png, _seen | the photo in UV space; which texels it shows          |
| position_map | STEM_position_map.npy   | (256, 256, 3), x y z in px of the picture             |
| depth        | STEM_depth.png          | 16 bits, z from the farthest point, 1/64 px           |

Points are in px of the picture as every viewer shows it, pixel centres at integers, z toward the
camera. Meshes are turned to the front, metres, y up.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from prnet.checks import require_choice
from prnet.datasets.pictures import write_picture
from prnet.drawing.pictures import draw_landmarks, draw_mesh
from prnet.export.mesh import write_obj
from prnet.files import write_json, write_npz, written_whole
from prnet.geometry.rasterize import rasterize
from prnet.reconstruction.arkit import LIVE_LINK_COLUMNS, bounded_expression, live_link_row
from prnet.reconstruction.glb import METRES, frontal_vertices, write_face_glb
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.texture import colours_at, texture_of

DEFAULT = ("npz", "glb", "overlay")
DEPTH_STEPS = 64  # a px


def write_outputs(
    face: FaceReconstruction,
    stem: Path,  # folder and the start of the files' names
    outputs: Sequence[str],
) -> list[Path]:
    """Write what is asked for; the files."""
    return [path for name in outputs for path in WRITERS[name](face, stem)]


def require_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """Raise ValueError unless all of them are known, and there is one."""
    for name in outputs:
        require_choice("outputs", name, WRITERS)
    if not outputs:
        raise ValueError(f"outputs: none given, choose among {', '.join(WRITERS)}")
    return tuple(dict.fromkeys(outputs))


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _npz(face: FaceReconstruction, stem: Path) -> list[Path]:
    content = {
        "landmarks": face.landmarks,
        "vertices": face.vertices,
        "triangles": face.triangles.astype(np.int32),
        "pixel_origin": "zero_based",
        "pose_deg": face.pose.angles_deg,
    }
    optional = {
        "confidence": face.confidence,
        "shape_params": face.shape_params,
        "exp_params": face.exp_params,
    }
    content |= {key: value for key, value in optional.items() if value is not None}
    path = _named(stem, ".npz")
    write_npz(path, content)
    return [path]


def _glb(face: FaceReconstruction, stem: Path) -> list[Path]:
    path = _named(stem, ".glb")
    write_face_glb(path, face)
    return [path]


def _overlay(face: FaceReconstruction, stem: Path) -> list[Path]:
    drawn = draw_mesh(face.picture, face.vertices, torch.from_numpy(face.triangles), opacity=0.5)
    drawn = draw_landmarks(drawn, face.landmarks, stroke=face.framing.size / 170)
    return [_picture(_named(stem, "_overlay.jpg"), drawn)]


def _obj(face: FaceReconstruction, stem: Path) -> list[Path]:
    texture = texture_of(face)
    size = len(texture.picture)
    picture = _picture(_named(stem, ".png"), texture.picture)
    path = _named(stem, ".obj")
    write_obj(
        path,
        frontal_vertices(face) * METRES,
        face.triangles,
        texture_coords=(0.5 + (size - 1) * face.texture_coords) / size,
        texture_name=picture.name,
    )
    return [path, _named(stem, ".mtl"), picture]


def _ply(face: FaceReconstruction, stem: Path) -> list[Path]:
    points = (frontal_vertices(face) * METRES).astype("<f4")
    colours = colours_at(face.picture, *face.vertices[:, :2].T)
    rows = np.zeros(len(points), [("point", "<f4", 3), ("colour", "u1", 3)])
    rows["point"], rows["colour"] = points, colours
    faces = np.zeros(len(face.triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, face.triangles[:, ::-1]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(rows)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    path = _named(stem, ".ply")
    with written_whole(path) as temporary:
        temporary.write_bytes("\n".join(header).encode() + rows.tobytes() + faces.tobytes())
    return [path]


def _landmarks(face: FaceReconstruction, stem: Path) -> list[Path]:
    path = _named(stem, "_landmarks.json")
    points = np.round(face.landmarks.astype(float), 3).tolist()
    write_json(path, {"order": "iBUG 68", "pixel_origin": "zero_based", "landmarks": points})
    return [path]


def _pose(face: FaceReconstruction, stem: Path) -> list[Path]:
    path = _named(stem, "_pose.json")
    write_json(path, pose_values(face) | {"rotation": face.pose.rotation.tolist()})
    return [path]


def pose_values(face: FaceReconstruction) -> dict:
    """The head pose as plain values."""
    pitch, yaw, roll = (round(float(angle), 2) for angle in face.pose.angles_deg)
    return {
        "pitch_deg": pitch,
        "yaw_deg": yaw,
        "roll_deg": roll,
        "px_per_metre": round(face.pose.scale / METRES, 2),
        "translation_px": [round(float(value), 2) for value in face.pose.translation],
    }


def _arkit(face: FaceReconstruction, stem: Path) -> list[Path]:
    if face.exp_params is None:
        raise ValueError(
            "outputs=arkit: the network predicts a position map; use one of parameters"
        )
    bounded = bounded_expression(face.face)
    values = bounded(face.exp_params)
    path, table = _named(stem, "_arkit.json"), _named(stem, "_arkit.csv")
    named = {
        name: round(float(value), 4) for name, value in zip(bounded.names, values, strict=True)
    }
    write_json(path, named)
    row = live_link_row(
        bounded.names, values, timecode="00:00:00:00.000", angles_deg=face.pose.angles_deg
    )
    with written_whole(table) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([LIVE_LINK_COLUMNS, row])
    return [path, table]


def _texture(face: FaceReconstruction, stem: Path) -> list[Path]:
    texture = texture_of(face)
    seen = np.repeat(255 * texture.seen[..., None].astype(np.uint8), 3, 2)
    return [
        _picture(_named(stem, "_texture.png"), texture.picture),
        _picture(_named(stem, "_texture_seen.png"), seen),
    ]


def _position_map(face: FaceReconstruction, stem: Path) -> list[Path]:
    path = _named(stem, "_position_map.npy")
    with written_whole(path) as temporary:
        np.save(temporary, np.ascontiguousarray(face.position_map.transpose(1, 2, 0)))
    return [path]


def _depth(face: FaceReconstruction, stem: Path) -> list[Path]:
    height, width = face.picture.shape[:2]
    mesh = torch.from_numpy(face.vertices)[None]
    raster = rasterize(mesh, torch.from_numpy(face.triangles), height=height, width=width)
    covered = raster.triangle[0].numpy() >= 0
    depth = np.where(covered, raster.depth[0].numpy(), 0)
    steps = np.rint(DEPTH_STEPS * depth).clip(0, 65535).astype(np.uint16)
    path = _named(stem, "_depth.png")
    with written_whole(path) as temporary:
        if not cv2.imwrite(str(temporary), steps):
            raise OSError(f"{path}: could not be written as a picture")
    return [path]


def _picture(path: Path, picture: np.ndarray) -> Path:
    with written_whole(path) as temporary:
        write_picture(temporary, picture)
    return path


WRITERS: dict[str, Callable[[FaceReconstruction, Path], list[Path]]] = {
    "npz": _npz,
    "glb": _glb,
    "overlay": _overlay,
    "obj": _obj,
    "ply": _ply,
    "landmarks": _landmarks,
    "pose": _pose,
    "arkit": _arkit,
    "texture": _texture,
    "position_map": _position_map,
    "depth": _depth,
}
