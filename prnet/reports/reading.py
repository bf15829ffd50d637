"""Reports of `python -m prnet.eval` read back, for those who put several beside each other."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prnet.files import matching_files, read_json_object, take
from prnet.reports.text import empty_bins

if TYPE_CHECKING:
    from prnet.evaluation.report import Report

# `checkpoint outputs/prn/TIME/best.pt (model prn)` or `predictions DIR`, as reports have it.
SOURCE = re.compile(r"(?P<kind>checkpoint|predictions) (?P<path>.+?)(?: \(model .*\))?")
AS_STATED = "its means are as the file states them: it has no images to compute them from"
MEANS = ("mean", "mean_of_bins")


class SavedReport(NamedTuple):
    """A report.json, and what a paper's table needs of it."""

    path: Path
    experiment: str | None  # that the network was trained with
    dataset: str
    source: str  # see `SOURCE`
    count: int  # images
    protocol: dict
    metrics: dict  # metric -> its means; what `network_size` says of the network -> number
    not_computed: dict  # metric -> why
    report: "Report"  # all of it, see `verified`
    remarks: tuple[str, ...]  # on its means

    @property
    def scored(self) -> str:
        """The option of eval that names what was scored."""
        match = SOURCE.fullmatch(self.source)
        return f"{match['kind']}={match['path']}" if match else "checkpoint=FILE.pt"


def read_report(path: Path, default: Mapping) -> SavedReport:
    """A report file, its means as `verified` has them.

    Raises:
        ValueError: damaged, or of another schema; names file and key.
    """
    report, remarks = read_verified(path, default)
    metrics = dict(report["metrics"])
    network = take({"network": {}, **report}, "network", dict, path)
    for name in network:
        metrics[name] = take(network, name, (int, float), f"{path}: network")
    source = take(report, "source", str, path)
    experiment = take({"experiment": None, **report}, "experiment", (str, type(None)), path)
    match = SOURCE.fullmatch(source)
    if experiment is None and match and match["kind"] == "checkpoint":
        # The trainer writes outputs/EXPERIMENT/TIME/best.pt.
        parts = Path(match["path"]).parts
        experiment = parts[-3] if len(parts) > 2 else None
    dataset, count = take(report, "dataset", str, path), take(report, "count", int, path)
    not_computed = take(report, "not_computed", dict, path)
    return SavedReport(
        *(path, experiment, dataset, source, count, report["protocol"], metrics, not_computed),
        report=report,
        remarks=tuple(remarks),
    )


def read_verified(path: Path, default: Mapping) -> "tuple[Report, list[str]]":
    """A report file with the means that its images give, whatever it states, and remarks where it
    states others or has no images; see `verified`.

    Raises:
        ValueError: damaged, or of another schema; names file and key.
    """
    values = read_json_object(path)
    for key in ("metrics", "protocol"):
        take(values, key, dict, path)
    take(values["protocol"], "name", str, f"{path}: protocol")
    images = take({"images": [], **values}, "images", list, path)
    for metric in values["metrics"]:
        where = f"{path}: metrics.{metric}"
        summary = take(values["metrics"], metric, (dict, int, float), f"{path}: metrics")
        if isinstance(summary, dict):
            take(summary, "mean", (int, float), where)
            for key in ("mean_of_bins", "std_of_bins"):
                take(summary, key, (int, float, type(None)), where)
            bins = take(summary, "bins", dict, where)
            for label in bins:
                take(bins[label], "mean", (int, float, type(None)), f"{where}.bins.{label}")
    for row in images:
        name = take(row, "name", str, f"{path}: images")
        for key in ("yaw_deg", *values["metrics"]):
            number = take(row, key, (int, float), f"{path}: {name}")
            if not math.isfinite(number):
                raise ValueError(f"{path}: {name}: {key} is {number}, expected a finite number")
    try:
        return verified({**values, "images": images}, default)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a whole report of prnet.eval: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def verified(report: "Report", default: Mapping) -> "tuple[Report, list[str]]":
    """A report with the means that its images give; fields that the protocol of an earlier version
    lacks are those of the `default` one. A report without images keeps its own means, but none of
    bins where one of them is empty.

    Raises:
        ValueError, KeyError, TypeError: the report is not whole.
    """
    report = {"not_computed": {}, "left_out": {}, "balanced": None, **report}
    if not report["images"]:
        no_mean = {"mean_of_bins": None, "std_of_bins": None}
        metrics = {
            metric: {**own, **no_mean} if isinstance(own, dict) and empty_bins(own) else own
            for metric, own in report["metrics"].items()
        }
        return {**report, "metrics": metrics}, [AS_STATED]
    # They import torch, which a table without reports does not need.
    from prnet.evaluation.protocol import Protocol
    from prnet.evaluation.report import with_means

    protocol = Protocol.from_values(merged(default, report["protocol"])).to_values()
    found = with_means({**report, "protocol": protocol, "count": len(report["images"])})
    remarks = []
    for metric, summary in found["metrics"].items():
        for key in MEANS:
            stated, number = report["metrics"][metric][key], summary[key]
            if (
                stated is not None
                and number is not None
                and not math.isclose(stated, number, rel_tol=1e-6, abs_tol=1e-6)
            ):
                remarks.append(
                    f"it states {metric}.{key} as {stated:.3f}, its images give {number:.3f}, "
                    "which is taken: the file was changed"
                )
    if report.get("count", found["count"]) != found["count"]:
        remarks.append(f"it states {report['count']} images and has {found['count']}")
    return found, remarks


def merged(default: Mapping, own: Mapping) -> dict:
    """`own` over `default`, mappings in them too."""
    result = {**default, **own}
    for key, value in default.items():
        if isinstance(value, Mapping) and isinstance(own.get(key), Mapping):
            result[key] = {**value, **own[key]}
    return result


def report_files(patterns: Sequence[str], *, option: str, scored: str) -> list[Path]:
    """The files that the patterns match, each once. A message has the `option` that they came from,
    and what to score, as an option of eval.

    Raises:
        FileNotFoundError: a pattern matches no file; names it.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        found = matching_files(pattern)
        if not found:
            raise FileNotFoundError(
                f"{option}: no file matches {pattern!r}; write one with "
                f"`python -m prnet.eval {scored} report=FILE.json`"
            )
        paths |= dict.fromkeys(found)
    return list(paths)


def find_reports(patterns: Sequence[str], default: Mapping) -> list[SavedReport]:
    """The reports that the patterns of `ours=` match, each once.

    Raises:
        FileNotFoundError, ValueError: as `report_files` and `read_report`, whose `default`
            protocol it is.
    """
    files = report_files(patterns, option="ours", scored="checkpoint=FILE.pt")
    return [read_report(path, default) for path in files]


def number_at(report: SavedReport, metric: str, at: str) -> float | None:
    """A number of a report, or None where it has none; `at` as in `ReportKey`."""
    entry = report.metrics.get(metric)
    if not isinstance(entry, dict):
        return entry if at == "mean" else None
    return entry["bins"].get(at, {}).get("mean") if "-" in at else entry[at]
