"""PRN's weighted position-map loss (eq. 1)."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from prnet.geometry.uv import EYES_NOSE_MOUTH, LANDMARK, OUTSIDE, REST
from prnet.losses.prn import PRNLoss, read_weight_picture, weighted_norm
from prnet.sample import FaceSample, Prediction
from tests.plans import configuration
from tests.small_face import with_face


def random_maps(seed: int, *, side: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Two maps (3, 3, side, side) and weights (side, side) with zeros among them, float64."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, 3, side, side, generator=generator, dtype=torch.float64)
    weight = torch.rand(side, side, generator=generator, dtype=torch.float64)
    return maps[0], maps[1], weight * (weight > 0.3)


def loss_of(loss_fn: PRNLoss, prediction: Tensor, target: Tensor) -> Tensor:
    image = torch.zeros_like(prediction)
    losses = loss_fn(Prediction(prediction), FaceSample(image, target))
    assert list(losses) == ["position_map"]
    return losses["position_map"]


def test_norm_is_not_squared():
    """Known value: (3, 4, 12) is 13 px away, so eq. 1 is 13 times the sum of the weights."""
    target = torch.zeros(2, 3, 2, 2)
    prediction = target + torch.tensor([3.0, 4.0, 12.0])[:, None, None]
    weight = torch.tensor([[16.0, 4.0], [3.0, 0.0]])
    total = weighted_norm(prediction, target, weight, reduction="sum")
    mean = weighted_norm(prediction, target, weight, reduction="mean")
    assert total.tolist() == [13 * 23, 13 * 23]
    assert mean.tolist() == [13, 13]


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_against_the_sum_written_out(reduction, per_sample):
    prediction, target, weight = random_maps(0)
    if per_sample:
        weight = torch.stack([weight, 2 * weight, torch.ones_like(weight)])
    expected = []
    for b in range(3):
        w = weight[b] if per_sample else weight
        terms = [
            float(w[v, u]) * math.dist(prediction[b, :, v, u].tolist(), target[b, :, v, u].tolist())
            for v in range(5)
            for u in range(5)
        ]
        expected.append(math.fsum(terms) / (float(w.sum()) if reduction == "mean" else 1))
    result = weighted_norm(prediction, target, weight, reduction=reduction)
    torch.testing.assert_close(result.tolist(), expected, rtol=1e-12, atol=0)


def test_mean_does_not_depend_on_resolution_or_weight_scale():
    prediction, target, weight = random_maps(1)
    expected = weighted_norm(prediction, target, weight)
    torch.testing.assert_close(weighted_norm(prediction, target, 7 * weight), expected)
    finer = [t.repeat_interleave(3, -1).repeat_interleave(3, -2) for t in (prediction, target)]
    weight = weight.repeat_interleave(3, -1).repeat_interleave(3, -2)
    torch.testing.assert_close(weighted_norm(*finer, weight), expected)


def test_texels_without_weight_are_ignored():
    prediction, target, weight = random_maps(2)
    moved = prediction + 1e6 * (weight == 0)
    assert torch.equal(
        weighted_norm(moved, target, weight), weighted_norm(prediction, target, weight)
    )


def test_a_sample_without_weight_counts_nothing():
    prediction, target, weight = random_maps(3)
    prediction.requires_grad_()
    weights = torch.stack([weight, torch.zeros_like(weight), weight])
    result = weighted_norm(prediction, target, weights)
    assert result[1] == 0
    assert (result[[0, 2]] > 0).all()
    result.sum().backward()
    assert prediction.grad.isfinite().all()
    assert not prediction.grad[1].any()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradcheck_away_from_equality(reduction):
    prediction, target, weight = random_maps(4, side=3)
    prediction.requires_grad_()
    target.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, t: weighted_norm(p, t, weight, reduction=reduction), (prediction, target)
    )


def test_gradient_is_zero_where_the_maps_agree_exactly():
    """The norm has no derivative at 0; the subgradient 0 is taken, texel by texel."""
    target, _, _ = random_maps(5)
    prediction = target.clone()
    prediction[:, :, 2, 3] += torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64)[:, None].T
    prediction.requires_grad_()
    weight = torch.full((5, 5), 2.0, dtype=torch.float64)
    weighted_norm(prediction, target, weight, reduction="sum").sum().backward()
    expected = torch.zeros_like(target)
    expected[:, :, 2, 3] = 2 * torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    torch.testing.assert_close(prediction.grad, expected)


def test_adam_takes_the_same_steps_for_sum_and_mean(face):
    """Why the reductions train alike: Adam divides the gradient's scale out."""
    target = torch.full((1, 3, 256, 256), 100.0)
    start = torch.tensor([80.0, 120.0, 100.5])
    shifts = []
    for reduction in ("sum", "mean"):
        shift = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([shift], lr=0.1, eps=0.0)
        loss_fn = with_face(PRNLoss(reduction=reduction), face)
        for _ in range(5):
            optimizer.zero_grad()
            loss_of(loss_fn, shift[:, None, None].expand(1, 3, 256, 256), target).backward()
            optimizer.step()
        shifts.append(shift.detach())
    torch.testing.assert_close(shifts[0], shifts[1], rtol=0, atol=1e-3)
    assert (shifts[0] - start).abs().min() > 0.1


