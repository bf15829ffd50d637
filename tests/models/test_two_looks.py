"""A face in two crops: what both looks say together."""

import copy

import pytest
import torch
from torch import Tensor

from prnet.geometry import camera
from prnet.geometry.pose_parameters import NUM_POSE, crop_points
from prnet.models.compact import Compact
from prnet.models.regressor import Regressor
from prnet.models.two_looks import mean_of_looks, moved_parameters
from prnet.sample import Pose, Prediction
from tests.tiny import NUM_EXP, NUM_SHAPE


def edges() -> Tensor:
    """From crops to others that are turned, larger and shifted, (2, 4, 4)."""
    center = torch.tensor([[120.0, 131], [140, 115]], dtype=torch.float64)
    size, tilt = torch.tensor([240.0, 290]), torch.tensor([0.3, -0.1])
    return camera.crop_from_image(center, size.double(), tilt=tilt.double())


def parameters() -> Tensor:
    """Two faces, (2, P): one turned to the side, one sheared a little, as cameras may."""
    generator = torch.Generator().manual_seed(0)
    turn = camera.rotation_from_angles(torch.tensor([[0.1, 0.9, -0.2], [0.0, -0.3, 0.1]]).double())
    turn[1, 0, 1] += 0.03
    place = torch.tensor([[120.0], [-130], [40]], dtype=torch.float64).expand(2, 3, 1)
    coefficients = torch.randn(2, NUM_SHAPE + NUM_EXP, generator=generator, dtype=torch.float64)
    return torch.cat([torch.cat([1e-3 * turn, place], 2).flatten(1), coefficients], 1)


@pytest.fixture
def network(face) -> Regressor:
    model = Regressor(num_shape=NUM_SHAPE, num_exp=NUM_EXP, input_side=64)
    model.set_face(face)
    return model.eval()


@pytest.fixture
def bases(face):
    return face.morphable_model.truncated(NUM_SHAPE, NUM_EXP)


def test_parameters_move_with_their_points(bases):
    model, own = copy.deepcopy(bases).double(), parameters()
    moved = moved_parameters(own, NUM_SHAPE, edges())
    expected = camera.transform_points(edges(), crop_points(model, own))
    torch.testing.assert_close(crop_points(model, moved), expected, rtol=0, atol=1e-9)


def test_two_looks_that_agree_are_one(network):
    later = moved_parameters(parameters(), NUM_SHAPE, edges()).float()
    looks = [network.complete(one) for one in (parameters().float(), later)]
    looks = [
        look._replace(uncertainty=torch.tensor([own, 2.0]))
        for look, own in zip(looks, (1, 3), strict=True)
    ]
    mean = mean_of_looks(network, *looks, edges().float())
    torch.testing.assert_close(mean.parameters, looks[1].parameters, rtol=1e-5, atol=2e-4)
    torch.testing.assert_close(mean.pose.rotation, looks[1].pose.rotation, rtol=0, atol=1e-5)
    assert mean.uncertainty.tolist() == [2, 2]


def test_two_looks_meet_half_way(network, bases):
    first = network.complete(parameters().float())
    apart = torch.zeros_like(first.parameters)
    apart[:, 3], apart[:, 7] = 8, -3  # px
    apart[:, NUM_POSE:] = 1
    second = network.complete(first.parameters + apart)
    mean = mean_of_looks(network, first, second, torch.eye(4).expand(2, 4, 4))
    expected = sum(crop_points(bases, look.parameters) for look in (first, second)) / 2
    found = crop_points(bases, mean.parameters)
    torch.testing.assert_close(found[..., :2], expected[..., :2], rtol=0, atol=1e-3)


def test_maps_meet_half_way_and_turn_half_as_far():
    generator = torch.Generator().manual_seed(1)
    maps = 200 * torch.rand(2, 2, 3, 8, 8, generator=generator)

    edge = edges().float()
    # What the edges do, in the y-up plane: turn clockwise, enlarge and move.
    flip = torch.diag(torch.tensor([1.0, -1, 1]))
    linear, shift = flip @ edge[:, :3, :3] @ flip, flip @ edge[:, :3, 3:]
    growth = edge[:, 2, 2]
    turn = camera.rotation_from_angles(torch.tensor([[0.0, 0.4, 0], [0.2, 0, 0]]))
    place = torch.tensor([[120.0, -130, 3], [90, -140, 5]])
    earlier = Pose(torch.full((2,), 1e-3), turn, place)
    # Turned the other way and 10 px away, as the later crop shows it.
    again = linear / growth[:, None, None] @ turn.mT
    moved = (linear @ place[..., None] + shift).squeeze(2)
    later = Pose(growth * 1e-3, again, moved + 10)
    looks = (Prediction(maps[0], pose=earlier), Prediction(maps[1], pose=later))
    mean = mean_of_looks(Compact(width=1, rank=8), *looks, edge)
    there = camera.transform_points(edge, maps[0].flatten(2).mT).mT.unflatten(2, (8, 8))
    torch.testing.assert_close(mean.position_map, (there + maps[1]) / 2)
    torch.testing.assert_close(mean.pose.rotation, linear / growth[:, None, None])
    torch.testing.assert_close(mean.pose.translation, moved + 5)
    # The mean of two that are turned apart is shorter across the axis, by the cosine of half of it.
    cos = torch.tensor([0.4, 0.2]).cos()
    torch.testing.assert_close(mean.pose.scale, growth * 1e-3 * (1 + 2 * cos) / 3)
