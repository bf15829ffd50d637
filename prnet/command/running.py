"""From a command line to a verb: signals heard from the first import on, exit status told.

0 done, 1 an error in one line, 130 ended by Ctrl-C, 143 by SIGTERM, 141 before anybody's work was
done because nobody reads what it says.
"""

import os
import signal
import sys
import threading
from typing import NoReturn

from prnet.command import console

# What a shell has for a command whose reader has gone.
NOBODY_READS = 128 + 13


def run_verb(name: str) -> NoReturn:
    """Run `prnet.NAME` with the command line.

    Help, a configuration that is shown and options that are refused need no network, and importing
    torch takes seconds.
    """
    with _Ending():
        from prnet.command.task import run_task

        run_task(name)
    sys.exit(0)


class _Ending:
    """Ctrl-C and SIGTERM end a command in one line, with 128 and the signal's number; a second one
    at once. What it was writing is whole or not there (`prnet.files.written_whole`)."""

    def __enter__(self) -> None:
        self.received: int | None = None
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM)
            self.before = {number: signal.signal(number, self._receive) for number in numbers}

    def _receive(self, number: int, _frame: object) -> None:
        if self.received is not None:
            _end_processes()
            os._exit(128 + number)
        self.received = number
        raise KeyboardInterrupt(*() if number == signal.SIGINT else (signal.Signals(number).name,))

    def __exit__(self, kind: type | None, _error: object, _traceback: object) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if interrupted:  # before the verb had begun, which says so itself
            name = "Ctrl-C" if self.received in (None, signal.SIGINT) else "SIGTERM"
            sys.stderr.write(f"stopped by {name}\n")
        if self.received is not None or interrupted:
            _end_processes()
        console.flush()
        for number, handler in self.before.items():
            signal.signal(number, handler)
        # A verb that was told to stop and has written what it had ends with that status, too.
        if self.received is not None or interrupted:
            sys.exit(128 + (self.received or signal.SIGINT))
        if kind is not None and issubclass(kind, BrokenPipeError):  # of --help
            sys.exit(NOBODY_READS)


def _end_processes() -> None:
    """Processes of loaders hold nothing, and would be waited for."""
    started = sys.modules.get("multiprocessing")  # whoever has any has imported it
    for process in started.active_children() if started else ():
        process.kill()
