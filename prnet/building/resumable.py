"""The loop of every builder: one plan of what is built, what of it is finished, and who does the
rest.

FOLDER/plan.json   all that decides what is written there: the same command goes on where a killed
                   one stopped, any other is refused
A marker           the file of an item that is written last: where it is, the item is finished
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from prnet.checks import differences
from prnet.files import (
    of_one_file,
    read_json_object,
    remove_leftovers,
    require_folder,
    write_json,
)
from prnet.workers import in_processes

try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    fcntl = None

log = logging.getLogger(__name__)

PLAN_FILE, PLAN_FORMAT = "plan.json", 2
LOCK_FILE = ".lock"
# Seconds of work left, below which processes take longer to start than they save.
POOL_FROM = 5.0
SHOWN = 3  # differences and reasons in a message
LISTED = 10  # reasons in the log
# So much that cannot be used says that something is wrong with all of it.
LARGE_SHARE = 0.5

Item = TypeVar("Item")
Tools = TypeVar("Tools")


@contextlib.contextmanager
def planned(folder: Path, **values: object) -> Iterator[None]:
    """Have FOLDER to oneself while something is built there that is decided by `values`.

    Raises:
        OSError: nothing can be written there, or another process is building in it.
        ValueError: as `write_plan`.
    """
    require_folder(folder)
    with _locked(folder):
        # Nobody else writes here now: what is unfinished was left by writers that were killed.
        remove_leftovers(folder)
        write_plan(folder, **values)
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold FOLDER/.lock, which the system lets go of however this process ends. It stays there: a
    new one in its place could be held at the same time."""
    if fcntl is None:
        yield
        return
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                f"{folder}: another process is building there; wait for it, or choose another "
                "output="
            ) from error
        except OSError as error:  # some network drives have no locks
            log.warning("%s: no lock (%s): let no other process build there", folder, error)
        yield


def write_plan(folder: Path, **values: object) -> None:
    """FOLDER/plan.json, or the check that what is there was planned in the same way.

    Raises:
        ValueError: the folder holds something else, or what an earlier version has left unfinished.
    """
    plan = json.loads(json.dumps({"format": PLAN_FORMAT, **values}))
    file = folder / PLAN_FILE
    advice = "choose another output= or delete it"
    if not file.is_file():
        if any(not path.name.startswith(".") for path in folder.glob("*")):
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


@contextlib.contextmanager
def left_out(unusable: MutableMapping[str, str], name: str) -> Iterator[None]:
    """What cannot be used is listed with its reason and left out.

    Raises:
        OSError: the disk failed, not one file: what it holds is not known, and left out would be
            what is good.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if not of_one_file(error):
            raise OSError(
                f"{name}: cannot be read ({error}): a disk or a network drive fails; see to it, "
                "then run the same command again"
            ) from error
        unusable[name] = str(error)


def require_most(what: object, used: int, unusable: Mapping[str, str]) -> None:
    """Raise ValueError if more than `LARGE_SHARE` of what was to be used cannot be."""
    total = used + len(unusable)
    if len(unusable) > LARGE_SHARE * total:
        raise ValueError(
            f"{what}: {len(unusable)} of {total} cannot be used and are left out "
            f"({some_reasons(unusable)}); mend them and run the same command again"
        )


def some_reasons(unusable: Mapping[str, str]) -> str:
    """The first few for the message of an error."""
    return "; ".join(f"{name}: {why}" for name, why in list(unusable.items())[:SHOWN])


def log_reasons(unusable: Mapping[str, str], *, what: str) -> None:
    """A warning for each of the first ones."""
    for name, why in list(unusable.items())[:LISTED]:
        log.warning("%s: %s: %s", what, name, why)
