"""The package's own network: points, and the face nearest to them."""

import pytest
import torch
from torch import Tensor

from prnet.faces.embedded import load_embedded
from prnet.faces.face import Face
from prnet.faces.spread_points import PointFit, spread_points
from prnet.geometry.pose_parameters import (
    NUM_POSE,
    crop_points,
    mirrored_vertices,
    split_parameters,
)
from prnet.models.swift import Swift
from tests.tiny import NUM_EXP, NUM_SHAPE

PAIRS = 10


def network(face: Face, **options: object) -> Swift:
    torch.manual_seed(0)
    sizes = {"num_shape": NUM_SHAPE, "num_exp": NUM_EXP, "input_side": 80, "trim": 8}
    net = Swift(**sizes, width=0.5, pairs=PAIRS, **options)
    net.set_face(face)
    return net


def spreads(face: Face) -> tuple[Tensor, Tensor]:
    """A mean and a deviation of the coefficients."""
    count = face.morphable_model.num_shape + face.morphable_model.num_exp
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, generator=generator), torch.rand(count, generator=generator) + 0.5


def some_parameters(face: Face) -> Tensor:
    """Poses to profile and past it, with coefficients of `spreads`, (6, P)."""
    mean, std = spreads(face)
    generator = torch.Generator().manual_seed(2)
    turns = torch.linalg.qr(torch.randn(6, 3, 3, generator=generator))[0]
    turns = turns * torch.linalg.det(turns).sign()[:, None, None]
    scale = 1e-3 * (1 + torch.rand(6, 1, 1, generator=generator))
    shift = torch.tensor([127.0, -120.0, 4.0]) + 9 * torch.randn(6, 3, generator=generator)
    pose = torch.cat([scale * turns, shift[..., None]], -1).flatten(1)
    return torch.cat([pose, mean + std * torch.randn(6, len(mean), generator=generator)], 1)


def test_the_fit_finds_pose_and_coefficients_of_exact_points(face: Face) -> None:
    index = spread_points(face, PAIRS)
    model = face.morphable_model.at_vertices(index)
    true = some_parameters(face)
    fit = PointFit(model, *spreads(face), noise=1e-2, rounds=60)
    found = fit(crop_points(model, true))
    torch.testing.assert_close(
        crop_points(model, found), crop_points(model, true), atol=0.3, rtol=0
    )


def test_a_noisier_fit_stays_nearer_to_the_mean_and_never_shears(face: Face) -> None:
    index = spread_points(face, PAIRS)
    model = face.morphable_model.at_vertices(index)
    mean, std = spreads(face)
    true = some_parameters(face)
    points = crop_points(model, true) + 3 * torch.randn(6, len(index), 3)
    away = []
    for noise in (1e2, 1e4, 1e8):
        found = PointFit(model, mean, std, noise=noise)(points)
        away.append(((found[:, NUM_POSE:] - mean) / std).norm())
        block = split_parameters(found, NUM_SHAPE).pose[..., :3]
        gram = block @ block.transpose(1, 2)
        scale = gram.diagonal(dim1=1, dim2=2).mean(1)
        rigid = scale[:, None, None] * torch.eye(3)
        torch.testing.assert_close(gram, rigid, atol=1e-9, rtol=1e-3)
        assert (torch.linalg.det(block) > 0).all()
    assert away[0] > away[1] > away[2]
    assert away[2] < 1e-3


def test_spread_points_are_symmetric_distinct_and_far_apart(face: Face) -> None:
    index = spread_points(face, PAIRS)
    assert index.tolist()[:68] == face.landmark_index.tolist()
    right, left = index[68:].chunk(2)
    assert (
        mirrored_vertices(face.morphable_model, face.mirror_index)[right].tolist() == left.tolist()
    )
    assert len(set(right.tolist())) == PAIRS
    assert not face.regions["rest"][right].any()


def test_in_training_points_leave_the_network_and_in_eval_mode_a_face(face: Face) -> None:
    net = network(face)
    net.set_statistics(torch.zeros(net.num_parameters), torch.ones(net.num_parameters))
    image = torch.rand(2, 3, 64, 64)
    training = net(image)
    assert training.parameters is None
    assert training.points.shape == (2, 68 + 2 * PAIRS, 3)
    torch.testing.assert_close(training.points[..., :2], torch.full((2, 68 + 2 * PAIRS, 2), 127.5))
    with torch.no_grad():
        net.head.weight.normal_(std=0.05)
    net.eval()
    with torch.inference_mode():
        prediction = net(image)
        points = net.points_of(net.whitened(net.prepare(image)))
    model = face.morphable_model.at_vertices(net.point_index)
    nearest = PointFit(
        model, torch.zeros(NUM_SHAPE + NUM_EXP), torch.ones(NUM_SHAPE + NUM_EXP), noise=4e3
    )
    expected = nearest(points)
    torch.testing.assert_close(prediction.parameters[:, :11], expected[:, :11])
    scaled = prediction.pose.scale[:, None, None] * prediction.pose.rotation
    block = split_parameters(prediction.parameters, NUM_SHAPE).pose[..., :3]
    torch.testing.assert_close(block, scaled, atol=1e-8, rtol=1e-3)


