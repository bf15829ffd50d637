"""Where scans lie and what is in their files."""

import base64
import importlib.util
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from prnet.building.scan_files import (
    find_scans,
    read_landmarks,
    read_scan,
    require_trimesh,
)
from prnet.datasets.pictures import write_picture

# Two squares that share an edge in space and not in the texture.
POINTS = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [4, 0, 1], [4, 1, 1]], float)
COORDS = np.array([[0, 0], [0.5, 0], [0.5, 1], [0, 1], [0.5, 0], [1, 0], [1, 1], [0.5, 1]], float)
QUADS, TEXTURE_QUADS = [[0, 1, 2, 3], [1, 4, 5, 2]], [[0, 1, 2, 3], [4, 5, 6, 7]]
PREFERRED = ("frontal1", "frontal2")


def write_texture(folder: Path) -> np.ndarray:
    texture = np.random.default_rng(0).integers(0, 256, (4, 8, 3)).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    write_picture(folder / "skin.png", texture)
    return texture


def write_textured_obj(path: Path) -> np.ndarray:
    texture = write_texture(path.parent)
    path.with_suffix(".mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    lines = [f"mtllib {path.stem}.mtl"]
    lines += [f"v {x} {y} {z}" for x, y, z in POINTS]
    lines += [f"vt {u} {v}" for u, v in COORDS]
    lines.append("usemtl skin")
    for quad, texture_quad in zip(QUADS, TEXTURE_QUADS, strict=True):
        lines.append(
            "f " + " ".join(f"{p + 1}/{t + 1}" for p, t in zip(quad, texture_quad, strict=True))
        )
    path.write_text("\n".join(lines) + "\n")
    return texture


def listed(rows: object) -> str:
    return ", ".join(" ".join(map(str, row)) for row in rows)


def polygons(rows: object) -> str:
    return ", ".join(", ".join(map(str, row)) + ", -1" for row in rows)


VRML_97 = """#VRML V2.0 utf8
Shape {{ appearance Appearance {{ texture ImageTexture {{ url "skin.png" }} }}
  geometry IndexedFaceSet {{ coord Coordinate {{ point [ {points} ] }}
    coordIndex [ {quads} ]  # four corners each
    texCoord TextureCoordinate {{ point [ {coords} ] }} texCoordIndex [ {texture_quads} ] }} }}
"""
VRML_1 = """#VRML V1.0 ascii
Separator {{ Texture2 {{ filename "skin.png" }} Coordinate3 {{ point [ {points} ] }}
  TextureCoordinate2 {{ point [ {coords} ] }}
  IndexedFaceSet {{ coordIndex [ {quads} ] textureCoordIndex [ {texture_quads} ] }} }}
"""


def write_vrml(path: Path, template: str) -> np.ndarray:
    texture = write_texture(path.parent)
    path.write_text(
        template.format(
            points=listed(POINTS),
            coords=listed(COORDS),
            quads=polygons(QUADS),
            texture_quads=polygons(TEXTURE_QUADS),
        )
    )
    return texture


def corner_table(scan) -> np.ndarray:
    """Every corner of every triangle as x, y, z, u, v: what a reader may not change."""
    rows = np.concatenate([scan.vertices, scan.uv_coords], 1)[scan.triangles].reshape(-1, 5)
    return rows[np.lexsort(rows.T)]


def expected_corners() -> np.ndarray:
    fans = [(0, 1, 2), (0, 2, 3)]
    rows = [
        np.concatenate([POINTS[quad[i]], COORDS[texture_quad[i]]])
        for quad, texture_quad in zip(QUADS, TEXTURE_QUADS, strict=True)
        for fan in fans
        for i in fan
    ]
    rows = np.array(rows)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("kind", ["obj", "vrml 97", "vrml 1"])
def test_texture_stays_where_it_is_on_the_surface(tmp_path, kind):
    if kind == "obj":
        path = tmp_path / "head.obj"
        texture = write_textured_obj(path)
    else:
        path = tmp_path / "head.wrl"
        texture = write_vrml(path, VRML_97 if kind == "vrml 97" else VRML_1)
    scan = read_scan(path)
    np.testing.assert_allclose(corner_table(scan), expected_corners())
    np.testing.assert_array_equal(scan.texture, texture)
    assert scan.colors is None
    assert scan.triangles.shape == (4, 3)


LIBRARIES = {
    "plain": ("skin.mtl", "map_Kd skin.png"),
    "options": ("skin.mtl", "map_Kd -s 1 1 1 -o 0 0 -bm 0.5 -clamp on skin.png"),
    "windows": ("SKIN.mtl", "map_Kd C:\\scans\\anna\\Skin.PNG"),
    "below": (".\\skin.mtl", "map_Kd Textures\\SKIN.png"),
    "quoted": ("skin.mtl", 'map_Kd "skin.png"'),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_texture_is_found_by_any_name_that_means_it(tmp_path, library):
    name, line = LIBRARIES[library]
    path = tmp_path / "head.obj"
    texture = write_textured_obj(path)
    if library == "below":
        (tmp_path / "skin.png").rename(touch(tmp_path / "textures" / "skin.png"))
    (material,) = tmp_path.glob("*.mtl")
    text = material.read_text().replace("map_Kd skin.png", line)
    assert line in text
    material.unlink()
    (tmp_path / "skin.mtl").write_bytes("# Müller\n".encode("latin-1") + text.encode())
    obj = path.read_text().replace(f"mtllib {material.name}", f"mtllib {name}")
    path.write_bytes("# Müller\n".encode("latin-1") + obj.encode())
    np.testing.assert_array_equal(read_scan(path).texture, texture)


def test_what_a_scan_names_and_is_not_there_is_named(tmp_path):
    path = tmp_path / "head.obj"
    write_textured_obj(path)
    (tmp_path / "skin.png").unlink()
    with pytest.raises(ValueError, match=r"head\.obj: its texture skin\.png is not beside it"):
        read_scan(path)
    (material,) = tmp_path.glob("*.mtl")
    material.unlink()
    with pytest.raises(ValueError, match=rf"head\.obj: its materials {material.name} are not"):
        read_scan(path)


def test_several_textures_become_one(tmp_path):
    """Each corner shows the colour that its own texture has there."""
    path = tmp_path / "head.obj"
    left, right = (np.full((size, 4, 3), value, np.uint8) for size, value in ((4, 50), (8, 200)))
    write_picture(tmp_path / "left.png", left)
    write_picture(tmp_path / "right.png", right)
    (tmp_path / "a.mtl").write_text("newmtl l\nmap_Kd left.png\nnewmtl r\nmap_Kd right.png\n")
    lines = ["mtllib a.mtl", *(f"v {x} {y} {z}" for x, y, z in POINTS)]
    lines += ["vt 0.2 0.2", "vt 0.8 0.2", "vt 0.8 0.8", "vt 0.2 0.8"]
    lines += ["usemtl l", "f 1/1 2/2 3/3 4/4", "usemtl r", "f -5/1 -2/2 -1/3 -4/4"]
    path.write_text("\n".join(lines))
    scan = read_scan(path)
    height, width = scan.texture.shape[:2]
    column = (scan.uv_coords[:, 0] * width - 0.5).round().astype(int)
    row = ((1 - scan.uv_coords[:, 1]) * height - 0.5).round().astype(int)
    shown = scan.texture[row, column, 0]
    # Of the first square and of the second, which share two points in space.
    assert (shown[np.unique(scan.triangles[:2])] == 50).all()
    assert (shown[np.unique(scan.triangles[2:])] == 200).all()
    np.testing.assert_array_equal(np.unique(scan.vertices, axis=0), np.unique(POINTS, axis=0))


@pytest.mark.parametrize("unit", [1, 255])
@pytest.mark.parametrize("corner", ["{0}", "{0}/1", "{0}//1", "{0}/1/1"])
def test_colours_of_points_in_either_range_beside_coordinates(tmp_path, unit, corner):
    colors = np.array([[0, 0, 60], [255, 0, 60], [128, 255, 60], [9, 1, 60]])
    rows = [
        " ".join(map(str, ("v", *point, *(color * unit / 255))))
        for point, color in zip(POINTS, colors, strict=False)
    ]
    face = "f " + " ".join(corner.format(k) for k in (1, 2, 3, 4))
    path = tmp_path / "head.obj"
    path.write_text("\n".join([*rows, "vt 0.5 0.5", "vn 0 0 1", face]))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.colors, colors)
    assert scan.texture is None
    path.write_text("\n".join([*rows, "v 0 0 0 0 0 256", face]))
    with pytest.raises(ValueError, match="expected 0 to 1 or to 255"):
        read_scan(path)


def test_vertex_colours(tmp_path):
    lines = [f"v {x} {y} {z} 1 0.2 0" for x, y, z in [*POINTS, (9, 9, 9)]]
    path = tmp_path / "head.obj"
    path.write_text("\n".join([*lines, "f 1 2 3", "f 1 3 4"]) + "\n")
    scan = read_scan(path)
    # Two corners of the second square and a stray point belong to no triangle.
    assert scan.vertices.shape == (4, 3)
    np.testing.assert_array_equal(scan.colors, np.tile([255, 51, 0], (4, 1)))
    assert scan.texture is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "head.obj: "),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "no texture and no vertex colours"),
        (
            "v nan 0 0 1 1 1\nv 1 0 0 1 1 1\nv 0 1 0 1 1 1\nf 1 2 3\n",
            "not finite",
        ),
    ],
)
def test_unusable_obj(tmp_path, content, message):
    (tmp_path / "head.obj").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / "head.obj")


