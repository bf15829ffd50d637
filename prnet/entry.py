"""What the commands share: where the configuration lies, errors in one line, devices and worker
counts by name."""

import functools
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from prnet import __version__
from prnet.checks import require_choice, require_count

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


# What a user can mend: values, files, a package that is not installed, too little memory.
USER_ERRORS = (
    ValueError,
    OSError,
    FloatingPointError,
    ModuleNotFoundError,
    InstantiationException,
    OmegaConfBaseException,
    MemoryError,
)
# Errors of others that say too little: what their message holds -> what to do.
ADVICE = {
    "A process in the process pool was terminated abruptly": "one of the worker processes was "
    "killed, mostly for want of memory: start it again with fewer, workers=N or num_workers=N",
    "DataLoader worker (pid": "one of the loader processes died, mostly for want of memory: start "
    "it again with fewer, num_workers=N or trainer.num_workers=N",
    "CUDA out of memory": "lower batch_size= or trainer.batch_size=",
}
WHOLE_ERROR = "HYDRA_FULL_ERROR"


def one_line_errors(main: Callable) -> Callable:
    """Let an error end a command with one line and status 1, Ctrl-C with 130.

    HYDRA_FULL_ERROR=1 shows the traceback, too; an error that no user can mend names the place.
    """

    @functools.wraps(main)
    def wrapped(cfg: object) -> object:
        try:
            return main(cfg)
        except KeyboardInterrupt as stopped:
            log.error("stopped by %s", stopped if stopped.args else "Ctrl-C")
            sys.exit(128 + signal.SIGINT)
        except Exception as error:  # noqa: BLE001 - a command ends in one line, whatever it met
            if os.environ.get(WHOLE_ERROR):
                raise
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


def in_one_line(error: BaseException) -> str:
    """What an error says; of one that a loader process passed on, what it said there."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        # What the constructor said, not how it was called.
        return _joined(str(error.__cause__)) or type(error.__cause__).__name__
    message, kind = str(error).strip(), type(error)
    place = _place(error)
    if message.startswith(f"Caught {kind.__name__} in DataLoader worker"):
        # torch puts the worker's traceback into the message; the error itself is its last line.
        frames = re.findall(r'File "(\S+)", line (\d+)', message)
        place = ":".join(frames[-1]) if frames else place
        message = message.rpartition("\n")[2].removeprefix(f"{kind.__name__}: ")
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: give {error.full_key}=..."
    advice = next((advice for said, advice in ADVICE.items() if said in message), None)
    if advice is not None:
        return f"{_joined(message).partition('. ')[0]}; {advice}"
    if isinstance(error, USER_ERRORS) and message:
        return _joined(message)
    return (
        f"unexpected {kind.__name__}: {_joined(message)} ({place}); "
        f"{WHOLE_ERROR}=1 before the command shows the whole way there"
    )


def _joined(message: str) -> str:
    return re.sub(r"\s*\n\s*", " ", message.strip())


def _place(error: BaseException) -> str:
    """Where it was raised, in the package if it can be said, else in whose code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGED.parent)]
    frame = next(iter([*own[::-1], *frames[::-1]]), None)
    return "nowhere" if frame is None else f"{frame.filename}:{frame.lineno}"


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
    """`auto` is one process a core.

    Raises:
        ValueError: neither that nor a number of processes.
    """
    if setting != "auto":
        require_count("workers or num_workers", setting, least=0)
        return setting
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def loader_workers(
    setting: str | int, device: "torch.device", *, renders: bool = False, processes: int = 1
) -> int:
    """`auto`: all cores where a GPU runs the network; where the cores do it themselves none, or
    half of them for a loader that renders what it loads. `processes` of this machine share them."""
    if setting != "auto":
        return num_workers(setting)
    cores = num_workers(setting) // processes
    if device.type == "cpu":
        return cores // 2 if renders else 0
    return max(cores, 1)


def run_folder() -> Path:
    """The folder of this run, as one would write it from here."""
    from hydra.core.hydra_config import HydraConfig

    folder = Path(HydraConfig.get().runtime.output_dir)
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def made_now(verb: str | None = None) -> dict:
    """What makes a report: version, date and, where a `verb` was called, its command line."""
    made = {"prnet": __version__, "date": datetime.now().astimezone().isoformat(timespec="seconds")}
    return made | ({"command": shlex.join(["python", "-m", verb, *sys.argv[1:]])} if verb else {})


def shipped() -> dict:
    """The `protocols` by name, as `shipped_values` has them, and the names of all
    `experiments`."""
    return {
        "protocols": {name: shipped_values("protocol", name) for name in shipped_names("protocol")},
        "experiments": shipped_names("experiment"),
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
