"""Scoring: a network or saved predictions against the truth of a test set, image by image.

`evaluate_model` is also what the trainer validates with. Letters: B batch.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from prnet.datasets.attention_target import attention_iou
from prnet.datasets.evaluation import EvaluationBatch, true_attention
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.occluders import ImageOccluder
from prnet.datasets.predictions import Topology, read_prediction, write_prediction
from prnet.datasets.warp import warp_to_crop
from prnet.drawing.gallery import Gallery, errors_to_rank
from prnet.evaluation.points import (
    NO_ANGLES,
    NO_DEPTH,
    NO_POINTS,
    complete_network,
    ground_truth,
    network_points,
    saved_points,
)
from prnet.evaluation.protocol import METRICS, Protocol
from prnet.evaluation.reconstructions import METRIC, Reconstructions
from prnet.evaluation.report import ScoredImage, make_report
from prnet.evaluation.score import FacePoints, group_landmarks, pose_left_out, score
from prnet.faces.face import Face
from prnet.models.network import Network

PRECISIONS = ("fp32", "bf16")
# Not yet measured.
PENDING = "pending"


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model.eval()` for the time of the block; then every module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.inference_mode()
def evaluate_model(
    model: Network,
    batches: Iterable[EvaluationBatch],
    *,
    face: Face,
    protocol: Protocol,
    dataset: str,
    source: str,
    truth_face: Face | None = None,
    no_face: str = "",
    yaw_labels: Mapping[str, float] | None = None,
    pixel_origin: str = "zero_based",
    precision: str = "fp32",
    save_predictions: Path | str | None = None,
    gallery: Gallery | None = None,
    occluder: ImageOccluder | None = None,
    point_groups: Sequence[Sequence[int]] | None = None,
    workers: int = 0,
    given: GivenLandmarks | None = None,
    progress: bool = True,
) -> dict:
    """Run a network over a test set, once an image, and report its errors.

    `face` is the network's, `truth_face` that of the data set's fits; where they differ, or the
    latter is not there (`no_face` says why in the report), the 68 landmarks alone are scored,
    against `pt3d_68`. Faces and `model` are on the same device; `yaw_labels` replace the yaw of the
    fits; `pixel_origin` is that of the labels the network learned from. The report is that of
    `prnet.evaluation.report.make_report`; the model's modes are as they were. A `gallery` is shown
    every image. `point_groups` make the data set's own points of the 68 (`group_landmarks`);
    `workers` processes measure reconstructions, 0: none does. `given` landmarks go to the network
    beside the image; the report names the `landmark_map` of one that takes them. An `occluder`
    covers part of every crop. Where the network predicts its attention, the report has the mean
    overlap with the visible face.

    Raises:
        ValueError: an option is none of its choices, the network returns what is not finite, or the
            protocol takes the landmarks from a map that there is no face to make.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if truth_face is None and protocol.landmarks == "map":
        raise ValueError(f"protocol.landmarks=map: {no_face}")
    device = next(model.parameters()).device
    images: list[ScoredImage] = []
    overlaps: list[float] = []
    reconstructions = Reconstructions(protocol.reconstruction, workers=workers)
    with evaluation_mode(model), reconstructions:
        for batch in tqdm(batches, desc="evaluate", unit="batch", disable=not progress):
            batch = batch.to(device)
            image, covered = warp_to_crop(batch.picture, batch.crop_from_picture), None
            if occluder is not None:
                image, covered = occluder(image, batch.names)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                beside = given.of(batch, pixel_origin=pixel_origin) if given is not None else ()
                prediction = model(image.contiguous(memory_format=torch.channels_last), *beside)
            predicted = network_points(
                prediction.position_map.float(),
                batch.image_from_crop,
                face,
                protocol,
                pixel_origin=pixel_origin,
            )
            if save_predictions is not None:
                save_points(Path(save_predictions), batch.names, predicted, protocol)
            predicted, reasons = complete_network(
                predicted,
                prediction,
                face,
                truth_face,
                protocol,
                no_face=no_face,
                scanned=batch.scan is not None,
            )
            if point_groups is not None:
                predicted = with_groups(predicted, point_groups)
            dense = predicted.dense is not None or predicted.surface is not None
            truth = ground_truth(batch, truth_face, protocol, dense=dense and protocol.scores_dense)
            errors = score(predicted, truth, protocol)
            rows = scored_images(batch, predicted, truth, errors, reasons, protocol, yaw_labels)
            add_surfaces(reconstructions, rows, predicted, truth)
            images += rows
            if prediction.attention_logits is not None:
                logits = prediction.attention_logits
                target = true_attention(batch, truth_face, covered, size=logits.shape[-1])
                overlaps += [] if target is None else attention_iou(logits, target).tolist()
            if gallery is not None:
                ranks = errors_to_rank(errors, len(image))
                gallery.add(image, prediction.position_map, ranks)
        reconstructions.finish(progress=progress)
    report = {
        **make_report(images, protocol, dataset=dataset, source=source),
        "face": face.describe(),
        "occlusion": "none" if occluder is None else occluder.occluder,
    }
    if model.landmark_map is not None:
        report["landmark_map"] = model.landmark_map
    if overlaps:
        report["attention"] = {"iou": sum(overlaps) / len(overlaps), "count": len(overlaps)}
    return report


