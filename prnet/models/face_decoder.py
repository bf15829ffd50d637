"""From a prediction to points of the face, for networks of maps and of parameters alike.

Letters: B batch, N points of the mesh, V vertices of the face, T triangles, P face pixels of its UV
layout, H W = map.
"""

import torch
from torch import Tensor, nn

from prnet.faces.face import Face
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.pose_parameters import crop_points, split_parameters
from prnet.models.network import Network
from prnet.sample import Prediction


class FaceDecoder(nn.Module):
    """Landmarks, mesh and map of what a network in eval mode predicts; all in crop px.

    Of predicted parameters the mesh is the face model's, and the landmarks are 68 of its vertices:
    nothing passes through a map. Of a position map the mesh is the face pixels, since off the face
    mask a map holds nothing that was learned, and the landmarks are the texels nearest to them.

    Buffers, not stored: `triangles` (T, 3) of the mesh, outward in the y-down image frame;
    `texture_coords` (N, 2), u and v.
    """

    def __init__(self, model: Network, face: Face) -> None:
        """Raises ValueError where the face has fewer bases than the network coefficients."""
        super().__init__()
        self.uv = face.uv
        self.bases: MorphableModel | None = None
        last = face.uv.resolution - 1
        if model.num_parameters is None:
            row, column = face.uv.face_index // (last + 1), face.uv.face_index % (last + 1)
            pixels, triangles = torch.stack([column, row], 1).float(), face.uv.grid_triangles
            mean = face.uv.at_texels(face.morphable_model.mean[None], face.uv.face_index)
            self.register_buffer("mean_points", mean, persistent=False)  # (1, P, 3), model frame
        else:
            self.bases = face.morphable_model.truncated(model.num_shape, model.num_exp)
            self.at_landmarks = self.bases.at_vertices(face.landmark_index)
            pixels, triangles = face.uv.vertex_pixels, face.triangles
        coords = pixels / last * pixels.new_tensor([1, -1]) + pixels.new_tensor([0, 1])
        buffers = {
            "triangles": triangles,
            "texture_coords": coords,
            "landmark_index": face.landmark_index,
            # The texels that a map of parameters has values at.
            "covered": face.uv.face_mask | face.uv.face_mask.flip(1),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    @property
    def has_vertices(self) -> bool:
        """Whether the mesh is the face model's, with all of its vertices."""
        return self.bases is not None

    def landmarks(self, prediction: Prediction) -> Tensor:
        """The 68 landmarks, (B, 68, 3); of parameters these alone are computed."""
        if self.bases is None:
            return self.uv.landmarks(prediction.position_map)
        return crop_points(self.at_landmarks, prediction.parameters)

    def mesh(self, prediction: Prediction) -> Tensor:
        """The points of the mesh, (B, N, 3): N = V of parameters, P of a map."""
        if self.bases is None:
            return self.uv.face_points(prediction.position_map)
        return crop_points(self.bases, prediction.parameters)

    def landmark_cells(self, prediction: Prediction) -> Tensor:
        """What a map has at the cells of the landmarks, (B, 68, 3), up to half a texel off them."""
        if self.bases is None:
            return self.uv.landmarks(prediction.position_map)
        return self.uv.at_texels(self.mesh(prediction), self.uv.landmark_texels)

    def face_points(self, mesh: Tensor) -> Tensor:  # (B, N, 3), in any frame
        """A mesh at the face pixels, (B, P, 3)."""
        return mesh if self.bases is None else self.uv.at_texels(mesh, self.uv.face_index)

    def position_map(self, prediction: Prediction, mesh: Tensor) -> Tensor:  # (B, N, 3), crop px
        """The position map, (B, 3, H, W); of parameters that of their `mesh`, 0 beyond the face."""
        if self.bases is None:
            return prediction.position_map
        return self.uv.position_map(mesh) * self.covered

    def model_points(self, prediction: Prediction) -> Tensor:
        """The mesh before its pose, (B, N, 3), model frame: of the predicted coefficients, or,
        where a map alone is predicted, that of the mean face."""
        if self.bases is None:
            return self.mean_points.expand(len(prediction.position_map), -1, -1)
        _, *coefficients = split_parameters(prediction.parameters, self.bases.num_shape)
        return self.bases(*coefficients)