def test_unusable_vrml(tmp_path):
    path = tmp_path / "head.wrl"
    write_vrml(path, VRML_97 + VRML_97)
    with pytest.raises(ValueError, match="2 lists"):
        read_scan(path)
    write_vrml(path, VRML_97)
    (tmp_path / "skin.png").unlink()
    with pytest.raises(ValueError, match=r"skin\.png is not beside it"):
        read_scan(path)
    path.write_text(path.read_text().replace('url "skin.png"', ""))
    with pytest.raises(ValueError, match="no texture and no vertex colours"):
        read_scan(path)
    write_vrml(path, VRML_97.replace("{texture_quads}", "0, 1, 2, -1"))
    with pytest.raises(ValueError, match="4 triangles and 1 in the texture"):
        read_scan(path)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_archive_s_layout(tmp_path):
    """MICC's: several scans a subject as OBJ and VRML, of which some may be missing."""
    model = tmp_path / "subject_01" / "Model"
    wrl = touch(model / "frontal1" / "vrml" / "110920150452.wrl")
    obj = touch(model / "frontal1" / "obj" / "110920150452.obj")
    second = touch(model / "frontal2" / "obj" / "110920150511.obj")
    touch(model / "sidel" / "obj" / "110920150547.obj")
    touch(model / "frontal1" / "obj" / "110920150452.bmp")
    only = touch(tmp_path / "subject_02" / "Model" / "frontal2" / "obj" / "1.obj")
    touch(tmp_path / "subject_02" / "landmarks.csv")
    (tmp_path / "subject_03" / "Model" / "frontal1").mkdir(parents=True)
    first, other = find_scans(tmp_path, PREFERRED)
    assert (first.name, first.paths) == ("subject_01", (obj, wrl, second))
    assert (other.name, other.paths) == ("subject_02", (only,))
    assert first.landmarks is None
    assert other.landmarks == tmp_path / "subject_02" / "landmarks.csv"
    assert find_scans(tmp_path, ["sidel"])[0].paths[0].name == "110920150547.obj"


