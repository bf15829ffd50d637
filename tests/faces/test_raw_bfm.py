"""The conversion of the raw BFM, on made-up raw files of the real sizes with few bases."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from prnet.faces import raw_bfm
from prnet.faces.bfm import load_bfm
from tests.commands import run_commands

RAW, KEPT, TRIANGLES, GRID = 53490, 53215, 105840, 231


def grid_triangles() -> np.ndarray:
    """1-based triangles of a grid of 231 columns, (3, 105840), repeated to the real number."""
    row, column = np.divmod(np.arange(GRID * 229), GRID)
    corner = (row * GRID + column)[column < GRID - 1] + 1
    upper = np.stack([corner, corner + 1, corner + GRID])
    lower = np.stack([corner + 1, corner + GRID + 1, corner + GRID])
    return np.resize(np.concatenate([upper, lower], axis=1).T, (TRIANGLES, 3)).T


def make_raw_files() -> dict[str, dict[str, np.ndarray]]:
    """Name -> content of every raw file, with the classes MATLAB stores."""
    rng = np.random.default_rng(0)
    trim_index = np.sort(rng.permutation(RAW)[:KEPT]) + 1
    uv = np.full((RAW, 2), 0.5)
    row, column = np.divmod(np.arange(KEPT), GRID)
    uv[trim_index - 1] = np.stack([column / (GRID - 1), 1 - row / GRID], axis=1)
    jaw = np.linspace(0, np.pi, 17)
    jaw_row, jaw_column = 80 + 100 * np.sin(jaw), 115 - 105 * np.cos(jaw)
    keypoints = np.concatenate(
        [jaw_row.astype(int) * GRID + jaw_column.astype(int), 60 * GRID + rng.permutation(200)[:51]]
    )
    region = rng.integers(4, size=RAW)
    region_of_triangle = rng.integers(4, size=TRIANGLES)

    def coordinates(rows: int, columns: int) -> np.ndarray:
        return rng.normal(size=(rows, columns)).astype(np.float32)

    def vertices(*shape: int) -> np.ndarray:
        return rng.integers(1, KEPT + 1, size=shape).astype(np.uint16)

    cells = np.zeros((17, 1), dtype=object)
    for index in range(17):
        cells[index, 0] = vertices(1, index + 3)
    return {
        "01_MorphableModel.mat": {
            f"{prefix}{name}": coordinates(*shape)
            for prefix in ("shape", "tex")
            for name, shape in (("MU", (3 * RAW, 1)), ("PC", (3 * RAW, 3)), ("EV", (3, 1)))
        },
        "model_info.mat": {
            "trimIndex": trim_index.astype(np.uint16)[:, None],
            "tri": grid_triangles().astype(np.uint16),
            "keypoints": (keypoints + 1).astype(np.uint16)[None],
            "symlist": vertices(2, 26720),
            "symlist_tri": vertices(2, 52937).astype(np.int32),
            "segbin": np.eye(4, dtype=np.uint8)[region],
            "segbin_tri": np.eye(4, dtype=np.uint8)[region_of_triangle],
        },
        "Model_Expression.mat": {
            "mu_exp": coordinates(3 * KEPT, 1).astype(np.float64),
            "w_exp": coordinates(3 * KEPT, 2).astype(np.float64),
            "sigma_exp": np.array([[2.0], [1.0]]),
        },
        "Model_tri_mouth.mat": {"tri_mouth": vertices(3, 108)},
        "BFM_UV.mat": {"UV": uv},
        "Model_face_contour_trimed.mat": {
            "face_contour": vertices(1, 28),
            "face_contour_line": vertices(1, 512),
            "face_contour_front": vertices(1, 28),
            "face_contour_front_line": vertices(1, 512),
        },
        "Modelplus_nose_hole.mat": {
            "nose_hole": vertices(1, 142),
            "nose_hole_right": vertices(1, 71),
            "nose_hole_left": vertices(1, 71),
        },
        "Modelplus_parallel.mat": {"parallel": cells, "parallel_face_contour": cells[:5]},
    }


@pytest.fixture(scope="module")
def raw_files() -> dict[str, dict[str, np.ndarray]]:
    return make_raw_files()


@pytest.fixture(scope="module")
def raw_dir(raw_files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name, content in raw_files.items():
        scipy.io.savemat(folder / name, content)
    return folder


@pytest.fixture(scope="module")
def output_dir(raw_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "BFM"
    raw_bfm.write(raw_bfm.convert(raw_dir), folder)
    return folder


@pytest.fixture
def source(raw_dir, tmp_path) -> Path:
    """A folder of links to the raw files, for a test to replace some."""
    folder = tmp_path / "source"
    folder.mkdir()
    for path in raw_dir.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def replace(folder: Path, name: str, content: dict[str, np.ndarray]) -> None:
    (folder / name).unlink()
    scipy.io.savemat(folder / name, content)


def read_struct(path: Path, name: str) -> dict[str, np.ndarray]:
    struct = scipy.io.loadmat(path)[name]
    assert struct.shape == (1, 1)
    return {field: struct[0, 0][field] for field in struct.dtype.names}


def test_model_fields(raw_files, output_dir):
    """Every field against indexing per vertex, one at a time."""
    model = read_struct(output_dir / "BFM.mat", "model")
    raw = raw_files["01_MorphableModel.mat"]
    kept = raw_files["model_info.mat"]["trimIndex"][:, 0].astype(int) - 1
    for prefix in ("shape", "tex"):
        per_vertex = raw[f"{prefix}MU"].reshape(RAW, 3)[kept]
        np.testing.assert_array_equal(model[f"{prefix}MU"], per_vertex.reshape(-1, 1))
        per_vertex = raw[f"{prefix}PC"].reshape(RAW, 3, 3)[kept]
        np.testing.assert_array_equal(model[f"{prefix}PC"], per_vertex.reshape(-1, 3))
        np.testing.assert_array_equal(model[f"{prefix}EV"], raw[f"{prefix}EV"])
    expression = raw_files["Model_Expression.mat"]
    for field, key in (("expMU", "mu_exp"), ("expPC", "w_exp"), ("expEV", "sigma_exp")):
        np.testing.assert_array_equal(model[field], expression[key])
        assert model[field].dtype == np.float32
    np.testing.assert_array_equal(model["tri"], raw_files["model_info.mat"]["tri"])
    np.testing.assert_array_equal(model["kpt_ind"], raw_files["model_info.mat"]["keypoints"])


def test_info_fields(raw_files, output_dir):
    info = read_struct(output_dir / "BFM_info.mat", "model_info")
    raw = raw_files["model_info.mat"]
    kept = raw["trimIndex"][:, 0].astype(int) - 1
    np.testing.assert_array_equal(info["segbin"], raw["segbin"][kept].T)
    np.testing.assert_array_equal(info["segbin_tri"], raw["segbin_tri"].T)
    np.testing.assert_array_equal(info["kpt_ind"], raw["keypoints"])
    for field in ("trimIndex", "symlist", "symlist_tri"):
        np.testing.assert_array_equal(info[field], raw[field])
    for name in ("Model_face_contour_trimed.mat", "Modelplus_nose_hole.mat"):
        for field, array in raw_files[name].items():
            np.testing.assert_array_equal(info[field], array)
    for field, cells in raw_files["Modelplus_parallel.mat"].items():
        assert info[field].shape == cells.shape
        for got, expected in zip(info[field].flat, cells.flat, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_uv_is_trimmed_and_repaired(raw_files, output_dir):
    kept = raw_files["model_info.mat"]["trimIndex"][:, 0].astype(int) - 1
    expected = raw_files["BFM_UV.mat"]["UV"][kept]
    expected[10031] = (expected[10032] + expected[10157]) / 2
    expected[10154] = (expected[10533] + expected[10156] + expected[10660]) / 3
    expected[10279] = (expected[10915] + expected[10285]) / 2
    uv = scipy.io.loadmat(output_dir / "BFM_UV.mat")["UV"]
    np.testing.assert_allclose(uv, expected, rtol=0, atol=1e-15)
    info = read_struct(output_dir / "BFM_info.mat", "model_info")
    np.testing.assert_array_equal(info["uv_coords"], uv)


def test_mouth_is_closed(raw_files, output_dir):
    delivered = raw_files["Model_tri_mouth.mat"]["tri_mouth"]
    model = read_struct(output_dir / "BFM.mat", "model")
    mouth = model["tri_mouth"]
    assert mouth.shape == (3, 114)
    np.testing.assert_array_equal(mouth[:, :37], delivered[:, :37])
    np.testing.assert_array_equal(mouth[:, 37:107], delivered[:, 38:])
    assert mouth[:, 107].tolist() == [6420, 6542, 6664]
    assert mouth[:, 113].tolist() == [6168, 6295, 6039]
    info = read_struct(output_dir / "BFM_info.mat", "model_info")
    np.testing.assert_array_equal(info["tri_mouth"], mouth)


def test_loads_as_a_face(output_dir):
    """The package's loader takes the files; the mean is neutral plus mean expression."""
    face = load_bfm(output_dir)
    model = read_struct(output_dir / "BFM.mat", "model")
    assert face.morphable_model.num_vertices == KEPT
    assert (face.morphable_model.num_shape, face.morphable_model.num_exp) == (3, 2)
    assert face.triangles.shape == (TRIANGLES + 114, 3)
    shape_params, exp_params = torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    vertices = face.morphable_model(shape_params, exp_params)
    expected = (
        model["shapeMU"]
        + model["expMU"]
        + 2 * model["shapePC"][:, [1]]
        + 3 * model["expPC"][:, [1]]
    )
    np.testing.assert_allclose(vertices.numpy().reshape(-1, 1), expected, rtol=0, atol=1e-5)


