"""How sure a mean is, whether a difference is real, and what a cumulative error curve says.

Values are one number an image. `groups`, where given, are labels of the images (yaw bins): the
statistic is then the mean of the groups' means, as in the papers' tables, and resampling stays
within each group. Letters: n images, G groups.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prnet.files import csv_text

LEVEL = 0.95
RESAMPLES = 10_000
SEED = 0
# Numbers drawn at a time, which bounds the memory.
CHUNK = 4_000_000
# Of a sampled curve, from 0 to its limit.
CURVE_STEPS = 100
# Of the images of the worst method; a curve is drawn until so many of them are below its end.
REACHED = 0.95
FARTHEST = 10
ROUND_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """One method minus another on the same images."""

    difference: Interval  # of the means, in the values' unit; below 0: the first is lower
    p_value: float  # two-sided, of no difference
    standardized: float | None  # mean / standard deviation (ddof 1) of the differences, if any
    share_lower: float  # of the images, where the first is lower; ties count half
    count: int


def bootstrap_interval(
    values: Sequence[float],
    *,
    groups: Sequence | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a mean (or of the mean of group means).

    It covers the choice of the images alone: not the training seed, nor the doubts about a
    protocol. With fewer than some 20 images in a group intervals come out too narrow. Groups keep
    their sizes.

    Raises:
        ValueError: no values or not finite ones, labels of another number, a level outside (0, 1).

    `scipy.stats.bootstrap` draws the same resamples and agrees to rounding on many images. With a
    handful it does not: a resample equal to the mean counts as below it or not by its rounding, so
    an interval of three images can end elsewhere. It takes no group of one image, and draws other
    resamples where groups are too large for one chunk.

    Source: Efron, JASA 1987; of a mean, the jackknife values are linear in the deviations.
    """
    values, weights, members = _weighted(values, groups)
    if not 0 < level < 1:
        raise ValueError(f"level: got {level:g}, expected a share between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"resamples: got {resamples}, expected at least 1")
    mean = float(weights @ values)
    random = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for index in members:
        size = len(index)
        rows = max(CHUNK // size, 1)
        for start in range(0, resamples, rows):
            part = means[start : start + rows]
            drawn = index[random.integers(0, size, (len(part), size))]
            part += values[drawn].sum(1) * weights[index[0]]

    from scipy.special import ndtr, ndtri

    deviations = np.zeros_like(values)
    for index in members:
        deviations[index] = values[index] - values[index].mean()
    influence = weights * deviations
    spread = float((influence**2).sum())
    # Where nothing varies but for rounding every resample has the same mean.
    if spread <= (np.finfo(float).eps * max(abs(mean), 1e-300)) ** 2:
        return Interval(mean, mean, mean)
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * resamples)
    bias = float(ndtri(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples)))
    acceleration = float((influence**3).sum()) / (6 * spread**1.5)
    tails = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(means, ndtr(bias + tails / (1 - acceleration * tails)))
    return Interval(mean, float(low), float(high))


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> PairedDifference:
    """Whether two methods differ on the same images, in the same order.

    The p value is that of the sign-flip permutation test of the mean difference: were the methods
    exchangeable image by image, how often would the mean be as far from 0 as it is? All 2^n sign
    patterns are tried where there are no more than `resamples`, otherwise as many random ones,
    the observed one counted among them.

    Raises:
        ValueError: differing numbers of values, or as `bootstrap_interval`.
    """
    if len(first) != len(second):
        raise ValueError(
            f"got {len(first)} and {len(second)} values, expected those of the same images"
        )
    differences = np.subtract(first, second, dtype=np.float64)
    interval = bootstrap_interval(differences, resamples=resamples, seed=seed)
    count = len(differences)
    spread = float(differences.std(ddof=1)) if count > 1 else 0.0
    return PairedDifference(
        difference=interval,
        p_value=_sign_flip_p(differences, resamples, seed),
        standardized=float(differences.mean()) / spread if spread > 0 else None,
        share_lower=float((differences < 0).mean() + (differences == 0).mean() / 2),
        count=count,
    )


