"""Bins and means, the report's schema, its Markdown and its figure."""

import json
import math

import cv2
import numpy as np
import pytest

from prnet.report import (
    ScoredImage,
    make_report,
    name_list,
    require_json_name,
    summarize,
    to_markdown,
    write_report,
)
from prnet.visualize import draw_ced
from tests.test_nme import shipped

METRICS = ("nme_68_2d", "nme_68_3d", "nme_dense_2d", "nme_dense_3d")


def scored(name, yaw_deg, value, *, lacking=()) -> ScoredImage:
    errors = {metric: value + i for i, metric in enumerate(METRICS) if metric not in lacking}
    return ScoredImage(name, yaw_deg, errors, dict.fromkeys(lacking, "no vertices"))


def report_of(images, protocol="default", **values) -> dict:
    return make_report(
        images, shipped(protocol), dataset="aflw2000", source="predictions DIR", **values
    )


def test_summary_known_values():
    """Mean of bins is not the mean; the std is the population's over the bins' means."""
    errors = [1.0, 2.0, 3.0, 4.0, 10.0, 20.0]
    yaws_deg = [0.0, -30.0, 30.0, 30.5, -60.0, 170.0]
    summary = summarize(errors, yaws_deg, shipped("default"))
    assert summary["bins"] == {
        "0-30": {"mean": 2.0, "n": 3},
        "30-60": {"mean": 7.0, "n": 2},
        "60-90": {"mean": 20.0, "n": 1},
    }
    assert summary["mean"] == pytest.approx(40 / 6)
    assert summary["mean_of_bins"] == pytest.approx(29 / 3)
    variance = ((2 - 29 / 3) ** 2 + (7 - 29 / 3) ** 2 + (20 - 29 / 3) ** 2) / 3
    assert summary["std_of_bins"] == pytest.approx(math.sqrt(variance))
    assert summary["bins_used"] == ["0-30", "30-60", "60-90"]


def test_empty_bins_have_no_mean_and_no_part_in_the_means():
    summary = summarize([2.0, 4.0, 9.0], [10.0, -20.0, 80.0], shipped("default"))
    assert summary["bins"]["30-60"] == {"mean": None, "n": 0}
    assert summary["bins_used"] == ["0-30", "60-90"]
    assert summary["mean_of_bins"] == 6.0
    assert summary["std_of_bins"] == 3.0
    alone = summarize([2.0], [10.0], shipped("default"))
    assert (alone["mean_of_bins"], alone["std_of_bins"]) == (2.0, 0.0)


def test_schema_is_exactly_the_documented_one():
    report = report_of([scored("b", -31.5, 2.0), scored("a", 3.0, 1.0)], missing={"d", "c"})
    assert list(report) == [
        "dataset",
        "source",
        "count",
        "protocol",
        "metrics",
        "images",
        "missing",
        "unknown",
        "not_computed",
    ]
    assert report["count"] == 2
    assert report["images"] == [
        {"name": "a", "yaw_deg": 3.0, **{m: 1.0 + i for i, m in enumerate(METRICS)}},
        {"name": "b", "yaw_deg": -31.5, **{m: 2.0 + i for i, m in enumerate(METRICS)}},
    ]
    assert report["missing"] == ["c", "d"]
    assert report["unknown"] == []
    assert report["not_computed"] == {}
    assert list(report["metrics"]) == list(METRICS)
    for summary in report["metrics"].values():
        assert list(summary) == ["mean", "mean_of_bins", "std_of_bins", "bins", "bins_used"]
        assert list(summary["bins"]) == ["0-30", "30-60", "60-90"]
        assert all(list(entry) == ["mean", "n"] for entry in summary["bins"].values())
    assert report["protocol"] == shipped("default").to_values()
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_only_the_metrics_of_the_protocol_appear():
    images = [
        ScoredImage("a", 0.0, {"nme_68_2d": 1.0, "nme_dense_2d": 2.0}, {}),
    ]
    report = report_of(images, "3ddfa")
    assert list(report["metrics"]) == ["nme_68_2d", "nme_dense_2d"]
    assert report["not_computed"] == {}


