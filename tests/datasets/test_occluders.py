"""Occluders: PRN's noise, SADRNet's shapes, and those of an evaluation."""

import itertools
import math

import pytest
import torch
from hydra import compose, initialize_config_dir

from prnet.datasets import occluders
from prnet.datasets.occluders import (
    OCCLUDERS,
    Cover,
    ImageOccluder,
    bent,
    draw_cover,
    draw_cover_numbers,
    noise_texture,
)
from prnet.datasets.synthetic import SyntheticRule
from prnet.entry import CONFIG_DIR, shipped_dataset
from prnet.eval import occluder_named, run_evaluation

SIZE = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", OCCLUDERS)
def test_cover_is_laid_over_some_images(name):
    cover = draw_cover(name, 400, SIZE, generator(), probability=0.5)
    touched = (cover.gain != 1).flatten(1).any(1)
    assert 0.35 < touched.float().mean() < 0.55  # some fall outside the frame
    image = torch.rand(400, 3, SIZE, SIZE, generator=generator(1))
    covered = cover.over(image)
    assert torch.equal(covered[~touched], image[~touched])
    assert covered.min() >= 0
    assert covered.max() <= 1
    # Where the face is hidden nothing of the image is left; elsewhere nothing is put over it.
    gain = cover.gain.expand(-1, 3, -1, -1)
    assert (gain[cover.hides[:, None].expand_as(gain)] == 0).all()
    assert (cover.paint[~cover.hides[:, None].expand_as(gain)] == 0).all()
    for probability, share in ((0.0, 0), (1.0, 1)):
        cover = draw_cover(name, 20, SIZE, generator(), probability=probability)
        assert (cover.gain != 1).flatten(1).any(1).float().mean() == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("name", OCCLUDERS)
def test_draws_are_reproducible(name):
    first, again, other = (
        draw_cover(name, 4, SIZE, generator(seed), probability=1.0) for seed in (1, 1, 2)
    )
    for got, expected in zip(first, again, strict=True):
        assert torch.equal(got, expected)
    assert not torch.equal(first.gain, other.gain)