def _sign_flip_p(terms: np.ndarray, resamples: int, seed: int) -> float:  # (n,)
    """Two-sided p value of |sum of terms| among sums with random signs."""
    # Sums that differ in rounding only are equal.
    observed = abs(terms.sum()) - 1e-12 * np.abs(terms).sum()
    count = len(terms)
    exact = count < 63 and 2**count <= resamples
    total = 2**count if exact else resamples
    random = np.random.default_rng(seed)
    as_far = 0
    rows = max(CHUNK // count, 1)
    for start in range(0, total, rows):
        size = min(rows, total - start)
        if exact:
            patterns = np.arange(start, start + size)[:, None] >> np.arange(count) & 1
        else:
            patterns = random.integers(0, 2, (size, count), dtype=np.int8)
        sums = terms.sum() - 2 * (patterns @ terms)
        as_far += int(np.count_nonzero(np.abs(sums) >= observed))
    return as_far / total if exact else (as_far + 1) / (total + 1)


def failure_rate(errors: Sequence[float], threshold: float) -> float:
    """Share of the images with an error above the threshold.

    Raises:
        ValueError: no errors, negative or not finite ones, or a threshold that is not positive.
    """
    return float((_errors(errors, threshold) > threshold).mean())


def curve_area(errors: Sequence[float], threshold: float) -> float:
    """Area under the cumulative error curve from 0 to the threshold, over the threshold: 0 to 1.

    Exactly (1 / threshold) times the integral of the share of errors <= e, which is the mean of
    max(0, 1 - error / threshold); no bins.

    Raises:
        ValueError: as `failure_rate`.
    """
    return float(np.maximum(0, 1 - _errors(errors, threshold) / threshold).mean())


def cumulative_curve(
    errors: Sequence[float],
    thresholds: np.ndarray,  # (T,)
) -> np.ndarray:
    """The share of errors <= each threshold, (T,).

    Raises:
        ValueError: as `failure_rate`, of the largest threshold.
    """
    ordered = np.sort(_errors(errors, thresholds.max()))
    return np.searchsorted(ordered, thresholds, side="right") / len(ordered)


def curve_reach(methods: Mapping[str, Sequence[float]], limit: float) -> float:
    """Where cumulative curves end: at the limit, or at a round number beyond it, up to `FARTHEST`
    times it, where less than `REACHED` of the images of one of them lie below the limit."""
    needed = max(float(np.quantile(errors, REACHED)) for errors in methods.values())
    if needed <= limit:
        return limit
    needed = min(needed, FARTHEST * limit)
    power = 10.0 ** math.floor(math.log10(needed))
    return next(step * power for step in ROUND_STEPS if step * power >= needed)


def curves_as_csv(
    methods: Mapping[str, Sequence[float]], *, limit: float, reach: float | None = None
) -> str:
    """Cumulative curves as the text of a CSV file: `error`, in hundredths of the limit from 0 to
    the limit, or in as many as it takes to `reach`, then a column of shares a method.

    Raises:
        ValueError: no method, or as `cumulative_curve`.
    """
    if not methods:
        raise ValueError("methods: got none, expected at least one curve")
    steps = CURVE_STEPS if reach is None else math.ceil(CURVE_STEPS * reach / limit - 1e-9)
    thresholds = np.arange(steps + 1) * limit / CURVE_STEPS
    curves = [cumulative_curve(errors, thresholds) for errors in methods.values()]
    rows = zip(thresholds, *curves, strict=True)
    return csv_text([["error", *methods], *([f"{value:.6g}" for value in row] for row in rows)])


def _errors(errors: Sequence[float], threshold: float) -> np.ndarray:
    values, _, _ = _weighted(errors, None)
    if (values < 0).any():
        raise ValueError(f"errors: got {values.min():g}, expected none below 0")
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold: got {threshold:g}, expected a positive number")
    return values


def _weighted(
    values: Sequence[float],
    groups: Sequence | None,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Values (n,), the weight of each in the statistic (n,), and the indices of each group."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values: got shape {values.shape}, expected (n,) with n >= 1")
    if not np.isfinite(values).all():
        raise ValueError(f"values: number {int((~np.isfinite(values)).argmax())} is not finite")
    if groups is None:
        members = [np.arange(len(values))]
    else:
        labels = np.asarray(groups)
        if labels.shape != values.shape:
            raise ValueError(f"groups: got {labels.shape} labels for {len(values)} values")
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    weights = np.zeros_like(values)
    for index in members:
        weights[index] = 1 / (len(members) * len(index))
    return values, weights, members
