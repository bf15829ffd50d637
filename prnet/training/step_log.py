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


class OnItsWay:
    """Scalars of a step, copied to the host while the device goes on."""

    def __init__(self, scalars: Mapping[str, Tensor]) -> None:
        self.names = list(scalars)
        values = torch.stack([value.detach() for value in scalars.values()])
        self.event: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            # From memory that may be paged out, a copy has the host wait for all that is queued.
            pinned = torch.zeros(len(values), dtype=values.dtype, pin_memory=True)
            values = pinned.copy_(values, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()
        self.values = values

    def arrived(self) -> dict[str, float]:
        """As numbers, once the device has come by."""
        if self.event is not None:
            self.event.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


class StepLog(contextlib.ExitStack):
    """Every step's loss terms, checked to be finite; every `log_every` steps they are written.

    Terms are read a step late: from a copy that the device makes on its way, so that it is never
    waited for with nothing left to do. Only the first process writes; all check. The files and the
    bar are closed as the context is left.
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
        self.unchecked: tuple[int, OnItsWay] | None = None
        self.seen_at, self.seen_step = time.perf_counter(), start

    def add(
        self,
        step: int,
        losses: Mapping[str, Tensor],
        taught: Mapping[str, Tensor],  # what else is of interest; no part of the sum
        learning_rate: float,
    ) -> None:
        """Take the terms of a step, and write those of the step before where it is time to.

        Raises:
            FloatingPointError: a term of the step before is not finite.
        """
        terms = self.check()
        self.unchecked = step, OnItsWay({**losses, **taught})
        self.bar.update()
        if not terms or not self.writes(step):
            return
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

    def writes(self, step: int) -> bool:
        """Whether the terms of the step before are written at this step."""
        return self.writer is not None and step % self.plan.log_every == 0

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
        values = terms.arrived()
        if not np.isfinite(list(values.values())).all():
            raise FloatingPointError(
                f"step {step}: the loss is not finite ({values}); the last good state is last.pt. "
                "Lower optimizer.learning_rate, or train in fp32"
            )
        return values
