"""Poses, projections, pixel origins and crops against published values and written-out formulas."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from prnet.geometry.camera import (
    PIXEL_ORIGINS,
    angles_from_rotation,
    box_from_points,
    convert_origin,
    crop_from_image,
    image_from_model,
    invert_affine,
    pixel_origin_shift,
    rotation_from_angles,
    transform_points,
)
from tests.tiny import project, tiny_rotation


def float64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_angles(count: int, *, yaw_limit: float = np.pi / 2, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    limits = np.array([np.pi, yaw_limit, np.pi])
    return torch.from_numpy(random.uniform(-limits, limits, (count, 3)))


# Rotation.


def test_rotation_has_the_published_value() -> None:
    expected = [
        [0.93629336, 0.28962948, -0.19866933],
        [-0.27509585, 0.95642509, 0.0978434],
        [0.21835066, -0.03695701, 0.97517033],
    ]
    found = rotation_from_angles(float64(0.1, 0.2, 0.3))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)


def test_rotation_is_the_product_of_the_clockwise_elements() -> None:
    for angles in random_angles(50, yaw_limit=9.0):
        np.testing.assert_allclose(
            rotation_from_angles(angles).numpy(), tiny_rotation(*angles.tolist()), atol=1e-14
        )


def test_rotation_is_the_transpose_of_the_standard_zyx_matrix() -> None:
    angles = random_angles(50)
    standard = Rotation.from_euler("xyz", angles.numpy()).as_matrix()  # Rz Ry Rx
    np.testing.assert_allclose(rotation_from_angles(angles).mT.numpy(), standard, atol=1e-14)


def test_angles_are_recovered_exactly() -> None:
    angles = random_angles(1000).unflatten(0, (50, 20))
    torch.testing.assert_close(
        angles_from_rotation(rotation_from_angles(angles)), angles, rtol=0, atol=1e-10
    )


def test_angles_of_many_turns_come_back_as_the_same_rotation() -> None:
    angles = random_angles(200, yaw_limit=17.0) * 5
    rotation = rotation_from_angles(angles)
    found = angles_from_rotation(rotation)
    assert (found[:, 1].abs() <= np.pi / 2).all()
    torch.testing.assert_close(rotation_from_angles(found), rotation, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_gimbal_keeps_the_rotation(sign: float, dtype: torch.dtype) -> None:
    angles = random_angles(100).to(dtype)
    angles[:, 1] = sign * torch.pi / 2
    rotation = rotation_from_angles(angles)
    found = angles_from_rotation(rotation)
    assert (found[:, 2] == 0).all()
    assert (found[:, 1] * sign > 1.57).all()
    tolerance = 10 * torch.finfo(dtype).eps ** 0.5
    torch.testing.assert_close(rotation_from_angles(found), rotation, rtol=0, atol=tolerance)


@pytest.mark.parametrize("distance", [1e-9, 1e-7, 1e-5, 1e-3])
def test_rotation_survives_near_the_gimbal(distance: float) -> None:
    angles = random_angles(100)
    angles[:, 1] = angles[:, 1].sign() * (np.pi / 2 - distance)
    rotation = rotation_from_angles(angles)
    found = rotation_from_angles(angles_from_rotation(rotation))
    torch.testing.assert_close(found, rotation, rtol=0, atol=1e-7)


def test_angle_outside_the_domain_of_asin_by_rounding_is_not_nan() -> None:
    rotation = rotation_from_angles(torch.tensor([0.3, torch.pi / 2, 0.2]))
    rotation[0, 2] = -1.0000001
    assert angles_from_rotation(rotation).isfinite().all()


@pytest.mark.parametrize(
    ("angle", "point", "moves_to"),
    [
        (0, (0.0, 0, 1), (0, -1)),  # pitch: the nose goes up
        (1, (0.0, 0, 1), (-1, 0)),  # yaw: the nose goes to the left
        (2, (0.0, 1, 0), (1, 0)),  # roll: the forehead goes to the right, clockwise
    ],
    ids=["pitch", "yaw", "roll"],
)
def test_positive_angles_turn_the_face_as_documented(angle, point, moves_to) -> None:
    angles = torch.zeros(3)
    before, after = (
        transform_points(
            image_from_model(torch.tensor(10.0), turned, torch.zeros(3), torch.tensor(100.0)),
            torch.tensor([point]),
        )[0, :2]
        for turned in (angles, angles.index_fill(0, torch.tensor(angle), 0.2))
    )
    moved = after - before
    for component, expected in zip(moved.tolist(), moves_to, strict=True):
        assert np.sign(component) == expected or (expected == 0 and abs(component) < 0.3)


# Projection and pixel origins.


# (x, y) of a point that projects to X, Y in the y-up plane of h rows.
ORIGIN_TABLE = {
    "matlab": lambda x, y, h: (x, h + 1 - y),
    "zero_based": lambda x, y, h: (x - 1, h - y),
    "face3d": lambda x, y, h: (x, h - 1 - y),
    "sadrnet": lambda x, y, h: (x, h - y),
}


@pytest.mark.parametrize("origin", sorted(PIXEL_ORIGINS))
def test_projection_matches_the_written_formula_in_every_origin(origin: str) -> None:
    random = np.random.default_rng(1)
    vertices = random.normal(0, 5e4, (40, 3))
    for scale in (1.3e-3, -1.3e-3):
        pose = np.array([*random.uniform(-4, 4, 3), *random.uniform(0, 450, 3), scale])
        plane = project(vertices, pose)
        x, y = ORIGIN_TABLE[origin](plane[:, 0], plane[:, 1], 450.0)
        matrix = image_from_model(
            float64(scale)[0],
            torch.from_numpy(pose[:3]),
            torch.from_numpy(pose[3:6]),
            float64(450)[0],
            pixel_origin=origin,
        )
        found = transform_points(matrix, torch.from_numpy(vertices)).numpy()
        np.testing.assert_allclose(found, np.stack([x, y, plane[:, 2]], -1), atol=1e-10)
        assert (torch.linalg.det(matrix) < 0) == (scale > 0)


def test_table_has_every_origin_and_zero_based_is_the_default() -> None:
    assert set(ORIGIN_TABLE) == set(PIXEL_ORIGINS)
    arguments = (float64(1)[0], torch.zeros(3).double(), torch.zeros(3).double(), float64(9)[0])
    expected = image_from_model(*arguments, pixel_origin="zero_based")
    assert torch.equal(image_from_model(*arguments), expected)
    assert PIXEL_ORIGINS["zero_based"] == (0, 0)


@pytest.mark.parametrize("source", sorted(PIXEL_ORIGINS))
@pytest.mark.parametrize("target", sorted(PIXEL_ORIGINS))
def test_origin_shift_converts_between_all_pairs(source: str, target: str) -> None:
    start = np.array(ORIGIN_TABLE[source](123.0, 45.0, 450.0))
    end = np.array(ORIGIN_TABLE[target](123.0, 45.0, 450.0))
    np.testing.assert_array_equal(start + pixel_origin_shift(source, target), end)
    points = torch.from_numpy(np.array([[*start, 7.0]])).expand(2, 3, 3)
    expected = torch.from_numpy(np.array([*end, 7.0])).expand(2, 3, 3)
    assert torch.equal(convert_origin(points, source, target), expected)
    assert torch.equal(convert_origin(points[..., :2], source, target), expected[..., :2])


def test_unknown_origin_raises() -> None:
    for pair in (("opencv", "matlab"), ("matlab", "opencv")):
        with pytest.raises(ValueError, match="got 'opencv', expected one of .*zero_based"):
            pixel_origin_shift(*pair)
    with pytest.raises(ValueError, match="got 'Matlab', expected one of"):
        image_from_model(
            torch.tensor(1.0),
            torch.zeros(3),
            torch.zeros(3),
            torch.tensor(9.0),
            pixel_origin="Matlab",
        )


def test_projection_of_a_batch_equals_its_items() -> None:
    random = torch.Generator().manual_seed(0)
    scale = torch.rand(2, 3, generator=random)
    angles, translation = torch.rand(2, 2, 3, 3, generator=random).unbind()
    height = 100 * torch.rand(2, 3, generator=random)
    together = image_from_model(scale, angles, translation, height, pixel_origin="face3d")
    assert together.shape == (2, 3, 4, 4)
    for i, j in itertools.product(range(2), range(3)):
        alone = image_from_model(
            scale[i, j], angles[i, j], translation[i, j], height[i, j], pixel_origin="face3d"
        )
        assert torch.equal(together[i, j], alone)


def test_projection_has_the_right_gradient() -> None:
    random = torch.Generator().manual_seed(0)
    inputs = [
        torch.rand(*shape, generator=random, dtype=torch.float64, requires_grad=True)
        for shape in ((2,), (2, 3), (2, 3), (2,))
    ]
    assert torch.autograd.gradcheck(image_from_model, inputs)


# Crops.


@pytest.mark.parametrize("span", [255.0, 256.0])
def test_crop_maps_the_square_to_the_span(span: float) -> None:
    center, size = float64(130.5, 88), float64(200)[0]
    matrix = crop_from_image(center, size, span=span)
    square = torch.tensor([[-0.5, -0.5, 0], [0.5, 0.5, 0.5]]).double() * size
    square[:, :2] += center
    expected = torch.tensor([[0.0, 0, 0], [span, span, span / 2]]).double()
    torch.testing.assert_close(transform_points(matrix, square), expected)


def test_default_crop_is_prns_three_point_similarity() -> None:
    """PRN maps the square's top left, bottom left and top right to (0, 0), (0, 255), (255, 0)."""
    left, top, size = 31.5, -12.0, 180.0
    corners = np.float32([[left, top], [left, top + size], [left + size, top]])
    oracle = cv2.getAffineTransform(corners, np.float32([[0, 0], [0, 255], [255, 0]]))
    matrix = crop_from_image(float64(left + size / 2, top + size / 2), float64(size)[0]).numpy()
    np.testing.assert_allclose(matrix[:2, [0, 1, 3]], oracle, atol=1e-5)
    assert matrix[2, 2] == matrix[0, 0]
    np.testing.assert_array_equal(matrix[2, [0, 1, 3]], 0)
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])


