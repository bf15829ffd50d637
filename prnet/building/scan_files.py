"""Reading textured head scans: which files of a folder are scans, and what is in them.

OBJ, PLY, GLB and what else trimesh reads with a picture or vertex colours, and VRML. Letters: N
vertices, T triangles.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.checks import require_finite
from prnet.datasets.pictures import decode_picture
from prnet.files import read_bytes, read_csv, require_file, visible_files

SUFFIXES = (".obj", ".ply", ".glb", ".gltf", ".off", ".stl", ".wrl", ".vrml")
VRML_SUFFIXES = (".wrl", ".vrml")
LANDMARKS_FILE = "landmarks.csv"
LANDMARK_COLUMNS = ["index", "x", "y", "z"]
OUTER_EYES = (36, 45)


class SubjectScans(NamedTuple):
    """One subject's scans, the preferred first."""

    name: str
    paths: tuple[Path, ...]
    landmarks: Path | None  # a CSV of points that somebody marked on the first


class Scan(NamedTuple):
    """The surface of one file, in its own frame and unit, y up."""

    vertices: np.ndarray  # (N, 3), float64; one for each pair of a point and a texture coordinate
    triangles: np.ndarray  # (T, 3), int64, of either winding
    uv_coords: np.ndarray | None  # (N, 2), v up, where there is a texture
    texture: np.ndarray | None  # (H, W, 3), uint8 RGB
    colors: np.ndarray | None  # (N, 3), uint8 RGB, where there is no texture


