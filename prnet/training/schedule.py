"""Learning-rate factors as functions of training time, in epochs (fractions allowed)."""

import math
from collections.abc import Callable, Mapping, Sequence

# Steps at which two schedules are compared.
COMPARED = 1000


def require_same_rates(
    schedule: Callable[[float, float], float],
    resume: Mapping[str, object],  # `training` of a last.pt
    steps_per_epoch: int,
    total_steps: int,
) -> None:
    """Raise ValueError unless the factors of the steps already made would have been the same in a
    run of `total_steps`."""
    made, planned = resume["step"], resume.get("total_steps", total_steps)
    for step in range(0, made, max(1, made // COMPARED)):
        factors = {
            schedule(step / steps_per_epoch, steps / steps_per_epoch)
            for steps in (planned, total_steps)
        }
        if len(factors) > 1:
            raise ValueError(
                f"resume: that run was to have {planned} steps and this one {total_steps}, and the "
                "scheduler spans them all; resume with the same trainer.epochs and "
                "trainer.max_steps, or start anew with init="
            )


def step_decay(epoch: float, total_epochs: float, *, factor: float, every: int) -> float:
    """`factor` after each `every` whole epochs: PRN section 3.3 halves the rate every 5."""
    return factor ** (int(epoch) // every)


def cosine_decay(epoch: float, total_epochs: float, *, warmup_epochs: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to 0 at the end of the run: for runs too short for
    steps."""
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / max(total_epochs - warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def warmup_decay(
    epoch: float,
    total_epochs: float,
    *,
    warmup_epochs: float,
    start: float,
    factor: float,
) -> float:
    """From `start` up to 1 in a line, then `factor` a whole epoch: SADRNet section III-E."""
    if epoch < warmup_epochs:
        return start + (1 - start) * epoch / warmup_epochs
    return factor ** int(epoch - warmup_epochs)


def milestone_decay(
    epoch: float,
    total_epochs: float,
    *,
    milestones: Sequence[float],
    factor: float,
    warmup_epochs: float,
) -> float:
    """`factor` after each milestone, and for the whole of the warm-up: 3DDFA's training."""
    passed = sum(epoch >= milestone for milestone in milestones)
    return factor if epoch < warmup_epochs else factor**passed
