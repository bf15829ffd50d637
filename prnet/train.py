"""`python -m prnet.train`: from a configuration to a run of `prnet.training.loop.train`."""

import os
import sys

from prnet.command.running import run_verb

if __name__ == "__main__":
    # Other ranks keep out of rank 0's run directory and log, and say what goes wrong alone.
    if int(os.environ.get("RANK", "0")) > 0:
        sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=stdout"]
        sys.argv += ["hydra.job_logging.root.level=WARNING"]
    run_verb("train")  # ends here: options are read before what follows is imported

import functools
import logging
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from prnet.building.archives import BuildOptions, build_archive, require_archives
from prnet.checkpoint import describe_source, load_checkpoint, load_weights
from prnet.datasets.augment import AugmentRule
from prnet.datasets.synthetic import SyntheticRule, SyntheticSets
from prnet.datasets.training_sets import TrainingData, TrainingSets
from prnet.entry import (
    loader_workers,
    num_workers,
    resolve_device,
    run_folder,
    shipped_names,
    shipped_values,
)
from prnet.evaluation.protocol import Protocol
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.files import take
from prnet.losses.loss import Loss, target_decoder
from prnet.models.network import Network
from prnet.training.card import prepare_card
from prnet.training.loop import Ending, train
from prnet.training.matching import require_match
from prnet.training.plan import Plan
from prnet.training.processes import Processes, join_processes
from prnet.training.run_files import keep_best
from prnet.training.statistics import parameter_statistics
from prnet.training.validation import SCORE, held_out_validation

log = logging.getLogger(__name__)


class Settings(NamedTuple):
    """What the configuration asks for."""

    name: str
    device: torch.device
    network: Network
    loss_fn: Loss
    model: dict  # name and values of the network, for checkpoints
    dataset: str
    data_dir: str
    face: FaceFiles
    stream: SyntheticRule | None  # rendered as it goes; None: built sets
    built: list[str] | None  # folders of built sets; None: the archive's own, built on first use
    built_ratios: list[float] | None
    subsets: list[str] | None  # of the archive
    validation_fraction: float
    hide_fits: float
    landmark_images: int | None
    landmarks: str | None  # of the photos of built, by name; None: those of their fits
    rule: AugmentRule
    plan: Plan
    schedule: Callable[[float, float], float]
    protocol: Protocol
    init: str | None
    resume: str | None
    decisive: dict  # what a resumed run has in common with its start, plain values


def read_settings(cfg: DictConfig) -> Settings:
    """The configuration as the package's own values; network and loss are made, and fit.

    Raises:
        ValueError: a value is none of its choices, the loss cannot teach the network, or two
            options exclude each other.
    """
    values = OmegaConf.to_container(cfg, resolve=True)
    if cfg.init is not None and cfg.resume is not None:
        raise ValueError("give init= (weights only) or resume= (go on with a run), not both")
    torch.manual_seed(cfg.seed)
    network, loss_fn = instantiate(cfg.model.network), instantiate(cfg.loss)
    require_match(network, loss_fn, lambda: shipped_losses(cfg.model))

    if network.landmark_map == "given" and cfg.landmarks is None:
        raise ValueError(
            "model.network.landmark_map=given: give landmarks=FILE.csv or DIR, what a detector "
            "found on the photos of built"
        )
    if cfg.landmarks is not None and "landmarks" not in {*network.inputs, *loss_fn.targets}:
        raise ValueError("landmarks: neither the network nor the loss takes any; leave it out")

    built, dataset = values["built"], values["dataset"]
    if built is None and dataset["name"] == "landmarks_only":
        raise ValueError(
            "dataset=landmarks_only: landmarks alone teach no parameters; build the set with "
            "prnet.build, then give built=[SET_WITH_FITS, THIS_ONE]"
        )
    stream = None
    if built is None and dataset["name"] == "synthetic":
        if cfg.hide_fits or cfg.landmark_images is not None or cfg.landmarks is not None:
            raise ValueError(
                "hide_fits, landmark_images and landmarks are for built sets; freeze a world"
            )
        if cfg.face.name != "embedded":
            raise ValueError(f"dataset=synthetic: made of face=embedded, not face={cfg.face.name}")
        if values["trainer"]["resident"] is True:
            raise ValueError(
                "trainer.resident=true: dataset=synthetic renders every sample anew; freeze a "
                "world, or leave it out"
            )
        stream = SyntheticRule.from_values(dataset)
    arguments = {key: value for key, value in values["model"]["network"].items() if key[0] != "_"}
    optimizer = values["optimizer"]
    as_configured = ("name", "data_dir", "built_ratios", "validation_fraction", "hide_fits")
    as_configured += ("landmark_images", "landmarks", "init", "resume")
    decisive = {key: values[key] for key in ("optimizer", "scheduler", "loss", "augment")}
    for key in ("precision", "average", "recompute_batch_norm"):
        decisive.setdefault("trainer", {})[key] = values["trainer"][key]
    decisive = without_targets(decisive)
    return Settings(
        **{key: values[key] for key in as_configured},
        device=resolve_device(cfg.device),
        network=network,
        loss_fn=loss_fn,
        model={"name": cfg.model.name, **arguments},
        dataset=dataset["name"],
        face=FaceFiles(**values["face"]),
        stream=stream,
        built=[built] if isinstance(built, str) else built,
        subsets=dataset.get("subsets"),
        rule=AugmentRule(**values["augment"]),
        plan=Plan(
            optimizer=optimizer.pop("name"), **optimizer, **values["trainer"], seed=cfg.seed
        ).checked(),
        schedule=instantiate(cfg.scheduler),
        protocol=Protocol.from_values(values["protocol"]),
        decisive=decisive,
    )


