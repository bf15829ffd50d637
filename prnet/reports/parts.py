"""Pose or shape, for people: the parts of an error as Markdown tables and as a figure."""

from collections.abc import Mapping
from pathlib import Path

from prnet.drawing.bars import BarPanel, draw_bars
from prnet.files import markdown_table, written_whole
from prnet.metrics.parts import HOLDINGS, PARTS, REGIONS
from prnet.reports.text import MEAN_OF_BINS, empty_bins, number_text

# What the figure shows of `PARTS`, with line breaks where they are long.
GIVEN = {
    "as_it_is": "as it is",
    "true_translation": "translation\ngiven",
    "true_similarity_2d": "2D similarity\ngiven",
    "true_similarity_3d": "3D similarity\ngiven: shape",
    "true_shape_in_predicted_pose": "true shape,\nits pose",
    "mean_face_in_true_pose": "mean face,\ntrue pose",
}
TURNS = {
    "pitch_signed": "pitch\n(looks further up)",
    "yaw_signed": "yaw\n(to the picture's left)",
    "roll_signed": "roll\n(clockwise)",
    "rotation": "angle between\nthe rotations",
}
SHIFTS = {"shift_right": "shift to the right", "shift_down": "shift down", "shift": "its length"}
HOLDING_TITLES = {
    "tilt": "tilt in the picture, degrees",
    "elevation": "elevation of the head's forward axis, degrees",
}
NOTE = (
    "NME of x and y in percent of the box of the true 68. Turns are about the head's own axes, "
    "from the truth to the prediction; signed ones may cancel out in a mean, the line below them "
    "has their sizes."
)


def parts_text(parts: Mapping) -> str:
    """The parts of one report; Markdown."""
    if "not_computed" in parts:
        return f"## Pose or shape?\n\nNot computed: {parts['not_computed']}"
    quantities = parts["quantities"]
    labels = list(next(iter(quantities.values()))["bins"])
    rows = [
        [
            _named(name),
            *(number_text(summary["bins"][label]["mean"]) for label in labels),
            number_text(summary["mean_of_bins"]),
            number_text(summary["mean"]),
        ]
        for name, summary in quantities.items()
    ]
    table = markdown_table(["", *labels, MEAN_OF_BINS, "mean of all"], rows)
    sections = ["## Pose or shape?", table, NOTE]
    for name, title in HOLDING_TITLES.items():
        header = [title, "images", "as it is, %"]
        groups = [[_range(g), str(g["n"]), number_text(g["mean"])] for g in parts[name]]
        sections.append(markdown_table(header, groups))
    worst = ", ".join(f"{one['name']} {one['error']:.1f}" for one in parts["worst"])
    return "\n\n".join([*sections, f"Worst: {worst}"])


def parts_beside(methods: Mapping[str, Mapping]) -> str:
    """The parts of several methods, a column a method: means of bins where all have every bin, of
    all images otherwise; Markdown."""
    key, heading = _common_mean(methods)
    rows = [
        [_named(name), *(number_text(own["quantities"][name][key]) for own in methods.values())]
        for name in PARTS
    ]
    return markdown_table([heading, *methods], rows)


def write_parts_figure(methods: Mapping[str, Mapping], path: Path) -> Path:
    """Bars of the parts: of one method by yaw bin, of several beside each other; returns the
    path."""
    if len(methods) == 1:
        (parts,) = methods.values()
        labels = list(parts["quantities"]["as_it_is"]["bins"])
        series = {
            f"|yaw| {label}": {
                name: summary["bins"][label]["mean"]
                for name, summary in parts["quantities"].items()
            }
            for label in labels
        }
        by = "by yaw"
    else:
        key, by = _common_mean(methods)
        series = {
            method: {name: summary[key] for name, summary in parts["quantities"].items()}
            for method, parts in methods.items()
        }

    def panel(title: str, unit: str, names: Mapping[str, str]) -> BarPanel:
        values = {label: [own[name] for name in names] for label, own in series.items()}
        return BarPanel(f"{title}, {by}", unit, list(names.values()), values)

    panels = [
        panel("What the error would be", "NME, %", GIVEN),
        panel("Turns from the truth to the prediction", "degrees", TURNS),
        panel("Parts of the face", "NME, %", {region: region for region in REGIONS}),
        panel("Place", "% of the box", SHIFTS),
    ]
    for name, edges in HOLDINGS.items():
        found: dict[str, set[int]] = {}
        for group in (group for parts in methods.values() for group in parts[name]):
            found.setdefault(_range(group), set()).add(group["n"])
        labels = [f"{low} to {high}" for low, high in zip(edges, edges[1:], strict=False)]
        labels = [label for label in labels if label in found]
        values = {
            method: [{_range(g): g["mean"] for g in parts[name]}.get(label) for label in labels]
            for method, parts in methods.items()
        }
        counts = [" / ".join(map(str, sorted(found[label]))) for label in labels]
        groups = [f"{label}\n{count} images" for label, count in zip(labels, counts, strict=True)]
        panels.append(BarPanel(f"By {HOLDING_TITLES[name]}", "NME, %", groups, values))
    with written_whole(path) as temporary:
        draw_bars(panels, temporary)
    return path


def _common_mean(methods: Mapping[str, Mapping]) -> tuple[str, str]:
    """The mean that all methods have: its key and what it is called."""
    if any(empty_bins(own["quantities"]["as_it_is"]) for own in methods.values()):
        return "mean", "mean of all"
    return "mean_of_bins", MEAN_OF_BINS


def _named(name: str) -> str:
    title, unit = PARTS[name]
    return f"{title}, {unit}" if unit else title


def _range(group: Mapping) -> str:
    return f"{group['from']} to {group['to']}"
