"""A verb as Hydra's task: names quoted, arguments checked, the run's folder claimed.

`prnet.command.running` imports it where Ctrl-C is heard already: Hydra takes a moment.
"""

import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from prnet.command import choices, console
from prnet.command.arguments import check_arguments, composed, missing_values
from prnet.command.names import names_quoted
from prnet.command.running import NOBODY_READS
from prnet.command.sweeping import as_job, tell_failed
from prnet.entry import CONFIG_DIR, one_line_errors


def run_task(name: str) -> None:
    """Check and read the command line by configs/NAME.yaml, then import `prnet.NAME` and run its
    `main`."""

    def task(cfg: DictConfig) -> None:
        console.speak()
        missing = missing_values(cfg)
        if missing:
            given = " ".join(f"{key}=..." for key in missing)
            raise ValueError(f"give {given} (prnet.{name} --help says what they are)")
        try:
            with console.waiting(f"prnet.{name}: importing what it needs"):
                module = _module_of(name)
            module.main(cfg)
        except BrokenPipeError:
            if console.flush():
                sys.exit(NOBODY_READS)
            raise  # of another pipe

    task.__module__ = f"prnet.{name}"  # Hydra names the job, and its log, by what is wrapped
    job = as_job(one_line_errors(task))
    run = hydra.main(config_path=CONFIG_DIR, config_name=name, version_base="1.3")(job)
    _claimed.clear()
    choices.register()
    OmegaConf.register_new_resolver("unclaimed", unclaimed, replace=True)
    _check(name)
    try:
        run()
    except BaseException:
        tell_failed()
        _give_back()
        raise


def _module_of(verb: str) -> ModuleType:
    module = f"prnet.{verb}"
    if importlib.util.find_spec(module).submodule_search_locations is not None:
        module += ".__main__"
    return importlib.import_module(module)


def _check(verb: str) -> None:
    """Let names be read as they are typed, and end in one line for what the verb would not read."""
    parser = get_args_parser()
    parser.error = _refuse
    sweeps = parser.parse_args().multirun
    sys.argv[1:] = names_quoted(verb, sys.argv[1:], sweeps=sweeps)
    arguments = parser.parse_args()
    own = arguments.config_name is None and arguments.config_path is None
    if not own or arguments.multirun or arguments.hydra_help:
        return
    directory = arguments.config_dir and os.path.abspath(arguments.config_dir)
    try:
        check_arguments(verb, arguments.overrides, config_dir=directory)
        if arguments.help and directory is None:
            # Hydra's own help asks after the files of every group, twice the work of the rest.
            sys.stdout.write(choices.help_of(composed(verb, *arguments.overrides)))
            sys.exit(0)
    except ValueError as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


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


def _give_back() -> None:
    """Remove the folder of a run that left nothing there but what Hydra writes: it was refused."""
    for folder in map(Path, _claimed.values()):
        made = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        if all(path.suffix == ".log" or path.parts[0] == ".hydra" for path in made):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # others' runs are there
                os.removedirs(folder.parent)
