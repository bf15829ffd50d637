"""What becomes of a prediction: landmarks, mesh and map, of parameters and of maps."""

import pytest
import torch
from torch import Tensor

from prnet.geometry.pose_parameters import NUM_POSE
from prnet.geometry.position_map import PositionMapDecoder
from prnet.models.face_decoder import FaceDecoder
from prnet.models.network import Network
from prnet.sample import Prediction

# Fewer than the tiny face has.
NUM_SHAPE, NUM_EXP = 2, 1


class Parameters(Network):
    num_parameters = NUM_POSE + NUM_SHAPE + NUM_EXP
    num_shape, num_exp = NUM_SHAPE, NUM_EXP


def prediction() -> Prediction:
    """Two faces, one turned, both sheared."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.tensor([[1, 0.1, 0], [0, 1, 0.2], [0, 0, 1]]).expand(2, 3, 3).clone()
    pose[1, :, [0, 2]] = pose[1, :, [2, 0]]
    place = torch.tensor([128.0, -120, 30])[:, None].expand(2, 3, 1)
    coefficients = torch.randn(2, NUM_SHAPE + NUM_EXP, generator=generator)
    coefficients *= torch.tensor([2e4, 2e4, 1])
    camera = torch.cat([1e-3 * pose, place], 2).flatten(1)
    return Prediction(parameters=torch.cat([camera, coefficients], 1))


def posed(face, predicted: Prediction) -> Tensor:
    """The vertices in crop px, written out."""
    rows = predicted.parameters.double()
    bases = torch.cat([face.morphable_model.basis[:NUM_SHAPE], face.morphable_model.basis[4:5]])
    vertices = face.morphable_model.mean + torch.einsum("bc,cnk->bnk", rows[:, 12:], bases.double())
    camera = rows[:, :12].unflatten(1, (3, 4))
    up = torch.einsum("bij,bnj->bni", camera[..., :3], vertices) + camera[:, None, :, 3]
    return up * torch.tensor([1.0, -1, 1])


def test_parameters_are_all_vertices_and_the_landmarks_68_of_them(face):
    """Of a network with fewer coefficients than the face has bases."""
    decoder, predicted = FaceDecoder(Parameters(), face), prediction()
    vertices = posed(face, predicted).float()
    assert decoder.has_vertices
    torch.testing.assert_close(decoder.mesh(predicted), vertices, rtol=1e-5, atol=1e-3)
    at_landmarks = vertices[:, face.landmark_index]
    torch.testing.assert_close(decoder.landmarks(predicted), at_landmarks, rtol=1e-5, atol=1e-3)
    assert torch.equal(decoder.triangles, face.triangles)
    pixels = decoder.texture_coords * torch.tensor([255.0, -255]) + torch.tensor([0.0, 255])
    torch.testing.assert_close(pixels, face.uv.vertex_pixels, rtol=0, atol=1e-3)

    # Their map is that of a fit, and what the cells of a map say is in it.
    model = face.morphable_model.truncated(NUM_SHAPE, NUM_EXP)
    _, *coefficients = predicted.parameters.tensor_split([NUM_POSE, NUM_POSE + NUM_SHAPE], 1)
    camera = predicted.parameters[:, :12].unflatten(1, (3, 4)) * torch.tensor([[1.0], [-1], [1]])
    found = decoder.position_map(predicted, decoder.mesh(predicted))
    expected = PositionMapDecoder(model, face.uv)(*coefficients, camera)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    cells = decoder.landmark_cells(predicted)
    torch.testing.assert_close(cells, face.uv.landmarks(expected), rtol=1e-5, atol=1e-3)
    assert (cells - at_landmarks)[..., :2].norm(dim=-1).max() > 0.05
    torch.testing.assert_close(
        decoder.face_points(decoder.mesh(predicted)), face.uv.face_points(found)
    )
    assert predicted.at(1).parameters.equal(predicted.parameters[1:])
    with pytest.raises(ValueError, match="lower num_shape and num_exp"):
        FaceDecoder(type("Wide", (Parameters,), {"num_shape": 9})(), face)


def test_a_map_is_its_face_pixels_and_its_cells(face):
    decoder, maps = FaceDecoder(Network(), face), Prediction(torch.rand(2, 3, 256, 256))
    row, column = face.uv.face_mask.nonzero().T
    mesh = decoder.mesh(maps)
    assert not decoder.has_vertices
    assert torch.equal(mesh, maps.position_map[:, :, row, column].transpose(1, 2))
    assert decoder.face_points(mesh) is mesh
    assert torch.equal(decoder.triangles, face.uv.grid_triangles)
    coords = torch.stack([column / 255, 1 - row / 255], 1)
    torch.testing.assert_close(decoder.texture_coords, coords)
    row, column = face.uv.landmark_cells.T
    cells = maps.position_map[:, :, row, column].transpose(1, 2)
    assert torch.equal(decoder.landmarks(maps), cells)
    assert torch.equal(decoder.landmark_cells(maps), cells)
    assert decoder.position_map(maps, mesh) is maps.position_map
    mean = face.uv.at_texels(face.morphable_model.mean[None], face.uv.face_index)
    assert torch.equal(decoder.model_points(maps), mean.expand(2, -1, -1))
