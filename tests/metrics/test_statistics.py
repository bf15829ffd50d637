"""Intervals, paired tests and curves: scipy and enumeration as oracles, coverage, known values."""

import csv
import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid

from prnet.metrics.statistics import (
    bootstrap_interval,
    cumulative_curve,
    curve_area,
    curve_reach,
    curves_as_csv,
    failure_rate,
    paired_difference,
)


def skewed(seed: int, count: int) -> np.ndarray:
    """Errors as they come: positive, with a long tail; mean 4."""
    return np.random.default_rng(seed).gamma(2.0, 2.0, count)


def test_bootstrap_matches_scipy():
    values = skewed(0, 20) ** 2  # so few and so skewed that bias and acceleration count
    found = bootstrap_interval(values, resamples=50_000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="BCa", random_state=1
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.02 * width)
    assert found.high == pytest.approx(expected.high, abs=0.02 * width)
    # A percentile interval is elsewhere: the tail to the right must show.
    assert found.high - values.mean() > 1.1 * (values.mean() - found.low)


def test_bootstrap_interval_covers_as_often_as_it_says():
    """Of 400 samples of 100 images, 95 % intervals hold the true mean 4 in 91 % or more."""
    held = 0
    for seed in range(400):
        interval = bootstrap_interval(skewed(seed, 100), resamples=500, seed=seed)
        held += interval.low <= 4 <= interval.high
    assert 0.91 <= held / 400 <= 0.98


def test_groups_are_the_mean_of_bins_with_sizes_kept():
    """Bins of other means and no spread: nothing is uncertain, however the bins are filled."""
    values = np.array([1.0] * 50 + [7.0] * 3)
    groups = ["0-30"] * 50 + ["60-90"] * 3
    assert bootstrap_interval(values, groups=groups)[:3] == pytest.approx((4, 4, 4), rel=1e-12)
    plain = bootstrap_interval(values)
    assert plain.mean == pytest.approx(values.mean())
    assert plain.high - plain.low > 0.3


def test_grouped_width_is_that_of_the_stratified_mean():
    """Known standard error: sqrt(sum s_g^2 / n_g) / G."""
    random = np.random.default_rng(3)
    parts = [random.normal(g, s, n) for g, s, n in [(2, 1, 400), (5, 2, 300), (9, 4, 200)]]
    groups = np.repeat([0, 1, 2], [400, 300, 200])
    order = random.permutation(900)
    interval = bootstrap_interval(np.concatenate(parts)[order], groups=groups[order])
    assert interval.mean == pytest.approx(np.mean([part.mean() for part in parts]), rel=1e-12)
    deviation = np.sqrt(sum(part.var() / len(part) for part in parts)) / 3
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * deviation, rel=0.05)


def test_interval_is_repeatable_nested_and_equivariant():
    values = skewed(5, 80)
    wide, narrow = (bootstrap_interval(values, level=level) for level in (0.99, 0.8))
    assert wide.low < narrow.low < wide.mean < narrow.high < wide.high
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    scaled = bootstrap_interval(10 * values + 3)
    base = bootstrap_interval(values)
    assert scaled[:3] == pytest.approx([10 * number + 3 for number in base[:3]], rel=1e-9)


def test_chunks_do_not_change_the_draw_count(monkeypatch):
    """A long set is drawn in pieces; every resample is filled."""
    from prnet.metrics import statistics

    values = skewed(6, 50)
    whole = bootstrap_interval(values, resamples=999)
    monkeypatch.setattr(statistics, "CHUNK", 700)
    pieces = bootstrap_interval(values, resamples=999)
    assert pieces[:3] == pytest.approx(whole[:3], rel=1e-12)


def test_one_image_has_no_spread():
    assert bootstrap_interval([3.5])[:3] == (3.5, 3.5, 3.5)


def test_sign_flip_p_is_the_enumerated_one():
    """Eight images: all 256 patterns, as written out and as scipy has it."""
    random = np.random.default_rng(0)
    first, second = random.normal(0.6, 1, 8), np.zeros(8)
    found = paired_difference(first, second)
    sums = [abs(np.dot(signs, first)) for signs in itertools.product([1, -1], repeat=8)]
    assert found.p_value == np.mean([total >= abs(first.sum()) - 1e-12 for total in sums])
    oracle = stats.permutation_test(
        (first, second), lambda a, b: (a - b).mean(), permutation_type="samples"
    )
    assert found.p_value == pytest.approx(oracle.pvalue)


def test_large_samples_agree_with_the_t_test():
    random = np.random.default_rng(1)
    second = skewed(2, 300)
    first = second + random.normal(0.1, 1, 300)
    found = paired_difference(first, second)
    expected = stats.ttest_rel(first, second)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)
    assert found.standardized == pytest.approx(expected.statistic / np.sqrt(300))
    assert found.difference.mean == pytest.approx((first - second).mean())
    t_interval = expected.confidence_interval()
    assert found.difference.low == pytest.approx(t_interval.low, abs=0.01)
    assert found.difference.high == pytest.approx(t_interval.high, abs=0.01)


