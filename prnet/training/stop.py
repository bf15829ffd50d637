"""Stopping a run from outside: the step is finished and its state saved first."""

import os
import signal

import torch
from torch import distributed

from prnet.training.processes import Processes

# How often the processes agree on whether one of them was told to stop.
STOP_CHECK_STEPS = 10


class StopSignal:
    """Remembers SIGTERM and SIGINT until the loop has saved; a second SIGINT is obeyed at once.

    The death of a loader process is told by the next batch alone: torch would raise it wherever the
    loop is, in the middle of an update of the weights too.
    """

    def __enter__(self) -> "StopSignal":
        self.received = 0  # the signal's number
        handlers = {signal.SIGTERM: self._receive, signal.SIGINT: self._receive}
        if hasattr(signal, "SIGCHLD"):
            handlers[signal.SIGCHLD] = signal.SIG_DFL
        self.before = {number: signal.signal(number, new) for number, new in handlers.items()}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            # Not by the log: a handler may run in the middle of one of its lines.
            os.write(2, b"\nfinishing this step and saving; Ctrl-C once more ends it at once\n")
        self.received = number

    def agreed(self, step: int, processes: Processes) -> int:
        """The signal to stop for now, else 0: all processes at the same step, or their next
        all-reduce would hang."""
        if processes.size == 1:
            return self.received
        if step % STOP_CHECK_STEPS:
            return 0
        flag = torch.tensor(float(self.received), device=processes.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return int(flag)
