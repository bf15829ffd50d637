"""The training loop: batches -> a checkpoint, resumable to the bit.

Letters: B batch, H W crop and map side.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from prnet.checkpoint import save_checkpoint
from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.synthetic import SyntheticSets
from prnet.datasets.training_sets import StepSampler, TrainingSets, training_loader
from prnet.evaluation.sources import PRECISIONS
from prnet.geometry.position_map import PositionMapDecoder
from prnet.training.batch_norm import forgets_slowly, recompute_batch_norm

log = logging.getLogger(__name__)

# Runs shorter than this many steps need their BN statistics recomputed
# (`trainer.recompute_batch_norm`).
SHORT_RUN_STEPS = 20_000
SHORT_RUN_BATCHES = 32
# How often the processes agree on whether one of them was told to stop.
STOP_CHECK_STEPS = 10


class World(NamedTuple):
    """This process among those of torchrun."""

    rank: int
    size: int
    device: torch.device


class Plan(NamedTuple):
    """The numbers that steer the loop."""

    epochs: float
    max_steps: int | None
    optimizer: str  # adam | sgd, with Nesterov's momentum
    learning_rate: float
    weight_decay: float
    momentum: float  # of sgd
    batch_size: int
    precision: str
    channels_last: bool
    compile: bool
    num_workers: int
    log_every: int
    validate_every: float
    save_every: int
    recompute_batch_norm: str | int
    seed: int


def batch_generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step: a resumed run draws the same ones at the same step."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> 1))


def train(
    model: nn.Module,
    loss_fn: nn.Module,
    sets: TrainingSets | SyntheticSets,
    decoder: PositionMapDecoder,
    *,
    plan: Plan,
    rule: AugmentRule,
    schedule: Callable[[float, float], float],
    world: World,
    run_dir: Path,
    header: dict,
    validate: Callable[[nn.Module], "Validation"] | None,
    resume: dict | None,
) -> None:
    """Train from `resume`'s step, or from 0, to the end; leaves last.pt and best.pt in `run_dir`.

    `header` goes into every checkpoint (model, face); `validate` runs on rank 0.

    Raises:
        FloatingPointError: a loss is not finite; last.pt holds the state before it.
        ValueError: precision or optimizer is none of its choices, or `resume` belongs to a run
            over other samples, batches or processes.
    """
    if plan.precision not in PRECISIONS:
        raise ValueError(f"precision: got {plan.precision!r}, expected one of {PRECISIONS}")
    sampler = StepSampler(
        sets,
        batch_size=plan.batch_size,
        seed=plan.seed,
        start=resume["step"] if resume else 0,
        rank=world.rank,
        world_size=world.size,
    )
    steps_per_epoch = sampler.steps_per_epoch
    total_steps = round(plan.epochs * steps_per_epoch)
    if plan.max_steps is not None:
        total_steps = min(total_steps, plan.max_steps)
    validate_steps = max(1, round(plan.validate_every * steps_per_epoch))
    bn_batches = plan.recompute_batch_norm
    if bn_batches == "auto":
        short = total_steps < SHORT_RUN_STEPS
        bn_batches = SHORT_RUN_BATCHES if short and forgets_slowly(model) else 0

    cuda = world.device.type == "cuda"
    memory_format = torch.channels_last if plan.channels_last else torch.contiguous_format
    model.to(world.device, memory_format=memory_format)
    optimizer = make_optimizer(model, plan)
    order = {
        "seed": plan.seed,
        "samples": len(sets),
        "batch_size": plan.batch_size,
        "processes": world.size,
    }
    best = float("inf")
    if resume is not None:
        if resume["order"] != order:
            raise ValueError(
                f"resume: that run drew its batches by {resume['order']}, this one by {order}; "
                "resume with the same settings, or start anew with init="
            )
        optimizer.load_state_dict(resume["optimizer"])
        best = resume["best"]
        if hasattr(loss_fn, "load_training_state"):
            loss_fn.load_training_state(resume["loss"])
    network: nn.Module = model
    if plan.compile:
        network = torch.compile(network)
    if world.size > 1:
        network = DistributedDataParallel(
            network, device_ids=[world.device.index] if cuda else None
        )

    def save_last(step: int) -> None:
        training = {"step": step, "order": order, "best": best, "optimizer": optimizer.state_dict()}
        if hasattr(loss_fn, "training_state"):
            training["loss"] = loss_fn.training_state()
        save_checkpoint(
            run_dir / "last.pt", {**header, "weights": model.state_dict(), "training": training}
        )

    # What a network is given beside the image, and losses that learn something themselves.
    inputs = getattr(model, "inputs", ())
    targets = loss_fn.targets | set(inputs)
    has_critic = hasattr(loss_fn, "after_step")
    batches = iter(training_loader(sampler, num_workers=plan.num_workers, pin_memory=cuda))
    unchecked: tuple[int, dict[str, Tensor]] | None = None
    seen_at, seen_step = time.perf_counter(), sampler.start
    first_rank = world.rank == 0
    model.train()
    with (
        StopSignal() as stopped,
        SummaryWriter(str(run_dir)) if first_rank else contextlib.nullcontext() as writer,
        tqdm(total=total_steps, initial=sampler.start, unit="step", disable=not first_rank) as bar,
    ):
        for step in range(sampler.start + 1, total_steps + 1):
            batch = sets.finish(next(batches).to(world.device))
            generator = batch_generator(plan.seed, step, world.rank, world.device)
            sample = augment(batch, decoder, rule, generator, targets=targets)
            if hasattr(loss_fn, "start_step"):
                loss_fn.start_step((step - 1) / steps_per_epoch)

            # Forward, backward, update.
            learning_rate = plan.learning_rate * schedule(
                (step - 1) / steps_per_epoch, total_steps / steps_per_epoch
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            with torch.autocast(
                world.device.type, torch.bfloat16, enabled=plan.precision == "bf16"
            ):
                image = sample.image.contiguous(memory_format=memory_format)
                prediction = network(image, *(getattr(sample, name) for name in inputs))
            losses = loss_fn(prediction, sample)  # name -> weighted scalar
            loss = sum(losses.values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            taught = loss_fn.after_step(prediction, sample) if has_critic else {}

            # The terms are read a step late, so that reading them does not hold up the device.
            terms = check_finite(unchecked)
            unchecked = (step, {name: value.detach() for name, value in (losses | taught).items()})
            bar.update()
            if first_rank and terms and step % plan.log_every == 0:
                now = time.perf_counter()
                speed = (step - seen_step) * plan.batch_size * world.size / (now - seen_at)
                seen_at, seen_step = now, step
                for name, value in terms.items():
                    writer.add_scalar(f"train/{name}", value, step)
                writer.add_scalar("train/learning_rate", learning_rate, step)
                writer.add_scalar("train/samples_per_second", speed, step)
                if "position_map" in loss_fn.targets:
                    outside = unreachable_share(sample.position_map, loss_fn.weight_mask, model)
                    writer.add_scalar("train/ground_truth_out_of_reach", outside, step)
                total = sum(terms[name] for name in losses if name in terms)
                bar.set_postfix(loss=f"{total:.3f}", samples_s=f"{speed:.1f}")

            # Validate with the function behind `python -m prnet.eval`, then save.
            leaving = stopped.agreed(step, world)
            validating = step == total_steps or step % validate_steps == 0
            if validating or leaving or step % plan.save_every == 0:
                check_finite(unchecked)
                unchecked = None
            if validating and first_rank:
                if bn_batches:
                    images = calibration_images(sets, decoder, rule, plan, step, world, bn_batches)
                    recompute_batch_norm(model, images)
                if validate is not None:
                    validation = validate(model)
                    validation.write(writer, step)
                    if validation.score < best:
                        best = validation.score
                        save_checkpoint(
                            run_dir / "best.pt", {**header, "weights": model.state_dict()}
                        )
            if first_rank and (validating or leaving or step % plan.save_every == 0):
                save_last(step)
            if world.size > 1 and validating:
                distributed.barrier()
            if leaving:
                log.warning("stopped by a signal; go on with resume=%s", run_dir / "last.pt")
                return
    if first_rank and validate is None:
        save_checkpoint(run_dir / "best.pt", {**header, "weights": model.state_dict()})


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Adam, or SGD with Nesterov's momentum.

    Raises:
        ValueError: another name.
    """
    settings = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    if plan.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **settings)
    if plan.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), momentum=plan.momentum, nesterov=plan.momentum > 0, **settings
        )
    raise ValueError(f"optimizer.name: got {plan.optimizer!r}, expected adam or sgd")