def test_noise_is_textured_and_of_the_size_asked():
    texture = noise_texture(draw_cover_numbers("noise", 2, generator(1)).textures, SIZE)
    assert texture.min() >= 0
    assert texture.max() <= 1
    assert texture.std() > 0.05
    assert texture.diff(dim=-1).abs().mean() > 0.1  # down to single px
    smooth = torch.nn.functional.avg_pool2d(texture, SIZE // 4)
    assert smooth.std() > 0.05
    shares = [
        draw_cover("noise", 300, SIZE, generator(), probability=1.0, noise_sides=sides)
        .hides.float()
        .mean()
        for sides in ((0.1, 0.1), (0.4, 0.4))
    ]
    # Squares or discs, centred on the image: up to 3/4 of one may hang over its border.
    for share, side in zip(shares, (0.1, 0.4), strict=True):
        assert 0.6 * side**2 < share < side**2


def test_noise_lies_anywhere_in_both_forms_with_a_wavy_outline():
    cover = draw_cover("noise", 1500, SIZE, generator(), probability=1.0, noise_sides=(0.4, 0.4))
    share = cover.hides.float().mean(0)
    for half in (share[:, : SIZE // 2], share[: SIZE // 2]):
        assert half.sum() / share.sum() == pytest.approx(0.5, abs=0.03)
    assert share.min() > 0.1 * share.max()
    rows, columns = cover.hides.any(2), cover.hides.any(1)
    whole = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]) & rows.any(1)
    # The wave shears: a disc has pi / 4 of its square.
    area = cover.hides[whole].flatten(1).sum(1) / (0.4 * SIZE) ** 2
    disc = area < 0.89
    assert disc.float().mean() == pytest.approx(0.5, abs=0.1)
    assert area[disc].mean() == pytest.approx(math.pi / 4, abs=0.04)
    assert area[~disc].mean() == pytest.approx(1, abs=0.04)
    lopsided = []
    for mask in cover.hides[whole]:
        box = mask[mask.any(1)][:, mask.any(0)]
        lopsided.append((box != box.flip(0, 1)).sum() / box.sum())
    assert torch.stack(lopsided).mean() > 0.1


def test_fills_have_the_released_shares(monkeypatch):
    """A quarter grey; of the rest three quarters one colour and a quarter a tint."""
    monkeypatch.setattr(occluders, "COUNT_BOUNDS", (2.0, 2.0))
    cover = draw_cover("sadrnet", 4000, 8, generator(), probability=1.0)
    touched = (cover.gain != 1).flatten(1).any(1)
    cover = Cover(*(field[touched] for field in cover))
    paint = cover.paint.flatten(2).amax(2)  # (n, 3): one fill an image
    solid = cover.hides.flatten(1).any(1)
    grey = solid & (paint == paint[:, :1]).all(1)
    for kind, share in ((grey, 0.25), (solid & ~grey, 0.5625), (~solid, 0.1875)):
        assert kind.float().mean() == pytest.approx(share, abs=0.025)
    assert paint[solid].mean() == pytest.approx(0.5, abs=0.02)
    tint = cover.gain[~solid].flatten(2).amin(2)
    assert tint.mean() == pytest.approx(0.5, abs=0.03)


def test_number_of_occluders(monkeypatch):
    """One, two or three in 3, 5 and 7 of 15: of tints that all reach the lower right corner the
    expected -log of their product there is their number, (3 + 10 + 21) / 15."""
    for name, value in (
        ("GREY_SHARE", 0.0),
        ("CONSTANT_SHARE", 0.0),
        ("AREA", (9.0, 9.0)),
        ("ASPECT", (1.0, 1.0)),
        ("WAVE", 0.0),
    ):
        monkeypatch.setattr(occluders, name, value)
    cover = draw_cover("sadrnet", 1500, 32, generator(), probability=1.0)
    corner = cover.gain[:, :, -1, -1]
    assert -corner.log().mean() == pytest.approx(34 / 15, abs=0.1)


def test_area_and_sides(monkeypatch):
    """Of the released w = sqrt(s / r), h = sqrt(s r), s from 0.02 to 0.3 of the image, r from 0.3
    to 1 / 0.3, both uniform: means of 0.32 and 0.50 of the side."""
    monkeypatch.setattr(occluders, "COUNT_BOUNDS", (2.0, 2.0))
    monkeypatch.setattr(occluders, "WAVE", 0.0)
    hides = draw_cover("sadrnet", 1500, SIZE, generator(), probability=1.0).hides
    rows, columns = hides.any(2), hides.any(1)
    height, width = rows.sum(1), columns.sum(1)
    assert torch.equal(height * width, hides.flatten(1).sum(1))  # rectangles
    cut_below, cut_right = rows[:, -1], columns[:, -1]
    whole = rows.any(1) & ~(cut_below | cut_right)
    area = (height * width)[whole] / SIZE**2
    assert 0.015 < area.min() < 0.04
    assert 0.2 < area.max() < 0.3
    ratio = (height / width)[whole]
    assert 0.25 < ratio.min() < 0.6
    assert 2.2 < ratio.max() < 4
    # A side that is cut has its upper left corner within the image all the same: of those that
    # begin in the upper left quarter hardly one is.
    first = (rows.int().argmax(1) < SIZE / 4) & (columns.int().argmax(1) < SIZE / 4) & rows.any(1)
    assert first.sum() > 50
    assert width[first].float().mean() / SIZE == pytest.approx(0.32, abs=0.04)
    assert height[first].float().mean() / SIZE == pytest.approx(0.5, abs=0.04)


def test_outline_is_the_released_one():
    """Pixel by pixel, with the four numbers in the places they have there."""
    size = 24
    axis = torch.arange(float(size))
    wave = (torch.rand(3, 2, 2, 1, 1, generator=generator(3)) - 0.5) * 0.16
    x, y = bent(axis[None, None, :], axis[None, :, None], wave)
    for found_x, found_y, ((far_x, fast_x), (far_y, fast_y)) in zip(
        x, y, wave.flatten(2).tolist(), strict=True
    ):
        for i, j in itertools.product(range(size), repeat=2):
            row = i + size * math.sin(j * fast_y + i * j * fast_x / size) * far_y
            column = j + size * math.sin(i * fast_x + i * j * far_y / size) * far_x
            expected = [int(max(min(size - 1, value), 0)) for value in (column, row)]
            assert [found_x[i, j], found_y[i, j]] == expected


def test_waves_are_drawn_within_the_released_limits(monkeypatch):
    drawn = []

    def watched(x, y, wave):
        drawn.append(wave)
        return bent(x, y, wave)

    monkeypatch.setattr(occluders, "bent", watched)
    draw_cover("sadrnet", 100, 8, generator(), probability=1.0)
    numbers = torch.cat(drawn).flatten(1)
    assert numbers.shape == (300, 4)
    assert (numbers.amin(0) < -0.075).all()
    assert (numbers.amax(0) > 0.075).all()
    assert numbers.abs().max() <= 0.08


@pytest.mark.parametrize("name", OCCLUDERS)
def test_images_without_an_occluder_are_not_looked_at(name, monkeypatch):
    """In memory: the images are the same to the bit, and no more covers are made than there are."""
    numbers = draw_cover_numbers(name, 12, generator())
    image = torch.rand(12, 3, SIZE, SIZE, generator=generator(1))
    made = []
    whole = occluders.cover_of

    def watched(occluder, own, *arguments, **settings):
        made.append(own.each.shape[1])
        return whole(occluder, own, *arguments, **settings)

    monkeypatch.setattr(occluders, "cover_of", watched)
    found = occluders.covered(image.clone(), name, numbers, probability=0.4)
    monkeypatch.setattr(occluders, "in_memory", lambda *_: False)
    expected = occluders.covered(image.clone(), name, numbers, probability=0.4)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    few, all_of_them = made
    assert 0 < few < all_of_them == 12


def test_unknown_occluder_is_refused():
    with pytest.raises(ValueError, match="got 'fog', expected one of noise, sadrnet"):
        draw_cover("fog", 1, SIZE, generator(), probability=1.0)


@pytest.mark.parametrize("name", OCCLUDERS)
def test_an_images_occluders_depend_on_its_name_alone(name):
    image = torch.rand(4, 3, SIZE, SIZE, generator=generator())
    names = ["a", "b", "c", "d"]
    covered, hides = ImageOccluder(name)(image, names)
    assert not torch.equal(hides[0], hides[1])
    order = [2, 0, 3, 1]
    shuffled, shuffled_hides = ImageOccluder(name)(image[order], [names[i] for i in order])
    assert torch.equal(shuffled, covered[order])
    assert torch.equal(shuffled_hides, hides[order])
    alone, alone_hides = ImageOccluder(name)(image[1:2], ["b"])
    assert torch.equal(alone[0], covered[1])
    assert torch.equal(alone_hides[0], hides[1])
    other, _ = ImageOccluder(name, seed=1)(image, names)
    assert not torch.equal(other, covered)
    # The state of torch's own generator plays no part.
    torch.manual_seed(1)
    assert torch.equal(ImageOccluder(name)(image, names)[0], covered)


@pytest.mark.parametrize("name", OCCLUDERS)
def test_every_image_of_an_evaluation_is_occluded(name):
    image = torch.full((60, 3, SIZE, SIZE), 0.3)
    covered, _ = ImageOccluder(name)(image, [f"image{i:05d}" for i in range(60)])
    assert (covered != image).flatten(1).any(1).float().mean() > 0.9


def configuration(*overrides: str):
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose("eval", overrides=list(overrides))


def test_choices_of_the_evaluation(tmp_path):
    assert occluder_named(configuration().dataset.occlusion) is None
    for dataset in ("aflw2000", "synthetic"):
        cfg = configuration(f"dataset={dataset}", "dataset.occlusion=sadrnet")
        assert occluder_named(cfg.dataset.occlusion) == ImageOccluder("sadrnet")
    with pytest.raises(ValueError, match="got 'fog', expected one of none, noise, sadrnet"):
        occluder_named("fog")
    cfg = configuration(
        "dataset=aflw2000", "dataset.occlusion=noise", f"predictions={tmp_path}", "device=cpu"
    )
    with pytest.raises(ValueError, match="dataset.occlusion=noise.*made already"):
        run_evaluation(cfg, tmp_path)


def test_training_refuses_the_evaluations_occluders():
    with pytest.raises(ValueError, match=r"occlusion=noise: is for prnet.eval.*augment.occluder"):
        SyntheticRule.from_values(shipped_dataset("synthetic") | {"occlusion": "noise"})
    values = shipped_dataset("synthetic") | {"occlusion": "none"}
    assert SyntheticRule.from_values(values).seed == values["seed"]
