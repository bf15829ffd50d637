"""Skin textures, people's colours, and the albedo of the two."""

from collections.abc import Mapping

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from prnet.faces.embedded import Head, load_embedded, load_head, window_triangles
from prnet.faces.face import Face
from prnet.synthetic.noise import octave_noise, smoothstep
from prnet.synthetic.person.material import SkinMaterial, draw_material, skin_tone
from prnet.synthetic.person.skin_chart import along_path, skin_chart, smooth_path
from prnet.synthetic.person.textures import SKIN_LAYERS, compose_albedo, skin_layers

NUM_TEXTURES = 16


@pytest.fixture(scope="module")
def face() -> Face:
    return load_embedded()


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head()


@pytest.fixture(scope="module")
def chart(head, face):
    return skin_chart(head, face, 256)


@pytest.fixture(scope="module")
def textures(chart) -> Mapping[str, np.ndarray]:
    """(NUM_TEXTURES, 256, 256) float64 in [0, 1] of each layer."""
    made = [texture(chart, seed) for seed in range(NUM_TEXTURES)]
    return dict(zip(SKIN_LAYERS, np.stack(made, 1) / 255, strict=True))


def texture(chart, seed: int) -> np.ndarray:
    return skin_layers(chart, np.random.default_rng(seed))


def center(layer: np.ndarray) -> np.ndarray:
    """Column and row of a layer's centre of mass."""
    axis = np.arange(len(layer))
    return np.array([layer.sum(0) @ axis, layer.sum(1) @ axis]) / layer.sum()


def within(chart, points: np.ndarray, reach: float) -> np.ndarray:
    """Which pixels lie in the hull of some points or within `reach` units of it."""
    mask = np.zeros((chart.size, chart.size), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    return cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5) <= reach * chart.unit


def share_within(layer: np.ndarray, mask: np.ndarray) -> float:
    return float(layer[mask].sum() / layer.sum())


def test_texture_is_bytes_and_a_function_of_the_generator(chart):
    first = texture(chart, 3)
    assert first.shape == (len(SKIN_LAYERS), 256, 256)
    assert first.dtype == np.uint8
    assert np.array_equal(first, texture(chart, 3))
    changed = (first != texture(chart, 4)).mean((1, 2))
    assert (changed > 0).sum() >= len(SKIN_LAYERS) - 1


def test_every_layer_is_used_and_none_is_all(textures):
    for name, layer in textures.items():
        assert layer.max() > 0.5, name
        assert layer.mean() < 0.6, name


def test_brows_lie_at_the_brow_landmarks(textures, chart):
    for layer in textures["brow"]:
        for brow in (slice(17, 22), slice(22, 27)):
            near = within(chart, chart.landmarks[brow], 0.02)
            assert layer[near].mean() > 0.05
        near = within(chart, chart.landmarks[17:22], 0.2) | within(
            chart, chart.landmarks[22:27], 0.2
        )
        assert share_within(layer, near) > 0.97
        above_eyes = layer[: round(chart.landmarks[[37, 38, 43, 44], 1].min())]
        assert above_eyes.sum() > 0.97 * layer.sum()


def test_brows_differ_in_strength(textures):
    mass = textures["brow"].sum((1, 2))
    assert mass.max() > 2 * mass.min()


def test_lips_lie_in_the_mouth(textures, chart):
    mouth = within(chart, chart.landmarks[48:60], 0.12)
    for layer in textures["lips"]:
        assert share_within(layer, mouth) > 0.97
        for upper in (chart.between(51, 62, 0.5), chart.between(57, 66, 0.5)):
            column, row = np.rint(upper).astype(int)
            assert layer[row, column] > 0.6


def test_lashes_lie_along_the_lids(textures, chart):
    near = within(chart, chart.landmarks[36:42], 0.2) | within(chart, chart.landmarks[42:48], 0.2)
    for layer in textures["lash"]:
        assert share_within(layer, near) > 0.99
        column, row = np.rint(chart.between(37, 38, 0.5)).astype(int)
        assert layer[row - 2 : row + 3, column].max() > 0.25


def test_makeup_lies_between_lid_and_brow(textures, chart):
    lids = chart.landmarks[[36, 37, 38, 39, 42, 43, 44, 45], 1].max()
    brows = chart.landmarks[17:27, 1].min()
    for layer in textures["makeup"]:
        assert layer[round(brows) : round(lids) + 4].sum() > 0.97 * layer.sum()


