"""3DDFA's AFLW files: labels, boxes as stored and as they were, crops and their way back."""

import numpy as np
import pytest

from prnet.datasets.aflw import (
    AFLW,
    POINT_GROUPS,
    black_borders,
    corrected_mapping,
    published_mapping,
    unclipped,
)
from prnet.datasets.evaluation import collate_evaluation
from prnet.datasets.pictures import CropRule, write_picture
from prnet.datasets.warp import warp_to_crop
from prnet.eval import run_evaluation
from prnet.geometry import camera
from tests.benchmarks import (
    AFLW_NAMES,
    AFLW_YAWS_DEG,
    SIDE,
    SQUARES,
    STORED,
    crop_of,
    painted,
    write_aflw,
)
from tests.configurations import composed


@pytest.fixture
def aflw(tmp_path):
    """DATA_DIR with three faces as 3DDFA stores them."""
    write_aflw(tmp_path)
    return tmp_path


def test_groups_are_the_published_ones():
    """ind_68to21 of 3DDFA's script, from 1."""
    published = [[18], [20], [22], [23], [25], [27], [37], list(range(37, 43)), [40], [43]]
    published += [list(range(43, 49)), [46], [3], [32], [31], [36], [15], [49]]
    published += [list(range(61, 69)), [55], [9]]
    assert [[index + 1 for index in group] for group in POINT_GROUPS] == published


def test_items(aflw):
    samples = AFLW(aflw)
    stored = np.load(aflw / "AFLW" / "AFLW_GT_pts21.npy")
    landmarks = np.load(aflw / "AFLW" / "AFLW_GT_pts68.npy")
    batch = collate_evaluation([samples[index] for index in range(3)])
    assert batch.names == list(AFLW_NAMES)
    assert batch.yaw_deg == list(AFLW_YAWS_DEG)
    np.testing.assert_allclose(batch.points.numpy(), stored.transpose(0, 2, 1) - 1)
    assert batch.points_visible.sum(1).tolist() == [20] * 3
    assert not batch.points_visible[:, 16].any()
    box = np.concatenate([landmarks.min(2), landmarks.max(2)], 1) - 1
    np.testing.assert_allclose(batch.box.numpy(), box)
    assert batch.picture is None


def test_clipped_boxes_are_named_and_mended(aflw):
    samples = AFLW(aflw)
    np.testing.assert_array_equal([found.box for found in samples.true_boxes], SQUARES)
    assert samples.notes() == {
        "roi": "corrected",
        "roi_clipped": ["image00004"],
        "roi_unexplained": [],
    }


@pytest.mark.parametrize("frame", ["landmarks", "picture"])
def test_a_network_s_crop_leads_back_to_the_picture(aflw, frame):
    """What the crop shows at a pixel is what was painted where `image_from_crop` says it lies."""
    samples = AFLW(aflw, frame=frame, crop=CropRule())
    batch = collate_evaluation([samples[index] for index in range(3)])
    crops = warp_to_crop(batch.picture, batch.crop_from_picture)
    pixel = np.array([[128.0, 128.0, 0.0], [90.0, 140.0, 0.0]])
    for index in range(3):
        image_point = camera.transform_points(
            batch.image_from_crop[index], batch.image_from_crop.new_tensor(pixel)
        ).numpy()
        column, row = pixel[:, :2].astype(int).T
        seen = 255 * crops[index][:, row, column].numpy().T
        np.testing.assert_allclose(seen, painted(*image_point[:, :2].T), atol=1.0)


def test_published_mapping_is_the_script_s(aflw):
    """x (right - left) / 120 + left with the stored box: stretched where that was clipped."""
    samples = AFLW(aflw, roi="published", frame="picture", crop=CropRule(span=256.0))
    for index in range(3):
        matrix = samples[index].network_input.image_from_crop
        # The crop's [0, 256] is the picture's [-0.5, 119.5].
        found = camera.transform_points(matrix, matrix.new_tensor([[64.0, 192.0, 0]]))[0].numpy()
        left, top, right, bottom = STORED[index]
        expected = (29.5 / 120 * (right - left) + left - 1, 89.5 / 120 * (bottom - top) + top - 1)
        np.testing.assert_allclose(found[:2], expected)
    with pytest.raises(ValueError, match=r"dataset\.roi: got 'exact'"):
        AFLW(aflw, roi="exact")
    with pytest.raises(ValueError, match=r"dataset\.frame: got 'face'"):
        AFLW(aflw, frame="face")


def test_mappings_share_the_corners():
    box = np.array([11.0, 21.0, 130.0, 140.0])
    # 120 px for 120 px: the corrected mapping is a shift of whole pixels.
    matrix = corrected_mapping(box)
    np.testing.assert_allclose(matrix @ matrix.new_tensor([0, 0, 0, 1]), [10, 20, 0, 1])
    np.testing.assert_allclose(matrix @ matrix.new_tensor([119, 119, 0, 1]), [129, 139, 0, 1])
    matrix = published_mapping(box)
    np.testing.assert_allclose(matrix @ matrix.new_tensor([120, 0, 0, 1]), [129, 20, 0, 1])


