"""Methods beside each other: tables, paired tests, curves, merged reports."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from prnet.compare import chosen_protocols, compare
from prnet.entry import CONFIG_DIR, shipped_values
from prnet.entry import shipped as shipped_configuration
from prnet.evaluation.report import ScoredImage, make_report, with_statistics
from prnet.metrics.statistics import paired_difference
from prnet.reports.comparison import comparisons, paired_tests, remarks_of, to_markdown
from prnet.reports.methods import Entry, entries_of_reports, method_names
from prnet.reports.reading import read_report
from prnet.reports.shipped import Shipped
from prnet.reports.writing import write_report
from tests.configurations import composed
from tests.evaluations import means, run, shipped, true_vertices
from tests.tiny import AFLW2000_YAWS_DEG

NAMES = sorted(AFLW2000_YAWS_DEG)
METRICS = ["nme_68_2d", "nme_68_3d"]
SHIPPED = Shipped(**shipped_configuration())
MEANS = {"mean": 1.0, "mean_of_bins": 1.0, "std_of_bins": 0.0}
PARTS = "protocol.parts=true"


def entry(method: str, errors: dict[str, float], protocol: str = "3ddfa", **options) -> Entry:
    lacking = dict.fromkeys(shipped(protocol).metrics[1:], "no vertices")
    images = [
        ScoredImage(name, 5.0, {"nme_68_2d": error}, lacking) for name, error in errors.items()
    ]
    report = make_report(
        images, shipped(protocol), dataset="aflw2000", source=f"predictions {method}", **options
    )
    return Entry(method, protocol, with_statistics(report))


@pytest.fixture(scope="module")
def methods(tiny_data_dir, tmp_path_factory) -> dict[str, Path]:
    """`good` errs by 1 px of noise, `bad` by 4; `bad` has no prediction of the last image."""
    random = np.random.default_rng(0)
    folders = {}
    for method, size in (("good", 1.0), ("bad", 4.0)):
        folders[method] = tmp_path_factory.mktemp("predictions") / method
        folders[method].mkdir()
        for name in NAMES[: -1 if method == "bad" else None]:
            points = true_vertices(tiny_data_dir, name, "matlab")[:68]
            np.savez(
                folders[method] / f"{name}.npz",
                landmarks=points + random.normal(0, size, points.shape),
                pixel_origin="matlab",
            )
    return folders


def compared(tiny_data_dir: Path, output: Path, *overrides: str) -> list[Path]:
    """`python -m prnet.compare`, in this process."""
    arguments = [f"data_dir={tiny_data_dir}", f"output={output}", "device=cpu", *overrides]
    return compare(composed("compare", *arguments))


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_predictions_under_several_protocols(tiny_data_dir, methods, tmp_path):
    """The numbers are those of eval; tests on the images that both have; curves of both."""
    output = tmp_path / "out"
    folders = f"predictions=[{methods['good']},{methods['bad']}]"
    written = compared(tiny_data_dir, output, folders, "protocols=[2dasl,default]")
    assert all(path.is_file() for path in written)
    rows = {(r["protocol"], r["metric"], r["method"]): r for r in rows_of(output / "compare.csv")}
    assert set(rows) == {
        (protocol, metric, method)
        for protocol in ("2dasl", "default")
        for metric in METRICS
        for method in ("good", "bad")
    }
    for method, folder in methods.items():
        for protocol in ("2dasl", "default"):
            report = run(tiny_data_dir, tmp_path, f"predictions={folder}", f"protocol={protocol}")
            for metric, mean in means(report).items():
                row = rows[protocol, metric, method]
                assert float(row["mean"]) == pytest.approx(mean, rel=1e-5)
                interval = report["metrics"][metric]["interval"]
                assert float(row["low"]) == pytest.approx(interval["low"], rel=1e-5)
                assert int(row["count"]) == report["count"]
                bins = report["metrics"][metric]["bins"]
                assert float(row["60-90"]) == pytest.approx(bins["60-90"]["mean"], rel=1e-5)
            saved = json.loads((output / f"reports/{method}_aflw2000_{protocol}.json").read_text())
            assert saved["images"] == report["images"]
    pairs = rows_of(output / "paired.csv")
    assert len(pairs) == 4
    for pair in pairs:
        assert (pair["first"], pair["second"], pair["count"]) == ("good", "bad", "5")
        assert float(pair["difference"]) < 0
        assert pair["first_lower"] == "1"
        assert float(pair["p"]) == 2 / 2**5
    text = (output / "compare.md").read_text()
    good = means(run(tiny_data_dir, tmp_path, f"predictions={methods['good']}", "protocol=2dasl"))
    assert f"| **{good['nme_68_2d']:.3f}** (" in text
    assert "| aflw2000 | 2dasl | 68 landmarks, 2D, % | 5 / 6 |" in text
    assert f"bad: images without a prediction: 1: {NAMES[-1]}" in text
    assert "means are not over the same images, 5 are common to all" in text
    assert "good under 2dasl: no nme_dense_2d, nme_dense_3d, nme_rec: no vertices" in text
    curve = rows_of(output / "curves" / "aflw2000_2dasl_nme_68_2d_ced.csv")
    assert list(curve[0]) == ["error", "good", "bad"]
    assert all(float(row["good"]) >= float(row["bad"]) for row in curve)


def test_all_protocols_leave_out_what_cannot_be(tiny_data_dir, methods, tmp_path):
    compared(tiny_data_dir, tmp_path, f"predictions=[{methods['good']}]")
    protocols = {row["protocol"] for row in rows_of(tmp_path / "compare.csv")}
    assert protocols == {"default", "2dasl", "3ddfa", "sadrnet"}
    text = (tmp_path / "compare.md").read_text()
    assert "protocol prn left out: " in text
    assert "yaw_new.csv is missing" in text
    for empty in ("pose", "aflw", "aflw_lfpa", "reconstruction_icp_rigid"):
        assert f"protocol {empty}: nothing to score here" in text
    assert rows_of(tmp_path / "paired.csv") == []


def test_saved_reports_are_merged(tiny_data_dir, methods, tmp_path):
    """Two files give what their predictions give; a report joins predictions of its own source."""
    for method, folder in methods.items():
        report = run(tiny_data_dir, tmp_path, f"predictions={folder}", "protocol=2dasl")
        write_report(report, tmp_path / f"{method}.json")
    compared(tiny_data_dir, tmp_path / "r", f"reports=[{tmp_path}/bad.json,{tmp_path}/good.json]")
    folders = f"predictions=[{methods['bad']},{methods['good']}]"
    compared(tiny_data_dir, tmp_path / "p", folders, "protocols=2dasl")
    for name in ("compare.md", "compare.csv", "paired.csv"):
        assert (tmp_path / "r" / name).read_text() == (tmp_path / "p" / name).read_text()
    mixed = [f"predictions=[{methods['bad']}]", f"reports=[{tmp_path}/go*.json]"]
    compared(tiny_data_dir, tmp_path / "m", *mixed, "protocols=[2dasl]")
    assert (tmp_path / "m" / "paired.csv").read_text() == (tmp_path / "p/paired.csv").read_text()
    again = [f"predictions=[{methods['bad']}]", f"reports=[{tmp_path}/bad.json]"]
    with pytest.raises(ValueError, match="bad has two reports on aflw2000 under protocol 2dasl"):
        compared(tiny_data_dir, tmp_path / "m", *again, "protocols=[2dasl]")


def test_two_reports_of_one_source_are_called_by_their_files(tmp_path):
    """Under one protocol; a third, under another, keeps the method's name."""
    for name, protocol in (("onnx", "default"), ("torch", "default"), ("other", "2dasl")):
        made = entry("a", {"i1": 1.0, "i2": 2.0}, protocol).report
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    entries, _ = entries_of_reports([f"{tmp_path}/*.json"], SHIPPED)
    onnx, other, torch = (one.method for one in entries)
    assert other == "a"
    assert (onnx, torch) == (f"a, {tmp_path}/onnx.json", f"a, {tmp_path}/torch.json")
    (both, _) = comparisons(entries)[:2]
    assert list(both.reports) == [onnx, torch]


