"""The tables of the papers as data, one file of `assets/tables` a table, checked when it is read.

A text of a table - a value, a method, the name of a column - may end in marks, `5.42 [misprint]`:
the footnotes that go with it. A value is what the paper prints, "-" where it prints a dash, and "?"
where it could not be read; numbers keep the paper's decimals.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from prnet.checks import require_choice
from prnet.files import read_json_object, take

TABLES_DIR = Path(__file__).resolve().parents[1] / "assets" / "tables"

DASH = "-"
UNREADABLE = "?"
DIRECTIONS = ("lower", "higher", None)
# Where a report has a number: its mean of all images, of bins, their deviation, or of one yaw bin.
SUMMARIES = ("mean", "mean_of_bins", "std_of_bins")
BIN = re.compile(r"\d+-\d+")
TEXT_OR_NULL = (str, type(None))
MARKED = re.compile(r"(?P<text>.*?)(?P<marks>(?: \[[a-z0-9_]+\])*)")


class Footnote(NamedTuple):
    text: str
    comparable: bool = True  # false: a number that carries it does not compete for the best
    of_protocol: bool = False  # true: our numbers under the same protocol carry it too


class Cell(NamedTuple):
    text: str
    marks: tuple[str, ...] = ()  # names of footnotes

    @property
    def number(self) -> float | None:
        try:
            return float(self.text)
        except ValueError:
            return None


class ReportKey(NamedTuple):
    """Which number of a report a column holds."""

    metric: str
    at: str  # one of SUMMARIES, or a yaw bin such as 30-60
    dataset: str | None  # None: any
    protocol: str | None  # None: any


class Column(NamedTuple):
    group: str
    name: Cell
    better: str | None  # one of DIRECTIONS; None: no best is marked
    experiment_suffix: str  # the column is of a run with this behind the experiment's name,
    options: str  # which these words of prnet.train give it
    report: ReportKey | None  # None: words about the method

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name.text}" if self.group else self.name.text


class Row(NamedTuple):
    method: Cell
    experiments: tuple[str, ...]  # ours that reproduce it
    protocol: Mapping[str, str]  # protocol of a column -> what this row has instead
    cells: tuple[Cell, ...] | None  # one a column; None: only we have the row

    def protocol_of(self, column: Column) -> str | None:
        """That our number in a column needs; None: any."""
        return self.protocol.get(column.report.protocol, column.report.protocol)


class PublishedTable(NamedTuple):
    paper: str
    table: str
    citation: str
    printed_as: str
    where: str
    title: str
    unit: str
    protocol: str  # how the published numbers were made
    images: Mapping[str, int]  # dataset -> how many it has
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: Mapping[str, Footnote]
    notes: tuple[str, ...]  # what could not be read, and where the paper contradicts itself

    @property
    def protocols(self) -> list[str]:
        """Names of all protocols that our numbers need, once each."""
        columns = [column.report.protocol for column in self.columns if column.report]
        rows = [name for row in self.rows for name in row.protocol.values()]
        return [name for name in dict.fromkeys(columns + rows) if name is not None]

    @property
    def runs(self) -> dict[str, tuple[str, str]]:
        """Names of all runs that make a row of ours -> experiment and options of each."""
        return {
            name + column.experiment_suffix: (name, column.options)
            for column in self.columns
            if column.report
            for row in self.rows
            for name in row.experiments
        }

    def evaluations(self, run: str) -> dict[tuple[str | None, str | None], list[ReportKey]]:
        """(dataset, protocol) -> the numbers of ours that a run of this name has under them."""
        found: dict[tuple[str | None, str | None], list[ReportKey]] = {}
        for column, row in itertools.product(self.columns, self.rows):
            if column.report and run in {n + column.experiment_suffix for n in row.experiments}:
                wanted = (column.report.dataset, row.protocol_of(column))
                found.setdefault(wanted, []).append(column.report)
        return found


def parse_marked(text: str) -> Cell:
    """`5.42 [misprint] [bins]` -> ("5.42", ("misprint", "bins"))."""
    match = MARKED.fullmatch(text)
    return Cell(match["text"], tuple(re.findall(r"\[(\w+)\]", match["marks"])))


def read_published(path: Path) -> PublishedTable:
    """A table file.

    Raises:
        ValueError: not JSON, or of another schema; names file and key.
    """
    kinds = dict.fromkeys(PublishedTable._fields[:8], str)
    kinds |= {"images": dict, "columns": list, "rows": list, "footnotes": dict, "notes": list}
    values = _values(read_json_object(path), kinds, path)
    columns = [_column(entry, f"{path}: columns[{i}]") for i, entry in enumerate(values["columns"])]
    rows = [
        _row(entry, len(columns), f"{path}: rows[{i}]") for i, entry in enumerate(values["rows"])
    ]
    footnotes = {
        name: _footnote(entry, f"{path}: footnotes.{name}")
        for name, entry in values["footnotes"].items()
    }
    values |= {"columns": tuple(columns), "rows": tuple(rows), "footnotes": footnotes}
    table = PublishedTable(**values | {"notes": tuple(values["notes"])})
    _require_consistent(table, path)
    return table


def published_tables(directory: Path = TABLES_DIR) -> list[PublishedTable]:
    """Every table there is, by paper, the tables before the figures."""
    tables = [read_published(path) for path in sorted(directory.glob("*.json"))]
    return sorted(tables, key=_order)


def find_tables(paper: str, table: str | None = None) -> list[PublishedTable]:
    """The table of a paper, or all of them where `table` is None.

    Raises:
        ValueError: there is none; lists those there are.
    """
    every = published_tables()
    require_choice("paper", paper, dict.fromkeys(entry.paper for entry in every))
    of_paper = [entry for entry in every if entry.paper == paper]
    found = [entry for entry in of_paper if table in (None, entry.table)]
    if not found:
        names = ", ".join(entry.table for entry in of_paper)
        raise ValueError(f"table: got {table!r}, {paper} has {names}")
    return found


def _values(entry: object, kinds: Mapping, where: object, **defaults: object) -> dict:
    """The values of an entry, each of its kind; what it may leave out has its default.

    Raises:
        ValueError: a key is lacking, unknown, or of another kind; names place and key.
    """
    if isinstance(entry, dict):
        entry = {**defaults, **entry}
    values = {key: take(entry, key, kind, where) for key, kind in kinds.items()}
    unknown = sorted(set(entry) - set(kinds))
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; expected {', '.join(kinds)}")
    return values


def _column(entry: object, where: str) -> Column:
    kinds = {"group": str, "name": str, "better": TEXT_OR_NULL, "experiment_suffix": str}
    kinds |= {"options": str, "report": (dict, type(None))}
    values = _values(entry, kinds, where, experiment_suffix="", options="")
    if values["better"] not in DIRECTIONS:
        raise ValueError(f"{where}: better is {values['better']!r}, expected lower, higher or null")
    report = _report_key(values["report"], f"{where}.report")
    return Column(**values | {"name": parse_marked(values["name"]), "report": report})


def _report_key(entry: dict | None, where: str) -> ReportKey | None:
    if entry is None:
        return None
    kinds = {"metric": str, "at": str, "dataset": TEXT_OR_NULL, "protocol": TEXT_OR_NULL}
    key = ReportKey(**_values(entry, kinds, where))
    if key.at not in SUMMARIES and not BIN.fullmatch(key.at):
        raise ValueError(f"{where}: at is {key.at!r}, expected {', '.join(SUMMARIES)} or a bin")
    return key


def _row(entry: object, num_columns: int, where: str) -> Row:
    kinds = {"method": str, "experiments": list, "protocol": dict, "values": (list, type(None))}
    method, experiments, protocol, values = _values(entry, kinds, where, protocol={}).values()
    cells = None
    if values is not None:
        if len(values) != num_columns or not all(isinstance(value, str) for value in values):
            raise ValueError(
                f"{where}: values is {values!r}, expected {num_columns} texts, one a column"
            )
        cells = tuple(map(parse_marked, values))
    return Row(parse_marked(method), tuple(experiments), protocol, cells)


def _footnote(entry: object, where: str) -> Footnote:
    kinds = {"text": str, "comparable": bool, "of_protocol": bool}
    return Footnote(**_values(entry, kinds, where, **Footnote._field_defaults))


def _require_consistent(table: PublishedTable, path: Path) -> None:
    """Every mark has its footnote, every footnote a mark, every column a title of its own."""
    cells = [column.name for column in table.columns] + [row.method for row in table.rows]
    cells += [cell for row in table.rows for cell in row.cells or ()]
    marks = {mark for cell in cells for mark in cell.marks}
    if marks != set(table.footnotes):
        raise ValueError(
            f"{path}: footnotes has {sorted(table.footnotes)}, the texts are marked {sorted(marks)}"
        )
    titles = [column.title for column in table.columns]
    if len(set(titles)) < len(titles):
        raise ValueError(f"{path}: columns: two of the same group and name among {titles}")


def _order(table: PublishedTable) -> tuple[str, str, int]:
    """`prn 2` before `prn fig5` before `prn fig10`."""
    kind = table.table.rstrip("0123456789")
    return table.paper, kind, int(table.table[len(kind) :])
