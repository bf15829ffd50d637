"""What is written of a face, by the names of the option `outputs`.

| name         | file                    | content                                               |
|--------------|-------------------------|-------------------------------------------------------|
| npz          | STEM.npz                | landmarks, vertices, triangles, pose, coefficients    |
| glb          | STEM.glb                | textured head with ARKit's morph targets              |
| overlay      | STEM_overlay.jpg        | mesh and landmarks on the photo                       |
| obj          | STEM.obj, .mtl, .png    | the mesh with its texture                             |
| ply          | STEM.ply                | the mesh with the photo's colours at its vertices     |
| landmarks    | STEM_landmarks.json     | the 68 points                                         |
| pose         | STEM_pose.json, .jpg    | angles, rotation, scale, translation; the axes drawn  |
| arkit        | STEM_arkit.json, .csv   | the 51 coefficients; a line of Live Link Face's       |
| texture      | STEM_texture.png, _seen | the photo in UV space; which texels it shows          |
| position_map | STEM_position_map.npy   | (256, 256, 3), x y z in px of the picture             |
| depth        | STEM_depth.png          | 16 bits, z from the farthest point, 1/64 px           |
| pncc         | STEM_pncc.png           | which point of the mean face is seen, 3DDFA's code    |
| frontal      | STEM_frontal.png        | the textured mesh from the front                      |
| fit          | fits/STEM.mat           | coefficients and pose in 300W-LP's format             |

Points are in px of the picture as every viewer shows it, pixel centres at integers, z toward the
camera. Meshes are turned to the front, metres, y up: obj and ply are the frontalised mesh. A fit is
of the network's own face: with the BFM other programs read it as they read 300W-LP, with the
embedded face its coefficients mean nothing to them, and `face=embedded` reads it.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from prnet.checks import require_choice
from prnet.datasets.fits import (
    BFM_FILE_LENGTHS,
    decode_vertices,
    fit_matrix,
    pad_params,
    write_fit,
)
from prnet.datasets.pictures import write_picture
from prnet.drawing.pictures import draw_axes, draw_landmarks, draw_mesh
from prnet.export.mesh import write_obj
from prnet.faces.face import Face
from prnet.files import csv_text, write_json, write_npz, write_text, written_whole
from prnet.geometry.camera import transform_points
from prnet.reconstruction.arkit import (
    LIVE_LINK_COLUMNS,
    bounded_expression,
    live_link_row,
    named_values,
)
from prnet.reconstruction.coefficients import named_coefficients
from prnet.reconstruction.glb import METRES, frontal_vertices, write_face_glb
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.rendering import coordinate_code, frontal_picture, seen_values
from prnet.reconstruction.texture import colours_at, texture_of
from prnet.sample import Fit

DEFAULT = ("npz", "glb", "overlay")
MORE = "more_faces"  # the folder of all faces of a picture but the first
SUFFIXES = (".glb", ".obj", ".ply", ".npz")  # outputs that are one file of their name
DEPTH_STEPS = 64  # a px
BRIDGE = (27, 28, 29, 30)  # landmarks of the nose, where the axes begin
FIT_NEEDS = "outputs=fit: the network predicts a position map; use one of parameters"


def write_outputs(
    face: FaceReconstruction,
    stem: Path,  # folder and the start of the files' names
    outputs: Sequence[str],
) -> list[Path]:
    """Write what is asked for; the files."""
    return [path for name in outputs for path in WRITERS[name](face, stem)]


def save_face(face: FaceReconstruction, path: Path) -> list[Path]:
    """Write the one file, by its suffix, and what belongs to it.

    Raises:
        ValueError: another suffix than those of `SUFFIXES`.
    """
    require_choice("suffix", path.suffix.lower(), SUFFIXES)
    return WRITERS[path.suffix.lower()[1:]](face, path.with_suffix(""))


def require_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """Raise ValueError unless all of them are known, and there is one."""
    for name in outputs:
        require_choice("outputs", name, WRITERS)
    if not outputs:
        raise ValueError(f"outputs: none given, choose among {', '.join(WRITERS)}")
    return tuple(dict.fromkeys(outputs))


def require_possible(outputs: Sequence[str], face: Face, *, gives_parameters: bool) -> None:
    """Raise ValueError where a network of this face cannot give one of the outputs."""
    if "fit" in outputs and not gives_parameters:
        raise ValueError(FIT_NEEDS)
    if "arkit" in outputs:
        try:
            bounded_expression(face)
        except ValueError as error:
            raise ValueError(f"outputs=arkit: {error}") from error


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
        "uncertainty": face.uncertainty,
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
    return [_picture(_named(stem, "_overlay.jpg"), drawn_over(face.picture, face))]


def drawn_over(picture: np.ndarray, face: FaceReconstruction) -> np.ndarray:
    """A picture with the mesh and the landmarks of a face, (H, W, 3), uint8 RGB."""
    drawn = draw_mesh(picture, face.vertices, torch.from_numpy(face.triangles), opacity=0.5)
    return draw_landmarks(drawn, face.landmarks, stroke=face.framing.size / 170)


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
    length = face.framing.size / 2
    axes = length * face.pose.rotation.T * [1, -1, 1]
    origin = face.landmarks[list(BRIDGE)].mean(0)
    drawn = draw_axes(face.picture, origin, axes, stroke=face.framing.size / 60)
    return [path, _picture(_named(stem, "_pose.jpg"), drawn)]


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


def face_record(face: FaceReconstruction, files: Iterable[str]) -> dict:
    """What faces.json says of a face."""
    low, high = face.landmarks[:, :2].min(0), face.landmarks[:, :2].max(0)
    return {
        "box": [round(float(value), 2) for value in (*low, *high)],
        "confidence": None if face.confidence is None else round(face.confidence, 4),
        "uncertainty": None if face.uncertainty is None else round(face.uncertainty, 2),
        "tilt_deg": round(float(np.degrees(face.framing.tilt)), 1),
        "pose": pose_values(face),
        "files": list(files),
    }


def _arkit(face: FaceReconstruction, stem: Path) -> list[Path]:
    found = named_coefficients(face)
    path, table = _named(stem, "_arkit.json"), _named(stem, "_arkit.csv")
    write_json(path, named_values(found.names, found.exp_params))
    row = live_link_row(
        found.names,
        found.exp_params,
        timecode="00:00:00:00.000",
        angles_deg=face.pose.angles_deg,
    )
    write_text(table, csv_text([LIVE_LINK_COLUMNS, row]))
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
    depth = face.vertices[:, 2:]
    seen = seen_values(face.vertices, face.triangles, depth, height=height, width=width)
    steps = np.zeros((height, width), np.uint16)
    steps[seen.rows, seen.columns] = np.rint(DEPTH_STEPS * seen.values[:, 0]).clip(0, 65535)
    path = _named(stem, "_depth.png")
    _, data = cv2.imencode(".png", steps)
    with written_whole(path) as temporary:
        temporary.write_bytes(data)
    return [path]


def _pncc(face: FaceReconstruction, stem: Path) -> list[Path]:
    return [_picture(_named(stem, "_pncc.png"), coordinate_code(face))]


def _frontal(face: FaceReconstruction, stem: Path) -> list[Path]:
    return [_picture(_named(stem, "_frontal.png"), frontal_picture(face, texture_of(face)))]


def _fit(face: FaceReconstruction, stem: Path) -> list[Path]:
    """The rigid pose in 300W-LP's plane, y up from its bottom row, and pixels counted from 1."""
    if face.shape_params is None:
        raise ValueError(FIT_NEEDS)
    height, width = face.picture.shape[:2]
    shape_params, exp_params = face.shape_params, face.exp_params
    if face.face.name == "bfm":
        shape_params, exp_params = (
            pad_params(params, max(count, len(params)))
            for params, count in zip((shape_params, exp_params), BFM_FILE_LENGTHS, strict=True)
        )
    fit = Fit(
        shape_params=shape_params.astype(np.float64),
        exp_params=exp_params.astype(np.float64),
        angles=np.radians(face.pose.angles_deg),
        translation=face.pose.translation + [1, height, 0],
        scale=face.pose.scale,
    )
    model = face.face.morphable_model.at_vertices(face.face.landmark_index).cpu()
    points = decode_vertices(model, fit).double()
    landmarks = transform_points(fit_matrix(fit, height, pixel_origin="matlab"), points)
    path = stem.parent / "fits" / f"{stem.name}.mat"
    write_fit(path, fit, height=height, width=width, landmarks=landmarks.numpy(), with_depth=True)
    return [path]


def _picture(path: Path, picture: np.ndarray) -> Path:
    write_picture(path, picture)
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
    "pncc": _pncc,
    "frontal": _frontal,
    "fit": _fit,
}
