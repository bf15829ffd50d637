"""`python -m prnet.eval`: a network, or saved predictions, against the truth of a test set."""

import logging
from pathlib import Path
from typing import NamedTuple

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from prnet.checkpoint import describe_source
from prnet.checks import name_list, require_choice
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.occluders import OCCLUDERS, ImageOccluder
from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.predictions import find_topology
from prnet.datasets.test_sets import TEST_SETS, SetChoice
from prnet.drawing.gallery import Gallery
from prnet.entry import CONFIG_DIR, loader_workers, num_workers, one_line_errors, resolve_device
from prnet.evaluation.evaluate import EvaluationOptions, evaluate
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.report import Report, with_statistics
from prnet.evaluation.sources import NetworkSource, PredictionSource
from prnet.faces.face import Face
from prnet.faces.loading import FACES, FaceFiles, load_face
from prnet.models.loading import load_model, require_same_face
from prnet.models.network import Network
from prnet.models.network_size import network_size
from prnet.reports.writing import require_json_name, table, write_report

log = logging.getLogger(__name__)


class Choices(NamedTuple):
    """What the configuration asks for."""

    protocol: Protocol
    dataset: SetChoice
    checkpoint: Path | None  # None: the newest, where no predictions are scored
    predictions: str | None
    save_predictions: str | None
    landmark_map: str | None
    landmarks: str | None
    occluder: ImageOccluder | None
    precision: str
    device: torch.device
    options: EvaluationOptions
    report_file: Path
    experiment_name: str | None


def read_choices(cfg: DictConfig, run_dir: Path) -> Choices:
    """The configuration as plain values.

    Raises:
        ValueError: an option is not what it should be, or contradicts another.
    """
    protocol = Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))
    options = OmegaConf.to_container(cfg.dataset, resolve=True)
    dataset = SetChoice(cfg.dataset.name, options, cfg.data_dir, FaceFiles(**cfg.face))
    if cfg.checkpoint is not None and cfg.predictions is not None:
        raise ValueError("give checkpoint= or predictions=, not both")
    if cfg.predictions is not None and cfg.save_predictions is not None:
        raise ValueError("save_predictions= goes with a checkpoint; these are saved already")
    dataset.require(protocol.demands(network=cfg.predictions is None))
    device = resolve_device(cfg.device)
    return Choices(
        protocol=protocol,
        dataset=dataset,
        checkpoint=None if cfg.checkpoint is None else Path(cfg.checkpoint),
        predictions=cfg.predictions,
        save_predictions=cfg.save_predictions,
        landmark_map=cfg.landmark_map,
        landmarks=cfg.landmarks,
        occluder=occluder_named(dataset.occlusion),
        precision=cfg.precision,
        device=device,
        options=EvaluationOptions(
            batch_size=cfg.batch_size,
            num_workers=loader_workers(cfg.num_workers, device),
            cores=num_workers(cfg.num_workers),
        ),
        report_file=require_json_name(cfg.report or run_dir / "report.json"),
        experiment_name=cfg.experiment_name,
    )


def occluder_named(choice: str) -> ImageOccluder | None:
    """What is laid over the images.

    Raises:
        ValueError: none of the choices of dataset.occlusion.
    """
    require_choice("dataset.occlusion", choice, ("none", *OCCLUDERS))
    return None if choice == "none" else ImageOccluder(choice)


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


def network_face(
    choices: Choices, checkpoint: dict, truth_face: Face | None, *, source: object
) -> Face:
    """The face a network was trained for: the data set's own, or another that the checkpoint names.

    Raises:
        ValueError: the face of that name is not the one the network was trained for.
        FileNotFoundError: a file of the BFM is missing.
    """
    name = (checkpoint.get("face") or {}).get("name", choices.dataset.face_files.name)
    require_choice(f"{source}: face", name, FACES)
    if name == choices.dataset.face_files.name:
        face = truth_face or choices.dataset.face_files.load()
    else:
        data_dir = Path(choices.dataset.data_dir)
        face = load_face(name, bfm_dir=data_dir / "BFM", prnet_uv_dir=data_dir / "PRNet_uv")
    require_same_face(checkpoint, face, source=source)
    return face


