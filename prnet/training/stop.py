"""Stopping a run from outside: the step is finished and its state saved first."""

import signal

import torch
from torch import distributed

from prnet.training.processes import Processes

# How often the processes agree on whether one of them was told to stop.
STOP_CHECK_STEPS = 10


class StopSignal:
    """Remembers SIGTERM and SIGINT until the loop has saved; a second SIGINT is obeyed at once."""

    def __enter__(self) -> "StopSignal":
        self.received = False
        self.before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True

    def agreed(self, step: int, processes: Processes) -> bool:
        """Whether to stop now: all processes at the same step, or their next all-reduce would
        hang."""
        if processes.size == 1:
            return self.received
        if step % STOP_CHECK_STEPS:
            return False
        flag = torch.tensor(float(self.received), device=processes.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)
