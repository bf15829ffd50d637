"""What the evaluator must say of predictions whose errors are known: reconstruction, head pose,
points of a data set's own, and predictions that are wrong in a known way."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from prnet.datasets.aflw2000 import AFLW2000, read_yaw_labels
from prnet.datasets.evaluation import EvaluationItem, collate_evaluation
from prnet.datasets.fits import find_aflw2000
from prnet.datasets.pictures import CropRule
from prnet.evaluation.reconstructions import METRIC, Reconstructions, workers_for
from prnet.evaluation.report import ScoredImage
from prnet.faces.bfm import load_bfm
from prnet.geometry import camera
from prnet.metrics.reconstruction import reconstruction_error, reconstruction_unit
from prnet.sample import Pose, Prediction
from tests.evaluations import (
    Items,
    Scripted,
    box_size,
    face_pixels,
    run,
    score_network,
    shipped,
    true_maps,
    true_vertices,
)
from tests.tiny import (
    FILE_EXP,
    FILE_SHAPE,
    HEIGHT,
    WIDTH,
    TinyFit,
    tiny_face,
    write_tiny_bfm,
    write_tiny_sample,
)

# Pitch, yaw, roll in degrees.
POSES_DEG = {"image00002": (4.0, -9.0, 7.0), "image00004": (-12.0, 41.0, 2.0)}
NAMES = sorted(POSES_DEG)
RECONSTRUCTIONS = (
    "procrustes_corr",
    "icp_rigid",
    "icp_similarity",
    "icp_correspondence",
    "rec_sadrnet",
)
# Percent of the outer eyes. ICP may stop where points lie on neighbours of the right ones, which
# are some 1 % apart in these pictures.
ICP_TOLERANCE = 0.5
SCALE, TURN_DEG, SHIFT = 1.05, 3.0, np.array([6.0, -4.0, 0.0])


@pytest.fixture(scope="module")
def mean_faces(tmp_path_factory) -> Path:
    """A data folder whose faces are all the mean face, in different poses."""
    folder = tmp_path_factory.mktemp("mean_faces")
    write_tiny_bfm(folder / "BFM")
    for name, angles in POSES_DEG.items():
        pose = np.array([*np.radians(angles), WIDTH / 2, HEIGHT / 2, -60, 0.65 * HEIGHT / 2.1e5])
        fit = TinyFit(np.zeros(FILE_SHAPE), np.zeros(FILE_EXP), pose)
        write_tiny_sample(
            folder / "AFLW2000", name, tiny_face(), fit, height=HEIGHT, width=WIDTH, kind="aflw2000"
        )
    return folder


def save(folder: Path, data_dir: Path, change) -> Path:
    """All 98 vertices of every image, changed, as 3DDFA has them."""
    folder.mkdir()
    for name in NAMES:
        vertices = change(true_vertices(data_dir, name, "matlab"))
        scipy.io.savemat(folder / f"{name}.mat", {"vertex": vertices.T})
    return folder


def moved(vertices: np.ndarray) -> np.ndarray:
    """A similarity of the picture about the middle of the face."""
    cos, sin = np.cos(np.radians(TURN_DEG)), np.sin(np.radians(TURN_DEG))
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    middle = vertices.mean(0)
    return SCALE * (vertices - middle) @ turn.T + middle + SHIFT


def errors_of(report: dict, metric: str) -> dict[str, float]:
    return {row["name"]: row[metric] for row in report["images"]}


def only(metric: str) -> list[str]:
    return ["protocol.metrics=[nme_rec]", f"protocol.reconstruction.metric={metric}"]


@pytest.mark.parametrize("metric", RECONSTRUCTIONS)
def test_the_truth_is_reconstructed(mean_faces, tmp_path, metric):
    folder = save(tmp_path / "p", mean_faces, lambda vertices: vertices)
    report = run(mean_faces, tmp_path, f"predictions={folder}", *only(metric))
    assert max(errors_of(report, "nme_rec").values()) < 1e-4
    assert report["metrics"]["nme_rec"]["unit"] == "%"


@pytest.mark.parametrize("metric", ["procrustes_corr", "icp_similarity", "rec_sadrnet"])
def test_a_similarity_is_forgiven(mean_faces, tmp_path, metric):
    folder = save(tmp_path / "p", mean_faces, moved)
    report = run(mean_faces, tmp_path, f"predictions={folder}", *only(metric))
    exact = metric != "icp_similarity"
    assert max(errors_of(report, "nme_rec").values()) < (1e-3 if exact else ICP_TOLERANCE)


def test_a_similarity_costs_what_it_moves(mean_faces, tmp_path):
    """NME and the turn of the head by direct computation; rigid ICP pays for the size alone."""
    face = load_bfm(mean_faces / "BFM")
    folder = save(tmp_path / "p", mean_faces, moved)
    metrics = "protocol.metrics=[nme_68_2d,nme_dense_3d,pose_geodesic,nme_rec]"
    report = run(
        mean_faces,
        tmp_path,
        f"predictions={folder}",
        metrics,
        "protocol.reconstruction.metric=icp_rigid",
    )
    for row in report["images"]:
        vertices = true_vertices(mean_faces, row["name"], "matlab")
        offset = np.linalg.norm((moved(vertices) - vertices)[:68, :2], axis=1)
        expected = 100 * offset.mean() / box_size(vertices[:68])
        assert row["nme_68_2d"] == pytest.approx(expected, rel=1e-4)
        truth, prediction = face_pixels(face, vertices), face_pixels(face, moved(vertices))
        offset = prediction - truth
        offset[:, 2] -= offset[:, 2].mean()
        expected = 100 * np.linalg.norm(offset, axis=1).mean() / box_size(truth)
        assert row["nme_dense_3d"] == pytest.approx(expected, rel=1e-4)
        assert row["pose_geodesic"] == pytest.approx(TURN_DEG, abs=1e-3)
        # Against the best shift of the untouched face: nearest neighbours are nearer than pairs.
        centred = truth - truth.mean(0)
        paired = (SCALE - 1) * np.linalg.norm(centred, axis=1).mean()
        eyes = np.linalg.norm(vertices[36] - vertices[45])
        assert 0.1 * 100 * paired / eyes < row["nme_rec"] <= 1.001 * 100 * paired / eyes


def test_a_shift_is_paid_where_nothing_is_aligned(mean_faces, tmp_path):
    """icp_correspondence finds the pairs and measures them where they were; depth is free."""
    folder = save(tmp_path / "p", mean_faces, lambda vertices: vertices + [3.0, 4.0, 50.0])
    report = run(mean_faces, tmp_path, f"predictions={folder}", *only("icp_correspondence"))
    for name, error in errors_of(report, "nme_rec").items():
        vertices = true_vertices(mean_faces, name, "matlab")
        eyes = np.linalg.norm(vertices[36] - vertices[45])
        assert error == pytest.approx(100 * 5 / eyes, rel=1e-3)
    report = run(mean_faces, tmp_path, f"predictions={folder}", *only("icp_rigid"))
    assert max(errors_of(report, "nme_rec").values()) < ICP_TOLERANCE


def test_a_mirrored_face_is_no_match_but_for_sadrnet(mean_faces, tmp_path):
    def mirrored(vertices):
        return vertices * [-1, 1, 1] + [WIDTH, 0, 0]

    folder = save(tmp_path / "p", mean_faces, mirrored)
    errors = {
        metric: run(mean_faces, tmp_path, f"predictions={folder}", *only(metric))
        for metric in ("procrustes_corr", "rec_sadrnet")
    }
    assert max(errors_of(errors["rec_sadrnet"], "nme_rec").values()) < ICP_TOLERANCE
    assert min(errors_of(errors["procrustes_corr"], "nme_rec").values()) > 5


def test_permuted_vertices_are_no_face(mean_faces, tmp_path):
    """In another order they have every right number and no right place."""
    order = np.random.default_rng(0).permutation(98)
    folder = save(tmp_path / "p", mean_faces, lambda vertices: vertices[order])
    report = run(mean_faces, tmp_path, f"predictions={folder}")
    assert min(summary["mean"] for summary in report["metrics"].values()) > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: np.where(np.arange(98)[:, None] == 5, np.nan, v), "not finite"),
        (lambda v: v[:50], "50 vertices and no landmarks"),
        (lambda v: v[:, :2], "vertex has shape"),
    ],
)
def test_broken_predictions_are_refused_by_name(mean_faces, tmp_path, change, message):
    folder = save(tmp_path / "p", mean_faces, change)
    with pytest.raises(ValueError, match=f"{NAMES[0]}.mat.*{message}"):
        run(mean_faces, tmp_path, f"predictions={folder}")


def test_a_missing_prediction_is_listed(mean_faces, tmp_path):
    folder = save(tmp_path / "p", mean_faces, moved)
    (folder / f"{NAMES[0]}.mat").unlink()
    report = run(mean_faces, tmp_path, f"predictions={folder}", "protocol=pose")
    assert report["missing"] == NAMES[:1]
    assert list(errors_of(report, "pose_mae")) == NAMES[1:]


def test_a_face_that_is_a_point_is_listed(mean_faces, tmp_path):
    """No alignment is determined: metrics that need one say so, the others have their number."""
    folder = save(tmp_path / "p", mean_faces, lambda vertices: 0 * vertices + 80.0)
    metrics = "protocol.metrics=[nme_68_2d,nme_rec,pose_mae]"
    metric = "protocol.reconstruction.metric=procrustes_corr"
    report = run(mean_faces, tmp_path, f"predictions={folder}", metrics, metric)
    assert set(report["not_computed"]) == {"nme_rec", "pose_mae"}
    assert "coincide" in report["not_computed"]["nme_rec"]
    assert "coincide" in report["not_computed"]["pose_mae"]
    assert report["metrics"]["nme_68_2d"]["mean"] > 10


def test_any_cloud_has_an_icp(mean_faces, tmp_path):
    """A mesh of another topology has no dense points, yet a surface."""
    folder = tmp_path / "p"
    folder.mkdir()
    random = np.random.default_rng(0)
    face = load_bfm(mean_faces / "BFM")
    for name in NAMES:
        vertices = true_vertices(mean_faces, name, "matlab")
        cloud = random.permutation(face_pixels(face, vertices))[:-7]
        np.savez(
            folder / f"{name}.npz", landmarks=vertices[:68], vertices=cloud, pixel_origin="matlab"
        )
    report = run(mean_faces, tmp_path, f"predictions={folder}", *only("icp_similarity"))
    assert max(errors_of(report, "nme_rec").values()) < ICP_TOLERANCE
    report = run(mean_faces, tmp_path, f"predictions={folder}", *only("procrustes_corr"))
    assert "points are neither the 98 vertices" in report["not_computed"]["nme_rec"]


def test_head_pose_of_the_mean_face_is_exact(mean_faces, tmp_path):
    folder = save(tmp_path / "p", mean_faces, lambda vertices: vertices)
    for points in ("dense", "landmarks"):
        report = run(
            mean_faces,
            tmp_path,
            f"predictions={folder}",
            "protocol=pose",
            f"protocol.pose.points={points}",
        )
        assert list(report["metrics"]) == list(shipped("pose").metrics)
        assert max(m["mean"] for m in report["metrics"].values()) < 1e-3
    angles = {row["name"]: row["yaw_deg"] for row in report["images"]}
    assert angles == pytest.approx({name: pose[1] for name, pose in POSES_DEG.items()})


def test_landmarks_alone_have_a_pose_by_landmarks(mean_faces, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    for name in NAMES:
        points = true_vertices(mean_faces, name, "matlab")[:68]
        np.savez(folder / f"{name}.npz", landmarks=points, pixel_origin="matlab")
    arguments = [f"predictions={folder}", "protocol=pose"]
    report = run(mean_faces, tmp_path, *arguments)
    assert "protocol.pose.points=landmarks takes" in report["not_computed"]["pose_mae"]
    report = run(mean_faces, tmp_path, *arguments, "protocol.pose.points=landmarks")
    assert report["metrics"]["pose_geodesic"]["mean"] < 1e-3


def items_of(data_dir: Path, face) -> list[EvaluationItem]:
    return list(AFLW2000(find_aflw2000(data_dir), face, crop=CropRule()))


class Posed(Scripted):
    """Also says a pose, whatever its map shows."""

    def __init__(self, position_maps: list[torch.Tensor], rotation: torch.Tensor) -> None:
        super().__init__(position_maps)
        self.rotation = rotation

    def forward(self, image: torch.Tensor) -> Prediction:
        count = len(image)
        pose = Pose(torch.ones(count), self.rotation[:count], torch.zeros(count, 3))
        return super().forward(image)._replace(pose=pose)


def test_pose_of_a_network(mean_faces):
    """From its map by the mean face; its own where it says one."""
    face = load_bfm(mean_faces / "BFM")
    items = items_of(mean_faces, face)
    maps = true_maps([collate_evaluation(items)], face)
    report = score_network(Scripted(maps), Items(items, face), face, shipped("pose"))
    assert max(m["mean"] for m in report["metrics"].values()) < 0.01
    said = camera.rotation_from_angles(torch.zeros(2, 3))
    report = score_network(Posed(maps, said), Items(items, face), face, shipped("pose"))
    for row in report["images"]:
        pitch, yaw, roll = POSES_DEG[row["name"]]
        expected = {"pose_mae_yaw": abs(yaw), "pose_mae_pitch": abs(pitch), "pose_mae_roll": roll}
        assert {m: row[m] for m in expected} == pytest.approx(expected, abs=1e-4)


def test_implausible_truths_are_left_out_of_the_pose_alone(mean_faces, tmp_path):
    """A truth beyond 99 degrees: named, its row kept, the landmarks scored."""
    face = load_bfm(mean_faces / "BFM")
    first, second = items_of(mean_faces, face)
    turned = Items([first._replace(angles=first.angles + torch.tensor([0, 0, 4.0])), second], face)
    maps = true_maps([collate_evaluation(list(turned))], face)
    protocol = shipped("sadrnet", "protocol.metrics=[nme_68_2d,pose_mae_roll]")
    everybody = score_network(Scripted(maps), turned, face, protocol)
    assert everybody["left_out"] == {}
    assert everybody["metrics"]["pose_mae_roll"]["mean"] > 50
    protocol = shipped(
        "sadrnet", "protocol.metrics=[nme_68_2d,pose_mae_roll]", "protocol.pose.images=plausible"
    )
    report = score_network(Scripted(maps), turned, face, protocol)
    assert report["left_out"] == {"pose_mae_roll": [first.name]}
    assert report["metrics"]["pose_mae_roll"]["mean"] < 0.01
    assert report["metrics"]["nme_68_2d"] == everybody["metrics"]["nme_68_2d"]
    assert report["images"] == everybody["images"]


def test_points_of_a_data_set_of_its_own(mean_faces):
    """Means of groups of the 68, visible ones only, over the box that comes with the data."""
    face = load_bfm(mean_faces / "BFM")
    groups = ((17,), (36, 37, 38, 39, 40, 41), (60, 61, 62, 63, 64, 65, 66, 67), (8,))
    items = items_of(mean_faces, face)
    truth = []
    for item in items:
        vertices = true_vertices(mean_faces, item.name, "zero_based")
        truth.append([vertices[list(group), :2].mean(0) for group in groups])
    points = torch.from_numpy(np.array(truth))
    visible = torch.tensor([[True, True, False, True], [False, True, True, True]])
    points[~visible] = -1.0
    box = torch.tensor([10.0, 20.0, 35.0, 120.0]).double()

    def with_points(moved: torch.Tensor) -> Items:
        labelled = [
            item._replace(points=own, points_visible=seen, box=box)
            for item, own, seen in zip(items, moved, visible, strict=True)
        ]
        return Items(labelled, face, point_groups=groups)

    protocol = shipped("aflw_lfpa")
    maps = true_maps([collate_evaluation(items)], face)
    rounding = score_network(Scripted(maps), with_points(points), face, protocol)
    assert 0 < rounding["metrics"]["nme_points_2d"]["mean"] < 1  # landmarks are cells of a map
    shifted = with_points(points + torch.tensor([0.3, 0.4]))
    off = score_network(Scripted(maps), shifted, face, protocol)
    # 0.5 px over sqrt(25 * 100) px, give or take the rounding.
    mean = off["metrics"]["nme_points_2d"]["mean"]
    assert mean == pytest.approx(100 * 0.5 / 50, abs=rounding["metrics"]["nme_points_2d"]["mean"])
    unlabelled = Items(items, face, point_groups=groups)
    none = score_network(Scripted(maps), unlabelled, face, protocol)
    assert "no points of its own" in none["not_computed"]["nme_points_2d"]


def test_a_scan_is_a_surface_with_a_unit_of_its_own(mean_faces):
    """Scans differ in size and correspond to nothing."""
    face = load_bfm(mean_faces / "BFM")
    items, units = items_of(mean_faces, face), (40.0, 80.0)
    for index, unit in enumerate(units):
        pixels = face_pixels(face, true_vertices(mean_faces, items[index].name, "zero_based"))
        scan = torch.from_numpy(pixels[index::3] + [0, 0, 500.0])
        items[index] = items[index]._replace(scan=scan, outer_eye=unit)
    scans, batch = Items(items, face), collate_evaluation(items)
    maps = true_maps([batch], face)
    for metric in ("icp_rigid", "icp_correspondence"):
        protocol = shipped("default", *only(metric))
        report = score_network(Scripted(maps), scans, face, protocol)
        assert max(errors_of(report, "nme_rec").values()) < 0.1
    protocol = shipped("default", *only("icp_correspondence"))
    away = [position_map + torch.tensor([2.0, 0, 0])[:, None, None] for position_map in maps]
    report = score_network(Scripted(away), scans, face, protocol)
    for row, unit, ratio in zip(
        report["images"], units, batch.image_from_crop[:, 0, 0].tolist(), strict=True
    ):
        assert row["nme_rec"] == pytest.approx(100 * 2 * ratio / unit, rel=0.02)


def test_processes_say_what_this_one_does():
    """In another process, and with more faces than may wait there; a reason comes back too."""
    random = np.random.default_rng(0)
    truth = random.normal(0, 50, (40, 3))
    landmarks = random.normal(0, 50, (68, 3))
    rule = shipped("default", "protocol.reconstruction.metric=icp_similarity").reconstruction
    images = [ScoredImage(f"i{k}", 0.0, {}, {}) for k in range(7)]
    predictions = [truth + random.normal(0, k, truth.shape) for k in range(6)] + [0 * truth]
    with Reconstructions(rule, workers=1) as jobs:
        for image, prediction in zip(images, predictions, strict=True):
            jobs.add(image, prediction, truth, landmarks, None)
        jobs.finish(progress=False)
    unit = reconstruction_unit("outer_interocular_3d", truth, landmarks)
    for image, prediction in zip(images[:-1], predictions[:-1], strict=True):
        expected = reconstruction_error("icp_similarity", prediction, truth, unit=unit)
        assert image.errors == {METRIC: expected}
        assert image.lacking == {}
    assert images[-1].errors == {}
    assert "coincide" in images[-1].lacking[METRIC]


def test_few_faces_start_no_process():
    assert [workers_for(count, 16) for count in (1, 31, 32, 100, 2000)] == [0, 0, 2, 6, 16]
    assert workers_for(2000, 1) == 0


def test_yaw_labels_in_the_order_of_the_file_names(mean_faces, tmp_path):
    """3DDFA's .npy: one number for every image of the data set, excluded or not."""
    folder = save(tmp_path / "p", mean_faces, lambda vertices: vertices)
    table = tmp_path / "AFLW2000-3D-new.pose.npy"
    np.save(table, np.array([61.0, -12.5], np.float32))
    arguments = [f"predictions={folder}", "protocol.yaw_source=labels"]
    arguments.append(f"protocol.yaw_labels={table}")
    report = run(mean_faces, tmp_path, *arguments)
    yaws_deg = {row["name"]: row["yaw_deg"] for row in report["images"]}
    assert yaws_deg == {NAMES[0]: 61.0, NAMES[1]: -12.5}
    report = run(mean_faces, tmp_path, *arguments, f"protocol.exclude=[{NAMES[0]}]")
    assert report["images"][0]["yaw_deg"] == -12.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), r"holds float64 \(3,\), expected degrees \(2,\).*the whole data set"),
        (np.array([1.0, np.nan]), "holds values that are not finite"),
        (np.array(["a", "b"]), "holds <U1"),
        (np.array([{}, 1], dtype=object), "not a readable .npy"),
    ],
)
def test_wrong_npy_labels_are_refused(tmp_path, values, message):
    np.save(tmp_path / "yaw.npy", values, allow_pickle=True)
    with pytest.raises(ValueError, match=f"yaw.npy: {message}"):
        read_yaw_labels(tmp_path / "yaw.npy", NAMES)


def test_experiment_of_a_report(mean_faces, tmp_path):
    folder = save(tmp_path / "p", mean_faces, lambda vertices: vertices)
    report = run(mean_faces, tmp_path, f"predictions={folder}", "experiment_name=prn")
    assert report["experiment"] == "prn"
    assert "experiment" not in run(mean_faces, tmp_path, f"predictions={folder}")
