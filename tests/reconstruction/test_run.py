"""Folders of photos: names, records, reruns, and every file read back."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import trimesh
from PIL import Image

from prnet.datasets.fits import decode_vertices, fit_matrix, read_fit
from prnet.datasets.pictures import EXIF_ORIENTATION
from prnet.datasets.predictions import find_predictions, read_prediction
from prnet.detection.framing import framing_of_points
from prnet.faces.loading import load_face
from prnet.geometry.camera import transform_points
from prnet.reconstruct import framer_of
from prnet.reconstruction.outputs import (
    WRITERS,
    require_outputs,
    require_possible,
    write_outputs,
)
from prnet.reconstruction.photos import read_photo
from prnet.reconstruction.rendering import coordinate_code, frontal_picture
from prnet.reconstruction.run import Settings, find_photos, reconstruct_photos, stems_of
from prnet.reconstruction.texture import texture_of
from tests.gltf_validator import needs_validator, require_valid
from tests.known_faces import known_face

SETTINGS = Settings("default", ("npz",), "detector", 0.6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, astronaut) -> Path:
    """One face, two faces, none, and what is no photo."""
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(astronaut).save(folder / "one.png")
    half = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    group = np.zeros((512, 768, 3), np.uint8)
    group[:, :512], group[128:384, 512:] = astronaut, half
    (folder / "sub").mkdir()
    Image.fromarray(group).save(folder / "sub" / "two.jpg", quality=95)
    Image.new("RGB", (300, 200), (90, 120, 60)).save(folder / "none.png")
    (folder / "broken.jpg").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".one.tmp.png").write_bytes(b"left by a killed writer")
    return folder


def run(
    folder: Path, output: Path, reconstructor, settings: Settings = SETTINGS, **options
) -> dict:
    return reconstruct_photos(
        find_photos(folder), output, reconstructor, settings, progress=False, **options
    )


def test_photos_are_found_in_folders_patterns_and_alone(photos, tmp_path):
    names = [path.name for path in find_photos(photos)]
    assert names == ["broken.jpg", "none.png", "one.png", "two.jpg"]
    assert [p.name for p in find_photos(f"{photos}/*.png")] == ["none.png", "one.png"]
    assert find_photos(photos / "one.png") == [photos / "one.png"]
    # A folder that is there is called so: its brackets match nothing else.
    bracketed = shutil.copytree(photos, tmp_path / "Bilder [1]" / "in")
    assert [p.name for p in find_photos(f"{bracketed}/o*.png")] == ["one.png"]
    with pytest.raises(FileNotFoundError, match="nothing found"):
        find_photos(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"\.jpeg"):
        find_photos(tmp_path / "empty")


def test_stems_that_collide_get_names_of_their_own():
    given = ["a.jpg", "a.png", "x/a.jpg", "y/A.jpg", "b.jpg", "z/x/a.jpg"]
    stems = stems_of([Path(name) for name in given])
    found = [stems[Path(name)] for name in given]
    assert found[:3] == ["a", "a_png", "a_jpg"]
    assert found[4] == "b"
    assert len({stem.lower() for stem in found}) == len(given)


def test_every_photo_is_recorded_and_nothing_is_lost(photos, tmp_path, reconstructor, caplog):
    content = run(photos, tmp_path, reconstructor)
    assert content == json.loads((tmp_path / "faces.json").read_text())
    by_name = {Path(record["input"]).name: record for record in content["inputs"]}
    assert {name: len(record["faces"]) for name, record in by_name.items()} == {
        "broken.jpg": 0,
        "none.png": 0,
        "one.png": 1,
        "two.jpg": 2,
    }
    assert "not a readable picture" in by_name["broken.jpg"]["why"]
    assert by_name["none.png"]["why"] == "no face found"
    files = [face["files"] for face in by_name["two.jpg"]["faces"]]
    assert files == [["two.npz"], ["more_faces/two_2.npz"]]
    large, small = (face["box"] for face in by_name["two.jpg"]["faces"])
    assert large[2] - large[0] > 1.5 * (small[2] - small[0])
    assert small[0] > 512 > large[2]
    assert "broken.jpg" in caplog.text


def test_a_rerun_skips_what_is_whole(photos, tmp_path, reconstructor, monkeypatch):
    first = run(photos, tmp_path, reconstructor)
    (tmp_path / "one.npz").unlink()
    seen = []
    call = type(reconstructor).__call__
    monkeypatch.setattr(
        type(reconstructor),
        "__call__",
        lambda self, picture: seen.append(picture.shape) or call(self, picture),
    )
    told = []
    again = run(photos, tmp_path, reconstructor, tell=lambda *each: told.append(each))
    assert again["inputs"] == first["inputs"]
    assert [record for record, _ in told] == first["inputs"]
    assert [record["stem"] for record, kept in told if kept] == ["two"]
    assert (tmp_path / "one.npz").is_file()
    assert seen == [(200, 300, 3), (512, 512, 3)]  # the one without a face, and the lost one


def test_what_is_done_is_kept_when_a_run_is_left(photos, tmp_path, reconstructor, monkeypatch):
    def stop(*_arguments: object) -> list:
        raise KeyboardInterrupt

    monkeypatch.setitem(WRITERS, "npz", stop)
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path, reconstructor)
    content = json.loads((tmp_path / "faces.json").read_text())
    assert [Path(record["input"]).name for record in content["inputs"]] == [
        "broken.jpg",
        "none.png",
    ]


def test_a_folder_of_other_settings_is_refused(photos, tmp_path, reconstructor):
    run(photos / "none.png", tmp_path, reconstructor)
    other = SETTINGS._replace(outputs=("npz", "ply"))
    with pytest.raises(ValueError, match=r"faces\.json: of a run with.*choose another output"):
        run(photos / "none.png", tmp_path, reconstructor, other)


def test_given_boxes_need_no_detector(photos, tmp_path, reconstructor, her_face):
    def framer(_photo: Path, _picture: np.ndarray) -> list:
        return [framing_of_points(her_face.landmarks)]

    settings = SETTINGS._replace(framing="boxes=a.csv")
    content = run(photos / "one.png", tmp_path, reconstructor, settings, framer=framer)
    (face,) = content["inputs"][0]["faces"]
    assert face["confidence"] is None
    found = np.load(tmp_path / "one.npz")["landmarks"]
    picture = read_photo(photos / "one.png").picture
    (expected,) = reconstructor.framed(picture, [framing_of_points(her_face.landmarks)])
    np.testing.assert_allclose(found, expected.landmarks, atol=1e-3)


@pytest.mark.parametrize("source", ["boxes", "landmarks"])
def test_boxes_and_landmarks_are_of_the_upright_photo(
    tmp_path, astronaut, reconstructor, her_face, source
):
    """Stored on its side with EXIF's word for it: px of what every viewer shows, in and out."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(astronaut[:400], 1)))
    stored.save(tmp_path / "a.png", exif=exif)
    low, high = her_face.landmarks.min(0)[:2], her_face.landmarks.max(0)[:2]
    if source == "boxes":
        numbers = ",".join(str(value) for value in (*low, *high))
        (tmp_path / "b.csv").write_text(f"name,left,top,right,bottom\na.png,{numbers}\n")
        words, framer = framer_of(str(tmp_path / "b.csv"), None)
    else:
        np.savetxt(tmp_path / "a.txt", her_face.landmarks)
        words, framer = framer_of(None, str(tmp_path / "a.txt"))
    settings = SETTINGS._replace(framing=words)
    content = run(tmp_path / "a.png", tmp_path / "o", reconstructor, settings, framer=framer)
    (record,) = content["inputs"]
    assert (record["width"], record["height"], record["orientation"]) == (512, 400, 6)
    found = np.load(tmp_path / "o" / "a.npz")["landmarks"]
    (expected,) = reconstructor.framed(astronaut[:400], [framing_of_points(her_face.landmarks)])
    np.testing.assert_allclose(found, expected.landmarks, atol=1e-2)


