"""Scoring a source (a network, or saved predictions) against the truth of a test set, image by
image; the trainer validates with it too.

Letters: B batch.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from prnet.checks import name_list
from prnet.datasets.attention_target import attention_iou
from prnet.datasets.evaluation import EvaluationBatch, TestSet, collate_evaluation, true_attention
from prnet.drawing.gallery import Gallery
from prnet.evaluation.hints import Hints
from prnet.evaluation.parts import LandmarkPairs
from prnet.evaluation.points import NO_ANGLES, NO_DEPTH, NO_POINTS, ground_truth
from prnet.evaluation.protocol import METRICS, Protocol
from prnet.evaluation.reconstructions import Reconstructions, workers_for
from prnet.evaluation.report import Report, ScoredImage, make_report, with_parts
from prnet.evaluation.score import FacePoints, group_landmarks, pose_left_out, score
from prnet.evaluation.sources import NetworkOutput, Source
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.workers import loader_of

log = logging.getLogger(__name__)


class Share(NamedTuple):
    """Which of the images this process scores, of several that call `evaluate` together."""

    rank: int = 0
    size: int = 1
    gather: Callable[[list], list] = list  # the lists of all processes in one

    def of(self, names: list[str]) -> list[str]:
        return names[self.rank :: self.size]


class EvaluationOptions(NamedTuple):
    """What moves no number."""

    batch_size: int = 32  # images
    num_workers: int = 0  # loader processes
    cores: int = 0  # that measure reconstructions, where there are enough faces; 0: this process
    gallery: Gallery | None = None  # is shown every image that a network is given
    progress: bool = True  # bars on the terminal
    share: Share = Share()  # the report is of all shares, but for parts and hints


DEFAULT_OPTIONS = EvaluationOptions()


@torch.inference_mode()
def evaluate(
    source: Source,
    test_set: TestSet,
    protocol: Protocol,
    options: EvaluationOptions = DEFAULT_OPTIONS,
) -> Report:
    """Score every image of the test set that the source predicts; the report of `make_report`.

    Where the face of the truth is not there, or is not that of a network, the 68 landmarks alone
    are scored, against `pt3d_68`. A test set with a metric of its own is scored by that alone. The
    report also has the source's face, what source and test set note about themselves, and, where a
    network predicts its attention, the mean overlap with the visible face.

    Raises:
        ValueError: a prediction cannot be read or is not finite, its landmarks cannot be found, or
            the source cannot be scored on this test set under this protocol.
    """
    if test_set.metric is not None:
        protocol = dataclasses.replace(protocol, metrics=(test_set.metric,))
    device = source.device
    if test_set.truth_face is not None:
        test_set = test_set.with_truth_face(test_set.truth_face.to(device))
    names = source.names_of(test_set)
    yaw_labels = test_set.yaw_labels(names)
    batches = loader_of(
        test_set.among(set(options.share.of(names))),
        collate_evaluation,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        pin_memory=device.type == "cuda",
    )
    images: list[ScoredImage] = []
    overlaps: list[float] = []
    detected: dict[str, bool] = {}
    pairs, hints = LandmarkPairs(), Hints()
    reconstructions = Reconstructions(
        protocol.reconstruction, workers=workers_for(len(names), options.cores)
    )
    with source.running(test_set, protocol), reconstructions:
        bar = {"desc": "evaluate", "unit": "batch", "leave": None}  # gone from below another
        for batch in tqdm(batches, **bar, disable=not options.progress):
            batch = batch.to(device)
            if batch.detected is not None:
                detected |= zip(batch.names, batch.detected, strict=True)
            predicted = source.predict(batch, test_set, protocol)
            dense = any(p.dense is not None or p.surface is not None for _, p, *_ in predicted)
            dense &= protocol.scores_dense
            truth = ground_truth(batch, test_set.truth_face, protocol, dense=dense)
            for rows, points, lacking, output in predicted:
                if test_set.point_groups is not None:
                    own = group_landmarks(points.landmarks, test_set.point_groups)
                    points = points._replace(points=own)
                own_truth = truth.rows(rows)
                if own_truth.landmarks is None:
                    lacking["landmarks"] = test_set.no_face
                errors = score(points, own_truth, protocol)
                shown, yaws_deg = batch.names[rows], batch.yaw_deg[rows]
                if yaw_labels is not None:
                    yaws_deg = [yaw_labels[name] for name in shown]
                scored = scored_images(
                    shown, yaws_deg, points, own_truth, errors, lacking, protocol
                )
                add_surfaces(reconstructions, scored, points, own_truth)
                images += scored
                if protocol.parts:
                    pairs.add(shown, points.landmarks, own_truth.landmarks)
                if output is None:
                    hints.add(points, own_truth, errors)
                else:
                    overlaps += attention_overlaps(output, batch, test_set.truth_face)
                    if options.gallery is not None:
                        show(options.gallery, batch, output, errors, own_truth, protocol)
        reconstructions.finish(progress=options.progress)
    overlaps = options.share.gather(overlaps)
    report = make_report(
        options.share.gather(images),
        protocol,
        dataset=test_set.name + source.suffix,
        source=source.description,
        **source.unmatched(test_set, protocol.exclude),
    )
    if protocol.parts:
        yaws = {row["name"]: row["yaw_deg"] for row in report["images"]}
        report = with_parts(report, *pairs.parts(yaws))
    if found := hints.found():
        report["hints"] = found
    if source.face is not None:
        report["face"] = source.face.describe()
    report |= source.notes()
    if detected:
        report["undetected"] = [name for name, found in detected.items() if not found]
    if overlaps:
        report["attention"] = {"iou": sum(overlaps) / len(overlaps), "count": len(overlaps)}
    if notes := test_set.notes():
        report["notes"] = notes
        log_notes(notes)
    return report


def show(
    gallery: Gallery,
    batch: EvaluationBatch,
    output: NetworkOutput,
    errors: Mapping[str, Tensor],  # metric -> (B,)
    truth: FacePoints,
    protocol: Protocol,
) -> None:
    """Show the gallery a batch that a network has seen."""
    landmarks = truth.landmarks
    if landmarks is not None:
        origin = protocol.landmark_origin
        landmarks = camera.convert_origin(landmarks.double(), origin, "zero_based")
    titles = {f"{METRICS[m].title}, {METRICS[m].unit}": values for m, values in errors.items()}

    def decoded(index: int) -> tuple[Tensor, Tensor]:
        one, decoder = output.prediction.at(index), output.decoder
        return decoder.landmarks(one)[0], decoder.face_points(decoder.mesh(one))[0]

    gallery.add(batch, output.image, decoded, titles, landmarks)


def log_notes(notes: Mapping[str, object]) -> None:
    """What a test set notes about itself; lists of names cut short."""
    for key, value in notes.items():
        if isinstance(value, list):
            value = name_list(map(str, value)) if value else "none"
        log.info("%s: %s", key, value)


def attention_overlaps(
    output: NetworkOutput, batch: EvaluationBatch, truth_face: Face | None
) -> list[float]:
    """Of each image, the predicted attention with the visible face; none where one of the two is
    not known."""
    logits = output.prediction.attention_logits
    if logits is None:
        return []
    target = true_attention(batch, truth_face, output.covered, size=logits.shape[-1])
    return [] if target is None else attention_iou(logits, target).tolist()


def add_surfaces(
    reconstructions: Reconstructions,
    rows: Sequence[ScoredImage],
    predicted: FacePoints,
    truth: FacePoints,
) -> None:
    """Have the surfaces of a batch measured, where the protocol wants them and both sides have
    one."""
    true_surfaces = truth.dense if truth.surface is None else truth.surface
    if predicted.surface is None or true_surfaces is None:
        return
    for index, row in enumerate(rows):
        landmarks = None if truth.landmarks is None else truth.landmarks[index].cpu().numpy()
        unit = None if truth.surface_unit is None else truth.surface_unit[index]
        surfaces = (predicted.surface[index], true_surfaces[index])
        arrays = (surface.double().cpu().numpy() for surface in surfaces)
        reconstructions.add(row, *arrays, landmarks, unit)


def scored_images(
    names: Sequence[str],
    yaws_deg: Sequence[float],
    predicted: FacePoints,
    truth: FacePoints,
    errors: Mapping[str, Tensor],  # metric -> (B,)
    lacking: Mapping[str, str],  # field of `FacePoints` -> why it is lacking
    protocol: Protocol,
) -> list[ScoredImage]:
    """The images of a batch, before their surfaces are measured."""
    lacking = dict(lacking)
    if truth.points is None:
        lacking["points"] = NO_POINTS
    if truth.angles is None:
        lacking["rotation"] = NO_ANGLES
    reasons = {
        metric: lacking.get(METRICS[metric].points, NO_DEPTH)
        for metric in protocol.metrics
        if metric not in errors
    }
    columns = {metric: values.tolist() for metric, values in errors.items()}
    left_out = pose_left_out(predicted, truth, protocol)
    pose = frozenset(m for m in protocol.metrics if METRICS[m].points == "rotation")
    return [
        ScoredImage(
            name,
            yaw_deg,
            {metric: values[index] for metric, values in columns.items()},
            dict(reasons),
            pose if left_out is not None and left_out[index] else frozenset(),
        )
        for index, (name, yaw_deg) in enumerate(zip(names, yaws_deg, strict=True))
    ]
