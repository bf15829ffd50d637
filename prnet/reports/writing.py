"""A report written: JSON, a Markdown table for people, cumulative curves as figure and CSV."""

from collections.abc import Callable, Mapping
from pathlib import Path

from prnet.checks import name_list
from prnet.drawing.pictures import draw_ced
from prnet.evaluation.protocol import METRICS, Protocol
from prnet.evaluation.report import Report, scored_rows
from prnet.files import markdown_table, write_json, write_text, written_whole
from prnet.metrics.statistics import curve_reach, curves_as_csv
from prnet.reports.parts import parts_text, write_parts_figure
from prnet.reports.shipped import flat
from prnet.reports.text import MEAN_OF_BINS, number_text, without_mean_of_bins

# Unit of an error -> what its table and its curves are about, and what follows the report's name.
QUANTITIES = {"%": ("NME", ""), "deg": ("head pose", "_pose")}
ORIGIN_NOTES = {
    True: "Predictions and pt3d_68 are converted to the pixel origin of the protocol. ",
    False: "Saved predictions are scored in the coordinates they are stored in. ",
}
LANDMARK_MAP_NOTES = {
    "own": "The network's landmark map is its own: a first pass with an empty one, a second with "
    "the landmarks of the first.",
    "given": "The network was given landmarks beside each image.",
    "empty": "The network's landmark map is empty: it sees the image alone.",
}
NETWORK_NOTE = "A network's output is placed in the pixel origin of the truth it is scored against."


def title(metric: str, protocol: dict) -> str:
    """What a metric is called in tables and figures."""
    if metric != "nme_rec" or "reconstruction" not in protocol:
        return METRICS[metric].title
    return f"{METRICS[metric].title} ({protocol['reconstruction']['metric']})"


def metrics_in(report: Report, unit: str) -> dict:
    """Those of a report's metrics that have this unit."""
    return {m: summary for m, summary in report["metrics"].items() if METRICS[m].unit == unit}


def tables(report: Report) -> list[tuple[list[str], list[list[str]]]]:
    """The metrics as tables, percent and degrees apart: header and rows of each."""
    found = []
    for unit, (quantity, _) in QUANTITIES.items():
        if not (metrics := metrics_in(report, unit)):
            continue
        labels = list(next(iter(metrics.values()))["bins"])
        header = [f"{quantity}, {unit}", *labels, MEAN_OF_BINS, "std of bins", "mean of all"]
        rows, counted = [], {}
        for metric, summary in metrics.items():
            bins = [number_text(summary["bins"][label]["mean"]) for label in labels]
            means = [number_text(summary[key]) for key in ("mean_of_bins", "std_of_bins", "mean")]
            name = title(metric, report["protocol"])
            rows.append([name, *bins, *means])
            counts = tuple(summary["bins"][label]["n"] for label in labels)
            counted.setdefault(counts, []).append(name)
        for counts, names in counted.items():
            of = f" of {', '.join(names)}" if len(counted) > 1 else ""
            rows.append([f"images{of}", *map(str, counts), "", "", str(sum(counts))])
        found.append((header, rows))
    return found


def result_text(report: Report, as_table: Callable[..., str]) -> str:
    """The numbers of a report, its tables by `markdown_table` or `plain_table`, and what cannot be
    called a mean of bins."""
    sections = [as_table(*one) for one in tables(report)]
    named = {title(m, report["protocol"]): summary for m, summary in report["metrics"].items()}
    return "\n\n".join(filter(None, [*sections, without_mean_of_bins(named)]))


def statistics_table(report: Report) -> str:
    """How sure the means are, and what the cumulative curves say; Markdown."""
    level = f"{100 * report['intervals']['level']:g} % interval"
    header = ["", "mean of all", level, "mean of bins", level, "median", "area", "failures"]
    rows = []
    for metric, summary in report["metrics"].items():
        limit = f"{summary['curve_limit']:g} {summary['unit']}"
        rows.append(
            [
                title(metric, report["protocol"]),
                number_text(summary["mean"]),
                _interval(summary["interval"]),
                number_text(summary["mean_of_bins"]),
                _interval(summary["mean_of_bins_interval"]),
                number_text(summary["median"]),
                f"{summary['curve_area']:.4f} to {limit}",
                f"{100 * summary['failure_rate']:.2f} % above {limit}",
            ]
        )
    return markdown_table(header, rows)