@pytest.mark.parametrize(
    ("square", "note"),
    [
        ([100, 100, 339, 339], "inside"),
        ([-19, 50, 220, 289], "left"),
        ([50, -59, 289, 180], "top"),
        ([250, 50, 489, 289], "right"),
        ([50, 250, 289, 489], "bottom"),
        ([-59, -119, 180, 120], "corner"),
        ([-59, 331, 180, 570], "other corner"),
        ([-74, -74, 525, 525], "all sides"),
    ],
)
def test_any_square_is_found_again(square, note):
    square = np.array(square, dtype=float)
    stored = np.concatenate([np.maximum(square[:2], 1), np.minimum(square[2:], SIDE)])
    found = unclipped(stored, black_borders(crop_of(square)))
    # Where black says how much is missing, a pixel of the crop is as fine as it gets.
    np.testing.assert_allclose(found.box, square, atol=(square[2] - square[0]) / 120)
    assert found.explained
    assert found.clipped == (note != "inside")


def test_a_box_that_is_shorter_for_no_reason():
    box = np.array([100.0, 100.0, 300.0, 250.0])
    found = unclipped(box, np.zeros(4))
    assert (found.clipped, found.explained) == (True, False)
    np.testing.assert_array_equal(found.box, box)


def test_border_of_a_picture_is_its_last_px():
    """A box that ends one px before it was not clipped there."""
    for right, explained in ((449.0, False), (450.0, True)):
        box = np.array([300.0, 100.0, right, 300.0])
        assert unclipped(box, np.zeros(4)).explained == explained


def test_black_is_what_jpeg_leaves_of_it():
    crop = np.full((120, 120, 3), 12, np.uint8)
    crop[10:100, 20:110, 1] = 13
    assert black_borders(crop).tolist() == [20, 10, 10, 20]


def test_truth_scores_nothing_and_a_shift_what_it_is(aflw, tmp_path):
    """End to end: the 68 that the 21 were made of, and the same moved by 3 and 4 px."""
    landmarks = np.load(aflw / "AFLW" / "AFLW_GT_pts68.npy").transpose(0, 2, 1)
    for kind, shift in (("same", (0, 0)), ("moved", (3, 4))):
        (tmp_path / kind).mkdir()
        for name, points in zip(AFLW_NAMES, landmarks, strict=True):
            np.savez(
                tmp_path / kind / f"{name}.npz", landmarks=points + shift, pixel_origin="matlab"
            )

    def run(kind: str, *overrides: str) -> dict:
        fixed = ["dataset=aflw", f"data_dir={aflw}", "device=cpu", f"predictions={tmp_path / kind}"]
        return run_evaluation(composed("eval", *fixed, *overrides), tmp_path)

    report = run("same")
    assert report["metrics"]["nme_points_2d"]["mean"] == pytest.approx(0, abs=1e-9)
    assert report["notes"]["roi_clipped"] == ["image00004"]
    boxes = landmarks.max(1) - landmarks.min(1)
    expected = [100 * 5 / np.sqrt(box.prod()) for box in boxes]
    for protocol in ("default", "aflw"):
        report = run("moved", f"protocol={protocol}")
        errors = [image["nme_points_2d"] for image in report["images"]]
        np.testing.assert_allclose(errors, expected)
        bins = report["metrics"]["nme_points_2d"]["bins"]
        assert [entry["n"] for entry in bins.values()] == [1, 1, 1]
    (tmp_path / "moved" / "image00006.npz").unlink()
    assert run("moved")["missing"] == ["image00006"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("AFLW_GT_crop_yaws.npy", np.zeros(2), r"yaws\.npy: holds float64 \(2,\), .*\(3,\)"),
        ("AFLW_GT_pts21.npy", np.zeros((3, 21, 2)), r"pts21\.npy: .*\(3, 2, 21\)"),
        ("AFLW_GT_pts21.npy", np.full((3, 2, 21), -1.0), "3 faces have no visible point"),
        ("AFLW_GT_pts68.npy", np.full((3, 2, 68), np.nan), r"pts68\.npy: .* not finite"),
        ("AFLW_GT_pts68.npy", np.array([{}]), r"pts68\.npy: not a readable \.npy file"),
        ("AFLW_GT_crop_roi_box.npy", None, r"roi_box\.npy: missing; 3DDFA's repository"),
        ("AFLW_GT_crop.list", "a.jpg\n../b.jpg\nc.jpg\n", "'../b.jpg' leaves its folder"),
        ("AFLW_GT_crop.list", "a.jpg\n/b.jpg\nc.jpg\n", "'/b.jpg' leaves its folder"),
        ("AFLW_GT_crop.list", "a.jpg\nC:\\b.jpg\nc.jpg\n", "leaves its folder"),
        ("AFLW_GT_crop_yaws.npy", np.array([0, 1e308, 5]), r"a yaw of 1e\+308"),
        ("AFLW_GT_crop.list", "a.jpg\na.jpg\n", "2 names, 1 different; expected a list"),
        ("AFLW_GT_crop.list", "a.jpg\nb.jpg\nc.jpg\n", r"[ab]\.jpg: missing, but it is in"),
    ],
)
def test_unusable_files(aflw, file, content, message):
    path = aflw / "AFLW" / file
    path.unlink()
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        AFLW(aflw, crop=CropRule())[0]


def test_a_crop_of_another_size(aflw):
    path = aflw / "AFLW" / "AFLW_GT_crop" / f"{AFLW_NAMES[0]}.png"
    write_picture(path, np.zeros((100, 120, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"image00002\.png: 120 x 100 px, expected 120 x 120"):
        AFLW(aflw, crop=CropRule())[0]
