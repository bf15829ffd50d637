"""What is drawn of a synthetic sample, and the stream of samples."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from prnet.geometry.camera import angles_from_rotation, rotation_from_angles
from prnet.synthetic import world as module
from prnet.synthetic.camera.film import draw_film
from prnet.synthetic.camera.lighting import draw_light, polynomial_terms
from prnet.synthetic.camera.pose import angles_of
from prnet.synthetic.parameters import STREAMS, SampleParameters, World, draw, draw_pose, streams
from prnet.synthetic.person.expressions import LED, LIMIT, OPPOSED, draw_expression
from prnet.synthetic.person.material import draw_material
from prnet.synthetic.person.skin_chart import skin_chart
from prnet.synthetic.person.textures import skin_layers
from prnet.synthetic.render.bank import MARGIN, TEXTURE_SIZE, Bank
from prnet.synthetic.render.renderer import Rendering
from prnet.synthetic.world import SyntheticFaces
from prnet.synthetic.worn.accessories import draw_accessories
from tests.worlds import shipped_world

SIZE = 64
COUNTS = {"num_textures": 48, "num_backgrounds": 64}


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return small_faces()


def small_faces(world: World | None = None, **options) -> SyntheticFaces:
    options = {"size": SIZE, "textures_per_block": 2, "backgrounds_per_block": 2} | options
    return SyntheticFaces(world or shipped_world(), **options)


@pytest.fixture(scope="module")
def exp_names(faces: SyntheticFaces) -> tuple[str, ...]:
    return faces.head.exp_names


def flat(parameters: tuple) -> dict[str, np.ndarray]:
    """Every number of nested parameters under its dotted name."""
    leaves = {}
    for name, value in zip(parameters._fields, parameters, strict=True):
        if isinstance(value, tuple):
            leaves |= {f"{name}.{key}": leaf for key, leaf in flat(value).items()}
        else:
            leaves[name] = np.asarray(value)
    return leaves


def same(one: SampleParameters, other: SampleParameters) -> set[str]:
    """Top-level concerns in which two samples differ."""
    first, second = flat(one), flat(other)
    assert first.keys() == second.keys()
    return {
        name.partition(".")[0] for name in first if not np.array_equal(first[name], second[name])
    }


def assert_equal_batches(one: Rendering, other: Rendering) -> None:
    for name, first, second in zip(one._fields, one, other, strict=True):
        assert torch.equal(first, second), name


def test_sample_is_a_function_of_seed_and_index(exp_names: tuple[str, ...]) -> None:
    world = shipped_world()

    def sample(seed: int, index: int) -> SampleParameters:
        return draw(world, seed, index, exp_names=exp_names, **COUNTS)

    assert same(sample(3, 8), sample(3, 8)) == set()
    sample(3, 9)
    assert same(sample(3, 8), sample(3, 8)) == set()
    for other in (sample(3, 9), sample(4, 8)):
        changed = same(sample(3, 8), other)
        assert {"shape_params", "exp_params", "pose", "framing", "light"} <= changed
        assert {"material", "accessories", "film", "backdrop", "eyes"} <= changed


def test_known_numbers_of_a_sample(exp_names: tuple[str, ...]) -> None:
    """The same on any machine: numpy guarantees PCG64 and the spawning of seeds."""
    assert streams(5, 7)["identity"].integers(2**32) == 2640319511
    assert streams(5, 7)["film"].integers(2**32) == 1892867348
    firsts = {int(generator.integers(2**62)) for generator in streams(5, 7).values()}
    assert len(firsts) == len(STREAMS)


@pytest.mark.parametrize(
    ("changed", "concerns"),
    [
        ({"shape_std": 0.3}, {"shape_params"}),
        ({"expression_strength": 0.5, "neutral_share": 0.0}, {"exp_params"}),
        ({"roll_std": 40.0, "roll_limit": 80.0}, {"pose"}),
        ({"crop_scale": 2.5}, {"framing"}),
        ({"hard_light_share": 0.0}, {"light"}),
        ({"occluder_share": 1.0}, {"occluder_seed"}),
    ],
)
def test_changing_one_rule_moves_nothing_else(
    changed: dict, concerns: set[str], exp_names: tuple[str, ...]
) -> None:
    moved = set()
    for index in range(20):
        one, other = (
            draw(world, 0, index, exp_names=exp_names, **COUNTS)
            for world in (shipped_world(), shipped_world(**changed))
        )
        moved |= same(one, other)
    assert moved == concerns


def test_every_concern_draws_from_its_own_stream(exp_names: tuple[str, ...]) -> None:
    world = shipped_world()
    sample = draw(world, 2, 3, exp_names=exp_names, **COUNTS)
    random = streams(2, 3)
    expected = {
        "film": draw_film(random["film"]),
        "material": draw_material(random["material"]),
        "accessories": draw_accessories(random["accessories"], world.accessories),
        "pose": draw_pose(world, random["pose"]),
        "light": draw_light(
            random["light"], hard_share=world.hard_light_share, shadow_share=world.shadow_share
        ),
    }
    for name, fields in expected.items():
        got = flat(getattr(sample, name))
        for field, value in flat(fields).items():
            np.testing.assert_array_equal(got[field], value)


def test_identity_is_normal_and_clipped(exp_names: tuple[str, ...]) -> None:
    world = shipped_world(shape_std=0.9, shape_limit=2.0)
    shape = np.stack(
        [draw(world, 1, k, exp_names=exp_names, **COUNTS).shape_params for k in range(100)]
    )
    assert abs(shape.mean()) < 0.03
    assert abs(shape.std() - 0.9 * 0.96) < 0.03  # the tails beyond 2.2 sigma are clipped
    assert np.abs(shape).max() == 2.0


def test_yaw_follows_its_bins_and_tilts_their_limits() -> None:
    random = np.random.default_rng(0)
    world = shipped_world(yaw_bins=((0, 30, 0.5), (30, 60, 0.2), (60, 105, 0.3)), roll_limit=50)
    poses = np.degrees([draw_pose(world, random) for _ in range(3000)])  # yaw, nod, pitch, roll
    yaw = np.abs(poses[:, 0])
    counts = np.histogram(yaw, [0, 30, 60, 105])[0] / len(yaw)
    np.testing.assert_allclose(counts, [0.5, 0.2, 0.3], atol=0.03)
    assert abs((poses[:, 0] > 0).mean() - 0.5) < 0.03
    assert 90 < yaw.max() <= 105
    assert 30 < np.abs(poses[:, 1] + poses[:, 2]).max() <= world.pitch_limit
    assert 40 < np.abs(poses[:, 3]).max() <= 50
    assert abs(np.median(poses[:, 1:])) < 1


def test_shares_of_yaw_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match=r"shares sum to 0\.9, expected 1"):
        draw_pose(shipped_world(yaw_bins=((0, 30, 0.9),)), np.random.default_rng(0))


def test_angles_are_of_the_same_rotation_and_pass_ninety_degrees() -> None:
    random = np.random.default_rng(0)
    pose = torch.tensor(random.uniform(-0.5, 0.5, (500, 4)))
    pose[:, 0] = torch.tensor(random.uniform(-1.8, 1.8, 500))
    yaw, nod, pitch, roll = pose.unbind(-1)
    zero = torch.zeros_like(yaw)

    def turned(*angles: torch.Tensor) -> torch.Tensor:
        return rotation_from_angles(torch.stack(angles, -1))

    expected = turned(zero, zero, roll) @ turned(pitch, zero, zero)
    expected = expected @ turned(zero, yaw, zero) @ turned(nod, zero, zero)
    angles = angles_of(pose)
    torch.testing.assert_close(rotation_from_angles(angles), expected)

    plain = torch.zeros(5, 4, dtype=torch.float64)
    plain[:, 0] = torch.tensor([-1.8, -1.0, 0.0, 1.2, 1.8])
    torch.testing.assert_close(angles_of(plain)[:, 1], plain[:, 0])
    tilted = torch.tensor([[1.75, 0.05, 0.1, -0.1]], dtype=torch.float64)
    assert angles_of(tilted)[0, 1] > 1.6
    assert angles_from_rotation(rotation_from_angles(angles_of(tilted)))[0, 1] < 1.5


def test_expressions_are_plausible(exp_names: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    gaze = random.uniform(-30, 30, (1500, 2))
    weights = np.stack(
        [
            draw_expression(exp_names, random, gaze_deg=angles, neutral_share=0.15, strength=1)
            for angles in gaze
        ]
    )
    by_name = dict(zip(exp_names, weights.T, strict=True))
    assert 0 <= weights.min()
    assert 0.95 < weights.max() <= LIMIT
    assert (by_name["mouthClose"] <= by_name["jawOpen"]).all()
    # Sides go together, apart from gaze.
    for base in ("mouthSmile", "browDown", "eyeBlink", "mouthUpperUp", "noseSneer"):
        left, right = by_name[f"{base}Left"], by_name[f"{base}Right"]
        assert np.corrcoef(left, right)[0, 1] > 0.7
    # The weaker of two opposed muscles keeps a fifth of what it had.
    for names in OPPOSED:
        first, *others = (by_name.get(name, by_name.get(f"{name}Left")) for name in names)
        assert all(np.minimum(first, other).max() < 0.6 for other in others)
    led = [k for k, name in enumerate(exp_names) if name.startswith(LED)]
    muscles = np.delete(weights, led, axis=1)
    assert abs((muscles.max(1) == 0).mean() - 0.15) < 0.04
    # Every blend shape occurs, and strongly.
    assert (weights.max(0) > 0.3).all()
    np.testing.assert_array_equal(by_name["eyeLookOutLeft"] > 0, gaze[:, 0] > 0)
    np.testing.assert_array_equal(by_name["eyeLookInRight"] > 0, gaze[:, 0] > 0)
    np.testing.assert_array_equal(by_name["eyeLookUpLeft"] > 0, gaze[:, 1] > 0)
    closed = by_name["eyeBlinkLeft"]
    assert 0.1 < (closed > 0.85).mean() < 0.18


def test_neutral_faces_move_eyes_alone(exp_names: tuple[str, ...]) -> None:
    random = np.random.default_rng(1)
    weights = draw_expression(
        exp_names, random, gaze_deg=np.array([10.0, 5.0]), neutral_share=1, strength=1
    )
    moved = {name for name, value in zip(exp_names, weights, strict=True) if value}
    assert all(name.startswith("eye") for name in moved)


def test_light_is_exposed_for_the_face() -> None:
    random = np.random.default_rng(0)
    facing = np.array([[0.0, 0.0, 1.0]])
    received, shadows, hard = [], 0, 0
    for _ in range(300):
        light = draw_light(random, hard_share=0.6, shadow_share=0.5)
        level = (polynomial_terms(facing) @ light.irradiance)[0]
        level = level + max(light.direction[2], 0) * light.color
        received.append(level.mean())
        hard += light.color.any()
        shadows += light.shadow
        for vector in (light.direction, light.highlight):
            assert abs(np.linalg.norm(vector) - 1) < 1e-9
    assert abs(hard / 300 - 0.6) < 0.1
    assert abs(shadows / hard - 0.5) < 0.12
    assert 0.7 < np.median(received) < 1.3
    assert np.quantile(received, 0.95) < 2.5


def test_batches_equal_their_samples_whatever_the_order(faces: SyntheticFaces) -> None:
    batch = faces.batch([5, 6, 40])
    assert batch.index.tolist() == [5, 6, 40]
    for position, index in ((2, 40), (0, 5), (1, 6)):
        one = faces.batch([index])
        picked = Rendering(*(field[position : position + 1] for field in batch))
        assert_equal_batches(one, picked)
    assert_equal_batches(small_faces().batch([5, 6, 40]), batch)


def test_shapes_and_ranges(faces: SyntheticFaces) -> None:
    batch = faces.batch(range(6))
    assert batch.image.shape == (6, 3, SIZE, SIZE)
    assert batch.image.dtype == torch.float32
    assert batch.image.isfinite().all()
    assert 0 <= batch.image.min() <= batch.image.max() <= 1
    assert batch.attention.shape == (6, SIZE, SIZE)
    assert batch.attention.dtype == batch.landmarks_visible.dtype == torch.bool
    assert batch.landmarks.shape == (6, 68, 3)
    assert batch.crop_from_model.shape == (6, 4, 4)
    assert (torch.linalg.det(batch.crop_from_model[:, :3, :3]) < 0).all()
    assert len({image.sum().item() for image in batch.image}) == 6


def test_seeds_differ(faces: SyntheticFaces) -> None:
    other = small_faces(seed=1)
    assert not torch.equal(other.batch([0]).shape_params, faces.batch([0]).shape_params)


def test_blocks_have_textures_of_their_own(
    faces: SyntheticFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = faces.batch([2, 3])
    monkeypatch.setattr(module, "BLOCK", 3)
    split = small_faces()
    batch = split.batch([2, 3, 2])
    picked = Rendering(*(field[:1] for field in expected))
    assert_equal_batches(Rendering(*(field[:1] for field in batch)), picked)
    assert_equal_batches(Rendering(*(field[2:] for field in batch)), picked)
    # Sample 3 is now the first of another block.
    assert torch.equal(batch.shape_params[1], expected.shape_params[1])
    assert not torch.equal(batch.image[1], expected.image[1])


def test_bank_makes_only_what_is_asked_for(faces: SyntheticFaces) -> None:
    bank = Bank(
        faces.head, faces.face, seed=0, block=0, num_textures=3, num_backgrounds=1, size=SIZE
    )
    bank.require_textures([1])
    made = bank.textures.flatten(1).any(1).tolist()
    assert made == [False, True, False]
    again = bank.textures.clone()
    bank.require_textures([1, 1])
    assert torch.equal(bank.textures, again)
    texture = bank.textures[1].float().unflatten(0, (TEXTURE_SIZE, TEXTURE_SIZE))
    assert texture.min() >= 0
    assert texture.max() <= 1
    # Beyond the window it fades without a step.
    inner = texture[MARGIN, MARGIN:-MARGIN]
    assert (texture[MARGIN - 1, MARGIN:-MARGIN] - inner).abs().max() < 0.05
    assert (texture[0] - texture[-1]).abs().max() == 0


def test_texture_of_a_sample_is_the_window_of_its_layers(faces: SyntheticFaces) -> None:
    """The layers as they are made, without the margin that the renderer adds."""
    index = next(k for k in range(50) if faces.parameters(k).texture == 1)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([0, 0, 0, 1])))
    layers = skin_layers(skin_chart(faces.head, faces.face, 256), generator)
    got = faces.texture(index)
    assert got.shape == (256 * 256, len(layers))
    expected = torch.from_numpy(layers).flatten(1).t().float() / 255
    torch.testing.assert_close(got.float(), expected, atol=1e-3, rtol=0)


def test_black_borders_are_no_face(exp_names: tuple[str, ...]) -> None:
    faces = small_faces(shipped_world(border_share=1))
    items = [faces.parameters(k) for k in range(5)]
    batch = faces.batch(range(5))
    bordered = 0
    for item, image, attention in zip(items, batch.image, batch.attention, strict=True):
        left, top, right, bottom = np.floor(item.framing.border * SIZE - 0.5).astype(int).clip(0)
        for outside in (
            (slice(None), slice(left)),
            (slice(top), slice(None)),
            (slice(None), slice(SIZE - right, None)),
            (slice(SIZE - bottom, None), slice(None)),
        ):
            assert not image[:, *outside].any()
            assert not attention[outside].any()
        bordered += max(left, top, right, bottom)
    assert bordered > 5


def test_backgrounds_come_from_the_user_s_folder(tmp_path: Path) -> None:
    red = np.zeros((80, 80, 3), np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red)
    world = shipped_world(crop_scale=4.0, border_share=0, occluder_share=0)
    faces = small_faces(world, backgrounds=tmp_path)
    crop = faces.bank(0).background_crops([faces.parameters(0).backdrop], SIZE)[0]
    assert (crop[0] > 0).all()
    assert not crop[1:].any()


def test_what_cannot_be_is_refused(faces: SyntheticFaces, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 0 textures"):
        small_faces(textures_per_block=0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        small_faces(backgrounds=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="index -1, expected"):
        faces.batch([-1])
    with pytest.raises(ValueError, match="got none"):
        faces.batch([])


def test_fits_are_of_the_pictures(faces: SyntheticFaces) -> None:
    batch = faces.batch([3, 4])
    for fit, shape, exp in zip(
        faces.fits([3, 4]), batch.shape_params, batch.exp_params, strict=True
    ):
        np.testing.assert_allclose(fit.shape_params, shape, rtol=1e-6)
        np.testing.assert_allclose(fit.exp_params, exp, rtol=1e-6)
        assert fit.angles.shape == fit.translation.shape == (3,)
        assert fit.scale > 0
