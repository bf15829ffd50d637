"""Calls alternated round by round, and what the machine can do in the same rounds."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from prnet.building import archives, resumable

CPU = torch.device("cpu")
REGRESSORS = (  # of configs/model
    "mobile_frnet",
    "mobile_frnet_no_attention",
    "mobilenet_v2",
    "densenet121",
    "resnext50",
    "resnet50",
    "2dasl",
)


# Fewer samples start no process.
POOL_SAMPLES = math.ceil(resumable.POOL_FROM / archives.SECONDS)


class Sizes(NamedTuple):
    """How much is timed. The defaults are real sizes."""

    vertex_rows: int = 367  # of the made face; 367 * 145 = 53,215 as the BFM
    vertex_columns: int = 145
    shape_bases: int = 199
    exp_bases: int = 29
    pictures: int = 64  # made; builds of more repeat them
    picture_side: int = 450
    build: tuple[int, int] = (1, 1025)  # images; what the second takes more than the first counts
    build_all_cores: tuple[int, int] = (POOL_SAMPLES, 3 * POOL_SAMPLES)
    loader: int = 256
    loader_batch: int = 64
    map_batch: int = 64
    network_width: int = 16
    inference: tuple[int, ...] = (1, 16)
    regressors: tuple[str, ...] = REGRESSORS
    step: int | None = None  # None: 4 on the CPU, 16 on a GPU
    card_batches: tuple[int, ...] = (16, 256)
    evaluation: int = 64
    evaluation_batch: int = 16
    nme: int = 32
    icp: int = 4
    raster: tuple[int, ...] = (256, 450)
    reconstruct_threads: tuple[int, ...] = (1, 2)
    reconstruct_starts: bool = True
    synthetic: int = 64
    synthetic_sides: tuple[int, ...] = (128, 256)
    sgemm: int = 2048
    copy: int = 2**26  # float32 values
    clock: str = "wall"  # or "cpu": of this process and of those that it waited for
    stretch_seconds: float = 0.2  # a shorter call is repeated until it fills this


class Ceilings(NamedTuple):
    """What a device can do at the moment."""

    sgemm: float  # GFLOP/s
    copy: float  # GB/s, read and written


class Timing(NamedTuple):
    """Calls that were alternated."""

    seconds: dict[str, list[float]]  # of one call, one a round
    ceilings: list[Ceilings]  # of the same rounds


class Beside(NamedTuple):
    """One line: the same work by peers' code and by ours."""

    what: str
    count: int  # images or faces of a call
    peers: dict[str, Callable[[], object]]
    ours: dict[str, Callable[[], object]]
    peer_count: int | None = None  # of a peer's call, where it is not as many
    # What one of ours does before its first image, to be subtracted.
    starts: Mapping[str, Callable[[], object]] = {}
    trains: bool = False  # differentiates


def cpu_seconds() -> float:
    """CPU time so far; on a machine that others use it is the steadier clock."""
    spent = time.process_time()
    with contextlib.suppress(ModuleNotFoundError):  # Windows has none
        import resource

        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent += children.ru_utime + children.ru_stime
    return spent


CLOCKS = {"wall": time.perf_counter, "cpu": cpu_seconds}


def time_call(
    call: Callable[[], object], device: torch.device, *, repeats: int = 1, clock: str = "wall"
) -> float:
    """Seconds of one call, the mean of `repeats` in a row."""
    now = CLOCKS[clock]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = now()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (now() - start) / repeats


def ceiling_calls(device: torch.device, sizes: Sizes) -> dict[str, Callable[[], object]]:
    left, right, product = (torch.rand(sizes.sgemm, sizes.sgemm, device=device) for _ in range(3))
    source, target = (torch.rand(sizes.copy, device=device) for _ in range(2))
    return {
        "sgemm": lambda: torch.mm(left, right, out=product),
        "copy": lambda: target.copy_(source),
    }


def alternate(
    calls: dict[str, Callable[[], object]],
    *,
    device: torch.device,
    ceiling_device: torch.device,
    rounds: int,
    sizes: Sizes,
) -> Timing:
    """Time every call, and the ceilings, in turn, `rounds` times; each is warmed up before."""
    timed = {name: (call, device) for name, call in calls.items()}
    for name, call in ceiling_calls(ceiling_device, sizes).items():
        timed[name] = (call, ceiling_device)
    repeats = {}
    for name, (call, where) in timed.items():
        once = time_call(call, where)
        if once < sizes.stretch_seconds:
            once = time_call(call, where)
        repeats[name] = max(1, math.ceil(sizes.stretch_seconds / once))
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, (call, where) in timed.items():
            seconds[name].append(time_call(call, where, repeats=repeats[name], clock=sizes.clock))
    ceilings = [
        Ceilings(
            sgemm=2 * sizes.sgemm**3 / sgemm_seconds / 1e9,
            copy=2 * 4 * sizes.copy / copy_seconds / 1e9,
        )
        for sgemm_seconds, copy_seconds in zip(
            seconds.pop("sgemm"), seconds.pop("copy"), strict=True
        )
    ]
    return Timing(seconds, ceilings)


def each(seconds: list[float], count: int) -> list[float]:
    return [value / count for value in seconds]
