"""`python -m prnet.eval`: a network, or saved predictions, against the truth of a test set."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("eval")  # ends here: options are read before what follows is imported

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from prnet.checkpoint import checkpoint_digest, describe_source
from prnet.checks import name_list, require_choice, require_count
from prnet.datasets.evaluation import Demands
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.occluders import OCCLUDERS, ImageOccluder
from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.predictions import find_topology
from prnet.datasets.test_sets import TEST_SETS, SetChoice
from prnet.detection.framing import Framing
from prnet.drawing.gallery import Gallery
from prnet.entry import (
    loader_workers,
    made_now,
    num_workers,
    resolve_device,
    run_folder,
    shipped,
)
from prnet.evaluation.evaluate import EvaluationOptions, evaluate
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.report import Report, with_statistics
from prnet.evaluation.sources import PRECISIONS, NetworkSource, PredictionSource
from prnet.export.runtime import PACKAGES, choose_runtime
from prnet.faces.face import Face
from prnet.faces.loading import FACES, FaceFiles, load_face
from prnet.models.loading import load_model, require_same_face
from prnet.models.network import Network
from prnet.models.network_size import latency_ms, network_size
from prnet.reconstruction.reconstructor import Reconstructor
from prnet.reports.shipped import Shipped
from prnet.reports.text import plain_table
from prnet.reports.writing import require_json_name, result_text, write_report

log = logging.getLogger(__name__)


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
    unfinished = sorted(Path("outputs").glob("*/*/last.pt"))
    if not found and unfinished:
        raise FileNotFoundError(
            f"nothing to score: no outputs/*/*/best.pt yet, only {unfinished[-1]}; let the run "
            "validate once, or give checkpoint= that file"
        )
    if not found:
        raise FileNotFoundError(
            "nothing to score: no outputs/*/*/best.pt here. Train a network with "
            "`python -m prnet.train`, or give checkpoint=FILE.pt or predictions=DIR"
        )
    newer = [path for path in unfinished if not path.with_name("best.pt").is_file()]
    newer = [path for path in newer if path.stat().st_mtime > found[-1].stat().st_mtime]
    if newer:
        log.warning(
            "%s is newer, of a run without a best.pt yet; to score it give checkpoint= that file",
            max(newer, key=lambda path: path.stat().st_mtime),
        )
    return found[-1]


def network_face(
    dataset: SetChoice, checkpoint: dict, truth_face: Face | None, *, source: object
) -> Face:
    """The face a network was trained for: the data set's own, or another that the checkpoint names.

    Raises:
        ValueError: the face of that name is not the one the network was trained for.
        FileNotFoundError: a file of the BFM is missing.
    """
    name = (checkpoint.get("face") or {}).get("name", dataset.face_files.name)
    require_choice(f"{source}: face", name, FACES)
    if name == dataset.face_files.name:
        face = truth_face or dataset.face_files.load()
    else:
        data_dir = Path(dataset.data_dir)
        face = load_face(name, bfm_dir=data_dir / "BFM", prnet_uv_dir=data_dir / "PRNet_uv")
    require_same_face(checkpoint, face, source=source)
    return face


def landmarks_given(cfg: DictConfig, model: Network) -> GivenLandmarks | None:
    """Tell a network that takes landmarks (2DASL) where they come from; those that it is given.

    Raises:
        FileNotFoundError, ValueError: there are no such landmarks, or the network takes none.
    """
    source = cfg.landmark_map or (None if cfg.landmarks is None else "given")
    if source is None:
        return None
    if (source == "given") != (cfg.landmarks is not None):
        raise ValueError("landmark_map=given and landmarks=FILE or DIR go together")
    model.choose_landmark_map(source)
    return None if cfg.landmarks is None else GivenLandmarks(cfg.landmarks)


class OpenedNetwork(NamedTuple):
    """The network that is scored, ready to run."""

    path: Path | str  # of its checkpoint
    checkpoint: dict
    model: Network
    face: Face  # its own, on its device
    truth_face: Face | None  # of the fits of the data set; None: it has none, or
    no_face: str  # why they cannot be decoded
    given: GivenLandmarks | None
    facts: dict  # what a report says of it

    @property
    def pixel_origin(self) -> str:
        return self.checkpoint.get("pixel_origin", "zero_based")


def open_network(cfg: DictConfig, dataset: SetChoice, device: torch.device) -> OpenedNetwork:
    """The network that is asked for, or the newest."""
    path = newest_checkpoint() if cfg.checkpoint is None else cfg.checkpoint
    log.info("checkpoint: %s", path)
    model, checkpoint = load_model(path)
    given = landmarks_given(cfg, model)
    truth_face, no_face = None, ""
    if TEST_SETS[dataset.name].has_fits:
        truth_face, no_face = dataset.truth_face()
    face = network_face(dataset, checkpoint, truth_face, source=path).to(device)
    model.set_face(face)
    model.to(device, memory_format=torch.channels_last)
    crop = torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device)
    size = network_size(model, crop)
    if cfg.precision != "fp32" and cfg.runtime in PACKAGES:
        raise ValueError(f"runtime={cfg.runtime} computes in fp32; choose runtime=torch")
    runtime = cfg.runtime if cfg.precision == "fp32" else "torch"
    runtime = choose_runtime(model, face, checkpoint, runtime, device)
    log.info("runtime: %s", runtime)
    if cfg.latency:
        with torch.autocast(device.type, torch.bfloat16, enabled=cfg.precision == "bf16"):
            size["latency_ms"] = latency_ms(model, crop)
    facts = {
        "experiment": checkpoint.get("experiment"),
        "made": {"checkpoint": {"file": str(path), "sha256": checkpoint_digest(path)}},
        "network": size,
        "runtime": runtime,
    }
    return OpenedNetwork(path, checkpoint, model, face, truth_face, no_face, given, facts)


def with_finder(
    demands: Demands, network: OpenedNetwork, protocol: Protocol, device: torch.device
) -> Demands:
    """The same, with what finds the faces of a picture where the protocol has them detected."""
    if protocol.crop.source != "detector":
        return demands
    if network.given is not None:
        raise ValueError(
            "protocol.crop.source=detector runs the network before it has landmarks; choose "
            "landmark_map=own, or protocol.crop.source=landmarks"
        )
    reconstructor = Reconstructor(
        network.model,
        network.face,
        crop_scale=protocol.crop.scale,
        pixel_origin=network.pixel_origin,
        device=device,
    )

    def find(picture: np.ndarray) -> list[tuple[Framing, ...]]:
        return [(*one.earlier_framings, one.framing) for one in reconstructor(picture)]

    return demands._replace(finder=find)


def score_checkpoint(
    cfg: DictConfig,
    protocol: Protocol,
    dataset: SetChoice,
    device: torch.device,
    options: EvaluationOptions,
) -> tuple[Report, Gallery]:
    """The report of a network, and what it made of some images."""
    occluder = occluder_named(dataset.occlusion)
    network = open_network(cfg, dataset, device)
    demands = with_finder(protocol.demands(network=True), network, protocol, device)
    test_set = dataset.open(demands, network.truth_face, network.no_face)
    source = NetworkSource(
        network.model,
        network.face,
        description=f"checkpoint {describe_source(network.path, network.checkpoint)}",
        pixel_origin=network.pixel_origin,
        precision=cfg.precision,
        occluder=occluder,
        given=network.given,
        save_to=cfg.save_predictions,
    )
    gallery = Gallery(network.face, test_set.truth_face)
    report = evaluate(source, test_set, protocol, options._replace(gallery=gallery))
    return report | network.facts, gallery


def score_predictions(
    directory: str,
    protocol: Protocol,
    dataset: SetChoice,
    device: torch.device,
    options: EvaluationOptions,
) -> Report:
    """The report of a folder of predictions."""
    face, no_face = dataset.truth_face()
    test_set = dataset.open(protocol.demands(network=False), face, no_face)
    topology = find_topology(face, dataset.face_files.prnet_uv_dir)
    source = PredictionSource(directory, face, no_face=no_face, topology=topology, device=device)
    return evaluate(source, test_set, protocol, options)


def run_evaluation(cfg: DictConfig, run_dir: Path, verb: str | None = None) -> Report:
    """What the configuration asks for: score, log, write; returns the report, with the command
    line where it was made by this `verb`.

    Raises:
        ValueError, FileNotFoundError: an option, or a file it names, is not what it should be, or
            two options contradict each other.
    """
    protocol = Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))
    set_options = OmegaConf.to_container(cfg.dataset, resolve=True)
    dataset = SetChoice(cfg.dataset.name, set_options, cfg.data_dir, FaceFiles(**cfg.face))
    if cfg.checkpoint is not None and cfg.predictions is not None:
        raise ValueError("give checkpoint= or predictions=, not both")
    if cfg.predictions is not None and cfg.save_predictions is not None:
        raise ValueError("save_predictions= goes with a checkpoint; these are saved already")
    dataset.require(protocol.demands(network=cfg.predictions is None))
    report_file = require_json_name(cfg.report or run_dir / "report.json")
    require_count("batch_size", cfg.batch_size)
    require_choice("precision", cfg.precision, PRECISIONS)
    device = resolve_device(cfg.device)
    # Finding faces takes the network, which stays in this process.
    detects = protocol.crop.source == "detector"
    options = EvaluationOptions(
        batch_size=cfg.batch_size,
        num_workers=0 if detects else loader_workers(cfg.num_workers, device),
        cores=num_workers(cfg.num_workers),
    )

    if cfg.predictions is None:
        report, gallery = score_checkpoint(cfg, protocol, dataset, device, options)
        faces_file = report_file.with_name(f"{report_file.stem}_faces.png")
        log.info("drawing %s", faces_file)
        gallery.write(faces_file)
        log.info("look at %s: the first images, and the worst", faces_file)
    else:
        report = score_predictions(cfg.predictions, protocol, dataset, device, options)
    report = with_statistics(report)
    report["made"] = {**made_now(verb), **report.get("made", {})}
    if cfg.experiment_name is not None:
        report["experiment"] = cfg.experiment_name

    words = Shipped(**shipped()).protocol_words(report["protocol"])
    log.info("%s, protocol %s: %d images", report["dataset"], words, report["count"])
    for hint in report.get("hints", ()):
        log.warning("%s", hint)
    if report["metrics"]:
        log.info("%s\n\n%s\n", report["source"], result_text(report, plain_table))
    for reason in dict.fromkeys(report["not_computed"].values()):
        lacking = [metric for metric, why in report["not_computed"].items() if why == reason]
        log.warning("%s not computed: %s", ", ".join(lacking), reason)
    if why := report.get("parts", {}).get("not_computed"):
        log.warning("parts not computed: %s", why)
    if report.get("undetected"):
        log.warning("faces that the detector missed: %s", name_list(report["undetected"]))
    if report["missing"]:
        log.warning("images without a prediction: %s", name_list(report["missing"]))
    if report["unknown"]:
        log.warning("predictions without an image: %s", name_list(report["unknown"]))
    written = write_report(report, report_file)
    log.info("written: %s", ", ".join(map(str, written)))
    return report


def main(cfg: DictConfig) -> None:
    report = run_evaluation(cfg, run_folder(), "prnet.eval")
    if not report["metrics"]:
        raise ValueError("no metric of the protocol could be computed; the warnings say why")
