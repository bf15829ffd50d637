"""The evaluation as a whole, on a test set whose truth the tests compute by themselves."""

import csv
import hashlib
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import scipy.io
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

import prnet
from prnet.building.archives import BuildOptions, build_archive
from prnet.checkpoint import save_checkpoint
from prnet.datasets.aflw2000 import AFLW2000, read_boxes, read_yaw_labels
from prnet.datasets.built import BuiltSet
from prnet.datasets.evaluation import HeldOut, collate_evaluation
from prnet.datasets.fits import FitOfAnotherFace, find_aflw2000
from prnet.datasets.pictures import CropRule, write_picture
from prnet.datasets.predictions import write_prediction
from prnet.datasets.warp import warp_to_crop
from prnet.entry import CONFIG_DIR, in_one_line
from prnet.eval import main, newest_checkpoint
from prnet.faces.loading import FaceFiles, load_face
from prnet.geometry import camera
from prnet.geometry.pose_parameters import NUM_POSE
from prnet.models.face_decoder import FaceDecoder
from prnet.models.mobilenet_v1 import MobileNetV1
from prnet.models.prn import PRN
from prnet.workers import loader_of
from tests.commands import run_commands
from tests.evaluations import (
    NAMES,
    POINT_METRICS,
    SHORT_ICP,
    SMALL,
    Coefficients,
    Items,
    Scripted,
    box_size,
    cells,
    face_pixels,
    means,
    nme_means,
    run,
    score_network,
    shipped,
    true_maps,
    true_parameters,
    true_vertices,
)
from tests.tiny import AFLW2000_YAWS_DEG, HEIGHT, NUM_EXP, NUM_SHAPE, WIDTH


def write_labels(path: Path, yaws_deg: dict[str, float]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["name", "yaw_deg"], *yaws_deg.items()])
    return path


@pytest.fixture
def labels(tmp_path) -> str:
    return f"protocol.yaw_labels={write_labels(tmp_path / 'yaw.csv', AFLW2000_YAWS_DEG)}"


def save_exact(kind: str, folder: Path, data_dir: Path, face, landmarks_in: str, rest_in: str):
    """The truth in one of the formats, landmarks and vertices in the given origins."""
    folder.mkdir()
    for name in NAMES:
        vertices = true_vertices(data_dir, name, rest_in)
        landmarks = true_vertices(data_dir, name, landmarks_in)[:68]
        if kind == "3ddfa":
            scipy.io.savemat(folder / f"{name}.mat", {"vertex": vertices.T})
        elif kind == "prnet":
            np.savetxt(folder / f"{name}_kpt.txt", landmarks)
            pixels = face_pixels(face, vertices)
            scipy.io.savemat(folder / f"{name}_mesh.mat", {"vertices": pixels})
        elif kind == "mesh, y up":
            up = vertices * [1, -1, 1] + [0, HEIGHT - 1, 0]
            (folder / f"{name}.OBJ").write_text("".join(f"v {x} {y} {z}\n" for x, y, z in up))
        elif kind == "mesh, y down":
            header = f"ply\nformat binary_big_endian 1.0\nelement vertex {len(vertices)}\n"
            header += "property float x\nproperty float y\nproperty double z\n"
            header += "element face 0\nproperty list uchar int vertex_index\nend_header\n"
            rows = np.zeros(len(vertices), [("x", ">f4"), ("y", ">f4"), ("z", ">f8")])
            rows["x"], rows["y"], rows["z"] = vertices.T
            (folder / f"{name}.ply").write_bytes(header.encode() + rows.tobytes())
        elif kind == "npz mesh":
            np.savez(folder / f"{name}.npz", vertices=vertices, pixel_origin=rest_in)
        else:
            pixels = face_pixels(face, vertices)
            np.savez(folder / f"{name}.npz", vertices=pixels, pixel_origin=rest_in)
    return folder


@pytest.mark.parametrize(
    ("protocol", "kind", "landmarks_in", "rest_in", "metrics"),
    [
        ("default", "3ddfa", "matlab", "matlab", 4),
        ("default", "prnet", "face3d", "face3d", 4),
        ("default", "npz mesh", "zero_based", "zero_based", 4),
        ("default", "mesh, y up", "zero_based", "zero_based", 4),
        ("default", "mesh, y down", "zero_based", "zero_based", 4),
        ("default", "npz mesh", "sadrnet", "sadrnet", 4),
        ("2dasl", "3ddfa", "matlab", "matlab", 4),  # every 50th of 98 vertices are too few for more
        ("2dasl", "npz mesh", "matlab", "matlab", 4),
        ("3ddfa", "3ddfa", "matlab", "matlab", 2),
        ("prn", "prnet", "matlab", "face3d", 5),
        ("sadrnet", "npz map", "sadrnet", "sadrnet", 10),
    ],
)
def test_the_truth_scores_zero(
    tiny_data_dir, face, tmp_path, labels, protocol, kind, landmarks_in, rest_in, metrics
):
    """In every protocol, from every format that can hold its truth."""
    folder = save_exact(kind, tmp_path / "p", tiny_data_dir, face, landmarks_in, rest_in)
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}", f"protocol={protocol}", labels)
    assert set(report["not_computed"]) == ({"nme_rec"} if protocol == "2dasl" else set())
    assert len(report["metrics"]) == metrics
    assert max(nme_means(report).values()) < SMALL
    assert [row["name"] for row in report["images"]] == NAMES
    assert report["count"] == len(NAMES)


