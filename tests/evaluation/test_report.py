"""Bins and means, the report's schema, its Markdown and its figure."""

import csv
import hashlib
import json
import math

import cv2
import numpy as np
import pytest

from prnet.checks import name_list
from prnet.drawing.pictures import draw_ced
from prnet.evaluation.means import summarize
from prnet.evaluation.report import ScoredImage, make_report, with_statistics
from prnet.files import markdown_table
from prnet.metrics.statistics import bootstrap_interval
from prnet.reports.text import plain_table
from prnet.reports.writing import require_json_name, result_text, to_markdown, write_report
from tests.evaluations import shipped

METRICS = ("nme_68_2d", "nme_68_3d", "nme_dense_2d", "nme_dense_3d")
POSE_METRICS = ("pose_mae_yaw", "pose_mae_pitch", "pose_mae_roll", "pose_mae", "pose_geodesic")


def scored(name, yaw_deg, value, *, lacking=(), left_out=()) -> ScoredImage:
    errors = {metric: value + i for i, metric in enumerate(METRICS) if metric not in lacking}
    reasons = {**dict.fromkeys(lacking, "no vertices"), "nme_rec": "no surface"}
    return ScoredImage(name, yaw_deg, errors, reasons, frozenset(left_out))


def report_of(images, protocol="default", *overrides, **values) -> dict:
    return make_report(
        images,
        shipped(protocol, *overrides),
        dataset="aflw2000",
        source="predictions DIR",
        **values,
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


def test_a_mean_over_two_of_three_bins_is_no_mean_of_bins():
    """Neither in the report nor for people; the bins without an image are named."""
    summary = summarize([2.0, 4.0, 9.0], [10.0, -20.0, 80.0], shipped("default"))
    assert summary["bins"]["30-60"] == {"mean": None, "n": 0}
    assert summary["bins_used"] == ["0-30", "60-90"]
    assert summary["mean_of_bins"] is summary["std_of_bins"] is None
    assert summary["mean_of_bins_used"] == 6.0
    report = with_statistics(report_of([scored("a", 10.0, 3.0), scored("b", 80.0, 9.0)]))
    assert report["metrics"]["nme_68_2d"]["mean_of_bins_interval"] is None
    for said in (to_markdown(report), result_text(report, plain_table)):
        assert (
            "No mean of bins: no image in 30-60. Mean of the other bins: 68 landmarks, 2D" in said
        )
    assert "| 68 landmarks, 2D | 3.000 | - | 9.000 | - | - | 6.000 |" in to_markdown(report)


def test_every_bin_filled_needs_no_such_words():
    report = report_of([scored(f"i{k}", 30.0 * k + 1, float(k)) for k in range(3)])
    assert "No mean of bins" not in to_markdown(report)
    assert report["metrics"]["nme_68_2d"]["mean_of_bins"] == 1.0


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
        "left_out",
        "balanced",
    ]
    assert report["count"] == 2
    assert report["images"] == [
        {"name": "a", "yaw_deg": 3.0, **{m: 1.0 + i for i, m in enumerate(METRICS)}},
        {"name": "b", "yaw_deg": -31.5, **{m: 2.0 + i for i, m in enumerate(METRICS)}},
    ]
    assert report["missing"] == ["c", "d"]
    assert report["unknown"] == []
    assert report["not_computed"] == report["left_out"] == {}
    assert report["balanced"] is None
    assert list(report["metrics"]) == list(METRICS)
    for summary in report["metrics"].values():
        keys = ["mean", "mean_of_bins", "std_of_bins", "bins", "bins_used", "mean_of_bins_used"]
        assert list(summary) == keys
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
    names = ["table.json", "table.md", "table.png", "table_ced.csv"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == names
    assert json.loads(written[0].read_text()) == report
    assert cv2.imread(str(written[2])).shape[0] > 300


def test_markdown_holds_the_numbers_and_every_field_of_the_protocol():
    images = [scored("a", 3.0, 1.25), scored("b", -70.0, 2.0)]
    images = [image._replace(errors=dict(list(image.errors.items())[:3])) for image in images]
    images = [
        image._replace(lacking={"nme_dense_3d": "a reason", "nme_rec": "no surface"})
        for image in images
    ]
    report = report_of(images, "2dasl", missing=["c"], unknown=["x"])
    text = to_markdown(report)
    assert "| 68 landmarks, 2D | 1.250 | - | 2.000 | - | - | 1.625 |" in text
    # The result is what one reads first, the protocol comes last.
    assert text.index("| 68 landmarks, 2D |") < 300 < text.index("| pixel_origin |")
    assert "| images | 1 | 0 | 1 | | | 2 |" in text
    assert "scored in the coordinates they are stored in" in text
    assert "Not computed: dense, 3D: a reason" in text
    assert "Images without a prediction: 1: c" in text
    assert "Predictions without an image: 1: x" in text
    assert "No balanced subset: of 232 images a bin, 0-30 has 1, 30-60 has 0, 60-90 has 1" in text
    for field, value in report["protocol"].items():
        if isinstance(value, dict):
            for part in value:
                assert f"| {field}.{part} |" in text
        else:
            assert f"| {field} |" in text
    assert "are converted to the pixel origin" in to_markdown(report_of(images, "default"))


def test_report_without_a_metric_has_no_figure(tmp_path):
    report = report_of([scored("a", 0.0, 1.0, lacking=METRICS)])
    written = write_report(report, tmp_path / "r.json")
    assert [path.suffix for path in written] == [".json", ".md"]
    assert report["metrics"] == {}


def pose_images(count: int = 30, *, step: float = 3.0) -> list[ScoredImage]:
    """Image k errs by k in everything; yaws from all bins, `step` degrees apart."""
    metrics = (*METRICS, "nme_rec", *POSE_METRICS)
    return [
        ScoredImage(f"i{k:02}", step * k, dict.fromkeys(metrics, float(k)), {})
        for k in range(count)
    ]


def test_percent_and_degrees_are_apart(tmp_path):
    """Two tables, two figures, two files of curves; each with its unit and limit."""
    report = with_statistics(report_of(pose_images(), "sadrnet"))
    assert report["metrics"]["nme_rec"]["unit"] == "%"
    assert report["metrics"]["pose_mae_yaw"]["unit"] == "deg"
    percent, degrees = result_text(report, markdown_table).split("\n\n")
    assert percent.startswith("| NME, % |")
    assert "| reconstruction (rec_sadrnet) |" in percent
    assert degrees.startswith("| head pose, deg |")
    assert [line.split(" |")[0] for line in degrees.splitlines()[2:]] == [
        "| yaw",
        "| pitch",
        "| roll",
        "| mean of yaw, pitch, roll",
        "| angle between the rotations",
        "| images",
    ]
    written = write_report(report, tmp_path / "r.json")
    names = ["r.json", "r.md", "r.png", "r_ced.csv", "r_pose.png", "r_pose_ced.csv"]
    assert [path.name for path in written] == names
    for name, limit, column in (
        ("r_ced.csv", 10, "68 landmarks, 2D"),
        ("r_pose_ced.csv", 20, "angle between the rotations"),
    ):
        rows = list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        # Errors go to 29: the curve goes on to where 95 % of them are, in the same steps.
        assert float(rows[-1]["error"]) == 30
        assert float(rows[1]["error"]) == limit / 100
        for row in rows:
            share = min((math.floor(float(row["error"]) + 1e-9) + 1) / 30, 1)
            assert float(row[column]) == pytest.approx(share, abs=1e-5)
    text = (tmp_path / "r.md").read_text()
    assert "95 % interval" in text
    assert "above 20 deg" in text


def test_statistics_of_a_metric():
    """Known values of a ladder; intervals hold their means and are those of the statistics."""
    report = with_statistics(report_of(pose_images(21, step=4), "sadrnet"))
    summary = report["metrics"]["nme_68_2d"]
    errors = np.arange(21.0)
    assert (summary["count"], summary["median"], summary["mean"]) == (21, 10.0, 10.0)
    assert summary["curve_area"] == pytest.approx(np.maximum(0, 1 - errors / 10).mean())
    assert summary["failure_rate"] == pytest.approx(10 / 21)
    assert report["metrics"]["pose_mae"]["failure_rate"] == 0
    for mean, interval in (("mean", "interval"), ("mean_of_bins", "mean_of_bins_interval")):
        assert summary[interval]["low"] < summary[mean] < summary[interval]["high"]
    expected = bootstrap_interval(errors)
    assert summary["interval"] == {"low": expected.low, "high": expected.high}
    first = summary["bins"]["0-30"]
    assert first["n"] == 8
    expected = bootstrap_interval(errors[:8])
    assert first["interval"] == {"low": expected.low, "high": expected.high}
    assert report["intervals"] == {"level": 0.95, "resamples": 10_000, "seed": 0}
    plain = report_of(pose_images(21, step=4), "sadrnet")
    for metric, own in plain["metrics"].items():
        assert all(summary[key] == own[key] for key in ("mean", "mean_of_bins", "std_of_bins"))
        assert set(own) < set(report["metrics"][metric])
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_bins_without_images_have_no_interval():
    report = with_statistics(report_of([scored("a", 3.0, 1.0), scored("b", 4.0, 3.0)]))
    bins = report["metrics"]["nme_68_2d"]["bins"]
    assert bins["30-60"] == {"mean": None, "n": 0, "interval": None}
    assert bins["0-30"]["interval"]["low"] <= 2.0 <= bins["0-30"]["interval"]["high"]


def test_what_made_a_report_stands_at_its_end():
    made = {"prnet": "9.9.9", "date": "2020-01-01T00:00:00+00:00", "command": "python -m x a=1"}
    checkpoint = {"file": "best.pt", "sha256": "abc"}
    report = {**report_of([scored("a", 0.0, 1.0)]), "made": {**made, "checkpoint": checkpoint}}
    last = to_markdown(report).strip().splitlines()[-1]
    assert last == (
        "Made by prnet 9.9.9 on 2020-01-01T00:00:00+00:00; `python -m x a=1`; "
        "checkpoint best.pt, sha256 abc"
    )


def test_tables_of_a_terminal_are_aligned():
    text = plain_table(["", "0-30", "mean"], [["a long name", "1.000", "22.000"], ["b", "-", ""]])
    assert text.splitlines() == [
        "              0-30    mean",
        "a long name  1.000  22.000",
        "b                -",
    ]


def test_images_left_out_are_named_and_keep_their_values():
    """A metric's mean, median and curve are without them; other metrics are as they were."""
    images = [
        scored("a", 0.0, 1.0),
        scored("b", 0.0, 5.0, left_out=["nme_68_3d"]),
        scored("c", 40.0, 3.0),
    ]
    report = with_statistics(report_of(images))
    assert report["left_out"] == {"nme_68_3d": ["b"]}
    assert report["metrics"]["nme_68_2d"]["mean"] == 3.0
    summary = report["metrics"]["nme_68_3d"]
    assert (summary["mean"], summary["count"], summary["median"]) == (3.0, 2, 3.0)
    assert summary["bins"]["0-30"]["n"] == 1
    assert report["images"][1]["nme_68_3d"] == 6.0
    text = to_markdown(report)
    assert "Left out of 68 landmarks, 3D: 1: b" in text
    assert "| images of 68 landmarks, 3D | 1 | 1 | 0 | | | 2 |" in text
    everybody = [image._replace(left_out=frozenset(["nme_68_3d"])) for image in images]
    none_left = report_of(everybody)
    assert none_left["not_computed"] == {"nme_68_3d": "the protocol leaves out every image"}
    assert "nme_68_3d" not in none_left["metrics"]


def test_the_worst_are_dropped_from_each_metric():
    """Each metric loses its own worst, of those it still has."""
    images = [scored(f"i{k}", 0.0, float(k)) for k in range(6)]
    images[0] = images[0]._replace(errors={**images[0].errors, "nme_68_3d": 99.0})
    images[5] = images[5]._replace(left_out=frozenset(["nme_dense_2d"]))
    report = report_of(images, "default", "protocol.drop_worst=2")
    assert report["left_out"] == {
        "nme_68_2d": ["i4", "i5"],
        "nme_68_3d": ["i0", "i5"],
        "nme_dense_2d": ["i3", "i4", "i5"],
        "nme_dense_3d": ["i4", "i5"],
    }
    assert report["metrics"]["nme_68_2d"]["mean"] == 1.5
    with pytest.raises(ValueError, match="drop_worst: got 6, there are 6 images"):
        report_of(images, "default", "protocol.drop_worst=6")


def test_balanced_subsets():
    """As many of each bin, by the seed, whatever the order and the errors of the images."""
    random = np.random.default_rng(0)
    yaws_deg = [
        *random.uniform(-30, 30, 60),
        *random.uniform(31, 60, 25),
        *random.uniform(61, 90, 9),
    ]
    images = [scored(f"i{k:03}", yaw, 10 * random.random()) for k, yaw in enumerate(yaws_deg)]
    overrides = ["protocol.balanced.per_bin=5", "protocol.balanced.draws=500"]
    report = report_of(images, "default", *overrides)
    again = report_of(images[::-1], "default", *overrides)["balanced"]
    found = report["balanced"]
    assert found == again
    assert (found["per_bin"], found["draws"], found["seed"]) == (5, 500, 0)
    for metric, values in found["metrics"].items():
        expected = report["metrics"][metric]["mean_of_bins"]
        error = values["std_of_draws"] / 500**0.5
        assert abs(values["mean_of_draws"] - expected) < 4 * error
        assert values["std_of_draws"] > 0.1
    other = [i._replace(errors={m: 7.0 for m in METRICS}) for i in images]
    same_names = report_of(other, "default", *overrides)["balanced"]
    assert same_names["names_sha256"] == found["names_sha256"]
    constant = {"mean": 7.0, "mean_of_draws": 7.0, "std_of_draws": 0.0}
    assert same_names["metrics"] == {metric: constant for metric in METRICS}
    moved = report_of(images, "default", *overrides, "protocol.balanced.seed=1")["balanced"]
    assert moved["names_sha256"] != found["names_sha256"]
    assert found["names_sha256"] in to_markdown(report)
    names = found["names"]
    assert names == sorted(set(names))
    assert len(names) == 15
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == found["names_sha256"]
    yaws = {image.name: abs(image.yaw_deg) for image in images}
    assert sum(yaws[name] <= 30 for name in names) == sum(yaws[name] > 60 for name in names) == 5
    assert f"the first has 15: {', '.join(names[:10])}, ..." in to_markdown(report)


def test_all_of_each_bin_is_the_mean_of_bins():
    """The whole data set is the only draw where a bin has no more images: none comes twice."""
    images = [scored(f"i{k}", 30.0 * (k % 3) + 1, float(k)) for k in range(12)]
    report = report_of(images, "default", "protocol.balanced.per_bin=4")
    values = report["balanced"]["metrics"]["nme_68_2d"]
    assert values == {"mean": 5.5, "mean_of_draws": 5.5, "std_of_draws": 0.0}
    names = "\n".join(sorted(image.name for image in images))
    assert report["balanced"]["names_sha256"] == hashlib.sha256(names.encode()).hexdigest()


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
    draw_ced({"good": errors + 4}, tmp_path / "wide.png", reach=20)
    good, bad = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("good", "bad"))
    assert good.shape == bad.shape
    coloured = [np.ptp(picture.astype(int), axis=2) > 60 for picture in (good, bad)]
    columns = [np.argwhere(mask)[:, 1].mean() for mask in coloured]
    assert columns[0] != columns[1]
    # The steepest part of the curve, the column with most coloured pixels, moves right by 4 %.
    steep = [mask[: mask.shape[0] // 2].sum(0).argmax() for mask in coloured]
    assert steep[1] - steep[0] > 0.25 * good.shape[1]
    # An axis that reaches twice as far has the curve nearer to its start.
    wide = np.ptp(cv2.imread(str(tmp_path / "wide.png")).astype(int), axis=2) > 60
    assert steep[1] - wide[: wide.shape[0] // 2].sum(0).argmax() > 0.2 * good.shape[1]
    with pytest.raises(ValueError, match="empty: no error to draw"):
        draw_ced({"empty": []}, tmp_path / "none.png")
