"""Reading face3d's files: what comes back, and what every damage is answered with."""

import logging
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from prnet.faces.bfm import (
    load_bfm,
    read_prnet_face_mask,
    read_prnet_landmark_cells,
)
from tests.tiny import NUM_EXP, NUM_SHAPE, bfm_files, tiny_face, write_bfm_files, write_tiny_bfm


def write_prnet_uv(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """face_ind.txt and uv_kpt_ind.txt in PRNet's form; returns mask and cells (row, column)."""
    folder.mkdir()
    mask = np.zeros((256, 256), dtype=bool)
    mask[5:202, 6:249] = True
    cells = np.stack([np.arange(68) + 20, 2 * np.arange(68) + 50], -1)
    np.savetxt(folder / "face_ind.txt", np.flatnonzero(mask), fmt="%d")
    np.savetxt(folder / "uv_kpt_ind.txt", cells.T[::-1])  # first the columns, then the rows
    return mask, cells


# What comes back.


def test_face_is_what_the_files_say(tiny_data_dir: Path) -> None:
    face, tiny = load_bfm(tiny_data_dir / "BFM"), tiny_face()
    model = face.morphable_model
    mean = (tiny.shape_mean + tiny.exp_mean).astype(np.float32)
    np.testing.assert_allclose(model.mean.numpy(), mean, atol=0.02)
    np.testing.assert_allclose(model.basis[:NUM_SHAPE].numpy(), tiny.shape_basis, rtol=1e-6)
    np.testing.assert_allclose(model.basis[NUM_SHAPE:].numpy(), tiny.exp_basis, rtol=1e-6)
    assert (model.num_shape, model.num_exp) == (NUM_SHAPE, NUM_EXP)
    assert model.mean.dtype == model.basis.dtype == torch.float32
    np.testing.assert_array_equal(face.triangles.numpy(), tiny.triangles)  # 0-based, in order
    np.testing.assert_array_equal(face.landmark_index.numpy(), tiny.landmark_index)
    np.testing.assert_allclose(
        face.uv.vertex_pixels.numpy(), 255 * np.array([0, 1]) + [255, -255] * tiny.uv_coords
    )
    assert face.describe() == {
        "name": "bfm",
        "vertices": 98,
        "shape_bases": NUM_SHAPE,
        "exp_bases": NUM_EXP,
        "face_pixels": int(face.uv.face_mask.sum()),
        "fingerprint": face.fingerprint,
    }


@pytest.mark.parametrize("changed", ["shapeMU", "expMU", "shapePC", "expPC", "tri", "kpt_ind"])
def test_fingerprint_is_of_what_a_fit_means(changed: str, tmp_path: Path) -> None:
    """Other numbers of the same sizes are another face; other types of the same are not."""
    files = bfm_files(tiny_face())
    fingerprint = load_bfm(write_bfm_files(tmp_path / "a", files)).fingerprint
    model = files["BFM.mat"]["model"]
    same = {name: values.astype(np.float64) for name, values in model.items()}
    again = write_bfm_files(tmp_path / "b", files | {"BFM.mat": {"model": same}})
    assert load_bfm(again).fingerprint == fingerprint
    indices = changed in ("tri", "kpt_ind")
    model[changed] = model[changed][:, ::-1] if indices else 2 * model[changed]
    assert load_bfm(write_bfm_files(tmp_path / "c", files)).fingerprint != fingerprint


def test_classes_come_from_segbin(tiny_data_dir: Path) -> None:
    face, tiny = load_bfm(tiny_data_dir / "BFM"), tiny_face()
    assert list(face.regions) == ["nose", "eyes", "mouth", "rest"]
    found = torch.stack(list(face.regions.values()))
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found.numpy(), tiny.regions)


def test_what_the_files_do_not_have_is_none(tmp_path: Path) -> None:
    files = bfm_files(tiny_face())
    for change in ({}, {"drop": True}):
        if change:
            del files["BFM.mat"]["model"]["shapeEV"], files["BFM.mat"]["model"]["expEV"]
        face = load_bfm(write_bfm_files(tmp_path, files))
        # Ones in the place of standard deviations are none.
        assert face.shape_std is None
        assert face.exp_std is None
        assert face.mirror_index is None
        assert face.exp_names is None
        assert torch.equal(face.to("cpu").triangles, face.triangles)


