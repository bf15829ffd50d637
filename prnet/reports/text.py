"""What the tables of reports are made of, for Markdown and for a terminal."""

from collections.abc import Iterable, Mapping, Sequence

MEAN_OF_BINS = "mean of bins"


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a terminal: the first column to the left, the others to the right."""
    lines = [header, *rows]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    aligned = [[line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def number_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def empty_bins(summary: Mapping) -> list[str]:
    """The bins of a metric that have no image."""
    return [label for label, entry in summary["bins"].items() if entry["mean"] is None]


def without_mean_of_bins(summaries: Mapping[str, Mapping]) -> str:
    """Of metrics by title: which have no mean of bins, for want of which, and what their mean over
    the others is; empty where all have one."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for title, summary in summaries.items():
        if empty := empty_bins(summary):
            others = [e["mean"] for e in summary["bins"].values() if e["mean"] is not None]
            mean = f"{title} {sum(others) / len(others):.3f}"
            lacking.setdefault(tuple(empty), []).append(mean)
    return " ".join(
        f"No mean of bins: no image in {', '.join(empty)}. Mean of the other bins: "
        f"{'; '.join(means)}."
        for empty, means in lacking.items()
    )
