"""From scored images to a report: yaw bins, means, JSON, a Markdown table and a figure."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.files import write_json, written_whole
from prnet.protocol import Protocol
from prnet.visualize import draw_ced

# Names that a message lists before it only counts.
SHOWN = 10
METRIC_TITLES = {
    "nme_68_2d": "68 landmarks, 2D",
    "nme_68_3d": "68 landmarks, 3D",
    "nme_dense_2d": "dense, 2D",
    "nme_dense_3d": "dense, 3D",
}
ORIGIN_NOTES = {
    True: "Predictions and pt3d_68 are converted to the pixel origin of the protocol. ",
    False: "Saved predictions are scored in the coordinates they are stored in. ",
}
NETWORK_NOTE = "A network's output is placed in the pixel origin of the truth it is scored against."


class ScoredImage(NamedTuple):
    """One image; percent."""

    name: str
    yaw_deg: float  # signed, as its source gives it
    errors: dict[str, float]  # metric -> value
    lacking: dict[str, str]  # metric -> why it has no value


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


def make_report(
    images: Iterable[ScoredImage],
    protocol: Protocol,
    *,
    dataset: str,
    source: str,
    missing: Iterable[str] = (),
    unknown: Iterable[str] = (),
) -> dict:
    """The report as plain values. A metric is computed over all scored images or not at all.

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
    yaws_deg = [image.yaw_deg for image in images]
    return {
        "dataset": dataset,
        "source": source,
        "count": len(images),
        "protocol": protocol.to_values(),
        "metrics": {
            metric: summarize([image.errors[metric] for image in images], yaws_deg, protocol)
            for metric in computed
        },
        "images": [
            {
                "name": image.name,
                "yaw_deg": image.yaw_deg,
                **{metric: image.errors[metric] for metric in computed},
            }
            for image in images
        ],
        "missing": sorted(missing),
        "unknown": sorted(unknown),
        "not_computed": not_computed,
    }


def name_list(names: Iterable[str]) -> str:
    """`3: image00002, image00004, image00006`, cut short with an ellipsis."""
    names = list(names)
    return f"{len(names)}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


def table(report: dict) -> str:
    """The metrics as a Markdown table, percent."""
    labels = list(next(iter(report["metrics"].values()))["bins"])
    lines = [
        f"| NME, % | {' | '.join(labels)} | mean of bins | std of bins | mean of all |",
        "|---" * (len(labels) + 4) + "|",
    ]
    for metric, summary in report["metrics"].items():
        bins = [_number(summary["bins"][label]["mean"]) for label in labels]
        means = [_number(summary[key]) for key in ("mean_of_bins", "std_of_bins", "mean")]
        lines.append(f"| {METRIC_TITLES[metric]} | {' | '.join(bins + means)} |")
    counts = [str(summary["bins"][label]["n"]) for label in labels]
    lines.append(f"| images | {' | '.join(counts)} | | | {report['count']} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def to_markdown(report: dict) -> str:
    """The report for people: what was scored, how, and the numbers."""
    protocol = report["protocol"]
    sections = [
        f"# {report['dataset']}, protocol `{protocol['name']}`",
        f"Scored: {report['source']}; {report['count']} images.",
        ORIGIN_NOTES[protocol["convert_origin"]] + NETWORK_NOTE,
    ]
    fields = {**protocol, **{f"crop.{key}": value for key, value in protocol["crop"].items()}}
    del fields["crop"]
    rows = [f"| {field} | {_plain(value)} |" for field, value in fields.items()]
    sections.append("\n".join(["| protocol | |", "|---|---|", *rows]))
    if report["metrics"]:
        sections.append(table(report))
    for metric, reason in report["not_computed"].items():
        sections.append(f"Not computed: {METRIC_TITLES[metric]}: {reason}")
    if report["missing"]:
        sections.append(f"Images without a prediction: {name_list(report['missing'])}")
    if report["unknown"]:
        sections.append(f"Predictions without an image: {name_list(report['unknown'])}")
    return "\n\n".join(sections) + "\n"


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def write_report(report: dict, path: Path | str) -> list[Path]:
    """Write FILE.json, FILE.md and, where a metric was computed, FILE.png; returns the paths.

    Raises:
        ValueError: `path` does not end in .json.
    """
    path = require_json_name(path)
    written = [path, path.with_suffix(".md")]
    write_json(path, report)
    with written_whole(written[1]) as temporary:
        temporary.write_text(to_markdown(report))
    if report["metrics"]:
        curves = {
            METRIC_TITLES[metric]: [image[metric] for image in report["images"]]
            for metric in report["metrics"]
        }
        written.append(path.with_suffix(".png"))
        with written_whole(written[2]) as temporary:
            draw_ced(curves, temporary)
    return written


def require_json_name(path: Path | str) -> Path:
    """The path of a report, refused before the work rather than after it."""
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"report={path}: expected a file name that ends in .json")
    return path
