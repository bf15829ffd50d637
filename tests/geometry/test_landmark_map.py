"""The landmark map: exact pixels, clipping, invisible points, and landmarks under a mirror."""

import numpy as np
import pytest
import torch

from prnet.geometry.landmark_map import (
    BACKGROUND,
    MIRRORED_68,
    POINT,
    landmark_map,
    move_landmarks,
    points_18,
    resize_points,
    swap_sides,
    visible_18,
)
from tests.tiny import landmark_template

# 2DASL's test code, indices into the 68 from 0: a tuple is a middle.
PUBLISHED = [
    17,
    19,
    21,
    22,
    24,
    26,
    36,
    (37, 40),
    39,
    42,
    (43, 46),
    45,
    31,
    30,
    35,
    48,
    (62, 66),
    54,
]


def slow_map(points: np.ndarray, size: int, least: int = 0) -> np.ndarray:  # (18, 2)
    """The map as the published code makes it, whose `least` is 1, written as a loop."""
    drawn = np.full((size, size), -1.0)
    for x, y in points:
        column, row = (min(max(int(np.floor(value)), least), size - 1) for value in (x, y))
        drawn[row, column] = 1
    return drawn


def test_the_18_points_are_the_published_ones():
    points = torch.from_numpy(np.random.default_rng(0).uniform(0, 120, (3, 68, 3)))
    expected = torch.stack([points[:, np.atleast_1d(part)].mean(1) for part in PUBLISHED], 1)
    torch.testing.assert_close(points_18(points), expected)


def test_a_middle_is_visible_where_both_its_points_are():
    visible = torch.ones(1, 68, dtype=torch.bool)
    visible[0, [5, 17, 40]] = False
    assert (~visible_18(visible)[0]).nonzero().flatten().tolist() == [0, 7]


def test_map_has_the_pixels_the_points_lie_in():
    points = np.random.default_rng(1).uniform(-0.5, 19.5, (4, 18, 2))
    visible = torch.ones(4, 18, dtype=torch.bool)
    drawn = landmark_map(torch.from_numpy(points), visible, size=20)
    assert drawn.shape == (4, 1, 20, 20)
    assert drawn.dtype == torch.float32
    for one, own in zip(drawn[:, 0].numpy(), points, strict=True):
        np.testing.assert_array_equal(one, slow_map(own + 0.5, 20))


def test_the_released_map_rounds_down():
    """And knows no first row nor column, not even for points outside."""
    points = np.random.default_rng(1).uniform(-2, 22, (4, 18, 2))
    visible = torch.ones(4, 18, dtype=torch.bool)
    drawn = landmark_map(torch.from_numpy(points), visible, size=20, rounding="floor")
    for one, own in zip(drawn[:, 0].numpy(), points, strict=True):
        np.testing.assert_array_equal(one, slow_map(own, 20, least=1))
    assert (drawn[:, :, 0] == BACKGROUND).all()


@pytest.mark.parametrize(
    ("point", "pixel"),
    [
        ((3.0, 5.0), (3, 5)),
        ((3.49, 4.51), (3, 5)),
        ((3.5, 5.49), (4, 5)),
        ((-0.6, 2.0), (0, 2)),
        ((-50.0, 200.0), (0, 9)),
        ((9.6, -3.0), (9, 0)),
    ],
)
def test_points_outside_go_to_the_border(point, pixel):
    drawn = landmark_map(
        torch.tensor(point).expand(1, 18, 2), torch.ones(1, 18, dtype=torch.bool), size=10
    )
    assert (drawn == POINT).nonzero().tolist() == [[0, 0, pixel[1], pixel[0]]]
    assert (drawn == BACKGROUND).sum() == 99


def test_invisible_points_leave_no_pixel_and_no_gradient_passes():
    points = torch.rand(2, 18, 2, requires_grad=True)
    visible = torch.zeros(2, 18, dtype=torch.bool)
    visible[1, 3] = True
    drawn = landmark_map(8 * points, visible, size=8)
    assert not drawn.requires_grad
    assert [(one == POINT).sum().item() for one in drawn] == [0, 1]


def test_resized_points_keep_their_place_in_the_picture():
    """The picture's edges, at -0.5 and side - 0.5, stay edges, and z is scaled."""
    points = torch.tensor([[-0.5, 255.5, 10.0], [127.5, 127.5, 0.0]])
    expected = torch.tensor([[-0.5, 119.5, 10 * 120 / 256], [59.5, 59.5, 0.0]])
    torch.testing.assert_close(resize_points(points, source=256, target=120), expected)


def test_mirrored_landmarks_are_those_of_the_mirrored_face():
    """A symmetric face in a mirror is itself, each landmark in its own place."""
    assert sorted(MIRRORED_68) == list(range(68))
    face = torch.from_numpy(landmark_template())[None] * 200
    mirror = torch.eye(4, dtype=torch.float64)
    mirror[0, 0], mirror[0, 3] = -1, 200
    moved = move_landmarks(face, mirror[None], torch.tensor([True]))
    torch.testing.assert_close(moved[:, :60], face[:, :60])


def test_moved_landmarks_follow_the_crop():
    random = torch.Generator().manual_seed(0)
    landmarks = 256 * torch.rand(2, 68, 2, generator=random)
    landmarks[0, 4] = torch.nan
    moved = torch.eye(4).repeat(2, 1, 1)
    moved[:, :2, :2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    moved[:, 0, 3] = 7
    result = move_landmarks(landmarks, moved)
    assert result[0].isnan().all(1).nonzero().flatten().tolist() == [4]
    x, y = landmarks[1, 10]
    expected = torch.stack([0.8 * x - 0.6 * y + 7, 0.6 * x + 0.8 * y])
    torch.testing.assert_close(result[1, 10], expected)
    swapped = swap_sides(result, torch.tensor([False, True]))
    torch.testing.assert_close(swapped[1, 36], result[1, 45])
    torch.testing.assert_close(swapped[1, 10], result[1, 6])
    torch.testing.assert_close(swapped[0], result[0], equal_nan=True)