def test_the_evaluator_reads_the_folder_as_it_is(photos, tmp_path, reconstructor, her_face):
    run(photos / "one.png", tmp_path, reconstructor)
    found = find_predictions(tmp_path)
    assert list(found) == ["one"]
    prediction = read_prediction(found["one"])
    np.testing.assert_array_equal(prediction.landmarks, her_face.landmarks)
    assert prediction.landmarks_origin == "zero_based"


@pytest.fixture(scope="module")
def written(her_face, tmp_path_factory) -> Path:
    """Everything there is, of her face."""
    stem = tmp_path_factory.mktemp("written") / "a"
    files = write_outputs(her_face, stem, list(WRITERS))
    assert all(path.is_file() for path in files)
    assert sorted(files) == sorted(path for path in stem.parent.rglob("*") if path.is_file())
    return stem.parent


def test_meshes_of_obj_and_ply_are_the_same_and_face_outward(written, her_face):
    for name in ("a.obj", "a.ply"):
        mesh = trimesh.load(written / name, process=False)
        assert len(mesh.faces) == len(her_face.triangles)
        assert 0.1 < np.ptp(mesh.vertices[:, 1]) < 0.4  # metres, y up
        nose = mesh.vertices[np.argmax(mesh.vertices[:, 2])]
        assert abs(nose[0]) < 0.01
        facing = (mesh.face_normals[:, 2] * mesh.area_faces).sum()
        assert facing > 0
    obj = trimesh.load(written / "a.obj", process=False)
    assert obj.visual.material.image.size == (512, 512)
    colours = trimesh.load(written / "a.ply", process=False).visual.vertex_colors
    x, y = np.rint(her_face.landmarks[30, :2]).astype(int)
    at_nose = colours[np.argmin(np.abs(her_face.vertices - her_face.landmarks[30]).sum(1)), :3]
    assert np.abs(at_nose.astype(int) - her_face.picture[y, x]).max() < 30