def test_stored_coordinates_are_scored_as_they_are(tiny_data_dir, face, tmp_path):
    """A mesh of the zero_based origin is (1, 1) px off for 2DASL, whatever its file says."""
    folder = save_exact("npz mesh", tmp_path / "p", tiny_data_dir, face, "zero_based", "zero_based")
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}", "protocol=2dasl")
    for row in report["images"]:
        truth = true_vertices(tiny_data_dir, row["name"], "matlab")
        expected = 100 * np.sqrt(2) / box_size(truth[:68])
        for metric in report["metrics"]:
            assert row[metric] == pytest.approx(expected, rel=1e-4)


def test_errors_are_those_of_a_direct_computation(tiny_data_dir, face, tmp_path, labels):
    """Noisy meshes under PRN's protocol: landmarks raw, dense rasterised, z mean, own boxes."""
    folder = tmp_path / "p"
    folder.mkdir()
    random = np.random.default_rng(5)
    expected = {}
    for name in NAMES:
        truth_matlab = true_vertices(tiny_data_dir, name, "matlab")
        vertices = truth_matlab + random.normal(0, 4, truth_matlab.shape)
        scipy.io.savemat(folder / f"{name}.mat", {"vertex": vertices.T})
        dense = face_pixels(face, vertices)
        dense_truth = face_pixels(face, true_vertices(tiny_data_dir, name, "face3d"))
        row = {}
        for metric, points, truth in (
            ("nme_68", vertices[:68], truth_matlab[:68]),
            ("nme_dense", dense, dense_truth),
        ):
            offset = points - truth
            offset[:, 2] -= offset[:, 2].mean()
            size = box_size(truth)
            row[f"{metric}_2d"] = 100 * np.linalg.norm(offset[:, :2], axis=1).mean() / size
            row[f"{metric}_3d"] = 100 * np.linalg.norm(offset, axis=1).mean() / size
        expected[name] = row
    arguments = [f"predictions={folder}", "protocol=prn", POINT_METRICS, labels]
    report = run(tiny_data_dir, tmp_path, *arguments)
    for row in report["images"]:
        found = {metric: row[metric] for metric in report["metrics"]}
        assert found == pytest.approx(expected[row["name"]], rel=1e-5)
    # The same with the smallest z as zero is another number.
    other = run(tiny_data_dir, tmp_path, *arguments, "protocol.z_alignment=min")
    assert means(other)["nme_dense_2d"] == means(report)["nme_dense_2d"]
    assert means(other)["nme_dense_3d"] > 1.05 * means(report)["nme_dense_3d"]


def test_depth_of_a_true_map_starts_at_the_smallest_z_of_its_mesh(tiny_data_dir, face, tmp_path):
    """Without z alignment, PRN's definition of a position map decides."""
    folder = tmp_path / "p"
    folder.mkdir()
    for name in NAMES:
        vertices = true_vertices(tiny_data_dir, name, "sadrnet")
        pixels = face_pixels(face, vertices) - [0, 0, vertices[:, 2].min()]
        np.savez(folder / f"{name}.npz", vertices=pixels, pixel_origin="sadrnet")
    report = run(
        tiny_data_dir,
        tmp_path,
        f"predictions={folder}",
        "protocol=sadrnet",
        "protocol.z_alignment=none",
    )
    assert max(nme_means(report).values()) < SMALL


def test_missing_unknown_and_excluded(tiny_data_dir, face, tmp_path):
    folder = save_exact("3ddfa", tmp_path / "p", tiny_data_dir, face, "matlab", "matlab")
    (folder / f"{NAMES[1]}.mat").unlink()
    for unknown in ("zebra", "ape"):
        shutil.copyfile(folder / f"{NAMES[0]}.mat", folder / f"{unknown}.mat")
    report = run(
        tiny_data_dir,
        tmp_path,
        f"predictions={folder}",
        f"protocol.exclude=[{NAMES[2]},{NAMES[0]},image99999]",
    )
    assert report["missing"] == [NAMES[1]]
    assert report["unknown"] == ["ape", "zebra"]
    assert [row["name"] for row in report["images"]] == NAMES[3:]
    assert report["protocol"]["exclude"] == [NAMES[2], NAMES[0], "image99999"]
    counts = {label: entry["n"] for label, entry in report["metrics"]["nme_68_2d"]["bins"].items()}
    assert counts == {"0-30": 1, "30-60": 1, "60-90": 1}


def test_predictions_of_no_image_are_refused(tiny_data_dir, tmp_path):
    np.savez(tmp_path / "cat.npz", landmarks=np.zeros((68, 3)))
    with pytest.raises(ValueError, match=r"none of its 1 predictions \(1: cat\).*6 images"):
        run(tiny_data_dir, tmp_path, f"predictions={tmp_path}")


def save_landmarks(folder: Path, data_dir: Path, *, dimensions: int = 3) -> Path:
    folder.mkdir()
    for name in NAMES:
        points = true_vertices(data_dir, name, "matlab")[:68, :dimensions]
        np.savez(folder / f"{name}.npz", landmarks=points, pixel_origin="matlab")
    return folder


def test_landmarks_alone(tiny_data_dir, tmp_path):
    folder = save_landmarks(tmp_path / "p", tiny_data_dir)
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}")
    assert set(report["metrics"]) == {"nme_68_2d", "nme_68_3d"}
    assert report["not_computed"] == {
        "nme_dense_2d": "no vertices, landmarks alone",
        "nme_dense_3d": "no vertices, landmarks alone",
    }
    assert set(report["images"][0]) == {"name", "yaw_deg", "nme_68_2d", "nme_68_3d"}


