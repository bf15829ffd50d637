"""What the commands share: errors in one line, devices and worker counts by name."""

import functools
import logging
import os
import sys
from collections.abc import Callable

import torch
from hydra.errors import InstantiationException

log = logging.getLogger(__name__)


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
