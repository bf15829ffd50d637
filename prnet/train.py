"""`python -m prnet.train`: built sets -> a checkpoint; `train` is the whole loop."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
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
from torch.utils.data import ConcatDataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from prnet.checkpoint import describe_source, load_checkpoint, load_weights, save_checkpoint
from prnet.config_path import CONFIG_DIR
from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.builder import BuildOptions, FaceFiles, build_archive, require_archives
from prnet.datasets.evaluation import evaluation_loader
from prnet.datasets.loading import StepSampler, TrainingSets, training_loader
from prnet.datasets.synthetic import SyntheticRule, SyntheticSets
from prnet.datasets.warp import make_sample
from prnet.entry import loader_workers, num_workers, one_line_errors, resolve_device
from prnet.eval import PRECISIONS, evaluate_model, evaluation_mode
from prnet.faces.face import Face
from prnet.files import written_whole
from prnet.geometry.position_map import PositionMapDecoder
from prnet.models.batch_norm import forgets_slowly, recompute_batch_norm
from prnet.protocol import Protocol
from prnet.sample import FitBatch
from prnet.visualize import draw_landmarks, draw_map_error, draw_mesh, tile, to_picture

log = logging.getLogger(__name__)

# Runs shorter than this many steps need their BN statistics recomputed
# (`trainer.recompute_batch_norm`).
SHORT_RUN_STEPS = 20_000
SHORT_RUN_BATCHES = 32
# How often the processes agree on whether one of them was told to stop.
STOP_CHECK_STEPS = 10
# Held-out samples of each set that the validation panel shows.
SHOWN_SAMPLES = 4


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
        ValueError: the precision is none of its choices, or `resume` belongs to a run over other
            samples, batches or processes.
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
        network = DistributedDataParallel(
            network, device_ids=[world.device.index] if cuda else None
        )

    def save_last(step: int) -> None:
        training = {"step": step, "order": order, "best": best, "optimizer": optimizer.state_dict()}
        save_checkpoint(
            run_dir / "last.pt", {**header, "weights": model.state_dict(), "training": training}
        )

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
            sample = augment(batch, decoder, rule, generator)

            # Forward, backward, update.
            learning_rate = plan.learning_rate * schedule(
                (step - 1) / steps_per_epoch, total_steps / steps_per_epoch
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            with torch.autocast(
                world.device.type, torch.bfloat16, enabled=plan.precision == "bf16"
            ):
                prediction = network(sample.image.contiguous(memory_format=memory_format))
            losses = loss_fn(prediction, sample)  # name -> weighted scalar
            loss = sum(losses.values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

            # The terms are read a step late, so that reading them does not hold up the device.
            terms = check_finite(unchecked)
            unchecked = (step, {name: value.detach() for name, value in losses.items()})
            bar.update()
            if first_rank and terms and step % plan.log_every == 0:
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
        yield augment(sets.finish(batch), decoder, rule, generator).image


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


def open_sets(cfg: DictConfig, face: Face, world: World) -> TrainingSets | SyntheticSets:
    """What to train on: the synthetic stream, or built sets, of which the default one is made from
    the archive if it is not there yet."""
    directories = cfg.built
    if directories is None and cfg.dataset.name == "synthetic":
        if face.name != "embedded":
            raise ValueError(f"dataset=synthetic: made of face=embedded, not face={face.name}")
        rule = SyntheticRule.from_values(OmegaConf.to_container(cfg.dataset, resolve=True))
        return SyntheticSets(rule, device=world.device)
    if directories is None:
        default = Path("data/built") / cfg.dataset.name
        if world.rank == 0:
            build_archive(
                cfg.dataset.subsets,
                data_dir=cfg.data_dir,
                output=default,
                face_files=FaceFiles(**cfg.face),
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

    face_files = FaceFiles(**cfg.face)
    if cfg.built is None:
        require_archives(cfg.dataset.name, face_files, data_dir=cfg.data_dir)
    face = face_files.load()
    sets = open_sets(cfg, face, world)
    log.info("%d training samples, run directory %s", len(sets), run_dir)

    model = instantiate(cfg.model.network)
    loss_fn = instantiate(cfg.loss, uv=face.uv).to(world.device)
    header = {
        "model": {"name": cfg.model.name, **plain_values(cfg.model.network)},
        "face": face.describe(),
        "pixel_origin": sets.pixel_origin,
    }
    resume = None
    if cfg.init is not None and cfg.resume is not None:
        raise ValueError("give init= (weights only) or resume= (go on with a run), not both")
    if cfg.init is not None:
        checkpoint = load_checkpoint(cfg.init)
        load_weights(model, checkpoint["weights"], source=describe_source(cfg.init, checkpoint))
    if cfg.resume is not None:
        checkpoint = load_checkpoint(cfg.resume)
        if "training" not in checkpoint:
            raise ValueError(f"{cfg.resume}: weights only; resume takes a last.pt, init takes this")
        load_weights(model, checkpoint["weights"], source=describe_source(cfg.resume, checkpoint))
        resume = checkpoint["training"]
        if world.rank == 0:
            keep_best(Path(cfg.resume), run_dir)
    face = face.to(world.device)
    texels = "all" if loss_fn.weighs_outside else "face"
    decoder = PositionMapDecoder(face.morphable_model, face.uv, texels=texels).to(world.device)
    settings = OmegaConf.to_container(cfg.trainer)
    renders = isinstance(sets, SyntheticSets) and not sets.on_device
    workers = loader_workers(cfg.trainer.num_workers, world.device, renders=renders)
    settings["num_workers"] = workers
    if renders and world.device.type == "cpu" and workers:
        # Threads beyond the cores left would wait for the renderers' and be waited for.
        torch.set_num_threads(max(1, num_workers("auto") - workers))
    train(
        model,
        loss_fn,
        sets,
        decoder,
        plan=Plan(**OmegaConf.to_container(cfg.optimizer), **settings, seed=cfg.seed),
        rule=AugmentRule(**OmegaConf.to_container(cfg.augment)),
        schedule=instantiate(cfg.scheduler),
        world=world,
        run_dir=run_dir,
        header=header,
        validate=make_validate(cfg, sets, face, decoder, world.device) if world.rank == 0 else None,
        resume=resume,
    )
    if world.size > 1:
        distributed.destroy_process_group()


def make_validate(
    cfg: DictConfig,
    sets: TrainingSets | SyntheticSets,
    face: Face,
    decoder: PositionMapDecoder,
    device: torch.device,
) -> Callable[[nn.Module], Validation] | None:
    """What the loop validates with: `prnet.eval` on the held-out photos; None where none are."""
    protocol = Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))
    if not sets.validation:
        log.warning("no photos are held out: best.pt will be the last state")
        return None
    first, *others = sets.validation
    samples = ConcatDataset(sets.validation) if others else first
    shown = sets.shown(SHOWN_SAMPLES)

    def validate(model: nn.Module) -> Validation:
        report = evaluate_model(
            model,
            evaluation_loader(samples, batch_size=cfg.trainer.batch_size),
            face=face,
            truth_face=face,
            protocol=protocol,
            dataset="held out",
            source="the network in training",
            precision=cfg.trainer.precision,
            progress=False,
        )
        means = {name: summary["mean"] for name, summary in report["metrics"].items()}
        return Validation(
            means["nme_68_2d"], means, draw_panel(model, shown.to(device), face, decoder)
        )

    return validate


@torch.inference_mode()
def draw_panel(
    model: nn.Module, batch: FitBatch, face: Face, decoder: PositionMapDecoder
) -> np.ndarray:
    """Held-out samples, a row each: photo with predicted landmarks, predicted mesh, true mesh, map
    error."""
    sample = make_sample(batch, decoder)
    with evaluation_mode(model):
        predicted = model(sample.image).position_map.float()
    pictures = []
    for image, prediction, truth in zip(sample.image, predicted, sample.position_map, strict=True):
        photo = to_picture(image)
        predicted_points, true_points = (
            face.uv.face_points(position_map[None])[0] for position_map in (prediction, truth)
        )
        pictures += [
            draw_landmarks(photo, face.uv.landmarks(prediction[None])[0]),
            draw_mesh(photo, predicted_points, face.uv.grid_triangles),
            draw_mesh(photo, true_points, face.uv.grid_triangles),
            draw_map_error(prediction, truth, mask=face.uv.face_mask),
        ]
    return tile(pictures, columns=4)


def keep_best(resumed: Path, run_dir: Path) -> None:
    """Copy best.pt from beside a resumed last.pt: it is the best until the run beats its score."""
    best = resumed.with_name("best.pt")
    if best.is_file() and resumed.parent.resolve() != run_dir.resolve():
        with written_whole(run_dir / "best.pt") as temporary:
            temporary.write_bytes(best.read_bytes())


def plain_values(network: DictConfig) -> dict:
    """A model's constructor arguments for the checkpoint, without the class that takes them."""
    values = OmegaConf.to_container(network, resolve=True)
    return {key: value for key, value in values.items() if key != "_target_"}


if __name__ == "__main__":
    # Other ranks keep out of rank 0's run directory and log.
    if int(os.environ.get("RANK", "0")) > 0:
        sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=stdout"]
    main()
