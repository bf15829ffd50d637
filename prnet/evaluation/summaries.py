"""What a report says of many errors: means of bins, who is left out, curves, subsets, intervals.

A metric is {"unit", "mean", "mean_of_bins", ...}; everything here is plain values.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from prnet.evaluation.protocol import METRICS, Protocol
from prnet.metrics.statistics import RESAMPLES, bootstrap_interval, curve_area, failure_rate

LEVEL = 0.95
SEED = 0


def summarize(
    errors: Sequence[float],
    yaws_deg: Sequence[float],
    protocol: Protocol,
) -> dict:
    """Means of one metric: of all images, of each bin, and over the bins that have images.

    `std_of_bins` is the population's (ddof 0) over the means of the bins, as 3DDFA reports it: how
    much the pose matters, not how much the images differ.
    """
    labels = [protocol.bin_label(yaw_deg) for yaw_deg in yaws_deg]
    values = np.asarray(errors, dtype=np.float64)
    bins = {}
    for label in protocol.bin_labels:
        chosen = values[[own == label for own in labels]]
        bins[label] = {"mean": float(chosen.mean()) if len(chosen) else None, "n": len(chosen)}
    bins_used = [label for label, entry in bins.items() if entry["n"]]
    bin_means = [bins[label]["mean"] for label in bins_used]
    return {
        "mean": float(values.mean()),
        "mean_of_bins": float(np.mean(bin_means)),
        "std_of_bins": float(np.std(bin_means)),
        "bins": bins,
        "bins_used": bins_used,
    }


def worst(errors: Mapping[str, float], count: int) -> list[str]:
    """The names of the largest errors; of equal ones the last in the alphabet.

    Raises:
        ValueError: nobody would be left.
    """
    if count >= len(errors):
        raise ValueError(f"protocol.drop_worst: got {count}, there are {len(errors)} images")
    ranked = sorted(errors, key=lambda name: (errors[name], name))
    return ranked[len(ranked) - count :]


def balanced_subsets(
    names: Sequence[str],
    yaws_deg: Sequence[float],
    errors: Mapping[str, Mapping[str, float]],  # metric -> name -> value, of those it is about
    protocol: Protocol,
) -> dict | None:
    """Means over random subsets with as many images of each bin; None where none are wanted.

    The first draw is the subset that `names_sha256` (of its sorted names, a line each) identifies;
    it depends on the seed and on names and bins of the images alone. `mean_of_draws` tends to the
    mean of bins, `std_of_draws` is what the choice of a subset moves.
    """
    rule = protocol.balanced
    if rule.per_bin is None:
        return None
    described = {"per_bin": rule.per_bin, "draws": rule.draws, "seed": rule.seed}
    order = np.argsort(names)
    labels = np.array([protocol.bin_label(yaw_deg) for yaw_deg in yaws_deg])[order]
    members = {label: np.flatnonzero(labels == label) for label in protocol.bin_labels}
    short = [f"{label} has {len(m)}" for label, m in members.items() if len(m) < rule.per_bin]
    if short:
        return {**described, "not_drawn": f"of {rule.per_bin} images a bin, {', '.join(short)}"}
    random = np.random.default_rng(rule.seed)
    drawn = np.array(
        [
            np.concatenate(
                [random.choice(m, rule.per_bin, replace=False) for m in members.values()]
            )
            for _ in range(rule.draws)
        ]
    )
    ordered = [names[index] for index in order]
    first = sorted(ordered[index] for index in drawn[0])
    metrics = {}
    for metric, values in errors.items():
        row = np.array([values.get(name, np.nan) for name in ordered])
        means = np.nanmean(row[drawn], axis=1)
        metrics[metric] = {
            "mean": float(means[0]),
            "mean_of_draws": float(means.mean()),
            "std_of_draws": float(means.std()),
        }
    digest = hashlib.sha256("\n".join(first).encode()).hexdigest()
    return {**described, "names_sha256": digest, "metrics": metrics}


def with_statistics(report: dict) -> dict:
    """The report with what its means do not say of a metric: unit, number of images, median, what
    the cumulative curve says up to its limit, and a bootstrap interval beside every mean."""
    protocol = Protocol.from_values(report["protocol"])

    def interval(values: Sequence[float], groups: Sequence[str] | None = None) -> dict:
        found = bootstrap_interval(
            values, groups=groups, level=LEVEL, resamples=RESAMPLES, seed=SEED
        )
        return {"low": found.low, "high": found.high}

    metrics = {}
    for metric, summary in report["metrics"].items():
        rows = scored_rows(report, metric)
        values = [row[metric] for row in rows]
        labels = [protocol.bin_label(row["yaw_deg"]) for row in rows]
        own: dict[str, list[float]] = {label: [] for label in summary["bins"]}
        for label, value in zip(labels, values, strict=True):
            own[label].append(value)
        limit = protocol.curve.limit(metric)
        metrics[metric] = {
            **summary,
            "bins": {
                label: {**entry, "interval": interval(own[label]) if own[label] else None}
                for label, entry in summary["bins"].items()
            },
            "interval": interval(values),
            "mean_of_bins_interval": interval(values, labels),
            "unit": METRICS[metric].unit,
            "count": len(values),
            "median": float(np.median(values)),
            "curve_limit": limit,
            "curve_area": curve_area(values, limit),
            "failure_rate": failure_rate(values, limit),
        }
    rule = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED}
    return {**report, "metrics": metrics, "intervals": rule}


def scored_rows(report: dict, metric: str) -> list[dict]:
    """The images that a metric's means are over."""
    left_out = set(report.get("left_out", {}).get(metric, ()))
    return [row for row in report["images"] if row["name"] not in left_out]