def test_flat_landmarks_have_no_3d_error(tiny_data_dir, tmp_path):
    folder = save_landmarks(tmp_path / "p", tiny_data_dir, dimensions=2)
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}", "protocol=2dasl")
    assert means(report)["nme_68_2d"] < SMALL
    assert set(report["metrics"]) == {"nme_68_2d"}
    assert report["not_computed"]["nme_68_3d"] == "the landmarks have no z"


def test_a_prediction_that_lacks_vertices_is_named(tiny_data_dir, face, tmp_path):
    folder = save_exact("prnet", tmp_path / "p", tiny_data_dir, face, "matlab", "matlab")
    (folder / f"{NAMES[4]}_mesh.mat").unlink()
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}")
    assert set(report["metrics"]) == {"nme_68_2d", "nme_68_3d"}
    assert report["not_computed"]["nme_dense_2d"].endswith(f"(1: {NAMES[4]} of 6)")


@pytest.mark.parametrize(
    ("protocol", "points", "reason"),
    [
        ("2dasl", "pixels", "face pixels of a position map are not the 98 vertices"),
        ("2dasl", 97, "97 points are neither the 98 vertices nor the"),
        ("default", 97, "97 points are neither the 98 vertices nor the"),
        ("default", 43867, "DATA_DIR/PRNet_uv, its pixels are those"),
    ],
)
def test_meshes_of_another_topology(tiny_data_dir, face, tmp_path, protocol, points, reason):
    """Their landmarks are scored, their dense points are not, and the report says why."""
    folder = tmp_path / "p"
    folder.mkdir()
    for name in NAMES:
        vertices = true_vertices(tiny_data_dir, name, "matlab")
        landmarks = vertices[:68]
        if points == "pixels":
            vertices = face_pixels(face, vertices)
        else:
            vertices = np.resize(vertices, (points, 3))
        np.savez(folder / f"{name}.npz", landmarks=landmarks, vertices=vertices)
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}", f"protocol={protocol}")
    assert set(report["metrics"]) == {"nme_68_2d", "nme_68_3d"}
    assert all(reason in text for text in report["not_computed"].values())


def test_dense_none_scores_no_dense_points(tiny_data_dir, face, tmp_path):
    folder = save_exact("3ddfa", tmp_path / "p", tiny_data_dir, face, "matlab", "matlab")
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}", "protocol.dense=none")
    assert set(report["metrics"]) == {"nme_68_2d", "nme_68_3d"}
    assert report["not_computed"]["nme_dense_3d"] == "protocol.dense is none"


@pytest.fixture
def without_bfm(tiny_data_dir, tmp_path) -> Path:
    """A data folder with the .mat files of AFLW2000 and nothing else."""
    folder = tmp_path / "data"
    (folder / "AFLW2000").mkdir(parents=True)
    for path in (tiny_data_dir / "AFLW2000").glob("*.mat"):
        shutil.copy(path, folder / "AFLW2000")
    return folder


def test_landmarks_need_neither_bfm_nor_pictures(without_bfm, tiny_data_dir, tmp_path):
    folder = save_landmarks(tmp_path / "p", tiny_data_dir)
    report = run(without_bfm, tmp_path, f"predictions={folder}", "protocol=2dasl")
    assert means(report) == pytest.approx({"nme_68_2d": 0, "nme_68_3d": 0}, abs=1e-9)
    assert "BFM.mat: missing" in report["not_computed"]["nme_dense_2d"]
    assert "face" not in report


@patch("prnet.eval.run_folder", Path)
@patch("prnet.eval.run_evaluation")
def test_a_command_that_computes_nothing_fails(run_evaluation):
    run_evaluation.return_value = {"metrics": {"nme_68_2d": {}}}
    main(OmegaConf.create())
    run_evaluation.return_value = {"metrics": {}}
    with pytest.raises(ValueError, match="no metric"):
        main(OmegaConf.create())


def test_what_needs_the_bfm_says_so(without_bfm, tiny_data_dir, face, tmp_path):
    mesh = save_exact("3ddfa", tmp_path / "p", tiny_data_dir, face, "matlab", "matlab")
    with pytest.raises(ValueError, match=r"98 vertices and no landmarks"):
        run(without_bfm, tmp_path, f"predictions={mesh}")
    flat = save_landmarks(tmp_path / "l", tiny_data_dir)
    report = run(without_bfm, tmp_path, f"predictions={flat}", "protocol=sadrnet")
    assert report["metrics"] == {}
    assert all("BFM.mat: missing" in reason for reason in report["not_computed"].values())


def test_yaw_of_the_labels(tiny_data_dir, tmp_path):
    """Signed in the rows, absolute in the bins, and not that of the fits."""
    folder = save_landmarks(tmp_path / "p", tiny_data_dir)
    yaws_deg = dict(zip(NAMES, [-30.0, 30.5, -60.0, 61.0, 0.0, -100.0], strict=True))
    table = write_labels(tmp_path / "yaw.csv", yaws_deg)
    arguments = [f"predictions={folder}", "protocol=prn"]
    report = run(tiny_data_dir, tmp_path, *arguments, f"protocol.yaw_labels={table}")
    assert {row["name"]: row["yaw_deg"] for row in report["images"]} == yaws_deg
    bins = report["metrics"]["nme_68_2d"]["bins"]
    assert {label: entry["n"] for label, entry in bins.items()} == {
        "0-30": 2,
        "30-60": 2,
        "60-90": 2,
    }
    with pytest.raises(FileNotFoundError, match="yaw_new.csv: missing; choose protocol.yaw_source"):
        run(tiny_data_dir, tmp_path, *arguments)
    del yaws_deg[NAMES[3]]
    write_labels(table, yaws_deg)
    with pytest.raises(ValueError, match=f"no line for 1: {NAMES[3]} of 6 images"):
        run(tiny_data_dir, tmp_path, *arguments, f"protocol.yaw_labels={table}")


