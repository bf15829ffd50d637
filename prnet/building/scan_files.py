"""Reading textured head scans: which files of a folder are scans, and what is in them.

OBJ and VRML; PLY, GLB and what else trimesh reads with a picture or vertex colours. Letters: N
vertices, T triangles.
"""

import contextlib
import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np

from prnet.checks import require_finite
from prnet.datasets.obj_files import find_named, find_texture, read_obj
from prnet.datasets.pictures import decode_picture
from prnet.files import read_bytes, require_file, visible_files
from prnet.files.csv_tables import read_csv

SUFFIXES = (".obj", ".ply", ".glb", ".gltf", ".off", ".stl", ".wrl", ".vrml")
VRML_SUFFIXES = (".wrl", ".vrml")
GLTF_SUFFIXES = (".glb", ".gltf")  # which may hold their pictures themselves
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
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
    own = (".obj", *VRML_SUFFIXES)
    taken = [path for path in paths if path.suffix.lower() not in own]
    if taken and importlib.util.find_spec("trimesh") is None:
        raise ValueError(f"{taken[0]}: reading it takes trimesh; run pip install 'prnet[scans]'")


def read_scan(path: Path | str) -> Scan:
    """One scan with its colours.

    Raises:
        ModuleNotFoundError: it takes trimesh; see `require_trimesh`.
        ValueError: damaged, without a surface, without colours, or not finite.
    """
    path = Path(path)
    require_file(path)
    suffix = path.suffix.lower()
    read = {".obj": _read_obj, **dict.fromkeys(VRML_SUFFIXES, _read_vrml)}.get(suffix, _read_mesh)
    scan = read(path)
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


def _read_obj(path: Path) -> Scan:
    """The texture of its materials, several side by side, or else the colours of its points."""
    mesh = read_obj(path)
    files = {} if mesh.colors is not None and not mesh.libraries else find_texture(path, mesh)
    textured = bool(files) and len(mesh.uv_coords) > 0
    if not textured:
        return Scan(mesh.vertices, mesh.triangles, None, None, mesh.colors)
    if not 0 <= mesh.uv_triangles.min() <= mesh.uv_triangles.max() < len(mesh.uv_coords):
        raise ValueError(f"{path}: a triangle without a texture coordinate; expected one a corner")
    plain = set(mesh.materials.tolist()) - files.keys()
    if plain:
        names = ", ".join(mesh.material_names[number] or "none" for number in sorted(plain))
        raise ValueError(f"{path}: no texture of the material {names}, others have one")
    pictures = {
        file: decode_picture(file.read_bytes(), source=file) for file in sorted(set(files.values()))
    }
    numbers = {file: number for number, file in enumerate(pictures)}
    column = np.array([numbers.get(files.get(k), 0) for k in range(len(mesh.material_names))])
    corners = np.stack(
        [
            mesh.triangles.ravel(),
            mesh.uv_triangles.ravel(),
            np.repeat(column[mesh.materials], 3),
        ],
        1,
    )
    used, triangles = np.unique(corners, axis=0, return_inverse=True)
    texture, uv_coords = _side_by_side(list(pictures.values()), mesh.uv_coords[used[:, 1]], used)
    return Scan(
        mesh.vertices[used[:, 0]],
        triangles.reshape(mesh.triangles.shape),
        uv_coords,
        texture,
        None,
    )


def _side_by_side(
    pictures: Sequence[np.ndarray],  # (H, W, 3) each
    uv_coords: np.ndarray,  # (N, 2)
    used: np.ndarray,  # (N, 3), the last: of which picture
) -> tuple[np.ndarray, np.ndarray]:
    """One texture, and the coordinates in it."""
    if len(pictures) == 1:
        return pictures[0], uv_coords
    height = max(picture.shape[0] for picture in pictures)
    padded = [np.pad(one, ((0, height - one.shape[0]), (0, 0), (0, 0))) for one in pictures]
    sizes = np.array([one.shape[:2] for one in pictures])[used[:, 2]]  # (N, 2)
    left = np.cumsum([0, *(one.shape[1] for one in pictures)])
    across = (left[used[:, 2]] + uv_coords[:, 0] * sizes[:, 1]) / left[-1]
    up = 1 - (1 - uv_coords[:, 1]) * sizes[:, 0] / height
    return np.concatenate(padded, 1), np.stack([across, up], 1)


def _read_mesh(path: Path) -> Scan:
    import trimesh

    beside = FilesBeside(path)
    try:
        # Unprocessed: near points stay apart. Its maintain_order would average over texture seams.
        # It would say itself, at length, what `beside` does, and go on with a grey texture.
        with _silent(trimesh.util.log):
            mesh = trimesh.load_scene(path, process=False, resolver=beside).to_mesh()
    except Exception as error:  # noqa: BLE001 - on a damaged file trimesh raises nearly anything
        reason = beside.fault or f"not a readable scan ({error})"
        raise ValueError(f"{path}: {reason}") from error
    if beside.fault:
        raise ValueError(f"{path}: {beside.fault}")
    texture = colors = uv_coords = None
    visual = getattr(mesh, "visual", None)
    if visual is not None and visual.kind == "texture":
        material = visual.material
        picture = getattr(material, "image", None)
        picture = getattr(material, "baseColorTexture", None) if picture is None else picture
        # Where no picture is named trimesh makes one up, of one grey pixel or so.
        named = beside.pictures or path.suffix.lower() in GLTF_SUFFIXES
        if named and picture is not None and visual.uv is not None:
            texture, uv_coords = np.array(picture.convert("RGB")), np.array(visual.uv, np.float64)
        elif "color" in mesh.vertex_attributes:  # beside coordinates of no texture
            colors = trimesh.visual.to_rgba(mesh.vertex_attributes["color"])[:, :3]
    elif visual is not None and visual.kind in ("vertex", "face"):
        colors = np.array(visual.vertex_colors)[:, :3].astype(np.uint8)
    return Scan(
        np.array(mesh.vertices, dtype=np.float64),
        np.array(mesh.faces, dtype=np.int64),
        uv_coords,
        texture,
        colors,
    )


class FilesBeside:
    """What trimesh asks for the files that another names: by any name that means one, as
    `find_named`; `fault` says which is not there or no picture, `pictures` how many were read."""

    def __init__(self, path: Path) -> None:
        self.folder, self.fault, self.pictures = path.parent, "", 0

    def get(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError, ValueError: it is not there, or a picture that cannot be read.
        """
        found = find_named(self.folder, name) or find_named(self.folder, unquote(name))
        if found is None:
            self.fault = f"its file {name} is not beside it"
            raise FileNotFoundError(name)
        data = read_bytes(found)
        if found.suffix.lower() in PICTURE_SUFFIXES:
            try:
                decode_picture(data, source=found.name)
            except ValueError as error:
                self.fault = str(error)
                raise
            self.pictures += 1
        return data

    __getitem__ = get


@contextlib.contextmanager
def _silent(log: logging.Logger) -> Iterator[None]:
    was, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was


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
    picture = find_named(path.parent, url.group(1))
    if picture is None:
        raise ValueError(f"{path}: its texture {url.group(1)} is not beside it")
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
