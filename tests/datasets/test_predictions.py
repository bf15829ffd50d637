"""Saved predictions: whose file is which, what it holds, where its landmarks are, refusals."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from prnet.datasets.predictions import (
    SavedPrediction,
    Topology,
    find_predictions,
    find_topology,
    landmarks_of,
    read_prediction,
    write_prediction,
)

RANDOM = np.random.default_rng(0)
LANDMARKS = RANDOM.normal(200, 50, (68, 3))
VERTICES = RANDOM.normal(200, 50, (98, 3)).astype(np.float32)
for array in (LANDMARKS, VERTICES):
    array.setflags(write=False)


def save_kpt(folder: Path, name: str, table=LANDMARKS) -> Path:
    path = folder / f"{name}_kpt.txt"
    np.savetxt(path, table)
    return path


def save_mat(path: Path, **content) -> Path:
    scipy.io.savemat(path, content)
    return path


def save_npz(path: Path, **content) -> Path:
    np.savez(path, **content)
    return path


def test_find_tells_formats_apart_by_name(tmp_path):
    """Both files of PRNet are one prediction; files of no format are passed over."""
    save_kpt(tmp_path, "b")
    save_mat(tmp_path / "b_mesh.mat", vertices=VERTICES)
    save_mat(tmp_path / "a.mat", vertex=VERTICES.T)
    save_npz(tmp_path / "c_1.npz", landmarks=LANDMARKS)
    for other in ("a.jpg", "b_pose.txt", "readme.md", ".hidden.npz", "b.obj"):
        (tmp_path / other).write_text("")
    (tmp_path / "folder.npz").mkdir()
    found = find_predictions(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "a": ["a.mat"],
        "b": ["b_kpt.txt", "b_mesh.mat"],
        "c_1": ["c_1.npz"],
    }
    assert list(found) == ["a", "b", "c_1"]


def test_meshes_count_where_there_is_nothing_else(tmp_path):
    save_npz(tmp_path / "a.npz", landmarks=LANDMARKS)
    (tmp_path / "a.obj").touch()
    points = "\n".join(f"{x!r} {y!r} {z!r} 7" for x, y, z in VERTICES.astype(float).tolist())
    head = f"element vertex {len(VERTICES)}\n" + "".join(
        f"property float {name}\n" for name in (*"xyz", "quality")
    )
    (tmp_path / "b.PLY").write_text(f"ply\nformat ascii 1.0\n{head}end_header\n{points}\n")
    found = find_predictions(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "a": ["a.npz"],
        "b": ["b.PLY"],
    }
    np.testing.assert_array_equal(read_prediction(found["b"]).vertices, VERTICES)
    whole = (tmp_path / "b.PLY").read_text()
    for damaged in ("", "ply\n", whole.replace("ascii", "text"), whole[:-400], "end_header"):
        (tmp_path / "b.PLY").write_text(damaged)
        with pytest.raises(ValueError, match=r"b\.PLY: "):
            read_prediction(found["b"])
    (tmp_path / "c.obj").write_text("v 1 2 3\nv 1 2\n")
    with pytest.raises(ValueError, match=r"c\.obj: 2 points of \[2, 3\] values"):
        read_prediction([tmp_path / "c.obj"])
    (tmp_path / "c.obj").write_text("v 1 2 3\nv 1 two 3\n")
    with pytest.raises(ValueError, match=r"c\.obj: line 2 is 'v 1 two 3'"):
        read_prediction([tmp_path / "c.obj"])


@pytest.mark.parametrize("rival", ["x.npz", "x_mesh.mat", "x_kpt.txt"])
def test_two_formats_of_one_name_are_refused(tmp_path, rival):
    save_mat(tmp_path / "x.mat", vertex=VERTICES.T)
    (tmp_path / rival).write_bytes(b"")
    with pytest.raises(ValueError, match=r"x has predictions in two formats \(.*x.mat.*keep one"):
        find_predictions(tmp_path)


def test_nothing_to_find(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find_predictions(tmp_path / "nowhere")
    (tmp_path / "a.stl").write_text("")
    with pytest.raises(FileNotFoundError, match="no prediction found; expected NAME_kpt.txt"):
        find_predictions(tmp_path)


def test_prnet_files(tmp_path):
    paths = [save_kpt(tmp_path, "a"), save_mat(tmp_path / "a_mesh.mat", vertices=VERTICES)]
    both = read_prediction(paths)
    assert both.landmarks == pytest.approx(LANDMARKS)
    assert np.array_equal(both.vertices, VERTICES)
    assert (both.landmarks_origin, both.vertices_origin) == ("face3d", "face3d")
    assert read_prediction(paths[:1]).vertices is None
    assert read_prediction(paths[1:]).landmarks is None


@pytest.mark.parametrize("stored", [VERTICES, VERTICES.T])
def test_3ddfa_file_either_way_round(tmp_path, stored):
    prediction = read_prediction([save_mat(tmp_path / "a.mat", vertex=stored)])
    assert np.array_equal(prediction.vertices, VERTICES)
    assert prediction.landmarks is None
    assert prediction.vertices_origin == "matlab"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_npz_of_landmarks(tmp_path, dimensions):
    path = save_npz(tmp_path / "a.npz", landmarks=LANDMARKS[:, :dimensions])
    prediction = read_prediction([path])
    assert np.array_equal(prediction.landmarks, LANDMARKS[:, :dimensions])
    assert prediction.vertices is None
    assert prediction.landmarks_origin == "zero_based"


@pytest.mark.parametrize("origin", ["zero_based", "matlab", "face3d", "sadrnet"])
def test_npz_names_its_pixel_origin(tmp_path, origin):
    path = save_npz(tmp_path / "a.npz", vertices=VERTICES, landmarks=LANDMARKS, pixel_origin=origin)
    prediction = read_prediction([path])
    assert (prediction.landmarks_origin, prediction.vertices_origin) == (origin, origin)


def test_write_prediction_round_trip(tmp_path):
    """float32, each in its origin, and no temporary file left."""
    write_prediction(
        tmp_path / "sub" / "a.npz",
        LANDMARKS,
        VERTICES,
        landmarks_origin="matlab",
        vertices_origin="face3d",
    )
    back = read_prediction([tmp_path / "sub" / "a.npz"])
    assert np.array_equal(back.landmarks, LANDMARKS.astype(np.float32))
    assert np.array_equal(back.vertices, VERTICES)
    assert (back.landmarks_origin, back.vertices_origin) == ("matlab", "face3d")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.npz"]


def test_integers_are_numbers_too(tmp_path):
    path = save_npz(tmp_path / "a.npz", landmarks=LANDMARKS.astype(np.uint8))
    assert read_prediction([path]).landmarks.dtype == np.float64


def with_nan(points):
    spoiled = points.copy()
    spoiled[7, 1] = np.nan
    return spoiled


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", {"landmark": LANDMARKS}, r"\['landmark'\], expected landmarks"),
        ("a.npz", {"landmarks": LANDMARKS[:67]}, r"\(67, 3\), expected \(68, 2 or 3\)$"),
        ("a.npz", {"landmarks": LANDMARKS.T}, r"\(3, 68\), expected .*; it is transposed"),
        ("a.npz", {"landmarks": LANDMARKS[None]}, r"\(1, 68, 3\), expected"),
        ("a.npz", {"landmarks": with_nan(LANDMARKS)}, "landmarks holds values that are not finite"),
        ("a.npz", {"landmarks": np.full((68, 3), "x")}, "landmarks holds <U1, expected numbers"),
        ("a.npz", {"landmarks": LANDMARKS + 1j}, "landmarks holds complex128"),
        ("a.npz", {"landmarks": LANDMARKS.astype(object)}, "not a readable .npz"),
        ("a.npz", {"vertices": VERTICES.T}, r"\(3, 98\), expected \(N, 3\); it is transposed"),
        ("a.npz", {"vertices": VERTICES[:, :2]}, r"\(98, 2\), expected \(N, 3\)"),
        ("a.npz", {"vertices": VERTICES[:0]}, r"\(0, 3\), expected \(N, 3\)"),
        ("a.npz", {"vertices": VERTICES, "pixel_origin": "center"}, "'center', expected one of"),
        (
            "a.npz",
            {"vertices": VERTICES, "pixel_origin": ["matlab"] * 2},
            r"\['matlab', 'matlab'\]",
        ),
        (
            "a.npz",
            {"vertices": VERTICES, "vertices_pixel_origin": 1},
            "vertices_pixel_origin: got 1, expected one of zero_based",
        ),
        ("a.mat", {"vertices": VERTICES}, r"no array 'vertex', found \['vertices'\]"),
        ("a.mat", {"vertex": VERTICES[:3]}, r"\(3, 3\), expected \(N, 3\)"),
        ("a.mat", {"vertex": np.zeros((4, 98))}, r"\(4, 98\), expected \(N, 3\)"),
        ("a.mat", {"vertex": with_nan(VERTICES).T}, "vertex holds values that are not finite"),
        ("a.mat", {"vertex": np.array([[{"x": 1.0}]])}, "vertex holds"),
        ("a_mesh.mat", {"vertex": VERTICES}, r"no array 'vertices', found \['vertex'\]"),
        ("a_mesh.mat", {"vertices": VERTICES.T}, r"\(3, 98\), expected \(N, 3\); it is transposed"),
        ("a_mesh.mat", {"vertices": np.inf * VERTICES}, "not finite"),
    ],
)
def test_wrong_content_is_refused_in_one_line_with_the_file(tmp_path, name, content, message):
    path = tmp_path / name
    (save_npz if name.endswith("npz") else save_mat)(path, **content)
    with pytest.raises(ValueError, match=f"{name}: .*{message}") as caught:
        read_prediction([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("1 2 3\n4 5\n", "not a table of numbers"),
        ("x y z\n" * 68, "not a table of numbers"),
        ("1 2 3\n" * 67, r"\(67, 3\), expected \(68, 3\)"),
        ("1 2\n" * 68, r"\(68, 2\), expected \(68, 3\)"),
        ("1 2 3 4\n" * 68, r"\(68, 4\), expected \(68, 3\)"),
        ("1 2 nan\n" * 68, "not finite"),
        ("1 2 3", r"\(3,\), expected \(68, 3\)"),
    ],
)
def test_wrong_text_is_refused(tmp_path, text, message):
    path = tmp_path / "a_kpt.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"a_kpt.txt: .*{message}"):
        read_prediction([path])


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a_mesh.mat"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_damaged_files_are_refused(tmp_path, name, damage):
    path = tmp_path / name
    if name == "a.npz":
        save_npz(path, vertices=VERTICES)
    else:
        save_mat(path, vertex=VERTICES, vertices=VERTICES)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "other": b"\0" * 999}[damage])
    with pytest.raises(ValueError, match=f"{name}: not a readable"):
        read_prediction([path])


def saved(vertices, landmarks=None) -> SavedPrediction:
    return SavedPrediction(Path("a.npz"), landmarks, "zero_based", vertices, "matlab")


def test_landmarks_among_the_vertices_of_the_face(face):
    """kpt_ind for a mesh; the UV cells for a map read at the face pixels."""
    topology = find_topology(face, None)
    landmarks, origin = landmarks_of(saved(VERTICES), topology)
    assert np.array_equal(landmarks, VERTICES[face.landmark_index.numpy()])
    assert origin == "matlab"

    position_map = RANDOM.normal(size=(256, 256, 3))
    row, column = face.uv.landmark_cells.numpy().T
    face_points = position_map.reshape(-1, 3)[face.uv.face_index.numpy()]
    landmarks, _ = landmarks_of(saved(face_points), topology)
    assert np.array_equal(landmarks, position_map[row, column])


def test_own_landmarks_come_first(face):
    landmarks, origin = landmarks_of(saved(VERTICES, LANDMARKS), find_topology(face, None))
    assert landmarks is LANDMARKS
    assert origin == "zero_based"


def test_prnet_tables_place_landmarks_without_a_face(tmp_path):
    """43,867 points need no BFM: a mask of 40 rows and cells in it."""
    mask = np.zeros((256, 256), dtype=bool)
    mask[60:100, 20:230] = True
    cells = np.stack([60 + np.arange(68) % 40, 20 + 3 * np.arange(68)], -1)  # row, column
    np.savetxt(tmp_path / "face_ind.txt", np.flatnonzero(mask))
    np.savetxt(tmp_path / "uv_kpt_ind.txt", cells[:, ::-1].T)
    topology = find_topology(None, tmp_path)
    texels = np.argwhere(mask).astype(float)  # row, column of every face pixel
    points = np.concatenate([texels, np.zeros((len(texels), 1))], 1)
    assert np.array_equal(landmarks_of(saved(points), topology)[0][:, :2], cells)

    np.savetxt(tmp_path / "uv_kpt_ind.txt", np.zeros((2, 68)))
    with pytest.raises(ValueError, match="not face pixels; face mask and landmark cells"):
        find_topology(None, tmp_path)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (53215, r"53215 vertices and no landmarks: kpt_ind of DATA_DIR/BFM/BFM.mat"),
        (43867, "43867 vertices and no landmarks: face_ind.txt.*DATA_DIR/PRNet_uv"),
        (500, r"500 vertices and no landmarks: where they are is known for no vertices"),
    ],
)
def test_landmarks_that_cannot_be_found(count, message, tmp_path):
    topology = find_topology(None, tmp_path)
    with pytest.raises(ValueError, match=f"a.npz: {message}.*save NAME.npz with landmarks"):
        landmarks_of(saved(np.zeros((count, 3))), topology)


def test_unknown_number_of_vertices_names_the_known_ones(face):
    counts = sorted([98, face.uv.face_index.numel()])
    with pytest.raises(ValueError, match=f"97 vertices.*is known for .{counts[0]}, {counts[1]}"):
        landmarks_of(saved(VERTICES[:97]), find_topology(face, None))
    assert isinstance(find_topology(face, None), Topology)
