"""The two sides of a comparison: what a test set, a network and a saved prediction hold of a face.

Letters: B batch, N vertices, P face pixels, H W = 256.
"""

import torch
from torch import Tensor

from prnet.datasets.evaluation import EvaluationBatch
from prnet.datasets.predictions import (
    NUM_PRNET_FACE_PIXELS,
    SavedPrediction,
    Topology,
    landmarks_of,
)
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.score import FacePoints
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.depth import least_depth, shift_depth
from prnet.metrics.pose import pose_from_points
from prnet.sample import Prediction

NO_DENSE_TRUTH = "protocol.dense is none"
NO_NECK = (
    "a position map is trained on the face pixels alone, and protocol.dense=vertices compares the "
    "neck and the ears too"
)
OTHER_FACE = "the network's face {} and the data set's {} have no dense points in common"
NO_DEPTH = "the landmarks have no z"
NO_POINTS = "the data set has no points of its own, only the 68 landmarks"
NO_ANGLES = "the data set has no head pose"
BY_LANDMARKS = "; protocol.pose.points=landmarks takes the 68 landmarks instead"


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


def complete_network(
    predicted: FacePoints,
    prediction: Prediction,
    face: Face,
    truth_face: Face | None,
    protocol: Protocol,
    *,
    no_face: str,
    scanned: bool,
) -> tuple[FacePoints, dict[str, str]]:
    """The points of `network_points` as far as the truth has the like, with surface and rotation,
    and why a field is lacking.

    `scanned`: the truth is a scan, which corresponds to no face model. The crop is a similarity
    without a turn: a rotation in the crop is one in the image. The pose that a network predicts is
    of the model frame of its own face.
    """
    reasons = {"landmarks": no_face}
    pixels = predicted.dense
    same_face = truth_face is not None and truth_face.describe() == face.describe()
    if truth_face is None:
        reasons["dense"] = no_face
    elif not same_face:
        reasons["dense"] = OTHER_FACE.format(face.name, truth_face.name)
    elif protocol.dense != "map":
        reasons["dense"] = NO_NECK if protocol.dense == "vertices" else NO_DENSE_TRUTH
    if "dense" in reasons:
        predicted = predicted._replace(dense=None)
    if protocol.scores("surface"):
        # A cloud without correspondence is a surface all the same.
        free = (
            protocol.dense == "map"
            and truth_face is not None
            and not protocol.reconstruction.by_index
        )
        if scanned or free or "dense" not in reasons:
            predicted = predicted._replace(surface=list(pixels.double()))
        else:
            reasons["surface"] = reasons["dense"]
    if protocol.scores("rotation"):
        if same_face and prediction.pose is not None:
            return predicted._replace(rotation=prediction.pose.rotation.double()), reasons
        own = pixels if same_face else None
        rotation, why = rotation_of(own, predicted.landmarks, truth_face, protocol)
        if rotation is None:
            reasons["rotation"] = why or reasons["dense"] + BY_LANDMARKS
        predicted = predicted._replace(rotation=rotation)
    return predicted, reasons


def rotation_of(
    pixels: Tensor | None,  # (B, P, 3), the face pixels
    landmarks: Tensor | None,  # (B, 68, 2 or 3)
    face: Face | None,
    protocol: Protocol,
) -> tuple[Tensor | None, str]:
    """The rotation (B, 3, 3) of the similarity from the mean face, or None and why; "" where the
    face pixels are what is lacking."""
    if face is None:
        return None, "the face model, whose mean face is turned to the prediction, is not there"
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


def saved_points(
    prediction: SavedPrediction,
    face: Face | None,
    topology: Topology,
    protocol: Protocol,
    *,
    device: torch.device,
    no_face: str,
    scanned: bool = False,
) -> tuple[FacePoints, dict[str, str]]:
    """A saved prediction as a batch of one, and why a field of it is lacking.

    A mesh is rasterised into the UV layout where the protocol compares maps; a map has no vertices.
    `scanned` as in `complete_network`.

    Raises:
        ValueError: the 68 landmarks are neither saved nor to be found among the vertices.
    """

    def prepare(points: object, source: str, target: str) -> Tensor:
        tensor = torch.from_numpy(points).double()[None].to(device)
        return camera.convert_origin(tensor, source, target) if protocol.convert_origin else tensor

    landmarks = None
    # Against a scan any mesh can be held; where its landmarks are does not matter.
    if not scanned or prediction.landmarks is not None:
        stored, origin = landmarks_of(prediction, topology)
        landmarks = prepare(stored, origin, protocol.landmark_origin)
    vertices = pixels = dense = None
    if prediction.vertices is not None:
        vertices = prepare(prediction.vertices, prediction.vertices_origin, protocol.pixel_origin)
    no_dense = "no vertices, landmarks alone"
    if face is None:
        no_dense = no_face
    elif vertices is not None:
        count = vertices.shape[1]
        num_vertices, num_pixels = face.morphable_model.num_vertices, face.uv.face_index.numel()
        if count == num_vertices:
            pixels = face.uv.at_texels(vertices, face.uv.face_index)
        elif count == num_pixels:
            pixels = vertices
        dense = vertices if protocol.dense == "vertices" and count == num_vertices else pixels
        if pixels is None:
            no_dense = (
                f"{count} points are neither the {num_vertices} vertices nor the {num_pixels} face "
                "pixels of the face model"
            )
            if count == NUM_PRNET_FACE_PIXELS:
                no_dense += (
                    "; bring PRNet's Data/uv-data to DATA_DIR/PRNet_uv, its pixels are those"
                )
        elif protocol.dense == "vertices" and count != num_vertices:
            dense = None
            no_dense = (
                f"the {count} face pixels of a position map are not the {num_vertices} vertices "
                "that protocol.dense=vertices compares"
            )
    if protocol.dense == "none" and face is not None:
        dense, no_dense = None, NO_DENSE_TRUTH

    surface = dense
    free = protocol.dense == "map" and face is not None and not protocol.reconstruction.by_index
    if dense is None and (scanned or free):
        surface = vertices if pixels is None else pixels
    rotation, no_rotation = None, ""
    if protocol.scores("rotation"):
        rotation, no_rotation = rotation_of(pixels, landmarks, face, protocol)
    reasons = {
        "dense": no_dense,
        "surface": no_dense,
        "rotation": no_face if face is None else no_rotation or no_dense + BY_LANDMARKS,
    }
    points = FacePoints(landmarks, dense, rotation=rotation)
    return points._replace(surface=None if surface is None else [surface[0]]), reasons