def test_standard_deviations_are_those_of_the_bases_used(tmp_path: Path) -> None:
    files = bfm_files(tiny_face())
    model = files["BFM.mat"]["model"]
    model["shapeEV"] = np.array([[4e5], [3e5], [2e5], [1e5], [5e4]])  # one more than bases
    model["expEV"] = np.array([[0.5], [1.0], [1.0]])
    face = load_bfm(write_bfm_files(tmp_path, files))
    assert face.shape_std.tolist() == [4e5, 3e5, 2e5, 1e5]
    assert face.exp_std.tolist() == [0.5, 1, 1]
    assert face.shape_std.dtype == torch.float32
    moved = face.to("meta")
    assert moved.shape_std.device.type == moved.regions["nose"].device.type == "meta"


def mirror_of_tiny() -> np.ndarray:
    """The vertex of the tiny face at (1 - u, v), itself where there is none (0-based)."""
    coords = tiny_face().uv_coords
    distance = np.linalg.norm(coords[:, None] - coords * [-1, 1] - [1, 0], axis=-1)
    return np.where(distance.min(1) < 1e-6, distance.argmin(1), np.arange(len(coords)))


def test_mirror_comes_from_symlist(tmp_path: Path) -> None:
    mirror = mirror_of_tiny()
    pairs = np.array([(k, m) for k, m in enumerate(mirror) if k <= m]).T
    files = bfm_files(tiny_face())
    files["BFM_info.mat"]["model_info"]["symlist"] = (pairs + 1).astype(np.uint16)
    face = load_bfm(write_bfm_files(tmp_path, files))
    np.testing.assert_array_equal(face.mirror_index.numpy(), mirror)
    assert face.mirror_index[face.landmark_index[0]] == face.landmark_index[16]
    assert face.mirror_index[face.landmark_index[8]] == face.landmark_index[8]

    # A vertex in two pairs keeps the first, as the published list has some.
    first, second = pairs[:, 0]
    doubled = np.concatenate([pairs, [[first], [40]]], axis=1)
    files["BFM_info.mat"]["model_info"]["symlist"] = (doubled + 1).astype(np.uint16)
    face = load_bfm(write_bfm_files(tmp_path, files))
    np.testing.assert_array_equal(face.mirror_index.numpy(), mirror)
    assert second != 40


@pytest.mark.parametrize(
    ("symlist", "missing"),
    [(np.array([[1, 2], [3, 4]]), 94), (np.tile(np.arange(1, 99)[:, None], 3), 98)],
)
def test_incomplete_symlist_is_no_mirror(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, symlist: np.ndarray, missing: int
) -> None:
    files = bfm_files(tiny_face())
    files["BFM_info.mat"]["model_info"]["symlist"] = symlist
    with caplog.at_level(logging.WARNING, logger="prnet"):
        assert load_bfm(write_bfm_files(tmp_path, files)).mirror_index is None
    assert f"leaves {missing} of 98 vertices without a partner" in caplog.text


def test_mouth_triangles_close_the_slit_and_come_last(tiny_data_dir: Path, tmp_path: Path) -> None:
    opened = load_bfm(tiny_data_dir / "BFM")
    closed = load_bfm(write_tiny_bfm(tmp_path, mouth=True))
    tiny = tiny_face()
    expected = np.concatenate([tiny.triangles, tiny.mouth_triangles])
    np.testing.assert_array_equal(closed.triangles.numpy(), expected)
    # In the slit a texel is one vertex's when it is open, interpolated when it is closed.
    row, column = 255 - round(0.32 * 255), 120
    assert opened.uv.barycentric[row, column].tolist() == [1, 0, 0]
    assert closed.uv.barycentric[row, column].max() < 1
    changed = (opened.uv.barycentric != closed.uv.barycentric).any(-1)
    rows, columns = changed.nonzero().unbind(-1)
    assert (rows - row).abs().max() < 10
    assert (columns - 127).abs().max() < 30


@pytest.mark.parametrize(("num_shape", "num_exp"), [(1, 1), (2, 3), (4, 1)])
def test_any_number_of_bases_is_taken(tmp_path: Path, num_shape: int, num_exp: int) -> None:
    files = bfm_files(tiny_face())
    model = files["BFM.mat"]["model"]
    model["shapePC"] = model["shapePC"][:, :num_shape]
    model["expPC"] = model["expPC"][:, :num_exp]
    face = load_bfm(write_bfm_files(tmp_path, files))
    assert (face.morphable_model.num_shape, face.morphable_model.num_exp) == (num_shape, num_exp)


