"""Several processes of one run, as torchrun starts them: their environment, their ends. Started by
a server that has imported what they need."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

from prnet.entry import one_line_errors
from prnet.train import read_settings
from prnet.train import run as train_command
from prnet.training.stop import StopSignal
from tests.plans import configuration

PRELOADED = ["tests.training.ranks"]


class Ended(NamedTuple):
    """How the processes of a run ended, by rank."""

    statuses: list[int]  # -9: killed
    said: list[str]  # the lines of their logs
    seconds: list[float]  # from the end of the first that ended


def run_ranks(
    words: list[str],
    run_dir: Path,
    *,
    size: int = 2,
    killed_at: int | None = None,  # the step after which the last one is killed
) -> Ended:
    """Train by the configuration that the words give, in as many processes."""
    run_dir.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_rank, args=(rank, size, port, words, run_dir, killed_at))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    ends: dict[int, float] = {}
    deadline = time.monotonic() + 300
    while len(ends) < size and time.monotonic() < deadline:
        multiprocessing.connection.wait([one.sentinel for one in processes], timeout=1)
        for rank, process in enumerate(processes):
            if process.exitcode is not None:
                ends.setdefault(rank, time.monotonic())
    for process in processes:
        process.kill()  # none is left, or the deadline has passed
        process.join()
    return Ended(
        [process.exitcode for process in processes],
        [(run_dir / f"rank_{rank}.log").read_text() for rank in range(size)],
        [ends[rank] - min(ends.values()) for rank in range(size)],
    )


def _rank(
    rank: int, size: int, port: int, words: list[str], run_dir: Path, killed_at: int | None
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    logging.basicConfig(filename=run_dir / f"rank_{rank}.log", level="INFO", force=True)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - bars
    if killed_at is not None and rank == size - 1:
        agreed = StopSignal.agreed

        def killing(self: StopSignal, step: int, processes: object) -> int:
            if step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return agreed(self, step, processes)

        StopSignal.agreed = killing
    # Others than the first are told where its folder is.
    own = run_dir if rank == 0 else Path("elsewhere")
    one_line_errors(lambda cfg: train_command(read_settings(cfg), own))(configuration(*words))
