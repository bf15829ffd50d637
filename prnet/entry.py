"""What the commands share: where the configuration lies, errors in one line, devices and worker
counts by name."""

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

log = logging.getLogger(__name__)


def find_config_dir(package_dir: Path) -> Path:
    """The tree of the package at `package_dir`.

    The copy inside the package comes first: only a wheel has one, and a folder named configs beside
    an installed package belongs to somebody else.
    """
    packaged = package_dir / "configs"
    return packaged if packaged.is_dir() else package_dir.parent / "configs"


CONFIG_DIR = str(find_config_dir(Path(__file__).resolve().parent))


def shipped_dataset(name: str) -> dict:
    """The values of configs/dataset/NAME.yaml, as scripts and notebooks may want them."""
    config = OmegaConf.load(Path(CONFIG_DIR) / "dataset" / f"{name}.yaml")
    return OmegaConf.to_container(config.dataset, resolve=True)


def one_line_errors(main: Callable) -> Callable:
    """Let a user's mistake end a command with one line and status 1.

    HYDRA_FULL_ERROR=1 shows where it was raised.
    """

    @functools.wraps(main)
    def wrapped(cfg: object) -> object:
        try:
            return main(cfg)
        except (ValueError, OSError, FloatingPointError, InstantiationException) as error:
            if os.environ.get("HYDRA_FULL_ERROR"):
                raise
            if isinstance(error, InstantiationException) and error.__cause__ is not None:
                error = error.__cause__  # what the constructor said, not how it was called
            log.error("%s", in_one_line(error))
            sys.exit(1)

    return wrapped


def in_one_line(error: Exception) -> str:
    """An error's message; of one that a loader process passed on, what it said there."""
    message = str(error).strip()
    if message.startswith(f"Caught {type(error).__name__} in DataLoader worker"):
        # torch puts the worker's traceback into the message; the error itself is its last line.
        message = message.rpartition("\n")[2].removeprefix(f"{type(error).__name__}: ")
    return message


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        ValueError: not auto, cpu or cuda, or CUDA is asked for and absent.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: got {name!r}, expected auto, cpu or cuda")
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


def loader_workers(setting: str | int, device: torch.device, *, renders: bool = False) -> int:
    """`auto`: all cores where a GPU runs the network; where the cores do it themselves none, or
    half of them for a loader that renders what it loads."""
    if setting == "auto" and device.type == "cpu":
        return num_workers(setting) // 2 if renders else 0
    return num_workers(setting)


@functools.cache
def shipped_protocol(name: str) -> dict | None:
    """The values of a protocol as it is configured, paths unresolved; None where there is none of
    that name."""
    file = Path(CONFIG_DIR, "protocol", f"{name}.yaml")
    if not file.is_file():
        return None
    own = OmegaConf.to_container(OmegaConf.load(file))
    values = OmegaConf.create({})
    # What a file names first it changes afterwards.
    for parent in own.pop("defaults", ["_self_"]):
        values = OmegaConf.merge(values, own if parent == "_self_" else shipped_protocol(parent))
    return OmegaConf.to_container(values)