def test_yaw_of_the_fits_is_signed(tiny_data_dir, tmp_path):
    folder = save_landmarks(tmp_path / "p", tiny_data_dir)
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}")
    yaws_deg = {row["name"]: row["yaw_deg"] for row in report["images"]}
    assert yaws_deg == pytest.approx(AFLW2000_YAWS_DEG)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line is '', expected 'name,yaw_deg'"),
        ("name,yaw\na,1\n", "the first line is 'name,yaw'"),
        ("name,yaw_deg\na,left\n", "line 2 is 'a,left', expected a name and 1 finite"),
        ("name,yaw_deg\na,nan\n", "line 2"),
        ("name,yaw_deg\na,1,2\n", "line 2"),
        ("name,yaw_deg\na,1\na,1\n", "a appears twice"),
        ("name,yaw_deg\na,1e308\n", r"a yaw of 1e\+308, expected degrees from -180 to 180"),
        (
            "name,yaw_deg\n" + "".join(f"a{k},{k / 10 - 1}\n" for k in range(12)),
            "the largest of 12 yaws is 1, as of radians; expected degrees",
        ),
    ],
)
def test_wrong_label_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "yaw.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"yaw.csv: {message}"):
        read_yaw_labels(path)


def test_blank_lines_of_a_table_do_not_count(tmp_path):
    path = tmp_path / "yaw.csv"
    path.write_text("name,yaw_deg\na,-1.5\n\n")
    assert read_yaw_labels(path) == {"a": -1.5}


def aflw2000(data_dir, face, crop: CropRule, *, boxes=None) -> AFLW2000:
    return AFLW2000(find_aflw2000(data_dir), face, crop=crop, boxes=boxes)


def batches_of(test_set: AFLW2000) -> list:
    return list(loader_of(test_set, collate_evaluation, batch_size=4))


def perfect_report(data_dir, face, protocol, crop) -> dict:
    test_set = aflw2000(data_dir, face, crop)
    model = Scripted(true_maps(batches_of(test_set), face))
    labelled = Items(test_set, face, yaws_deg=AFLW2000_YAWS_DEG)
    return score_network(model, labelled, face, protocol)


@pytest.mark.parametrize(
    "crop",
    [
        CropRule(),
        CropRule(scale=1.6, span=256.0),
        CropRule(jitter=0.1),
    ],
)
def test_perfect_network_errs_by_the_rounding_of_its_landmarks_alone(tiny_data_dir, face, crop):
    """Under every protocol, whatever the crop: no pixel origin is held against a network."""
    cell_errors = {}
    for name in NAMES:
        vertices = true_vertices(tiny_data_dir, name, "matlab")
        offset = np.linalg.norm((cells(face, vertices) - vertices[:68])[:, :2], axis=1)
        cell_errors[name] = 100 * offset.mean() / box_size(vertices[:68])
    assert max(cell_errors.values()) > 0.05
    for name in ("default", "2dasl", "prn"):
        report = perfect_report(tiny_data_dir, face, shipped(name), crop)
        found = {row["name"]: row["nme_68_2d"] for row in report["images"]}
        assert found == pytest.approx(cell_errors, rel=2e-3, abs=2e-4)
        if name != "2dasl":
            assert report["metrics"]["nme_dense_3d"]["mean"] < SMALL
    report = perfect_report(tiny_data_dir, face, shipped("sadrnet"), crop)
    assert max(nme_means(report).values()) < SMALL


def test_network_that_learned_legacy_labels_is_scored_in_their_origin(tiny_data_dir, face):
    """One that learned face3d's labels says (1, -1) px more than the picture shows, rightly."""
    test_set = aflw2000(tiny_data_dir, face, CropRule())
    batches = batches_of(test_set)
    per_px = torch.cat([camera.invert_affine(batch.image_from_crop)[:, 0, 0] for batch in batches])
    moved = [
        position_map + ratio.float() * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
        for position_map, ratio in zip(true_maps(batches, face), per_px, strict=True)
    ]

    def dense_error(**options) -> float:
        report = score_network(Scripted(moved), test_set, face, shipped("default"), **options)
        return report["metrics"]["nme_dense_2d"]["mean"]

    assert dense_error(pixel_origin="face3d") < SMALL
    assert dense_error() > 0.5


def test_network_has_no_vertices_outside_the_face(tiny_data_dir, face):
    report = perfect_report(tiny_data_dir, face, shipped("2dasl"), CropRule())
    assert set(report["metrics"]) == {"nme_68_2d", "nme_68_3d"}
    assert "neck" in report["not_computed"]["nme_dense_2d"]


@pytest.mark.parametrize("protocol", ["default", "2dasl", "3ddfa", "prn", "sadrnet"])
def test_perfect_parameters_score_zero_everywhere(tiny_data_dir, face, protocol):
    """Landmarks, dense points and reconstruction: vertices are decoded from the parameters, so
    that no rounding to the cells of a map is left; every protocol takes them."""
    test_set = aflw2000(tiny_data_dir, face, CropRule())
    parameters = true_parameters(batches_of(test_set))
    model = Coefficients(parameters, num_shape=NUM_SHAPE)
    # Of 98 vertices 2DASL's script takes two.
    metric = {"2dasl": "procrustes_corr", "sadrnet": "rec_sadrnet"}.get(protocol, "icp_similarity")
    rule = shipped(
        protocol,
        f"protocol.reconstruction.metric={metric}",
        "protocol.reconstruction.levels=[1]",
    )
    labelled = Items(test_set, face, yaws_deg=AFLW2000_YAWS_DEG)
    report = score_network(model, labelled, face, rule)
    assert report["not_computed"] == {}
    assert set(report["metrics"]) == set(rule.metrics)
    assert max(nme_means(report).values()) < SMALL