def test_trimmed_inputs_are_not_trimmed_again(raw_files, source, output_dir):
    """segbin and UV also circulate with 53,215 rows, the UV already repaired."""
    kept = raw_files["model_info.mat"]["trimIndex"][:, 0].astype(int) - 1
    info = raw_files["model_info.mat"]
    replace(source, "model_info.mat", info | {"segbin": info["segbin"][kept]})
    (source / "BFM_UV.mat").unlink()
    (source / "BFM_UV.mat").symlink_to(output_dir / "BFM_UV.mat")
    conversion = raw_bfm.convert(source)
    expected = read_struct(output_dir / "BFM_info.mat", "model_info")
    np.testing.assert_array_equal(conversion.model_info["segbin"], expected["segbin"])
    np.testing.assert_array_equal(conversion.uv, expected["uv_coords"])


def test_sigma_exp_from_its_own_file(raw_files, source):
    expression = dict(raw_files["Model_Expression.mat"])
    sigma = expression.pop("sigma_exp")
    replace(source, "Model_Expression.mat", expression)
    conversion = raw_bfm.convert(source)
    assert "expEV" not in conversion.model
    assert len(conversion.left_out) == 1
    assert "sigma_exp.mat" in conversion.left_out[0]

    scipy.io.savemat(source / "sigma_exp.mat", {"sigma_exp": sigma.T})
    conversion = raw_bfm.convert(source)
    np.testing.assert_array_equal(conversion.model["expEV"], sigma)
    assert conversion.left_out == []