def save_points(directory: Path, names: list[str], points: FacePoints, protocol: Protocol) -> None:
    """NAME.npz of a batch; scored under the same protocol they give the same errors."""
    landmarks, dense = points.landmarks.cpu().numpy(), points.dense.cpu().numpy()
    for name, one_landmarks, one_dense in zip(names, landmarks, dense, strict=True):
        write_prediction(
            directory / f"{name}.npz",
            one_landmarks,
            one_dense,
            landmarks_origin=protocol.landmark_origin,
            vertices_origin=protocol.pixel_origin,
        )


@torch.inference_mode()
def evaluate_predictions(
    predictions: Mapping[str, list[Path]],
    batches: Iterable[EvaluationBatch],
    *,
    face: Face | None,
    topology: Topology,
    protocol: Protocol,
    dataset: str,
    source: str,
    missing: Iterable[str] = (),
    unknown: Iterable[str] = (),
    no_face: str = "the face model is not there",
    yaw_labels: Mapping[str, float] | None = None,
    device: torch.device,
    point_groups: Sequence[Sequence[int]] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> dict:
    """Score saved predictions, one for every image of `batches`; the report as `evaluate_model`'s.

    `face` None scores 68 landmarks against `pt3d_68` alone; `no_face` says why in the report.
    `point_groups` and `workers` as there.

    Raises:
        ValueError: a prediction cannot be read, or its landmarks cannot be found.
    """
    images: list[ScoredImage] = []
    with Reconstructions(protocol.reconstruction, workers=workers) as reconstructions:
        for batch in tqdm(batches, desc="evaluate", unit="batch", disable=not progress):
            batch = batch.to(device)
            saved = [
                saved_points(
                    read_prediction(predictions[name]),
                    face,
                    topology,
                    protocol,
                    device=device,
                    no_face=no_face,
                    scanned=batch.scan is not None,
                )
                for name in batch.names
            ]
            dense = any(one.dense is not None or one.surface is not None for one, _ in saved)
            truth = ground_truth(batch, face, protocol, dense=dense and protocol.scores_dense)
            for index, (points, reasons) in enumerate(saved):
                one = slice(index, index + 1)
                own_truth = FacePoints(*(None if side is None else side[one] for side in truth))
                if point_groups is not None:
                    points = with_groups(points, point_groups)
                if own_truth.landmarks is None:
                    reasons["landmarks"] = no_face
                rows = scored_images(
                    batch._replace(names=batch.names[one], yaw_deg=batch.yaw_deg[one]),
                    points,
                    own_truth,
                    score(points, own_truth, protocol),
                    reasons,
                    protocol,
                    yaw_labels,
                )
                add_surfaces(reconstructions, rows, points, own_truth)
                images += rows
        reconstructions.finish(progress=progress)
    report = make_report(
        images, protocol, dataset=dataset, source=source, missing=missing, unknown=unknown
    )
    return report if face is None else {**report, "face": face.describe()}


def with_groups(points: FacePoints, groups: Sequence[Sequence[int]]) -> FacePoints:
    """With the data set's own points, made of the 68."""
    return points._replace(points=group_landmarks(points.landmarks, groups))


def add_surfaces(
    reconstructions: Reconstructions,
    rows: Sequence[ScoredImage],
    predicted: FacePoints,
    truth: FacePoints,
) -> None:
    """Have the surfaces of a batch measured, where the protocol wants them and both sides have
    one."""
    true_surfaces = truth.surface if truth.surface is not None else truth.dense
    for index, row in enumerate(rows):
        if row.lacking.get(METRIC) != PENDING:
            continue
        del row.lacking[METRIC]
        landmarks = None if truth.landmarks is None else truth.landmarks[index].cpu().numpy()
        unit = None if truth.surface_unit is None else truth.surface_unit[index]
        surfaces = (predicted.surface[index], true_surfaces[index])
        arrays = (surface.double().cpu().numpy() for surface in surfaces)
        reconstructions.add(row, *arrays, landmarks, unit)


def scored_images(
    batch: EvaluationBatch,
    predicted: FacePoints,
    truth: FacePoints,
    errors: Mapping[str, Tensor],  # metric -> (B,)
    reasons: Mapping[str, str],  # field of `FacePoints` -> why it is lacking
    protocol: Protocol,
    yaw_labels: Mapping[str, float] | None,
) -> list[ScoredImage]:
    """The rows of a batch; a surface that both sides have is `PENDING`."""
    columns = {metric: values.tolist() for metric, values in errors.items()}
    reasons = {**reasons}
    if truth.points is None:
        reasons["points"] = NO_POINTS
    if truth.angles is None:
        reasons["rotation"] = NO_ANGLES
    has_truth = truth.surface is not None or truth.dense is not None
    if predicted.surface is not None and has_truth:
        reasons["surface"] = PENDING
    lacking = {
        metric: reasons.get(METRICS[metric].points, NO_DEPTH)
        for metric in protocol.metrics
        if metric not in errors
    }
    left_out = pose_left_out(predicted, truth, protocol)
    pose = frozenset(m for m in protocol.metrics if METRICS[m].points == "rotation")
    return [
        ScoredImage(
            name,
            batch.yaw_deg[index] if yaw_labels is None else yaw_labels[name],
            {metric: values[index] for metric, values in columns.items()},
            dict(lacking),
            pose if left_out is not None and left_out[index] else frozenset(),
        )
        for index, name in enumerate(batch.names)
    ]
