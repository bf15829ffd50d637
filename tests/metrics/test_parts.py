"""The parts of an error: each part alone is found under its own name, and nowhere else."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from prnet.metrics.nme import bbox_size, nme
from prnet.metrics.parts import HOLDINGS, PARTS, REGIONS, error_parts, mean_head, moved_flat
from prnet.metrics.pose import rotation_vector_deg
from tests.tiny import tiny_face

COUNT = 7


def frontal() -> torch.Tensor:
    """The tiny face's 68 points in px of a picture, y down, (68, 3)."""
    return torch.from_numpy(
        tiny_face().vertices(np.zeros(4), np.zeros(3))[:68] * [1e-3, -1e-3, 1e-3]
    )


def turned(points: torch.Tensor, turns: np.ndarray, *, scale=1.0, shift=(0, 0, 0)) -> torch.Tensor:
    """The points under each of the rotation vectors (B, 3), degrees; (B, 68, 3)."""
    matrices = torch.from_numpy(Rotation.from_rotvec(turns, degrees=True).as_matrix())
    return scale * points @ matrices.mT + torch.tensor(shift, dtype=torch.float64)


def truths(seed: int = 0) -> torch.Tensor:
    turns = np.random.default_rng(seed).uniform(-40, 40, (COUNT, 3))
    return turned(frontal(), turns, scale=1.3, shift=(100, 120, 30))


def head():
    return mean_head(turned(frontal(), np.zeros((3, 3)), shift=(5, 6, 7)))


