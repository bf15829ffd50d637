"""Head scans to renderings with their truth, and those as a test set."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from prnet import build
from prnet.building.florence import build_florence, write_renderings_sheet
from prnet.building.frozen_worlds import SCANS_SEED_SHIFT, freeze
from prnet.building.scan_files import Scan, read_scan
from prnet.building.scan_fitting import fit_face
from prnet.building.scan_rendering import RenderRule, locate, place, render, transform
from prnet.datasets.evaluation import collate_evaluation
from prnet.datasets.florence import Florence
from prnet.datasets.pictures import CropRule, decode_picture
from prnet.datasets.synthetic import RenderedFaces
from prnet.datasets.warp import warp_to_crop
from prnet.entry import CONFIG_DIR
from prnet.eval import run_evaluation
from prnet.faces.loading import load_face
from prnet.geometry import camera
from tests.worlds import shipped_rule

SYNTHETIC = shipped_rule(size=32, samples_per_epoch=10, held_out=3)
RULE = RenderRule(pitch_deg=(20,), yaw_deg=(-40, 0, 80), picture_size=96, max_points=1000)


@pytest.fixture(scope="module")
def embedded():
    return load_face("embedded")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A data folder with one synthetic person's scan and a file that is none."""
    data_dir = tmp_path_factory.mktemp("scans") / "world"
    freeze(SYNTHETIC, data_dir, count=0, test_count=0, scans=1)
    (data_dir / "Florence" / "torn.obj").write_text("v 0 0\n")
    return data_dir


@pytest.fixture(scope="module")
def true_landmarks(embedded):
    """(68, 3), mm, of the person of the scan."""
    people = RenderedFaces(SYNTHETIC, seed=SYNTHETIC.seed + SCANS_SEED_SHIFT)
    shape_params = torch.from_numpy(people.faces.parameters(0).shape_params).float()[None]
    model = embedded.morphable_model
    vertices = model(shape_params, torch.zeros(1, model.num_exp))[0]
    return vertices[embedded.landmark_index].numpy() / 1000


@pytest.fixture(scope="module")
def built(scans, tmp_path_factory):
    output = tmp_path_factory.mktemp("renderings")
    build_florence(scans, output, RULE)
    return output


def turned(pitch_deg: float, yaw_deg: float, roll_deg: float) -> np.ndarray:
    angles = torch.tensor([pitch_deg, yaw_deg, roll_deg], dtype=torch.float64).deg2rad()
    return camera.rotation_from_angles(angles).numpy()


def test_a_face_is_found_on_a_scan_in_any_pose(scans, embedded, true_landmarks):
    """Turned, tilted and moved away, the scan gives the person's eye corners and nose tip."""
    scan = read_scan(scans / "Florence" / "subject_01" / "subject_01.obj")
    rotation, shift = turned(-35, 20, 8), np.array([30.0, -200.0, 400.0])
    points = scan.vertices @ rotation.T + shift
    fit = fit_face(points, scan.triangles, embedded)
    expected = true_landmarks @ rotation.T + shift
    errors = np.linalg.norm(fit.landmarks - expected, axis=1)
    assert errors[[36, 45, 30]].max() < 2.5
    assert errors.mean() < 3
    turn = np.trace(fit.rotation @ rotation.T)
    assert np.degrees(np.arccos((turn - 1) / 2)) < 4
    assert fit.residual < 1
    # A mark is taken as it is, the rest follows from the fit.
    marked = {36: expected[36] + [0, 3.0, 0], 45: expected[45], 30: expected[30]}
    again = fit_face(points, scan.triangles, embedded, marked)
    np.testing.assert_array_equal(again.landmarks[36], marked[36])
    assert np.linalg.norm(again.landmarks[8] - expected[8]) < 6


def test_no_face_on_a_ball(embedded):
    grid = np.random.default_rng(0).normal(size=(2000, 3))
    ball = 30 * grid / np.linalg.norm(grid, axis=1, keepdims=True)
    triangles = np.arange(1998)[:, None] + np.arange(3)
    with pytest.raises(ValueError, match="no face found"):
        fit_face(ball, triangles, embedded)


def two_coloured_square(side: float, depth: float = 0.0) -> Scan:
    """Texture red on the left and blue on the right, white in the top row."""
    half = side / 2
    vertices = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    vertices = np.concatenate([vertices, np.full((4, 1), depth)], 1)
    texture = np.zeros((8, 8, 3), dtype=np.uint8)
    texture[:, :4, 0], texture[:, 4:, 2] = 200, 200
    texture[0] = 255
    uv_coords = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    return Scan(vertices, np.array([[0, 1, 2], [0, 2, 3]]), uv_coords, texture, None)


