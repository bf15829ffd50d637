"""The six reconstruction errors: moved truth, known values, direct computations, refusals."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from prnet.geometry.icp import IcpRule, icp
from prnet.metrics.reconstruction import (
    RECONSTRUCTION_METRICS,
    reconstruction_error,
    reconstruction_unit,
)

UNIT = 40.0
TURN = Rotation.from_rotvec([0.05, -0.03, 0.04]).as_matrix()
BY_INDEX = ("procrustes_corr", "rec_sadrnet", "rec_2dasl")


def face(count: int = 2000) -> np.ndarray:
    """A bumpy half ellipsoid, px; its nearest points are 0.5 px apart or more."""
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, count))
    z = np.sqrt(2.5 - x**2 - y**2) + 0.2 * np.sin(3 * x) * np.cos(4 * y + 1)
    points = np.stack([60 * x, 80 * y, 70 * z], -1)
    return points[cKDTree(points).query(points, k=2)[0][:, 1] > 0.5]


def bent(points: np.ndarray, size: float = 2.0) -> np.ndarray:
    return points + size * np.sin(points[:, [1, 2, 0]] / 20)


def error(metric: str, prediction: np.ndarray, truth: np.ndarray, **rule) -> float:
    return reconstruction_error(metric, prediction, truth, unit=UNIT, rule=IcpRule(**rule))


@pytest.mark.parametrize("metric", RECONSTRUCTION_METRICS)
def test_truth_scores_zero(metric):
    """And read-only arguments are enough."""
    truth = face()
    truth.setflags(write=False)
    assert error(metric, truth, truth) == pytest.approx(0, abs=1e-9)


def test_what_each_metric_forgives():
    """Whether a moved, turned, grown or mirrored truth scores 0: one row a metric."""
    truth = face()
    changes = {
        "moved": truth + [3, -2, 5],
        "turned": truth @ TURN.T,
        "grown": 1.05 * truth,
        "mirrored": truth * [-1, 1, 1],
    }
    forgiven = {
        metric: [name for name, points in changes.items() if error(metric, points, truth) < 1e-4]
        for metric in RECONSTRUCTION_METRICS
    }
    assert forgiven == {
        "procrustes_corr": ["moved", "turned", "grown"],
        "icp_rigid": ["moved", "turned"],
        "icp_similarity": ["moved", "turned", "grown"],
        "icp_correspondence": [],
        "rec_sadrnet": ["moved", "turned", "grown", "mirrored"],
        "rec_2dasl": ["moved", "turned"],
    }


def test_known_values_of_a_moved_truth():
    """VRN's metric sees the shift in the picture and not the one in depth, the others neither."""
    truth = face()
    assert error("icp_correspondence", truth + [3, -4, 0], truth) == pytest.approx(100 * 5 / UNIT)
    assert error("icp_correspondence", truth + [0, 0, 30], truth) == pytest.approx(0, abs=1e-9)
    turned = truth @ TURN.T
    apart = turned - truth
    apart[:, 2] -= apart[:, 2].mean()
    expected = 100 * np.linalg.norm(apart, axis=1).mean() / UNIT
    assert error("icp_correspondence", turned, truth) == pytest.approx(expected)


def test_known_value_of_a_grown_truth():
    """2DASL: growth about the centroid is left, (1.05 - 1) times the mean radius of its sample."""
    truth = face()
    sample = truth[::50]
    radius = np.linalg.norm(sample - sample.mean(0), axis=1).mean()
    expected = 100 * 0.05 * radius / UNIT
    assert error("rec_2dasl", 1.05 * truth, truth) == pytest.approx(expected, rel=1e-3)


