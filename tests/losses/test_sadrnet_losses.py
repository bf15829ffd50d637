"""SADRNet's six losses against direct evaluations, known values and the paper's coefficients."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from prnet.geometry.uv import grid_triangles
from prnet.losses.sadrnet import SADRNetLoss, edge_length_loss, normal_vector_loss
from prnet.sample import FaceSample, Prediction
from tests.plans import configuration
from tests.small_face import SmallFace, posed_faces, small_face, with_face

UNIT = 1 / 1.5e-5
TERMS = ("geometry", "deformation", "pose_dependent", "attention", "edge", "normal")


@pytest.fixture(scope="module")
def small() -> SmallFace:
    return small_face(32)


def random_case(seed: int, *, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and target (batch, 3, 6, 7), float64, and a ragged mask (6, 7)."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, batch, 3, 6, 7, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 7, generator=generator) < 0.75
    return maps[0], maps[1], mask


def perfect(sample: FaceSample) -> Prediction:
    """The truth as a prediction, its attention certain."""
    return Prediction(
        sample.position_map,
        pose_dependent_map=sample.position_map,
        shape_map=sample.shape_map,
        attention_logits=200 * sample.attention - 100,
    )


def sample_of(small: SmallFace, yaws_deg: tuple[float, ...] = (0.0, 50.0)) -> FaceSample:
    known = posed_faces(small, list(yaws_deg))
    attention = torch.rand(len(yaws_deg), 4, 4, generator=torch.Generator().manual_seed(0))
    return FaceSample(
        torch.zeros_like(known.position_map),
        known.position_map,
        known.shape_map,
        attention.round(),
    )


def slow_edges(mask: Tensor, edges: str) -> list[tuple]:
    """Pairs of texels ((row, column), (row, column)) by the definitions."""
    rows, columns = mask.shape
    pairs = []
    for r, c in np.ndindex(rows, columns):
        if not mask[r, c]:
            continue
        if c + 1 < columns and mask[r, c + 1]:
            pairs.append(((r, c), (r, c + 1)))
        if r + 1 < rows and mask[r + 1, c]:
            if edges == "neighbours":
                pairs.append(((r, c), (r + 1, c)))
            elif c + 1 < columns:
                pairs.append(((r, c), (r + 1, c + 1)))
    return pairs


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("edges", ["neighbours", "released"])
def test_edge_lengths_against_the_sum_written_out(edges, reduction) -> None:
    prediction, target, mask = random_case(0)
    pairs = slow_edges(mask, edges)
    assert any(not mask[end] for _, end in pairs) == (edges == "released")
    expected = []
    for b in range(2):
        terms = []
        for (r, c), (s, d) in pairs:
            lengths = [math.dist(m[b, :, r, c], m[b, :, s, d]) for m in (prediction, target)]
            terms.append(abs(lengths[0] - lengths[1]))
        expected.append(math.fsum(terms) / (len(terms) if reduction == "mean" else 1))
    found = edge_length_loss(prediction, target, mask, edges=edges, reduction=reduction)
    torch.testing.assert_close(found.tolist(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_normals_against_the_sum_written_out(reduction) -> None:
    """Over the triangles of `grid_triangles`, made independently of the loss's slices."""
    prediction, target, mask = random_case(1)
    triangles = grid_triangles(mask.numpy())
    texels = np.flatnonzero(mask.numpy())[triangles]
    assert len(texels) > 10
    expected = []
    for b in range(2):
        points, true_points = (m[b].flatten(1).T.numpy() for m in (prediction, target))
        terms = []
        for i, j, k in texels:
            normal = np.cross(true_points[j] - true_points[i], true_points[k] - true_points[j])
            normal /= np.linalg.norm(normal)
            for start, end in ((i, j), (j, k), (k, i)):
                edge = points[start] - points[end]
                terms.append(abs(edge @ normal) / np.linalg.norm(edge))
        expected.append(math.fsum(terms) / (len(terms) if reduction == "mean" else 1))
    found = normal_vector_loss(prediction, target, mask, reduction=reduction)
    torch.testing.assert_close(found.tolist(), expected, rtol=1e-12, atol=0)