def test_a_picture_shows_the_texture_where_the_points_are():
    rule = RenderRule(picture_size=32, picture_scale=2.0, shading=0.0, background=7)
    scan = two_coloured_square(100.0)
    image_from_scan = place(scan.vertices, 0.0, 0.0, rule)
    corners = transform(image_from_scan, scan.vertices)[:, :2]
    # 100 mm are half of 32 px, in the middle of them; rows go down.
    np.testing.assert_allclose(corners, [[7.5, 23.5], [23.5, 23.5], [23.5, 7.5], [7.5, 7.5]])
    picture = render(scan, image_from_scan, rule)
    assert picture.shape == (32, 32, 3)
    np.testing.assert_array_equal(picture[20, 10], [200, 0, 0])
    np.testing.assert_array_equal(picture[20, 21], [0, 0, 200])
    np.testing.assert_array_equal(picture[8, 10], [255, 255, 255])
    # Not a fraction of a pixel too far: columns 8 to 23 are the square, whole.
    assert (picture[20] == [7, 7, 7]).all(1).tolist() == [True] * 8 + [False] * 16 + [True] * 8
    np.testing.assert_array_equal(picture[20, [8, 23]], [[200, 0, 0], [0, 0, 200]])


def test_the_nearer_surface_hides_the_other_and_tilt_darkens():
    rule = RenderRule(picture_size=32, picture_scale=2.0, shading=0.5)
    scan = two_coloured_square(100.0)
    near = scan.vertices * [0.3, 0.3, 1] + [0, 0, 20.0]
    both = Scan(
        np.concatenate([scan.vertices, near]),
        np.concatenate([scan.triangles, scan.triangles + 4]),
        None,
        None,
        np.repeat(np.array([[100, 0, 0], [0, 100, 0]], dtype=np.uint8), 4, 0),
    )
    image_from_scan = place(scan.vertices, 0.0, 0.0, rule)
    picture = render(both, image_from_scan, rule)
    np.testing.assert_array_equal(picture[16, 16], [0, 100, 0])
    np.testing.assert_array_equal(picture[10, 10], [100, 0, 0])
    tilted = render(
        both._replace(triangles=scan.triangles, vertices=both.vertices),
        place(scan.vertices, 0.0, 60.0, rule),
        rule,
    )
    # cos 60 = 0.5: 0.5 + 0.5 * 0.5 of the colour.
    np.testing.assert_array_equal(tilted[16, 16], [75, 0, 0])


def test_poses_are_those_of_the_fits():
    """Positive yaw turns a point before the face to the left, positive pitch up."""
    rule = RenderRule(picture_size=64)
    region = np.random.default_rng(0).uniform(-50, 50, (200, 3))
    nose = np.array([[0, 0, 60.0]])
    center = transform(place(region, 0, 0, rule), np.zeros((1, 3)))[0]
    for pitch, yaw, axis in ((0, 40, 0), (25, 0, 1)):
        matrix = place(region, pitch, yaw, rule)
        moved = transform(matrix, nose)[0] - transform(matrix, np.zeros((1, 3)))[0]
        assert moved[axis] < -5
        assert abs(moved[1 - axis]) < 1e-9
        assert moved[2] > 0
    assert center[:2] == pytest.approx([31.5, 31.5], abs=3)


def test_region_and_points(scans, embedded):
    scan = read_scan(scans / "Florence" / "subject_01" / "subject_01.obj")
    fit = fit_face(scan.vertices, scan.triangles, embedded)
    located = locate(scan, fit, RULE._replace(max_points=10**6, radius_mm=60.0))
    nose = fit.landmarks[30]
    distances = np.linalg.norm(np.unique(scan.vertices, axis=0) - nose, axis=1)
    assert len(located.region) == (distances <= 60.0).sum()
    # The middle of the region is the origin, the fitted axes are the frame's.
    np.testing.assert_allclose(np.ptp(located.outer_eyes[:, 1]), 0, atol=2)
    assert located.outer_eyes[1, 0] - located.outer_eyes[0, 0] > 60

    masked = locate(scan, fit, RULE._replace(max_points=10**6, region="uv_mask"))
    assert 4000 < len(masked.region) < 14000
    assert locate(scan, fit, RULE._replace(max_points=500)).region.shape == (500, 3)
    # About the scan's own axes nothing turns.
    as_it_is = locate(scan, fit, RULE._replace(upright=False))
    shift = as_it_is.scan.vertices[0] - scan.vertices[0]
    np.testing.assert_allclose(as_it_is.scan.vertices, scan.vertices + shift, atol=1e-9)
    with pytest.raises(ValueError, match="0 points in the face region"):
        locate(scan, fit, RULE._replace(radius_mm=1e-9))


