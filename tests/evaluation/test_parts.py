"""Pose or shape in a report: of which images, by which bins, and why there are none."""

import numpy as np
import pytest
import torch

from prnet.evaluation.parts import NO_FRONTAL, NUM_WORST, LandmarkPairs
from prnet.evaluation.report import with_means
from prnet.metrics.parts import HOLDINGS, PARTS, error_parts, mean_head
from prnet.reports.parts import parts_text
from prnet.reports.writing import to_markdown
from tests.evaluations import NAMES, run, true_vertices
from tests.tiny import AFLW2000_YAWS_DEG

PARTS_GIVEN = "protocol.parts=true"
LANDMARKS = "protocol.metrics=[nme_68_2d]"


@pytest.fixture(scope="module")
def predictions(tiny_data_dir, tmp_path_factory):
    """The true landmarks with noise, and what they are, (6, 68, 3) each."""
    folder = tmp_path_factory.mktemp("predictions")
    random = np.random.default_rng(0)
    truth = np.stack([true_vertices(tiny_data_dir, name, "matlab")[:68] for name in NAMES])
    predicted = truth + random.normal(0, 2, truth.shape)
    for name, points in zip(NAMES, predicted, strict=True):
        np.savez(folder / f"{name}.npz", landmarks=points, pixel_origin="matlab")
    return folder, torch.from_numpy(predicted), torch.from_numpy(truth)


def test_parts_are_those_of_the_landmarks_scored(tiny_data_dir, predictions, tmp_path):
    """Each image's, their means by the protocol's bins; as it is, it is the metric itself."""
    folder, predicted, truth = predictions
    report = run(tiny_data_dir, tmp_path, f"predictions={folder}", LANDMARKS, PARTS_GIVEN)
    frontal = torch.tensor([abs(AFLW2000_YAWS_DEG[name]) < 10 for name in NAMES])
    expected = error_parts(predicted, truth, mean_head(truth[frontal]))
    for index, row in enumerate(report["images"]):
        assert list(row["parts"]) == [*PARTS, *HOLDINGS]
        for name, values in expected.items():
            assert row["parts"][name] == pytest.approx(values[index].item(), abs=1e-3), name
        assert row["parts"]["as_it_is"] == pytest.approx(row["nme_68_2d"])
    parts = report["parts"]
    own, metric = parts["quantities"]["as_it_is"], report["metrics"]["nme_68_2d"]
    assert own["mean_of_bins"] == pytest.approx(metric["mean_of_bins"])
    assert sum(group["n"] for group in parts["tilt"]) == len(NAMES)
    assert sum(group["n"] for group in parts["elevation"]) == len(NAMES)
    worst = [one["error"] for one in parts["worst"]]
    assert worst == sorted(worst, reverse=True)
    assert len(worst) == min(len(NAMES), NUM_WORST)
    text = (tmp_path / "report.md").read_text()
    assert text.index("## Pose or shape?") < text.index("## Protocol")
    shape = parts["quantities"]["true_similarity_3d"]
    assert f"| true 3D similarity given (shape), % | {shape['bins']['0-30']['mean']:.3f} |" in text
    assert (tmp_path / "report_parts.png").stat().st_size > 10_000


def test_parts_are_of_the_images_that_the_mean_is_over(tiny_data_dir, predictions, tmp_path):
    folder, *_ = predictions
    options = [f"predictions={folder}", LANDMARKS, PARTS_GIVEN, "protocol.drop_worst=1"]
    report = run(tiny_data_dir, tmp_path, *options)
    assert report["parts"]["quantities"]["as_it_is"]["mean"] == pytest.approx(
        report["metrics"]["nme_68_2d"]["mean"]
    )
    assert with_means(report)["parts"] == report["parts"]


def test_without_the_option_there_are_none(tiny_data_dir, predictions, tmp_path):
    report = run(tiny_data_dir, tmp_path, f"predictions={predictions[0]}", LANDMARKS)
    assert "parts" not in report
    assert "Pose or shape" not in to_markdown(report)


def test_why_there_are_none_is_said():
    face = torch.randn(3, 68, 3, dtype=torch.float64)
    yaws = {"a": 50.0, "b": 5.0, "c": 5.0}
    for predicted, lacking in (
        (None, "one side has no 68 landmarks"),
        (face[..., :2], "the landmarks have no z"),
        (0 * face, "the 68 landmarks lie on a line or in a point (3: a, b, c)"),
    ):
        pairs = LandmarkPairs()
        pairs.add(list(yaws), predicted, face)
        assert pairs.parts(yaws) == ({}, lacking)
    pairs = LandmarkPairs()
    pairs.add(["a"], face[:1], face[:1])
    assert pairs.parts(yaws) == ({}, NO_FRONTAL)
    pairs.add(["b"], None, face[1:2])
    assert pairs.parts(yaws) == ({}, "one side has no 68 landmarks (1: b)")
    assert parts_text({"not_computed": NO_FRONTAL}).endswith(f"Not computed: {NO_FRONTAL}")


def test_flipped_predictions_are_hinted_at(tiny_data_dir, predictions, tmp_path):
    """In the report, in its Markdown before the numbers; not where nothing is wrong."""
    folder, predicted, _ = predictions
    for name, points in zip(NAMES, predicted.numpy(), strict=True):
        flipped = points * [1, -1, 1] + [0, 200, 0]
        np.savez(tmp_path / f"{name}.npz", landmarks=flipped, pixel_origin="matlab")
    report = run(tiny_data_dir, tmp_path, f"predictions={tmp_path}", LANDMARKS)
    (hint,) = report["hints"]
    assert "y seems to be flipped" in hint
    text = (tmp_path / "report.md").read_text()
    assert text.index(hint) < text.index("| 68 landmarks, 2D |")
    assert "hints" not in run(tiny_data_dir, tmp_path, f"predictions={folder}", LANDMARKS)