class Validation(NamedTuple):
    """What `validate` reports."""

    score: float  # lower is better; chooses best.pt
    scalars: dict[str, float]
    panel: np.ndarray  # (H, W, 3), uint8

    def write(self, writer: SummaryWriter, step: int) -> None:
        for name, value in self.scalars.items():
            writer.add_scalar(f"validation/{name}", value, step)
        writer.add_image("validation/panel", self.panel, step, dataformats="HWC")
        listed = ", ".join(f"{name} {value:.3f}" for name, value in self.scalars.items())
        log.info("step %d: %s", step, listed)


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

    def agreed(self, step: int, world: World) -> bool:
        """Whether to stop now: all processes at the same step, or their next all-reduce would
        hang."""
        if world.size == 1:
            return self.received
        if step % STOP_CHECK_STEPS:
            return False
        flag = torch.tensor(float(self.received), device=world.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)


def check_finite(losses: tuple[int, dict[str, Tensor]] | None) -> dict[str, float]:
    """The loss terms of a step as numbers.

    Raises:
        FloatingPointError: one of them is NaN or infinite.
    """
    if losses is None:
        return {}
    step, terms = losses
    values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
    if not np.isfinite(list(values.values())).all():
        raise FloatingPointError(
            f"step {step}: the loss is not finite ({values}); the last good state is last.pt. "
            "Lower optimizer.learning_rate, or train in fp32"
        )
    return values


def unreachable_share(
    position_map: Tensor,  # (B, 3, H, W), crop px
    weight_mask: Tensor,  # (H, W)
    model: nn.Module,
) -> float:
    """Share of supervised texels with a coordinate outside what the network can output (PRN's
    sigmoid)."""
    low, high = model.reach
    outside = (position_map < low) | (position_map > high)
    return float(outside.any(1)[:, weight_mask > 0].float().mean())


def calibration_images(
    sets: TrainingSets | SyntheticSets,
    decoder: PositionMapDecoder,
    rule: AugmentRule,
    plan: Plan,
    step: int,
    world: World,
    count: int,
) -> Iterator[Tensor]:
    """Up to `count` augmented training batches to recompute BN statistics from."""
    samples = sets.concatenated()
    order = sets.order(plan.seed, 0)[: count * plan.batch_size]
    for start in range(0, len(order), plan.batch_size):
        chosen = order[start : start + plan.batch_size].tolist()
        batch = sets.collate([samples[i] for i in chosen]).to(world.device)
        generator = batch_generator(plan.seed, step, start, world.device)
        yield augment(sets.finish(batch), decoder, rule, generator, targets=()).image