def test_parameters_that_err_err_in_every_vertex(tiny_data_dir, face):
    """The neck too: a wrong coefficient is measured on all 98 vertices as they are saved."""
    test_set = aflw2000(tiny_data_dir, face, CropRule())
    parameters = [one.clone() for one in true_parameters(batches_of(test_set))]
    for one in parameters:
        one[NUM_POSE] += 3e4
    model = Coefficients(parameters, num_shape=NUM_SHAPE)
    report = score_network(model, test_set, face, shipped("2dasl"))
    for row, item in zip(report["images"], test_set, strict=True):
        true = true_vertices(tiny_data_dir, row["name"], "matlab")
        change = 3e4 * face.morphable_model.basis[0].double()
        moved = change @ item.image_from_model[:3, :3].double().T
        expected = 100 * moved[:, :2].norm(dim=1).mean() / box_size(true[:68])
        assert row["nme_dense_2d"] == pytest.approx(float(expected), rel=1e-3)
        expected = 100 * moved[:68, :2].norm(dim=1).mean() / box_size(true[:68])
        assert row["nme_68_2d"] == pytest.approx(float(expected), rel=1e-3)


def test_only_what_is_scored_is_decoded(tiny_data_dir, face, monkeypatch):
    """68 landmarks cost 68 vertices, and no map is made."""
    test_set = aflw2000(tiny_data_dir, face, CropRule())
    parameters = true_parameters(batches_of(test_set))
    monkeypatch.setattr(FaceDecoder, "mesh", None)  # which is what maps are made of, too
    rule = shipped("2dasl", "protocol.metrics=[nme_68_2d,nme_68_3d]")
    model = Coefficients(parameters, num_shape=NUM_SHAPE)
    assert set(score_network(model, test_set, face, rule)["metrics"]) == set(rule.metrics)
    model = Coefficients(parameters, num_shape=NUM_SHAPE)
    with pytest.raises(TypeError, match="not callable"):
        score_network(model, test_set, face, shipped("2dasl"))


def test_network_error_in_px_is_measured_in_the_image(tiny_data_dir, face):
    """A map 3 crop px to the right is 3 * size / 255 px off in the image."""
    test_set = aflw2000(tiny_data_dir, face, CropRule())
    moved = [position_map + torch.tensor([3.0, 0, 0])[:, None, None]
             for position_map in true_maps(batches_of(test_set), face)]  # fmt: skip
    report = score_network(Scripted(moved), test_set, face, shipped("sadrnet"))
    for row in report["images"]:
        vertices = true_vertices(tiny_data_dir, row["name"], "zero_based")
        crop_size = 1.5 * np.ptp(vertices[:68, :2], axis=0).mean()
        offset = 3 * crop_size / 255
        expected = 100 * offset / box_size(face_pixels(face, vertices))
        assert row["nme_dense_2d"] == pytest.approx(expected, rel=1e-4)
        assert row["nme_68_3d"] == pytest.approx(
            100 * offset / box_size(cells(face, vertices)), rel=1e-4
        )


def test_one_forward_an_image_in_eval_mode_and_modes_restored(tiny_data_dir, face):
    test_set = aflw2000(tiny_data_dir, face, CropRule())
    model = Scripted(true_maps(batches_of(test_set), face))
    model.frozen = nn.BatchNorm2d(2).eval()
    model.train()
    model.frozen.eval()
    test_set = test_set.with_truth_face(None)
    score_network(model, test_set, face, shipped("default"))
    assert len(model.images) == len(NAMES)
    assert model.modes == [False, False]
    assert model.training
    assert not model.frozen.training
    with pytest.raises(ValueError, match="precision: got 'fp16', expected one of fp32, bf16"):
        score_network(model, test_set, face, shipped("default"), precision="fp16")


def test_network_sees_the_crop_that_its_output_is_mapped_back_from(tiny_data_dir, tmp_path):
    """In these pictures red is the row and green the column, exactly."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    ramp = np.stack([row, column, 0 * row], -1).astype(np.uint8)
    write_picture(tmp_path / "ramp.png", ramp)
    pairs = [pair._replace(picture=tmp_path / "ramp.png") for pair in find_aflw2000(tiny_data_dir)]
    test_set = AFLW2000(pairs, crop=CropRule(jitter=0.1))
    (batch,) = loader_of(test_set, collate_evaluation, batch_size=6)
    crop = 255 * warp_to_crop(batch.picture, batch.crop_from_picture)  # (6, 3, 256, 256)
    side = torch.arange(60.0, 200.0)
    points = torch.cartesian_prod(side, side, torch.zeros(1))
    image_points = camera.transform_points(batch.image_from_crop, points.double().expand(6, -1, 3))
    seen = crop[:, :2, points[:, 1].long(), points[:, 0].long()]  # (6, 2, 140 * 140)
    assert (seen - image_points[..., [1, 0]].transpose(1, 2)).abs().max() < 1e-3


def write_checkpoint(path: Path, *, width: int = 1, **changes) -> Path:
    torch.manual_seed(0)
    values = {"name": "prn", "width": width, "coordinate_scale": 281.6}
    state = {"model": values, "weights": PRN(width=width).state_dict()}
    save_checkpoint(path, {**state, **changes})
    return path


def write_regressor(path: Path) -> Path:
    """3DDFA's network for the tiny face, whose mean prediction is a face in the crop."""
    torch.manual_seed(0)
    sizes = {"num_shape": NUM_SHAPE, "num_exp": NUM_EXP}
    network = MobileNetV1(width=0.1, input_side=32, **sizes)
    mean = torch.zeros(NUM_POSE + NUM_SHAPE + NUM_EXP)
    mean[[0, 5, 10]], mean[[3, 7]] = 7e-4, torch.tensor([128.0, -128.0])
    network.set_statistics(mean, mean.abs() / 20 + 1e-6)
    values = {"name": "mobilenet_v1", "width": 0.1, "input_side": 32, **sizes}
    save_checkpoint(path, {"model": values, "weights": network.state_dict()})
    return path


