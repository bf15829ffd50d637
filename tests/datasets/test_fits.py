"""Reading fits: every oddity of the published files, every damage, and which files are found."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from prnet.datasets.fits import (
    FILE_LENGTHS,
    SUBSETS_300W_LP,
    decode_vertices,
    find_300w_lp,
    find_aflw2000,
    fit_matrix,
    pad_params,
    read_fit,
    require_fit_of,
)
from prnet.faces.loading import load_face
from prnet.geometry.camera import transform_points
from prnet.sample import Fit
from tests.tiny import (
    AFLW2000_YAWS_DEG,
    HEIGHT,
    NUM_EXP,
    NUM_SHAPE,
    YAWS_300W_LP_DEG,
    TinyFit,
    landmarks_matlab,
    tiny_face,
    tiny_fit,
)

POSE = np.array([[0.1, -0.7, 0.2, 70.0, 80.0, -60.0, 5e-4]])


def content(**changes) -> dict:
    """A well-formed file; a change to None leaves the key out."""
    arrays = {
        "Pose_Para": POSE,
        "Shape_Para": np.arange(199.0)[:, None],
        "Exp_Para": np.arange(29.0)[:, None],
        "pt3d_68": np.arange(204.0).reshape(3, 68),
        "pt2d": np.full((2, 21), -1.0),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def write(path: Path, **changes) -> Path:
    scipy.io.savemat(path, content(**changes))
    return path


# One file.


def test_a_fit_of_another_face_is_told_by_its_lengths(tmp_path: Path) -> None:
    """Of the archives' files and of frozen worlds'; a shorter one, or a face of one's own, is not
    judged."""
    model = load_face("embedded").morphable_model
    assert FILE_LENGTHS["embedded"] == (model.num_shape, model.num_exp)
    published = read_fit(write(tmp_path / "a.mat")).fit
    frozen = read_fit(
        write(tmp_path / "b.mat", Shape_Para=np.zeros((80, 1)), Exp_Para=np.zeros((51, 1)))
    ).fit
    with pytest.raises(ValueError, match="a.mat: 199 shape and 29 .*face=bfm; this is face=embedd"):
        require_fit_of("embedded", published, source="a.mat")
    with pytest.raises(ValueError, match="b.mat: 80 shape and 51 .*face=embedded; this is face=bf"):
        require_fit_of("bfm", frozen, source="b.mat")
    require_fit_of("bfm", published, source="a.mat")
    require_fit_of("embedded", frozen, source="b.mat")
    require_fit_of("tiny", frozen, source="b.mat")
    require_fit_of("embedded", published._replace(exp_params=np.zeros(10)), source="a.mat")


def test_content_comes_back_in_float64(tmp_path: Path) -> None:
    file = read_fit(write(tmp_path / "a.mat"))
    np.testing.assert_array_equal(file.fit.shape_params, np.arange(199.0))
    np.testing.assert_array_equal(file.fit.exp_params, np.arange(29.0))
    np.testing.assert_array_equal(file.fit.angles, POSE[0, :3])
    np.testing.assert_array_equal(file.fit.translation, POSE[0, 3:6])
    assert file.fit.scale == 5e-4
    np.testing.assert_array_equal(file.landmarks, np.arange(204.0).reshape(3, 68).T)
    assert file.landmarks_2d is None
    assert file.cast_keys == ()
    arrays = (*file.fit[:4], file.landmarks)
    assert all(array.dtype == np.float64 and array.ndim < 3 for array in arrays)


def test_integer_arrays_are_cast_and_named(tmp_path: Path) -> None:
    """uint8 zeros for Exp_Para in 34 files of AFLW2000-3D, int16 pt2d in others."""
    path = write(
        tmp_path / "a.mat",
        Exp_Para=np.full((29, 1), 200, np.uint8),
        pt2d=np.full((2, 21), -1, np.int16),
        roi=np.array([[1, 1, 450, 450]], np.int16),
        Tex_Para=np.zeros((199, 1), np.float32),
    )
    file = read_fit(path)
    assert file.cast_keys == ("Exp_Para", "pt2d")
    assert file.fit.exp_params.dtype == np.float64
    # 200 + 100 would wrap to 44.
    assert (file.fit.exp_params + np.uint8(100) == 300).all()


@pytest.mark.parametrize("key", ["Shape_Para", "Exp_Para", "Pose_Para"])
def test_rows_and_columns_and_float32_read_alike(tmp_path: Path, key: str) -> None:
    expected = read_fit(write(tmp_path / "a.mat")).fit
    turned = read_fit(write(tmp_path / "b.mat", **{key: content()[key].T})).fit
    single = read_fit(write(tmp_path / "c.mat", **{key: content()[key].astype(np.float32)})).fit
    for a, b, c in zip(expected, turned, single, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-6)


def test_complete_pt2d_is_kept_and_others_are_not(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0, 450, (2, 68))
    file = read_fit(write(tmp_path / "a.mat", pt2d=points, pt3d_68=None))
    np.testing.assert_array_equal(file.landmarks_2d, points.T)
    assert file.landmarks is None
    for columns in (21, 23):
        path = write(tmp_path / "b.mat", pt2d=np.full((2, columns), 5, np.uint16))
        assert read_fit(path).landmarks_2d is None
    assert read_fit(write(tmp_path / "c.mat", pt2d=None)).landmarks_2d is None


def test_negative_scale_is_kept(tmp_path: Path) -> None:
    assert read_fit(write(tmp_path / "a.mat", Pose_Para=-POSE)).fit.scale == -5e-4


def _with_nan(array: np.ndarray, value: float = np.nan) -> np.ndarray:
    array = array.astype(float)
    array.flat[3] = value
    return array


DAMAGE = {
    "no pose": ({"Pose_Para": None}, r"no Pose_Para, found \['Exp_Para', 'Shape_Para', 'pt2d', "),
    "no shape": ({"Shape_Para": None}, "no Shape_Para, found .*; expected a fit of 300W-LP"),
    "no expression": ({"Exp_Para": None}, "no Exp_Para"),
    "short pose": ({"Pose_Para": POSE[:, :6]}, "Pose_Para has 6 values, expected 7: pitch, yaw"),
    "scale 0": ({"Pose_Para": POSE * [1, 1, 1, 1, 1, 1, 0]}, "scale 0: the fit is a single point"),
    "NaN pose": ({"Pose_Para": _with_nan(POSE)}, "Pose_Para holds values that are not finite"),
    "inf shape": (
        {"Shape_Para": _with_nan(np.zeros(199), np.inf)},
        "Shape_Para holds values that are not finite",
    ),
    "NaN expression": ({"Exp_Para": _with_nan(np.zeros(29))}, "Exp_Para holds values that are not"),
    "NaN pt3d_68": ({"pt3d_68": _with_nan(np.zeros((3, 68)))}, "pt3d_68 holds values that are not"),
    "huge pose": ({"Pose_Para": _with_nan(POSE, 1e300)}, r"Pose_Para holds 1e\+300, which no fit"),
    "pt3d_68 of bytes": (
        {"pt3d_68": np.arange(204, dtype=np.uint8).reshape(3, 68)},
        "pt3d_68 holds uint8: px cut to whole numbers",
    ),
    "pt3d_68 from 0 to 1": (
        {"pt3d_68": np.arange(204.0).reshape(3, 68) / 204},
        "pt3d_68 lies within 2 px; expected px, not shares",
    ),
    "outlier": (
        {"pt3d_68": _with_nan(np.arange(204.0).reshape(3, 68), 1e5)},
        r"pt3d_68 has landmark 3 at \(1e\+05, 71\), far from the others",
    ),
    "NaN pt2d": ({"pt2d": _with_nan(np.zeros((2, 68)))}, "pt2d holds values that are not finite"),
    "turned pt3d_68": (
        {"pt3d_68": np.zeros((68, 3))},
        r"pt3d_68 has shape \(68, 3\), expected \(3, 68\)",
    ),
    "text": ({"Exp_Para": "smile"}, "Exp_Para holds <U5, expected real numbers"),
    "complex": ({"Shape_Para": np.full(199, 1j)}, "Shape_Para holds complex128, expected real"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_content_raises(tmp_path: Path, case: str) -> None:
    changes, message = DAMAGE[case]
    path = write(tmp_path / "image00002.mat", **changes)
    with pytest.raises(ValueError, match=message) as error:
        read_fit(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kept", [0, 5, 130, 400, 1000])
def test_truncated_file_raises(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "a.mat")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a\.mat: "):
        read_fit(path)


def test_files_that_are_no_fits_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    with pytest.raises(FileNotFoundError, match=r"a\.mat: missing; .*beside it"):
        read_fit(path)
    path.write_text("yaw pitch roll\n")
    with pytest.raises(ValueError, match=r"a\.mat: not a readable MATLAB file"):
        read_fit(path)


# Decoding.


def test_decoded_landmarks_meet_the_annotated_ones(tiny_data_dir: Path, face) -> None:
    """The whole chain of a fit against the oracle that wrote `pt3d_68`, in its own origin."""
    names = sorted(AFLW2000_YAWS_DEG)
    for name in names:
        file = read_fit(tiny_data_dir / "AFLW2000" / f"{name}.mat")
        vertices = decode_vertices(face.morphable_model, file.fit).double()
        matrix = fit_matrix(file.fit, HEIGHT, pixel_origin="matlab")
        found = transform_points(matrix, vertices)[face.landmark_index]
        np.testing.assert_allclose(found.numpy(), file.landmarks, atol=1e-4)
        default = transform_points(fit_matrix(file.fit, HEIGHT), vertices)[face.landmark_index]
        np.testing.assert_allclose(default.numpy(), file.landmarks - [1, 1, 0], atol=1e-4)


def test_negative_scale_turns_the_face_over(face) -> None:
    random = np.random.default_rng(0)
    tiny = tiny_fit(random, height=100, width=100, yaw_deg=20.0)
    pose = tiny.pose * [1, 1, 1, 1, 1, 1, -1]
    flipped = tiny._replace(pose=pose)
    fit = fit_of(flipped)
    found = transform_points(
        fit_matrix(fit, 100, pixel_origin="matlab"),
        decode_vertices(face.morphable_model, fit).double(),
    )[face.landmark_index]
    expected = landmarks_matlab(tiny_face(), flipped, 100)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def fit_of(tiny: TinyFit) -> Fit:
    pose = tiny.pose
    return Fit(tiny.shape_params, tiny.exp_params, pose[:3], pose[3:6], float(pose[6]))


def test_shorter_and_longer_coefficients_are_padded_and_cut(face) -> None:
    np.testing.assert_array_equal(pad_params(np.array([1.0, 2]), 4), [1, 2, 0, 0])
    np.testing.assert_array_equal(pad_params(np.arange(5.0), 2), [0, 1])
    random = np.random.default_rng(0)
    fit = fit_of(tiny_fit(random, height=100, width=100, yaw_deg=0.0))
    cut = fit._replace(
        shape_params=fit.shape_params[:NUM_SHAPE], exp_params=fit.exp_params[:NUM_EXP]
    )
    model = face.morphable_model
    assert torch.equal(decode_vertices(model, fit), decode_vertices(model, cut))
    fewer = fit._replace(shape_params=fit.shape_params[:1], exp_params=fit.exp_params[:0])
    zeroed = fit._replace(
        shape_params=np.array([fit.shape_params[0], 0, 0, 0]), exp_params=np.zeros(3)
    )
    assert torch.equal(decode_vertices(model, fewer), decode_vertices(model, zeroed))


# Which files.


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_official_folders_are_found_with_their_names(
    tiny_data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = find_aflw2000(tiny_data_dir)
    assert [pair.name for pair in pairs] == sorted(AFLW2000_YAWS_DEG)
    for pair in pairs:
        assert pair.picture == tiny_data_dir / "AFLW2000" / f"{pair.name}.jpg"
        assert pair.fit == tiny_data_dir / "AFLW2000" / f"{pair.name}.mat"
    pairs = find_300w_lp(tiny_data_dir)
    assert [pair.name for pair in pairs] == sorted(YAWS_300W_LP_DEG)
    assert all(pair.picture.is_file() and pair.fit.is_file() for pair in pairs)
    missing = {Path(record.args[0]).name for record in caplog.records}
    assert missing == set(SUBSETS_300W_LP) - {"AFW", "IBUG"}
    caplog.clear()
    named = find_300w_lp(tiny_data_dir, ["IBUG"])
    assert [pair.name for pair in named] == [pair.name for pair in pairs if "IBUG" in pair.name]
    assert not caplog.records


def test_pictures_and_fits_without_their_twin_are_listed(tmp_path: Path) -> None:
    touch(tmp_path / "AFLW2000", "b.jpg", "c.mat", "a.png", "a.mat", "d.JPG", "d.mat", "list.txt")
    pairs = {pair.name: pair for pair in find_aflw2000(tmp_path)}
    assert list(pairs) == ["a", "b", "c", "d"]
    assert pairs["a"].picture.name == "a.png"
    assert pairs["d"].picture.name == "d.JPG"
    assert not pairs["b"].fit.exists()
    assert not pairs["c"].picture.exists()


def test_names_with_a_dot_are_no_samples_and_suffixes_have_any_case(tmp_path: Path) -> None:
    for name in ("a.JPG", "a.MAT", ".a.jpg", "._a.jpg", ".b.12.tmp.mat", ".cache/c.jpg"):
        (tmp_path / "AFLW2000" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "AFLW2000" / name).touch()
    (pair,) = find_aflw2000(tmp_path)
    assert (pair.name, pair.picture.name, pair.fit.name) == ("a", "a.JPG", "a.MAT")


def test_only_named_folders_count_as_subsets(tmp_path: Path) -> None:
    root = tmp_path / "300W_LP"
    touch(root / "AFW", "a.jpg", "a.mat")
    touch(root / "AFW_Flip", "a.jpg", "a.mat")
    touch(root / "MINE", "m.jpg", "m.mat")
    touch(root / "Code", "x.mat")
    touch(root / "landmarks", "a_pts.mat")
    assert [pair.name for pair in find_300w_lp(tmp_path)] == ["AFW/a", "AFW_Flip/a"]
    pairs = find_300w_lp(tmp_path, ["MINE", "AFW", "MINE"])
    assert [pair.name for pair in pairs] == ["AFW/a", "MINE/m"]
    for subset in ("Code", "landmarks"):
        with pytest.raises(ValueError, match=f"'{subset}' holds no samples"):
            find_300w_lp(tmp_path, ["AFW", subset])
    with pytest.raises(FileNotFoundError, match=r"HELEN: missing; .*\['AFW', 'AFW_Flip', 'MINE'\]"):
        find_300w_lp(tmp_path, ["HELEN"])
    with pytest.raises(ValueError, match="is empty: name at least one"):
        find_300w_lp(tmp_path, [])


def test_empty_data_folder_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="AFLW2000: no picture found; unpack AFLW2000-3D"):
        find_aflw2000(tmp_path)
    with pytest.raises(FileNotFoundError, match="300W_LP: none of AFW, .* found; unpack 300W-LP"):
        find_300w_lp(tmp_path)
    touch(tmp_path / "AFLW2000", "readme.txt")
    with pytest.raises(FileNotFoundError, match="no picture found"):
        find_aflw2000(tmp_path)
    touch(tmp_path / "300W_LP" / "AFW")
    with pytest.raises(FileNotFoundError, match=r"no picture in \['AFW'\]"):
        find_300w_lp(tmp_path)


def test_folders_of_others_in_300w_lp_are_named_with_how_to_take_them(tmp_path, caplog):
    """Those with pairs, and no others."""
    for folder, names in {
        "AFW": "ab",
        "Mine": "abc",
        "Code": "a",
        "landmarks": "",
        ".x": "a",
    }.items():
        place = tmp_path / "300W_LP" / folder
        place.mkdir(parents=True)
        for name in names:
            (place / f"{name}.jpg").touch()
            (place / f"{name}.mat").touch()
    (tmp_path / "300W_LP" / "Pictures").mkdir()
    (tmp_path / "300W_LP" / "Pictures" / "a.jpg").touch()
    pairs = find_300w_lp(tmp_path)
    assert [pair.name for pair in pairs] == ["AFW/a", "AFW/b"]
    (said,) = [line for line in caplog.messages if "not taken" in line]
    assert f"{tmp_path / '300W_LP' / 'Mine'} (3 pairs)" in said
    assert said.endswith("'dataset.subsets=[AFW,Mine]'")
    assert "Code" not in said
    assert "Pictures" not in said
    caplog.clear()
    assert len(find_300w_lp(tmp_path, ["AFW", "Mine"])) == 5
    assert not caplog.messages
    # Where none of 300W-LP's is there, too.
    (tmp_path / "300W_LP" / "AFW").rename(tmp_path / "300W_LP" / "Yours")
    with pytest.raises(
        FileNotFoundError, match=r"'dataset\.subsets=\[Mine,Yours\]' \(there is "
    ) as no:
        find_300w_lp(tmp_path)
    assert "Mine (3 pairs)" in str(no.value)
