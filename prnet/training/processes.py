"""The processes of one training run: torchrun's, or this one alone."""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")

# How gloo and NCCL say that another process is gone.
GONE = (
    *("closed by peer", "reset by peer", "Broken pipe", "remote process exited"),
    *("Socket Timeout", "Timed out", "NCCL"),
)
POLL_SECONDS = 0.5


class Processes(NamedTuple):
    """This process among those of the run, and the device it trains on."""

    rank: int
    size: int
    device: torch.device
    local_size: int = 1  # those on this machine

    @property
    def is_first(self) -> bool:
        """The one that logs and saves."""
        return self.rank == 0

    def share(self, network: nn.Module, *, sync_batch_norm: bool = False) -> nn.Module:
        """The network with its gradients averaged over the processes.

        Buffers are sent once, not at every step: the face does not change, and batch norm has the
        statistics of its own process in training; what is kept and validated are the first one's
        (`agree`). `sync_batch_norm`: it has those of all of them.

        Raises:
            ValueError: `sync_batch_norm` on a CPU, where torch has none.
        """
        if self.size == 1:
            return network
        if sync_batch_norm:
            if self.device.type != "cuda":
                raise ValueError(
                    "trainer.sync_batch_norm=true: torch has it on cards alone; leave it out"
                )
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(
            network,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            static_graph=True,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
        )

    @torch.no_grad()
    def agree(self, module: nn.Module) -> None:
        """Take the first process' values of what no gradient has moved: parameters of a module that
        is in no `share`, and every buffer that is saved."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    def of_first(self, value: Value) -> Value:
        """The first process' own, in all of them."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values, 0, device=self.device)
        return values[0]

    def gather(self, values: list) -> list:
        """The lists of all processes in one, in all of them."""
        if self.size == 1:
            return values
        parts: list = [None] * self.size
        distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def after_first(self, work: Callable[[], object], folder: Path) -> None:
        """Have the first process work, however long, and the others look for its mark in a folder
        that all see: where processes wait for each other NCCL ends them after ten minutes."""
        mark = folder / f".{self.of_first(uuid.uuid4().hex)}.done"
        if self.is_first:
            work()
            if self.size == 1:
                return
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
        while not mark.is_file():
            time.sleep(POLL_SECONDS)
        distributed.barrier()
        if self.is_first:
            mark.unlink()

    @contextlib.contextmanager
    def telling_deaths(self, run_dir: Path) -> Iterator[None]:
        """What is raised because another process is gone, in words.

        Raises:
            ConnectionError: one is gone.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not any(sign in str(error) for sign in GONE):
                raise
            said = str(error).partition("\n")[0]
            raise ConnectionError(
                f"another of the {self.size} processes of this run died or cannot be reached; go "
                f"on with resume={run_dir / 'last.pt'} and as many processes ({said})"
            ) from error

    def leave(self) -> None:
        """End what `join_processes` began."""
        if self.size > 1:
            distributed.destroy_process_group()


def join_processes(device: torch.device) -> Processes:
    """Join torchrun's processes, if it started this one; on CUDA each takes a card of its own."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(rank, size, device, local_size)
