"""How every loader starts its processes."""

import torch


def worker_settings(num_workers: int, *, pin_memory: bool) -> dict:
    """What a `DataLoader` of `num_workers` processes is given.

    Spawned, not forked: a fork after torch has started its threads can deadlock. One thread each,
    or the processes fight over the cores.
    """
    return {
        "num_workers": num_workers,
        "pin_memory": pin_memory,
        "persistent_workers": num_workers > 0,
        "worker_init_fn": one_thread,
        "multiprocessing_context": "spawn" if num_workers else None,
    }


def one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