def test_missing_optional_files_are_named(raw_files, source):
    """Nothing is made up: fields without an input are absent and listed, the rest is unchanged."""
    full = raw_bfm.convert(source)
    assert full.left_out == []
    optional = [
        name for name in raw_files if name.startswith(("Modelplus", "Model_face", "Model_tri"))
    ]
    for name in optional:
        (source / name).unlink()
    info = raw_files["model_info.mat"]
    needed = ("trimIndex", "tri", "keypoints", "segbin")
    replace(source, "model_info.mat", {name: info[name] for name in needed})

    bare = raw_bfm.convert(source)
    assert bare.model.keys() == full.model.keys() - {"tri_mouth"}
    assert bare.model_info.keys() == {"kpt_ind", "trimIndex", "segbin", "uv_coords"}
    left_out = "\n".join(bare.left_out)
    for name in (full.model_info.keys() - bare.model_info.keys()) | set(optional):
        assert name in left_out
    for name, array in bare.model.items():
        np.testing.assert_array_equal(array, full.model[name])


def test_face3d_folders(raw_files, source, output_dir):
    """The layout of face3d's examples/Data/BFM is read as it is."""
    for folder, name in (
        ("raw", "01_MorphableModel.mat"),
        ("stn", "BFM_UV.mat"),
        ("3ddfa", "model_info.mat"),
    ):
        (source / folder).mkdir()
        (source / name).rename(source / folder / name)
    conversion = raw_bfm.convert(source)
    expected = read_struct(output_dir / "BFM.mat", "model")
    np.testing.assert_array_equal(conversion.model["shapePC"], expected["shapePC"])