def test_pairing_sees_what_two_intervals_do_not():
    """A small gain on every image is real although the methods' intervals overlap."""
    random = np.random.default_rng(4)
    second = skewed(7, 200)
    first = second - 0.05 + random.normal(0, 0.05, 200)
    one, other = bootstrap_interval(first), bootstrap_interval(second)
    assert one.high > other.low
    found = paired_difference(first, second)
    assert found.p_value < 1e-3
    assert found.difference.high < 0
    assert found.share_lower > 0.7
    swapped = paired_difference(second, first)
    assert swapped.difference.mean == pytest.approx(-found.difference.mean)
    assert swapped.p_value == found.p_value
    assert swapped.share_lower == pytest.approx(1 - found.share_lower)


def test_no_difference_is_no_discovery():
    """Exchangeable methods: p below 0.05 in about one comparison of twenty."""
    random = np.random.default_rng(5)
    p_values = [
        paired_difference(*random.gamma(2, 2, (2, 30)), resamples=400, seed=seed).p_value
        for seed in range(300)
    ]
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.09


def test_same_values_are_the_same():
    values = skewed(8, 40)
    found = paired_difference(values, values)
    assert found.p_value == 1
    assert found.difference[:3] == (0, 0, 0)
    assert found.standardized is None
    assert found.share_lower == 0.5
    assert found.count == 40


def test_failure_rate_and_area_known_values():
    errors = [1.0, 2.0, 4.0, 9.0]
    assert failure_rate(errors, 4.0) == 0.25  # at the threshold is no failure
    assert failure_rate(errors, 3.9) == 0.5
    assert failure_rate(errors, 0.5) == 1
    assert curve_area(errors, 4.0) == pytest.approx((3 / 4 + 2 / 4) / 4)
    assert curve_area([0.0, 0.0], 4.0) == 1
    assert curve_area([4.0, 50.0], 4.0) == 0


def test_area_is_the_integral_of_the_curve():
    errors = skewed(9, 500)
    thresholds = np.linspace(0, 8, 8001)
    shares = cumulative_curve(errors, thresholds)
    assert curve_area(errors, 8.0) == pytest.approx(trapezoid(shares, thresholds) / 8, abs=1e-3)
    assert shares[-1] == pytest.approx(1 - failure_rate(errors, 8.0))
    assert (np.diff(shares) >= 0).all()


def test_curve_counts_errors_at_the_threshold():
    shares = cumulative_curve([0.0, 5.0, 10.0, 20.0], np.array([0, 5, 10]))
    assert shares.tolist() == [0.25, 0.5, 0.75]


def test_csv_round_trip():
    methods = {'PRN, "ours"': skewed(1, 30), "2DASL": skewed(2, 20)}
    text = curves_as_csv(methods, limit=10)
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["error", *methods]
    numbers = np.array(rows[1:], dtype=float)
    assert numbers.shape == (101, 3)
    np.testing.assert_allclose(numbers[:, 0], np.linspace(0, 10, 101), rtol=1e-5)
    for column, errors in enumerate(methods.values(), start=1):
        shares = cumulative_curve(errors, np.linspace(0, 10, 101))
        np.testing.assert_allclose(numbers[:, column], shares, rtol=1e-5)


@pytest.mark.parametrize(
    ("worst", "reach"),
    [(9.0, 10), (10.0, 10), (10.1, 15), (17.0, 20), (33.0, 40), (99.0, 100), (5000.0, 100)],
)
def test_curves_reach_what_the_worst_method_needs(worst, reach):
    """95 % of its images, up to a round number; one outlier of twenty does not count."""
    methods = {"good": [1.0] * 40, "bad": [worst] * 39 + [1e6]}
    assert curve_reach(methods, 10) == reach
    last = curves_as_csv(methods, limit=10, reach=reach).splitlines()[-1].split(",")
    assert float(last[0]) == reach
    assert float(last[2]) == (0.975 if worst <= reach else 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), r"values: got shape \(0,\), expected \(n,\)"),
        (lambda: bootstrap_interval([1, np.nan]), "values: number 1 is not finite"),
        (lambda: bootstrap_interval([1, 2], level=95), "level: got 95, expected a share"),
        (lambda: bootstrap_interval([1, 2], resamples=0), "resamples: got 0"),
        (lambda: bootstrap_interval([1, 2], groups=["a"]), r"groups: got \(1,\) labels for 2"),
        (lambda: paired_difference([1, 2], [1]), "got 2 and 1 values, expected those of the same"),
        (lambda: failure_rate([1, -2], 3), "errors: got -2, expected none below 0"),
        (lambda: curve_area([1, 2], 0), "threshold: got 0, expected a positive number"),
        (lambda: curves_as_csv({}, limit=1), "methods: got none"),
        (lambda: cumulative_curve([-1], np.ones(1)), "errors: got -1, expected none below 0"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
