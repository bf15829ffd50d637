"""CSV files of one named row of numbers a line."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.files import reading

# Of a longer line of a CSV a message shows the first cells and the last two.
SHOWN_CELLS = 8


class CsvTable(NamedTuple):
    """A CSV whose first column names the rows and whose others hold numbers."""

    columns: tuple[str, ...]  # of the numbers
    rows: dict[str, np.ndarray]  # name -> (columns,), float64


def read_csv(
    path: Path,
    *headers: Sequence[str],  # the first lines that are accepted, the column of names included
    hint: str,
    may_be_empty: bool = False,  # a cell: it is read as NaN
) -> CsvTable:
    """A CSV of one named row a line.

    Raises:
        ValueError: another first line, a row of another length, a cell that is no finite number, or
            a name that appears twice.
    """
    with (
        reading(path, "a readable CSV", hint),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        reader = csv.reader(file)
        lines = [(reader.line_num, row) for row in reader if row]
    header = lines[0][1] if lines else []
    if header not in [list(each) for each in headers]:
        expected = " or ".join(map(_shown, headers))
        raise ValueError(f"{path}: the first line is {_shown(header)}, expected {expected}")
    _, *columns = header
    rows: dict[str, np.ndarray] = {}
    for number, (name, *cells) in lines[1:]:
        values = [_number(cell, may_be_empty) for cell in cells]
        if len(values) != len(columns) or None in values:
            kind = "number(s) or empty cell(s)" if may_be_empty else "finite number(s)"
            message = f"{path}: line {number} is {_shown([name, *cells])}, expected a name and "
            message += f"{len(columns)} {kind}"
            if len(values) == len(columns):
                first = values.index(None)
                message += f"; {columns[first]} is {cells[first]!r}"
            raise ValueError(message)
        if name in rows:
            raise ValueError(f"{path}: {name} appears twice (line {number})")
        rows[name] = np.array(values, dtype=np.float64)
    return CsvTable(tuple(columns), rows)


def _number(cell: str, may_be_empty: bool) -> float | None:
    """None stands for what is no number."""
    if may_be_empty and not cell.strip():
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if may_be_empty or math.isfinite(value) else None


def _shown(cells: Sequence[str]) -> str:
    """A line of a CSV for a message."""
    if len(cells) <= SHOWN_CELLS:
        return repr(",".join(cells))
    return repr(",".join([*cells[:4], "...", *cells[-2:]])) + f" ({len(cells)} columns)"