def test_reports_of_earlier_versions_are_read(tmp_path):
    """Without intervals and with the fields that protocols had then."""
    report = entry("a", {"i1": 1.0, "i2": 2.0}).report
    later = ("pose", "curve", "balanced", "parts")
    values = {k: v for k, v in report["protocol"].items() if k not in later}
    old = {k: v for k, v in report.items() if k not in ("left_out", "balanced", "intervals")}
    (tmp_path / "old.json").write_text(json.dumps({**old, "protocol": values}))
    write_report(report, tmp_path / "new.json")
    ((first,), (second,)), remarks = zip(
        *(entries_of_reports([str(tmp_path / name)], SHIPPED) for name in ("old.json", "new.json")),
        strict=True,
    )
    assert first.report["metrics"] == second.report["metrics"]
    assert first.protocol == second.protocol == "3ddfa"
    assert remarks == ([], [])


def changed_report(tmp_path, **changes) -> Path:
    """A report of two images with errors 1 and 3, and something changed in its first metric."""
    report = entry("a", {"i1": 1.0, "i2": 3.0}).report
    report["metrics"]["nme_68_2d"].update(changes)
    (tmp_path / "r.json").write_text(json.dumps(report))
    return tmp_path / "r.json"


def test_means_are_those_of_the_images_whatever_a_report_states(tmp_path):
    """Means, bins and intervals; and it is said."""
    interval = {"low": 0.1, "high": 0.2}
    bins = {"0-30": {"mean": 0.1, "n": 2}, "30-60": {"mean": None, "n": 0}}
    bins["60-90"] = {"mean": None, "n": 0}
    path = changed_report(tmp_path, mean=0.1, interval=interval, bins=bins, median=0.1)
    (found,), (remark,) = entries_of_reports([str(path)], SHIPPED)
    assert found.report["metrics"] == entry("a", {"i1": 1.0, "i2": 3.0}).report["metrics"]
    assert str(path) in remark
    assert "states nme_68_2d.mean as 0.100, its images give 2.000, which is taken" in remark
    written = compare(composed("compare", f"reports=[{path}]", f"output={tmp_path}/out"))
    text = written[0].read_text()
    assert "| 2.000 (1.000 to 3.000) |" in text
    assert remark in text
    table = read_report(path, SHIPPED.protocols["default"])
    assert table.metrics["nme_68_2d"]["mean"] == 2.0
    assert table.remarks == (remark.partition("r.json: ")[2],)


