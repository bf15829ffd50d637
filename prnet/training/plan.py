"""The numbers that steer the training loop, and the random numbers of one step."""

import math
from typing import NamedTuple

import numpy as np
import torch

from prnet.checks import require_above_zero, require_choice, require_count
from prnet.evaluation.sources import PRECISIONS


class Plan(NamedTuple):
    """Settings of a run; see configs/train.yaml."""

    epochs: float
    max_steps: int | None
    optimizer: str  # adam | sgd, with Nesterov's momentum
    learning_rate: float
    rate_batch: int | None  # samples a step that it is for; None: for any number
    weight_decay: float
    momentum: float  # of sgd
    clip_norm: float | None  # the largest norm of a step's gradient, all weights together
    clip_from: float  # epochs; until then it is not clipped
    batch_size: int  # samples a step and process
    accumulate: int  # parts of it that are on the device one after the other
    precision: str  # one of `prnet.evaluation.sources.PRECISIONS`, or tf32
    channels_last: bool
    deterministic: bool  # kernels of a CUDA card: see `prnet.training.card`
    compile: bool | str  # see `prnet.training.compiling.compiled_scope`
    num_workers: int
    resident: bool | str  # auto: see `prnet.training.feeding`
    log_every: int  # steps
    validate_every: float  # epochs
    save_every: int  # steps
    average: float  # decay a step of the averaged weights; 0: none
    recompute_batch_norm: str | int  # batches; auto: see `prnet.training.batch_norm`
    sync_batch_norm: bool  # over the processes of a run
    seed: int

    def checked(self) -> "Plan":
        """Itself; raises ValueError for a precision that there is not, or a number that would train
        nothing, or on without end."""
        require_choice("trainer.precision", self.precision, (*PRECISIONS, "tf32"))
        for name in ("epochs", "validate_every"):
            require_above_zero(f"trainer.{name}", getattr(self, name))
        for name in ("batch_size", "accumulate", "log_every", "save_every"):
            require_count(f"trainer.{name}", getattr(self, name))
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"trainer.accumulate={self.accumulate}: does not divide trainer.batch_size="
                f"{self.batch_size}, which it takes in so many equal parts"
            )
        if self.rate_batch is not None:
            require_count("optimizer.rate_batch", self.rate_batch)
        if self.max_steps is not None:
            require_count("trainer.max_steps", self.max_steps)
        if self.num_workers != "auto":
            require_count("trainer.num_workers", self.num_workers, least=0)
        if self.recompute_batch_norm != "auto":
            require_count("trainer.recompute_batch_norm", self.recompute_batch_norm, least=0)
        require_above_zero("optimizer.learning_rate", self.learning_rate)
        if self.clip_norm is not None:
            require_above_zero("optimizer.clip_norm", self.clip_norm)
        if not 0 <= self.clip_from < math.inf:
            raise ValueError(
                f"optimizer.clip_from: got {self.clip_from}, expected epochs from 0 on"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"trainer.average: got {self.average}, expected from 0 to below 1")
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        steps = round(self.epochs * steps_per_epoch)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def rate(self, processes: int) -> float:
        """The learning rate for as many samples as a step has.

        With `rate_batch` it grows with them: Adam's with the root (Malladi et al., NeurIPS 2022,
        the square-root rule, whose momenta stay as they are here), that of SGD in proportion (Goyal
        et al. 2017, section 2.1).
        """
        if self.rate_batch is None:
            return self.learning_rate
        ratio = self.batch_size * processes / self.rate_batch
        return self.learning_rate * (ratio if self.optimizer == "sgd" else math.sqrt(ratio))

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


def batch_generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step: a resumed run draws the same ones at the same step."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> 1))
