"""`python -m prnet.train`: built sets -> a checkpoint. One function from the first batch to the
last."""

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from prnet.checkpoint import load_checkpoint, load_weights, save_checkpoint
from prnet.config_path import CONFIG_DIR
from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.builder import BuildOptions, FaceFiles, build_archive
from prnet.datasets.loading import StepSampler, TrainingSets, training_loader
from prnet.datasets.pictures import collate_fits
from prnet.datasets.warp import make_sample
from prnet.entry import num_workers, one_line_errors, resolve_device
from prnet.faces.bfm import load_bfm
from prnet.faces.face import Face
from prnet.geometry.position_map import PositionMapDecoder
from prnet.models.batch_norm import recompute_batch_norm

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
    learning_rate: float
    weight_decay: float
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
    """The random numbers of one step: a function of where the run is, so a resumed run draws the
    same."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> 1))


def train(
    model: nn.Module,
    loss_fn: nn.Module,
    sets: TrainingSets,
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
        ValueError: `resume` belongs to a run over other samples, batches or processes.
    """
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
        bn_batches = SHORT_RUN_BATCHES if total_steps < SHORT_RUN_STEPS else 0

    cuda = world.device.type == "cuda"
    memory_format = torch.channels_last if plan.channels_last else torch.contiguous_format
    model.to(world.device, memory_format=memory_format)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        fused=True,
    )
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
    network: nn.Module = model
    if plan.compile:
        network = torch.compile(network)
    if world.size > 1:
        network = DistributedDataParallel(network, device_ids=[world.device.index] if cuda else None)

    def state(step: int) -> dict:
        training = {"step": step, "order": order, "best": best, "optimizer": optimizer.state_dict()}
        return {**header, "weights": model.state_dict(), "training": training}

    writer = SummaryWriter(str(run_dir)) if world.rank == 0 else None
    bar = tqdm(total=total_steps, initial=sampler.start, unit="step", disable=world.rank != 0)
    batches = iter(training_loader(sampler, num_workers=plan.num_workers, pin_memory=cuda))
    stopped = StopSignal()
    unchecked: tuple[int, dict[str, Tensor]] | None = None
    seen_at, seen_step = time.perf_counter(), sampler.start
    step = sampler.start
    model.train()
    while step < total_steps:
        batch = next(batches).to(world.device)
        generator = batch_generator(plan.seed, step, world.rank, world.device)
        sample = augment(batch, decoder, rule, generator)

        # Forward, backward, update.
        learning_rate = plan.learning_rate * schedule(
            step / steps_per_epoch, total_steps / steps_per_epoch
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(world.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
            prediction = network(sample.image.contiguous(memory_format=memory_format))
        losses = loss_fn(prediction, sample)  # name -> weighted scalar
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        # A step late, so that reading the numbers does not hold up the device.
        terms = check_finite(unchecked)
        unchecked = (step, {name: value.detach() for name, value in losses.items()})
        step += 1
        bar.update()

        if terms and writer and step % plan.log_every == 0:
            now = time.perf_counter()
            speed = (step - seen_step) * plan.batch_size * world.size / (now - seen_at)
            seen_at, seen_step = now, step
            outside = unreachable_share(sample.position_map, loss_fn.weight_mask, model)
            for name, value in terms.items():
                writer.add_scalar(f"train/{name}", value, step)
            writer.add_scalar("train/learning_rate", learning_rate, step)
            writer.add_scalar("train/samples_per_second", speed, step)
            writer.add_scalar("train/ground_truth_out_of_reach", outside, step)
            bar.set_postfix(loss=f"{sum(terms.values()):.3f}", samples_s=f"{speed:.1f}")

        # Validate with the function behind `python -m prnet.eval`, then save.
        done = step == total_steps
        leaving = stopped.agreed(step, world)
        if done or leaving or step % validate_steps == 0 or step % plan.save_every == 0:
            check_finite(unchecked)
            unchecked = None
        if world.rank == 0 and (done or step % validate_steps == 0):
            if bn_batches:
                calibrate(
                    model,
                    sets,
                    decoder,
                    rule,
                    plan=plan,
                    step=step,
                    device=world.device,
                    count=bn_batches,
                )
            if validate is not None:
                validation = validate(model)
                log.info("step %d: %s", step, validation.summary)
                for name, value in validation.scalars.items():
                    writer.add_scalar(f"validation/{name}", value, step)
                writer.add_image("validation/panel", validation.panel, step, dataformats="HWC")
                if validation.score < best:
                    best = validation.score
                    save_checkpoint(run_dir / "best.pt", {**header, "weights": model.state_dict()})
            model.train()
        if world.rank == 0 and (done or leaving or step % plan.save_every == 0):
            save_checkpoint(run_dir / "last.pt", state(step))
        if world.size > 1 and (done or step % validate_steps == 0):
            distributed.barrier()
        if leaving:
            log.warning("stopped by a signal at step %d; resume=%s", step, run_dir / "last.pt")
            break
    bar.close()
    if writer:
        writer.close()
        if not (run_dir / "best.pt").is_file():
            shutil.copyfile(run_dir / "last.pt", run_dir / "best.pt")


class Validation(NamedTuple):
    """What `validate` reports."""

    score: float  # lower is better; chooses best.pt
    scalars: dict[str, float]
    panel: np.ndarray  # (H, W, 3), uint8
    summary: str


class StopSignal:
    """Remembers SIGTERM and SIGINT until the loop has a state worth saving; a second SIGINT is obeyed at once."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True

    def agreed(self, step: int, world: World) -> bool:
        """Whether to stop now: all processes at the same step, or their next all-reduce would hang."""
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
    """Share of supervised texels with a coordinate outside what the network can output (PRN's sigmoid)."""
    outside = (position_map < 0) | (position_map > model.coordinate_scale)
    return float(outside.any(1)[:, weight_mask > 0].float().mean())


def calibrate(
    model: nn.Module,
    sets: TrainingSets,
    decoder: PositionMapDecoder,
    rule: AugmentRule,
    *,
    plan: Plan,
    step: int,
    device: torch.device,
    count: int,
) -> None:
    """Recompute the BN statistics of `model` over `count` augmented training batches."""
    samples = sets.concatenated()
    order = np.random.default_rng([plan.seed, step]).choice(
        len(samples), size=min(len(samples), count * plan.batch_size), replace=False
    )

    def images():
        for start in range(0, len(order) - plan.batch_size + 1, plan.batch_size):
            chosen = order[start : start + plan.batch_size].tolist()
            batch = collate_fits([samples[i] for i in chosen]).to(device)
            generator = batch_generator(plan.seed, step, start, device)
            image = augment(batch, decoder, rule, generator).image
            yield image.contiguous(
                memory_format=torch.channels_last if plan.channels_last else torch.contiguous_format
            )

    recompute_batch_norm(model, images())


def start_world(device: str) -> World:
    """Join torchrun's processes, if it started this one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    if size > 1:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)


def open_sets(cfg: DictConfig, face: Face, world: World) -> TrainingSets:
    """The built sets to train on; the default one is made from the archive if it is not there yet."""
    directories = cfg.built
    if directories is None:
        default = Path("data/built") / cfg.dataset.name
        if world.rank == 0:
            build_archive(
                cfg.dataset.subsets,
                data_dir=cfg.data_dir,
                output=default,
                face_files=FaceFiles(cfg.face.bfm_dir, cfg.face.prnet_uv_dir),
                options=BuildOptions(cfg.dataset.name),
                workers=num_workers("auto"),
            )
        if world.size > 1:
            distributed.barrier()
        directories = [default]
    elif isinstance(directories, str):
        directories = [directories]
    return TrainingSets(
        list(directories),
        ratios=cfg.built_ratios,
        validation_fraction=cfg.validation_fraction,
        face=face.describe(),
    )


@hydra.main(config_path=CONFIG_DIR, config_name="train", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    world = start_world(cfg.device)
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    torch.manual_seed(cfg.seed)

    face = load_bfm(cfg.face.bfm_dir, prnet_uv_dir=cfg.face.prnet_uv_dir)
    sets = open_sets(cfg, face, world)
    log.info("%d training samples, run directory %s", len(sets), run_dir)

    model = instantiate(cfg.model.network)
    loss_fn = instantiate(cfg.loss, uv=face.uv).to(world.device)
    header = {
        "model": {"name": cfg.model.name, **plain_values(cfg.model.network)},
        "face": face.describe(),
    }
    resume = None
    if cfg.init is not None and cfg.resume is not None:
        raise ValueError("give init= (weights only) or resume= (go on with a run), not both")
    if cfg.init is not None:
        load_weights(model, load_checkpoint(cfg.init)["weights"], source=cfg.init)
    if cfg.resume is not None:
        checkpoint = load_checkpoint(cfg.resume)
        if "training" not in checkpoint:
            raise ValueError(f"{cfg.resume}: weights only; resume needs a last.pt, init takes this")
        load_weights(model, checkpoint["weights"], source=cfg.resume)
        resume = checkpoint["training"]
    train(
        model,
        loss_fn,
        sets,
        PositionMapDecoder(
            face.morphable_model, face.uv, texels="all" if loss_fn.weighs_outside else "face"
        ).to(world.device),
        plan=Plan(
            **OmegaConf.to_container(cfg.optimizer),
            **{
                **OmegaConf.to_container(cfg.trainer),
                "num_workers": loader_workers(cfg.trainer.num_workers, world.device),
            },
            seed=cfg.seed,
        ),
        rule=AugmentRule(**OmegaConf.to_container(cfg.augment)),
        schedule=instantiate(cfg.scheduler),
        world=world,
        run_dir=run_dir,
        header=header,
        validate=None,
        resume=resume,
    )


def plain_values(network: DictConfig) -> dict:
    """A model's constructor arguments for the checkpoint, without the class that takes them."""
    values = OmegaConf.to_container(network, resolve=True)
    return {key: value for key, value in values.items() if key != "_target_"}


def loader_workers(setting: str | int, device: torch.device) -> int:
    """`auto`: all cores where a GPU does the training, none where the cores do it themselves."""
    if setting == "auto" and device.type == "cpu":
        return 0
    return num_workers(setting)


if __name__ == "__main__":
    # Other ranks keep out of rank 0's run directory and log.
    if int(os.environ.get("RANK", "0")) > 0:
        sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=stdout"]
    main()
