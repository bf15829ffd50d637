"""The test sets of `prnet.eval` as its configuration names them: images, truth, yaw labels."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

from prnet.datasets.aflw2000 import AFLW2000, read_boxes, read_yaw_labels
from prnet.datasets.benchmarks import BENCHMARKS, open_benchmark, with_names
from prnet.datasets.fits import FacePair, find_aflw2000
from prnet.datasets.pictures import CropRule
from prnet.datasets.predictions import find_predictions
from prnet.datasets.synthetic import SyntheticRule, held_out_faces
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.report import name_list
from prnet.faces.face import Face

log = logging.getLogger(__name__)

TEST_SETS = ("aflw2000", "synthetic", *BENCHMARKS)


def own_protocol(protocol: Protocol, dataset: str) -> Protocol:
    """The protocol with the metric of a test set that has one of its own; others stay.

    Raises:
        ValueError: the protocol asks for what AFLW2000-3D alone has.
    """
    if dataset not in BENCHMARKS:
        return protocol
    if protocol.crop.source == "box" or protocol.yaw_source == "labels" or protocol.exclude:
        raise ValueError(
            f"dataset={dataset}: takes no protocol.crop.boxes, yaw labels or names to exclude; "
            "choose protocol=default, or change these fields"
        )
    return dataclasses.replace(protocol, metrics=(BENCHMARKS[dataset].metric,))


def test_samples(
    cfg: DictConfig, protocol: Protocol, truth_face: Face | None
) -> tuple[Dataset, dict[str, float] | None]:
    """The images a network is given with their truth, and the labels that replace their yaw."""
    crop = CropRule(
        protocol.crop.source, protocol.crop.scale, protocol.crop.jitter, protocol.crop.span
    )
    if cfg.dataset.name == "synthetic":
        if protocol.crop.source == "box" or protocol.yaw_source == "labels" or protocol.exclude:
            raise ValueError(
                "dataset=synthetic: has no boxes, yaw labels or names to exclude; choose "
                "protocol=default"
            )
        values = OmegaConf.to_container(cfg.dataset, resolve=True)
        # The occluders are laid over the crops while they are scored.
        rule = SyntheticRule.from_values({**values, "occlusion": "none"})
        return held_out_faces(rule, crop), None
    if cfg.dataset.name in BENCHMARKS:
        return open_benchmark(cfg.dataset.name, cfg.data_dir, cfg.dataset, crop=crop), None
    all_pairs = find_aflw2000(cfg.data_dir)
    pairs = select_pairs(all_pairs, protocol)
    boxes = None
    if protocol.crop.source == "box":
        boxes = read_boxes(protocol.crop.boxes)
        require_named(boxes, pairs, source=protocol.crop.boxes)
    samples = AFLW2000(
        pairs,
        num_shape=truth_face.morphable_model.num_shape if truth_face else 0,
        num_exp=truth_face.morphable_model.num_exp if truth_face else 0,
        needs_landmarks=protocol.landmarks == "pt3d_68",
        crop=crop,
        boxes=boxes,
    )
    return samples, yaw_labels_of(protocol, pairs, all_pairs)


class SavedSet(NamedTuple):
    """A test set as far as it is predicted."""

    samples: Dataset  # the truth of the images that have a prediction
    names: set[str]  # of all images
    yaw_labels: dict[str, float] | None  # that replace the yaw of the truth
    predictions: dict[str, list[Path]]  # the files of every name


def saved_samples(
    cfg: DictConfig, protocol: Protocol, face: Face | None, predictions: Path | str
) -> SavedSet:
    """The test set of the configuration and a folder of predictions."""
    if cfg.dataset.name in BENCHMARKS:
        samples = open_benchmark(cfg.dataset.name, cfg.data_dir, cfg.dataset, crop=None)
        found = find_predictions(predictions)
        return SavedSet(with_names(samples, found), set(samples.names), None, found)
    if cfg.dataset.name != "aflw2000":
        raise ValueError(f"predictions= are scored on {', '.join(('aflw2000', *BENCHMARKS))}")
    all_pairs = find_aflw2000(cfg.data_dir)
    pairs = select_pairs(all_pairs, protocol)
    found = find_predictions(predictions)
    scored = [pair for pair in pairs if pair.name in found]
    model = None if face is None else face.morphable_model
    samples = AFLW2000(
        scored,
        num_shape=model.num_shape if model else 0,
        num_exp=model.num_exp if model else 0,
        decodes=model is not None and (protocol.scores_dense or protocol.landmarks == "map"),
        needs_landmarks=protocol.landmarks == "pt3d_68",
    )
    yaw_labels = yaw_labels_of(protocol, scored, all_pairs) if scored else None
    return SavedSet(samples, {pair.name for pair in pairs}, yaw_labels, found)


def select_pairs(pairs: list[FacePair], protocol: Protocol) -> list[FacePair]:
    """The pairs that the protocol does not exclude."""
    absent = sorted(set(protocol.exclude) - {pair.name for pair in pairs})
    if absent:
        log.warning("protocol.exclude names images that are not there: %s", name_list(absent))
    return [pair for pair in pairs if pair.name not in protocol.exclude]


def require_named(table: Mapping[str, object], pairs: list[FacePair], *, source: object) -> None:
    """Raise ValueError if a table lacks one of the images."""
    lacking = [pair.name for pair in pairs if pair.name not in table]
    if lacking:
        raise ValueError(f"{source}: no line for {name_list(lacking)} of {len(pairs)} images")


def yaw_labels_of(
    protocol: Protocol, pairs: list[FacePair], all_pairs: list[FacePair]
) -> dict[str, float] | None:
    """The labels that replace the yaw of the fits, where the protocol wants them."""
    if protocol.yaw_source == "pose_para":
        return None
    labels = read_yaw_labels(protocol.yaw_labels, [pair.name for pair in all_pairs])
    require_named(labels, pairs, source=protocol.yaw_labels)
    return labels