def test_tables_and_maps_hold_what_they_say(written, her_face):
    points = json.loads((written / "a_landmarks.json").read_text())["landmarks"]
    np.testing.assert_allclose(points, her_face.landmarks, atol=1e-3)
    pose = json.loads((written / "a_pose.json").read_text())
    assert pose["yaw_deg"] == pytest.approx(her_face.pose.angles_deg[1], abs=0.01)
    position_map = np.load(written / "a_position_map.npy")
    row, column = her_face.face.uv.landmark_cells.numpy()[30]
    assert np.abs(position_map[row, column] - her_face.landmarks[30]).max() < 1
    depth = cv2.imread(str(written / "a_depth.png"), cv2.IMREAD_UNCHANGED)
    assert depth.shape == her_face.picture.shape[:2]
    x, y, z = her_face.landmarks[30]
    assert depth[round(y), round(x)] / 64 == pytest.approx(z, abs=1.5)
    assert depth[0, 0] == 0
    values = json.loads((written / "a_arkit.json").read_text())
    assert len(values) == 51
    assert all(0 <= value <= 1 for value in values.values())
    with (written / "a_arkit.csv").open() as file:
        header, row = csv.reader(file)
    assert float(row[header.index("JawOpen")]) == pytest.approx(values["jawOpen"], abs=1e-3)


def test_pictures_are_read_back_as_they_were_made(written, her_face):
    """Right side up, in RGB, of the photo's size or the texture's."""
    texture = texture_of(her_face)
    frontal = frontal_picture(her_face, texture)
    for name, expected in (
        ("texture", texture.picture),
        ("texture_seen", np.repeat(255 * texture.seen[..., None], 3, 2)),
        ("pncc", coordinate_code(her_face)),
        ("frontal", frontal),
    ):
        found = np.asarray(Image.open(written / f"a_{name}.png"))
        np.testing.assert_array_equal(found, expected, err_msg=name)
    for name in ("pose", "overlay"):
        found = np.asarray(Image.open(written / f"a_{name}.jpg")).astype(int)
        difference = np.abs(found - her_face.picture).max(2)
        assert found.shape == her_face.picture.shape
        assert np.median(difference) < 10
        near = np.zeros_like(difference, bool)
        (left, top), (right, bottom) = (
            np.rint(one).astype(int)
            for one in (her_face.landmarks.min(0)[:2], her_face.landmarks.max(0)[:2])
        )
        near[top - 20 : bottom + 20, left - 20 : right + 20] = True
        assert difference[near].max() > 60