def test_command_is_deterministic(raw_dir, output_dir, tmp_path, monkeypatch):
    """Bytes of the files do not depend on the time; nothing else is left in the folder."""
    monkeypatch.setattr("time.asctime", lambda: "another time")
    said = raw_bfm.convert_folder(raw_dir, tmp_path / "again")
    names = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert names == ["BFM.mat", "BFM_UV.mat", "BFM_info.mat"]
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (output_dir / name).read_bytes()
    assert "53215 vertices, 3 shape, 2 expression bases" in said[0]


def test_interrupted_write_keeps_the_old_file(raw_dir, tmp_path, monkeypatch):
    conversion = raw_bfm.convert(raw_dir)
    (tmp_path / "BFM.mat").write_bytes(b"old")

    def half_written(file, content):
        file.write(b"half of a file")
        raise OSError("disk full")

    monkeypatch.setattr(scipy.io, "savemat", half_written)
    with pytest.raises(OSError, match="disk full"):
        raw_bfm.write(conversion, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["BFM.mat"]
    assert (tmp_path / "BFM.mat").read_bytes() == b"old"


def test_does_not_overwrite_its_source(source):
    before = (source / "BFM_UV.mat").read_bytes()
    with pytest.raises(ValueError, match="would be overwritten"):
        raw_bfm.convert_folder(source, source)
    assert (source / "BFM_UV.mat").read_bytes() == before


def test_missing_files_are_named_together(source):
    for name in ("model_info.mat", "BFM_UV.mat"):
        (source / name).unlink()
    with pytest.raises(FileNotFoundError, match="model_info.mat .*3DDFA.*BFM_UV.mat .*3DMMasSTN"):
        raw_bfm.convert(source)


def test_missing_source_folder(tmp_path):
    (said,) = run_commands(["prnet.convert_bfm", "source=nowhere", "output=out"], cwd=tmp_path)
    assert "nowhere: no such folder of raw BFM files" in said
    assert said.endswith("exit 1")
    assert not (tmp_path / "out").exists()


def test_h5_of_another_vintage(source):
    (source / "01_MorphableModel.mat").unlink()
    (source / "model2017-1_bfm_nomouth.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"model2017-1_bfm_nomouth.h5 .*need the BFM of 2009"):
        raw_bfm.convert(source)
    shutil.move(source / "model2017-1_bfm_nomouth.h5", source / "01_MorphableModel.mat")
    with pytest.raises(ValueError, match="an HDF5 file; .*need the BFM of 2009"):
        raw_bfm.convert(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shape": np.zeros((3, 3))}, r"no shapeMU, found \['shape'\]; .*need the BFM of 2009"),
        (
            {"shapeMU": np.zeros((3 * 53149, 1))},
            "shapeMU has 159447 values, expected 160470; .*2017",
        ),
    ],
)
def test_mat_of_another_vintage(source, content, message):
    replace(source, "01_MorphableModel.mat", content)
    with pytest.raises(ValueError, match=message):
        raw_bfm.convert(source)


def test_matlab_7_3_and_damaged_files(source):
    path = source / "model_info.mat"
    path.unlink()
    # Version 2.0 in bytes 124-127, little-endian, is what makes a file a MATLAB 7.3 one.
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384))
    message = r"model_info.mat: not a readable MATLAB file \(MATLAB 7.3 format; save"
    with pytest.raises(ValueError, match=message):
        raw_bfm.convert(source)
    path.write_bytes(b"<html>404</html>" * 20)
    with pytest.raises(ValueError, match="model_info.mat: not a readable MATLAB file"):
        raw_bfm.convert(source)


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.astype(np.float64)
    changed[-1, -1] = value
    return changed