@pytest.mark.parametrize("protocol", ["default", "prn", "2dasl", "sadrnet"])
@pytest.mark.parametrize("kind", ["map", "parameters"])
def test_saved_output_of_a_network_scores_the_same(tiny_data_dir, tmp_path, labels, protocol, kind):
    """A checkpoint through the command, then its own NAME.npz: equal numbers."""
    write = {"map": write_checkpoint, "parameters": write_regressor}[kind]
    checkpoint = write(tmp_path / "best.pt")
    saved = tmp_path / "saved"
    arguments = [f"protocol={protocol}", labels, "batch_size=4", *SHORT_ICP]
    report = run(
        tiny_data_dir,
        tmp_path,
        f"checkpoint={checkpoint}",
        f"save_predictions={saved}",
        *arguments,
    )
    again = run(tiny_data_dir, tmp_path, f"predictions={saved}", *arguments)
    for row, same in zip(report["images"], again["images"], strict=True):
        assert same.pop("name") == row.pop("name")
        if kind == "parameters":  # a pose that is predicted is not saved: the mean face's stands
            for metric in [metric for metric in row if metric.startswith("pose")]:
                assert same.pop(metric) == pytest.approx(row.pop(metric), rel=0.01)
        assert same == pytest.approx(row, rel=1e-12)  # sums of batches of four and of one
    assert set(again["not_computed"]) == set(report["not_computed"])
    assert f"checkpoint {checkpoint} (model " in report["source"]
    assert report["face"]["vertices"] == 98
    stored = np.load(saved / f"{NAMES[0]}.npz")["vertices"]
    assert len(stored) == (98 if kind == "parameters" else report["face"]["face_pixels"])
    assert ("nme_dense_2d" in report["metrics"]) == ((kind, protocol) != ("map", "2dasl"))