def test_beards_lie_below_the_nose_and_leave_the_lips_free(textures, chart):
    temples = round(chart.landmarks[[0, 16], 1].min() - 0.3 * chart.unit)
    for layer in textures["beard"]:
        assert layer[:temples].sum() < 0.01 * layer.sum()
        assert layer[chart.lips > 0.8].mean() < 0.05
        column, row = np.rint(chart.landmarks[28]).astype(int)
        assert layer[row - 5 : row + 5, column - 5 : column + 5].max() == 0
    chin = np.rint(chart.between(57, 8, 0.7)).astype(int)
    assert textures["beard"][:, chin[1], chin[0]].mean() > 0.2


def test_wrinkles_lie_on_the_face(textures, chart):
    face_area = within(chart, chart.landmarks, 0.9)
    for layer in textures["shade"]:
        assert share_within(layer, face_area) > 0.97


def test_brow_hairs_grow_from_the_nose_outward(textures):
    """Both sides the same way: averages of many mirror each other closely."""
    mean = textures["brow"].mean(0)
    mirrored = mean[:, ::-1]
    assert np.abs(mean - mirrored).sum() < 0.2 * mean.sum()


@pytest.mark.parametrize("name", ["brow", "lips", "lash", "makeup", "shade", "beard", "redness"])
def test_layers_are_symmetric_on_average_only(textures, name):
    layers = textures[name]
    mean = layers.mean(0)
    correlation = np.corrcoef(mean.ravel(), mean[:, ::-1].ravel())[0, 1]
    assert correlation > 0.9
    assert np.abs(layers - layers[:, :, ::-1]).max((1, 2)).mean() > 0.05


def test_layers_lie_at_the_same_place_at_any_size(head, face, chart):
    whole, half = texture(chart, 5), texture(skin_chart(head, face, 128), 5)
    for name in ("lips", "brow", "makeup", "lash"):
        index = SKIN_LAYERS.index(name)
        expected = center(whole[index].astype(float)) * 127 / 255
        np.testing.assert_allclose(center(half[index].astype(float)), expected, atol=0.8)


def test_chart_follows_the_position_map(head, face, chart):
    """A texture's pixel is the map's texel: landmarks and masks agree with the layout."""
    cells = face.uv.landmark_cells.numpy()[:, ::-1]
    assert np.abs(chart.landmarks - cells).max() <= 0.5
    kept = head.triangles[window_triangles(head)].unique()
    lips = face.uv.position_map(head.masks["lips"][kept][None, :, None])[0, 0].numpy()
    np.testing.assert_allclose(chart.lips, lips, atol=1e-6)


def gathered(material: SkinMaterial, count: int | None = None) -> SkinMaterial:
    """The fields as tensors, repeated for `count` pixels."""
    fields = [torch.tensor(np.array(field), dtype=torch.float32) for field in material]
    if count is not None:
        fields = [field.expand(count, *field.shape).contiguous() for field in fields]
    return SkinMaterial(*fields)


def material(seed: int = 0) -> SkinMaterial:
    return draw_material(np.random.default_rng(seed))


def only(name: str, value: float = 1.0) -> Tensor:
    """One pixel on which one layer is seen, (1, L)."""
    layers = torch.zeros(1, len(SKIN_LAYERS))
    layers[0, SKIN_LAYERS.index(name)] = value
    return layers


def test_empty_layers_leave_the_tone():
    person = gathered(material(), 5)
    albedo = compose_albedo(torch.zeros(5, len(SKIN_LAYERS)), person)
    torch.testing.assert_close(albedo, person.skin_tone)


@pytest.mark.parametrize("name", ["lips", "makeup", "beard", "brow", "lash"])
def test_a_full_cover_shows_its_own_colour(name):
    color = "lip" if name == "lips" else name
    person = material()._replace(**{f"{color}_strength": 1.0, f"{color}_color": np.full(3, 0.25)})
    covered = compose_albedo(only(name), gathered(person))
    torch.testing.assert_close(covered, torch.full((1, 3), 0.25))
    half = compose_albedo(only(name, 0.5), gathered(person))
    torch.testing.assert_close(half[0], (gathered(person).skin_tone + 0.25) / 2)


