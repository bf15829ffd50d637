"""Coefficients of networks of maps: known ones come back from their map."""

import numpy as np
import pytest
import torch

from prnet.faces.face import Face
from prnet.faces.loading import load_face
from prnet.reconstruction.arkit import BoundedExpression
from prnet.reconstruction.coefficients import named_coefficients
from prnet.reconstruction.reconstructor import FaceReconstruction
from tests.known_faces import known_face


@pytest.fixture(scope="module")
def embedded():
    return load_face("embedded")


@pytest.mark.parametrize("yaw", [0.0, -70.0])
def test_known_coefficients_are_recovered_from_their_map(embedded, yaw):
    truth = known_face(embedded, seed=3, angles_deg=(-10.0, yaw, 15.0))
    of_map = known_face(embedded, seed=3, angles_deg=(-10.0, yaw, 15.0), of_map=True)
    assert of_map.exp_params is None
    found = named_coefficients(of_map)
    assert found.names == embedded.exp_names
    assert found.exp_params.min() >= 0
    assert found.exp_params.max() <= 1
    # Shapes that hardly move the face's skin, as of the eyeballs, are left to the prior.
    visible = np.array([not name.startswith("eyeLook") for name in found.names])
    error = np.abs(found.exp_params - truth.exp_params)[visible]
    assert error.mean() < 0.04
    # Ears and neck are not in the learned part of a map.
    here, there, mean = (on_map(embedded, *pair) for pair in (found[1:], coefficients(truth), ZERO))
    distance = (here - there).norm(dim=1).mean()
    assert distance < 300  # micrometre
    assert distance < 0.1 * (mean - there).norm(dim=1).mean()


ZERO = np.zeros(80, np.float32), np.zeros(51, np.float32)


def coefficients(face: FaceReconstruction) -> tuple[np.ndarray, np.ndarray]:
    return face.shape_params, face.exp_params


def on_map(face: Face, shape_params: np.ndarray, exp_params: np.ndarray) -> torch.Tensor:
    """The face pixels in the model frame, (P, 3)."""
    pair = (torch.from_numpy(params)[None] for params in (shape_params, exp_params))
    return face.uv.at_texels(face.morphable_model(*pair), face.uv.face_index)[0]


def test_predicted_coefficients_are_bounded_and_their_shape_stays(embedded):
    face = known_face(embedded, seed=1)
    face.exp_params[:3] = [-0.4, 1.6, 0.3]
    found = named_coefficients(face)
    np.testing.assert_array_equal(found.shape_params, face.shape_params)
    np.testing.assert_allclose(
        found.exp_params, BoundedExpression(embedded)(face.exp_params), atol=1e-6
    )


def test_maps_of_a_face_without_names_have_none(face):
    with pytest.raises(ValueError, match="face=bfm: its expressions have no names"):
        named_coefficients(known_face(face, of_map=True))
