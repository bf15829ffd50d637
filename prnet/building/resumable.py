"""The loop of every builder: one plan of what is built, what of it is finished, and who does the
rest.

FOLDER/plan.json   all that decides what is written there: the same command goes on where a killed
                   one stopped, any other is refused
A marker           the file of an item that is written last: where it is, the item is finished
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from prnet.checks import differences
from prnet.files import read_json_object, write_json
from prnet.workers import in_processes

log = logging.getLogger(__name__)

PLAN_FILE, PLAN_FORMAT = "plan.json", 2
# Seconds of work left, below which processes take longer to start than they save.
POOL_FROM = 5.0
SHOWN = 3  # differences and reasons in a message
LISTED = 10  # reasons in the log

Item = TypeVar("Item")
Tools = TypeVar("Tools")


def write_plan(folder: Path, **values: object) -> None:
    """FOLDER/plan.json, or the check that what is there was planned in the same way.

    Raises:
        ValueError: the folder holds something else, or what an earlier version has left unfinished.
    """
    plan = json.loads(json.dumps({"format": PLAN_FORMAT, **values}))
    file = folder / PLAN_FILE
    advice = "choose another output= or delete it"
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"{folder}: not empty and without a {PLAN_FILE}: not made by this command, or by "
                f"an earlier version of it; {advice}"
            )
        write_json(file, plan)
        return
    found = read_json_object(file)
    if found.get("format") != PLAN_FORMAT:
        raise ValueError(
            f"{file}: of another version, format {found.get('format')} where this one writes "
            f"{PLAN_FORMAT}; {advice}"
        )
    different = [
        f"{key} is {old} there and {new} here" for key, old, new in differences(found, plan)
    ]
    if different:
        more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        raise ValueError(
            f"{folder}: planned otherwise: {', '.join(different[:SHOWN])}{more}; {advice}"
        )


def resumable(
    folder: Path,
    pieces: Iterable[Sequence[Item]],
    work: Callable[[Sequence[Item], Tools], Mapping[str, str]],
    prepare: Callable[[], Tools],
    marker: Callable[[Item], Path],
    *,
    title: str,
    unit: str,
    seconds: float,
    size: Callable[[Item], int] = lambda _item: 1,
    workers: int,
) -> dict[str, str]:
    """Do what is left of `pieces`, each in one process; returns {name: why} of what was left out.

    Nothing depends on the number of processes, or on when an earlier run was killed; what that one
    left half-written in the folder is removed. `work` and `prepare` are sent to processes: module
    functions or partials of them.

    - `work`: of the items of a piece, and what `prepare` made there; returns {name: why} of those
      that cannot be used.
    - `title`, `unit`: of the progress bar.
    - `seconds`: of work in a unit, about.
    - `size`: units in an item.
    """

    def units(piece: Sequence[Item]) -> int:
        return sum(map(size, piece))

    pieces = list(pieces)
    left = [[item for item in piece if not marker(item).is_file()] for piece in pieces]
    left = [piece for piece in left if piece]
    total, todo = (sum(map(units, some)) for some in (pieces, left))
    processes = min(workers, len(left)) if seconds * todo >= POOL_FROM else 0
    unusable: dict[str, str] = {}
    with tqdm(total=total, initial=total - todo, desc=title, unit=unit) as bar:
        for piece, failed in in_processes(work, left, prepare, workers=processes):
            unusable.update(failed)
            bar.update(units(piece))
    remove_leftovers(folder)
    return unusable


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files (`prnet.files.written_whole`) of writers that were killed."""
    for leftover in folder.rglob(".*.tmp*"):
        leftover.unlink()


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Pieces of that many items, the last of them shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


def some_reasons(unusable: Mapping[str, str]) -> str:
    """The first few for the message of an error."""
    return "; ".join(f"{name}: {why}" for name, why in list(unusable.items())[:SHOWN])


def log_reasons(unusable: Mapping[str, str], *, what: str) -> None:
    """A warning for each of the first ones."""
    for name, why in list(unusable.items())[:LISTED]:
        log.warning("%s: %s: %s", what, name, why)