@pytest.mark.parametrize(
    ("name", "key", "change", "message"),
    [
        ("model_info.mat", "tri", lambda a: with_value(a, KEPT + 1), "tri .*indices 1 to 53215"),
        ("model_info.mat", "tri", lambda a: with_value(a, 1.5), "tri .*indices 1 to 53215"),
        ("model_info.mat", "tri", lambda a: a[:, :-1], r"tri .*\(3, 105839\), .* 3 x 105840"),
        ("model_info.mat", "keypoints", lambda a: with_value(a, 0), "keypoints .* 1 to 53215"),
        ("model_info.mat", "keypoints", lambda a: a[:, :21], r"keypoints .*\(1, 21\), .*1 x 68"),
        ("model_info.mat", "trimIndex", lambda a: with_value(a, RAW + 1), "trimIndex .*to 53490"),
        ("model_info.mat", "trimIndex", lambda a: with_value(a, a[0, 0]), "names a vertex twice"),
        ("model_info.mat", "segbin", lambda a: a[:99], "segbin has 99 rows, expected 53490 or"),
        ("model_info.mat", "symlist_tri", lambda a: with_value(a, TRIANGLES + 1), "symlist_tri"),
        ("BFM_UV.mat", "UV", lambda a: a[:99], "UV has 99 rows, expected 53490 or 53215"),
        ("BFM_UV.mat", "UV", lambda a: a * 256, "UV spans 0 to 256, expected 0 to 1"),
        (
            "BFM_UV.mat",
            "UV",
            lambda a: with_value(a, np.nan),
            "UV holds values that are not finite",
        ),
        ("Model_Expression.mat", "w_exp", lambda a: a[:9], r"w_exp .*\(9, 2\), .*159645 x any"),
        ("Model_Expression.mat", "mu_exp", lambda a: with_value(a, np.inf), "mu_exp .*not finite"),
        ("Model_Expression.mat", "sigma_exp", lambda a: a[:1], "sigma_exp .*expected .*2 x 1"),
        ("Model_tri_mouth.mat", "tri_mouth", lambda a: a[:, 1:], r"tri_mouth .* 3 x 108"),
        (
            "Modelplus_nose_hole.mat",
            "nose_hole",
            lambda a: with_value(a, 0),
            "nose_hole spans 0",
        ),
        (
            "01_MorphableModel.mat",
            "shapePC",
            lambda a: with_value(a, np.nan),
            "shapePC .*not finite",
        ),
        ("01_MorphableModel.mat", "shapeEV", lambda a: a[:2], r"shapeEV .*expected .*3 x 1"),
    ],
)
def test_bad_content(raw_files, source, name, key, change, message):
    content = raw_files[name]
    replace(source, name, content | {key: change(content[key])})
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        raw_bfm.convert(source)


def test_bad_cell(raw_files, source):
    parallel = raw_files["Modelplus_parallel.mat"]
    cells = parallel["parallel"].copy()
    cells[3, 0] = np.array([[KEPT + 1.0]])
    replace(source, "Modelplus_parallel.mat", parallel | {"parallel": cells})
    with pytest.raises(ValueError, match="parallel spans 53216 .*1 to 53215"):
        raw_bfm.convert(source)


def test_missing_key(raw_files, source):
    content = {name: array for name, array in raw_files["model_info.mat"].items() if name != "tri"}
    replace(source, "model_info.mat", content)
    with pytest.raises(ValueError, match=r"no array 'tri', found \['keypoints'"):
        raw_bfm.convert(source)