def test_a_report_without_images_says_so(tmp_path):
    """Its means stand without interval, curve and test; one over two of three bins is none."""
    path = changed_report(tmp_path, mean_of_bins=1.5)
    report = json.loads(path.read_text())
    del report["images"]
    path.write_text(json.dumps(report))
    whole = tmp_path / "whole.json"
    write_report({**entry("b", {"i1": 2.0}).report, "source": "predictions b"}, whole)
    written = compare(composed("compare", f"reports=[{path},{whole}]", f"output={tmp_path}/out"))
    text = written[0].read_text()
    assert "a: " + str(path) + ": its means are as the file states them: it has no images" in text
    assert "| aflw2000 | 3ddfa | 68 landmarks, 2D, % | 1 / 2 | **2.000** | **2.000** (2.0" in text
    assert "no mean of bins of a, b: no image in 30-60, 60-90" in text
    first, second = rows_of(tmp_path / "out" / "compare.csv")
    assert (first["mean"], first["low"], first["mean_of_bins"], first["0-30"]) == ("2", "", "", "2")
    assert second["low"] == "2"
    assert rows_of(tmp_path / "out" / "paired.csv") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"name": "a"}]}, "r.json: a: no 'yaw_deg', expected int or float"),
        ({"images": [{"name": "a", "yaw_deg": 1.0, "nme_68_2d": float("nan")}]}, "a: .* is nan"),
        ({"images": [{"name": "a", "yaw_deg": 1.0, "nme_68_2d": -1.0}]}, "got -1, expected none"),
        ({"protocol": {"name": "x", "z_alignment": "median"}}, "z_alignment: got 'median'"),
        ({"metrics": {"nme": {**MEANS, "bins": {}}}}, "i1: no 'nme', expected int or float"),
    ],
)
def test_foreign_reports_are_refused(tmp_path, change, message):
    report = {**entry("a", {"i1": 1.0}).report, **change}
    (tmp_path / "r.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match=message) as caught:
        entries_of_reports([str(tmp_path / "r.json")], SHIPPED)
    assert str(tmp_path / "r.json") in str(caught.value)


def test_parts_stand_beside_each_other(tiny_data_dir, methods, tmp_path):
    """Those that eval reports, from predictions and from saved reports alike."""
    folders = f"predictions=[{methods['good']},{methods['bad']}]"
    written = compared(tiny_data_dir, tmp_path / "p", folders, "protocols=2dasl", PARTS)
    figure = tmp_path / "p" / "parts_aflw2000_2dasl.png"
    assert figure in written
    assert figure.stat().st_size > 10_000
    for method, folder in methods.items():
        report = run(tiny_data_dir, tmp_path, f"predictions={folder}", "protocol=2dasl", PARTS)
        write_report(report, tmp_path / f"{method}.json")
    names = f"reports=[{tmp_path}/good.json,{tmp_path}/bad.json]"
    compared(tiny_data_dir, tmp_path / "r", names)
    sections = [
        (tmp_path / place / "compare.md").read_text().partition("## Pose or shape?")[2]
        for place in "pr"
    ]
    assert sections[0] == sections[1]
    assert "| mean of bins | good | bad |" in sections[0]
    (shape,) = [line for line in sections[0].splitlines() if "3D similarity given" in line]
    good, bad = (float(cell) for cell in shape.split("|")[2:4])
    assert 0 < good < bad


def test_pairs_are_of_the_images_that_both_have():
    first = entry("first", {"a": 1.0, "b": 2.0, "c": 9.0})
    second = entry("second", {"b": 3.0, "c": 4.0, "d": 1.0})
    (pair,) = paired_tests(comparisons([first, second]))
    assert pair.found == paired_difference([2.0, 9.0], [3.0, 4.0])
    apart = entry("apart", {"x": 1.0})
    assert paired_tests(comparisons([first, apart])) == []


def test_images_left_out_are_not_paired():
    """One image beyond 99 degrees is in no test."""
    images = [
        ScoredImage("a", 0.0, {"pose_mae": 1.0}, {}),
        ScoredImage("b", 0.0, {"pose_mae": 80.0}, {}, frozenset(["pose_mae"])),
    ]
    report = make_report(
        images, shipped("pose", "protocol.metrics=[pose_mae]"), dataset="d", source="s"
    )
    report = with_statistics(report)
    (pair,) = paired_tests(comparisons([Entry("m", "pose", report), Entry("n", "pose", report)]))
    assert pair.found.count == 1


def test_what_differs_is_not_compared():
    """Other protocols and other data sets are lines of their own."""
    other = entry("b", {"a": 2.0})
    other.report["dataset"] = "synthetic"
    found = comparisons([entry("a", {"a": 1.0}), other, entry("b", {"a": 1.0}, "2dasl")])
    assert [list(comparison.reports) for comparison in found] == [["a"], ["b"], ["b"]]
    text = to_markdown([entry("a", {"a": 1.0})], [], [])
    assert "**" not in text.split("Bold")[0]
    assert "Is the difference real" not in text


def test_remarks_name_everything_once():
    options = {"missing": ["q"], "unknown": ["z"]}
    remarks = remarks_of(
        [entry("a", {"a": 1.0}, **options), entry("a", {"a": 1.0}, "2dasl", **options)]
    )
    assert sum("images without a prediction: 1: q" in remark for remark in remarks) == 1
    assert sum("predictions without an image: 1: z" in remark for remark in remarks) == 1


def test_method_names():
    assert method_names(["p/prnet", "q/prnet", "p/2dasl/"]) == {
        "p/prnet": "p/prnet",
        "q/prnet": "q/prnet",
        "p/2dasl/": "2dasl",
    }
    with pytest.raises(ValueError, match="a folder is there twice: a, a"):
        method_names(["a", "a"])


def test_protocols_by_name():
    """As eval composes them, parents and all, and with a field changed in each."""
    for protocol in chosen_protocols("all", "data", {}):
        assert protocol == shipped(protocol.name)
    assert chosen_protocols("all", "data", {})[0].name == "default"
    changed = chosen_protocols(["prn", "3ddfa"], "/d", {"drop_worst": 20, "crop": {"jitter": 0.1}})
    assert [(p.drop_worst, p.crop.jitter) for p in changed] == [(20, 0.1)] * 2
    assert changed[0].yaw_labels == "/d/AFLW2000/yaw_new.csv"
    with pytest.raises(ValueError, match="protocols: got 'vrn', expected all or some of 2dasl"):
        chosen_protocols("vrn", "data", {})
    with pytest.raises(ValueError, match="z_alignment: got 'median'"):
        chosen_protocols(["prn"], "data", {"z_alignment": "median"})


def test_shipped_protocol_takes_what_its_parents_have():
    assert shipped_values("protocol", "nothing") is None
    values = shipped_values("protocol", "aflw")
    assert values["name"] == "aflw"
    assert (values["dense"], values["z_alignment"]) == ("vertices", "min")
    assert "defaults" not in values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to compare"),
        (["predictions=a"], "predictions: got 'a', expected a list"),
        (["reports=[nowhere/*.json]"], "reports: no file matches 'nowhere/\\*.json'"),
        (["predictions=[nowhere]", "protocols=[2dasl]"], "nowhere: no such folder"),
        (["predictions=[a]", "protocols=[2dasl,dasl]"], "protocols: got 'dasl'"),
    ],
)
def test_contradictions_are_refused(tiny_data_dir, tmp_path, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        compared(tiny_data_dir, tmp_path, *arguments)


def test_nothing_computed_is_an_error(tiny_data_dir, methods, tmp_path):
    with pytest.raises(ValueError, match="no metric could be computed: the data set has no points"):
        compared(tiny_data_dir, tmp_path, f"predictions=[{methods['good']}]", "protocols=[aflw]")


def test_help_names_every_option():
    text = Path(CONFIG_DIR, "compare.yaml").read_text()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        options = set(compose("compare")) - {"dataset", "face", "override", "protocol"}
    assert [option for option in options if f"{option}=" not in text] == []


def test_command(tiny_data_dir, methods, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "prnet.compare"),
            f"data_dir={tiny_data_dir}",
            f"predictions=[{methods['good']},{methods['bad']}]",
            "protocols=[2dasl]",
            "+override.metrics=[nme_68_2d]",
            "output=out",
            "device=cpu",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Is the difference real?" in done.stdout
    assert "Made by prnet " in done.stdout
    assert "`python -m prnet.compare data_dir=" in done.stdout
    assert [row["metric"] for row in rows_of(tmp_path / "out" / "paired.csv")] == ["nme_68_2d"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