def test_a_mirrored_image_has_the_mirrored_points() -> None:
    torch.manual_seed(0)
    face = load_embedded()
    net = Swift(input_side=80, trim=8, width=0.5, pairs=PAIRS)
    net.set_face(face)
    other_side = mirrored_vertices(face.morphable_model, face.mirror_index)[net.point_index]
    assert net.point_index[net.mirrored].tolist() == other_side.tolist()
    with torch.no_grad():
        net.head.weight.normal_(std=0.05)
    net.eval()
    image = net.prepare(torch.rand(2, 3, 80, 80))
    seen, in_mirror = (net.points_of(net.whitened(given)) for given in (image, image.flip(3)))
    expected = seen[:, net.mirrored] * torch.tensor([-1, 1, 1]) + torch.tensor([255, 0, 0])
    torch.testing.assert_close(in_mirror, expected, atol=1e-3, rtol=0)
    net.mirror_average = False
    alone, in_mirror = (net.points_of(net.whitened(given)) for given in (image, image.flip(3)))
    turned_back = in_mirror[:, net.mirrored] * torch.tensor([-1, 1, 1]) + torch.tensor([255, 0, 0])
    torch.testing.assert_close(seen, (alone + turned_back) / 2, atol=1e-3, rtol=0)
    assert not torch.allclose(seen, alone, atol=1e-2)
    assert len(net.layers(image)) == 1


def test_uncertainty_is_how_far_apart_the_two_looks_are(face: Face) -> None:
    net = network(face).eval()
    with torch.no_grad():
        net.head.weight.normal_(std=0.05)
        net.head.bias[:204].uniform_(-0.5, 0.5)
    image = torch.rand(2, 3, 80, 80)
    net.mirror_average = False
    looks = torch.stack(
        [net.points_of(net.whitened(net.prepare(x))) for x in (image, image.flip(3))]
    )
    assert net(image).uncertainty is None
    net.mirror_average = True
    looks[1] = looks[1, :, net.mirrored] * torch.tensor([-1, 1, 1]) + torch.tensor([255, 0, 0])
    one, other = looks[:, :, :68, :2]
    middle = (one + other) / 2
    box = (middle.amax(1) - middle.amin(1)).prod(1).sqrt()
    expected = 100 * (one - other).norm(dim=2).mean(1) / box
    torch.testing.assert_close(net(image).uncertainty, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(net(image.flip(3)).uncertainty, expected, rtol=1e-4, atol=0)
    assert net.train()(image).uncertainty is None


def test_the_fit_follows_the_whitening_and_the_points_follow_the_file(face: Face) -> None:
    net = network(face).eval()
    with torch.no_grad():
        net.head.weight.normal_(std=0.05)
    image = torch.rand(1, 3, 64, 64)
    before = net(image).parameters
    net.train()
    net.set_statistics(torch.ones(net.num_parameters), torch.full((net.num_parameters,), 0.1))
    assert not torch.allclose(net.eval()(image).parameters, before, atol=1e-3)

    other = network(face)
    other.point_index.copy_(net.point_index.flip(0))
    net.load_state_dict(other.state_dict())
    net.set_face(face)
    torch.testing.assert_close(net.point_index, other.point_index)


def test_size_as_documented_and_wrong_options_are_refused() -> None:
    net = Swift(num_shape=80, num_exp=51)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert 0.95e6 < count < 1.05e6
    with pytest.raises(ValueError, match="got 128 and 10, expected input_side - 2 trim"):
        Swift(input_side=128)
    with pytest.raises(ValueError, match="noise_mm: got 0"):
        Swift(noise_mm=0)
    with pytest.raises(ValueError, match="call set_face before eval mode"):
        net.eval()(torch.rand(1, 3, 128, 128))


def test_what_is_trimmed_is_not_seen_and_the_rest_is(face: Face) -> None:
    net = network(face).eval()
    with torch.no_grad():
        net.head.weight.normal_(std=0.05)
    image = torch.rand(1, 3, 80, 80)
    frame = torch.ones(80, 80, dtype=torch.bool)
    frame[8:-8, 8:-8] = False
    points = net(image).parameters
    torch.testing.assert_close(net(image * ~frame).parameters, points, atol=0, rtol=0)
    inner = frame.clone()
    inner[8] = True
    assert not torch.equal(net(image * ~inner).parameters, points)
