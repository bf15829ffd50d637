"""Reports of several methods beside each other: one table, curves in one plot, paired tests."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prnet.checks import name_list
from prnet.evaluation.protocol import METRICS
from prnet.evaluation.report import Report, scored_rows
from prnet.files import csv_text, markdown_table, write_json, write_text
from prnet.metrics.statistics import LEVEL, PairedDifference, paired_difference
from prnet.reports.methods import Entry
from prnet.reports.parts import parts_beside, write_parts_figure
from prnet.reports.text import MEAN_OF_BINS, empty_bins
from prnet.reports.writing import made_text, title, write_curves

PAIRED_COLUMNS = ("difference", "low", "high", "p", "standardized", "first_lower", "count")
COLUMNS = (
    "count",
    "mean",
    "low",
    "high",
    "mean_of_bins",
    "mean_of_bins_low",
    "mean_of_bins_high",
    "std_of_bins",
    "median",
    "curve_limit",
    "curve_area",
    "failure_rate",
)


class Comparison(NamedTuple):
    """One metric under one protocol on one data set."""

    dataset: str
    protocol: str
    metric: str
    reports: dict[str, Report]  # method -> report that has it

    @property
    def title(self) -> str:
        return title(self.metric, next(iter(self.reports.values()))["protocol"])

    @property
    def stem(self) -> str:
        return _file_name("_".join((self.dataset, self.protocol, self.metric)))

    def summary(self, method: str) -> dict:
        return self.reports[method]["metrics"][self.metric]

    def values(self, method: str) -> dict[str, float]:
        """Image -> error, of the images that the mean is over; none where a report has not them."""
        return {r["name"]: r[self.metric] for r in scored_rows(self.reports[method], self.metric)}


class Pair(NamedTuple):
    """Two methods on the images that both have."""

    comparison: Comparison
    first: str
    second: str
    found: PairedDifference


def comparisons(entries: Sequence[Entry]) -> list[Comparison]:
    """What can be held against each other, in the order of the entries.

    Raises:
        ValueError: a method has two reports under one protocol.
    """
    groups: dict[tuple[str, str, str], dict[str, Report]] = {}
    for entry in entries:
        for metric in entry.report["metrics"]:
            key = (entry.report["dataset"], entry.protocol, metric)
            reports = groups.setdefault(key, {})
            if entry.method in reports:
                raise ValueError(
                    f"{entry.method} has two reports on {key[0]} under protocol {key[1]}; "
                    "leave one out"
                )
            reports[entry.method] = entry.report
    return [Comparison(*key, reports) for key, reports in groups.items()]


def paired_tests(found: Sequence[Comparison]) -> list[Pair]:
    """Every two methods of every comparison that share an image."""
    pairs = []
    for comparison in found:
        values = {method: comparison.values(method) for method in comparison.reports}
        for first, second in itertools.combinations(values, 2):
            names = sorted(values[first].keys() & values[second].keys())
            if names:
                columns = ([values[method][name] for name in names] for method in (first, second))
                pairs.append(Pair(comparison, first, second, paired_difference(*columns)))
    return pairs


def to_markdown(
    entries: Sequence[Entry],
    pairs: Sequence[Pair],
    remarks: Sequence[str],
    made: Mapping | None = None,
) -> str:
    """Means with their intervals, mean of bins, paired tests, parts, what is missing, and what made
    it."""
    found = comparisons(entries)
    methods = list(dict.fromkeys(entry.method for entry in entries))
    sections = [f"# {' / '.join(methods)}"]
    for name, mean, interval in (
        ("Mean of all images", "mean", "interval"),
        (MEAN_OF_BINS.capitalize(), "mean_of_bins", "mean_of_bins_interval"),
    ):
        sections.append(f"## {name}, {100 * LEVEL:g} % interval")
        rows = []
        for comparison in found:
            counts = {comparison.summary(method)["count"] for method in comparison.reports}
            rows.append(
                [
                    comparison.dataset,
                    comparison.protocol,
                    f"{comparison.title}, {METRICS[comparison.metric].unit}",
                    " / ".join(map(str, sorted(counts))),
                    *_cells(comparison, methods, mean, interval),
                ]
            )
        header = ["data set", "protocol", "metric", "images", *methods]
        sections.append(markdown_table(header, rows))
    sections.append(
        "Bold: the lowest. Intervals cover the choice of the images alone; two that overlap do not "
        "mean that the difference is not real."
    )
    if pairs:
        sections.append("## Is the difference real?")
        header = ["data set", "protocol", "metric", "first - second", "difference", "interval"]
        header += ["p", "first is lower on", "images"]
        rows = [
            [
                comparison.dataset,
                comparison.protocol,
                comparison.title,
                f"{first} - {second}",
                f"{test.difference.mean:+.3f}",
                f"{test.difference.low:+.3f} to {test.difference.high:+.3f}",
                f"{test.p_value:.4f}",
                f"{100 * test.share_lower:.0f} %",
                str(test.count),
            ]
            for comparison, first, second, test in pairs
        ]
        sections.append(markdown_table(header, rows))
        sections.append(
            "On the images that both have. p: sign-flip permutation test of the mean difference, "
            f"not corrected for the {len(pairs)} tests of this table."
        )
    for (dataset, protocol), methods in parts_of(entries).items():
        sections.append(f"## Pose or shape? {dataset}, protocol {protocol}")
        sections.append(parts_beside(methods))
    if remarks:
        sections += ["## Remarks", "\n".join(f"- {remark}" for remark in remarks)]
    if made is not None:
        sections.append(made_text(made))
    return "\n\n".join(sections) + "\n"


def parts_of(entries: Sequence[Entry]) -> dict[tuple[str, str], dict[str, dict]]:
    """Data set and protocol -> method -> the parts of its error, where its report has some."""
    groups: dict[tuple[str, str], dict[str, dict]] = {}
    for method, protocol, report in entries:
        if "quantities" in report.get("parts", {}):
            own = groups.setdefault((report["dataset"], protocol), {})
            own[method] = report["parts"]
    return groups


def _cells(comparison: Comparison, methods: Sequence[str], mean: str, interval: str) -> list[str]:
    numbers = {m: comparison.summary(m)[mean] for m in comparison.reports}
    numbers = {method: number for method, number in numbers.items() if number is not None}
    lowest = min(numbers.values()) if len(numbers) > 1 else None
    cells = []
    for method in methods:
        if method not in numbers:
            cells.append("-")
            continue
        ends = comparison.summary(method)[interval]
        text = f"{numbers[method]:.3f}"
        text = f"**{text}**" if numbers[method] == lowest else text
        interval_text = f" ({ends['low']:.3f} to {ends['high']:.3f})" if ends else ""
        cells.append(text + interval_text)
    return cells


def remarks_of(entries: Sequence[Entry]) -> list[str]:
    """What the methods lack: metrics, predictions, images in common."""
    remarks: dict[str, None] = {}
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for method, protocol, report in entries:
        for metric, reason in report["not_computed"].items():
            reasons.setdefault((method, protocol, reason), []).append(metric)
        for hint in report.get("hints", ()):
            remarks[f"{method} under {protocol}: {hint}"] = None
        if why := report.get("parts", {}).get("not_computed"):
            reasons.setdefault((method, protocol, why), []).append("parts")
        for key, what in (
            ("missing", "images without a prediction"),
            ("unknown", "predictions without an image"),
        ):
            if names := report.get(key):
                remarks[f"{method}: {what}: {name_list(names)}"] = None
    for (method, protocol, reason), metrics in reasons.items():
        remarks[f"{method} under {protocol}: no {', '.join(metrics)}: {reason}"] = None
    for comparison in comparisons(entries):
        lacking: dict[tuple[str, ...], list[str]] = {}
        for method in comparison.reports:
            if empty := tuple(empty_bins(comparison.summary(method))):
                lacking.setdefault(empty, []).append(method)
        for empty, methods in lacking.items():
            remarks[
                f"{comparison.dataset}, {comparison.protocol}: no mean of bins of "
                f"{', '.join(methods)}: no image in {', '.join(empty)}"
            ] = None
        values = map(comparison.values, comparison.reports)
        images = [frozenset(own) for own in values if own]
        if len(set(images)) > 1:
            common = len(frozenset.intersection(*images))
            remarks[
                f"{comparison.dataset}, {comparison.protocol}, {comparison.title}: the methods' "
                f"means are not over the same images, {common} are common to all"
            ] = None
    return list(remarks)


def means_as_csv(found: Sequence[Comparison]) -> str:
    """A line a method and metric."""
    labels = list(
        dict.fromkeys(label for c in found for m in c.reports for label in c.summary(m)["bins"])
    )
    lines = [["dataset", "protocol", "metric", "unit", "method", *COLUMNS, *labels]]
    for dataset, protocol, metric, reports in found:
        for method, report in reports.items():
            summary = report["metrics"][metric]
            of_bins = summary["mean_of_bins_interval"] or {}
            of_bins = {f"mean_of_bins_{end}": value for end, value in of_bins.items()}
            flat = {**summary, **(summary["interval"] or {}), **of_bins}
            numbers = [flat.get(column) for column in COLUMNS]
            numbers += [summary["bins"].get(label, {}).get("mean") for label in labels]
            lines.append([dataset, protocol, metric, summary["unit"], method, *map(_text, numbers)])
    return csv_text(lines)


def pairs_as_csv(pairs: Sequence[Pair]) -> str:
    """A line a pair of methods and metric."""
    lines = [["dataset", "protocol", "metric", "first", "second", *PAIRED_COLUMNS]]
    for (dataset, protocol, metric, _), first, second, (interval, *others) in pairs:
        numbers = (*interval, *others)
        lines.append([dataset, protocol, metric, first, second, *map(_text, numbers)])
    return csv_text(lines)


def _file_name(words: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in words)


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.6g}"


def write_comparison(
    entries: Sequence[Entry],
    directory: Path,
    *,
    remarks: Sequence[str] = (),
    made: Mapping | None = None,  # version, date and command
) -> list[Path]:
    """DIRECTORY/compare.md, compare.csv, paired.csv, the curves, the parts and the reports; the
    paths."""
    found = comparisons(entries)
    pairs = paired_tests(found)
    texts = {
        "compare.md": to_markdown(entries, pairs, [*remarks, *remarks_of(entries)], made),
        "compare.csv": means_as_csv(found),
        "paired.csv": pairs_as_csv(pairs),
    }
    written = [directory / name for name in texts]
    for path, text in zip(written, texts.values(), strict=True):
        write_text(path, text)
    for comparison in found:
        values = {m: list(comparison.values(m).values()) for m in comparison.reports}
        curves = {method: own for method, own in values.items() if own}
        if not curves:
            continue
        summary = comparison.summary(next(iter(curves)))
        written += write_curves(
            curves,
            directory / "curves" / comparison.stem,
            quantity=f"{comparison.title}, protocol {comparison.protocol}",
            unit=summary["unit"],
            limit=summary["curve_limit"],
        )
    for (dataset, protocol), methods in parts_of(entries).items():
        figure = directory / f"parts_{_file_name(f'{dataset}_{protocol}')}.png"
        written.append(write_parts_figure(methods, figure))
    for method, protocol, report in entries:
        words = f"{method}_{report['dataset']}_{protocol}"
        written.append(directory / "reports" / f"{_file_name(words)}.json")
        write_json(written[-1], report)
    return written
