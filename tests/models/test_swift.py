"""The package's own network: whatever numbers its head gives, the pose is rigid."""

import pytest
import torch

from prnet.faces.face import Face
from prnet.geometry.pose_parameters import MEAN_SCALE, split_parameters
from prnet.models.swift import Swift, gram_schmidt
from tests.tiny import NUM_EXP, NUM_SHAPE


def network(**options: object) -> Swift:
    torch.manual_seed(0)
    return Swift(num_shape=NUM_SHAPE, num_exp=NUM_EXP, input_side=64, width=0.5, **options)


def test_two_rows_of_a_rotation_give_it_back_and_any_two_rows_give_one() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 2, 3, generator=generator, dtype=torch.float64)
    rotation = gram_schmidt(*rows.unbind(1))
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), eye)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))
    again = gram_schmidt(3 * rotation[:, 0], rotation[:, 1] - 2 * rotation[:, 0])
    torch.testing.assert_close(again, rotation)


def test_no_predicted_camera_shears(face: Face) -> None:
    net = network()
    with torch.no_grad():
        net.head.weight.normal_(std=1.0)
        net.head.bias.normal_(std=1.0)
    net.set_face(face)
    net.eval()
    with torch.inference_mode():
        prediction = net(torch.rand(4, 3, 64, 64))
    pose = split_parameters(prediction.parameters, NUM_SHAPE).pose
    scaled = prediction.pose.scale[:, None, None] * prediction.pose.rotation
    torch.testing.assert_close(pose[..., :3], scaled, atol=1e-9, rtol=1e-4)
    assert (prediction.pose.scale > 0).all()


def test_an_untrained_network_shows_the_mean_face_upright_in_the_middle() -> None:
    net = network().eval()
    mean = torch.randn(net.num_parameters)
    net.set_statistics(mean, torch.ones(net.num_parameters))
    with torch.inference_mode():
        parameters = net.parameters_of(net.whitened(torch.zeros(1, 3, 64, 64)))
    pose, shape_params, exp_params = split_parameters(parameters, NUM_SHAPE)
    torch.testing.assert_close(
        pose[0, :, :3], MEAN_SCALE * torch.eye(3), atol=0.1 * MEAN_SCALE, rtol=0
    )
    torch.testing.assert_close(pose[0, :2, 3], torch.tensor([127.5, -127.5]), atol=6.0, rtol=0)
    coefficients = torch.cat([shape_params, exp_params], 1)[0]
    torch.testing.assert_close(coefficients, mean[12:], atol=0.2, rtol=0)


def test_the_whitening_scales_coefficients_and_not_the_pose() -> None:
    net = network()
    raw = torch.randn(3, 9 + NUM_SHAPE + NUM_EXP)
    before = net.parameters_of(raw)
    net.set_statistics(torch.zeros(net.num_parameters), torch.full((net.num_parameters,), 2.0))
    after = net.parameters_of(raw)
    torch.testing.assert_close(after[:, :12], before[:, :12])
    torch.testing.assert_close(after[:, 12:], 2 * raw[:, 9:])


def test_size_as_documented_and_sides_that_do_not_divide_are_refused() -> None:
    count = sum(parameter.numel() for parameter in Swift(num_shape=80, num_exp=51).parameters())
    assert 0.70e6 < count < 0.74e6
    with pytest.raises(ValueError, match="input_side: got 120, expected a multiple of 32"):
        Swift(input_side=120)
