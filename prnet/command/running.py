"""From a command line to a verb: arguments checked, signals heard, exit status told.

0 done, 1 an error in one line, 130 ended by Ctrl-C, 143 by SIGTERM, 141 before anybody's work was
done because nobody reads what it says.
"""

import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from prnet.command import choices, console
from prnet.command.arguments import check_arguments, missing_values
from prnet.command.names import names_quoted
from prnet.entry import CONFIG_DIR, one_line_errors

# What a shell has for a command whose reader has gone.
NOBODY_READS = 128 + 13


def run_verb(name: str) -> NoReturn:
    """Check and read the command line by configs/NAME.yaml, then import `prnet.NAME` and run its
    `main`.

    Help, a configuration that is shown and options that are refused need no network, and importing
    torch takes seconds.
    """

    @one_line_errors
    def task(cfg: DictConfig) -> None:
        console.speak()
        missing = missing_values(cfg)
        if missing:
            given = " ".join(f"{key}=..." for key in missing)
            raise ValueError(f"give {given} (prnet.{name} --help says what they are)")
        try:
            _module_of(name).main(cfg)
        except BrokenPipeError:
            if console.flush():
                sys.exit(NOBODY_READS)
            raise  # of another pipe

    task.__module__ = f"prnet.{name}"  # Hydra names the job by it
    run = hydra.main(config_path=CONFIG_DIR, config_name=name, version_base="1.3")(task)
    _claimed.clear()
    choices.register()
    OmegaConf.register_new_resolver("unclaimed", unclaimed, replace=True)
    with _Ending():
        _check(name)
        run()
    sys.exit(0)


def _module_of(verb: str) -> ModuleType:
    module = f"prnet.{verb}"
    if importlib.util.find_spec(module).submodule_search_locations is not None:
        module += ".__main__"
    return importlib.import_module(module)


def _check(verb: str) -> None:
    """Let names be read as they are typed, and end in one line for what the verb would not read."""
    sweeps = get_args_parser().parse_args().multirun
    sys.argv[1:] = names_quoted(verb, sys.argv[1:], sweeps=sweeps)
    arguments = get_args_parser().parse_args()
    own = arguments.config_name is None and arguments.config_path is None
    if not own or arguments.multirun or arguments.hydra_help:
        return
    directory = arguments.config_dir and os.path.abspath(arguments.config_dir)
    try:
        check_arguments(verb, arguments.overrides, config_dir=directory)
    except ValueError as error:
        sys.exit(f"error: {error}")


_claimed: dict[str, str] = {}


def unclaimed(wanted: str) -> str:
    """A new folder of that name, or of it with a number where another run has it: two that start
    in one second do not share it. `${unclaimed:DIR}` in a configuration."""
    if wanted not in _claimed:
        number = 1
        folder = Path(wanted)
        folder.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.mkdir()
                break
            except FileExistsError:
                number += 1
                folder = Path(f"{wanted}_{number}")
        _claimed[wanted] = str(folder)
    return _claimed[wanted]


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
    for process in multiprocessing.active_children():
        process.kill()
