"""The methods of a comparison: what folders of predictions and saved reports are called."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prnet.evaluation.protocol import Protocol
from prnet.evaluation.report import Report, with_statistics
from prnet.files import read_json_object
from prnet.reports.reading import SOURCE, read_report, report_files
from prnet.reports.shipped import Shipped


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


def entries_of_reports(patterns: Sequence[str], shipped: Shipped) -> list[Entry]:
    """Saved reports. Those of one source are one method.

    Raises:
        FileNotFoundError: a pattern matches no file; names it.
        ValueError: a report is damaged, has no images, or its protocol is none that is known.
    """
    entries, names = [], {}
    for path in report_files(patterns, option="reports", scored="predictions=DIR"):
        described, report = read_report(path), read_json_object(path)
        if not report.get("images"):
            raise ValueError(f"{path}: a report without images cannot be compared")
        match = SOURCE.fullmatch(described.source)
        name = described.experiment or (Path(match["path"]).name if match else described.source)
        source = names.setdefault(name, described.source)
        name = name if source == described.source else described.source
        words = shipped.protocol_words(report["protocol"])
        entries.append(Entry(name, words, completed(report, shipped.protocols["default"], path)))
    return entries


def completed(report: Report, default: Mapping, path: Path | str) -> Report:
    """A report with intervals, and with what reports of earlier versions have not; fields that
    their protocols lack are those of the `default` one.

    Raises:
        ValueError: a metric or the protocol is none that is known, an image lacks an error.
    """
    try:
        protocol = Protocol.from_values(_merged(default, report["protocol"]))
        report = {"not_computed": {}, "left_out": {}, **report, "protocol": protocol.to_values()}
        return report if "intervals" in report else with_statistics(report)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a whole report of prnet.eval: {error!r}") from error


def _merged(default: Mapping, own: Mapping) -> dict:
    """`own` over `default`, mappings in them too."""
    merged = {**default, **own}
    for key, value in default.items():
        if isinstance(value, Mapping) and isinstance(own.get(key), Mapping):
            merged[key] = {**value, **own[key]}
    return merged
