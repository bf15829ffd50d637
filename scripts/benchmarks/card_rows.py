"""Whole training steps on a card, and what feeds it; without a card a row says that it was not
measured."""

import collections
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from benchmarks.made_data import Bench
from benchmarks.tables import plain
from benchmarks.timing import alternate, each
from prnet.datasets.augment import AugmentRule, draw, reach_of
from prnet.datasets.pictures import CROP_SIZE, collate_fits
from prnet.datasets.records import extents_at_most
from prnet.datasets.resident import ResidentSet, room_of
from prnet.entry import num_workers
from prnet.losses.loss import Loss, target_decoder
from prnet.losses.prn import PRNLoss
from prnet.losses.sadrnet import SADRNetLoss
from prnet.models.network import Network
from prnet.models.prn import PRN
from prnet.models.sadrnet import SADRNet
from prnet.training.card import prepare_card
from prnet.training.feeding import moved
from prnet.training.plan import batch_generator
from prnet.training.step import Forward, compiled
from prnet.workers import loader_of

NOT_MEASURED = "not measured"
RULE = AugmentRule()  # PRN section 3.3
# Batches that a loader is timed over, once its processes are there.
LOADED = 20


class Trained(NamedTuple):
    """What is trained, and how fast it is meant to be on one H200."""

    network: type[Network]
    loss: type[Loss]
    goal: int  # images a second


class Way(NamedTuple):
    """How a step is computed."""

    precision: str = "bf16"
    scope: str = "step"  # what of it is compiled
    deterministic: bool = False

    def __str__(self) -> str:
        kernels = ", deterministic" if self.deterministic else ""
        return f"{self.precision}, compiled: {self.scope}{kernels}"


TRAINED = {"PRN": Trained(PRN, PRNLoss, 4600), "SADRNet": Trained(SADRNet, SADRNetLoss, 3400)}
WAYS = (
    *(Way(precision, "no") for precision in ("fp32", "tf32", "bf16")),
    *(Way("bf16", scope) for scope in ("network", "step", "graphs")),
    Way("fp32", "step"),
    Way("bf16", "no", deterministic=True),
)


def step_call(bench: Bench, trained: Trained, way: Way, *, count: int) -> Callable[[], object]:
    """One step of a run, on a batch of `count`."""
    device = bench.device
    prepare_card(device, precision=way.precision, deterministic=way.deterministic)
    face = bench.face.to(device)
    model = trained.network(width=bench.sizes.network_width)
    model.set_face(face)
    model.train().to(device, memory_format=torch.channels_last)
    loss_fn = trained.loss().to(device)
    loss_fn.set_face(face)
    decoder = target_decoder(loss_fn, face)
    forward = Forward(model, loss_fn, decoder, RULE, scope=way.scope, precision=way.precision)
    forward = compiled(forward, way.scope)
    items = [bench.built[index % len(bench.built)] for index in range(count)]
    batch = collate_fits(items, reach=reach_of(RULE)).to(device)
    generator = batch_generator(0, 1, 0, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def call() -> None:
        if way.scope == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        made = forward(batch, draw(count, CROP_SIZE, RULE, generator))
        optimizer.zero_grad(set_to_none=True)
        sum(made.losses.values()).backward()
        optimizer.step()

    return call


def measured(bench: Bench, make: Callable[[], Callable], *, count: int) -> tuple[str, str]:
    """Images a second, and the peak of the card's memory, GB; or why there are none."""
    on_card = bench.device.type == "cuda"
    if on_card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    try:
        timing = alternate(
            {"step": make()},
            device=bench.device,
            ceiling_device=bench.device,
            rounds=bench.rounds,
            sizes=bench.sizes,
        )
    except RuntimeError as error:  # of one way: the others are measured all the same
        return f"failed: {str(error).partition(chr(10))[0]}", ""
    speed = 1 / statistics.median(each(timing.seconds["step"], count))
    peak = plain(torch.cuda.max_memory_allocated(bench.device) / 1e9) if on_card else ""
    return plain(speed), peak


def card_table(bench: Bench) -> list[str]:
    """A line a network, batch and way to compute a step; then what feeds it."""
    lines = [
        "| whole training step on a card | images a second | goal, one H200 | peak, GB |",
        "|---|---|---|---|",
    ]
    ways = [way for way in WAYS if bench.compile or way.scope == "no"]
    for name, trained in TRAINED.items():
        for count in bench.sizes.card_batches:
            for way in ways:
                found = NOT_MEASURED, ""
                if bench.device.type == "cuda":
                    torch.compiler.reset()
                    make = functools.partial(step_call, bench, trained, way, count=count)
                    found = measured(bench, make, count=count)
                largest = count == max(bench.sizes.card_batches)
                meant = way.precision == "bf16" and largest and not way.deterministic
                goal = f"{trained.goal:,}" if meant else ""
                lines.append(f"| {name}, batch {count}, {way} | {found[0]} | {goal} | {found[1]} |")
    return [*lines, "", *feeding_table(bench)]


def feeding_table(bench: Bench) -> list[str]:
    """Samples a second of a set on the card, and of a loader."""
    count, workers = max(bench.sizes.card_batches), num_workers("auto")
    names = (
        "set read onto the card, once",
        f"set on the card, batches of {count}",
        f"loader of {workers} processes, batches of {count} copied beside the step",
    )
    found = [NOT_MEASURED] * len(names)
    if bench.device.type == "cuda":
        found = [plain(speed) for speed in feeding_speeds(bench, count, workers)]
    head = ["| what feeds a card | samples a second |", "|---|---|"]
    return head + [f"| {name} | {speed} |" for name, speed in zip(names, found, strict=True)]


def feeding_speeds(bench: Bench, count: int, workers: int) -> Iterator[float]:
    """Samples a second: reading a set onto the device, its batches, those of a loader."""
    device, reach = bench.device, reach_of(RULE)

    def seconds(work: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    samples = Repeated(bench.built, max(LOADED * count, len(bench.built)))
    room = room_of(extents_at_most(bench.built.records, bench.built.crop_rule, reach))
    made: list[ResidentSet] = []

    def read() -> None:
        made.append(ResidentSet(bench.built, room, device, reach=reach, num_workers=workers))

    yield len(bench.built) / seconds(read)
    indices = [index % len(bench.built) for index in range(count)]
    made[0].batch(indices)
    yield LOADED * count / seconds(lambda: [made[0].batch(indices) for _ in range(LOADED)])
    batches = moved(
        loader_of(
            samples,
            functools.partial(collate_fits, reach=reach),
            batch_size=count,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        ),
        device,
    )
    next(batches)  # the processes start
    yield (len(samples) - count) / seconds(lambda: collections.deque(batches, maxlen=0))


class Repeated(torch.utils.data.Dataset):
    """A data set over and over, `length` samples."""

    def __init__(self, samples: torch.utils.data.Dataset, length: int) -> None:
        self.samples = samples
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> object:
        return self.samples[index % len(self.samples)]