def landmarks_given(choices: Choices, model: Network) -> GivenLandmarks | None:
    """Tell a network that takes landmarks (2DASL) where they come from; those that it is given.

    Raises:
        FileNotFoundError, ValueError: there are no such landmarks, or the network takes none.
    """
    landmarks = choices.landmarks
    source = choices.landmark_map or ("given" if landmarks is not None else None)
    if source is None:
        return None
    if (source == "given") != (landmarks is not None):
        raise ValueError("landmark_map=given and landmarks=FILE or DIR go together")
    model.choose_landmark_map(source)
    return None if landmarks is None else GivenLandmarks(landmarks)


def score_checkpoint(choices: Choices) -> Report:
    """The report of the network that is asked for, or of the newest, and beside it a picture of
    what it made of some images."""
    path = newest_checkpoint() if choices.checkpoint is None else choices.checkpoint
    log.info("checkpoint: %s", path)
    model, checkpoint = load_model(path)
    given = landmarks_given(choices, model)
    truth_face, no_face = None, ""
    if TEST_SETS[choices.dataset.name].has_fits:
        truth_face, no_face = choices.dataset.truth_face()
    face = network_face(choices, checkpoint, truth_face, source=path)
    demands = choices.protocol.demands(network=True)
    test_set = choices.dataset.open(demands, truth_face, no_face)
    device = choices.device
    face = face.to(device)
    model.set_face(face)
    source = NetworkSource(
        model.to(device, memory_format=torch.channels_last),
        face,
        description=f"checkpoint {describe_source(path, checkpoint)}",
        pixel_origin=checkpoint.get("pixel_origin", "zero_based"),
        precision=choices.precision,
        occluder=choices.occluder,
        given=given,
        save_to=choices.save_predictions,
    )
    gallery = Gallery(face)
    options = choices.options._replace(gallery=gallery)
    report = evaluate(source, test_set, choices.protocol, options)
    report["experiment"] = checkpoint.get("experiment")
    report["network"] = network_size(model, torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device))
    faces_file = choices.report_file.with_name(f"{choices.report_file.stem}_faces.png")
    gallery.write(faces_file)
    log.info("look at %s: the first images, and the worst", faces_file)
    return report


def score_predictions(choices: Choices) -> Report:
    """The report of the folder of predictions that is asked for."""
    face, no_face = choices.dataset.truth_face()
    demands = choices.protocol.demands(network=False)
    test_set = choices.dataset.open(demands, face, no_face)
    source = PredictionSource(
        choices.predictions,
        face,
        no_face=no_face,
        topology=find_topology(face, choices.dataset.face_files.prnet_uv_dir),
        device=choices.device,
    )
    return evaluate(source, test_set, choices.protocol, choices.options)


def run_evaluation(cfg: DictConfig, run_dir: Path) -> Report:
    """What the configuration asks for: score, log, write; returns the report.

    Raises:
        ValueError, FileNotFoundError: an option, or a file it names, is not what it should be.
    """
    choices = read_choices(cfg, run_dir)
    score = score_checkpoint if choices.predictions is None else score_predictions
    report = with_statistics(score(choices))
    if choices.experiment_name is not None:
        report["experiment"] = choices.experiment_name

    log.info("protocol %s: %s", choices.protocol.name, report["protocol"])
    log.info("%s: %d images scored", report["source"], report["count"])
    if report["metrics"]:
        log.info("\n%s", table(report))
    for metric, reason in report["not_computed"].items():
        log.warning("%s not computed: %s", metric, reason)
    if report.get("undetected"):
        log.warning("faces that the detector missed: %s", name_list(report["undetected"]))
    if report["missing"]:
        log.warning("images without a prediction: %s", name_list(report["missing"]))
    if report["unknown"]:
        log.warning("predictions without an image: %s", name_list(report["unknown"]))
    written = write_report(report, choices.report_file)
    log.info("written: %s", ", ".join(map(str, written)))
    return report


@hydra.main(config_path=CONFIG_DIR, config_name="eval", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    run_evaluation(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
