"""AFLW-LFPA's neutral files and the table of its points."""

import csv
import json

import numpy as np
import pytest

from prnet.datasets.aflw import POINT_GROUPS
from prnet.datasets.aflw_lfpa import AFLWLFPA, TABLE, read_annotations, read_table
from prnet.datasets.evaluation import collate_evaluation
from prnet.datasets.pictures import CropRule
from prnet.eval import run_evaluation
from prnet.geometry import camera
from tests.benchmarks import LFPA_NAMES, LFPA_YAWS_DEG, lfpa_content, write_lfpa
from tests.configurations import composed


@pytest.fixture
def lfpa(tmp_path):
    write_lfpa(tmp_path)
    return tmp_path


def write_csv(path, data: dict[str, np.ndarray], *, yaw: bool = True) -> None:
    columns = ["name", "left", "top", "right", "bottom"]
    columns += [f"{kind}{index}" for index in range(34) for kind in "xyv"]
    rows = []
    for index, name in enumerate(data["names"]):
        cells = [
            value
            for point, seen in zip(data["points"][index], data["visible"][index], strict=True)
            for value in (*(repr(float(x)) if seen else "" for x in point), int(seen))
        ]
        row = [name, *data["boxes"][index], *cells]
        rows.append([*row, data["yaws_deg"][index]] if yaw else row)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*columns, "yaw_deg"] if yaw else columns, *rows])


def test_shipped_table_is_the_21_points_and_no_guess():
    groups = read_table(TABLE)
    assert groups[:21] == list(POINT_GROUPS)
    assert groups[21:] == [None] * 13
    assert len(json.loads(TABLE.read_text())["names"]) == 34


def test_items(lfpa):
    samples = AFLWLFPA(lfpa, crop=CropRule())
    data = lfpa_content()
    batch = collate_evaluation([samples[0], samples[1]])
    assert batch.names == LFPA_NAMES
    assert batch.yaw_deg == LFPA_YAWS_DEG
    assert batch.points.shape == (2, 21, 2)
    np.testing.assert_array_equal(batch.points_visible.numpy(), data["visible"][:, :21])
    seen = data["visible"][:, :21]
    np.testing.assert_allclose(batch.points.numpy()[seen], data["points"][:, :21][seen])
    assert batch.points.isfinite().all()
    np.testing.assert_allclose(batch.box.numpy(), data["boxes"])
    # A network sees 1.5 times the mean side of the box about its middle.
    corners = camera.transform_points(
        batch.image_from_crop, batch.image_from_crop.new_tensor([[[0, 0, 0], [255.0, 255, 0]]])
    )
    np.testing.assert_allclose(corners[0, :, :2], [[50 - 54, 52 - 54], [50 + 54, 52 + 54]])
    assert samples.notes() == {
        "points_table": "aflw_lfpa_points.json",
        "points_compared": list(range(21)),
        "points_left_out": list(range(21, 34)),
        "yaw": "as annotated",
    }


