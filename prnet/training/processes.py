"""The processes of one training run: torchrun's, or this one alone."""

import os
from typing import NamedTuple

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Processes(NamedTuple):
    """This process among those of the run, and the device it trains on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """The one that validates, logs and saves."""
        return self.rank == 0

    def share(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes."""
        if self.size == 1:
            return network
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)

    def wait(self) -> None:
        """Until all of them are here."""
        if self.size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """End what `join_processes` began."""
        if self.size > 1:
            distributed.destroy_process_group()


def join_processes(device: torch.device) -> Processes:
    """Join torchrun's processes, if it started this one; on CUDA each takes a card of its own."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(rank, size, device)
