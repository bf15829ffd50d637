"""The mesh of a prediction, for networks of maps and of parameters alike.

Letters: B batch, N vertices, T triangles.
"""

from typing import NamedTuple

from torch import Tensor

from prnet.faces.face import Face
from prnet.geometry.pose_parameters import crop_points
from prnet.sample import Prediction


class PredictedMesh(NamedTuple):
    """Vertices and the triangles that go with them."""

    vertices: Tensor  # (B, N, 3), crop px, z toward the camera
    triangles: Tensor  # (T, 3), outward in the y-down image frame
    texture_coords: Tensor  # (N, 2), u and v in the face's UV layout
    landmarks: Tensor  # (B, 68, 3), crop px


def mesh_of(prediction: Prediction, face: Face) -> PredictedMesh:
    """Of predicted parameters all vertices of the face model; of a position map its face pixels
    and the triangles between them: off the face mask a map holds nothing that was learned.

    Raises:
        ValueError: the prediction has neither.
    """
    if prediction.parameters is not None:
        num_exp = prediction.parameters.shape[1] - 12 - face.morphable_model.num_shape
        model = face.morphable_model
        if num_exp != model.num_exp:
            raise ValueError("parameters of another number of coefficients than the face has")
        vertices = crop_points(model, prediction.parameters)
        pixels = face.uv.vertex_pixels
        coords = pixels / (face.uv.resolution - 1)
        coords = coords * coords.new_tensor([1, -1]) + coords.new_tensor([0, 1])
        return PredictedMesh(vertices, face.triangles, coords, vertices[:, face.landmark_index])
    if prediction.position_map is None:
        raise ValueError("the network predicts neither a position map nor parameters")
    side = face.uv.resolution
    row, column = face.uv.face_index // side, face.uv.face_index % side
    coords = column.new_zeros(len(row), 2).float()
    coords[:, 0], coords[:, 1] = column / (side - 1), 1 - row / (side - 1)
    return PredictedMesh(
        face.uv.face_points(prediction.position_map),
        face.uv.grid_triangles,
        coords,
        face.uv.landmarks(prediction.position_map),
    )
