"""A paper's table with our rows in it, as Markdown, LaTeX and CSV."""

import itertools
import string
from collections.abc import Mapping
from typing import NamedTuple

from prnet.files import csv_text
from prnet.papers.published import UNREADABLE, Cell, Footnote, PublishedTable
from prnet.reports.text import markdown_table

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


class FilledRow(NamedTuple):
    method: Cell
    is_ours: bool
    cells: tuple[Cell, ...]


class FilledTable(NamedTuple):
    published: PublishedTable
    rows: tuple[FilledRow, ...]
    footnotes: Mapping[str, Footnote]
    remarks: tuple[str, ...]  # which reports and commands make our rows, and what is missing

    def best(self) -> set[tuple[int, int]]:
        """(row, column) of the best among the numbers of a column that can be compared."""
        found = set()
        for index, column in enumerate(self.published.columns):
            numbers = {
                at: row.cells[index].number
                for at, row in enumerate(self.rows)
                if row.cells[index].number is not None and self._competes(row, row.cells[index])
            }
            if column.better is not None and len(numbers) > 1:
                winner = (min if column.better == "lower" else max)(numbers.values())
                found |= {(at, index) for at, number in numbers.items() if number == winner}
        return found

    def letters(self) -> dict[str, str]:
        """Footnote -> its letter, in the order in which the table is read."""
        cells = [column.name for column in self.published.columns]
        cells += [cell for row in self.rows for cell in (row.method, *row.cells)]
        used = dict.fromkeys(mark for cell in cells for mark in cell.marks)
        letters = string.ascii_lowercase
        return {mark: letters[i % 26] * (i // 26 + 1) for i, mark in enumerate(used)}

    def caption(self) -> str:
        table = self.published
        wanted = ", ".join(table.protocols) or "any"
        unreadable = any(cell.text == UNREADABLE for row in self.rows for cell in row.cells)
        return (
            f"{table.citation}, {table.printed_as} ({table.where}). {table.title}. {table.unit}. "
            f"Protocol: {table.protocol}. Ours: protocol {wanted}. "
            "Bold: the best of a column among the numbers that can be compared."
            + (f" {UNREADABLE}: could not be read." if unreadable else "")
        )

    def _competes(self, row: FilledRow, cell: Cell) -> bool:
        return all(self.footnotes[mark].comparable for mark in (*row.method.marks, *cell.marks))


def to_markdown(table: FilledTable) -> str:
    """Caption, table, footnotes, the commands of our rows, and the notes of the table's file."""
    letters, best = table.letters(), table.best()

    def written(cell: Cell, *, bold: bool = False) -> str:
        text = cell.text.replace("|", "\\|")
        marks = [f"[{letters[mark]}]" for mark in cell.marks]
        return " ".join([f"**{text}**" if bold else text, *marks])

    columns = table.published.columns
    header = [written(column.name._replace(text=column.title)) for column in columns]
    rows = [
        [
            written(row.method),
            *(written(cell, bold=(at, i) in best) for i, cell in enumerate(row.cells)),
        ]
        for at, row in enumerate(table.rows)
    ]
    sections = [table.caption(), markdown_table(["Method", *header], rows, rule="---:")]
    if letters:
        notes = [f"- [{letter}] {table.footnotes[mark].text}" for mark, letter in letters.items()]
        sections.append("\n".join(notes))
    if table.remarks:
        sections.append("Our rows:\n\n" + "\n".join(f"- {remark}" for remark in table.remarks))
    if table.published.notes:
        sections.append("Notes:\n\n" + "\n".join(f"- {note}" for note in table.published.notes))
    return "\n\n".join(sections) + "\n"


def to_latex(table: FilledTable) -> str:
    r"""A `table` environment; needs \usepackage{booktabs}. Commands and notes are comments."""
    letters, best = table.letters(), table.best()

    def written(cell: Cell, *, bold: bool = False) -> str:
        text = escape_latex(cell.text)
        marks = ",".join(letters[mark] for mark in cell.marks)
        return (rf"\textbf{{{text}}}" if bold else text) + (
            rf"\textsuperscript{{{marks}}}" if marks else ""
        )

    columns = table.published.columns
    groups = [
        (name, len(list(same)))
        for name, same in itertools.groupby(columns, lambda column: column.group)
    ]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption())}}}",
        rf"\label{{tab:{table.published.paper.replace('_', '-')}-{table.published.table}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
    ]
    if any(name for name, _ in groups):
        spans = [rf"\multicolumn{{{n}}}{{c}}{{{escape_latex(name)}}}" for name, n in groups]
        lines.append(" & ".join(["", *spans]) + r" \\")
    lines.append(" & ".join(["Method", *(written(column.name) for column in columns)]) + r" \\")
    lines.append(r"\midrule")
    for at, row in enumerate(table.rows):
        cells = [written(cell, bold=(at, i) in best) for i, cell in enumerate(row.cells)]
        lines.append(" & ".join([written(row.method), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if letters:
        lines += ["", r"\footnotesize"]
    for mark, letter in letters.items():
        text = escape_latex(table.footnotes[mark].text)
        lines += [rf"\textsuperscript{{{letter}}} {text}", ""]
    lines.append(r"\end{table}")
    lines += [f"% {text}" for text in (*table.remarks, *table.published.notes)]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Plain text as LaTeX prints it."""
    return "".join(LATEX.get(character, character) for character in text)


def to_csv(table: FilledTable) -> str:
    """One line a row; the last column has the footnotes of the row and its numbers."""
    titles = [column.title for column in table.published.columns]
    lines = [["method", "ours", *titles, "footnotes"]]
    for row in table.rows:
        titles_of: dict[str, list[str]] = {}
        for title, cell in zip(["method", *titles], (row.method, *row.cells), strict=True):
            for mark in cell.marks:
                titles_of.setdefault(mark, []).append(title)
        notes = [f"{'; '.join(of)}: {table.footnotes[mark].text}" for mark, of in titles_of.items()]
        values = [cell.text for cell in row.cells]
        ours = "yes" if row.is_ours else "no"
        lines.append([row.method.text, ours, *values, " | ".join(notes)])
    return csv_text(lines)
