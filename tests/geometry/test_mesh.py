"""Normals against closed forms."""

import numpy as np
import pytest
import torch

from prnet.geometry.camera import image_from_model, transform_points
from prnet.geometry.mesh import vertex_normals
from tests.tiny import sphere


def as_batch(vertices: np.ndarray, triangles: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(vertices)[None], torch.from_numpy(triangles)


def frontal_image(face) -> torch.Tensor:
    """The tiny face's mean in the middle of a picture of 200 x 200 px, (1, N, 3)."""
    edge = image_from_model(
        torch.tensor(8e-4), torch.zeros(3), torch.tensor([100.0, 100, 0]), torch.tensor(200.0)
    )
    return transform_points(edge, face.morphable_model.mean)[None]


def test_normals_of_a_sphere_point_outward() -> None:
    center = np.array([3.0, -2.0, 7.0])
    vertices, triangles = as_batch(*sphere(5.0, tuple(center)))
    radial = (vertices - torch.from_numpy(center)) / 5
    assert (vertex_normals(vertices, triangles) - radial).norm(dim=-1).max() < 0.03


def test_normals_are_weighted_by_area() -> None:
    random = np.random.default_rng(0)
    vertices, triangles = random.normal(size=(12, 3)), random.integers(0, 12, (30, 3))
    expected = np.zeros((12, 3))
    for a, b, c in triangles:
        normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        for corner in (a, b, c):
            expected[corner] += normal
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = vertex_normals(*as_batch(vertices, triangles))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_face_is_outward_in_the_image_and_inward_in_the_model_frame(face) -> None:
    tip = int(face.landmark_index[30])
    image = vertex_normals(frontal_image(face), face.triangles)[0]
    model = vertex_normals(face.morphable_model.mean[None], face.triangles)[0]
    assert image[tip, 2] > 0.5
    assert model[tip, 2] < -0.5
    # The flip of y turns the winding over: F n_image = -n_model.
    torch.testing.assert_close(image * torch.tensor([1.0, -1, 1]), -model, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_normals_do_not_depend_on_the_unit(scale: float) -> None:
    vertices, triangles = as_batch(*sphere(1.0, (0, 0, 0)))
    normals = vertex_normals((scale * vertices).float(), triangles)
    torch.testing.assert_close(
        normals, vertex_normals(vertices.float(), triangles), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(normals.shape[:2]))


def test_vertices_without_area_have_no_normal_and_a_finite_gradient() -> None:
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 2, 2], [3, 3, 3]]])
    vertices.requires_grad_()
    triangles = torch.tensor([[0, 1, 2], [3, 3, 4]])
    normals = vertex_normals(vertices, triangles)
    assert torch.equal(normals[0, 3:], torch.zeros(2, 3))
    torch.testing.assert_close(normals[0, :3], torch.tensor([[0.0, 0, 1]]).expand(3, 3))
    normals[..., 0].sum().backward()
    assert vertices.grad.isfinite().all()


def test_normals_have_the_right_gradient() -> None:
    random = torch.Generator().manual_seed(0)
    vertices = torch.randn(2, 6, 3, generator=random, dtype=torch.float64).requires_grad_()
    triangles = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 5], [5, 0, 2]])
    assert torch.autograd.gradcheck(lambda points: vertex_normals(points, triangles), [vertices])


def test_bad_meshes_raise() -> None:
    with pytest.raises(ValueError, match="indices from 0 to 5, the mesh has 4 vertices"):
        vertex_normals(torch.rand(1, 4, 3), torch.tensor([[0, 1, 5]]))
    with pytest.raises(ValueError, match=r"expected \(B, N, 3\)"):
        vertex_normals(torch.rand(4, 3), torch.tensor([[0, 1, 2]]))
