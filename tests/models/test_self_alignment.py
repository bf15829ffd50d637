"""SADRNet's self-alignment: known poses, visibility, three rules, gradients on hostile input."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from prnet.geometry.camera import angles_from_rotation
from prnet.models.self_alignment import (
    SelfAlignment,
    align_landmarks,
    apply_pose,
    attention_at,
)
from prnet.sample import Pose
from tests.small_face import FLIP, PosedFaces, SmallFace, posed_faces, small_face

RULES = ("least_squares", "paper", "released")
UNIT = 1 / 1.5e-5
YAWS_DEG = [0.0, 35.0, -60.0, 85.0]


@pytest.fixture(scope="module")
def small() -> SmallFace:
    return small_face(64)


def random_attention(seed: int, count: int, side: int = 8, dtype=torch.float32) -> Tensor:
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def require_pose(found: Pose, known: PosedFaces, *, tolerance: float) -> None:
    """Relative in scale, absolute in the rotation, and in translation relative to the crop."""
    torch.testing.assert_close(found.scale, known.scale, rtol=tolerance, atol=0)
    torch.testing.assert_close(found.rotation, known.rotation, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.translation, known.translation, rtol=0, atol=64 * tolerance)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["f32", "f64"]
)
def test_known_pose_is_recovered_whatever_is_visible(small, rule, dtype, tolerance) -> None:
    known = posed_faces(small, YAWS_DEG, dtype=dtype)
    module = SelfAlignment(small.uv, alignment=rule)
    nowhere = torch.zeros(4, 8, 8, dtype=dtype)
    left_half = nowhere.clone()
    left_half[..., :4] = 1
    one_cell = nowhere.clone()
    one_cell[:, 4, 4] = 1
    for attention in (None, random_attention(0, 4, dtype=dtype), left_half, one_cell, nowhere):
        aligned, pose = module(known.shape_map / UNIT, known.position_map, attention)
        require_pose(pose._replace(scale=pose.scale / UNIT), known, tolerance=2 * tolerance)
        torch.testing.assert_close(
            aligned, known.position_map, rtol=0, atol=64 * 4 * tolerance, check_dtype=True
        )


@pytest.mark.parametrize("seed", range(10))
def test_three_points_with_weight_are_enough(small, seed) -> None:
    """Any three landmarks, the others wrong by any amount and of weight zero."""
    known = posed_faces(small, [20.0 * seed - 90], seed=seed, dtype=torch.float64)
    random = np.random.default_rng(seed)
    shape = small.uv.landmarks(known.shape_map) / UNIT
    posed = small.uv.landmarks(known.position_map) * FLIP
    weights = torch.zeros(1, 68, dtype=torch.float64)
    # Three of the same line of landmarks may be straight: one of the jaw, an eye and the mouth.
    chosen = [random.integers(0, 17), random.integers(36, 48), random.integers(48, 60)]
    weights[:, chosen] = torch.from_numpy(random.uniform(0.05, 1, 3))
    wrong = posed + 50 * torch.from_numpy(random.normal(size=posed.shape))
    found = align_landmarks(shape, torch.where(weights[..., None] > 0, posed, wrong), weights)
    require_pose(Pose(*found)._replace(scale=found.scale / UNIT), known, tolerance=1e-5)


def test_pose_gives_the_angles_of_the_fit(small) -> None:
    known = posed_faces(small, [-80.0, -30.0, 0.0, 10.0, 89.0], seed=3, dtype=torch.float64)
    _, pose = SelfAlignment(small.uv)(known.shape_map, known.position_map)
    angles = angles_from_rotation(pose.rotation)
    torch.testing.assert_close(angles, known.angles, rtol=0, atol=1e-9)
    turned_right = angles[3, 1]  # +yaw: the nose moves to the left of the image
    nose, jaw = small.uv.landmarks(known.position_map)[3, [30, 8]]
    assert turned_right > 0
    assert nose[0] < jaw[0]


def test_mirrored_prediction_gets_a_rotation_all_the_same(small) -> None:
    """A solver that may reflect would call a mirrored face perfect."""
    known = posed_faces(small, YAWS_DEG)
    mirrored = known.position_map * FLIP[:, None, None]
    for rule in RULES:
        aligned, pose = SelfAlignment(small.uv, alignment=rule)(known.shape_map / UNIT, mirrored)
        torch.testing.assert_close(torch.linalg.det(pose.rotation), torch.ones(4))
        assert (aligned - mirrored).abs().amax((1, 2, 3)).min() > 2


def test_least_squares_is_closest_to_noisy_faces(small) -> None:
    """Noise adds to both sums of eq. 14, and most to those of the smaller side."""
    known = posed_faces(small, [-80.0, -40.0, 0.0, 40.0, 80.0] * 4, seed=1)
    generator = torch.Generator().manual_seed(1)

    def noise(size: float) -> Tensor:
        return size * torch.randn(known.position_map.shape, generator=generator)

    shape, posed = known.shape_map / UNIT + noise(0.02), known.position_map + noise(3.0)
    error = {}
    for rule in RULES:
        aligned, _ = SelfAlignment(small.uv, alignment=rule)(shape, posed)
        apart = small.uv.face_points(aligned) - small.uv.face_points(known.position_map)
        error[rule] = apart.norm(dim=-1).mean()
    assert error["least_squares"] < 0.9 * min(error["paper"], error["released"])


def test_apply_pose_is_equation_two_with_the_flip() -> None:
    pose = Pose(torch.tensor([2.0]), torch.eye(3)[None, [2, 0, 1]], torch.tensor([[1.0, 2.0, 3.0]]))
    shape = torch.tensor([5.0, 6.0, 7.0])[None, :, None, None].expand(1, 3, 2, 4)
    expected = torch.tensor([2 * 7.0 + 1, -(2 * 5.0 + 2), 2 * 6.0 + 3])
    assert torch.equal(apply_pose(pose, shape), expected[None, :, None, None].expand(1, 3, 2, 4))


def test_attention_is_looked_up_by_column_and_row() -> None:
    """x is the column; a cell stands for 8 x 8 pixels; outside the crop nothing is seen."""
    attention = torch.arange(16.0).reshape(1, 4, 4)
    table = {
        (0.0, 0.0): 0.0,
        (7.9, 0.0): 0.0,
        (8.0, 0.0): 1.0,
        (31.99, 0.5): 3.0,
        (0.5, 31.99): 12.0,
        (17.0, 9.0): 6.0,
        (-0.1, 5.0): 0.0,
        (5.0, 32.0): 0.0,
        (1e9, 5.0): 0.0,
        (math.nan, 20.0): 0.0,
        (20.0, -math.inf): 0.0,
    }
    points = torch.tensor([list(table)])
    found = attention_at(attention + 1, points, crop_size=(32, 32))
    inside = [0 <= x < 32 and 0 <= y < 32 for x, y in table]
    expected = [
        value + 1 if seen else 0.0 for value, seen in zip(table.values(), inside, strict=True)
    ]
    assert found[0].tolist() == expected


def slow_weights(uv, position_map: Tensor, attention: Tensor | None, floor: float) -> list[list]:
    """Eqs. 10-11 a landmark at a time, the normal from the four neighbours' coordinates."""
    side = uv.resolution
    result = []
    for b, p in enumerate(position_map.double()):
        row_weights = []
        for row, column in uv.landmark_cells.tolist():
            across = p[:, row, min(column + 1, side - 1)] - p[:, row, max(column - 1, 0)]
            down = p[:, min(row + 1, side - 1), column] - p[:, max(row - 1, 0), column]
            normal = torch.linalg.cross(across, down)
            visible = 0.0
            if normal[2] >= 0:
                x, y = (math.floor(p[i, row, column]) for i in (0, 1))
                visible = 1.0
                if attention is not None:
                    seen = 0 <= x < side and 0 <= y < side
                    cell = side // attention.shape[-1]
                    visible = attention[b, y // cell, x // cell].item() if seen else 0.0
            row_weights.append(visible + floor)
        result.append(row_weights)
    return result


@pytest.mark.parametrize("with_attention", [False, True])
def test_weights_are_visibility_plus_floor(small, with_attention) -> None:
    known = posed_faces(small, [0.0, 50.0, -85.0, 70.0])
    shifted = known.position_map.clone()
    shifted[0, 0] += 40  # half of this face has left the crop
    attention = random_attention(1, 4) if with_attention else None
    for floor in (0.1, 0.5):
        weights = SelfAlignment(small.uv, floor=floor).weights(shifted, attention)
        expected = torch.tensor(slow_weights(small.uv, shifted, attention, floor))
        torch.testing.assert_close(weights, expected)


def test_side_of_the_face_turned_away_is_hidden(small) -> None:
    """Known by geometry: at yaw +-70 degrees one end of the jaw faces the camera, the other not."""
    known = posed_faces(small, [0.0, 70.0, -70.0])
    weights = SelfAlignment(small.uv).weights(known.position_map, None)
    assert weights[0, [36, 39, 42, 45, 48, 54, 30]].tolist() == pytest.approx([1.1] * 7)
    # +yaw turns the nose to the left of the image: what was left in it is hidden behind.
    assert weights[1, [2, 14]].tolist() == pytest.approx([0.1, 1.1])
    assert weights[2, [2, 14]].tolist() == pytest.approx([1.1, 0.1])


def test_hidden_landmarks_count_less(small) -> None:
    """The paper's reason for the module: errors under an occluder hardly move the pose."""
    known = posed_faces(small, [0.0, 20.0, -20.0])
    broken = known.position_map.clone()
    covered = known.position_map[:, 1] >= 40  # the lower part of the crop
    broken += torch.tensor([8.0, 4.0, -6.0])[:, None, None] * covered[:, None]
    attention = torch.ones(3, 8, 8)
    attention[:, 5:] = 0
    module = SelfAlignment(small.uv)
    errors = []
    for seen in (torch.ones(3, 8, 8), attention):
        aligned, _ = module(known.shape_map / UNIT, broken, seen)
        errors.append((aligned - known.position_map).norm(dim=1).mean())
    assert errors[1] < 0.6 * errors[0]


def numpy_rules(shape: np.ndarray, posed: np.ndarray, weights: np.ndarray, rule: str) -> tuple:
    """f, R, t by the formulas, for one face (K, 3), (K, 3), (K,); R by an SVD that may reflect."""
    share = weights[:, None] / weights.sum()
    shape_mean, posed_mean = (share * shape).sum(0), (share * posed).sum(0)
    scale = np.linalg.norm(posed - posed_mean, axis=1).sum()
    scale /= np.linalg.norm(shape - shape_mean, axis=1).sum()
    if rule == "released":
        shape_mean, posed_mean = shape.mean(0), posed.mean(0)
    matrix = (scale * (shape - shape_mean)).T @ np.diag(weights) @ (posed - posed_mean)
    left, _, right_t = np.linalg.svd(matrix)
    rotation = right_t.T @ left.T
    if rule == "released":
        return scale, rotation, (posed - scale * shape @ rotation.T).mean(0)
    return scale, rotation, posed_mean - scale * rotation @ shape_mean


@pytest.mark.parametrize("rule", ["paper", "released"])
def test_rules_are_their_formulas_on_noisy_faces(small, rule) -> None:
    """The oracle works in the image itself and may reflect: F turns one result into the other."""
    known = posed_faces(small, YAWS_DEG, dtype=torch.float64)
    noise = torch.randn(4, 68, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shape = small.uv.landmarks(known.shape_map) / UNIT
    image = small.uv.landmarks(known.position_map) + 1.5 * noise
    weights = torch.rand(4, 68, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = align_landmarks(shape, image * FLIP, weights, alignment=rule)
    plain = align_landmarks(shape, image * FLIP, weights)
    for i in range(4):
        oracle = numpy_rules(shape[i].numpy(), image[i].numpy(), weights[i].numpy(), rule)
        scale, rotation, translation = (torch.as_tensor(value) for value in oracle)
        assert torch.linalg.det(rotation) == pytest.approx(-1)
        torch.testing.assert_close(found.scale[i], scale)
        torch.testing.assert_close(found.rotation[i], FLIP.double()[:, None] * rotation)
        torch.testing.assert_close(found.translation[i], FLIP * translation)
        assert abs(plain.scale[i] - scale) > 1e-5 * scale  # the options are different rules


def test_released_weights_are_the_codes(small) -> None:
    """1 or 0.1 by one triangle's normal, times the attention, and no floor."""
    known = posed_faces(small, [0.0, 70.0])
    module = SelfAlignment(small.uv, alignment="released")
    p = known.position_map
    attention = random_attention(7, 2)
    plain, seen = module.weights(p, None), module.weights(p, attention)
    for b in range(2):
        for k, (row, column) in enumerate(small.uv.landmark_cells.tolist()):
            above = p[b, :2, row - 1, column]
            here, left = p[b, :2, row, column] - above, p[b, :2, row, column - 1] - above
            front = here[0] * left[1] - here[1] * left[0] > 0
            assert plain[b, k] == pytest.approx(1.0 if front else 0.1)
            x, y = (int(p[b, i, row, column]) // 8 for i in (0, 1))
            assert seen[b, k] == pytest.approx(plain[b, k].item() * attention[b, y, x].item())
    assert (plain[0] == 1).sum() > 50
    assert (plain[1] < 1).sum() > 10


@pytest.mark.parametrize("rule", RULES)
def test_gradient_of_the_landmarks_and_weights(small, rule) -> None:
    known = posed_faces(small, [30.0, -70.0], dtype=torch.float64)
    some = torch.arange(0, 68, 7)
    generator = torch.Generator().manual_seed(8)
    noise = torch.randn(2, 10, 3, generator=generator, dtype=torch.float64)
    shape = (small.uv.landmarks(known.shape_map)[:, some] / UNIT).requires_grad_()
    posed = (small.uv.landmarks(known.position_map)[:, some] * FLIP + noise).requires_grad_()
    weights = 0.1 + torch.rand(2, 10, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *arguments: tuple(align_landmarks(*arguments, alignment=rule)),
        (shape, posed, weights.requires_grad_()),
    )


@pytest.mark.parametrize("rule", RULES)
def test_gradient_of_the_whole_module(rule) -> None:
    """G and the pose in S, P and the attention; no landmark turns or changes its cell nearby."""
    small = small_face(32)
    known = posed_faces(small, [25.0], dtype=torch.float64)
    module = SelfAlignment(small.uv, alignment=rule)
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(9)).double()
    shape = (known.shape_map / UNIT).requires_grad_()
    posed = (known.position_map + 0.3 * noise).requires_grad_()
    attention = random_attention(10, 1, side=4, dtype=torch.float64).requires_grad_()

    def outputs(*arguments: Tensor) -> tuple[Tensor, ...]:
        aligned, pose = module(*arguments)
        return aligned, *pose

    assert torch.autograd.gradcheck(outputs, (shape, posed, attention), fast_mode=True)
    outputs(shape, posed, attention)[0].square().sum().backward()
    assert all(tensor.grad.any() for tensor in (shape, posed, attention))


def hostile_inputs(small: SmallFace) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """S (in units), P and the attention of two faces each."""
    known = posed_faces(small, [0.0, 60.0])
    shape, posed = known.shape_map / UNIT, known.position_map
    noise = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(11))
    line = torch.linspace(0, 64, 64)[None, None, None].expand(2, 3, 64, 64)
    sphere_like = torch.nn.functional.normalize(noise, dim=1)
    return {
        "identity": (shape, shape * FLIP[:, None, None], None),
        "mirrored": (shape, posed * FLIP[:, None, None], None),
        "mirrored, equal singular values": (sphere_like, sphere_like, None),
        "collinear P": (shape, line, None),
        "collinear S": (line / 64, posed, None),
        "P is one point": (shape, torch.full_like(posed, 30.0), None),
        "P is zero": (shape, torch.zeros_like(posed), None),
        "S is one point": (torch.full_like(shape, 0.7), posed, None),
        "S is zero": (torch.zeros_like(shape), posed, None),
        "both are zero": (torch.zeros_like(shape), torch.zeros_like(posed), None),
        "nothing is visible": (shape, posed, torch.zeros(2, 8, 8)),
        "next to nothing is visible": (shape, posed, torch.full((2, 8, 8), 1e-38)),
        "far outside the crop": (shape, posed + 1e4, torch.ones(2, 8, 8)),
        "noise": (noise, 100 * noise.flip(0), random_attention(12, 2)),
        "tiny": (1e-12 * noise, 1e-12 * noise.flip(0), random_attention(12, 2)),
        "huge": (1e6 * noise, 1e6 * noise.flip(0), random_attention(12, 2)),
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", hostile_inputs(small_face(64)))
def test_hostile_maps_give_finite_values_and_gradients(small, name, rule) -> None:
    shape, posed, attention = hostile_inputs(small)[name]
    inputs = [tensor.clone().requires_grad_() for tensor in (shape, posed)]
    if attention is not None:
        attention = attention.clone().requires_grad_()
        inputs.append(attention)
    aligned, pose = SelfAlignment(small.uv, alignment=rule)(*inputs[:2], attention)
    assert aligned.isfinite().all()
    torch.testing.assert_close(torch.linalg.det(pose.rotation), torch.ones(2), rtol=0, atol=1e-4)
    weights = torch.randn(aligned.shape, generator=torch.Generator().manual_seed(13))
    (aligned * weights).sum().backward()
    for tensor in inputs:
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("rule", RULES)
def test_gradient_stays_small_next_to_a_line(small, rule) -> None:
    """P a hair off a line: undamped, its rotation would have a gradient of thousands."""
    known = posed_faces(small, [0.0])
    line = torch.linspace(0, 64, 64)[None, None, None].expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(14))
    posed = (line + 1e-4 * noise).requires_grad_()
    _, pose = SelfAlignment(small.uv, alignment=rule)(known.shape_map / UNIT, posed)
    pose.rotation[0, 0, 1].backward()
    assert 0 < posed.grad.abs().max() < 10


def test_not_a_number_stays_with_its_item(small) -> None:
    known = posed_faces(small, YAWS_DEG)
    broken = known.position_map.clone()
    broken[1] = torch.nan
    broken[2, 0, 0, 0] = torch.nan  # no landmark there
    for rule in RULES:
        module = SelfAlignment(small.uv, alignment=rule)
        aligned, _ = module(known.shape_map / UNIT, broken, random_attention(15, 4))
        assert aligned.isfinite().all((1, 2, 3)).tolist() == [True, False, True, True]


def test_float32_under_autocast(small) -> None:
    known = posed_faces(small, YAWS_DEG)
    attention = random_attention(16, 4)
    module = SelfAlignment(small.uv)
    plain, _ = module(known.shape_map / UNIT, known.position_map, attention)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, pose = module(known.shape_map / UNIT, known.position_map, attention)
        low, _ = module(
            (known.shape_map / UNIT).bfloat16(), known.position_map.bfloat16(), attention.bfloat16()
        )
    assert torch.equal(plain, inside)
    assert low.dtype == pose.rotation.dtype == torch.float32


def test_batch_equals_its_items_and_arguments_stay(small) -> None:
    known = posed_faces(small, YAWS_DEG)
    arguments = (known.shape_map / UNIT, known.position_map, random_attention(17, 4))
    copies = [argument.clone() for argument in arguments]
    module = SelfAlignment(small.uv)
    together, pose = module(*arguments)
    for i in range(4):
        alone, pose_alone = module(*(argument[i : i + 1] for argument in arguments))
        torch.testing.assert_close(together[i : i + 1], alone)
        torch.testing.assert_close(pose.rotation[i : i + 1], pose_alone.rotation)
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))
    assert module.state_dict() == {}


def test_bad_options_raise(small) -> None:
    with pytest.raises(ValueError, match="alignment: got 'kabsch', expected one of"):
        SelfAlignment(small.uv, alignment="kabsch")
    for floor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="floor: got .*expected a positive number"):
            SelfAlignment(small.uv, floor=floor)