def test_spans_differ_by_their_ratio() -> None:
    center, size = float64(10, 20), float64(77)[0]
    narrow = crop_from_image(center, size, span=255.0)
    wide = crop_from_image(center, size, span=256.0)
    torch.testing.assert_close(narrow[:3] * (256 / 255), wide[:3])


def test_crop_and_its_inverse_cancel() -> None:
    random = torch.Generator().manual_seed(0)
    center = 400 * torch.rand(5, 2, generator=random, dtype=torch.float64)
    size = 50 + 300 * torch.rand(5, generator=random, dtype=torch.float64)
    crop = crop_from_image(center, size)
    points = 300 * torch.randn(5, 9, 3, generator=random, dtype=torch.float64)
    there = transform_points(crop, points)
    torch.testing.assert_close(transform_points(invert_affine(crop), there), points)


def test_inverse_of_any_affine_edge() -> None:
    random = torch.Generator().manual_seed(1)
    matrix = torch.randn(3, 4, 4, 4, generator=random, dtype=torch.float64)
    matrix[..., 3, :] = float64(0, 0, 0, 1)
    before = matrix.clone()
    inverse = invert_affine(matrix)
    identity = torch.eye(4).double().expand(3, 4, 4, 4)
    torch.testing.assert_close(matrix @ inverse, identity)
    torch.testing.assert_close(inverse @ matrix, identity)
    assert (inverse[..., 3, :] == float64(0, 0, 0, 1)).all()
    assert torch.equal(matrix, before)


def test_edges_chain_by_matrix_product() -> None:
    random = torch.Generator().manual_seed(2)
    points = 1e5 * torch.randn(2, 7, 3, generator=random, dtype=torch.float64)
    image = image_from_model(
        float64(1e-3, 2e-3),
        torch.rand(2, 3, generator=random).double(),
        100 * torch.rand(2, 3, generator=random).double(),
        float64(300, 200),
    )
    crop = crop_from_image(float64(90, 80, 70, 60).view(2, 2), float64(120, 150))
    torch.testing.assert_close(
        transform_points(crop @ image, points),
        transform_points(crop, transform_points(image, points)),
    )


def test_box_is_the_centre_and_the_mean_side() -> None:
    points = torch.tensor([[[10.0, 5, 99], [30, 9, -99], [20, 45, 0]]])
    center, side = box_from_points(points)
    assert center.tolist() == [[20.0, 25.0]]
    assert side.tolist() == [30.0]
    flat_center, flat_side = box_from_points(points[..., :2])
    assert torch.equal(flat_center, center)
    assert torch.equal(flat_side, side)