def test_csv_is_the_same(lfpa):
    folder = lfpa / "AFLW_LFPA"
    expected = read_annotations(folder)
    (folder / "landmarks.npz").unlink()
    write_csv(folder / "landmarks.csv", lfpa_content())
    found = read_annotations(folder)
    assert found.names == expected.names
    for field in ("boxes", "points", "visible", "yaws_deg"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    write_csv(folder / "landmarks.csv", lfpa_content(), yaw=False)
    assert read_annotations(folder).yaws_deg is None
    samples = AFLWLFPA(lfpa)
    assert samples[1].yaw_deg == 0.0
    assert samples.notes()["yaw"] == "unknown: all in 0"


def test_pixel_origin(lfpa):
    folder = lfpa / "AFLW_LFPA"
    before = read_annotations(folder)
    np.savez(folder / "landmarks.npz", **lfpa_content(), pixel_origin="matlab")
    found = read_annotations(folder)
    np.testing.assert_allclose(found.boxes, before.boxes - 1)
    seen = before.visible
    np.testing.assert_allclose(found.points[seen], before.points[seen] - 1)


def test_truth_scores_nothing_with_the_user_s_table(lfpa, tmp_path):
    """End to end with a table of all 34; a shift costs its length over the box."""
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"groups": [[index] for index in range(34)]}))
    data = lfpa_content()
    points = np.where(data["visible"][..., None], data["points"], 500.0)
    for kind, shift in (("same", 0), ("moved", np.array([3, 4]))):
        (tmp_path / kind).mkdir()
        landmarks = np.concatenate([points[0], np.zeros((34, 2))])
        np.savez(tmp_path / kind / "a.npz", landmarks=landmarks + shift)

    def run(kind: str, *overrides: str) -> dict:
        fixed = ["dataset=aflw_lfpa", f"data_dir={lfpa}", "device=cpu"]
        fixed += [f"predictions={tmp_path / kind}", f"dataset.table={table}"]
        return run_evaluation(composed("eval", *fixed, *overrides), tmp_path)

    report = run("same")
    assert report["metrics"]["nme_points_2d"]["mean"] == pytest.approx(0, abs=1e-9)
    assert report["missing"] == ["b/c"]
    assert report["notes"]["points_left_out"] == []
    report = run("moved", "protocol=aflw_lfpa")
    expected = 100 * 5 / np.sqrt(80 * 64)
    assert report["metrics"]["nme_points_2d"]["mean"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("names", np.array(["a", "a"]), "2 names, 1 different"),
        ("names", np.array(["a", "../b"]), "'../b' leaves its folder"),
        ("names", np.array([{}, {}]), "not a readable .npz file"),
        ("boxes", np.zeros((2, 4)), "the box of a has no area"),
        ("boxes", np.zeros((3, 4)), r"boxes: got \(3, 4\), expected \(2, 4\)"),
        ("points", np.full((2, 34, 2), np.nan), "visible points holds values that are not finite"),
        ("points", np.zeros((2, 21, 2)), r"points: got \(2, 21, 2\), expected \(2, 34, 2\)"),
        ("visible", np.full((2, 34), 2), "expected 0 or 1"),
        ("visible", np.zeros((2, 34)), "2 faces have no visible point"),
        ("yaws_deg", np.array([0, np.inf]), "yaws_deg holds values that are not finite"),
        ("yaws_deg", np.array([0, 1e308]), r"a yaw of 1e\+308, expected degrees"),
        ("pixel_origin", "middle", "pixel_origin: got 'middle'"),
    ],
)
def test_unusable_annotations(lfpa, key, value, message):
    path = lfpa / "AFLW_LFPA" / "landmarks.npz"
    np.savez(path, allow_pickle=True, **{**lfpa_content(), key: value})
    with pytest.raises(ValueError, match=message):
        AFLWLFPA(lfpa)


def test_annotations_that_are_not_there(lfpa):
    folder = lfpa / "AFLW_LFPA"
    (folder / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a: no picture"):
        AFLWLFPA(lfpa, crop=CropRule())[0]
    write_csv(folder / "landmarks.csv", lfpa_content())
    with pytest.raises(ValueError, match="keep one"):
        read_annotations(folder)
    (folder / "landmarks.npz").unlink()
    (folder / "landmarks.csv").write_text("name,x,y\n")
    with pytest.raises(ValueError, match="the first line is 'name,x,y', expected 'name,left,top,"):
        read_annotations(folder)
    write_csv(folder / "landmarks.csv", lfpa_content())
    lines = (folder / "landmarks.csv").read_text().splitlines()
    (folder / "landmarks.csv").write_text("\n".join([lines[0], lines[1] + ",1"]) + "\n")
    with pytest.raises(ValueError, match=r"line 2 is 'a,.* expected a name and 107 number"):
        read_annotations(folder)
    (folder / "landmarks.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"write it of the annotations"):
        read_annotations(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON object, found list"),
        ("{", "not readable as JSON"),
        (json.dumps({"groups": [[0]] * 33}), "got 33, expected 34"),
        (json.dumps({"groups": [None] * 34}), "every entry is null"),
        (json.dumps({"groups": [[68], *[None] * 33]}), r"groups\[0\] is \[68\]"),
        (json.dumps({"groups": [[], *[None] * 33]}), r"groups\[0\] is \[\]"),
        (json.dumps({"groups": [None] * 33 + [[True]]}), r"groups\[33\] is \[True\]"),
    ],
)
def test_unusable_tables(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(path)
    with pytest.raises(FileNotFoundError, match="no such table"):
        read_table(tmp_path / "other.json")
