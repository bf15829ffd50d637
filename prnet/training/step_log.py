"""What a run says while it trains: loss terms and speed, in TensorBoard and on a bar."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from prnet.training.plan import Plan
from prnet.training.processes import Processes
from prnet.training.validation import Validation

log = logging.getLogger(__name__)


@contextlib.contextmanager
def named_thread_errors(run_dir: Path) -> Iterator[None]:
    """TensorBoard writes in a thread of its own, whose error Python prints with a traceback, and
    which is raised here again with the next thing to write, naming no file."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not isinstance(failed.exc_value, OSError):
            before(failed)

    threading.excepthook = hook
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.strerror is None:
            raise
        raise OSError(
            f"{run_dir}: TensorBoard's file cannot be written ({error.strerror}); free some room, "
            f"then go on with resume={run_dir / 'last.pt'}"
        ) from error
    finally:
        threading.excepthook = before


class StepLog(contextlib.ExitStack):
    """Every step's loss terms, checked to be finite; every `log_every` steps they are written.

    Terms are read from the device a step late, so that reading them does not hold it up. Only the
    first process writes; all check. The files and the bar are closed as the context is left.
    """

    def __init__(
        self, run_dir: Path, plan: Plan, processes: Processes, *, start: int, total_steps: int
    ) -> None:
        """`start`: steps already made."""
        super().__init__()
        self.plan = plan
        self.processes = processes
        self.writer: SummaryWriter | None = None
        if processes.is_first:
            self.enter_context(named_thread_errors(run_dir))
            self.writer = self.enter_context(SummaryWriter(str(run_dir)))
        bar = tqdm(unit="step", total=total_steps, initial=start, disable=not processes.is_first)
        self.bar = self.enter_context(bar)
        self.unchecked: tuple[int, dict[str, Tensor]] | None = None
        self.seen_at, self.seen_step = time.perf_counter(), start

    def add(
        self,
        step: int,
        losses: Mapping[str, Tensor],
        taught: Mapping[str, Tensor],  # what a loss learns itself; no part of the sum
        learning_rate: float,
    ) -> bool:
        """Take the terms of a step; returns whether this is a step that is written.

        Raises:
            FloatingPointError: a term of the step before is not finite.
        """
        terms = self.check()
        self.unchecked = step, {k: v.detach() for k, v in {**losses, **taught}.items()}
        self.bar.update()
        if self.writer is None or not terms or step % self.plan.log_every:
            return False
        now = time.perf_counter()
        samples = (step - self.seen_step) * self.plan.batch_size * self.processes.size
        speed = samples / (now - self.seen_at)
        self.seen_at, self.seen_step = now, step
        for name, value in terms.items():
            self.write(name, value, step)
        self.write("learning_rate", learning_rate, step)
        self.write("samples_per_second", speed, step)
        total = sum(terms[name] for name in losses if name in terms)
        self.bar.set_postfix(loss=f"{total:.3f}", samples_s=f"{speed:.1f}")
        return True

    def write(self, name: str, value: float, step: int) -> None:
        """A scalar of training, on the first process."""
        self.writer.add_scalar(f"train/{name}", value, step)

    def write_validation(self, validation: Validation, step: int) -> None:
        """All of a validation, on the first process."""
        for name, value in validation.scalars.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        self.writer.add_image("validation/panel", validation.panel, step, dataformats="HWC")
        listed = ", ".join(f"{name} {value:.3f}" for name, value in validation.scalars.items())
        log.info("step %d: %s", step, listed)

    def check(self) -> dict[str, float]:
        """The terms added last, as numbers; none where they have been checked.

        Raises:
            FloatingPointError: one of them is NaN or infinite.
        """
        if self.unchecked is None:
            return {}
        (step, terms), self.unchecked = self.unchecked, None
        values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
        if not np.isfinite(list(values.values())).all():
            raise FloatingPointError(
                f"step {step}: the loss is not finite ({values}); the last good state is last.pt. "
                "Lower optimizer.learning_rate, or train in fp32"
            )
        return values
