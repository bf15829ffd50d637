"""The methods of a comparison: what folders of predictions and saved reports are called."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prnet.evaluation.protocol import METRICS
from prnet.evaluation.report import Report, with_statistics
from prnet.reports.reading import SOURCE, SavedReport, read_report, report_files
from prnet.reports.shipped import Shipped

# What only the images of a report tell of a metric.
UNKNOWN = ("interval", "mean_of_bins_interval", "median", "curve_limit", "curve_area")
UNKNOWN += ("failure_rate",)


class Entry(NamedTuple):
    """A report of one method."""

    method: str
    protocol: str  # name, and what was changed in it
    report: Report  # with intervals


def method_names(directories: Sequence[str]) -> dict[str, str]:
    """Folder -> what its method is called: the folder's name, or its path where two share one.

    Raises:
        ValueError: a folder is given twice.
    """
    if len(set(directories)) < len(directories):
        raise ValueError(f"predictions: a folder is there twice: {', '.join(directories)}")
    names = [Path(directory).resolve().name for directory in directories]
    return {
        directory: directory if names.count(name) > 1 else name
        for directory, name in zip(directories, names, strict=True)
    }


def entries_of_reports(patterns: Sequence[str], shipped: Shipped) -> tuple[list[Entry], list[str]]:
    """Saved reports, those of one source as one method, and remarks on their means. Where two of a
    source are of one set and protocol (two runtimes, a file that was trained anew), they are two
    methods, called by their files.

    Raises:
        FileNotFoundError: a pattern matches no file; names it.
        ValueError: a report is damaged, or its protocol or a metric is none that is known.
    """
    entries, names, remarks = [], {}, []
    default = shipped.protocols["default"]
    paths = report_files(patterns, option="reports", scored="predictions=DIR")
    for path in paths:
        saved = read_report(path, default)
        name = method_of(saved)
        source = names.setdefault(name, saved.source)
        name = name if source == saved.source else saved.source
        remarks += [f"{name}: {path}: {remark}" for remark in saved.remarks]
        words = shipped.protocol_words(saved.protocol)
        entries.append(Entry(name, words, completed(saved.report, path)))
    of_one = Counter(map(_scored, entries))
    entries = [
        entry._replace(method=f"{entry.method}, {path}") if of_one[_scored(entry)] > 1 else entry
        for entry, path in zip(entries, paths, strict=True)
    ]
    return entries, remarks


def _scored(entry: Entry) -> tuple[str, str, str]:
    return entry.method, entry.report["dataset"], entry.protocol


def method_of(report: SavedReport) -> str:
    """What a report's method is called: its experiment, or the last part of its source."""
    match = SOURCE.fullmatch(report.source)
    return report.experiment or (Path(match["path"]).name if match else report.source)


def completed(report: Report, path: Path | str) -> Report:
    """A verified report with the intervals of its means; without images it has none.

    Raises:
        ValueError: a metric is none that is known, or below 0.
    """
    try:
        if report["images"]:
            return with_statistics(report)
        metrics = {
            metric: {
                **summary,
                **dict.fromkeys(UNKNOWN),
                **{"unit": METRICS[metric].unit, "count": report["count"]},
            }
            for metric, summary in report["metrics"].items()
        }
        return {**report, "metrics": metrics}
    except KeyError as error:
        raise ValueError(f"{path}: not a whole report of prnet.eval: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