def test_built_truth_lies_on_the_picture(built):
    folder = built / "Florence_renderings"
    summary = json.loads((folder / "subject_01" / "subject.json").read_text())
    names = sorted(path.stem for path in folder.glob("*/*.npz"))
    assert names == ["subject_01_p+20_y+0", "subject_01_p+20_y+80", "subject_01_p+20_y-40"]
    for name in names:
        path = folder / "subject_01" / f"{name}.npz"
        with np.load(path, allow_pickle=False) as archive:
            points, eyes = archive["vertices"], archive["outer_eyes"]
            pose = archive["pitch_deg"].item(), archive["yaw_deg"].item()
        assert name == f"subject_01_p{pose[0]:+g}_y{pose[1]:+g}"
        assert points.shape == (summary["points"], 3)
        assert points.dtype == np.float32
        low, high = points.min(0), points.max(0)
        assert (high - low)[:2].mean() == pytest.approx(96 / 1.6, rel=1e-4)
        assert (low + high)[:2] / 2 == pytest.approx([47.5, 47.5], abs=1e-3)
        picture = decode_picture(path.with_suffix(".png").read_bytes(), source=path)
        column, row = np.rint(points[:, :2]).astype(int).T
        assert (picture[row, column].max(1) > 0).mean() > 0.98
        scale = np.linalg.norm(eyes[0] - eyes[1]) / summary["outer_eye_mm"]
        assert 0.2 < scale < 0.8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "reg', "not readable as JSON"),
        ('{"format": 1}', "no 'region', expected str"),
        ('{"region": "ears"}', "region: got 'ears', expected one of nose_radius, uv_mask"),
    ],
)
def test_a_damaged_rule_is_named(text, message, tmp_path):
    folder = tmp_path / "Florence_renderings"
    folder.mkdir()
    (folder / "renderings.json").write_text(text)
    with pytest.raises(ValueError, match=rf"renderings\.json: {message}"):
        Florence(tmp_path)


def test_a_build_is_finished_later_and_refuses_another_rule(built, scans, caplog):
    folder = built / "Florence_renderings"
    picture = folder / "subject_01" / "subject_01_p+20_y+0.png"
    before = picture.stat().st_mtime_ns
    build_florence(scans, built, RULE)
    assert picture.stat().st_mtime_ns == before
    assert "left out: torn: " in caplog.text
    with pytest.raises(ValueError, match="planned otherwise: shading is 0.3 there and 0.1 here"):
        build_florence(scans, built, RULE._replace(shading=0.1))


def test_no_usable_scan(tmp_path):
    (tmp_path / "Florence").mkdir()
    (tmp_path / "Florence" / "torn.obj").write_text("v 0 0\n")
    with pytest.raises(ValueError, match=r"no scan of .*Florence can be used: .*torn"):
        build_florence(tmp_path, tmp_path / "out", RULE)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("unit", "inch", r"dataset\.unit: got 'inch'"),
        ("region", "skull", r"dataset\.region: got 'skull'"),
        ("shading", 1.5, "shading in 0..1"),
        ("picture_size", 0, "above 0"),
        ("yaw_deg", [], "name no pose"),
    ],
)
def test_impossible_rules(field, value, message):
    with pytest.raises(ValueError, match=message):
        RenderRule.from_values({**RenderRule()._asdict(), field: value})


def test_configuration_is_the_default_rule():
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        values = dict(compose("build", overrides=["dataset=florence"]).dataset)
    assert values.pop("name") == "florence"
    assert RenderRule.from_values(values) == RenderRule()


