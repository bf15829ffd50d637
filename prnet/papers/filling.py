"""The tables of the papers with our reports in them.

A number of ours stands in a column only where its report has exactly that number: the same metric,
the same mean, the same dataset. Where the protocol or the images are not those of the column, a
footnote says how they differ, and the number does not compete for the best.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prnet.files import markdown_table, write_text
from prnet.papers.formats import FilledRow, FilledTable, to_csv, to_latex, to_markdown
from prnet.papers.published import DASH, Cell, Column, Footnote, PublishedTable, Row
from prnet.reports.reading import SavedReport, number_at
from prnet.reports.shipped import Shipped

DEFAULT_DATASET = "aflw2000"
DEFAULT_DECIMALS = 2
FORMATS = {".md": to_markdown, ".tex": to_latex, ".csv": to_csv}


def fill(table: PublishedTable, reports: Sequence[SavedReport], shipped: Shipped) -> FilledTable:
    """The published rows, each followed by those of our reports that are of its experiment.

    Reports of one source share a row; reports of no experiment of the table come last, if they
    have a number for it.

    Raises:
        ValueError: two reports of one source have the same number under the same protocol.
    """
    runs: dict[str, list[SavedReport]] = {}
    for report in reports:
        runs.setdefault(report.source, []).append(report)
    suffixes = dict.fromkeys(column.experiment_suffix for column in table.columns if column.report)
    footnotes, rows, remarks = dict(table.footnotes), [], []
    placed: set[str] = set()

    def add(row: FilledRow, own_footnotes: Mapping[str, Footnote], own_remarks: list[str]) -> None:
        rows.append(row)
        footnotes.update(own_footnotes)
        remarks.extend(own_remarks)

    for row in table.rows:
        if row.cells is not None:
            rows.append(FilledRow(row.method, False, row.cells))
        matches = []
        for suffix in suffixes:
            names = {name + suffix for name in row.experiments}
            sources = [source for source, own in runs.items() if own[0].experiment in names]
            matches.append([(suffix, runs[source]) for source in sources])
            placed.update(sources)
        several = max(map(len, matches), default=0) > 1
        for parts in itertools.zip_longest(*matches):
            by_suffix = dict(part for part in parts if part)
            scored = dict.fromkeys(own[0].scored for own in by_suffix.values())
            label = f"{row.method.text}, ours" + (f" ({', '.join(scored)})" if several else "")
            add(*our_row(table, label, row, by_suffix, shipped))
    for source, own in runs.items():
        if source in placed:
            continue
        unpublished = Row(Cell(""), (), {}, None)
        ours = our_row(table, f"ours: {source}", unpublished, {"": own}, shipped)
        if any(cell.text != DASH for cell in ours[0].cells):
            add(*ours)
        else:
            remarks.append(f"Nothing for this table in {', '.join(str(r.path) for r in own)}")
    return FilledTable(table, tuple(rows), footnotes, (*remarks, *_to_make(table, reports)))


def our_row(
    table: PublishedTable,
    label: str,
    row: Row,
    by_suffix: Mapping[str, Sequence[SavedReport]],
    shipped: Shipped,
) -> tuple[FilledRow, dict[str, Footnote], list[str]]:
    """The row of ours beside a published one, from the reports of the row's experiments; the
    footnotes that it adds, under their own text; its remarks."""
    cells, footnotes = [], {}
    used: dict[Path, SavedReport] = {}
    missing: dict[str, list[str]] = {}
    for index, column in enumerate(table.columns):
        published = row.cells[index] if row.cells else Cell(DASH)
        reports = by_suffix.get(column.experiment_suffix, ())
        if column.report is None:
            cells.append(published)
        elif (found := best_report(reports, column, row, shipped)) is None:
            cells.append(Cell(DASH))
            if reports:
                missing.setdefault(_why_missing(reports, column, row, shipped), []).append(
                    column.title
                )
        else:
            report, foreign = found
            used[report.path] = report
            notes = (*foreign, *_count_notes(report, column, table))
            footnotes |= {note: Footnote(note, comparable=False) for note in notes}
            number = number_at(report, column.report.metric, column.report.at)
            marks = () if foreign else _shared(table, index, row.protocol_of(column))
            cells.append(Cell(f"{number:.{_decimals(table, index)}f}", (*marks, *notes)))
    remarks = []
    for path, report in used.items():
        what = f"{label}: {path}, {report.count} images"
        remarks.append("; ".join([f"{what}: {made_by(report, table, shipped)}", *report.remarks]))
    remarks += [f"{label}: no number for {'; '.join(of)} ({why})" for why, of in missing.items()]
    return FilledRow(Cell(label), True, tuple(cells)), footnotes, remarks


def best_report(
    reports: Sequence[SavedReport], column: Column, row: Row, shipped: Shipped
) -> tuple[SavedReport, tuple[str, ...]] | None:
    """The report that has a column's number, nearest to the protocol it needs, and the footnote
    that says where it is another; None where no report has the number.

    Raises:
        ValueError: two reports have it under that very protocol.
    """
    wanted = row.protocol_of(column)
    ranked: list[list[SavedReport]] = [[], [], []]
    for report in reports:
        if column.report.dataset not in (None, report.dataset):
            continue
        if number_at(report, column.report.metric, column.report.at) is None:
            continue
        if wanted in (None, shipped.protocol_words(report.protocol)):
            ranked[0].append(report)
        else:
            ranked[1 if report.protocol["name"] == wanted else 2].append(report)
    if wanted is not None and len(ranked[0]) > 1:
        first, second = ranked[0][:2]
        raise ValueError(
            f"ours: {first.path} and {second.path} are both of {first.source} on {first.dataset} "
            f"under protocol {wanted}; leave one out"
        )
    for rank, candidates in enumerate(ranked):
        if candidates:
            used = shipped.protocol_words(candidates[0].protocol)
            foreign = f"Ours under protocol {used}; the column needs {wanted}: not comparable."
            return candidates[0], (foreign,) if rank else ()
    return None


def _why_missing(reports: Sequence[SavedReport], column: Column, row: Row, shipped: Shipped) -> str:
    """Why no report has the number of a column, or the command that would make it."""
    dataset, metric = column.report.dataset, column.report.metric
    protocol = row.protocol_of(column)
    for report in reports:
        if report.dataset == dataset and shipped.protocol_words(report.protocol) == protocol:
            if metric in report.not_computed:
                return f"{report.path}: {report.not_computed[metric]}"
            if metric in report.metrics:
                return f"{report.path} has no image there"
    command = eval_command(reports[0].scored, dataset, protocol, [metric])
    return f"it would come from {command}"


def _to_make(table: PublishedTable, reports: Sequence[SavedReport]) -> list[str]:
    """The runs of the table that no report is of, and the commands of all their numbers."""
    present = {report.experiment for report in reports}
    remarks = []
    for run, made in table.runs.items():
        if run in present:
            continue
        wanted = table.evaluations(run)
        # What says something of the network alone comes with any evaluation.
        scored = {key: numbers for key, numbers in wanted.items() if key[0] is not None} or wanted
        commands = [
            eval_command(
                f"checkpoint=outputs/{run}/TIME/best.pt",
                *key,
                [number.metric for number in numbers],
            )
            for key, numbers in scored.items()
        ]
        remarks.append(f"No report of {run}: {train_command(*made)}, then {', '.join(commands)}")
    return remarks


def made_by(report: SavedReport, table: PublishedTable, shipped: Shipped) -> str:
    """The commands behind a report."""
    protocol = shipped.protocol_words(report.protocol)
    command = eval_command(
        report.scored, report.dataset, protocol, report.metrics, file=report.path
    )
    experiment, options = table.runs.get(report.experiment, (report.experiment, ""))
    if experiment in shipped.experiments:
        return f"{train_command(experiment, options)}, then {command}"
    return command


def train_command(experiment: str, options: str = "") -> str:
    words = " ".join(filter(None, [f"+experiment={experiment}", options]))
    return f"`python -m prnet.train {words}`"


def eval_command(
    scored: str,  # checkpoint=FILE or predictions=DIR
    dataset: str | None,  # None: any
    protocol: str | None,  # its words; None: any
    metrics: Iterable[str],  # that its report is to have
    *,
    file: Path | str = "FILE.json",
) -> str:
    words = [scored, f"dataset={dataset or DEFAULT_DATASET}"]
    words += [f"protocol={protocol}"] if protocol else []
    words += ["latency=true"] if "latency_ms" in metrics else []
    return f"`python -m prnet.eval {' '.join(words)} report={file}`"


def _shared(table: PublishedTable, index: int, protocol: str | None) -> tuple[str, ...]:
    """Marks of a column's published numbers that tell of a protocol, so of ours under it too."""
    marks: dict[str, None] = {}
    for row in table.rows:
        if row.cells and row.protocol_of(table.columns[index]) == protocol:
            marks |= dict.fromkeys((*row.method.marks, *row.cells[index].marks))
    return tuple(mark for mark in marks if table.footnotes[mark].of_protocol)


