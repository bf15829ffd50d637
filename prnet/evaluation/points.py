"""The two sides of a comparison: what a test set, a network and a saved prediction hold of a face,
and what of it a protocol compares.

Letters: B batch, N points, V vertices of a face, P face pixels of its UV layout.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from prnet.datasets.evaluation import EvaluationBatch
from prnet.datasets.predictions import (
    NUM_PRNET_FACE_PIXELS,
    SavedPrediction,
    Topology,
    landmarks_of,
)
from prnet.evaluation.protocol import CHOICES, Protocol
from prnet.evaluation.score import FacePoints
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.depth import least_depth, shift_depth
from prnet.metrics.pose import pose_from_points
from prnet.metrics.reconstruction import BY_INDEX
from prnet.models.face_decoder import FaceDecoder
from prnet.sample import Prediction

NO_DENSE_TRUTH = "protocol.dense is none"
NOT_SCORED = "no metric of the protocol takes dense points"
NO_NECK = (
    "the network predicts a position map, which is trained on the face pixels alone, and "
    "protocol.dense=vertices compares the neck and the ears too"
)
OTHER_FACE = "the network's face {} and the data set's {} have no dense points in common"
LANDMARKS_ALONE = "no vertices, landmarks alone"
OTHER_MESH = "{} points are neither the {} vertices nor the {} face pixels of the face model"
PRNET_PIXELS = "; bring PRNet's Data/uv-data to DATA_DIR/PRNet_uv, its pixels are those"
NO_VERTICES = (
    "the {} face pixels of a position map are not the {} vertices that protocol.dense=vertices "
    "compares"
)
NO_DEPTH = "the landmarks have no z"
NO_POINTS = "the data set has no points of its own, only the 68 landmarks"
NO_ANGLES = "the data set has no head pose"
BY_LANDMARKS = "; protocol.pose.points=landmarks takes the 68 landmarks instead"


class DensePoints(NamedTuple):
    """The dense points of predictions, and what they are on the face of the truth, if anything."""

    cloud: Tensor | None  # (B, N, 3), as they are predicted
    vertices: Tensor | None  # (B, V, 3), all vertices
    pixels: Tensor | None  # (B, P, 3), at the face pixels
    # Value of `protocol.dense` -> why the points cannot be compared so, for each where they cannot.
    lacking: Mapping[str, str]


def ground_truth(
    batch: EvaluationBatch,
    face: Face | None,
    protocol: Protocol,
    *,
    dense: bool,
) -> FacePoints:
    """What the protocol calls the truth, float64, each in the pixel origin it is scored in.

    Where a batch has no `pt3d_68`, the fit's own vertices at the landmarks stand for it: it is made
    of them. Without a face there is nothing but `pt3d_68`, what the data set has of its own, and
    the head pose.
    """

    def place(points: Tensor, target: str) -> Tensor:
        return camera.convert_origin(points.double(), "zero_based", target)

    own = FacePoints(visible=batch.points_visible, angles=batch.angles)
    if batch.points is not None and batch.box is not None:
        own = own._replace(points=place(batch.points, protocol.landmark_origin), box=batch.box)
    if batch.scan is not None:
        scans = [place(scan, protocol.pixel_origin) for scan in batch.scan]
        own = own._replace(surface=scans, surface_unit=batch.outer_eye)

    landmarks = dense_points = None
    if protocol.landmarks == "pt3d_68" and batch.landmarks is not None:
        landmarks = camera.convert_origin(batch.landmarks, "matlab", protocol.landmark_origin)
    decoded = face is not None and batch.image_from_model is not None
    if not decoded or (landmarks is not None and not dense):
        return own._replace(landmarks=landmarks)

    vertices = face.morphable_model(batch.shape_params, batch.exp_params)  # (B, N, 3), model frame

    def project(points: Tensor, matrix: Tensor, pixel_origin: str) -> Tensor:
        return place(camera.transform_points(matrix, points.double()), pixel_origin)

    if landmarks is None and protocol.landmarks == "pt3d_68":
        at_landmarks = vertices[:, face.landmark_index]
        landmarks = project(at_landmarks, batch.image_from_model, protocol.landmark_origin)
    if dense and protocol.dense == "vertices":
        dense_points = project(vertices, batch.image_from_model, protocol.pixel_origin)
    if landmarks is None or (dense and protocol.dense == "map"):
        # Interpolation and projection commute: only the texels that are scored are made, in the
        # model frame. A position map's depth starts at the smallest z of its mesh.
        matrix = batch.image_from_model.clone()
        matrix[:, 2, 3] = 0
        matrix = shift_depth(matrix, least_depth(matrix, vertices))
        if landmarks is None:
            cells = face.uv.at_texels(vertices, face.uv.landmark_texels)
            landmarks = project(cells, matrix, protocol.landmark_origin)
        if dense and protocol.dense == "map":
            pixels = face.uv.at_texels(vertices, face.uv.face_index)
            dense_points = project(pixels, matrix, protocol.pixel_origin)
    return own._replace(landmarks=landmarks, dense=dense_points)


def network_points(
    prediction: Prediction,
    decoder: FaceDecoder,
    image_from_crop: Tensor,  # (B, 4, 4), float64
    protocol: Protocol,
    *,
    pixel_origin: str,
    dense: bool,
) -> FacePoints:
    """A network's landmarks and, if wanted, its mesh in the image, float32.

    They are placed in the pixel origin of the truth they are scored against: the crop is ours, and
    `pixel_origin` that of the labels the network learned from, so no convention stands between the
    two. Depth is in image px from the network's own zero. Where the truth is the cells of a map, so
    are the landmarks of a mesh.
    """

    def project(points: Tensor, target: str) -> Tensor:
        image_points = camera.transform_points(image_from_crop, points.double())
        return camera.convert_origin(image_points, pixel_origin, target).float()

    by_cells = protocol.landmarks == "map"
    landmarks = decoder.landmark_cells(prediction) if by_cells else decoder.landmarks(prediction)
    return FacePoints(
        project(landmarks, protocol.landmark_origin),
        project(decoder.mesh(prediction), protocol.pixel_origin) if dense else None,
    )


def network_dense(
    mesh: Tensor | None,  # (B, N, 3), of `decoder`; None: not wanted
    decoder: FaceDecoder,
    protocol: Protocol,
    *,
    unrelated: str,  # why its face has no points in common with the truth's; "": it has
) -> DensePoints:
    """The dense points of a network: face pixels of a position map, all vertices of parameters."""
    if mesh is None:
        return _unrelated(None, unrelated or NOT_SCORED)
    # In the precision in which saved vertices are interpolated, so that they score the same.
    vertices, pixels = (mesh if decoder.has_vertices else None), decoder.face_points(mesh.double())
    if unrelated:
        by_vertices = protocol.dense == "vertices" and vertices is not None
        return _unrelated(vertices if by_vertices else pixels, unrelated)
    lacking = {"none": NO_DENSE_TRUTH}
    if not decoder.has_vertices:
        lacking["vertices"] = NO_NECK
    return DensePoints(mesh, vertices, pixels, lacking)


def unrelated_faces(face: Face, truth_face: Face | None, *, no_face: str) -> str:
    """Why the points of a network's face are none of the truth's; "" where the faces are one."""
    if truth_face is None:
        return no_face
    same = truth_face.describe() == face.describe()
    return "" if same else OTHER_FACE.format(face.name, truth_face.name)


def saved_points(
    prediction: SavedPrediction,
    topology: Topology,
    protocol: Protocol,
    *,
    device: torch.device,
) -> tuple[Tensor | None, Tensor | None]:
    """The 68 landmarks (1, 68, 2 or 3) and the dense points (1, N, 3) of a saved prediction, each
    in the pixel origin it is scored in; None for what it does not have.

    Raises:
        ValueError: the protocol needs the 68 landmarks, and they are neither saved nor to be found
            among the vertices.
    """

    def place(points: object, source: str, target: str) -> Tensor:
        tensor = torch.from_numpy(points).double()[None].to(device)
        return camera.convert_origin(tensor, source, target) if protocol.convert_origin else tensor

    landmarks = dense = None
    if protocol.needs_landmarks or prediction.landmarks is not None:
        stored, origin = landmarks_of(prediction, topology)
        landmarks = place(stored, origin, protocol.landmark_origin)
    if prediction.vertices is not None:
        dense = place(prediction.vertices, prediction.vertices_origin, protocol.pixel_origin)
    return landmarks, dense


def saved_dense(
    points: Tensor | None,  # (1, N, 3)
    truth_face: Face | None,
    *,
    no_face: str,
) -> DensePoints:
    """The points of a saved prediction, told apart by how many they are. A mesh is rasterised into
    the UV layout; a map has no vertices."""
    if truth_face is None:
        return _unrelated(points, no_face)
    lacking = {"none": NO_DENSE_TRUTH}
    if points is None:
        why = LANDMARKS_ALONE
        return DensePoints(None, None, None, {**lacking, "vertices": why, "map": why})
    count = points.shape[1]
    num_vertices = truth_face.morphable_model.num_vertices
    num_pixels = truth_face.uv.face_index.numel()
    if count == num_vertices:
        pixels = truth_face.uv.at_texels(points, truth_face.uv.face_index)
        return DensePoints(points, points, pixels, lacking)
    if count == num_pixels:
        lacking["vertices"] = NO_VERTICES.format(count, num_vertices)
        return DensePoints(points, None, points, lacking)
    why = OTHER_MESH.format(count, num_vertices, num_pixels)
    if count == NUM_PRNET_FACE_PIXELS:
        why += PRNET_PIXELS
    return DensePoints(points, None, None, {**lacking, "vertices": why, "map": why})


def _unrelated(cloud: Tensor | None, why: str) -> DensePoints:
    """Points that are nothing on the face of the truth, under any protocol."""
    return DensePoints(cloud, None, None, dict.fromkeys(CHOICES["dense"], why))


def comparable(
    landmarks: Tensor | None,  # (B, 68, 2 or 3)
    dense: DensePoints,
    truth_face: Face | None,
    protocol: Protocol,
    *,
    scanned: bool,
    rotation: Tensor | None = None,
) -> tuple[FacePoints, dict[str, str]]:
    """What a protocol compares of predictions, and for each field that is lacking why.

    scanned: the truth is a scan, which corresponds to no face model: any points are a surface.
    rotation: (B, 3, 3), a pose that is predicted; None: it is that of the mean face.
    """
    compared = {"none": None, "vertices": dense.vertices, "map": dense.pixels}[protocol.dense]
    lacking = {}
    if compared is None:
        lacking["dense"] = lacking["surface"] = dense.lacking[protocol.dense]
    surface = None
    if protocol.scores("surface"):
        surface = compared
        # An ICP aligns any cloud with the truth: it needs no correspondence.
        free = protocol.reconstruction.metric not in BY_INDEX and protocol.dense == "map"
        if surface is None and (scanned or (free and truth_face is not None)):
            surface = dense.cloud if dense.pixels is None else dense.pixels
    if rotation is None and protocol.scores("rotation"):
        if truth_face is None:
            lacking["rotation"] = dense.lacking["map"]
        else:
            rotation, why = rotation_of(dense.pixels, landmarks, truth_face, protocol)
            if rotation is None:
                lacking["rotation"] = why or dense.lacking["map"] + BY_LANDMARKS
    return (
        FacePoints(
            landmarks,
            compared,
            surface=None if surface is None else list(surface.double()),
            rotation=rotation,
        ),
        lacking,
    )


def rotation_of(
    pixels: Tensor | None,  # (B, P, 3), the face pixels
    landmarks: Tensor | None,  # (B, 68, 2 or 3)
    face: Face,
    protocol: Protocol,
) -> tuple[Tensor | None, str]:
    """The rotation (B, 3, 3) of the similarity from the mean face, or None and why; "" where the
    face pixels are what is lacking."""
    mean = face.morphable_model.mean[None]
    if protocol.pose.points == "landmarks":
        if landmarks is None or landmarks.shape[-1] < 3:
            return None, NO_DEPTH
        points, mean_points = landmarks, mean[0, face.landmark_index]
    elif pixels is None:
        return None, ""
    else:
        points, mean_points = pixels, face.uv.at_texels(mean, face.uv.face_index)[0]
    try:
        return pose_from_points(points.double(), mean_points.double()), ""
    except ValueError as error:
        return None, str(error)
