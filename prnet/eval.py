"""`python -m prnet.eval`: a network, or saved predictions, against the truth of a test set."""

import logging
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from prnet.checkpoint import describe_source
from prnet.datasets.benchmarks import BENCHMARKS, NO_FITS, log_notes
from prnet.datasets.evaluation import evaluation_loader
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.occluders import OCCLUDERS, ImageOccluder
from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.predictions import find_topology
from prnet.datasets.test_sets import TEST_SETS, own_protocol, saved_samples, test_samples
from prnet.drawing.gallery import Gallery
from prnet.entry import CONFIG_DIR, loader_workers, num_workers, one_line_errors, resolve_device
from prnet.evaluation.evaluate import evaluate_model, evaluate_predictions
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.reconstructions import workers_for
from prnet.evaluation.report import name_list, require_json_name, table, write_report
from prnet.evaluation.summaries import with_statistics
from prnet.faces.face import Face
from prnet.faces.loading import FACES, FaceFiles, load_face
from prnet.models.loading import load_model, require_same_face
from prnet.models.network import Network
from prnet.models.network_size import network_size

log = logging.getLogger(__name__)


def newest_checkpoint() -> Path:
    """The newest best.pt under outputs/ of the current folder.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(Path("outputs").glob("*/*/best.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            "nothing to score: no outputs/*/*/best.pt here. Train a network with "
            "`python -m prnet.train`, or give checkpoint=FILE.pt or predictions=DIR"
        )
    return found[-1]


def evaluate(cfg: DictConfig, run_dir: Path) -> dict:
    """What the configuration asks for: score, log, write; returns the report.

    Raises:
        ValueError, FileNotFoundError: an option, or a file it names, is not what it should be.
    """
    protocol = Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))
    if cfg.dataset.name not in TEST_SETS:
        raise ValueError(f"dataset: got {cfg.dataset.name!r}; eval scores {' or '.join(TEST_SETS)}")
    protocol = own_protocol(protocol, cfg.dataset.name)
    if cfg.dataset.get("subsets") is not None:
        raise ValueError("dataset.subsets: AFLW2000-3D has no sub-folders; leave it out")
    if cfg.checkpoint is not None and cfg.predictions is not None:
        raise ValueError("give checkpoint= or predictions=, not both")
    if cfg.predictions is not None and cfg.save_predictions is not None:
        raise ValueError("save_predictions= goes with a checkpoint; these are saved already")
    report_file = require_json_name(cfg.report or run_dir / "report.json")
    device = resolve_device(cfg.device)
    if cfg.predictions is None:
        report = score_checkpoint(cfg, protocol, device, report_file)
    else:
        report = score_saved(
            cfg, protocol, device, predictions=cfg.predictions, truth_face=truth_face_of(cfg)
        )
    report = with_statistics(report)
    if cfg.experiment_name is not None:
        report["experiment"] = cfg.experiment_name

    log.info("protocol %s: %s", protocol.name, report["protocol"])
    log.info("%s: %d images scored", report["source"], report["count"])
    if report["metrics"]:
        log.info("\n%s", table(report))
    for metric, reason in report["not_computed"].items():
        log.warning("%s not computed: %s", metric, reason)
    if report["missing"]:
        log.warning("images without a prediction: %s", name_list(report["missing"]))
    if report["unknown"]:
        log.warning("predictions without an image: %s", name_list(report["unknown"]))
    log.info("written: %s", ", ".join(str(path) for path in write_report(report, report_file)))
    return report


def truth_face_of(cfg: DictConfig) -> tuple[Face | None, str]:
    """The face of the data set's fits, or None and why it is not there."""
    try:
        return FaceFiles(**cfg.face).load(), ""
    except FileNotFoundError as error:
        return None, f"the truth cannot be made from the fits: {error}"


def network_face(
    cfg: DictConfig, checkpoint: dict, truth_face: Face | None, *, source: object
) -> Face:
    """The face a network was trained for: the data set's own, or another that the checkpoint names.

    Raises:
        ValueError: the face of that name is not the one the network was trained for.
        FileNotFoundError: a file of the BFM is missing.
    """
    name = (checkpoint.get("face") or {}).get("name", cfg.face.name)
    if name not in FACES:
        raise ValueError(f"{source}: of a face {name!r}, expected one of {', '.join(FACES)}")
    if name == cfg.face.name:
        face = truth_face or FaceFiles(**cfg.face).load()
    else:
        data_dir = Path(cfg.data_dir)
        face = load_face(name, bfm_dir=data_dir / "BFM", prnet_uv_dir=data_dir / "PRNet_uv")
    require_same_face(checkpoint, face, source=source)
    return face


def occluder_of(cfg: DictConfig) -> ImageOccluder | None:
    """What the configuration lays over the images.

    Raises:
        ValueError: dataset.occlusion is none of its choices.
    """
    choice = cfg.dataset.get("occlusion", "none")
    if choice not in ("none", *OCCLUDERS):
        raise ValueError(
            f"dataset.occlusion: got {choice!r}, expected one of none, {', '.join(OCCLUDERS)}"
        )
    return None if choice == "none" else ImageOccluder(choice)


