"""OBJ and PLY files of any program: points, triangles, colours, textures by the names they are
given."""

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from prnet.checks import require_finite

# Options of a texture's line and how many values follow; of "-o", "-s" and "-t" one to three.
MAP_OPTIONS = {"-mm": 2} | dict.fromkeys(
    ("-blendu", "-blendv", "-bm", "-boost", "-cc", "-clamp", "-imfchan", "-texres", "-type"), 1
)
MAP_TRIPLES = ("-o", "-s", "-t")
PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
PLY_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


class ObjMesh(NamedTuple):
    """One OBJ; polygons are cut into fans."""

    vertices: np.ndarray  # (N, 3), float64
    colors: np.ndarray | None  # (N, 3), uint8 RGB
    uv_coords: np.ndarray  # (M, 2), v up
    triangles: np.ndarray  # (T, 3), int64
    uv_triangles: np.ndarray  # (T, 3), int64, -1 where a corner has no texture coordinate
    materials: np.ndarray  # (T,), int64, of `material_names`
    material_names: tuple[str, ...]
    libraries: tuple[str, ...]  # the names of the .mtl files


def read_text(path: Path) -> str:
    """UTF-8, or Latin-1 as older programs write."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_obj(path: Path) -> ObjMesh:
    """Raises ValueError, naming file and line, where it is damaged."""
    vertices: list[list[float]] = []
    uv_coords: list[list[float]] = []
    triangles, uv_triangles, materials = [], [], []
    names, libraries = [""], []
    for number, line in enumerate(read_text(path).replace("\\\n", " ").split("\n"), 1):
        key, _, rest = line.strip().partition(" ")
        try:
            if key == "v":
                vertices.append([float(value) for value in rest.split()])
            elif key == "vt":
                uv_coords.append([float(value) for value in rest.split()[:2]])
            elif key == "f":
                corners = [
                    _corner(one, len(vertices), len(uv_coords))
                    for one in rest.partition("#")[0].split()
                ]
                for second, third in zip(corners[1:-1], corners[2:], strict=True):
                    fan = (corners[0], second, third)
                    triangles.append([corner[0] for corner in fan])
                    uv_triangles.append([corner[1] for corner in fan])
                    materials.append(len(names) - 1)
            elif key == "usemtl":
                names.append(rest.strip())
            elif key == "mtllib":
                libraries.append(rest.strip())
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}: line {number} is {line.strip()[:60]!r}") from error
    widths = {len(vertex) for vertex in vertices}
    if not vertices or len(widths) > 1 or not widths <= {3, 4, 6, 7}:
        raise ValueError(
            f"{path}: {len(vertices)} points of {sorted(widths)} values, expected x y z or "
            "x y z r g b"
        )
    values = np.array(vertices)
    return ObjMesh(
        values[:, :3],
        _as_bytes(values[:, -3:], path) if values.shape[1] >= 6 else None,
        np.array([(*one, 0.0)[:2] for one in uv_coords]).reshape(-1, 2),
        np.array(triangles, dtype=np.int64).reshape(-1, 3),
        np.array(uv_triangles, dtype=np.int64).reshape(-1, 3),
        np.array(materials, dtype=np.int64),
        tuple(names),
        tuple(libraries),
    )


def _corner(text: str, points: int, uv_coords: int) -> tuple[int, int]:
    """Indices from 0 of `a`, `a/b`, `a//c` or `a/b/c`; negative ones count from the last."""
    own, *others = text.split("/")
    indices = []
    for one, count in ((own, points), (others[0] if others else "", uv_coords)):
        value = int(one) if one else 0
        indices.append(value + count if value < 0 else value - 1)
    if not own or indices[0] < 0:
        raise ValueError(text)
    return indices[0], indices[1]


def _as_bytes(colors: np.ndarray, path: Path) -> np.ndarray:
    """Colours from 0 to 1, or from 0 to 255, as the largest of them says."""
    require_finite(f"{path}: colours", colors)
    low, high = colors.min(initial=0), colors.max(initial=0)
    if low < 0 or high > 255:
        raise ValueError(f"{path}: colours from {low:g} to {high:g}, expected 0 to 1 or to 255")
    return np.rint(colors * (255 if high <= 1 else 1)).astype(np.uint8)


def find_texture(path: Path, mesh: ObjMesh) -> dict[int, Path]:
    """The texture of each material that has one, by number.

    Raises:
        ValueError: a .mtl or a picture that is named is not there; names both.
    """
    by_name: dict[str, str] = {}
    for library in mesh.libraries:
        file = find_named(path.parent, library)
        if file is None:
            raise ValueError(f"{path}: its materials {library} are not beside it")
        material = ""
        for line in read_text(file).splitlines():
            key, _, rest = line.strip().partition(" ")
            if key == "newmtl":
                material = rest.strip()
            elif key.lower() == "map_kd":
                by_name[material] = _map_name(rest)
    found = {}
    for number in np.unique(mesh.materials).tolist():
        name = mesh.material_names[number]
        texture = by_name.get(name)
        # A single material may go by any name, or by none.
        if texture is None and len(by_name) == 1 and number == 0:
            (texture,) = by_name.values()
        if texture is not None:
            file = find_named(path.parent, texture)
            if file is None:
                raise ValueError(f"{path}: its texture {texture} is not beside it")
            found[number] = file
    return found


def _map_name(rest: str) -> str:
    """The name of a `map_Kd` without the options before it; it may hold blanks."""
    words = rest.split()
    while words and (words[0] in MAP_OPTIONS or words[0] in MAP_TRIPLES):
        option = words.pop(0)
        if option in MAP_OPTIONS:
            del words[: MAP_OPTIONS[option]]
            continue
        taken = 0
        while words and taken < 3 and re.fullmatch(r"[-+.\deE]+", words[0]):
            words.pop(0)
            taken += 1
    return " ".join(words).strip("\"'")


def find_named(folder: Path, name: str) -> Path | None:
    """A file as another file names it: below the folder, else by its last part, in any case; paths
    of Windows too."""
    given = PureWindowsPath(name)
    below = () if given.anchor else given.parts
    for parts in (below, given.parts[-1:]):
        place: Path | None = folder
        for part in parts:
            place = _in_any_case(place, part)
            if place is None:
                break
        if parts and place is not None and place.is_file():
            return place
    return None


def _in_any_case(folder: Path, name: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    return next((one for one in sorted(folder.iterdir()) if one.name.lower() == name.lower()), None)


def read_points(path: Path) -> np.ndarray:
    """The points of an .obj or .ply in their order, (N, 3), float64.

    Raises:
        ValueError: damaged, or without points.
    """
    points = read_obj(path).vertices if path.suffix.lower() == ".obj" else _read_ply(path)
    require_finite(f"{path}: one of its points", points)
    return points


def _read_ply(path: Path) -> np.ndarray:  # (N, 3)
    data = path.read_bytes()
    head, ended, body = data.partition(b"end_header")
    lines = [line.split() for line in head.decode("latin-1").splitlines()]
    kind = next((line[1] for line in lines if line[:1] == ["format"] and len(line) > 1), None)
    if lines[:1] != [["ply"]] or not ended or kind not in PLY_FORMATS:
        raise ValueError(f"{path}: not a readable .ply file; its header is not one")
    body = body[body.find(b"\n") + 1 :]
    try:
        count, properties = _ply_vertices(lines)
        columns = [[name for name, _ in properties].index(axis) for axis in "xyz"]
        if kind == "ascii":
            rows = [line.split() for line in body.decode("latin-1").splitlines()[:count]]
            points = np.array([[float(row[column]) for column in columns] for row in rows])
        else:
            dtype = np.dtype([(name, PLY_FORMATS[kind] + PLY_TYPES[of]) for name, of in properties])
            rows = np.frombuffer(body, dtype, count)
            points = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], 1)
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path}: not a readable .ply file ({error})") from error
    if len(points) != count or not count:
        raise ValueError(f"{path}: {len(points)} points, its header says {count}")
    return points


def _ply_vertices(lines: Sequence[Sequence[str]]) -> tuple[int, list[tuple[str, str]]]:
    """How many points, and the (name, type) of their properties; they come first in every file."""
    elements = [number for number, line in enumerate(lines) if line[:1] == ["element"]]
    first = elements[0] if elements else len(lines)
    _, name, count = lines[first]
    if name != "vertex":
        raise ValueError(f"its first element is {name}, expected vertex")
    last = elements[1] if len(elements) > 1 else len(lines)
    properties = [line for line in lines[first + 1 : last] if line[:1] == ["property"]]
    return int(count), [(line[2], line[1]) for line in properties]
