"""Normals and visibility against closed forms and slow searches."""

import numpy as np
import pytest
import torch

from prnet.geometry.camera import image_from_model, transform_points
from prnet.geometry.mesh import DEPTH_TOLERANCE, vertex_normals, visible_vertices
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


def exact_visibility(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """True where no triangle of other vertices is in front, by a search over all of them, (N,)."""
    corners = vertices[triangles]
    visible = np.ones(len(vertices), dtype=bool)
    for number, vertex in enumerate(vertices):
        x, y, z = np.moveaxis(corners - vertex, -1, 0)
        pairs = ((1, 2), (2, 0), (0, 1))
        edges = np.stack([x[:, i] * y[:, j] - y[:, i] * x[:, j] for i, j in pairs])
        around = ((edges >= 0).all(0) | (edges <= 0).all(0)) & (edges.sum(0) != 0)
        around &= (triangles != number).all(1)
        above = (edges * z.T).sum(0)[around] / edges.sum(0)[around]
        visible[number] = not (above > 1e-9).any()
    return visible


def test_visibility_matches_the_exact_search_away_from_contours() -> None:
    """A small sphere in front of a large one, and a third behind both."""
    parts = [
        sphere(40.0, (60.2, 59.7, 0.0), rings=24),
        sphere(12.0, (45.4, 50.1, 60.0), rings=24),
        sphere(20.0, (75.3, 70.2, -80.0), rings=24),
    ]
    counts = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    vertices = np.concatenate([vertices for vertices, _ in parts])
    triangles = np.concatenate(
        [mesh + first for (_, mesh), first in zip(parts, counts[:-1], strict=True)]
    )
    found = visible_vertices(*as_batch(vertices, triangles), height=120, width=120)[0].numpy()
    expected = exact_visibility(vertices, triangles)

    # Within 1.5 px of an outline the four pixels around a vertex see different surfaces.
    near_outline = np.zeros(len(vertices), dtype=bool)
    for radius, x, y in ((40.0, 60.2, 59.7), (12.0, 45.4, 50.1)):
        distance = np.hypot(vertices[:, 0] - x, vertices[:, 1] - y)
        near_outline |= np.abs(distance - radius) < 1.5
    np.testing.assert_array_equal(found[~near_outline], expected[~near_outline])
    assert not found[counts[2] :].any()
    assert 0.2 < found[~near_outline].mean() < 0.6
    assert (found == expected).mean() > 0.93


def test_frontal_face_is_seen_and_a_turned_one_hides_its_far_side(face) -> None:
    def seen(yaw: float) -> torch.Tensor:
        edge = image_from_model(
            torch.tensor(8e-4),
            torch.tensor([0.0, yaw, 0]),
            torch.tensor([100.0, 100, 0]),
            torch.tensor(200.0),
        )
        vertices = transform_points(edge, face.morphable_model.mean)[None]
        visible = visible_vertices(vertices, face.triangles, height=200, width=200)
        return visible[0, face.landmark_index]

    assert seen(0.0)[17:].all()
    # Positive yaw turns the nose to the left of the image: that cheek disappears.
    eyes = seen(1.2)[[36, 45]]
    assert eyes.tolist() == [False, True]
    assert seen(-1.2)[[36, 45]].tolist() == [True, False]


def test_vertices_outside_of_the_picture_are_not_visible() -> None:
    rows, columns = torch.meshgrid(torch.arange(-2.0, 9), torch.arange(-3.0, 12), indexing="ij")
    vertices = torch.stack([columns, rows, torch.zeros_like(rows)], -1).reshape(1, -1, 3)
    index = torch.arange(11 * 15).view(11, 15)
    corners = [index[:-1, :-1], index[:-1, 1:], index[1:, :-1]]
    triangles = torch.stack(corners, -1).reshape(-1, 3)
    triangles = torch.cat([triangles, triangles + torch.tensor([1, 15, 0])])
    visible = visible_vertices(vertices, triangles, height=6, width=8)[0].view(11, 15)
    inside = (rows >= 0) & (rows <= 5) & (columns >= 0) & (columns <= 7)
    assert torch.equal(visible, inside)


def test_a_sheet_seen_from_behind_is_not_visible() -> None:
    vertices = torch.tensor([[[1.0, 1, 0], [7, 1, 0], [1, 7, 0]]])
    for triangle, seen in (([0, 1, 2], True), ([0, 2, 1], False)):
        visible = visible_vertices(vertices, torch.tensor([triangle]), height=9, width=9)
        assert visible.tolist() == [[seen] * 3]


def test_depth_tolerance_is_as_stated() -> None:
    """A vertex behind a flat sheet by less than the tolerance still counts as on it."""
    sheet = torch.tensor([[0.0, 0, 0], [20, 0, 0], [0, 20, 0], [20, 20, 0]])
    small = torch.tensor([[5.3, 5.3, 0], [6.3, 5.3, 0], [5.3, 6.3, 0]])
    triangles = torch.tensor([[0, 1, 2], [1, 3, 2], [4, 5, 6]])
    for behind, seen in ((0.9 * DEPTH_TOLERANCE, True), (1.1 * DEPTH_TOLERANCE, False)):
        vertices = torch.cat([sheet, small - torch.tensor([0, 0, behind])])[None]
        visible = visible_vertices(vertices, triangles, height=21, width=21)[0]
        assert visible[4:].tolist() == [seen] * 3


def test_bad_meshes_raise() -> None:
    for function in (
        vertex_normals,
        lambda v, t: visible_vertices(v, t, height=4, width=4),
    ):
        with pytest.raises(ValueError, match="indices from 0 to 5, the mesh has 4 vertices"):
            function(torch.rand(1, 4, 3), torch.tensor([[0, 1, 5]]))
        with pytest.raises(ValueError, match=r"expected \(B, N, 3\)"):
            function(torch.rand(4, 3), torch.tensor([[0, 1, 2]]))
