"""Whole training steps on a card: augmentation, targets, network, loss and update, of a batch that
is there; without a card a row says that it was not measured."""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.made_data import Bench
from benchmarks.tables import plain
from benchmarks.timing import alternate, each
from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.pictures import collate_fits
from prnet.losses.loss import Loss, target_decoder
from prnet.losses.prn import PRNLoss
from prnet.losses.sadrnet import SADRNetLoss
from prnet.models.network import Network
from prnet.models.prn import PRN
from prnet.models.sadrnet import SADRNet
from prnet.training.plan import batch_generator

NOT_MEASURED = "not measured"
# PRN's own: rotation, translation, scale and colour.
RULE = AugmentRule(rotation_deg=45, translation=0.1, scale=(0.9, 1.2), color=(0.6, 1.4))


class Trained(NamedTuple):
    """What is trained, and how fast it is meant to be on one H200."""

    network: type[Network]
    loss: type[Loss]
    goal: int  # images a second


TRAINED = {"PRN": Trained(PRN, PRNLoss, 4600), "SADRNet": Trained(SADRNet, SADRNetLoss, 3400)}


def step_call(
    bench: Bench, trained: Trained, *, count: int, bf16: bool, compiled: bool
) -> Callable[[], object]:
    """One step of a run, on a batch of `count`."""
    device = bench.device
    face = bench.face.to(device)
    model = trained.network(width=bench.sizes.network_width)
    model.set_face(face)
    model.train().to(device, memory_format=torch.channels_last)
    loss_fn = trained.loss().to(device)
    loss_fn.set_face(face)
    decoder = target_decoder(loss_fn, face)
    items = [bench.built[index % len(bench.built)] for index in range(count)]
    batch = collate_fits(items).to(device)
    generator = batch_generator(0, 1, 0, device)
    network = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def call() -> None:
        sample = augment(batch, decoder, RULE, generator, targets=loss_fn.targets)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            prediction = network(sample.image.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        sum(loss_fn(prediction, sample).values()).backward()
        optimizer.step()

    return call


def measured(bench: Bench, call: Callable[[], object], *, count: int) -> tuple[str, str]:
    """Images a second, and the peak of the card's memory, GB."""
    on_card = bench.device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats(bench.device)
    timing = alternate(
        {"step": call},
        device=bench.device,
        ceiling_device=bench.device,
        rounds=bench.rounds,
        sizes=bench.sizes,
    )
    speed = 1 / statistics.median(each(timing.seconds["step"], count))
    peak = plain(torch.cuda.max_memory_allocated(bench.device) / 1e9) if on_card else ""
    return plain(speed), peak


def card_table(bench: Bench) -> list[str]:
    """A line a network, batch and precision."""
    lines = [
        "| whole training step on a card | images a second | goal, one H200 | peak, GB |",
        "|---|---|---|---|",
    ]
    for name, trained in TRAINED.items():
        for count in bench.sizes.card_batches:
            for bf16 in (False, True):
                found = NOT_MEASURED, ""
                if bench.device.type == "cuda":
                    options = {"bf16": bf16, "compiled": bench.compile}
                    call = step_call(bench, trained, count=count, **options)
                    found = measured(bench, call, count=count)
                what = f"{name}, batch {count}, {'bf16' if bf16 else 'fp32'}"
                goal = (
                    f"{trained.goal:,}" if bf16 and count == max(bench.sizes.card_batches) else ""
                )
                lines.append(f"| {what} | {found[0]} | {goal} | {found[1]} |")
    return lines