def test_items(built):
    samples = Florence(built, crop=CropRule())
    batch = collate_evaluation([samples[index] for index in range(len(samples))])
    assert batch.yaw_deg == [0.0, 80.0, -40.0]
    assert [scan.shape for scan in batch.scan] == [(1000, 3)] * 3
    assert batch.points is None
    # The face fills the crop as it does where landmarks are framed.
    crops = warp_to_crop(batch.picture, batch.crop_from_picture)
    assert (crops > 0).any(1).float().mean() > 0.5
    crop_from_image = camera.invert_affine(batch.image_from_crop)
    for scan, matrix in zip(batch.scan, crop_from_image, strict=True):
        sides = np.ptp(camera.transform_points(matrix, scan).numpy(), axis=0)[:2]
        assert sides.mean() == pytest.approx(255 / 1.5 / 0.894, rel=1e-3)
    bare = Florence(built)[0]
    assert bare.network_input is None
    assert bare.outer_eye == batch.outer_eye[0]


def test_renderings_are_looked_for_where_build_puts_them(built, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"prnet\.build dataset=florence"):
        Florence(tmp_path)
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "florence").symlink_to(built)
    assert len(Florence(tmp_path)) == 3


def test_the_true_points_score_nothing(built, tmp_path):
    """End to end: the truth as a prediction, as it is, and moved by a similarity."""
    rotation = turned(3, -4, 5)
    for kind in ("same", "moved"):
        (tmp_path / kind).mkdir()
        for path in (built / "Florence_renderings").glob("*/*.npz"):
            with np.load(path, allow_pickle=False) as archive:
                vertices = archive["vertices"]
            if kind == "moved":
                vertices = 1.1 * vertices @ rotation.T + [5, -3, 40]
            np.savez(tmp_path / kind / path.name, vertices=vertices)

    def run(kind: str, *overrides: str) -> dict:
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            overrides = ["dataset=florence", f"data_dir={built}", "device=cpu", *overrides]
            cfg = compose("eval", overrides=[*overrides, f"predictions={tmp_path / kind}"])
        return run_evaluation(cfg, tmp_path)

    report = run("same")
    summary = report["metrics"]["nme_rec"]
    assert summary["mean"] == pytest.approx(0, abs=1e-3)
    assert [entry["n"] for entry in summary["bins"].values()] == [1, 1, 1]
    assert report["notes"]["renderings"]["radius_mm"] == 95.0
    assert run("moved")["metrics"]["nme_rec"]["mean"] < 0.5
    assert run("moved", "protocol=reconstruction_icp_rigid")["metrics"]["nme_rec"]["mean"] > 2
    for name in ("prn_florence", "sadrnet_florence"):
        assert run("moved", f"protocol={name}")["metrics"]["nme_rec"]["mean"] < 0.5
    refused = "takes no protocol.*choose protocol=prn_florence or sadrnet_florence"
    for words in ("protocol.exclude=[a]", "protocol=prn"):
        with pytest.raises(ValueError, match=refused):
            run("same", words)


def test_the_command(scans, true_landmarks, tmp_path):
    """`prnet.build dataset=florence` of a marked scan in metres, and its contact sheet."""
    subject = tmp_path / "Florence" / "anna"
    shutil.copytree(scans / "Florence" / "subject_01", subject)
    (subject / "subject_01.obj").write_text(
        re.sub(
            r"^v (\S+) (\S+) (\S+)",
            lambda match: "v " + " ".join(f"{float(x) / 1000:.7f}" for x in match.groups()),
            (subject / "subject_01.obj").read_text(),
            flags=re.M,
        )
    )
    marks = true_landmarks[[36, 45, 30]] / 1000
    rows = [
        f"{k},{x:.7f},{y:.7f},{z:.7f}" for k, (x, y, z) in zip((36, 45, 30), marks, strict=True)
    ]
    (subject / "landmarks.csv").write_text("\n".join(["index,x,y,z", *rows]) + "\n")
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose(
            "build",
            overrides=[
                "dataset=florence",
                f"data_dir={tmp_path}",
                f"output={tmp_path}",
                "dataset.yaw_deg=[0]",
                "dataset.pitch_deg=[0]",
                "dataset.picture_size=48",
                "dataset.unit=m",
                "workers=0",
            ],
        )
    build.build_scans(cfg)
    folder = tmp_path / "Florence_renderings"
    summary = json.loads((folder / "anna" / "subject.json").read_text())
    assert summary["marked"] == [30, 36, 45]
    expected = np.linalg.norm(true_landmarks[36] - true_landmarks[45])
    assert summary["outer_eye_mm"] == pytest.approx(expected, abs=0.01)
    sheet = decode_picture((folder / "contact_sheet.png").read_bytes(), source="sheet")
    assert sheet.shape == (384, 192, 3)
    (folder / "contact_sheet.png").unlink()
    write_renderings_sheet(folder, count=1)
    assert (folder / "contact_sheet.png").is_file()