def find_scans(folder: Path | str, preferred: Sequence[str]) -> list[SubjectScans]:
    """The subjects of a folder, sorted by name.

    A subject is a sub-folder with its scan, or with the MICC archive's Model/frontal1/obj/*.obj and
    the like, of which those named in `preferred` are taken in that order; or it is a file.

    Raises:
        FileNotFoundError: no such folder, or no scan in it.
        ValueError: a sub-folder has several scans and nothing says which.
    """
    folder = Path(folder)
    hint = "unpack the scans there as SUBJECT/NAME.obj, SUBJECT/Model/frontal1/obj/NAME.obj or NAME"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: missing; {hint}")
    found = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            marked = path.with_suffix(".csv")
            found.append(SubjectScans(path.stem, (path,), marked if marked.is_file() else None))
        elif path.is_dir():
            paths = _scans_of(path, preferred)
            if paths:
                marked = path / LANDMARKS_FILE
                found.append(SubjectScans(path.name, paths, marked if marked.is_file() else None))
    if not found:
        raise FileNotFoundError(f"{folder}: no scan found ({', '.join(SUFFIXES)}); {hint}")
    names = [scan.name for scan in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{folder}: several scans of {', '.join(twice)}; keep one each")
    return found


def _scans_of(subject: Path, preferred: Sequence[str]) -> tuple[Path, ...]:
    model = subject / "Model"
    if not model.is_dir():
        paths = visible_files(subject, SUFFIXES)
        if len(paths) > 1:
            raise ValueError(
                f"{subject}: several scans ({', '.join(path.name for path in paths)}); keep one"
            )
        return tuple(paths)
    chosen = []
    for name in preferred:
        # OBJ before VRML, as the list of suffixes has them.
        paths = visible_files(model / name, SUFFIXES, below=True)
        chosen += sorted(paths, key=lambda path: SUFFIXES.index(path.suffix.lower()))
    return tuple(chosen)


def require_trimesh(files: Sequence[SubjectScans]) -> None:
    """Raise ValueError if one of the scans takes trimesh and it is not installed."""
    paths = [path for file in files for path in file.paths]
    taken = [path for path in paths if path.suffix.lower() not in VRML_SUFFIXES]
    if taken and importlib.util.find_spec("trimesh") is None:
        raise ValueError(f"{taken[0]}: reading it takes trimesh; run pip install 'prnet[scans]'")


def read_scan(path: Path) -> Scan:
    """One scan with its colours.

    Raises:
        ModuleNotFoundError: it takes trimesh; see `require_trimesh`.
        ValueError: damaged, without a surface, without colours, or not finite.
    """
    require_file(path)
    scan = _read_vrml(path) if path.suffix.lower() in VRML_SUFFIXES else _read_mesh(path)
    if len(scan.triangles) == 0 or len(scan.vertices) == 0:
        raise ValueError(f"{path}: {len(scan.vertices)} points and no triangles, expected a mesh")
    if not 0 <= scan.triangles.min() <= scan.triangles.max() < len(scan.vertices):
        raise ValueError(
            f"{path}: triangles name the points {scan.triangles.min()} to {scan.triangles.max()}, "
            f"there are {len(scan.vertices)}"
        )
    require_finite(f"{path}: one of its points", scan.vertices)
    if scan.texture is None and scan.colors is None:
        raise ValueError(f"{path}: no texture and no vertex colours, expected a coloured scan")
    # Points that no triangle uses are not part of the surface.
    used, triangles = np.unique(scan.triangles, return_inverse=True)
    return scan._replace(
        vertices=scan.vertices[used],
        triangles=triangles.reshape(scan.triangles.shape),
        uv_coords=None if scan.uv_coords is None else scan.uv_coords[used],
        colors=None if scan.colors is None else scan.colors[used],
    )


def _read_mesh(path: Path) -> Scan:
    import trimesh

    try:
        # Unprocessed: near points stay apart. Its maintain_order would average over texture seams.
        loaded = trimesh.load_scene(path, process=False)
        mesh = loaded.to_mesh()
    except Exception as error:  # noqa: BLE001 - on a damaged file trimesh raises nearly anything
        raise ValueError(f"{path}: not a readable scan ({error})") from error
    texture = colors = uv_coords = None
    visual = getattr(mesh, "visual", None)
    if visual is not None and visual.kind == "texture":
        material = visual.material
        picture = getattr(material, "image", None)
        picture = getattr(material, "baseColorTexture", None) if picture is None else picture
        if picture is not None and visual.uv is not None:
            texture, uv_coords = np.array(picture.convert("RGB")), np.array(visual.uv, np.float64)
    elif visual is not None and visual.kind in ("vertex", "face"):
        colors = np.array(visual.vertex_colors)[:, :3].astype(np.uint8)
    return Scan(
        np.array(mesh.vertices, dtype=np.float64),
        np.array(mesh.faces, dtype=np.int64),
        uv_coords,
        texture,
        colors,
    )


def _read_vrml(path: Path) -> Scan:
    """One IndexedFaceSet of VRML 1.0 or 97 with its texture; transforms are not applied."""
    text = re.sub(r"#[^\n]*", "", read_bytes(path).decode("latin-1"))

    def numbers(pattern: str, *, required: bool = True) -> np.ndarray | None:
        lists = re.findall(pattern + r"\s*\[([^\]]*)\]", text)
        if len(lists) != 1 and (required or lists):
            raise ValueError(f"{path}: {len(lists)} lists {pattern!r}, expected one mesh")
        try:
            return np.array(lists[0].replace(",", " ").split(), np.float64) if lists else None
        except ValueError as error:
            raise ValueError(f"{path}: {pattern!r} is not a list of numbers ({error})") from error

    points = numbers(r"\bCoordinate3?\s*\{\s*point").reshape(-1, 3)
    corners = _fans(numbers(r"\bcoordIndex"))
    url = re.search(r'\b(?:url|filename)\s*\[?\s*"([^"]+)"', text)
    coords = numbers(r"\bTextureCoordinate2?\s*\{\s*point", required=False)
    if url is None or coords is None:
        return Scan(points, corners, None, None, None)
    chosen = numbers(r"\b(?:texCoordIndex|textureCoordIndex)", required=False)
    texture_corners = corners if chosen is None else _fans(chosen)
    if texture_corners.shape != corners.shape:
        raise ValueError(
            f"{path}: {len(corners)} triangles and {len(texture_corners)} in the texture"
        )
    picture = path.parent / Path(url.group(1).replace("\\", "/")).name
    if not picture.is_file():
        raise ValueError(f"{path}: its texture {picture.name} is not beside it")
    pairs, triangles = np.unique(
        np.stack([corners.ravel(), texture_corners.ravel()], 1), axis=0, return_inverse=True
    )
    return Scan(
        points[pairs[:, 0]],
        triangles.reshape(corners.shape),
        coords.reshape(-1, 2)[pairs[:, 1]],
        decode_picture(read_bytes(picture), source=picture),
        None,
    )


def _fans(indices: np.ndarray) -> np.ndarray:  # (L,), polygons that end with -1
    """Triangles (T, 3) of polygons, each cut into a fan."""
    polygons = np.split(indices.astype(np.int64), np.flatnonzero(indices == -1) + 1)
    fans = [
        (polygon[0], polygon[corner], polygon[corner + 1])
        for polygon in (each[each >= 0] for each in polygons)
        for corner in range(1, len(polygon) - 1)
    ]
    return np.array(fans, dtype=np.int64).reshape(-1, 3)


def read_landmarks(path: Path) -> dict[int, np.ndarray]:
    """A CSV with columns index,x,y,z in the scan's own frame: {index of the 68: (3,)}.

    Raises:
        ValueError: other columns, an index that is none of 0 to 67 or appears twice, a value that
            is no number, or not both outer eye corners, 36 and 45.
    """
    points = {}
    for name, point in read_csv(path, LANDMARK_COLUMNS, hint="it was there before").rows.items():
        if not name.strip().isdecimal() or not int(name) < 68:
            raise ValueError(f"{path}: got the index {name!r}, expected one of the 68, 0 to 67")
        points[int(name)] = point
    lacking = [index for index in OUTER_EYES if index not in points]
    if lacking:
        raise ValueError(f"{path}: lacks the outer eye corner(s) {lacking}; expected 36 and 45")
    return points