def test_arguments_are_not_modified():
    tensors = random_maps(6)
    copies = [tensor.clone() for tensor in tensors]
    weighted_norm(*tensors)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))


@pytest.mark.parametrize(
    ("prediction", "target", "weight", "message"),
    [
        ((2, 3, 4, 4), (1, 3, 4, 4), (4, 4), r"\(2, 3, 4, 4\) and \(1, 3, 4, 4\)"),
        ((3, 4, 4), (3, 4, 4), (4, 4), r"expected two of \(B, 3, H, W\)"),
        ((2, 3, 4, 4), (2, 3, 4, 4), (4, 5), r"weight: got \(4, 5\), expected \(4, 4\)"),
        ((2, 3, 4, 4), (2, 3, 4, 4), (1, 4, 4), r"weight: got \(1, 4, 4\), .*\(2, 4, 4\)"),
        ((2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 4, 4), r"weight: got \(2, 1, 4, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_raise(prediction, target, weight, message):
    with pytest.raises(ValueError, match=message):
        weighted_norm(torch.zeros(prediction), torch.zeros(target), torch.zeros(weight))


def test_another_reduction_raises(face):
    maps = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"reduction: got 'none', .*sum, mean"):
        weighted_norm(maps, maps, torch.ones(4, 4), reduction="none")
    with pytest.raises(ValueError, match=r"reduction: got 'avg', .*sum, mean"):
        PRNLoss(reduction="avg")


@pytest.mark.parametrize(
    ("region", "weight"), [(LANDMARK, 16), (EYES_NOSE_MOUTH, 4), (REST, 3), (OUTSIDE, 0)]
)
def test_published_weights_of_each_region(face, region, weight):
    """A map wrong by 1 px in one region costs that region's weight per texel, on average over B."""
    loss_fn = with_face(PRNLoss(reduction="sum"), face)
    texels = face.uv.region == region
    assert texels.any()
    target = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(7))
    prediction = target.clone()
    prediction[0, 0] += texels  # of the first sample only
    loss = loss_of(loss_fn, prediction, target)
    assert loss.item() == pytest.approx(weight * int(texels.sum()) / 2, rel=1e-4)


def test_weight_mask_follows_the_device_and_stays_out_of_the_state(face):
    loss_fn = with_face(PRNLoss(), face)
    assert torch.equal(loss_fn.weight_mask, face.uv.weight_mask((16, 4, 3, 0)))
    assert loss_fn.state_dict() == {}
    assert loss_fn.to("meta").weight_mask.device.type == "meta"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((16, 4, 3), r"got \[16\.0, 4\.0, 3\.0\], expected four"),
        ((16, 4, 3, -1), r"expected four finite numbers >= 0"),
        ((16, 4, math.nan, 0), r"expected four finite numbers >= 0"),
        ((math.inf, 4, 3, 0), r"expected four finite numbers >= 0"),
        ((0, 0, 0, 0), r"leave no texel any weight"),
    ],
)
def test_bad_weights_raise(face, weights, message):
    with pytest.raises(ValueError, match=message):
        PRNLoss(weights=weights)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("prn", (16, 4, 3, 0)),
        ("prn_weights_1110", (1, 1, 1, 0)),
        ("prn_weights_1111", (1, 1, 1, 1)),
    ],
)
def test_shipped_configurations_are_figure_10(face, name, ratio):
    cfg = configuration(f"+experiment={name}")
    loss_fn = with_face(instantiate(cfg.loss), face)
    assert isinstance(loss_fn, PRNLoss)
    assert loss_fn.reduction == "mean"
    assert torch.equal(loss_fn.weight_mask, face.uv.weight_mask(ratio))


def test_weight_picture_is_sixteenths_within_the_face(face, tmp_path: Path) -> None:
    picture = np.full((256, 256), 48, np.uint8)
    row, column = face.uv.landmark_cells[30].tolist()
    picture[row, column] = 255
    path = tmp_path / "uv_weight_mask.png"
    assert cv2.imwrite(str(path), picture)
    mask = with_face(PRNLoss(weight_picture=path), face).weight_mask
    assert mask[row, column] == 255 / 16
    assert set(mask[face.uv.face_mask].unique().tolist()) == {3.0, 255 / 16}
    assert not mask[~face.uv.face_mask].any()
    with pytest.raises(ValueError, match=r"got \(256, 256\), expected \(128, 128\)"):
        read_weight_picture(path, face.uv.face_mask[::2, ::2])
    with pytest.raises(FileNotFoundError, match="none.png: not a readable picture"):
        read_weight_picture(tmp_path / "none.png", face.uv.face_mask)


@pytest.mark.parametrize(("weights", "outside"), [((1, 1, 1, 1), True), ((16, 4, 3, 0), False)])
def test_loss_says_whether_it_weighs_texels_off_the_face(face, weights, outside) -> None:
    assert with_face(PRNLoss(weights=weights), face).weighs_outside is outside