def landmarks_given(cfg: DictConfig, model: Network) -> GivenLandmarks | None:
    """Set where the landmark map of a network that has one (2DASL) comes from; the landmarks it is
    given.

    Raises:
        FileNotFoundError, ValueError: the landmarks are not to be had, or the network takes none.
    """
    source = cfg.landmark_map or ("given" if cfg.landmarks is not None else None)
    if source is None:
        return None
    model.choose_landmark_map(source)
    if (source == "given") != (cfg.landmarks is not None):
        raise ValueError("landmark_map=given and landmarks=FILE or DIR go together")
    return None if cfg.landmarks is None else GivenLandmarks(cfg.landmarks)


def score_checkpoint(
    cfg: DictConfig, protocol: Protocol, device: torch.device, report_file: Path
) -> dict:
    """The report of the network that the configuration names, or of the newest, and beside it a
    picture of what it made of some images."""
    path = newest_checkpoint() if cfg.checkpoint is None else Path(cfg.checkpoint)
    log.info("checkpoint: %s", path)
    model, checkpoint = load_model(path)
    given = landmarks_given(cfg, model)
    truth_face, no_face = None, NO_FITS
    if cfg.dataset.name not in BENCHMARKS:
        truth_face, no_face = truth_face_of(cfg)
    face = network_face(cfg, checkpoint, truth_face, source=path)
    samples, yaw_labels = test_samples(cfg, protocol, truth_face)
    occluder = occluder_of(cfg)
    model.set_face(face.to(device))
    gallery = Gallery(face.to(device))
    report = evaluate_model(
        model.to(device, memory_format=torch.channels_last),
        evaluation_loader(
            samples,
            batch_size=cfg.batch_size,
            num_workers=loader_workers(cfg.num_workers, device),
            pin_memory=device.type == "cuda",
        ),
        face=face.to(device),
        truth_face=None if truth_face is None else truth_face.to(device),
        no_face=no_face,
        protocol=protocol,
        dataset=cfg.dataset.name + ("" if occluder is None else f"_{occluder.occluder}_occluders"),
        source=f"checkpoint {describe_source(path, checkpoint)}",
        yaw_labels=yaw_labels,
        pixel_origin=checkpoint.get("pixel_origin", "zero_based"),
        precision=cfg.precision,
        save_predictions=cfg.save_predictions,
        gallery=gallery,
        occluder=occluder,
        given=given,
        point_groups=getattr(samples, "point_groups", None),
        workers=workers_for(len(samples), num_workers(cfg.num_workers)),
    )
    report["experiment"] = checkpoint.get("experiment")
    report["network"] = network_size(model, torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device))
    log_notes(report, samples)
    faces_file = report_file.with_name(f"{report_file.stem}_faces.png")
    gallery.write(faces_file)
    log.info("look at %s: the first images, and the worst", faces_file)
    return report


def score_saved(
    cfg: DictConfig,
    protocol: Protocol,
    device: torch.device,
    *,
    predictions: Path | str,
    truth_face: tuple[Face | None, str],
) -> dict:
    """The report of a folder of predictions; `truth_face` as `truth_face_of` has it.

    Raises:
        ValueError: dataset.occlusion is asked for, or no prediction is of one of the images.
    """
    if cfg.dataset.get("occlusion", "none") != "none":
        raise ValueError(
            f"dataset.occlusion={cfg.dataset.occlusion}: covers the images that a network is "
            "given, and predictions= are made already; leave one of the two out"
        )
    face, no_face = truth_face
    samples, known, yaw_labels, found = saved_samples(cfg, protocol, face, predictions)
    if not len(samples):
        raise ValueError(
            f"{predictions}: none of its {len(found)} predictions "
            f"({name_list(found)}) is of one of the {len(known)} images ({name_list(known)})"
        )
    report = evaluate_predictions(
        found,
        evaluation_loader(
            samples,
            batch_size=cfg.batch_size,
            num_workers=loader_workers(cfg.num_workers, device),
            pin_memory=device.type == "cuda",
        ),
        face=None if face is None else face.to(device),
        topology=find_topology(face, cfg.face.get("prnet_uv_dir")),
        protocol=protocol,
        dataset=cfg.dataset.name,
        source=f"predictions {predictions}",
        missing=known - found.keys(),
        unknown=found.keys() - known - set(protocol.exclude),
        no_face=no_face,
        yaw_labels=yaw_labels,
        device=device,
        point_groups=getattr(samples, "point_groups", None),
        workers=workers_for(len(samples), num_workers(cfg.num_workers)),
    )
    log_notes(report, samples)
    return report


@hydra.main(config_path=CONFIG_DIR, config_name="eval", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
