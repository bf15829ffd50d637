"""How loaders and builders start their processes.

Spawned, not forked: a fork after torch has started its threads can deadlock. One thread each, or
the processes fight over the cores.
"""

import concurrent.futures
import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

log = logging.getLogger(__name__)

Piece = TypeVar("Piece")
Tools = TypeVar("Tools")
Result = TypeVar("Result")


def chunks(items: Sequence[Piece], size: int) -> Iterator[Sequence[Piece]]:
    """So many of them at a time, the last time fewer."""
    return (items[start : start + size] for start in range(0, len(items), size))


def loader_of(
    dataset: Dataset, collate: Callable, *, num_workers: int = 0, pin_memory: bool = False, **order
) -> Iterable:
    """Batches of a data set made in `num_workers` processes; `order` is `batch_size`, for items in
    their own order, or a `batch_sampler`."""
    loader = DataLoader(
        dataset,
        collate_fn=functools.partial(_sendable, collate) if num_workers else collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=settle,
        multiprocessing_context="spawn" if num_workers else None,
        **order,
    )
    return _Received(loader) if num_workers else loader


class _Piped(NamedTuple):
    """A tensor on its way through a pipe."""

    array: np.ndarray


def _sendable(collate: Callable, items: list) -> object:
    """A batch in shared memory, or where there is no room for it (containers have 64 MB) as arrays
    for the pipe: torch would print an error, send nothing and have the loader wait for ever."""
    batch = collate(items)
    try:
        return _mapped(batch, Tensor, Tensor.share_memory_)
    except (RuntimeError, OSError):
        return _mapped(batch, Tensor, lambda tensor: _Piped(tensor.numpy()))


class _Received:
    """What `_sendable` has sent, as it was."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
            # torch would tell of a process that died wherever the program is, in the middle of a
            # step too; the iterator sees it by itself.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError) as error:  # it died while a batch was on its way
                raise RuntimeError("a DataLoader worker (pid unknown) died") from error
            yield _mapped(batch, _Piped, _from_pipe)


def _from_pipe(piped: _Piped) -> Tensor:
    _say_once()
    return torch.from_numpy(piped.array)


@functools.cache
def _say_once() -> None:
    log.warning(
        "shared memory has no room for a batch, which goes through a pipe and takes longer: give "
        "it more (docker run --shm-size=2g), or take smaller batches or fewer loader processes"
    )


def _mapped(value: object, kind: type, change: Callable) -> object:
    """Containers with everything of a kind in them changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(part, kind, change) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(_mapped(part, kind, change) for part in value)
    if isinstance(value, dict):
        return {key: _mapped(part, kind, change) for key, part in value.items()}
    return value


def settle(_worker: int = 0) -> None:
    """One thread, and deaf to Ctrl-C and SIGTERM, which reach every process of a group: the one
    that started it decides, once it has saved."""
    torch.set_num_threads(1)
    if threading.current_thread() is threading.main_thread():  # not that of a pool of threads
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def in_processes(
    work: Callable[[Piece, Tools], Result],
    pieces: Sequence[Piece],
    prepare: Callable[[], Tools],
    *,
    workers: int,
) -> Iterator[tuple[Piece, Result]]:
    """Yield every piece with `work(piece, prepare())` as it is finished.

    `prepare` runs once in each process; it and `work` are sent there, so both are module functions
    or partials of them. `workers` 0 or 1 works here, in order. An error ends all of it.
    """
    if not pieces:
        return
    # Also where only the processes need it: a missing or damaged file is reported once, at once.
    tools = prepare()
    if workers <= 1:
        for piece in pieces:
            yield piece, work(piece, tools)
        return
    with concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(prepare,),
    ) as pool:
        futures = {pool.submit(_work_there, work, piece): piece for piece in pieces}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# What `prepare` made in this process: an initializer has no other way to hand it on.
_tools: list = []


def _start_worker(prepare: Callable[[], object]) -> None:
    settle()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    _tools[:] = [prepare()]


def _end_with(parent: multiprocessing.Process) -> None:
    """One that is killed says nothing, and its processes would wait for their next piece."""
    parent.join()
    os._exit(1)


def _work_there(work: Callable, piece: object) -> object:
    return work(piece, _tools[0])
