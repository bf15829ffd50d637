"""What of a run's steps is compiled: by the setting, or where that earns its time."""

import importlib.util
import logging
import os
import shutil
import sys

import torch

from prnet.checks import require_choice
from prnet.training.plan import Plan

log = logging.getLogger(__name__)

# Nothing, the network, all from a batch to its losses, and that replayed as CUDA graphs.
SCOPES = ("no", "network", "step", "graphs")
# Compiling takes some minutes of a CPU and saves a fifth of a step.
STEPS_THAT_EARN = 5000


def compiled_scope(
    plan: Plan, *, steps: int, device: torch.device, resumed: str | bool | None
) -> str:
    """What `trainer.compile` means for a run of `steps` that are left, one of `SCOPES`.

    "auto" compiles a long run's network where there is a compiler, true any run's.
    `resumed`: what the run that is gone on with did, which "auto" repeats, since what is compiled
    rounds otherwise; None: no such run.

    Raises:
        ValueError: another setting, nothing that compiles, or CUDA graphs without a card or of
            several parts a step.
    """
    setting = plan.compile
    require_choice("trainer.compile", setting, (True, False, "auto", *SCOPES[1:]))
    if isinstance(resumed, bool):  # of a last.pt of before
        resumed = "network" if resumed else "no"
    lacking = missing_compiler(device)
    if setting == "auto":
        return _of_auto(steps, resumed, lacking)
    scope = {True: "network", False: "no"}.get(setting, setting)
    if resumed not in (None, scope):
        log.warning("trainer.compile=%s: the run so far had %s", setting, resumed)
    if scope != "no" and lacking:
        raise ValueError(
            f"trainer.compile={str(setting).lower()}: no {lacking} here; install it, or leave the "
            "option out"
        )
    if scope == "graphs" and (device.type != "cuda" or plan.accumulate > 1):
        raise ValueError(
            "trainer.compile=graphs: is for CUDA cards and trainer.accumulate=1, and this run has "
            f"{device.type} and {plan.accumulate}; take step"
        )
    return scope


def _of_auto(steps: int, resumed: str | None, lacking: str | None) -> str:
    if resumed not in (None, "no") and lacking:
        raise ValueError(
            f"resume: that run was compiled ({resumed}), and here is no {lacking}; install it, or "
            "go on otherwise with trainer.compile=false"
        )
    if resumed is not None:
        chosen, reason = resumed, "as in the run so far"
    elif steps < STEPS_THAT_EARN:
        chosen, reason = "no", f"{steps} steps, it pays from {STEPS_THAT_EARN} on"
    elif lacking:
        chosen, reason = "no", f"no {lacking} here"
    else:
        chosen, reason = "network", f"{steps} steps"
    log.info("trainer.compile=auto: %s (%s)", chosen, reason)
    return chosen


def missing_compiler(device: torch.device) -> str | None:
    """What torch's compiler needs and is not there."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "triton"
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(name) else name
