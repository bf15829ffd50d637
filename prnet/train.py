"""`python -m prnet.train`: from a configuration to a run of `prnet.training.loop.train`."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, distributed, nn

from prnet.building.archives import build_archive, require_archives
from prnet.building.parts import BuildOptions
from prnet.checkpoint import describe_source, load_checkpoint, load_weights
from prnet.datasets.augment import AugmentRule, draw_similarity
from prnet.datasets.evaluation import Joined
from prnet.datasets.synthetic import SyntheticRule, SyntheticSets
from prnet.datasets.training_sets import TrainingSets
from prnet.datasets.warp import make_sample
from prnet.drawing.pictures import draw_landmarks, draw_map_error, draw_mesh, tile, to_picture
from prnet.entry import CONFIG_DIR, loader_workers, num_workers, one_line_errors, resolve_device
from prnet.evaluation.evaluate import EvaluationOptions, evaluate, give_face
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.sources import NetworkSource, evaluation_mode
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.files import written_whole
from prnet.geometry.pose_parameters import FitParameters
from prnet.geometry.position_map import PositionMapDecoder
from prnet.models.regressor import Regressor
from prnet.sample import FitBatch
from prnet.training.loop import Plan, Validation, World, train

log = logging.getLogger(__name__)

# Held-out samples of each set that the validation panel shows.
SHOWN_SAMPLES = 4
# Samples that the whitening of a regressor's parameters is computed from.
STATISTICS_SAMPLES = 4096


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
    if directories is None and cfg.dataset.name == "landmarks_only":
        raise ValueError(
            "dataset=landmarks_only: landmarks alone teach no parameters; build the set with "
            "prnet.build, then give built=[SET_WITH_FITS, THIS_ONE]"
        )
    if directories is None and cfg.dataset.name == "synthetic":
        if cfg.hide_fits or cfg.landmark_images is not None:
            raise ValueError("hide_fits and landmark_images are for built sets; freeze a world")
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
        hide_fits=cfg.hide_fits,
        landmark_images=cfg.landmark_images,
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
    unfitted = 0 if isinstance(sets, SyntheticSets) else int((~sets.fitted).sum())

    model = instantiate(cfg.model.network)
    loss_fn = instantiate(cfg.loss, uv=face.uv).to(world.device)
    if unfitted and "landmarks" not in loss_fn.targets:
        raise ValueError(
            f"loss: learns from fits alone, and {unfitted} training samples have none; choose "
            "loss=2dasl, or leave out hide_fits and the sets of landmarks"
        )
    header = {
        "model": {"name": cfg.model.name, **plain_values(cfg.model.network)},
        "face": face.describe(),
        "pixel_origin": sets.pixel_origin,
        "experiment": cfg.name,
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
    give_face(model, face)
    give_face(loss_fn, face)
    rule = AugmentRule(**OmegaConf.to_container(cfg.augment))
    if hasattr(model, "set_statistics"):
        if cfg.init is None and resume is None:
            model.set_statistics(*parameter_statistics(sets, model, face, rule))
        loss_fn.set_statistics(model.parameter_mean, model.parameter_std)
    texels = "all" if loss_fn.weighs_outside else "face"
    decoder = PositionMapDecoder(
        face.morphable_model, face.uv, texels=texels, landmark_index=face.landmark_index
    ).to(world.device)
    settings, optimizer = map(OmegaConf.to_container, (cfg.trainer, cfg.optimizer))
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
        plan=Plan(optimizer=optimizer.pop("name"), **optimizer, **settings, seed=cfg.seed),
        rule=rule,
        schedule=instantiate(cfg.scheduler),
        world=world,
        run_dir=run_dir,
        header=header,
        validate=make_validate(cfg, sets, face, decoder, world.device) if world.rank == 0 else None,
        resume=resume,
    )
    if world.size > 1:
        distributed.destroy_process_group()


def parameter_statistics(
    sets: TrainingSets | SyntheticSets, model: Regressor, face: Face, rule: AugmentRule
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a regressor's parameters over augmented training samples."""
    fits = sets.posed_fits(STATISTICS_SAMPLES)
    generator = torch.Generator().manual_seed(0)
    moved, mirrored = draw_similarity(len(fits.mirrored), rule, generator)
    fits = fits._replace(crop_from_model=moved @ fits.crop_from_model, mirrored=mirrored)
    truncated = face.morphable_model.truncated(model.num_shape, model.num_exp)
    parameters = FitParameters(truncated, face.mirror_index).cpu()(fits).double()
    std, mean = torch.std_mean(parameters, dim=0)
    return mean.float(), std.float()


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
    test_set = (Joined(sets.validation) if others else first).with_truth_face(face)
    options = EvaluationOptions(batch_size=cfg.trainer.batch_size, progress=False)
    shown = sets.shown(SHOWN_SAMPLES)

    def validate(model: nn.Module) -> Validation:
        source = NetworkSource(
            model,
            face,
            description="the network in training",
            precision=cfg.trainer.precision,
        )
        report = evaluate(source, test_set, protocol, options)
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