def test_procrustes_has_the_smallest_squared_error_of_the_similarities():
    """Against a search over similarities nearby, with the error squared as the fit minimises it."""
    from scipy.optimize import minimize

    truth = face()[::10]
    prediction = bent(1.1 * truth @ TURN.T, 3.0)

    def aligned(params):
        turn = Rotation.from_rotvec(params[:3]).as_matrix()
        return np.exp(params[6]) * prediction @ turn.T + params[3:6]

    found = minimize(lambda p: ((aligned(p) - truth) ** 2).sum(1).mean(), np.zeros(7), tol=1e-12)
    expected = 100 * np.linalg.norm(aligned(found.x) - truth, axis=1).mean() / UNIT
    assert error("procrustes_corr", prediction, truth) == pytest.approx(expected, rel=1e-5)


def test_sadrnet_is_its_released_formula():
    """Written out point by point: scale about the first point, orthogonal by the polar factor."""
    truth = face()
    prediction = bent(1.2 * truth @ TURN.T + 5, 4.0)
    scale = sum(np.linalg.norm(t - truth[0]) for t in truth)
    scale /= sum(np.linalg.norm(p - prediction[0]) for p in prediction)
    source = scale * prediction
    product = (truth - truth.mean(0)).T @ (source - source.mean(0))
    values, vectors = np.linalg.eigh(product.T @ product)
    orthogonal = product @ vectors @ np.diag(values**-0.5) @ vectors.T
    apart = (source - source.mean(0)) @ orthogonal.T + truth.mean(0) - truth
    expected = 100 * np.linalg.norm(apart, axis=1).mean() / UNIT
    assert error("rec_sadrnet", prediction, truth) == pytest.approx(expected, rel=1e-9)
    reordered = np.roll(np.arange(len(truth)), 700)
    other = error("rec_sadrnet", prediction[reordered], truth[reordered])
    assert abs(other - expected) > 1e-3  # another first point, another score
    least = error("procrustes_corr", prediction, truth)
    assert error("procrustes_corr", prediction[reordered], truth[reordered]) == pytest.approx(least)


def test_2dasl_is_its_released_loop():
    """All distances, the rotation by scipy, the error paired by index."""
    truth = face(20_000)  # of which 0.1 px^2 or 0.001 px^2 would give another number
    prediction = bent(truth @ TURN.T @ TURN.T @ TURN.T, 6.0)
    sample, fixed = prediction[::50], truth[::50]
    sample, fixed = sample - sample.mean(0), fixed - fixed.mean(0)
    last, now, rounds = None, 0.0, 0
    while last is None or abs(now - last) > 0.01:
        squared = ((fixed[:, None] - sample[None]) ** 2).sum(-1)
        pairs = sample[squared.argmin(1)]
        turn, _ = Rotation.align_vectors(fixed, pairs - pairs.mean(0))
        sample = turn.apply(sample)
        last, now, rounds = now, squared.min(1).mean(), rounds + 1
    assert rounds > 4
    expected = 100 * np.linalg.norm(sample - fixed, axis=1).mean() / UNIT
    assert error("rec_2dasl", prediction, truth) == pytest.approx(expected, rel=1e-9)


def test_icp_takes_clouds_without_correspondence():
    """Other points of the same surface, in any order; freer alignments fit no worse."""
    truth = face()
    prediction = np.random.default_rng(1).permutation(bent(1.04 * truth @ TURN.T)[::2])
    rigid, similar = (error(f"icp_{kind}", prediction, truth) for kind in ("rigid", "similarity"))
    assert 0 < similar < rigid < error("icp_correspondence", prediction, truth)
    assert error("icp_similarity", prediction[::-1], truth) == pytest.approx(similar, rel=1e-3)


def test_vrn_pairs_by_a_rigid_fit_and_scores_the_cloud_unaligned():
    """A larger face is paired as it is, and its size is an error."""
    truth = face()
    prediction = bent(1.1 * truth @ TURN.T) + [2, 1, 9]
    found = icp(prediction, truth, with_scale=False)
    scaled = icp(prediction, truth, with_scale=True)
    assert (found.source_index != scaled.source_index).mean() > 0.1
    offset = prediction[found.source_index] - truth[found.target_index]
    offset[:, 2] -= prediction[:, 2].mean() - truth[:, 2].mean()
    expected = 100 * np.linalg.norm(offset, axis=1).mean() / UNIT
    assert error("icp_correspondence", prediction, truth) == pytest.approx(expected)