def _count_notes(report: SavedReport, column: Column, table: PublishedTable) -> tuple[str, ...]:
    whole = table.images.get(column.report.dataset)
    if whole in (None, report.count):
        return ()
    return (f"Ours on {report.count:,} of {whole:,} images of {report.dataset}: not comparable.",)


def _decimals(table: PublishedTable, index: int) -> int:
    """As many as the paper prints in the column."""
    cells = [row.cells[index] for row in table.rows if row.cells]
    texts = [cell.text for cell in cells if cell.number is not None]
    return max((len(text.partition(".")[2]) for text in texts), default=DEFAULT_DECIMALS)


def listing(tables: Sequence[PublishedTable]) -> str:
    """All tables, and the experiments that make our rows, as Markdown."""
    rows = []
    for table in tables:
        made = [" ".join(filter(None, words)) for words in dict.fromkeys(table.runs.values())]
        what = f"{table.printed_as}: {table.title}"
        rows.append([table.paper, table.table, what, ", ".join(made)])
    return markdown_table(["paper=", "table=", "what", "our rows: +experiment="], rows)


def write_table(table: FilledTable, directory: Path) -> list[Path]:
    """DIRECTORY/PAPER_TABLE.md, .tex and .csv; returns the paths."""
    name = f"{table.published.paper}_{table.published.table}"
    written = []
    for suffix, convert in FORMATS.items():
        written.append(directory / f"{name}{suffix}")
        write_text(written[-1], convert(table))
    return written