def balanced_text(balanced: dict) -> str:
    """The balanced subsets of a report; Markdown."""
    about = f"{balanced['per_bin']} images a bin, seed {balanced['seed']}"
    if "not_drawn" in balanced:
        return f"No balanced subset: {balanced['not_drawn']}"
    header = ["", "first", f"mean of {balanced['draws']}", "std"]
    rows = [
        [METRICS[metric].title, *map(number_text, values.values())]
        for metric, values in balanced["metrics"].items()
    ]
    return (
        f"Balanced subsets: {about}; the first has {name_list(balanced['names'])} (all `names` are "
        f"in the JSON; sha256 of them, a line each, {balanced['names_sha256']}).\n\n"
        f"{markdown_table(header, rows)}"
    )


def _interval(interval: dict | None) -> str:
    return "-" if interval is None else f"{interval['low']:.3f} to {interval['high']:.3f}"


def to_markdown(report: Report) -> str:
    """The report for people: the result first, then what is lacking, the parts, the protocol, and
    what made it."""
    protocol = report["protocol"]
    sections = [
        f"# {report['dataset']}, protocol `{protocol['name']}`",
        f"Scored: {report['source']}; {report['count']} images.",
        *report.get("hints", ()),
    ]
    if report["metrics"]:
        sections.append(result_text(report, markdown_table))
    for metric, reason in report["not_computed"].items():
        sections.append(f"Not computed: {title(metric, protocol)}: {reason}")
    for metric, names in report["left_out"].items():
        sections.append(f"Left out of {title(metric, protocol)}: {name_list(names)}")
    if "undetected" in report:
        sections.append(f"Faces that the detector missed: {name_list(report['undetected'])}")
    if report["missing"]:
        sections.append(f"Images without a prediction: {name_list(report['missing'])}")
    if report["unknown"]:
        sections.append(f"Predictions without an image: {name_list(report['unknown'])}")
    if report["metrics"] and "intervals" in report:
        sections.append(statistics_table(report))
    if report["metrics"] and report["balanced"] is not None:
        sections.append(balanced_text(report["balanced"]))
    if "parts" in report:
        sections.append(parts_text(report["parts"]))
    sections += ["## Protocol", ORIGIN_NOTES[protocol["convert_origin"]] + NETWORK_NOTE]
    if "landmark_map" in report:
        sections.append(LANDMARK_MAP_NOTES[report["landmark_map"]])
    lines = ["| protocol | |", "|---|---|"]
    for field, value in flat(protocol).items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"| {field} | {text} |")
    sections.append("\n".join(lines))
    if "made" in report:
        sections.append(made_text(report["made"]))
    return "\n\n".join(sections) + "\n"


def made_text(made: Mapping) -> str:
    """What made a report or a comparison; Markdown."""
    lines = [f"Made by prnet {made['prnet']} on {made['date']}"]
    if "command" in made:
        lines.append(f"`{made['command']}`")
    if checkpoint := made.get("checkpoint"):
        lines.append(f"checkpoint {checkpoint['file']}, sha256 {checkpoint['sha256']}")
    return "## Made by\n\n" + "; ".join(lines)


def write_report(report: Report, path: Path) -> list[Path]:
    """Write FILE.json (`path`), FILE.md and, where a metric was computed, its curves as FILE.png
    and FILE_ced.csv, those of the head pose as FILE_pose.png and FILE_pose_ced.csv, and the parts,
    where there are some, as FILE_parts.png; returns the paths."""
    written = [path, path.with_suffix(".md")]
    write_json(path, report)
    write_text(written[1], to_markdown(report))
    protocol = Protocol.from_values(report["protocol"])
    for unit, (quantity, suffix) in QUANTITIES.items():
        curves = {
            title(metric, report["protocol"]): [r[metric] for r in scored_rows(report, metric)]
            for metric in metrics_in(report, unit)
        }
        if curves:
            stem = path.with_name(path.stem + suffix)
            limit = protocol.curve.limit(next(iter(metrics_in(report, unit))))
            written += write_curves(curves, stem, quantity=quantity, unit=unit, limit=limit)
    if "quantities" in report.get("parts", {}):
        figure = path.with_name(f"{path.stem}_parts.png")
        written.append(write_parts_figure({report["source"]: report["parts"]}, figure))
    return written


def write_curves(
    curves: dict[str, list[float]], stem: Path, *, quantity: str, unit: str, limit: float
) -> list[Path]:
    """STEM.png and STEM_ced.csv of one error a curve; returns the paths."""
    figure, values = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}_ced.csv")
    reach = curve_reach(curves, limit)
    with written_whole(figure) as temporary:
        draw_ced(curves, temporary, limit=limit, reach=reach, quantity=quantity, unit=unit)
    write_text(values, curves_as_csv(curves, limit=limit, reach=reach))
    return [figure, values]


def require_json_name(path: Path | str) -> Path:
    """The path of a report, refused before the work rather than after it."""
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"report={path}: expected a file name that ends in .json")
    return path