def test_any_folder_of_scans(tmp_path):
    inside = touch(tmp_path / "anna" / "head.PLY")
    beside = touch(tmp_path / "bert.glb")
    marked = touch(tmp_path / "bert.csv")
    touch(tmp_path / "notes" / "readme.txt")
    assert [tuple(scan) for scan in find_scans(tmp_path, PREFERRED)] == [
        ("anna", (inside,), None),
        ("bert", (beside,), marked),
    ]


def test_scans_that_cannot_be_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: missing; unpack"):
        find_scans(tmp_path / "nowhere", PREFERRED)
    with pytest.raises(FileNotFoundError, match="no scan found"):
        find_scans(tmp_path, PREFERRED)
    touch(tmp_path / "anna" / "a.obj")
    touch(tmp_path / "anna" / "b.obj")
    with pytest.raises(ValueError, match=r"several scans \(a\.obj, b\.obj\)"):
        find_scans(tmp_path, PREFERRED)
    (tmp_path / "anna" / "b.obj").unlink()
    touch(tmp_path / "anna.obj")
    with pytest.raises(ValueError, match="several scans of anna"):
        find_scans(tmp_path, PREFERRED)


PLY_HEAD = """ply
format ascii 1.0
{comment}element vertex 8
property float x
property float y
property float z
property float s
property float t
{colors}element face 2
property list uchar int vertex_indices
end_header
"""
PLY_COLORS = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))


def write_ply(path: Path, picture: str | None, *, colors: bool = False) -> None:
    """A point a corner, each with its coordinate and, if wanted, a colour."""
    comment = "" if picture is None else f"comment TextureFile {picture}\n"
    head = PLY_HEAD.format(comment=comment, colors=PLY_COLORS if colors else "")
    quads = [corner for quad in QUADS for corner in quad]
    rows = np.concatenate([POINTS[quads], COORDS], 1)
    lines = [" ".join(map(str, [*row, *([7, 8, 9] if colors else [])])) for row in rows]
    path.write_text(head + "\n".join([*lines, "4 0 1 2 3", "4 4 5 6 7"]) + "\n")


