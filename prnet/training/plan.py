"""The numbers that steer the training loop, and the random numbers of one step."""

import os
import shutil
from typing import NamedTuple

import numpy as np
import torch


class Plan(NamedTuple):
    """Settings of a run; see configs/train.yaml."""

    epochs: float
    max_steps: int | None
    optimizer: str  # adam | sgd, with Nesterov's momentum
    learning_rate: float
    weight_decay: float
    momentum: float  # of sgd
    batch_size: int
    precision: str  # one of `prnet.evaluation.sources.PRECISIONS`
    channels_last: bool
    compile: bool
    num_workers: int
    log_every: int  # steps
    validate_every: float  # epochs
    save_every: int  # steps
    average: float  # decay a step of the averaged weights; 0: none
    recompute_batch_norm: str | int  # batches; auto: see `prnet.training.batch_norm`
    seed: int

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        steps = round(self.epochs * steps_per_epoch)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def order(self, samples: int, processes: int) -> dict[str, int]:
        """What decides which samples come when; a run is resumed with the same."""
        return {
            "seed": self.seed,
            "samples": samples,
            "batch_size": self.batch_size,
            "processes": processes,
        }

    def validates_at(self, step: int, steps_per_epoch: int) -> bool:
        """Whether a step is followed by a validation: every `validate_every` epochs, and the
        last."""
        every = max(1, round(self.validate_every * steps_per_epoch))
        return step == self.total_steps(steps_per_epoch) or step % every == 0


def require_compiler() -> None:
    """Raise ValueError where torch.compile finds nothing to compile its code with."""
    names = (os.environ.get("CXX") or "c++", "g++", "clang++", "cl")
    if not any(map(shutil.which, names)):
        raise ValueError(
            "trainer.compile=true: no C++ compiler here; install g++ or clang++ (or name it by "
            "CXX), or leave the option out"
        )


def batch_generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step: a resumed run draws the same ones at the same step."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> 1))
