"""The loss on points: zero at the truth, mirrored or not, and the NME's arithmetic away from it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from prnet.faces.face import Face
from prnet.faces.spread_points import spread_points
from prnet.geometry.pose_parameters import mirrored_vertices
from prnet.losses.points import BROWS, LIDS, LIPS, PointsLoss
from prnet.sample import FaceSample, PosedFit, Prediction
from tests.tiny import NUM_EXP, NUM_SHAPE, tiny_rotation

PAIRS = 8


def sample_of(*, mirrored: bool) -> FaceSample:
    """Two faces; a mirrored one's matrix holds the mirror of x, as augmentation makes it."""
    random = np.random.default_rng(0)
    matrix = np.zeros((2, 4, 4))
    matrix[:, 3, 3] = 1
    for item, yaw in zip(matrix, (0.3, -1.4), strict=True):
        item[:3, :3] = np.diag([1.0, -1, 1]) @ (1.1e-3 * tiny_rotation(0.1, yaw, -0.2))
        item[:3, 3] = random.uniform(100, 150, 3)
    if mirrored:
        matrix = np.diag([-1.0, 1, 1, 1]) @ matrix
        matrix[:, 0, 3] += 255
    fit = PosedFit(
        torch.from_numpy(random.normal(size=(2, NUM_SHAPE))).float(),
        torch.from_numpy(random.normal(size=(2, NUM_EXP))).float(),
        torch.from_numpy(matrix).float(),
        torch.full((2,), mirrored),
    )
    return FaceSample(torch.zeros(2, 3, 8, 8), fit=fit)


def seen_points(face: Face, sample: FaceSample) -> Tensor:
    """Where a viewer sees them, written out: of a mirrored face, the mirror vertices' places."""
    index = spread_points(face, PAIRS)
    if sample.fit.mirrored[0]:
        index = mirrored_vertices(face.morphable_model, face.mirror_index)[index]
    vertices = face.morphable_model(sample.fit.shape_params, sample.fit.exp_params)[:, index]
    matrix = sample.fit.crop_from_model
    return torch.einsum("bij,bkj->bki", matrix[:, :3, :3], vertices) + matrix[:, None, :3, 3]


def loss_on(face: Face, **options: float) -> PointsLoss:
    loss = PointsLoss(pairs=PAIRS, **options)
    loss.set_face(face)
    return loss


@pytest.mark.parametrize("mirrored", [False, True])
def test_zero_at_the_truth_whatever_the_origin_of_depth(face: Face, mirrored: bool) -> None:
    sample = sample_of(mirrored=mirrored)
    points = seen_points(face, sample) + torch.tensor([0.0, 0.0, 30.0])
    losses = loss_on(face)(Prediction(points=points), sample)
    assert sum(losses.values()) < 1e-4
    other = sample_of(mirrored=not mirrored)._replace(
        fit=sample.fit._replace(mirrored=~sample.fit.mirrored)
    )
    assert sum(loss_on(face)(Prediction(points=points), other).values()) > 0.1


def test_a_shift_costs_its_share_of_the_landmarks_box(face: Face) -> None:
    sample = sample_of(mirrored=False)
    true = seen_points(face, sample)
    landmarks = true[:, :68, :2].numpy()
    sides = np.sqrt(np.prod(np.ptp(landmarks, axis=1), axis=1))
    losses = loss_on(face)(Prediction(points=true + torch.tensor([3.0, 4.0, 0.0])), sample)
    expected = np.mean(100 * 5 / sides)
    assert losses["landmarks"] + losses["vertices"] == pytest.approx(expected, rel=1e-4)
    assert losses["landmarks"] == pytest.approx(expected / 2, rel=1e-4)


@pytest.mark.parametrize("shift", [3.0, 30.0])
def test_closed_lids_count_besides_and_a_shift_of_all_does_not(face: Face, shift: float) -> None:
    """A quarter of the square of the error in %, and from 8 % on a line of the same slope."""
    sample = sample_of(mirrored=False)
    true = seen_points(face, sample)
    sides = np.sqrt(np.prod(np.ptp(true[:, :68, :2].numpy(), axis=1), axis=1))
    closed = true.clone()
    closed[:, [37, 38, 43, 44], 1] += shift  # 38 and 43 belong to no other pair
    losses = loss_on(face, near=2.0, lids=5.0)(Prediction(points=closed), sample)
    pairs = len(LIDS) + len(LIPS) + len(BROWS)
    percent = 100 * shift / sides
    assert (percent.max() < 8) == (shift == 3)
    assert shift == 3 or percent.min() > 8
    each = percent**2 / 4 if shift == 3 else 4 * percent - 16
    # Four pairs of lids, and of brows the two that end at 37 and 44.
    assert losses["near"] == pytest.approx(2 * (4 * 5 + 2) / pairs * np.mean(each), rel=1e-3)
    shifted = Prediction(points=true + torch.tensor([9.0, 9.0, 0.0]))
    assert loss_on(face)(shifted, sample)["near"] < 1e-4


@pytest.mark.parametrize("name", ["near", "lids", "depth"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"loss {name}: got -1, expected a finite number >= 0"):
        PointsLoss(**{name: -1})


def test_depth_counts_as_it_is_weighed(face: Face) -> None:
    sample = sample_of(mirrored=False)
    true = seen_points(face, sample)
    deeper = true.clone()
    deeper[..., 2] += torch.linspace(-5, 5, true.shape[1])
    losses = [
        float(sum(loss_on(face, depth=depth, near=0)(Prediction(points=deeper), sample).values()))
        for depth in (0.0, 0.5, 1.0)
    ]
    assert losses[0] < 1e-4
    assert losses[2] == pytest.approx(2 * losses[1], rel=1e-3)
    with pytest.raises(ValueError, match=r"loss\.pairs: got 0, expected a whole number from 1"):
        PointsLoss(pairs=0)
