"""What the commands share: where the configuration lies, errors in one line, devices and worker
counts by name."""

import functools
import importlib.util
import logging
import os
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from prnet import __version__
from prnet.checks import require_choice

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


# The copy inside the package comes first: only a wheel has one, and a folder named configs beside
# an installed package belongs to somebody else.
PACKAGED = Path(__file__).resolve().parent / "configs"
CONFIG_DIR = str(PACKAGED if PACKAGED.is_dir() else PACKAGED.parents[1] / "configs")


def shipped_dataset(name: str) -> dict:
    """The values of configs/dataset/NAME.yaml, as scripts and notebooks may want them."""
    config = OmegaConf.load(Path(CONFIG_DIR) / "dataset" / f"{name}.yaml")
    return OmegaConf.to_container(config.dataset, resolve=True)


# What a user can mend: values, files, a package that is not installed.
USER_ERRORS = (
    ValueError,
    OSError,
    FloatingPointError,
    ModuleNotFoundError,
    InstantiationException,
)


def one_line_errors(main: Callable) -> Callable:
    """Let a user's mistake end a command with one line and status 1.

    HYDRA_FULL_ERROR=1 shows where it was raised.
    """

    @functools.wraps(main)
    def wrapped(cfg: object) -> object:
        try:
            return main(cfg)
        except USER_ERRORS as error:
            if os.environ.get("HYDRA_FULL_ERROR"):
                raise
            if isinstance(error, InstantiationException) and error.__cause__ is not None:
                error = error.__cause__  # what the constructor said, not how it was called
            log.error("%s", in_one_line(error))
            sys.exit(1)

    return wrapped


# What the command line no longer takes -> what it takes instead.
STAGE_1_OF = ("2dasl", "2dasl_base", "2dasl_cyc", "2dasl_sc")
STAGE_1_OF += tuple(f"{name}_no_mask" for name in STAGE_1_OF)
STAGE_1_OF += ("2dasl_77228", "2dasl_115126", "2dasl_175534")
OLD_SPELLINGS = {
    **{f"experiment={name}_stage1": f"+experiment={name} loss.stage=1" for name in STAGE_1_OF},
    "experiment=2dasl_stage2": "+experiment=2dasl loss.stage=2",
    **{f"model=sadrnet_ablation_{row}": f"+experiment=sadrnet_ablation_{row}" for row in "abcde"},
    **{f"loss=sadrnet_ablation_{row}": f"+experiment=sadrnet_ablation_{row}" for row in "abcd"},
    "loss=sadrnet_no_mesh_losses": "loss=sadrnet loss.edge=0 loss.normal=0",
    "loss=prn_1110": "loss=prn loss.weights=[1,1,1,0]",
    "loss=prn_1111": "loss=prn loss.weights=[1,1,1,1]",
    "loss.finetune_from=null": "loss.stage=1",
    "loss.finetune_from=0": "loss.stage=2",
    "loss.finetune_from": "loss.stage=both loss.stage_1_epochs=EPOCHS",
    "dataset.render_on": "nothing: faces are always rendered in the loader's processes",
}


def refuse_old_spellings(main: Callable) -> Callable:
    """Let an argument that was renamed end the command with one line that has the new one; Hydra
    would only say that it does not know it."""

    @functools.wraps(main)
    def wrapped() -> object:
        for argument in sys.argv[1:]:
            given = argument.lstrip("+~")
            new = OLD_SPELLINGS.get(given) or OLD_SPELLINGS.get(given.partition("=")[0])
            if new is not None:
                sys.exit(f"error: {argument} is now {new}")
        return main()

    return wrapped


def run_verb(name: str) -> NoReturn:
    """Read the command line by configs/NAME.yaml, then import `prnet.NAME` and run its `main`.

    Help, a configuration that is shown and options that are refused need no network, and importing
    torch takes seconds.
    """

    def run(cfg: object) -> None:
        module = f"prnet.{name}"
        if importlib.util.find_spec(module).submodule_search_locations is not None:
            module += ".__main__"
        importlib.import_module(module).main(cfg)

    run.__module__ = f"prnet.{name}"  # Hydra names the job by it
    configured = hydra.main(config_path=CONFIG_DIR, config_name=name, version_base="1.3")
    refuse_old_spellings(configured(one_line_errors(run)))()
    sys.exit(0)


def in_one_line(error: Exception) -> str:
    """An error's message; of one that a loader process passed on, what it said there."""
    message = str(error).strip()
    if message.startswith(f"Caught {type(error).__name__} in DataLoader worker"):
        # torch puts the worker's traceback into the message; the error itself is its last line.
        message = message.rpartition("\n")[2].removeprefix(f"{type(error).__name__}: ")
    return message


def resolve_device(name: str) -> "torch.device":
    """`auto` is CUDA where there is one.

    Raises:
        ValueError: not auto, cpu or cuda, or CUDA is asked for and absent.
    """
    import torch

    require_choice("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda is not available here; use device=cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def num_workers(setting: int | str) -> int:
    """`auto` is one process a core."""
    if setting != "auto":
        return int(setting)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def loader_workers(setting: str | int, device: "torch.device", *, renders: bool = False) -> int:
    """`auto`: all cores where a GPU runs the network; where the cores do it themselves none, or
    half of them for a loader that renders what it loads."""
    if setting == "auto" and device.type == "cpu":
        return num_workers(setting) // 2 if renders else 0
    return num_workers(setting)


def made_now(verb: str | None = None) -> dict:
    """What makes a report: version, date and, where a `verb` was called, its command line."""
    made = {"prnet": __version__, "date": datetime.now().astimezone().isoformat(timespec="seconds")}
    return made | ({"command": shlex.join(["python", "-m", verb, *sys.argv[1:]])} if verb else {})


def shipped() -> dict:
    """The `protocols` by name, as `shipped_values` has them, and the `names` of every dataset,
    experiment and protocol."""
    names = {group: shipped_names(group) for group in ("dataset", "experiment", "protocol")}
    return {
        "protocols": {name: shipped_values("protocol", name) for name in names["protocol"]},
        "names": names,
    }


def shipped_names(group: str) -> list[str]:
    """What can be chosen of a group of the configuration."""
    return sorted(file.stem for file in Path(CONFIG_DIR, group).glob("*.yaml"))


@functools.cache
def shipped_values(group: str, name: str) -> dict | None:
    """What configs/GROUP/NAME.yaml says, interpolations unresolved; None where there is no such
    file."""
    file = Path(CONFIG_DIR, group, f"{name}.yaml")
    if not file.is_file():
        return None
    own = OmegaConf.to_container(OmegaConf.load(file))
    values = OmegaConf.create({})
    # What a file names first it changes afterwards.
    for parent in own.pop("defaults", ["_self_"]):
        values = OmegaConf.merge(
            values, own if parent == "_self_" else shipped_values(group, parent)
        )
    return OmegaConf.to_container(values)