def write_gltf(path: Path, picture: str | None) -> None:
    """The same, its numbers inside; without a material where there is no picture."""
    quads = [corner for quad in QUADS for corner in quad]
    index = [corner + 4 * k for k in (0, 1) for corner in (0, 1, 2, 0, 2, 3)]
    # glTF counts v from the top.
    coords = COORDS * [1, -1] + [0, 1]
    parts = [POINTS[quads].astype("<f4"), coords.astype("<f4"), np.array(index, "<u4")]
    data = [part.tobytes() for part in parts]
    starts = np.cumsum([0, *map(len, data)]).tolist()
    kinds = [(5126, 8, "VEC3"), (5126, 8, "VEC2"), (5125, 12, "SCALAR")]
    uri = "data:application/octet-stream;base64," + base64.b64encode(b"".join(data)).decode()
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2}
    content = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "scene": 0,
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": starts[-1], "uri": uri}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(part)}
            for start, part in zip(starts, data, strict=False)
        ],
        "accessors": [
            {"bufferView": k, "componentType": kind, "count": count, "type": shape}
            for k, (kind, count, shape) in enumerate(kinds)
        ],
    }
    if picture is not None:
        primitive["material"] = 0
        colour = {"baseColorTexture": {"index": 0}}
        content |= {
            "materials": [{"pbrMetallicRoughness": colour}],
            "textures": [{"source": 0}],
            "images": [{"uri": picture}],
        }
    path.write_text(json.dumps(content))


WRITERS = {".ply": write_ply, ".gltf": write_gltf}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("name", ["skin.png", "Skin.PNG", "C:\\scans\\skin.png", "my skin.png"])
def test_other_formats_find_a_texture_as_well(tmp_path, suffix, name):
    pytest.importorskip("trimesh")
    texture = write_texture(tmp_path)
    if " " in name:
        (tmp_path / "skin.png").rename(tmp_path / name)
    path = tmp_path / f"head{suffix}"
    WRITERS[suffix](path, quote(name) if " " in name and suffix == ".gltf" else name)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.texture, texture)
    np.testing.assert_allclose(corner_table(scan), expected_corners(), atol=1e-6)
    if suffix == ".gltf":  # a picture may also be inside
        data = base64.b64encode(next(tmp_path.glob("*.png")).read_bytes()).decode()
        write_gltf(path, f"data:image/png;base64,{data}")
        np.testing.assert_array_equal(read_scan(path).texture, texture)


@pytest.mark.parametrize("suffix", WRITERS)
def test_no_texture_is_made_up(tmp_path, suffix, caplog, capfd):
    """Of a picture that is not there, or none, a reader may make a grey one."""
    pytest.importorskip("trimesh")
    path = tmp_path / f"head{suffix}"
    WRITERS[suffix](path, "gone.png")
    with pytest.raises(ValueError, match=rf"head\{suffix}: its file gone\.png is not beside it$"):
        read_scan(path)
    (tmp_path / "gone.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"head\{suffix}: gone\.png: not a picture"):
        read_scan(path)
    WRITERS[suffix](path, None)
    with pytest.raises(ValueError, match="no texture and no vertex colours"):
        read_scan(path)
    assert "Traceback" not in caplog.text + capfd.readouterr().err


def test_colours_beside_coordinates_of_a_ply(tmp_path):
    """Are taken where no texture is named; where one is and is not there, that is said."""
    pytest.importorskip("trimesh")
    write_ply(tmp_path / "head.ply", None, colors=True)
    scan = read_scan(tmp_path / "head.ply")
    assert scan.texture is None
    assert (scan.colors == [7, 8, 9]).all()
    write_ply(tmp_path / "head.ply", "gone.png", colors=True)
    with pytest.raises(ValueError, match="gone.png is not beside it"):
        read_scan(tmp_path / "head.ply")


def test_without_trimesh(tmp_path, monkeypatch):
    touch(tmp_path / "a.wrl")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_trimesh(find_scans(tmp_path, PREFERRED))
    touch(tmp_path / "b.ply")
    with pytest.raises(ValueError, match=r"b\.ply: .* pip install 'prnet\[scans\]'"):
        require_trimesh(find_scans(tmp_path, PREFERRED))


def test_landmarks_of_a_scan(tmp_path):
    path = tmp_path / "landmarks.csv"
    path.write_text("index,x,y,z\n36,-40,1,2.5\n45,40,1,2.5\n\n30,0,-20,30\n")
    points = read_landmarks(path)
    assert sorted(points) == [30, 36, 45]
    np.testing.assert_array_equal(points[36], [-40, 1, 2.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the first line is"),
        ("point,x,y,z\n", "the first line is"),
        ("index,x,y,z\n36,0,0,0\n", r"lacks the outer eye corner\(s\) \[45\]"),
        ("index,x,y,z\n68,0,0,0\n", "got the index '68'"),
        ("index,x,y,z\n36,0,0\n", "line 2 is '36,0,0', expected a name and 3"),
        ("index,x,y,z\n36,0,0,nan\n", "z is 'nan'"),
        ("index,x,y,z\n36,0,0,0\n36,0,0,0\n", "36 appears twice"),
    ],
)
def test_unusable_landmarks(tmp_path, content, message):
    path = tmp_path / "landmarks.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_landmarks(path)
