"""`python -m prnet.fit`: landmark files read, photos fitted, archives written, nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from prnet.datasets.fits import decode_vertices, find_300w_lp, fit_matrix, read_fit
from prnet.datasets.landmark_files import LandmarkItem, find_landmarks, read_landmarks
from prnet.entry import CONFIG_DIR
from prnet.faces.embedded import load_embedded
from prnet.faces.face import Face
from prnet.fit import FitOptions, fit_photos, prior_std
from prnet.geometry import camera
from tests.tiny import AFLW2000_YAWS_DEG, HEIGHT, NUM_EXP, NUM_SHAPE

ROOT = Path(__file__).resolve().parents[1]
RANDOM = np.random.default_rng(0)
POINTS = RANDOM.uniform(10, 90, (68, 3)).round(3)
WIDE = {"shape_std": 2e4, "exp_std": 1.0}


def write_photo(path: Path, *, height: int = 100, width: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return path


def lines(points: np.ndarray, separator: str = " ") -> str:
    return "\n".join(separator.join(str(value) for value in row) for row in points) + "\n"


def table(rows: dict[str, np.ndarray]) -> str:
    axes = "xyz"[: next(iter(rows.values())).shape[1]]
    header = ["name", *(f"{axis}{k}" for k in range(68) for axis in axes)]
    body = [[name, *map(str, points.ravel())] for name, points in rows.items()]
    return "\n".join(",".join(row) for row in [header, *body]) + "\n"


def pts(points: np.ndarray) -> str:
    return f"version: 1\nn_points: 68\n{{\n{lines(points)}}}\n"


# Files of landmarks. The formats that count pixels from 1 hold POINTS + 1.


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("suffix", ["txt", "csv", "npy", "table"])
def test_neutral_formats_hold_the_points_as_they_are(
    tmp_path: Path, suffix: str, dims: int
) -> None:
    points = POINTS[:, :dims]
    path = tmp_path / f"photo.{'csv' if suffix == 'table' else suffix}"
    if suffix == "npy":
        np.save(path, points.astype(np.float32))
    else:
        text = {"txt": lines(points), "csv": lines(points, ","), "table": table({"photo": points})}
        path.write_text(text[suffix])
    (found,) = read_landmarks(path).items()
    assert found[0] == "photo"
    assert found[1].dtype == np.float64
    np.testing.assert_allclose(found[1], points, rtol=1e-6)
    (moved,) = read_landmarks(path, shift=(-1.0, 2.0)).values()
    np.testing.assert_allclose(moved[:, :2], found[1][:, :2] + [-1, 2])
    np.testing.assert_array_equal(moved[:, 2:], found[1][:, 2:])


def test_pts_of_300w_count_from_one_whatever_the_caller_says(tmp_path: Path) -> None:
    path = tmp_path / "photo.pts"
    path.write_text(pts(POINTS[:, :2] + 1))
    (found,) = read_landmarks(path, shift=(5.0, 5.0)).values()
    np.testing.assert_allclose(found, POINTS[:, :2])


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("pt3d_68", (POINTS + [1, 1, 0]).T),
        ("pt2d", (POINTS[:, :2] + 1).T),
        ("pts_3d", POINTS[:, :2] + 1),
        ("pts_2d", POINTS[:, :2] + 1),
    ],
)
def test_mat_files_of_the_archives(tmp_path: Path, key: str, stored: np.ndarray) -> None:
    path = tmp_path / "photo_pts.mat"
    scipy.io.savemat(path, {key: stored, "roi": np.ones((1, 4))})
    (found,) = read_landmarks(path).items()
    assert found[0] == "photo"
    np.testing.assert_allclose(found[1], POINTS[:, : found[1].shape[1]])


def test_a_mat_with_21_labels_falls_back_on_pt3d(tmp_path: Path) -> None:
    path = tmp_path / "image.mat"
    scipy.io.savemat(path, {"pt2d": -np.ones((2, 21)), "pt3d_68": POINTS.T})
    (found,) = read_landmarks(path).values()
    np.testing.assert_allclose(found, POINTS - [1, 1, 0])


def test_points_that_are_not_seen_are_nan_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    points = POINTS[:, :2].copy()
    points[3, 1] = np.nan
    text = table({"first": points, "second": POINTS[:, :2]})
    path.write_text(text.replace("nan", ""))
    found = read_landmarks(path)
    assert list(found) == ["first", "second"]
    assert np.isnan(found["first"][3]).all()
    assert np.isfinite(np.delete(found["first"], 3, axis=0)).all()


BAD_FILES = {
    "short.txt": (lines(POINTS[:67]), r"67 lines of \[3\] values, expected 68 of 2 or 3"),
    "ragged.txt": (lines(POINTS)[:-8] + "\n", r"68 lines of \[2, 3\] values"),
    "words.csv": (lines(POINTS).replace(str(POINTS[5, 1]), "left"), "not a table of numbers"),
    "infinite.txt": (lines(POINTS).replace(str(POINTS[5, 1]), "inf"), "infinite"),
    "open.pts": (pts(POINTS[:, :2]).replace("}", ""), "no braces"),
    "header.csv": (
        "name,x0,y0\nphoto,1,2\n",
        r"first line is 'name,x0,y0', expected 'name,x0,y0,x1,.*' \(137 columns\)",
    ),
    "twice.csv": (
        table({"a": POINTS[:, :2]}) + table({"a": POINTS[:, :2]}).split("\n", 1)[1],
        "a appears twice",
    ),
    "cells.csv": (
        table({"a": POINTS}).rstrip().rpartition(",")[0],
        r"line 2 is 'a,.*\(204 columns\), expected a name and 204 number",
    ),
    "cell.csv": (
        table({"a": POINTS}).replace(str(POINTS[9, 0]), "?"),
        "line 2 is 'a,.*; x9 is '.'",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_damaged_text_is_refused_by_name(tmp_path: Path, name: str) -> None:
    text, message = BAD_FILES[name]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_landmarks(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (POINTS.T, r"shape \(3, 68\), expected \(68, 2\) or \(68, 3\)"),
        (POINTS[:, :1], r"shape \(68, 1\)"),
        (POINTS.astype(complex), "complex128, expected real numbers"),
        (POINTS.astype(object), "not a readable .npy file"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "photo.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        read_landmarks(tmp_path / "photo.npy")


def test_a_mat_without_68_points_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "photo.mat", {"pt2d": np.ones((2, 21))})
    with pytest.raises(ValueError, match=r"no pt3d_68, .* of 68 points, found {'pt2d': \(2, 21\)}"):
        read_landmarks(tmp_path / "photo.mat")


def test_binary_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ValueError, match="not a text file"):
        read_landmarks(tmp_path / "photo.txt")


# Folders.


def test_a_folder_gives_every_photo_or_the_reason_why_not(tmp_path: Path) -> None:
    for name in ("b", "a", "both"):
        write_photo(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.txt").write_text(lines(POINTS + 1))
    (tmp_path / "both.pts").write_text(pts(POINTS[:, :2] + 1))
    (tmp_path / "lost.txt").write_text(lines(POINTS))
    (tmp_path / "readme.txt").write_text("landmarks of photos\n")
    (tmp_path / "notes.md").write_text("not read")
    items, failed = find_landmarks(tmp_path, pixel_origin="matlab")
    assert [item.name for item in items] == ["a", "b", "both"]
    assert items[0].picture == tmp_path / "a.jpg"
    np.testing.assert_allclose(items[0].landmarks, POINTS + [0, 0, 1])
    assert failed.keys() == {"both (both.txt)", "lost", "readme.txt"}
    assert "no picture lost.jpg" in failed["lost"]
    assert "readme.txt: 1 lines" in failed["readme.txt"]


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "many.csv").write_text(table({"a": POINTS, "b": POINTS}))
    write_photo(tmp_path / "photos" / "a.png")
    items, failed = find_landmarks(tmp_path / "points" / "many.csv", pictures=tmp_path / "photos")
    assert [item.picture for item in items] == [tmp_path / "photos" / "a.png"]
    assert list(failed) == ["b"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing: missing; give a file of 68 landmarks"):
        find_landmarks(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no file of landmarks; expected NAME with"):
        find_landmarks(tmp_path)
    (tmp_path / "a.txt").write_text(lines(POINTS))
    with pytest.raises(FileNotFoundError, match="photos: missing; pictures="):
        find_landmarks(tmp_path, pictures=tmp_path / "photos")
    with pytest.raises(ValueError, match="pixel origin: got 'corner'"):
        find_landmarks(tmp_path, pixel_origin="corner")


# Fits.


@pytest.fixture(scope="module")
def photos(tiny_data_dir: Path) -> list[LandmarkItem]:
    """The tiny AFLW2000-3D by its own pt3d_68."""
    items, failed = find_landmarks(tiny_data_dir / "AFLW2000")
    assert failed == {}
    assert [item.name for item in items] == sorted(AFLW2000_YAWS_DEG)
    return items


@pytest.fixture(scope="module")
def fitted(photos: list[LandmarkItem], face: Face, tmp_path_factory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("fitted")
    options = FitOptions(**WIDE, landmark_std=1e-4)
    return output, fit_photos(photos, {}, face, options, output=output, batch_size=4)


def test_the_output_reads_as_300w_lp_and_meets_the_landmarks(
    fitted: tuple[Path, dict], photos: list[LandmarkItem], face: Face
) -> None:
    """Through the readers of the archives back to the picture."""
    pairs = find_300w_lp(fitted[0], ["Fitted"])
    assert [pair.name for pair in pairs] == [f"Fitted/{item.name}" for item in photos]
    for pair, item in zip(pairs, photos, strict=True):
        assert pair.picture.read_bytes() == item.picture.read_bytes()
        file = read_fit(pair.fit)
        assert (len(file.fit.shape_params), len(file.fit.exp_params)) == (199, 29)
        assert not file.fit.shape_params[NUM_SHAPE:].any()
        assert not file.fit.exp_params[NUM_EXP:].any()
        vertices = decode_vertices(face.morphable_model, file.fit)[face.landmark_index].double()
        image = camera.transform_points(fit_matrix(file.fit, HEIGHT), vertices).numpy()
        np.testing.assert_allclose(image[:, :2], item.landmarks[:, :2], atol=0.02)
        np.testing.assert_allclose(file.landmarks[:, :2], item.landmarks[:, :2] + 1, atol=0.02)
        np.testing.assert_allclose(file.landmarks_2d, file.landmarks[:, :2])
        truth = read_fit(item.picture.with_suffix(".mat")).fit
        np.testing.assert_allclose(file.fit.angles, truth.angles, atol=0.01)
        np.testing.assert_allclose(file.fit.scale, truth.scale, rtol=0.01)
        assert file.fit.translation[2] == 0


def test_the_report_says_what_was_done(
    fitted: tuple[Path, dict], photos: list[LandmarkItem], face: Face
) -> None:
    output, report = fitted
    assert json.loads((output / "fit.json").read_text()) == json.loads(json.dumps(report))
    assert report["face"] == face.describe()
    assert report["options"]["shape_std"] == 2e4
    assert report["failed"] == {}
    assert report["not_converged"] == []
    assert list(report["images"]) == [item.name for item in photos]
    assert len(report["mean_nme_per_landmark"]) == 68
    for name, entry in report["images"].items():
        assert entry["pitch_yaw_roll_deg"][1] == pytest.approx(AFLW2000_YAWS_DEG[name], abs=0.5)
        assert entry["nme"] < 0.05
        assert len(entry["residual_px"]) == 68
    mean = np.mean([entry["nme"] for entry in report["images"].values()])
    assert report["mean_nme"] == pytest.approx(mean)
    assert np.mean(report["mean_nme_per_landmark"]) == pytest.approx(mean, abs=1e-3)


def test_the_batch_size_moves_no_number(
    fitted: tuple[Path, dict], photos: list[LandmarkItem], face: Face, tmp_path: Path
) -> None:
    options = FitOptions(**WIDE, landmark_std=1e-4)
    other = fit_photos(photos, {}, face, options, output=tmp_path, batch_size=1)
    for name, entry in fitted[1]["images"].items():
        assert other["images"][name]["residual_px"] == pytest.approx(entry["residual_px"], abs=2e-4)
        first, second = (
            read_fit(folder / "300W_LP" / "Fitted" / f"{name}.mat").fit
            for folder in (fitted[0], tmp_path)
        )
        np.testing.assert_allclose(first.angles, second.angles, atol=1e-6)


def test_depth_is_fitted_where_it_is_asked_for(
    photos: list[LandmarkItem], face: Face, tmp_path: Path
) -> None:
    options = FitOptions(**WIDE, use_depth=True, landmark_std=1e-4)
    fit_photos(photos[:1], {}, face, options, output=tmp_path, batch_size=4)
    file = read_fit(tmp_path / "300W_LP" / "Fitted" / f"{photos[0].name}.mat")
    np.testing.assert_allclose(file.landmarks[:, 2], photos[0].landmarks[:, 2], atol=0.05)
    assert file.fit.translation[2] == pytest.approx(-60, abs=0.1)


def test_photos_that_cannot_be_fitted_are_listed_and_the_others_are_fitted(
    photos: list[LandmarkItem], face: Face, tmp_path: Path
) -> None:
    few = np.full((68, 2), np.nan)
    few[:5] = POINTS[:5, :2]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos[0].picture.read_bytes()[:500])
    unseen = photos[0].landmarks[:, :2].copy()
    unseen[30:36] = np.nan
    items = [
        LandmarkItem("broken", photos[0].landmarks, broken),
        LandmarkItem("few", few, photos[0].picture),
        LandmarkItem("flat", np.ones((68, 2)), photos[0].picture),
        LandmarkItem("unseen", unseen, photos[0].picture),
        photos[1],
    ]
    failed = {"other": "was lost before"}
    report = fit_photos(
        items, failed, face, FitOptions(**WIDE), output=tmp_path / "out", batch_size=2
    )
    assert list(report["images"]) == ["unseen", photos[1].name]
    assert list(report["failed"]) == ["other", "broken", "few", "flat"]
    assert "cut short" in report["failed"]["broken"]
    assert report["failed"]["few"] == "5 landmarks of positive weight, expected at least 6"
    assert "lie on a line" in report["failed"]["flat"]
    assert failed == {"other": "was lost before"}
    residual = report["images"]["unseen"]["residual_px"]
    assert residual[30:36] == [None] * 6
    assert None not in residual[:30] + residual[36:]
    # What one photo does not show is the mean of the others.
    other = report["images"][photos[1].name]["residual_px"][30:36]
    size = np.sqrt(np.prod(np.ptp(photos[1].landmarks[:, :2], axis=0)))
    expected = 100 * np.array(other) / size
    np.testing.assert_allclose(report["mean_nme_per_landmark"][30:36], expected, atol=2e-4)


def test_nothing_fitted_is_an_error(face: Face, tmp_path: Path) -> None:
    item = LandmarkItem("lost", POINTS, tmp_path / "lost.jpg")
    with pytest.raises(ValueError, match=r"not one photo could be fitted \(early: gone; lost: "):
        fit_photos([item], {"early": "gone"}, face, FitOptions(), output=tmp_path, batch_size=2)
    assert not list(tmp_path.iterdir())


def test_depth_without_z_is_refused(photos: list[LandmarkItem], face: Face, tmp_path: Path) -> None:
    item = photos[0]._replace(landmarks=photos[0].landmarks[:, :2])
    with pytest.raises(ValueError, match="no z; use fit.use_depth=false"):
        fit_photos([item], {}, face, FitOptions(use_depth=True), output=tmp_path, batch_size=2)


def test_the_embedded_face_is_fitted_with_its_own_priors(tmp_path: Path) -> None:
    face = load_embedded()
    model = face.morphable_model
    random = torch.Generator().manual_seed(0)
    shape_params = 0.5 * torch.randn(1, model.num_shape, generator=random)
    exp_params = torch.zeros(1, model.num_exp)
    exp_params[0, face.exp_names.index("jawOpen")] = 0.6
    matrix = camera.image_from_model(
        torch.tensor(4e-4),
        torch.tensor([0.1, -0.5, 0.2]),
        torch.tensor([60.0, 50.0, 0.0]),
        torch.tensor(100.0),
    )
    vertices = model(shape_params, exp_params)[0, face.landmark_index]
    landmarks = camera.transform_points(matrix, vertices).double().numpy()
    item = LandmarkItem("photo", landmarks, write_photo(tmp_path / "photo.png"))
    options = FitOptions(exp_bounds=(0.0, 1.0))
    report = fit_photos([item], {}, face, options, output=tmp_path / "out", batch_size=1)
    assert report["images"]["photo"]["nme"] < 0.5
    pitch, yaw, roll = np.radians(report["images"]["photo"]["pitch_yaw_roll_deg"])
    assert np.abs([pitch - 0.1, yaw + 0.5, roll - 0.2]).max() < 0.05
    fit = read_fit(tmp_path / "out" / "300W_LP" / "Fitted" / "photo.mat").fit
    assert (len(fit.shape_params), len(fit.exp_params)) == (model.num_shape, model.num_exp)
    assert fit.exp_params.min() >= 0
    assert fit.exp_params.max() <= 1
    assert 0.3 < fit.exp_params[face.exp_names.index("jawOpen")] < 0.9


# Priors and configuration.


def test_priors_are_the_faces_own_unless_they_are_given(face: Face) -> None:
    own = face._replace(shape_std=torch.arange(1.0, 5), exp_std=torch.ones(NUM_EXP))
    shape_std, exp_std = prior_std(own, FitOptions())
    assert shape_std.tolist() == [1, 2, 3, 4]
    assert exp_std.tolist() == [1, 1, 1]
    shape_std, exp_std = prior_std(own, FitOptions(shape_std=7.0, exp_std=(1.0, 2.0, 3.0)))
    assert shape_std.tolist() == [7, 7, 7, 7]
    assert exp_std.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="exp_std: got 2 values, the face has 3 coefficients"):
        prior_std(own, FitOptions(exp_std=(1.0, 2.0)))


def test_a_bfm_without_deviations_has_laws_that_fall(face: Face) -> None:
    assert face.shape_std is None
    assert face.exp_std is None
    shape_std, exp_std = prior_std(face, FitOptions())
    assert shape_std[0] == 5.7e5
    assert exp_std[0] == 2.2
    assert (shape_std.diff() < 0).all()
    assert (exp_std.diff() < 0).all()


def test_the_configuration_is_what_the_options_are() -> None:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("fit", overrides=["landmarks=a", "output=b"])
    options = OmegaConf.to_container(cfg.fit)
    assert options.pop("exp_bounds") == "auto"
    defaults = FitOptions()._asdict()
    assert options == {key: defaults[key] for key in options}
    assert options.keys() | {"exp_bounds"} == defaults.keys()
    assert cfg.face.name == "embedded"


def test_the_command_fits_a_folder(tiny_data_dir: Path, tmp_path: Path) -> None:
    points = tmp_path / "points"
    points.mkdir()
    for item in find_landmarks(tiny_data_dir / "AFLW2000")[0][:3]:
        np.save(points / f"{item.name}.npy", item.landmarks)
    (points / "readme.txt").write_text("by hand\n")
    command = [sys.executable, "-m", "prnet.fit", f"landmarks={points}", "face=bfm"]
    command += [f"data_dir={tiny_data_dir}", f"pictures={tiny_data_dir / 'AFLW2000'}"]
    command += [f"output={tmp_path / 'out'}", "contact_sheet=2", "fit.loss=geman_mcclure"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 fits, mean NME" in done.stdout
    assert "not fitted: readme.txt" in done.stdout
    assert len(find_300w_lp(tmp_path / "out", ["Fitted"])) == 3
    sheet = cv2.imread(str(tmp_path / "out" / "contact_sheet.png"))
    assert sheet.shape == (256, 8 * 256, 3)
    report = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert report["options"]["loss"] == "geman_mcclure"
    assert report["options"]["exp_bounds"] is None