def test_the_rule_reaches_the_icp():
    """Direction and stopping change the number, which is why a report states them."""
    truth = face()
    prediction = bent(truth @ TURN.T)[: len(truth) // 2]
    default = error("icp_rigid", prediction, truth)
    assert error("icp_rigid", prediction, truth, direction="source_to_target") < 0.95 * default
    assert error("icp_rigid", prediction, truth, iterations=0) > 1.05 * default


def test_nearest_neighbours_flatter():
    """Points slid along the surface: correspondence sees it, ICP does not."""
    truth = face()
    slid = truth.copy()
    neighbour = cKDTree(truth).query(truth, k=2)[1][:, 1]
    slid = truth[neighbour]
    assert error("icp_rigid", slid, truth) < 0.5 * error("procrustes_corr", slid, truth)


def test_errors_are_per_cent_of_the_unit():
    truth = face()
    prediction = bent(truth)
    for metric in RECONSTRUCTION_METRICS:
        half = reconstruction_error(metric, prediction, truth, unit=2 * UNIT)
        assert half == pytest.approx(error(metric, prediction, truth) / 2, rel=1e-12)


def test_units_known_values():
    points = np.array([[0.0, 0, 0], [9, 4, 100], [3, 2, -50]])
    assert reconstruction_unit("box", points, None) == pytest.approx(6)
    landmarks = np.random.default_rng(0).normal(size=(68, 3))
    landmarks[45] = landmarks[36] + [3, 4, 12]
    assert reconstruction_unit("outer_interocular_3d", points, landmarks) == pytest.approx(13)


def test_units_refuse():
    points, landmarks = face(), np.zeros((68, 3))
    with pytest.raises(ValueError, match="normalizer: got 'diagonal', expected one of outer"):
        reconstruction_unit("diagonal", points, landmarks)
    with pytest.raises(ValueError, match=r"got landmarks None, expected \(68, 3\)"):
        reconstruction_unit("outer_interocular_3d", points, None)
    with pytest.raises(ValueError, match=r"got landmarks \(68, 2\)"):
        reconstruction_unit("outer_interocular_3d", points, landmarks[:, :2])
    unit = reconstruction_unit("outer_interocular_3d", points, landmarks)
    with pytest.raises(ValueError, match="unit: got 0 px"):
        reconstruction_error("icp_rigid", points, points, unit=unit)


@pytest.mark.parametrize("metric", RECONSTRUCTION_METRICS)
def test_wrong_points_are_refused(metric):
    truth = face()
    with pytest.raises(ValueError, match=r"prediction: got points \(3, \d+\), expected \(N, 3\)"):
        error(metric, truth.T, truth)
    damaged = truth.copy()
    damaged[7, 2] = np.nan
    for prediction, true, name in ((damaged, truth, "prediction"), (truth, damaged, "truth")):
        with pytest.raises(ValueError, match=f"{name}: holds coordinates that are not finite"):
            error(metric, prediction, true)
    with pytest.raises(ValueError, match="unit: got nan px"):
        reconstruction_error(metric, truth, truth, unit=np.nan)
    shorter = truth[:-1]
    if metric in BY_INDEX:
        with pytest.raises(ValueError, match=f"{metric} pairs points by index.*use an icp_ metric"):
            error(metric, shorter, truth)
    else:
        assert error(metric, shorter, truth) < 0.1


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metric: got 'icp', expected one of procrustes_corr"):
        error("icp", face(), face())
    with pytest.raises(ValueError, match="rec_sadrnet: all points of one side coincide"):
        error("rec_sadrnet", np.ones((5, 3)), face()[:5])