def test_a_metric_is_over_all_images_or_not_computed():
    """One image without vertices takes the dense metrics away from all, and is named."""
    dense = METRICS[2:]
    images = [scored("a", 0.0, 1.0), scored("b", 0.0, 1.0, lacking=dense), scored("c", 0.0, 1.0)]
    report = report_of(images)
    assert list(report["metrics"]) == list(METRICS[:2])
    assert report["not_computed"] == dict.fromkeys(dense, "no vertices (1: b of 3)")
    assert all(list(row) == ["name", "yaw_deg", *METRICS[:2]] for row in report["images"])
    everywhere = report_of([scored("b", 0.0, 1.0, lacking=dense)])
    assert everywhere["not_computed"] == dict.fromkeys(dense, "no vertices")


def test_what_is_not_a_number_is_refused_with_the_image():
    with pytest.raises(ValueError, match="image7: nme_68_2d is nan"):
        report_of([scored("image1", 0.0, 1.0), scored("image7", 0.0, math.nan)])
    with pytest.raises(ValueError, match="no image was scored"):
        report_of([])


def test_written_report_comes_back(tmp_path):
    images = [scored("a", 3.0, 1.0), scored("b", -70.0, 2.0)]
    report = report_of(images, "prn", missing=["c"], unknown=["x"])
    written = write_report(report, tmp_path / "sub" / "table.json")
    names = ["table.json", "table.md", "table.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == names
    assert json.loads(written[0].read_text()) == report
    assert cv2.imread(str(written[2])).shape[0] > 300


def test_markdown_holds_the_numbers_and_every_field_of_the_protocol():
    images = [scored("a", 3.0, 1.25), scored("b", -70.0, 2.0)]
    images = [image._replace(errors=dict(list(image.errors.items())[:3])) for image in images]
    images = [image._replace(lacking={"nme_dense_3d": "a reason"}) for image in images]
    report = report_of(images, "2dasl", missing=["c"], unknown=["x"])
    text = to_markdown(report)
    assert "| 68 landmarks, 2D | 1.250 | - | 2.000 | 1.625 | 0.375 | 1.625 |" in text
    assert "| images | 1 | 0 | 1 | | | 2 |" in text
    assert "scored in the coordinates they are stored in" in text
    assert "Not computed: dense, 3D: a reason" in text
    assert "Images without a prediction: 1: c" in text
    assert "Predictions without an image: 1: x" in text
    for field, value in report["protocol"].items():
        if field == "crop":
            for crop_field in value:
                assert f"| crop.{crop_field} |" in text
        else:
            assert f"| {field} |" in text
    assert "are converted to the pixel origin" in to_markdown(report_of(images, "default"))


def test_report_without_a_metric_has_no_figure(tmp_path):
    report = report_of([scored("a", 0.0, 1.0, lacking=METRICS)])
    written = write_report(report, tmp_path / "r.json")
    assert [path.suffix for path in written] == [".json", ".md"]
    assert report["metrics"] == {}


def test_report_needs_a_json_name(tmp_path):
    with pytest.raises(ValueError, match="report=.*table.txt: expected .* ends in .json"):
        require_json_name(tmp_path / "table.txt")


def test_name_list_is_cut_short():
    assert name_list(["a", "b"]) == "2: a, b"
    assert name_list(map(str, range(12))) == "12: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."


def test_ced_figure_shows_its_curves(tmp_path):
    """A worse method lies lower: more of the figure between its curve and the other's is empty."""
    errors = np.random.default_rng(0).uniform(1, 3, 200)
    draw_ced({"good": errors}, tmp_path / "good.png")
    draw_ced({"good": errors + 4}, tmp_path / "bad.png")
    good, bad = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("good", "bad"))
    assert good.shape == bad.shape
    coloured = [np.ptp(picture.astype(int), axis=2) > 60 for picture in (good, bad)]
    columns = [np.argwhere(mask)[:, 1].mean() for mask in coloured]
    assert columns[0] != columns[1]
    # The steepest part of the curve, the column with most coloured pixels, moves right by 4 %.
    steep = [mask[: mask.shape[0] // 2].sum(0).argmax() for mask in coloured]
    assert steep[1] - steep[0] > 0.25 * good.shape[1]
    with pytest.raises(ValueError, match="empty: no error to draw"):
        draw_ced({"empty": []}, tmp_path / "none.png")