def test_a_fit_is_read_as_300w_lps(written, her_face):
    """Its landmarks are its own parameters', counted from 1, beside hers but for the shear."""
    found = read_fit(written / "fits" / "a.mat")
    np.testing.assert_allclose(found.fit.shape_params, her_face.shape_params)
    model = her_face.face.morphable_model.at_vertices(her_face.face.landmark_index)
    matrix = fit_matrix(found.fit, len(her_face.picture), pixel_origin="matlab")
    decoded = transform_points(matrix, decode_vertices(model, found.fit).double())
    np.testing.assert_allclose(found.landmarks, decoded, atol=1e-4)
    size = np.sqrt(np.prod(np.ptp(her_face.landmarks[:, :2], axis=0)))
    distance = np.linalg.norm(found.landmarks[:, :2] - 1 - her_face.landmarks[:, :2], axis=1)
    assert distance.mean() < 0.05 * size
    mat = scipy.io.loadmat(written / "fits" / "a.mat")
    shapes = [mat[key].shape for key in ("Pose_Para", "pt2d", "roi")]
    assert shapes == [(1, 7), (2, 68), (1, 4)]
    np.testing.assert_allclose(np.degrees(mat["Pose_Para"][0, :3]), her_face.pose.angles_deg)


def test_a_rigid_fit_of_the_bfm_is_exact_and_has_the_archives_lengths(face, tmp_path):
    known = known_face(face, seed=7, angles_deg=(-20, 35, 10))
    (path,) = write_outputs(known, tmp_path / "a", ["fit"])
    found = read_fit(path)
    assert (len(found.fit.shape_params), len(found.fit.exp_params)) == (199, 29)
    np.testing.assert_allclose(np.degrees(found.fit.angles), (-20, 35, 10), atol=1e-5)
    np.testing.assert_allclose(found.landmarks - [1, 1, 0], known.landmarks, atol=2e-3)
    np.testing.assert_allclose(found.landmarks_2d, found.landmarks[:, :2])


def test_what_a_network_cannot_give_is_refused_before_the_photos(face):
    known = load_face("embedded")
    require_possible(["glb", "arkit"], known, gives_parameters=False)
    require_possible(["fit", "arkit"], known, gives_parameters=True)
    with pytest.raises(ValueError, match=r"outputs=fit: the network predicts a position map"):
        require_possible(["glb", "fit"], known, gives_parameters=False)
    with pytest.raises(ValueError, match=r"outputs=arkit: .*face=bfm.*no ARKit coefficients"):
        require_possible(["arkit"], face, gives_parameters=True)


@pytest.mark.parametrize("of_map", [False, True])
def test_meshes_of_a_bfm_are_wound_outward_and_read_by_others(face, tmp_path, of_map):
    known = known_face(face, seed=3, of_map=of_map)
    write_outputs(known, tmp_path / "a", ["obj", "ply", "glb"])
    (skin,) = trimesh.load(tmp_path / "a.glb").geometry.values()
    assert skin.visual.material.baseColorTexture.size == (512, 512)
    meshes = [trimesh.load(tmp_path / f"a.{suffix}", process=False) for suffix in ("obj", "ply")]
    for mesh in (skin, *meshes):
        assert len(mesh.faces) == len(known.triangles)
        assert (mesh.face_normals[:, 2] * mesh.area_faces).sum() > 0
        upward = mesh.vertices[np.argmin(np.abs(known.vertices - known.landmarks[8]).sum(1)), 1]
        assert upward < mesh.vertices[:, 1].mean()  # the chin


def test_unknown_outputs_are_refused_with_the_list():
    with pytest.raises(ValueError, match=r"outputs: got 'stl', expected one of npz, glb"):
        require_outputs(["npz", "stl"])
    with pytest.raises(ValueError, match="none given"):
        require_outputs([])
    assert require_outputs(["glb", "glb"]) == ("glb",)


@needs_validator
def test_khronos_validator_finds_no_fault(written):
    require_valid(written / "a.glb")
