"""Whether the network of a run is compiled: by the setting, or where that earns its time."""

import importlib.util
import logging
import os
import shutil
import sys

import torch

from prnet.checks import require_choice

log = logging.getLogger(__name__)

# Compiling takes some minutes of a CPU and saves a fifth of a step.
STEPS_THAT_EARN = 5000


def compiles(
    setting: bool | str, *, steps: int, device: torch.device, resumed: bool | None
) -> bool:
    """What `trainer.compile` means for a run of `steps` that are left.

    "auto" compiles a long run where there is a compiler. `resumed`: what the run that is gone on
    with did, which "auto" repeats, since a compiled network rounds otherwise; None: no such run.

    Raises:
        ValueError: another setting, or nothing that compiles.
    """
    require_choice("trainer.compile", setting, (True, False, "auto"))
    if resumed is not None and setting not in ("auto", resumed):
        log.warning("trainer.compile=%s: the run so far had %s", setting, resumed)
    lacking = missing_compiler(device)
    if setting is True and lacking:
        raise ValueError(
            f"trainer.compile=true: no {lacking} here; install it, or leave the option out"
        )
    if setting != "auto":
        return bool(setting)
    if resumed is not None:
        if resumed and lacking:
            raise ValueError(
                f"resume: that run compiled its network, and here is no {lacking}; install it, or "
                "go on otherwise with trainer.compile=false"
            )
        chosen, reason = resumed, "as in the run so far"
    elif steps < STEPS_THAT_EARN:
        chosen, reason = False, f"{steps} steps, it pays from {STEPS_THAT_EARN} on"
    elif lacking:
        chosen, reason = False, f"no {lacking} here"
    else:
        chosen, reason = True, f"{steps} steps"
    log.info("trainer.compile=auto: %s (%s)", str(chosen).lower(), reason)
    return chosen


def missing_compiler(device: torch.device) -> str | None:
    """What torch's compiler needs and is not there."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "triton"
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(name) else name