def test_number_of_bases_is_logged(tiny_data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="prnet"):
        load_bfm(tiny_data_dir / "BFM")
    assert "98 vertices, 4 shape and 3 expression bases" in caplog.text
    assert "derived from the jaw line" in caplog.text


def test_landmarks_may_come_from_the_info_file(tmp_path: Path) -> None:
    files = bfm_files(tiny_face())
    del files["BFM.mat"]["model"]["kpt_ind"]
    face = load_bfm(write_bfm_files(tmp_path, files))
    np.testing.assert_array_equal(face.landmark_index.numpy(), np.arange(68))


def test_extra_fields_do_not_matter(tmp_path: Path) -> None:
    files = bfm_files(tiny_face())
    files["BFM.mat"]["model"]["texMU"] = np.zeros((294, 1))
    files["BFM_info.mat"]["model_info"]["symlist_tri"] = np.zeros((2, 30), np.uint16)
    assert load_bfm(write_bfm_files(tmp_path, files)).morphable_model.num_vertices == 98


# PRNet's files.


def test_prnet_files_replace_the_derived_mask_and_cells(
    tiny_data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask, cells = write_prnet_uv(tmp_path / "uv-data")
    with caplog.at_level(logging.INFO, logger="prnet"):
        face = load_bfm(tiny_data_dir / "BFM", prnet_uv_dir=tmp_path / "uv-data")
    np.testing.assert_array_equal(face.uv.face_mask.numpy(), mask)
    np.testing.assert_array_equal(face.uv.face_index.numpy(), np.flatnonzero(mask))
    np.testing.assert_array_equal(face.uv.landmark_cells.numpy(), cells)
    assert f"face mask: {mask.sum()} pixels of PRNet's" in caplog.text


def test_folder_without_prnet_files_falls_back(tiny_data_dir: Path, tmp_path: Path) -> None:
    derived = load_bfm(tiny_data_dir / "BFM").uv.face_mask
    for folder in (tmp_path, tmp_path / "not there"):
        face = load_bfm(tiny_data_dir / "BFM", prnet_uv_dir=folder)
        assert torch.equal(face.uv.face_mask, derived)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("12\nface\n", "not a table of numbers"),
        ("12\n65536\n", "flat indices of a 256 x 256 map, 0 to 65535"),
        ("-1\n12\n", "flat indices"),
    ],
)
def test_damaged_face_index_raises(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "face_ind.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_prnet_face_mask(path)
    assert str(path) in str(error.value)


def test_damaged_landmark_table_raises(tmp_path: Path) -> None:
    path = tmp_path / "uv_kpt_ind.txt"
    with pytest.raises(FileNotFoundError, match=r"uv_kpt_ind.txt: missing; clone PRNet"):
        read_prnet_landmark_cells(path)
    np.savetxt(path, np.zeros((68, 2)))
    with pytest.raises(ValueError, match=r"table of \(68, 2\), expected 2 rows of 68"):
        read_prnet_landmark_cells(path)
    for value in (-1, 256):
        np.savetxt(path, np.full((2, 68), value))
        with pytest.raises(ValueError, match="cells of a 256 x 256 map, 0 to 255"):
            read_prnet_landmark_cells(path)


# Damage.


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BFM.mat", "prnet.convert_bfm"),
        ("BFM_info.mat", "prnet.convert_bfm"),
        ("BFM_UV.mat", "3DMMasSTN"),
    ],
)
def test_missing_file_is_named_with_what_to_do(tmp_path: Path, name: str, hint: str) -> None:
    write_tiny_bfm(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: missing; .*{hint}"):
        load_bfm(tmp_path)


@pytest.mark.parametrize("kept", [0, 40, 3000])
def test_truncated_file_raises(tmp_path: Path, kept: int) -> None:
    path = write_tiny_bfm(tmp_path) / "BFM.mat"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"BFM\.mat: not a readable MATLAB file"):
        load_bfm(tmp_path)


def _change(field: str, change, file: str = "BFM.mat", struct: str = "model"):
    def apply(files: dict) -> None:
        fields = files[file][struct] if struct else files[file]
        fields[field] = change(fields[field])

    return apply


def _drop(field: str, file: str = "BFM.mat", struct: str = "model"):
    return lambda files: files[file][struct].pop(field)


def _nan(array: np.ndarray) -> np.ndarray:
    return np.where(np.arange(array.size).reshape(array.shape) == 7, np.nan, array)


