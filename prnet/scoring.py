"""Scoring: a network or saved predictions against the truth of a test set, image by image.

`evaluate_model` is also what the trainer validates with. Letters: B batch, N vertices, H W = 256.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from prnet.datasets.evaluation import EvaluationBatch
from prnet.datasets.predictions import (
    NUM_PRNET_FACE_PIXELS,
    SavedPrediction,
    Topology,
    landmarks_of,
    read_prediction,
    write_prediction,
)
from prnet.datasets.warp import warp_to_crop
from prnet.faces.face import Face
from prnet.gallery import Gallery, errors_to_rank
from prnet.geometry import camera
from prnet.protocol import METRICS, FacePoints, Protocol, score
from prnet.report import ScoredImage, make_report

PRECISIONS = ("fp32", "bf16")
NO_NECK = (
    "a position map is trained on the face pixels alone, and protocol.dense=vertices compares the "
    "neck and the ears too"
)
NO_DENSE_TRUTH = "protocol.dense is none"
OTHER_FACE = "the network's face {} and the data set's {} have no dense points in common"
NO_DEPTH = "the landmarks have no z"


def ground_truth(
    batch: EvaluationBatch,
    face: Face | None,
    protocol: Protocol,
    *,
    dense: bool,
) -> FacePoints:
    """What the protocol calls the truth, float64, each in the pixel origin it is scored in.

    Where a batch has no `pt3d_68`, the fit's own vertices at the landmarks stand for it: it is made
    of them. Without a face there is nothing but `pt3d_68`.
    """
    landmarks = dense_points = None
    if protocol.landmarks == "pt3d_68" and batch.landmarks is not None:
        landmarks = camera.convert_origin(batch.landmarks, "matlab", protocol.landmark_origin)
    if face is None or (landmarks is not None and not dense):
        return FacePoints(landmarks, None)

    vertices = face.morphable_model(batch.shape_params, batch.exp_params)  # (B, N, 3), model frame

    def project(points: Tensor, matrix: Tensor, pixel_origin: str) -> Tensor:
        image_points = camera.transform_points(matrix, points.double())
        return camera.convert_origin(image_points, "zero_based", pixel_origin)

    if landmarks is None and protocol.landmarks == "pt3d_68":
        at_landmarks = vertices[:, face.landmark_index]
        landmarks = project(at_landmarks, batch.image_from_model, protocol.landmark_origin)
    if dense and protocol.dense == "vertices":
        dense_points = project(vertices, batch.image_from_model, protocol.pixel_origin)
    if landmarks is None or (dense and protocol.dense == "map"):
        # Interpolation and projection commute: only the texels that are scored are made, in the
        # model frame. A position map's depth starts at the smallest z of its mesh.
        matrix = batch.image_from_model.clone()
        depth = vertices @ matrix[:, 2, :3, None].to(vertices.dtype)  # (B, N, 1)
        matrix[:, 2, 3] = -depth.amin((1, 2)).double()
        if landmarks is None:
            cells = face.uv.at_texels(vertices, face.uv.landmark_texels)
            landmarks = project(cells, matrix, protocol.landmark_origin)
        if dense and protocol.dense == "map":
            pixels = face.uv.at_texels(vertices, face.uv.face_index)
            dense_points = project(pixels, matrix, protocol.pixel_origin)
    return FacePoints(landmarks, dense_points)


def network_points(
    position_map: Tensor,  # (B, 3, H, W), crop px
    image_from_crop: Tensor,  # (B, 4, 4), float64
    face: Face,
    protocol: Protocol,
    *,
    pixel_origin: str,
) -> FacePoints:
    """A network's landmarks and face pixels in the image, float32.

    They are placed in the pixel origin of the truth they are scored against: the crop is ours, and
    `pixel_origin` that of the labels the network learned from, so no convention stands between the
    two. Depth is in image px from the network's own zero.
    """

    def project(points: Tensor, target: str) -> Tensor:
        image_points = camera.transform_points(image_from_crop, points.double())
        return camera.convert_origin(image_points, pixel_origin, target).float()

    return FacePoints(
        project(face.uv.landmarks(position_map), protocol.landmark_origin),
        project(face.uv.face_points(position_map), protocol.pixel_origin),
    )


def saved_points(
    prediction: SavedPrediction,
    face: Face | None,
    topology: Topology,
    protocol: Protocol,
    *,
    device: torch.device,
) -> tuple[FacePoints, str | None]:
    """A saved prediction as a batch of one, and why it has no dense points, if it has none.

    A mesh is rasterised into the UV layout where the protocol compares maps; a map has no vertices.

    Raises:
        ValueError: the 68 landmarks are neither saved nor to be found among the vertices.
    """

    def prepare(points: object, source: str, target: str) -> Tensor:
        tensor = torch.from_numpy(points).double()[None].to(device)
        return camera.convert_origin(tensor, source, target) if protocol.convert_origin else tensor

    stored, origin = landmarks_of(prediction, topology)
    landmarks = prepare(stored, origin, protocol.landmark_origin)
    if prediction.vertices is None:
        return FacePoints(landmarks, None), "no vertices, landmarks alone"
    if face is None:
        return FacePoints(landmarks, None), "the face model is not there"
    vertices = prepare(prediction.vertices, prediction.vertices_origin, protocol.pixel_origin)
    count = vertices.shape[1]
    num_vertices, num_pixels = face.morphable_model.num_vertices, face.uv.face_index.numel()
    if count == num_vertices:
        if protocol.dense == "map":
            vertices = face.uv.at_texels(vertices, face.uv.face_index)
        return FacePoints(landmarks, vertices), None
    if count == num_pixels:
        if protocol.dense == "map":
            return FacePoints(landmarks, vertices), None
        return FacePoints(landmarks, None), (
            f"the {count} face pixels of a position map are not the {num_vertices} vertices that "
            "protocol.dense=vertices compares"
        )
    reason = (
        f"{count} points are neither the {num_vertices} vertices nor the {num_pixels} face pixels "
        "of the face model"
    )
    if count == NUM_PRNET_FACE_PIXELS:
        reason += "; bring PRNet's Data/uv-data to DATA_DIR/PRNet_uv, its pixels are those"
    return FacePoints(landmarks, None), reason


def give_face(module: nn.Module, face: Face) -> None:
    """Hand the face to a network that computes with one (`set_face`)."""
    if hasattr(module, "set_face"):
        module.set_face(face)


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
    model: nn.Module,
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
    progress: bool = True,
) -> dict:
    """Run a network over a test set, once an image, and report its errors.

    `face` is the network's, `truth_face` that of the data set's fits; where they differ, or the
    latter is not there (`no_face` says why in the report), the 68 landmarks alone are scored,
    against `pt3d_68`. Faces and `model` are on the same device; `yaw_labels` replace the yaw of the
    fits; `pixel_origin` is that of the labels the network learned from. The report is that of
    `prnet.report.make_report`; the model's modes are as they were. A `gallery` is shown every
    image.

    Raises:
        ValueError: an option is none of its choices, the network returns what is not finite, or the
            protocol takes the landmarks from a map that there is no face to make.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if truth_face is None and protocol.landmarks == "map":
        raise ValueError(f"protocol.landmarks=map: {no_face}")
    device = next(model.parameters()).device
    no_dense = NO_NECK if protocol.dense == "vertices" else NO_DENSE_TRUTH
    if truth_face is None:
        no_dense = no_face
    elif truth_face.describe() != face.describe():
        no_dense = OTHER_FACE.format(face.name, truth_face.name)
    scores_dense = protocol.scores_dense and no_dense == NO_DENSE_TRUTH
    images: list[ScoredImage] = []
    with evaluation_mode(model):
        for batch in tqdm(batches, desc="evaluate", unit="batch", disable=not progress):
            batch = batch.to(device)
            image = warp_to_crop(batch.picture, batch.crop_from_picture)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                prediction = model(image.contiguous(memory_format=torch.channels_last))
            predicted = network_points(
                prediction.position_map.float(),
                batch.image_from_crop,
                face,
                protocol,
                pixel_origin=pixel_origin,
            )
            if save_predictions is not None:
                save_points(Path(save_predictions), batch.names, predicted, protocol)
            if not scores_dense:
                predicted = predicted._replace(dense=None)
            truth = ground_truth(batch, truth_face, protocol, dense=scores_dense)
            reasons = {"dense": no_dense, "landmarks": no_face}
            errors = score(predicted, truth, protocol)
            images += scored_images(batch, errors, reasons, protocol, yaw_labels)
            if gallery is not None:
                ranks = errors_to_rank(errors, len(image))
                gallery.add(image, prediction.position_map, ranks)
    return {
        **make_report(images, protocol, dataset=dataset, source=source),
        "face": face.describe(),
    }


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
    progress: bool = True,
) -> dict:
    """Score saved predictions, one for every image of `batches`; the report as `evaluate_model`'s.

    `face` None scores 68 landmarks against `pt3d_68` alone; `no_face` says why in the report.

    Raises:
        ValueError: a prediction cannot be read, or its landmarks cannot be found.
    """
    images: list[ScoredImage] = []
    for batch in tqdm(batches, desc="evaluate", unit="batch", disable=not progress):
        batch = batch.to(device)
        saved = [
            saved_points(
                read_prediction(predictions[name]), face, topology, protocol, device=device
            )
            for name in batch.names
        ]
        dense = protocol.scores_dense and any(points.dense is not None for points, _ in saved)
        truth = ground_truth(batch, face, protocol, dense=dense)
        for index, (points, no_dense) in enumerate(saved):
            one = slice(index, index + 1)
            own_truth = FacePoints(*(None if side is None else side[one] for side in truth))
            if face is None:
                no_dense = no_face
            elif not protocol.scores_dense:
                no_dense = NO_DENSE_TRUTH
            reasons = {"dense": no_dense}
            if own_truth.landmarks is None:
                reasons["landmarks"] = no_face
            images += scored_images(
                batch._replace(names=batch.names[one], yaw_deg=batch.yaw_deg[one]),
                score(points, own_truth, protocol),
                reasons,
                protocol,
                yaw_labels,
            )
    report = make_report(
        images, protocol, dataset=dataset, source=source, missing=missing, unknown=unknown
    )
    return report if face is None else {**report, "face": face.describe()}


def scored_images(
    batch: EvaluationBatch,
    errors: Mapping[str, Tensor],  # metric -> (B,)
    reasons: Mapping[str, str],  # field of `FacePoints` -> why it is lacking
    protocol: Protocol,
    yaw_labels: Mapping[str, float] | None,
) -> list[ScoredImage]:
    """The rows of a batch."""
    columns = {metric: values.tolist() for metric, values in errors.items()}
    lacking = {
        metric: reasons.get(METRICS[metric].points, NO_DEPTH)
        for metric in protocol.metrics
        if metric not in errors
    }
    return [
        ScoredImage(
            name,
            batch.yaw_deg[index] if yaw_labels is None else yaw_labels[name],
            {metric: values[index] for metric, values in columns.items()},
            lacking,
        )
        for index, name in enumerate(batch.names)
    ]