def test_report_carries_the_checkpoints_digest(tiny_data_dir, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pt")
    report = run(tiny_data_dir, tmp_path, f"checkpoint={checkpoint}", POINT_METRICS)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert report["made"]["checkpoint"] == {"file": str(checkpoint), "sha256": digest}
    assert digest in (tmp_path / "report.md").read_text()


def test_batch_size_moves_no_number(tiny_data_dir, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pt")
    reports = [
        run(tiny_data_dir, tmp_path, f"checkpoint={checkpoint}", f"batch_size={size}")
        for size in (1, 6)
    ]
    assert means(reports[0]) == pytest.approx(means(reports[1]), rel=1e-5)


def test_bfloat16_is_close(tiny_data_dir, tmp_path):
    arguments = [f"checkpoint={write_checkpoint(tmp_path / 'best.pt')}"]
    full = means(run(tiny_data_dir, tmp_path, *arguments))
    half = means(run(tiny_data_dir, tmp_path, *arguments, "precision=bf16"))
    assert half != full
    assert half == pytest.approx(full, rel=0.02)


def test_jitter_moves_the_numbers_and_repeats(tiny_data_dir, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pt")
    arguments = [f"checkpoint={checkpoint}", "protocol.metrics=[nme_68_2d]"]
    still, moved, again = (
        means(run(tiny_data_dir, tmp_path, *arguments, f"protocol.crop.jitter={jitter}"))
        for jitter in (0, 0.1, 0.1)
    )
    assert moved == again
    assert moved != still


def test_crop_of_a_box(tiny_data_dir, face, tmp_path):
    """The landmarks' own rectangle as a box is the same crop; a box that is lacking is named."""
    table = tmp_path / "boxes.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "left", "top", "right", "bottom"])
        for name in NAMES:
            points = true_vertices(tiny_data_dir, name, "zero_based")[:68, :2]
            writer.writerow([name, *points.min(0), *points.max(0)])
    boxed = aflw2000(tiny_data_dir, face, CropRule("box"), boxes=read_boxes(table))
    framed = aflw2000(tiny_data_dir, face, CropRule())
    for by_box, by_landmarks in zip(batches_of(boxed), batches_of(framed), strict=True):
        assert torch.allclose(by_box.image_from_crop, by_landmarks.image_from_crop, atol=1e-4)

    checkpoint = write_checkpoint(tmp_path / "best.pt")
    arguments = [f"checkpoint={checkpoint}", "protocol.crop.source=box"]
    arguments.append(f"protocol.crop.boxes={table}")
    by_landmarks = run(tiny_data_dir, tmp_path, f"checkpoint={checkpoint}")
    assert means(run(tiny_data_dir, tmp_path, *arguments)) == pytest.approx(
        means(by_landmarks), rel=1e-3
    )
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match=f"no line for 1: {NAMES[-1]} of 6"):
        run(tiny_data_dir, tmp_path, *arguments)
    table.write_text("name,left,top,right,bottom\na,5,5,5,9\n")
    with pytest.raises(ValueError, match="box of a has no area"):
        read_boxes(table)


def test_held_out_samples_are_scored_against_their_fits(tiny_data_dir, face, tmp_path):
    """The trainer's validation: a built set's own crop, landmarks and yaw from the fit."""
    build_archive(
        None,
        data_dir=tiny_data_dir,
        output=tmp_path / "built",
        face_files=FaceFiles("bfm", str(tiny_data_dir / "BFM"), None),
        options=BuildOptions("300w_lp"),
        workers=0,
    )
    built = BuiltSet(tmp_path / "built")
    held_out = HeldOut(built, np.array([1, 3, 4])).with_truth_face(face)
    batches = loader_of(held_out, collate_evaluation, batch_size=2)
    model = Scripted(true_maps(batches, face))
    report = score_network(model, held_out, face, shipped("default"))
    assert [row["name"] for row in report["images"]] == [built.names[i] for i in (1, 3, 4)]
    yaws_deg = [row["yaw_deg"] for row in report["images"]]
    assert yaws_deg == pytest.approx([35.0, -66.0, 10.0])
    assert report["metrics"]["nme_dense_3d"]["mean"] < SMALL
    assert 0 < report["metrics"]["nme_68_2d"]["mean"] < 1  # the rounding of the cells


def test_newest_checkpoint_is_taken(tiny_data_dir, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"python -m prnet.train.*checkpoint=.*predictions="
    ):
        run(tiny_data_dir, tmp_path)
    for age, name in ((30, "old"), (10, "new"), (20, "older")):
        path = tmp_path / "outputs" / "prn" / name / "best.pt"
        write_checkpoint(path)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert newest_checkpoint() == Path("outputs/prn/new/best.pt")
    assert not caplog.messages
    unfinished = tmp_path / "outputs" / "prn" / "now" / "last.pt"
    unfinished.parent.mkdir()
    unfinished.touch()
    assert newest_checkpoint() == Path("outputs/prn/new/best.pt")
    assert caplog.messages[0].startswith(
        "outputs/prn/now/last.pt is newer, of a run without a best"
    )
    report = run(tiny_data_dir, tmp_path, "protocol.metrics=[nme_68_2d]")
    assert "outputs/prn/new/best.pt" in report["source"]
    assert (tmp_path / "report.json").is_file()


def test_network_of_another_face_is_scored_by_its_landmarks(tiny_data_dir, tmp_path, caplog):
    """Trained on the embedded face, tested on fits of the BFM: no dense correspondence, and none
    is made up."""
    embedded = load_face("embedded").describe()
    checkpoint = write_checkpoint(tmp_path / "best.pt", face=embedded)
    report = run(tiny_data_dir, tmp_path, f"checkpoint={checkpoint}")
    assert set(report["metrics"]) == {"nme_68_2d", "nme_68_3d"}
    reason = report["not_computed"]["nme_dense_2d"]
    assert "embedded and the data set's bfm" in reason
    said = [line for line in caplog.messages if reason in line]
    assert said == [f"nme_dense_2d, nme_dense_3d not computed: {reason}"]
    assert report["face"]["name"] == "embedded"
    without_bfm = tmp_path / "no_bfm"
    shutil.copytree(tiny_data_dir / "AFLW2000", without_bfm / "AFLW2000")
    again = run(without_bfm, tmp_path, f"checkpoint={checkpoint}")
    assert again["metrics"] == report["metrics"]
    with pytest.raises(ValueError, match="protocol.landmarks=map: the truth cannot be made"):
        run(without_bfm, tmp_path, f"checkpoint={checkpoint}", "protocol.landmarks=map")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "vgg"}}, "of a model 'vgg', expected one of .*prn"),
        ({"model": {"name": "../train"}}, "of a model '../train'"),
        ({"model": {"width": 1}}, "of a model None"),
        ({"model": {"name": "prn", "_target_": "os.system"}}, "'_target_' names code to run"),
        ({"model": {"name": "prn", "depth": 3}}, "takes .*width.*, the checkpoint has 'depth'"),
        (
            {"model": {"name": "prn", "width": {"_target_": "os.getcwd"}}},
            "key '_target_' names code to run",
        ),
        ({"model": {"name": "prn", "width": "wide"}}, "model prn does not take"),
        ({"model": {"name": "prn", "width": 2}}, r"model prn, width 2\): .*of another shape"),
        ({"face": {"name": "bfm", "vertices": 53215}}, "vertices 53215, this one has 98"),
        ({"face": {"name": "flame"}}, "best.pt: face: got 'flame', expected one of bfm, embedded"),
        ({"face": {"name": "embedded", "fingerprint": "old"}}, "fingerprint old, this one has"),
    ],
)
def test_foreign_checkpoints_are_refused(tiny_data_dir, tmp_path, changes, message):
    checkpoint = write_checkpoint(tmp_path / "best.pt", **changes)
    with pytest.raises(ValueError, match=message):
        run(tiny_data_dir, tmp_path, f"checkpoint={checkpoint}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint=a.pt", "predictions=b"], "checkpoint= or predictions=, not both"),
        (["predictions=b", "save_predictions=c"], "save_predictions= goes with a checkpoint"),
        (["dataset=300w_lp"], "got '300w_lp', expected one of aflw2000, synthetic"),
        (["dataset.subsets=[AFW]"], "has no sub-folders"),
        (["report=table.txt"], "ends in .json"),
        (["device=tpu"], "expected one of auto, cpu, cuda"),
    ],
)
def test_contradictions_are_refused(tiny_data_dir, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(tiny_data_dir, tmp_path, *arguments)


def test_missing_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="AFLW2000: no picture found; unpack AFLW2000-3D"):
        run(tmp_path, tmp_path, "predictions=b")