def without_targets(values: object) -> object:
    """Plain values of a configuration in which what is called has its bare name: a checkpoint
    names no code."""
    if not isinstance(values, dict):
        return values
    targets = {"_target_": "class", "_partial_": None}
    named = {targets.get(key, key): without_targets(value) for key, value in values.items()}
    named.pop(None, None)
    if "class" in named:
        named["class"] = named["class"].rpartition(".")[2]
    return named


def shipped_losses(model: DictConfig) -> dict[str, Loss]:
    """The losses of configs/loss, made for a network, by name."""
    return {
        name: instantiate(
            OmegaConf.create({"model": model, "loss": shipped_values("loss", name)}).loss
        )
        for name in shipped_names("loss")
    }


def open_data(settings: Settings, face: Face, processes: Processes) -> TrainingData:
    """The stream, or the built sets, of which the default one is made from the archive if it is
    not there yet.

    Raises:
        FileNotFoundError, ValueError: a set is missing, or is not what it should be.
    """
    if settings.stream is not None:
        return SyntheticSets(settings.stream, settings.protocol.demands(network=True).crop)
    directories = settings.built
    if directories is None:
        default = Path("data/built") / settings.dataset
        build = functools.partial(
            build_archive,
            settings.subsets,
            data_dir=settings.data_dir,
            output=default,
            face_files=settings.face,
            options=BuildOptions(settings.dataset),
            workers=num_workers("auto"),
        )
        processes.after_first(build, default.parent)
        directories = [default]
    return TrainingSets(
        directories,
        ratios=settings.built_ratios,
        validation_fraction=settings.validation_fraction,
        face=face.describe(),
        hide_fits=settings.hide_fits,
        landmark_images=settings.landmark_images,
        landmarks=settings.landmarks,
    )


def load_start(settings: Settings, run_dir: Path, processes: Processes) -> dict | None:
    """Copy the weights of init= or resume= into the network; `training` of the latter.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint` and `load_weights`, or resume= names a
            file of weights alone.
    """
    path = settings.init or settings.resume
    if path is None:
        return None
    checkpoint = load_checkpoint(path)
    if settings.resume is not None and "training" not in checkpoint:
        raise ValueError(f"{path}: weights only; resume takes a last.pt, init takes this")
    if settings.resume is not None:
        for key, kind in (("step", int), ("order", dict), ("optimizer", dict), ("best", float)):
            take(checkpoint["training"], key, kind, f"{path}: training")
    source = describe_source(path, checkpoint)
    load_weights(settings.network, checkpoint["weights"], source=source)
    if settings.resume is None:
        return None
    if processes.is_first:
        keep_best(Path(path), run_dir)
    return checkpoint["training"]