@pytest.mark.parametrize("name", ["detail", "redness", "spots", "shade"])
def test_absorbing_layers_darken(name):
    person = gathered(material()._replace(**{f"{name}_gain": 1.0}))
    weak, strong = (compose_albedo(only(name, value), person) for value in (0.3, 0.6))
    tone = person.skin_tone
    assert (weak < tone).all()
    # Absorbance is proportional to the layer.
    torch.testing.assert_close((strong / tone).log(), 2 * (weak / tone).log())


def test_blood_reddens():
    person = gathered(material()._replace(redness_gain=1.0))
    red, green, blue = (compose_albedo(only("redness"), person)[0] / person.skin_tone).tolist()
    assert red > 0.9
    assert max(green, blue) < 0.6


def test_albedo_is_finite_and_in_range_for_anyone():
    layers = torch.rand(500, len(SKIN_LAYERS), generator=torch.Generator().manual_seed(0))
    for seed in range(40):
        albedo = compose_albedo(layers, gathered(material(seed), 500))
        assert torch.isfinite(albedo).all()
        assert albedo.min() >= 0
        assert albedo.max() <= 1


def test_gathered_material_is_one_material():
    layers = torch.rand(64, len(SKIN_LAYERS), generator=torch.Generator().manual_seed(1))
    single = compose_albedo(layers, gathered(material(2)))
    torch.testing.assert_close(compose_albedo(layers, gathered(material(2), 64)), single)


def test_arguments_are_not_written_to():
    layers = torch.rand(8, len(SKIN_LAYERS))
    person = gathered(material(), 8)
    before = layers.clone(), [field.clone() for field in person]
    compose_albedo(layers, person)
    assert torch.equal(layers, before[0])
    assert all(map(torch.equal, person, before[1]))


def test_material_is_a_function_of_the_generator():
    assert all(map(np.array_equal, material(4), material(4)))
    assert not np.array_equal(material(4).skin_tone, material(5).skin_tone)


def test_people_vary_as_people_do():
    people = [material(seed) for seed in range(600)]
    for person in people:
        for name, value in person._asdict().items():
            assert np.isfinite(value).all(), name
            if name.endswith("_color") or name == "skin_tone":
                assert value.shape == (3,), name
                assert (value > 0).all(), name
                assert (value < 1).all(), name
            elif name.endswith("_strength") or name in ("specular", "roughness"):
                assert 0 <= value <= 1, name
    tones = np.array([person.skin_tone[1] for person in people])
    assert tones.min() < 0.03
    assert tones.max() > 0.5
    bearded = np.mean([person.beard_strength > 0 for person in people])
    shadowed = np.mean([person.makeup_strength > 0 for person in people])
    assert 0.15 < bearded < 0.4
    assert 0.08 < shadowed < 0.3
    # Dark hair goes with dark skin.
    hair = np.array([person.hair_color.mean() for person in people])
    assert np.median(hair[tones < 0.1]) < 0.5 * np.median(hair[tones > 0.4])


def test_skin_tones_darken_along_the_ramp():
    tones = np.stack([skin_tone(darkness) for darkness in np.linspace(0, 1, 33)])
    assert (np.diff(tones, axis=0) < 0).all()
    # Skin is never green or blue.
    assert (np.diff(tones, axis=1) < 0).all()


def test_octave_noise_is_normalised_and_smooth():
    random = np.random.default_rng(0)
    coarse = octave_noise(random, 128, (8,))
    fine = octave_noise(random, 128, (64,))
    for field in (coarse, fine):
        assert field.shape == (128, 128)
        assert abs(field.mean()) < 1e-4
        assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(coarse)).mean() < 0.3 * np.abs(np.diff(fine)).mean()


def test_smoothstep_known_values():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(smoothstep(values, 0, 2), [0, 0, 0.15625, 0.5, 1])
    np.testing.assert_allclose(smoothstep(values, 2, 0), [1, 1, 0.84375, 0.5, 0])


def test_paths():
    corner = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    points = along_path(corner, np.array([0.0, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(points, [[0, 0], [2, 0], [3, 0], [3, 1]])
    curve = smooth_path(corner, 9)
    np.testing.assert_allclose(curve[[0, 4, 8]], corner, atol=1e-12)
    straight = smooth_path(np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]), 5)
    np.testing.assert_allclose(straight[:, 1], 2 * straight[:, 0], atol=1e-12)
