"""Several runs by one command, `-m KEY=A,B`: a job that fails is named, and the others are made."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig


class JobFailed(CompactHydraException):
    """Hydra notes it, goes on with the other jobs and raises it after the last."""


# Of this process, where the jobs run one after the other.
_failed: list[str] = []


def as_job(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """A task that ends with its status 1 as one job of a sweep; told to stop, it ends the sweep."""

    @functools.wraps(task)
    def job(cfg: DictConfig) -> None:
        own = HydraConfig.get()
        if own.mode != RunMode.MULTIRUN:
            return task(cfg)
        try:
            return task(cfg)
        except SystemExit as ended:
            if ended.code != 1:
                raise
        # Here, where no traceback holds what the job had in memory.
        name = f"job {own.job.num} ({' '.join(own.overrides.task)})"
        _failed.append(name)
        file = Path(own.runtime.output_dir, f"{own.job.name}.log")
        raise JobFailed(f"{name} failed; why is in {file}")

    return job


def tell_failed() -> None:
    """Name the jobs of this process that failed."""
    if _failed:
        sys.stderr.write(f"failed: {', '.join(_failed)}; all other jobs were made\n")
        _failed.clear()