def test_known_values_on_a_plane() -> None:
    """A grid of spacing 1, predicted twice as large, or tilted by an angle about its columns."""
    row, column = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    flat = torch.stack([column, row, 0 * row])[None].double()
    mask = torch.ones(5, 6, dtype=torch.bool)
    assert edge_length_loss(2 * flat, flat, mask).item() == pytest.approx(1)
    assert edge_length_loss(2 * flat, flat, mask, reduction="sum").item() == 5 * 5 + 4 * 6
    assert normal_vector_loss(2 * flat, flat, mask).item() == 0
    slope = 0.7
    tilted = flat + torch.tensor([0.0, 0.0, slope])[:, None, None] * flat[:, :1]
    stretched = math.sqrt(1 + slope**2)
    edges = (25 * (stretched - 1) + 24 * 0) / 49
    assert edge_length_loss(tilted, flat, mask).item() == pytest.approx(edges)
    normals = (slope / stretched + 0 + slope / math.sqrt(2 + slope**2)) / 3
    assert normal_vector_loss(tilted, flat, mask).item() == pytest.approx(normals)


def test_mesh_losses_do_not_see_what_they_should_not() -> None:
    prediction, target, mask = random_case(2)
    turn, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()
    )
    moved = torch.einsum("ij,bjhw->bihw", turn, target) + 5
    zero = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(edge_length_loss(moved, target, mask), zero)
    torch.testing.assert_close(normal_vector_loss(target, target, mask), zero)
    assert (normal_vector_loss(moved, target, mask) > 0.1).all()
    # Off the mask anything may stand.
    elsewhere = prediction + 100 * ~mask
    for loss in (edge_length_loss, normal_vector_loss):
        torch.testing.assert_close(loss(elsewhere, target, mask), loss(prediction, target, mask))
    # Normals know no size.
    torch.testing.assert_close(
        normal_vector_loss(3 * prediction, target, mask),
        normal_vector_loss(prediction, target, mask),
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_of_the_mesh_losses(reduction) -> None:
    prediction, target, mask = random_case(4, batch=1)
    prediction.requires_grad_()
    for loss in (edge_length_loss, normal_vector_loss):
        assert torch.autograd.gradcheck(
            lambda p, loss=loss: loss(p, target, mask, reduction=reduction), prediction
        )


def test_gradients_are_finite_on_collapsed_meshes() -> None:
    """Edges of length zero in either map, and a mask without any."""
    prediction, target, mask = random_case(5)
    point = torch.zeros_like(prediction)
    for predicted, truth, where in (
        (point, target, mask),
        (prediction, point, mask),
        (target, target, mask),
        (prediction, target, torch.zeros_like(mask)),
    ):
        moving = predicted.clone().requires_grad_()
        total = edge_length_loss(moving, truth, where) + normal_vector_loss(moving, truth, where)
        assert total.isfinite().all()
        total.sum().backward()
        assert moving.grad.isfinite().all()
    assert (total == 0).all()


def test_coefficients_are_the_papers(small) -> None:
    """Eq. 24: 0.1, 0.5, 1, 0.05, 1, 0.1, in each of the terms alone."""
    sample = sample_of(small)
    generator = torch.Generator().manual_seed(6)
    noise = torch.randn(3, 2, 3, 32, 32, generator=generator)
    prediction = Prediction(
        sample.position_map + noise[0],
        pose_dependent_map=sample.position_map + noise[1],
        shape_map=sample.shape_map + 1e3 * noise[2],
        attention_logits=torch.randn(2, 4, 4, generator=generator),
    )
    together = with_face(SADRNetLoss(), small)(prediction, sample)
    assert list(together) == list(TERMS)
    for name, coefficient in zip(TERMS, (0.1, 0.5, 1, 0.05, 1, 0.1), strict=True):
        alone = with_face(SADRNetLoss(**{**dict.fromkeys(TERMS, 0.0), name: 1.0}), small)
        losses = alone(prediction, sample)
        assert list(losses) == [name]
        torch.testing.assert_close(together[name], coefficient * losses[name])
        assert losses[name] > 0


def test_position_terms_in_their_units(small) -> None:
    """28 px off everywhere is 0.1 of 280 px times the mean weight of a texel; shapes likewise."""
    sample = sample_of(small)
    weight = small.uv.weight_mask((16, 12, 3, 0))
    mean_weight = (weight.sum() / small.uv.face_mask.sum()).item()
    assert 3 < mean_weight < 16
    shift = torch.tensor([0.0, 0.6, 0.8])[:, None, None]
    prediction = Prediction(
        sample.position_map + 28 * shift,
        pose_dependent_map=sample.position_map - 56 * shift,
        shape_map=sample.shape_map + 0.05 * UNIT * shift,
        attention_logits=torch.zeros(2, 4, 4),
    )
    found = with_face(SADRNetLoss(), small)(prediction, sample)
    assert found["geometry"].item() == pytest.approx(0.1 * 0.1 * mean_weight, rel=1e-4)
    assert found["pose_dependent"].item() == pytest.approx(0.2 * mean_weight, rel=1e-4)
    assert found["deformation"].item() == pytest.approx(0.5 * 0.05 * mean_weight, rel=1e-4)
    assert found["attention"].item() == pytest.approx(0.05 * math.log(2), rel=1e-5)
    # One shift for the whole shape: no edge is longer and no normal turns.
    assert found["edge"].item() < 1e-6
    assert found["normal"].item() < 1e-2 * found["deformation"].item()
    halved = with_face(SADRNetLoss(coordinate_scale=560.0, shape_unit=2 * UNIT), small)(
        prediction, sample
    )
    for name in ("geometry", "pose_dependent", "deformation"):
        torch.testing.assert_close(halved[name], found[name] / 2)


def test_sum_is_the_mean_times_the_counts(small) -> None:
    """What the reductions do to the balance of the terms, from counts taken independently."""
    sample = sample_of(small)
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    prediction = Prediction(
        sample.position_map + noise,
        pose_dependent_map=sample.position_map - noise,
        shape_map=sample.shape_map + 1e3 * noise,
        attention_logits=noise[:, 0, :4, :4],
    )
    mean, total = (
        with_face(SADRNetLoss(reduction=reduction), small)(prediction, sample)
        for reduction in ("mean", "sum")
    )
    texels = int(small.uv.face_mask.sum())
    counts = {
        "geometry": texels,
        "deformation": texels,
        "pose_dependent": texels,
        "attention": 16,
        "edge": len(slow_edges(small.uv.face_mask, "neighbours")),
        "normal": 3 * len(small.uv.grid_triangles),
    }
    for name, count in counts.items():
        torch.testing.assert_close(total[name], count * mean[name], rtol=1e-4, atol=0)


def test_edges_and_triangles_are_two_a_texel(small) -> None:
    """So the balance that the docstring states holds: some are lost at the rim alone."""
    finer = small_face(128).uv
    texels = int(finer.face_mask.sum())
    assert len(slow_edges(finer.face_mask, "neighbours")) == pytest.approx(2 * texels, rel=0.03)
    assert len(finer.grid_triangles) == pytest.approx(2 * texels, rel=0.05)


def test_the_truth_costs_nothing(small) -> None:
    sample = sample_of(small)
    for reduction in ("mean", "sum"):
        losses = with_face(SADRNetLoss(reduction=reduction), small)(perfect(sample), sample)
        assert all(value.item() == pytest.approx(0, abs=1e-3) for value in losses.values())


def test_attention_is_binary_cross_entropy_of_soft_targets(small) -> None:
    sample = sample_of(small)._replace(attention=torch.full((2, 4, 4), 0.25))
    prediction = perfect(sample)._replace(attention_logits=torch.full((2, 4, 4), 1.5))
    p = 1 / (1 + math.exp(-1.5))
    expected = -(0.25 * math.log(p) + 0.75 * math.log(1 - p))
    found = with_face(SADRNetLoss(attention=1.0), small)(prediction, sample)["attention"]
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_weights_are_the_papers_and_follow_the_options(small) -> None:
    loss_fn = with_face(SADRNetLoss(), small)
    assert torch.equal(loss_fn.weight_mask, small.uv.weight_mask((16, 12, 3, 0)))
    assert loss_fn.weighs_outside is False
    assert loss_fn.state_dict() == {}
    necked = with_face(SADRNetLoss(weights=(16, 12, 3, 3)), small)
    assert necked.weighs_outside is True
    assert torch.equal(necked.weight_mask[~small.uv.face_mask].unique(), torch.tensor([3.0]))


def test_weight_picture_as_the_released_code_reads_it(small, tmp_path: Path) -> None:
    """255 -> 16 and 64 -> 12; halos (here 128) and 48 stay sixteenths; off the face 0."""
    picture = np.full((32, 32), 48, np.uint8)
    inside = np.argwhere(small.uv.face_mask.numpy())[40:43]
    for texel, value in zip(inside, (255, 64, 128), strict=True):
        picture[tuple(texel)] = value
    assert cv2.imwrite(str(tmp_path / "weights.png"), picture)
    mask = with_face(SADRNetLoss(weight_picture=tmp_path / "weights.png"), small).weight_mask
    assert [mask[tuple(texel)].item() for texel in inside] == [16, 12, 8]
    assert set(mask[small.uv.face_mask].unique().tolist()) == {3, 8, 12, 16}
    assert not mask[~small.uv.face_mask].any()


@pytest.mark.parametrize(
    ("name", "coefficients", "edges"),
    [
        ("sadrnet", (0.1, 0.5, 1, 0.05, 1, 0.1), "neighbours"),
        ("sadrnet_released", (0, 0.5, 1, 0.05, 1, 0.1), "released"),
        ("sadrnet_ablation_no_mesh_losses", (0.1, 0.5, 1, 0.05, 0, 0), "neighbours"),
        ("sadrnet_ablation_a", (0, 0, 1, 0, 0, 0), "neighbours"),
        ("sadrnet_ablation_b", (1, 0.5, 0, 0, 1, 0.1), "neighbours"),
        ("sadrnet_ablation_c", (0.1, 0.5, 1, 0, 1, 0.1), "neighbours"),
        ("sadrnet_ablation_d", (0, 0, 1, 0.05, 0, 0), "neighbours"),
    ],
)
def test_shipped_configurations(small, name, coefficients, edges) -> None:
    cfg = configuration(f"+experiment={name}")
    loss_fn = with_face(instantiate(cfg.loss), small)
    assert loss_fn.coefficients == dict(zip(TERMS, coefficients, strict=True))
    assert loss_fn.edges == edges
    assert loss_fn.reduction == "mean"
    assert loss_fn.coordinate_scale == 280
    assert loss_fn.shape_unit == pytest.approx(UNIT)
    assert torch.equal(loss_fn.weight_mask, small.uv.weight_mask((16, 12, 3, 0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edge": -1.0}, r"loss edge: got -1\.0, expected a finite number >= 0"),
        ({"normal": math.nan}, "loss normal: got nan"),
        (dict.fromkeys(TERMS, 0.0), "all coefficients are 0"),
        ({"edges": "all"}, "edges: got 'all', expected one of"),
        ({"reduction": "none"}, "reduction: got 'none'"),
        ({"weights": (16, 12, 3)}, "expected four finite numbers"),
    ],
)
def test_bad_options_raise(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        SADRNetLoss(**options)


@pytest.mark.parametrize(
    ("owner", "field"),
    [
        ("network", "pose_dependent_map"),
        ("network", "shape_map"),
        ("network", "attention_logits"),
        ("sample", "shape_map"),
        ("sample", "attention"),
    ],
)
def test_what_a_term_needs_must_be_there(small, owner, field) -> None:
    sample = sample_of(small)
    prediction = perfect(sample)
    if owner == "network":
        prediction = prediction._replace(**{field: None})
    else:
        sample = sample._replace(**{field: None})
    with pytest.raises(ValueError, match=f"the {owner} has no {field}; set the coefficients"):
        with_face(SADRNetLoss(), small)(prediction, sample)


def test_attention_of_another_resolution_raises(small) -> None:
    sample = sample_of(small)
    coarse = sample._replace(attention=torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match=r"predicts \(2, 4, 4\), the sample has \(2, 2, 2\)"):
        with_face(SADRNetLoss(), small)(perfect(sample), coarse)
