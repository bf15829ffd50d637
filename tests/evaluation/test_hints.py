"""What may be wrong with predictions that are nowhere near the truth."""

import numpy as np
import pytest
import torch

from prnet.evaluation.hints import (
    ELSEWHERE,
    EXCHANGED,
    FLIPPED_X,
    FLIPPED_Y,
    OTHER_ORDER,
    UNKNOWN,
    Hints,
    cause_of,
)
from prnet.evaluation.score import FacePoints
from tests.tiny import tiny_face, tiny_rotation


def landmarks(yaw: float = 0.4) -> torch.Tensor:
    """68 points in px of a picture of 450 x 450."""
    vertices = tiny_face().vertices(np.zeros(4), np.zeros(3))[:68] @ tiny_rotation(0.1, yaw, 0.2).T
    return torch.from_numpy(vertices * [8e-4, -8e-4, 8e-4] + [200, 150, 40])


def noisy(points: torch.Tensor) -> torch.Tensor:
    """As a method errs: some 4 % of the box."""
    return points + torch.from_numpy(np.random.default_rng(0).normal(0, 5, points.shape))


SHUFFLED = torch.from_numpy(np.random.default_rng(1).permutation(68))
CASES = {
    FLIPPED_Y: lambda p: p * torch.tensor([1, -1]) + torch.tensor([0, 450]),
    FLIPPED_X: lambda p: p * torch.tensor([-1, 1]) + torch.tensor([450, 0]),
    EXCHANGED: lambda p: p.flip(-1),
    ELSEWHERE: lambda p: p / 450,
    OTHER_ORDER: lambda p: p[SHUFFLED],
    UNKNOWN: lambda p: 0 * p + 1000,
}


@pytest.mark.parametrize("yaw", [0.0, 0.9, -1.4])
@pytest.mark.parametrize("cause", CASES)
def test_causes_are_told_apart(cause, yaw):
    truth = landmarks(yaw)[:, :2]
    assert cause_of(CASES[cause](noisy(truth)), truth) == cause


def test_px_of_a_crop_are_told():
    truth = landmarks()[:, :2]
    assert cause_of(0.6 * (noisy(truth) - truth.amin(0)) - 300, truth) == ELSEWHERE


def test_a_hint_is_of_a_mean_beyond_40_percent_alone():
    truth = landmarks()[None]
    far, near = truth * torch.tensor([1, -1, 1]), truth + 5
    hints = Hints()
    for predicted, error in ((far, 90.0), (near, 5.0), (far, 60.0)):
        sides = (FacePoints(landmarks=points) for points in (predicted, truth))
        hints.add(*sides, {"nme_68_2d": torch.tensor([error]), "nme_68_3d": torch.tensor([99.0])})
    (said,) = hints.found()
    assert said == (
        "68 landmarks, 2D: a mean of 52 % is no method's error; of 2 images beyond 40 %, in 2 "
        + FLIPPED_Y
    )
    hints.add(*(FacePoints(landmarks=near),) * 2, {"nme_68_2d": torch.tensor([0.0] * 1)})
    assert hints.found() == []


def test_no_errors_give_no_hint():
    assert Hints().found() == []