INFO = {"file": "BFM_info.mat", "struct": "model_info"}
UV = {"file": "BFM_UV.mat", "struct": ""}
DAMAGE = {
    "no shapeMU": (_drop("shapeMU"), r"BFM\.mat: no field 'shapeMU', found \['expEV'"),
    "no segbin": (_drop("segbin", **INFO), r"BFM_info\.mat: no field 'segbin'"),
    "short shapeMU": (_change("shapeMU", lambda a: a[:-1]), "shapeMU has 293 rows, expected 3 per"),
    "expMU of others": (_change("expMU", lambda a: a[:-3]), "expMU has 291 rows, shapeMU 294"),
    "expMU of one": (_change("expMU", lambda a: a[:3]), "expMU has 3 rows, shapeMU 294"),
    "short shapePC": (_change("shapePC", lambda a: a[:-3]), r"shapePC has shape \(291, 4\)"),
    "turned expPC": (
        _change("expPC", np.transpose),
        r"expPC has shape \(3, 294\), expected \(294,",
    ),
    "NaN in shapePC": (_change("shapePC", _nan), "shapePC holds values that are not finite"),
    "NaN in the mean": (_change("shapeMU", _nan), "mean holds values that are not finite"),
    "turned tri": (_change("tri", np.transpose), r"tri has shape \(164, 3\), expected \(3, T\)"),
    "0-based tri": (_change("tri", lambda a: a - 1), r"tri holds 1-based indices outside 1\.\.98"),
    "tri beyond": (_change("tri", lambda a: a + 1), r"tri holds 1-based indices outside 1\.\.98"),
    "0-based kpt_ind": (_change("kpt_ind", lambda a: a - 1), "kpt_ind holds 1-based indices"),
    "51 landmarks": (
        _change("kpt_ind", lambda a: a[:, :51]),
        "kpt_ind has 51 entries, expected 68",
    ),
    "0-based symlist": (
        lambda files: files["BFM_info.mat"]["model_info"].update(symlist=np.zeros((2, 98), int)),
        r"symlist holds 1-based indices outside 1\.\.98",
    ),
    "short shapeEV": (_change("shapeEV", lambda a: a[:3]), "shapeEV has 3 values, expected 4"),
    "NaN in expEV": (_change("expEV", lambda a: a * np.nan), "expEV holds values that are not"),
    "turned segbin": (_change("segbin", np.transpose, **INFO), r"segbin has shape \(98, 4\)"),
    "untrimmed UV": (
        _change("UV", lambda a: np.concatenate([a, a]), **UV),
        r"UV has shape \(196, 2\), expected \(98, 2\); trim .*prnet.convert_bfm",
    ),
    "NaN in UV": (_change("UV", _nan, **UV), r"BFM_UV\.mat: UV holds values that are not finite"),
    "UV in px": (_change("UV", lambda a: 255 * a, **UV), "UV runs from 0 to 255, expected 0 to 1"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_content_raises(tmp_path: Path, case: str) -> None:
    damage, message = DAMAGE[case]
    files = bfm_files(tiny_face())
    damage(files)
    with pytest.raises(ValueError, match=message) as error:
        load_bfm(write_bfm_files(tmp_path, files))
    assert str(tmp_path) in str(error.value)


def test_files_of_another_format_raise(tmp_path: Path) -> None:
    write_tiny_bfm(tmp_path)
    scipy.io.savemat(tmp_path / "BFM.mat", {"shapeMU": np.zeros((6, 1))})
    with pytest.raises(ValueError, match=r"no struct 'model', found \['shapeMU'\]"):
        load_bfm(tmp_path)
    scipy.io.savemat(tmp_path / "BFM.mat", {"model": np.zeros((6, 1))})
    with pytest.raises(ValueError, match="'model' is not a 1 x 1 struct"):
        load_bfm(tmp_path)
    write_tiny_bfm(tmp_path)
    scipy.io.savemat(tmp_path / "BFM_UV.mat", {"uv_coords": np.zeros((98, 2))})
    with pytest.raises(ValueError, match=r"BFM_UV\.mat: no array 'UV'"):
        load_bfm(tmp_path)


def test_matlab_7_3_file_raises(tmp_path: Path) -> None:
    """Version 7.3 is HDF5 behind a MATLAB header."""
    write_tiny_bfm(tmp_path)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "BFM.mat").write_bytes(header.ljust(512, b"\x00") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match="MATLAB 7.3 format; save it again with -v7"):
        load_bfm(tmp_path)
