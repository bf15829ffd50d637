"""Reports of `python -m prnet.eval` read back, for those who put several beside each other."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prnet.files import read_json_object, take

# `checkpoint outputs/prn/TIME/best.pt (model prn)` or `predictions DIR`, as reports have it.
SOURCE = re.compile(r"(?P<kind>checkpoint|predictions) (?P<path>.+?)(?: \(model .*\))?")


class SavedReport(NamedTuple):
    """A report.json as far as a paper's table needs it: without its images."""

    path: Path
    experiment: str | None  # that the network was trained with
    dataset: str
    source: str  # see `SOURCE`
    count: int  # images
    protocol: dict
    metrics: dict  # metric -> its means; what `network_size` says of the network -> number
    not_computed: dict  # metric -> why

    @property
    def scored(self) -> str:
        """The option of eval that names what was scored."""
        match = SOURCE.fullmatch(self.source)
        return f"{match['kind']}={match['path']}" if match else "checkpoint=FILE.pt"


def read_report(path: Path) -> SavedReport:
    """A report file.

    Raises:
        ValueError: damaged, or of another schema; names file and key.
    """
    values = read_json_object(path)
    metrics = take(values, "metrics", dict, path)
    for metric in metrics:
        summary = take(metrics, metric, (dict, int, float), f"{path}: metrics")
        if isinstance(summary, dict):
            where = f"{path}: metrics.{metric}"
            for key in ("mean", "mean_of_bins", "std_of_bins"):
                take(summary, key, (int, float), where)
            bins = take(summary, "bins", dict, where)
            for label in bins:
                take(bins[label], "mean", (int, float, type(None)), f"{where}.bins.{label}")
    network = take({"network": {}, **values}, "network", dict, path)
    for name in network:
        metrics[name] = take(network, name, (int, float), f"{path}: network")
    protocol = take(values, "protocol", dict, path)
    take(protocol, "name", str, f"{path}: protocol")
    source = take(values, "source", str, path)
    experiment = take({"experiment": None, **values}, "experiment", (str, type(None)), path)
    match = SOURCE.fullmatch(source)
    if experiment is None and match and match["kind"] == "checkpoint":
        # The trainer writes outputs/EXPERIMENT/TIME/best.pt.
        parts = Path(match["path"]).parts
        experiment = parts[-3] if len(parts) > 2 else None
    dataset, count = take(values, "dataset", str, path), take(values, "count", int, path)
    not_computed = take({"not_computed": {}, **values}, "not_computed", dict, path)
    return SavedReport(path, experiment, dataset, source, count, protocol, metrics, not_computed)


def report_files(patterns: Sequence[str], *, option: str, scored: str) -> list[Path]:
    """The files that the patterns match, each once. A message has the `option` that they came from,
    and what to score, as an option of eval.

    Raises:
        FileNotFoundError: a pattern matches no file; names it.
    """
    paths: dict[str, None] = {}
    for pattern in patterns:
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
        if not found:
            raise FileNotFoundError(
                f"{option}: no file matches {pattern!r}; write one with "
                f"`python -m prnet.eval {scored} report=FILE.json`"
            )
        paths |= dict.fromkeys(found)
    return [Path(path) for path in paths]


def find_reports(patterns: Sequence[str]) -> list[SavedReport]:
    """The reports that the patterns of `ours=` match, each once.

    Raises:
        FileNotFoundError, ValueError: as `report_files` and `read_report`.
    """
    files = report_files(patterns, option="ours", scored="checkpoint=FILE.pt")
    return [read_report(path) for path in files]


def number_at(report: SavedReport, metric: str, at: str) -> float | None:
    """A number of a report, or None where it has none; `at` as in `ReportKey`."""
    entry = report.metrics.get(metric)
    if not isinstance(entry, dict):
        return entry if at == "mean" else None
    return entry["bins"].get(at, {}).get("mean") if "-" in at else entry[at]
