"""What a training loop is fed with: batches on its device, of a set that lies there, or read ahead
by a loader."""

import functools
import logging
from collections.abc import Iterable, Iterator

import torch
from tqdm import tqdm

from prnet.checks import require_choice
from prnet.datasets.augment import AugmentRule, reach_of
from prnet.datasets.pictures import collate_fits
from prnet.datasets.resident import ResidentSet, Room, room_of
from prnet.datasets.training_sets import StepSampler, TrainingData
from prnet.sample import FitBatch
from prnet.training.plan import Plan
from prnet.training.processes import Processes
from prnet.workers import loader_of

log = logging.getLogger(__name__)

# Of a card's free memory, for the set: 300W-LP takes 73 GB of an H200's 140 where faces are turned,
# and SADRNet's step in float32 with batch 256 some 40.
SHARE_FOR_THE_SET = 0.6


def feed(
    data: TrainingData,
    sampler: StepSampler,
    plan: Plan,
    rule: AugmentRule,
    processes: Processes,
    *,
    steps: int,
    one_size: bool = False,
) -> Iterator[FitBatch]:
    """The batches of a run's steps in the sampler's order, on the device; the same ones wherever
    they come from, but for how far they are padded. `steps`: that the run has left; `one_size`: all
    batches are to have one.

    Raises:
        MemoryError: the set is to lie on the device, which has no room for it.
        OSError, ValueError: a picture cannot be read.
    """
    reach, device = reach_of(rule), processes.device
    extents = data.extents(reach)
    room = None if extents is None else room_of(extents)
    epochs = steps / sampler.steps_per_epoch
    if room is not None and lies_on_device(plan.resident, room, processes, epochs=epochs):
        bar = {"desc": "read the set", "unit": "batch", "leave": False}
        resident = ResidentSet(
            data.concatenated(),
            room,
            device,
            reach=reach,
            num_workers=plan.num_workers,
            shown=functools.partial(tqdm, disable=not processes.is_first, **bar),
        )
        return map(resident.batch, sampler)
    size = (room.height, room.width) if one_size and room is not None else None
    loader = loader_of(
        data.concatenated(),
        functools.partial(collate_fits, reach=reach, size=size),
        num_workers=plan.num_workers,
        pin_memory=device.type == "cuda",
        batch_sampler=sampler,
    )
    return moved(loader, device)


def lies_on_device(setting: bool | str, room: Room, processes: Processes, *, epochs: float) -> bool:
    """What `trainer.resident` means: "auto" keeps a set on a card where it fits beside the step, in
    all processes of a run or in none, each of which has all of it, and where each sample is read
    once at least.

    Raises:
        ValueError: another setting.
    """
    require_choice("trainer.resident", setting, (True, False, "auto"))
    if setting != "auto" or processes.device.type != "cuda":
        return setting is True
    free, _ = torch.cuda.mem_get_info(processes.device)
    fits = all(processes.gather([room.size <= SHARE_FOR_THE_SET * free]))
    pays = epochs >= 1
    log.info(
        "trainer.resident=auto: %s (%.2f GB of pictures, %.2f GB free, of which %.0f %% may be "
        "taken%s)",
        str(fits and pays).lower(),
        room.size / 1e9,
        free / 1e9,
        100 * SHARE_FOR_THE_SET,
        "" if pays else f"; the run has {epochs:.2g} epochs, it pays from 1 on",
    )
    return fits and pays


def moved(batches: Iterable[FitBatch], device: torch.device) -> Iterator[FitBatch]:
    """The batches on the device: on a card copied beside the step before, from pinned memory."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copying = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(copying):
            there = batch.to(device)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for field in there:
            if field is not None:
                field.record_stream(computing)
        yield there
