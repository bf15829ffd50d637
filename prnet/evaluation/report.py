"""The report of scored images: means, intervals and what is missing, as plain values."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prnet.checks import name_list
from prnet.evaluation.means import balanced_subsets, summarize, worst
from prnet.evaluation.parts import summarize_parts
from prnet.evaluation.protocol import METRICS, Protocol
from prnet.metrics.statistics import (
    LEVEL,
    RESAMPLES,
    SEED,
    bootstrap_interval,
    curve_area,
    failure_rate,
)

# What `make_report` makes and a report.json holds: plain values, one metric as
# {"mean", "mean_of_bins", "std_of_bins", "bins", "bins_used", "mean_of_bins_used"}.
Report = dict[str, Any]
# The metric that `prnet.metrics.parts` takes apart: its images are those of the parts.
TAKEN_APART = "nme_68_2d"


class ScoredImage(NamedTuple):
    """One image; percent, or degrees for the head pose."""

    name: str
    yaw_deg: float  # signed, as its source gives it
    errors: dict[str, float]  # metric -> value
    lacking: dict[str, str]  # metric -> why it has no value
    left_out: frozenset[str] = frozenset()  # metrics whose mean is not over this image


def make_report(
    images: Iterable[ScoredImage],
    protocol: Protocol,
    *,
    dataset: str,
    source: str,
    missing: Iterable[str] = (),
    unknown: Iterable[str] = (),
) -> Report:
    """The report as plain values. A metric is computed over all scored images or not at all; its
    means are without those that the protocol leaves out, which are named.

    Raises:
        ValueError: no image was scored, or an error is not finite.
    """
    images = sorted(images, key=lambda image: image.name)
    if not images:
        raise ValueError(f"{dataset}: no image was scored")
    not_computed = {}
    for metric in protocol.metrics:
        lacking = [image for image in images if metric not in image.errors]
        if lacking:
            reason = lacking[0].lacking[metric]
            if len(lacking) < len(images):
                reason += f" ({name_list(image.name for image in lacking)} of {len(images)})"
            not_computed[metric] = reason
    computed = [metric for metric in protocol.metrics if metric not in not_computed]
    for image in images:
        for metric in computed:
            if not math.isfinite(image.errors[metric]):
                raise ValueError(
                    f"{image.name}: {metric} is {image.errors[metric]}: a predicted coordinate is "
                    "not finite, or the ground truth has no extent"
                )
    kept: dict[str, dict[str, float]] = {}
    left_out = {}
    for metric in computed:
        values = {i.name: i.errors[metric] for i in images if metric not in i.left_out}
        for name in worst(values, protocol.drop_worst) if protocol.drop_worst else ():
            del values[name]
        if len(values) < len(images):
            left_out[metric] = [image.name for image in images if image.name not in values]
        if values:
            kept[metric] = values
        else:
            not_computed[metric] = "the protocol leaves out every image"
    report = {
        "dataset": dataset,
        "source": source,
        "count": len(images),
        "protocol": protocol.to_values(),
        "metrics": dict.fromkeys(kept),
        "images": [
            {
                "name": image.name,
                "yaw_deg": image.yaw_deg,
                **{metric: image.errors[metric] for metric in kept},
            }
            for image in images
        ],
        "missing": sorted(missing),
        "unknown": sorted(unknown),
        "not_computed": not_computed,
        "left_out": left_out,
    }
    return with_means(report)


def with_means(report: Report) -> Report:
    """The report with every mean that its images give: of its metrics, of balanced subsets, and of
    the parts where its images have some."""
    protocol = Protocol.from_values(report["protocol"])
    rows = {metric: scored_rows(report, metric) for metric in report["metrics"]}
    yaws_deg = {row["name"]: row["yaw_deg"] for row in report["images"]}
    errors = {metric: {r["name"]: r[metric] for r in own} for metric, own in rows.items()}
    metrics = {
        metric: summarize(list(values.values()), [yaws_deg[n] for n in values], protocol)
        for metric, values in errors.items()
    }
    balanced = balanced_subsets(yaws_deg, errors, protocol)
    report = {**report, "metrics": metrics, "balanced": balanced}
    if report["images"] and all("parts" in row for row in report["images"]):
        report["parts"] = summarize_parts(scored_rows(report, TAKEN_APART), protocol)
    return report


def with_parts(report: Report, parts: Mapping[str, dict[str, float]], why: str) -> Report:
    """The report with the parts of each image's error, or `why` there are none."""
    if not parts:
        return {**report, "parts": {"not_computed": why}}
    rows = [{**row, "parts": parts[row["name"]]} for row in report["images"]]
    return with_means({**report, "images": rows})


def with_statistics(report: Report) -> Report:
    """The report with what its means do not say of a metric: unit, number of images, median, what
    the cumulative curve says up to its limit, and a bootstrap interval beside every mean."""
    protocol = Protocol.from_values(report["protocol"])

    def interval(values: Sequence[float], groups: Sequence[str] | None = None) -> dict:
        _, low, high = bootstrap_interval(values, groups=groups)
        return {"low": low, "high": high}

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
            "mean_of_bins_interval": None
            if summary["mean_of_bins"] is None
            else interval(values, labels),
            "unit": METRICS[metric].unit,
            "count": len(values),
            "median": float(np.median(values)),
            "curve_limit": limit,
            "curve_area": curve_area(values, limit),
            "failure_rate": failure_rate(values, limit),
        }
    rule = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED}
    return {**report, "metrics": metrics, "intervals": rule}


def scored_rows(report: Report, metric: str) -> list[dict]:
    """The images that a metric's means are over."""
    left_out = set(report.get("left_out", {}).get(metric, ()))
    return [row for row in report["images"] if row["name"] not in left_out]
