"""A figure of grouped bars, panel by panel, written as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class BarPanel(NamedTuple):
    """Groups of bars along the axis, a bar of each series in every group; None draws no bar."""

    title: str
    unit: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[float | None]]  # what a colour stands for -> one value a group


def draw_bars(panels: Sequence[BarPanel], path: Path | str) -> None:
    """The panels two a row. The figure is written to `path`, in the format of its suffix.

    Raises:
        ValueError: no panel.
    """
    # Importing it takes longer than drawing a face, and only figures need it.
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("panels: got none, expected at least one")
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(13, 4.2 * rows), layout="constrained")
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, 2, number)
        width = 0.8 / len(panel.series)
        for index, (label, values) in enumerate(panel.series.items()):
            drawn = [(place, value) for place, value in enumerate(values) if value is not None]
            offset = (index - (len(panel.series) - 1) / 2) * width
            places = [place + offset for place, _ in drawn]
            bars = axes.bar(places, [value for _, value in drawn], width, label=label)
            axes.bar_label(bars, fmt="%.1f", fontsize=7)
        axes.set_xticks(range(len(panel.groups)), panel.groups, fontsize=8)
        axes.set(title=panel.title, ylabel=panel.unit)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.margins(y=0.12)
        if len(panel.series) > 1:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
