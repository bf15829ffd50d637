"""Commands killed at random moments and started again until one gets through: is all there in the
end, to the bit, and was nothing ever half written?"""

import hashlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fault_campaign.mutations import digest
from prnet.checkpoint import load_checkpoint
from prnet.files import TEMPORARY
from prnet.files.matlab import MAT_HEADER

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# Each kill lets the next start live a little longer, or none would ever get through.
PATIENCE = 1.15


class Verb(NamedTuple):
    """A command as a function: all of its work in a folder, or what is left of it."""

    name: str
    work: Callable[[Path], None]
    # Files that must be as those of a run that nobody killed, by pattern, ...
    final: tuple[str, ...]
    # ... as soon as they are there, or only in the end, since they are written again and again.
    written_once: bool = True


class Killed(NamedTuple):
    """What came of it."""

    verb: str
    kills: int
    rounds: int  # times that all of it was done
    faults: list[str]


def kill_at_random(
    verb: Verb, folder: Path, *, rounds: int, seed: int, say: Callable[[str], None] = print
) -> Killed:
    """Do all of it `rounds` times, each of them killed until it gets through."""
    random = np.random.default_rng(seed)
    whole = folder / "whole"
    start = time.monotonic()
    if in_child(verb.work, whole, None) != 0:
        raise RuntimeError(f"{verb.name}: fails even where nobody kills it, see {whole}.log")
    longest = time.monotonic() - start
    expected = outcome(verb, whole)
    kills, faults = 0, []
    for number in range(rounds):
        place, patience = folder / f"killed_{number}", longest
        while True:
            after, by = random.uniform(0, patience), SIGNALS[random.integers(2)]
            status = in_child(verb.work, place, after, by=by)
            where = f"{verb.name}, round {number}, kill {kills}"
            if status > 0:
                faults.append(f"{where}: ended by an error, see {place}.log")
                break
            if status == 0:
                break
            kills, patience = kills + 1, patience * PATIENCE
            faults += [f"{where}: {fault}" for fault in half_written(verb, place, expected)]
        found = outcome(verb, place)
        different = [name for name in expected | found if expected.get(name) != found.get(name)]
        faults += [f"{verb.name}, round {number}: {name} differs" for name in different]
        faults += [f"{verb.name}, round {number}: {path} is left" for path in leftovers(place)]
        say(f"{verb.name}: round {number + 1} of {rounds}, {kills} kills, {len(faults)} faults")
    return Killed(verb.name, kills, rounds, faults)


def in_child(
    work: Callable[[Path], None],
    place: Path,
    after: float | None,  # s; None: it is left alone
    *,
    by: int = signal.SIGKILL,
) -> int:
    """The status of a process that does the work; below 0: it was stopped before it was done."""
    process = os.fork()
    if process == 0:
        status = 1
        with open(f"{place}.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                work(place)
                status = 0
            except BaseException:  # noqa: BLE001 - it is written down, and the process ends
                traceback.print_exc()
            log.flush()
            os._exit(status)
    end = time.monotonic() + (float("inf") if after is None else after)
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, by)
    _, status = os.waitpid(process, 0)
    # One that was told to stop, and has saved, ends well and is not done.
    return min(os.waitstatus_to_exitcode(status), -1)


def outcome(verb: Verb, place: Path) -> dict[str, str]:
    """Name -> a hash of what each final file says."""
    files = {path for pattern in verb.final for path in place.glob(pattern)}
    return {
        str(path.relative_to(place)): content_hash(path)
        for path in sorted(files)
        if not TEMPORARY.fullmatch(path.name)
    }


def content_hash(path: Path) -> str:
    if path.suffix == ".pt":
        return digest(load_checkpoint(path))
    data = path.read_bytes()
    # The header of a .mat has the time of writing.
    return hashlib.sha256(data[MAT_HEADER:] if path.suffix == ".mat" else data).hexdigest()


def half_written(verb: Verb, place: Path, expected: Mapping[str, str]) -> list[str]:
    """Final files that are there and are not what they should be: whoever reads sees them."""
    try:
        found = outcome(verb, place)
    except (OSError, ValueError) as error:
        return [f"cannot be read: {error}"]
    if not verb.written_once:
        return []
    return [f"{name} is half written" for name in found if found[name] != expected.get(name)]


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob(".*") if TEMPORARY.fullmatch(path.name)]