def test_axes_point_right_up_and_out_of_the_face():
    axes = head().axes
    assert torch.allclose(axes @ axes.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert axes[0, 0] > 0.9  # x right
    assert axes[1, 1] < -0.9  # y down
    assert axes[2, 2] > 0.9  # z toward the camera


def test_a_perfect_prediction_has_no_part():
    truth = truths()
    parts = error_parts(truth, truth, head())
    assert list(parts) == [*PARTS, *HOLDINGS]
    assert all(values.shape == (COUNT,) for values in parts.values())
    assert (parts.pop("size") - 1).abs().max() < 1e-9
    for name in HOLDINGS:
        parts.pop(name)
    assert max(values.abs().max() for values in parts.values()) < 1e-6


def test_a_shift_is_all_translation():
    truth = truths()
    size = bbox_size(truth)
    parts = error_parts(truth + torch.tensor([3.0, -4.0, 9.0]), truth, head())
    for name, px in (("as_it_is", 5), ("shift", 5), ("shift_right", 3), ("shift_down", -4)):
        assert torch.allclose(parts[name], 100 * px / size)
    assert torch.allclose(parts["true_shape_in_predicted_pose"], parts["as_it_is"])
    for name in ("true_translation", "true_similarity_2d", "true_similarity_3d", "rotation"):
        assert parts[name].abs().max() < 1e-6


@pytest.mark.parametrize(("axis", "name"), [(0, "pitch"), (1, "yaw"), (2, "roll")])
def test_a_turn_about_an_axis_of_the_head_is_that_axis_alone(axis, name):
    """Whatever the true pose: the axes are the head's, not the picture's."""
    truth, own = truths(), head()
    for degrees in (8.0, -25.0):
        about = turned(own.points, (degrees * own.axes[axis].numpy())[None])[0]
        centred = about - about.mean(0)
        poses = np.random.default_rng(0).uniform(-40, 40, (COUNT, 3))
        truth = turned(own.points - own.points.mean(0), poses)
        parts = error_parts(turned(centred, poses), truth, own)
        assert torch.allclose(parts[f"{name}_signed"], torch.full((COUNT,), degrees).double())
        assert torch.allclose(parts["rotation"], torch.full((COUNT,), abs(degrees)).double())
        assert torch.allclose(parts[name], parts["rotation"])
        others = {"pitch", "yaw", "roll"} - {name}
        assert max(parts[other].max() for other in others) < 1e-6
        # All of it is pose.
        assert parts["true_similarity_3d"].max() < 1e-6
        assert torch.allclose(parts["true_shape_in_predicted_pose"], parts["as_it_is"])


def test_signs_are_what_the_titles_say():
    """Positive: looks up, to the picture's left, leans clockwise."""
    own = head()
    nose, chin_to_bridge = 30, (8, 27)
    for axis, coordinate, sign in ((0, 1, -1), (1, 0, -1)):
        tipped = turned(own.points, (10 * own.axes[axis].numpy())[None])
        centre = tipped[0].mean(0)
        moved = (tipped[0] - centre)[nose] - (own.points - own.points.mean(0))[nose]
        assert sign * moved[coordinate] > 0
    leaned = turned(own.points, (10 * own.axes[2].numpy())[None])[0]
    assert (leaned[chin_to_bridge[1]] - leaned[chin_to_bridge[0]])[0] > 0


def test_another_shape_in_the_true_pose_is_no_pose():
    """Shape changed in a way that no similarity makes or undoes: the mouth alone is opened."""
    truth = truths()
    first, end = REGIONS["mouth"]
    predicted = truth.clone()
    predicted[:, first:end, 1] += torch.tensor([6.0, -6.0]).repeat((end - first) // 2)
    parts = error_parts(predicted, truth, head())
    assert parts["mouth"].min() > 2
    assert max(parts[region].max() for region in set(REGIONS) - {"mouth"}) < 1e-6
    assert (parts["true_similarity_3d"] > 0.8 * parts["as_it_is"]).all()
    assert (parts["true_shape_in_predicted_pose"] < 0.3 * parts["as_it_is"]).all()
    assert parts["rotation"].max() < 3


def test_size_and_regions_and_means():
    truth = truths()
    parts = error_parts(1.1 * truth, truth, head())
    assert torch.allclose(parts["size"], torch.tensor(1.1).double())
    weights = torch.tensor([end - first for first, end in REGIONS.values()]).double() / 68
    regions = torch.stack([parts[region] for region in REGIONS], 1) @ weights
    assert torch.allclose(regions, parts["as_it_is"])
    expected = nme(1.1 * truth[..., :2], truth[..., :2], bbox_size(truth))
    assert torch.allclose(parts["as_it_is"], expected)


def test_nothing_given_makes_the_error_worse_by_much():
    """Each thing given is a least-squares fit of more freedom: the squared error falls."""
    truth = truths()
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 5, truth.shape))
    predicted = turned(truth[0], np.full((COUNT, 3), 9.0)) + noise
    flat = moved_flat(predicted[..., :2], truth[..., :2])
    centred = predicted[..., :2] - (predicted - truth)[..., :2].mean(1, keepdim=True)

    def squared(points):
        return (points - truth[..., :2]).square().sum((1, 2))

    assert (squared(flat) <= squared(centred)).all()
    assert (squared(centred) <= squared(predicted[..., :2])).all()


def test_how_the_head_is_held():
    own = head()
    for degrees in (-70.0, 20.0):
        in_picture = turned(own.points, np.array([[0, 0, degrees]]))
        assert abs(error_parts(in_picture, in_picture, own)["tilt"] - abs(degrees)).item() < 1.5
    level = error_parts(own.points[None], own.points[None], own)["elevation"].item()
    raised = turned(own.points, (25 * own.axes[0].numpy())[None])
    assert abs(error_parts(raised, raised, own)["elevation"].item() - level - 25) < 1e-6


def test_rotation_vectors_are_those_of_scipy():
    """From no turn at all to half a turn."""
    random = np.random.default_rng(0)
    near_half = random.normal(size=(20, 3))
    near_half *= (math.pi - 1e-9) / np.linalg.norm(near_half, axis=1, keepdims=True)
    tiny = 1e-9 * random.normal(size=(20, 3))
    vectors = np.concatenate([Rotation.random(200, random_state=0).as_rotvec(), near_half, tiny])
    matrices = Rotation.from_rotvec(vectors).as_matrix()
    found = rotation_vector_deg(torch.from_numpy(matrices)).numpy()
    assert np.abs(found - np.degrees(vectors)).max() < 1e-5


def test_no_face_near_the_front_is_refused():
    with pytest.raises(ValueError, match="near_frontal: got no face"):
        mean_head(torch.zeros(0, 68, 3))