def test_photographs_are_no_set_of_the_embedded_face(tiny_data_dir, face, tmp_path):
    """Nor is one of them to be left out."""
    folder = shutil.copytree(tiny_data_dir / "AFLW2000", tmp_path / "AFLW2000")
    content = scipy.io.loadmat(folder / f"{NAMES[0]}.mat")
    content = {key: content[key] for key in ("Pose_Para", "pt3d_68")}
    content |= {"Shape_Para": np.ones((199, 1)), "Exp_Para": np.ones((29, 1))}
    scipy.io.savemat(folder / f"{NAMES[0]}.mat", content)
    assert aflw2000(tmp_path, face, CropRule())[0].name == NAMES[0]
    with pytest.raises(FitOfAnotherFace, match="this is face=embedded: give face=bfm$"):
        _ = aflw2000(tmp_path, face._replace(name="embedded"), CropRule())[0]


def test_files_without_landmarks_or_picture(tiny_data_dir, face, tmp_path):
    folder = tmp_path / "AFLW2000"
    shutil.copytree(tiny_data_dir / "AFLW2000", folder)
    shutil.copytree(tiny_data_dir / "BFM", tmp_path / "BFM")
    content = scipy.io.loadmat(folder / f"{NAMES[0]}.mat")
    scipy.io.savemat(
        folder / f"{NAMES[0]}.mat",
        {key: content[key] for key in ("Pose_Para", "Shape_Para", "Exp_Para")},
    )
    predictions = save_exact("3ddfa", tmp_path / "p", tiny_data_dir, face, "matlab", "matlab")
    with pytest.raises(ValueError, match=f"{NAMES[0]}.mat: no pt3d_68.*protocol.landmarks=map"):
        run(tmp_path, tmp_path, f"predictions={predictions}")
    report = run(tmp_path, tmp_path, f"predictions={predictions}", "protocol.landmarks=map")
    assert report["count"] == 6
    (folder / f"{NAMES[2]}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=f"{NAMES[2]}.jpg: missing picture"):
        run(tmp_path, tmp_path, f"predictions={predictions}", "protocol.landmarks=map")


def test_command(tiny_data_dir, tmp_path):
    """From another folder, paths relative to it; the table in the log, the files where asked; a
    mistake ends in one line."""
    save_landmarks(tmp_path / "mine", tiny_data_dir)
    data_dir = os.path.relpath(tiny_data_dir, tmp_path)
    refused, done = run_commands(
        ["prnet.eval", "dataset=aflw2000", "predictions=nowhere", "data_dir=here"],
        [
            "prnet.eval",
            "dataset=aflw2000",
            f"data_dir={data_dir}",
            "predictions=mine",
            "protocol=2dasl",
            "protocol.z_alignment=mean",
            "report=out/table.json",
            "device=cpu",
        ],
        cwd=tmp_path,
    )
    assert done.endswith("exit 0"), done
    report = json.loads((tmp_path / "out" / "table.json").read_text())
    assert report["protocol"]["name"] == "2dasl"
    assert report["protocol"]["z_alignment"] == "mean"
    assert report["count"] == 6
    # A table to read, not the values of the protocol.
    lines = [line.split() for line in done.splitlines()]
    assert ["68", "landmarks,", "2D", *["0.000"] * 6] in lines
    assert "protocol 2dasl protocol.z_alignment=mean: 6 images" in done
    assert "{" not in done
    made = report["made"]
    assert made["prnet"] == prnet.__version__
    assert datetime.fromisoformat(made["date"]).tzinfo is not None
    assert made["command"].startswith("python -m prnet.eval dataset=aflw2000 data_dir=")
    assert "checkpoint" not in made
    assert (tmp_path / "out" / "table.md").is_file()
    assert (tmp_path / "out" / "table.png").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out", "outputs"]

    assert "Traceback" not in refused
    line, status = refused.strip().splitlines()
    assert "here/AFLW2000: no picture found; unpack AFLW2000-3D" in line
    assert status == "exit 1"


def test_help_names_every_protocol_and_option():
    text = Path(CONFIG_DIR, "eval.yaml").read_text()
    for protocol in Path(CONFIG_DIR, "protocol").glob("*.yaml"):
        assert f"protocol={protocol.stem} " in text
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        options = set(compose("eval")) - {"dataset", "face", "protocol", "name"}
    assert [option for option in options if f"{option}=" not in text] == []


def test_error_of_a_loader_process_is_what_it_said_there(tiny_data_dir, tmp_path):
    pairs = [pair._replace(fit=tmp_path / "lost.mat") for pair in find_aflw2000(tiny_data_dir)]
    test_set = AFLW2000(pairs)
    with pytest.raises(FileNotFoundError) as caught:
        next(iter(loader_of(test_set, collate_evaluation, batch_size=6, num_workers=1)))
    assert str(caught.value).count("\n") > 5
    assert in_one_line(caught.value).startswith(f"{tmp_path / 'lost.mat'}: missing; every picture")
    assert in_one_line(ValueError("a\n b")) == "a b"


def test_write_prediction_is_what_the_documentation_says(tmp_path):
    """The keys of NAME.npz, for other programs."""
    points = np.zeros((68, 3), np.float32)
    write_prediction(
        tmp_path / "a.npz", points, None, landmarks_origin="matlab", vertices_origin="matlab"
    )
    with np.load(tmp_path / "a.npz") as archive:
        assert sorted(archive.files) == ["landmarks", "pixel_origin"]
        assert str(archive["pixel_origin"]) == "matlab"