def run(settings: Settings, run_dir: Path) -> Ending:
    """Open the data, give network and loss what they need of it, and train.

    Raises:
        FileNotFoundError, ValueError: a file is missing or is not what it should be, or the loss
            cannot learn from samples without a fit.
        FloatingPointError: as `train`.
    """
    model, loss_fn, plan, rule = settings.network, settings.loss_fn, settings.plan, settings.rule
    processes = join_processes(settings.device)
    device = processes.device
    prepare_card(device, precision=plan.precision, deterministic=plan.deterministic)
    run_dir = processes.of_first(run_dir)
    if settings.built is None:
        require_archives(settings.dataset, settings.face, data_dir=settings.data_dir)
    face = settings.face.load()
    description = face.describe()
    data = open_data(settings, face, processes)
    log.info("%d training samples, run directory %s", len(data), run_dir)
    if data.unfitted and "landmarks" not in loss_fn.targets:
        raise ValueError(
            f"loss: learns from fits alone, and {data.unfitted} training samples have none; choose "
            "loss=2dasl, or leave out hide_fits and the sets of landmarks"
        )
    resume = load_start(settings, run_dir, processes)
    header = {
        "model": settings.model,
        "face": description,
        "pixel_origin": data.pixel_origin,
        "experiment": settings.name,
    }

    face = face.to(device)
    model.set_face(face)
    loss_fn.to(device).set_face(face)
    if model.needs_statistics:
        if settings.init is None and resume is None:
            model.set_statistics(*parameter_statistics(data, model, face, rule))
        loss_fn.set_statistics(model.parameter_mean, model.parameter_std)
    decoder = target_decoder(loss_fn, face)
    workers = loader_workers(
        plan.num_workers, device, renders=data.renders, processes=processes.local_size
    )
    if data.renders and device.type == "cpu" and workers:
        # Threads beyond the cores left would wait for the renderers' and be waited for.
        torch.set_num_threads(max(1, num_workers("auto") // processes.local_size - workers))
    plan = plan._replace(num_workers=workers)
    validate = held_out_validation(data, face, decoder, settings.protocol, plan, processes)
    if data.renders and workers:
        log.info(
            "%d processes render; compiling the renderer, the first time, takes them minutes",
            workers,
        )
    ending = train(
        model,
        loss_fn,
        data,
        decoder,
        plan=plan,
        rule=rule,
        schedule=settings.schedule,
        processes=processes,
        run_dir=run_dir,
        header=header,
        validate=validate,
        resume=resume,
        settings=settings.decisive
        | {"model": settings.model, "data": data.describe(), "pixel_origin": data.pixel_origin}
        | {"face": description},
    )
    processes.leave()
    return ending


def next_command(settings: Settings, best: Path, overrides: Sequence[str]) -> str:
    """What scores best.pt: on the faces that it was chosen by where they are rendered, which the
    `overrides` of its training may have changed, else on AFLW2000-3D."""
    words = [f"checkpoint={best}"]
    kept = ("protocol", "data_dir", "face.", "device")
    if any(word.startswith("data_dir=") for word in overrides):
        kept += ("face=",)  # of the fits there; the checkpoint knows its own
    if settings.stream is None:
        words.append("dataset=aflw2000")
    else:
        kept += ("dataset.",)
    if settings.network.landmark_map == "given":
        words.append("landmarks=FILE")
    ignored = ("dataset.size=", "dataset.samples_per_epoch=")  # of the stream alone
    words += [word for word in overrides if word.startswith(kept) and not word.startswith(ignored)]
    return shlex.join(["python", "-m", "prnet.eval", *words])


def main(cfg: DictConfig) -> None:
    """The command."""
    settings, run_dir = read_settings(cfg), run_folder()
    ending = run(settings, run_dir)
    if ending.signal:
        sys.exit(128 + ending.signal)
    if int(os.environ.get("RANK", "0")) == 0:
        best = run_dir / "best.pt"
        score = f" ({SCORE}, mean of all: {ending.best:.3f} %)" if ending.best < math.inf else ""
        log.info("best weights: %s%s; score them:", best, score)
        log.info("  %s", next_command(settings, best, HydraConfig.get().overrides.task))
