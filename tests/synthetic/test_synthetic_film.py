"""The camera of the synthetic world: lens, light, noise, tone, JPEG."""

import io
import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from prnet.synthetic.camera import develop as camera
from prnet.synthetic.camera.exposure import compress, expose
from prnet.synthetic.camera.film import FilmParameters, draw_film
from prnet.synthetic.camera.lens import through_lens, transferred
from prnet.synthetic.srgb import linear_from_srgb, srgb_encode
from tests.films import IDENTITY_FILM, exposed_by_formula, hash_noise

SIZE = 128


def batched(films: list[FilmParameters]) -> FilmParameters:
    return FilmParameters(
        *(torch.from_numpy(np.array(column)) for column in zip(*films, strict=True))
    )


def one(**changes) -> FilmParameters:
    return batched([IDENTITY_FILM._replace(**changes)])


def seeds(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def scene(size: int = SIZE, seed: int = 0) -> Tensor:
    """Smooth shapes and some texture, (3, size, size), linear light in [0, 1]."""
    random = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(random.uniform(0, 1, (size, size, 3)), (0, 0), 6)
    picture = (picture - picture.min()) / np.ptp(picture)
    cv2.circle(picture, (size // 2, size // 2), size // 4, (0.8, 0.5, 0.4), -1, cv2.LINE_AA)
    picture += 0.02 * random.standard_normal(picture.shape)
    return torch.from_numpy(picture.clip(0, 1)).permute(2, 0, 1).float()


def dots(size: int = SIZE) -> Tensor:
    """One bright pixel in the middle of black, (1, 3, size, size)."""
    image = torch.zeros(1, 3, size, size)
    image[..., size // 2, size // 2] = 1
    return image


def develop(image: Tensor, film: FilmParameters, seeds: Tensor) -> Tensor:
    """A developed copy."""
    image = image.clone(memory_format=torch.contiguous_format)
    camera.develop(image, film, seeds)
    return image


def test_identity_film_only_encodes():
    image = scene()[None]
    developed = develop(image, one(), seeds(3))
    torch.testing.assert_close(developed, srgb_encode(image), atol=0.1 / 255, rtol=0)


def test_srgb_encode_known_values():
    linear = torch.tensor([0.0, 0.0031308, 0.2158605, 1.0])
    expected = torch.tensor([0.0, 0.0404499, 0.5019608, 1.0])
    torch.testing.assert_close(srgb_encode(linear), expected, atol=2e-6, rtol=0)


def test_films_are_not_written_to():
    image, film = scene()[None].repeat(4, 1, 1, 1), batched([draw(k) for k in range(4)])
    before = [field.clone() for field in film]
    develop(image, film, seeds(1, 2, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(film, before, strict=True))


def draw(seed: int) -> FilmParameters:
    return draw_film(np.random.default_rng(seed))


def test_batch_equals_items_bit_for_bit():
    images = torch.stack([scene(seed=k) for k in range(8)])
    films = [draw(k) for k in range(8)]
    together = develop(images, batched(films), torch.arange(8))
    for k in range(8):
        alone = develop(images[k : k + 1], batched(films[k : k + 1]), seeds(k))
        assert torch.equal(alone[0], together[k])


def test_result_is_finite_and_in_range_for_any_film():
    brightness = torch.linspace(0, 4, SIZE)  # overexposed at one side
    images = torch.stack([brightness * scene(seed=k) for k in range(32)])
    developed = develop(images, batched([draw(100 + k) for k in range(32)]), torch.arange(32))
    assert developed.shape == images.shape
    assert developed.min() >= 0
    assert developed.max() <= 1
    assert developed.std(dim=(1, 2, 3)).min() > 0.01


def test_same_generator_state_same_film():
    first, second = draw(7), draw(7)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(draw(8).exposure, first.exposure)


def test_drawn_films_cover_their_ranges():
    films = [draw(k) for k in range(800)]
    grey = np.mean([film.saturation == 0 for film in films])
    small = np.array([film.resolution for film in films])
    quality = np.array([film.jpeg_quality for film in films])
    assert 0.05 < grey < 0.12
    assert 0.25 < (small < 1).mean() < 0.45
    assert 0.22 <= small.min() < 0.26
    assert quality.min() < 35
    assert (quality >= 15).all()
    assert 0.1 < (quality == 100).mean() < 0.3
    assert all(film.read_noise > 0 and film.shot_noise > 0 for film in films)


@pytest.mark.parametrize(
    "changes",
    [
        {"blur_px": 2.0},
        {"defocus_px": 3.0},
        {"motion_px": 8.0, "motion_angle": 0.7},
        {"sharpening": 1.0, "blur_px": 1.0},
        {"aberration_px": np.array([0.7, -0.4])},
    ],
)
def test_lens_keeps_the_mean(changes):
    image = 0.2 + 0.6 * scene()[None]
    image[..., :20, :] = image[..., -20:, :] = image[..., :20] = image[..., -20:] = 0.5
    developed = linear_from_srgb(develop(image, one(**changes), seeds(0)))
    torch.testing.assert_close(developed.mean((2, 3)), image.mean((2, 3)), atol=1e-3, rtol=0)
    assert (developed - image).abs().mean() > 1e-3


def test_blur_has_its_standard_deviation():
    """On a picture of 256 px, where lengths are px."""
    developed = linear_from_srgb(develop(0.6 * dots(256), one(blur_px=1.5), seeds(0)))[0, 1]
    expected = 0.6 / (2 * math.pi * 1.5**2)
    assert float(developed[128, 128]) == pytest.approx(expected, rel=0.02)
    profile = developed[128, 128:131] / developed[128, 128]
    oracle = torch.exp(-torch.tensor([0.0, 1.0, 4.0]) / (2 * 1.5**2))
    torch.testing.assert_close(profile, oracle, atol=0.02, rtol=0)
    torch.testing.assert_close(developed, developed.T, atol=1e-3, rtol=0)


def test_motion_runs_along_its_angle():
    developed = linear_from_srgb(
        develop(dots(256), one(motion_px=7.0, motion_angle=0.0), seeds(0))
    )[0, 0]
    row = developed[128]
    assert row[125:132].min() > 0.1
    assert row[120] < 0.02
    assert developed[126, 128] < 0.01
    turned = linear_from_srgb(
        develop(dots(256), one(motion_px=7.0, motion_angle=math.pi / 2), seeds(0))
    )[0, 0]
    torch.testing.assert_close(turned, developed.T, atol=2e-3, rtol=0)


def test_defocus_is_a_disc():
    developed = linear_from_srgb(develop(dots(256), one(defocus_px=3.0), seeds(0)))[0, 1]
    inside = 1 / (math.pi * 9)
    assert abs(float(developed[126:131, 126:131].mean()) - inside) < 0.1 * inside
    assert developed[128, 133] < 0.15 * inside
    assert developed[133, 128] < 0.15 * inside


def test_aberration_moves_red_and_blue_apart():
    shift = np.array([2.0, -1.0])
    developed = linear_from_srgb(develop(dots(256), one(aberration_px=shift), seeds(0)))[0]
    peaks = [divmod(int(channel.argmax()), 256)[::-1] for channel in developed]
    assert peaks == [(130, 127), (128, 128), (126, 129)]


def test_lengths_scale_with_the_picture():
    """A picture of half the side is blurred by half as many px."""
    large = linear_from_srgb(develop(0.6 * dots(256), one(blur_px=3.0), seeds(0)))[
        0, 0, 128, 128:136:2
    ]
    small = linear_from_srgb(develop(0.6 * dots(128), one(blur_px=3.0), seeds(0)))[0, 0, 64, 64:68]
    torch.testing.assert_close(small / small[0], large / large[0], atol=0.02, rtol=0)


def test_low_resolution_loses_detail_and_keeps_place():
    image = scene()[None]
    developed = develop(image, one(resolution=0.25), seeds(0))
    oracle = cv2.resize(image[0].permute(1, 2, 0).numpy(), (32, 32), interpolation=cv2.INTER_AREA)
    oracle = cv2.resize(oracle, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    oracle = srgb_encode(torch.from_numpy(oracle).permute(2, 0, 1))
    assert (developed[0] - oracle).abs().mean() < 0.012
    for shifted in (oracle.roll(1, -1), oracle.roll(-1, -2)):
        assert (developed[0] - shifted).abs().mean() > (developed[0] - oracle).abs().mean()


def test_low_resolution_keeps_a_symmetric_picture_symmetric():
    image = scene()[None]
    image = (image + image.flip(-1)) / 2
    developed = develop(image, one(resolution=0.37), seeds(0))
    torch.testing.assert_close(developed, developed.flip(-1), atol=1e-3, rtol=0)


def test_saturation_zero_is_grey():
    developed = develop(scene()[None], one(saturation=0.0), seeds(0))[0]
    torch.testing.assert_close(developed[0], developed[1], atol=0, rtol=0)
    torch.testing.assert_close(developed[0], developed[2], atol=0, rtol=0)


def test_a_stop_doubles_the_light():
    image = 0.4 * scene()[None]
    brighter = linear_from_srgb(develop(image, one(exposure=1.0), seeds(0)))
    torch.testing.assert_close(brighter, 2 * image, atol=2e-3, rtol=0)


def test_white_balance_scales_channels():
    image = 0.5 * scene()[None]
    developed = linear_from_srgb(
        develop(image, one(white_balance=np.array([1.2, 1.0, 0.5])), seeds(0))
    )
    expected = image * torch.tensor([1.2, 1.0, 0.5])[:, None, None]
    torch.testing.assert_close(developed, expected, atol=2e-3, rtol=0)


def test_vignette_darkens_corners_alone():
    image = torch.full((1, 3, SIZE, SIZE), 0.5)
    developed = linear_from_srgb(develop(image, one(vignette=0.4), seeds(0)))[0, 0]
    torch.testing.assert_close(developed[0, 0], torch.tensor(0.3), atol=2e-3, rtol=0)
    torch.testing.assert_close(developed[64, 64], torch.tensor(0.5), atol=2e-3, rtol=0)


def test_contrast_turns_about_the_middle():
    levels = torch.linspace(0.2, 0.8, SIZE)
    image = linear_from_srgb(levels).expand(1, 3, SIZE, SIZE)
    developed = develop(image, one(contrast=1.5), seeds(0))[0, 0, 0]
    torch.testing.assert_close(
        developed, (0.5 + 1.5 * (levels - 0.5)).clamp(0, 1), atol=1e-3, rtol=0
    )


def test_noise_grows_with_light():
    image = torch.full((2, 3, SIZE, SIZE), 0.5)
    image[0] = 0.1
    film = batched([IDENTITY_FILM._replace(read_noise=0.01, shot_noise=1e-3)] * 2)
    spread = linear_from_srgb(develop(image, film, seeds(4, 5))).std(dim=(1, 2, 3))
    expected = torch.tensor([0.01**2 + 1e-4, 0.01**2 + 5e-4]).sqrt()
    torch.testing.assert_close(spread, expected, atol=0, rtol=0.03)


def test_hash_noise_is_white_and_normal():
    noise = torch.stack([hash_noise(seed, 128) for seed in (11, 12)]).double()
    assert noise.shape == (2, 3, 128, 128)
    error = 1 / math.sqrt(noise.numel())
    assert abs(noise.mean()) < 4 * error
    assert abs(noise.var() - 1) < 0.02
    assert abs((noise.abs() < 1).double().mean() - 0.6827) < 4 * 0.5 * error
    shifts = {
        "right": (noise[..., 1:] * noise[..., :-1]).mean(),
        "down": (noise[..., 1:, :] * noise[..., :-1, :]).mean(),
        "channels": (noise[:, 0] * noise[:, 1]).mean(),
        "far channels": (noise[:, 0] * noise[:, 2]).mean(),
        "samples": (noise[0] * noise[1]).mean(),
    }
    assert max(map(abs, shifts.values())) < 5 * math.sqrt(3) * error, shifts


def test_hash_noise_depends_on_all_64_bits_of_the_seed():
    grey = torch.full((5, 3, 16, 16), 0.5)
    film = batched([IDENTITY_FILM._replace(read_noise=0.1)] * 5)
    noise = develop(grey, film, seeds(1, 2, 1 + 2**32, 1 - 2**40, 1))
    assert torch.equal(noise[0], noise[4])
    for other in (1, 2, 3):
        assert (noise[0] == noise[other]).float().mean() < 0.05


def test_hash_noise_known_bits():
    """A change of these values changes every picture made with noise."""
    mask = 0xFFFFFFFF

    def mixed(bits: int) -> int:
        bits ^= bits >> 16
        bits = bits * 0x85EBCA6B & mask
        bits ^= bits >> 13
        bits = bits * 0xC2B2AE35 & mask
        return bits ^ bits >> 16

    seed = 5 + (9 << 32)
    key = mixed(mixed((seed & mask) + 1) ^ (seed >> 32))
    by_hand = [mixed(mixed(pixel + 1) ^ key) for pixel in range(256)]
    noise = hash_noise(seed, 16).flatten(1)
    levels = torch.tensor([[bits >> shift & 1023 for bits in by_hand] for shift in (0, 10, 20)])
    # Quantiles rise with the level: the order of the noise is the order of the bits.
    for channel in range(3):
        order = levels[channel].argsort(stable=True)
        assert (noise[channel][order].diff() >= 0).all()
        ties = levels[channel][order].diff() == 0
        assert torch.equal(noise[channel][order].diff() == 0, ties)


@pytest.mark.parametrize("quality", [15.0, 49.6, 75.0, 97.0])
def test_jpeg_is_that_of_another_library(quality):
    images = pytest.importorskip("PIL.Image")
    picture = (srgb_encode(scene(96)) * 255).round()
    pixels = picture.byte().permute(1, 2, 0).numpy()
    got = (picture / 255).numpy()
    compress(got, quality)
    file = io.BytesIO()
    images.fromarray(pixels).save(file, "jpeg", quality=round(quality), subsampling="4:2:0")
    other = np.asarray(images.open(file)).astype(np.float64)
    assert np.abs(255 * got.transpose(1, 2, 0) - other).mean() < 0.1
    assert np.abs(other - pixels).mean() > 1


def test_jpeg_keeps_grey_grey_and_flat_flat():
    flat = np.full((3, 32, 32), 100 / 255, np.float32)
    compressed = flat.copy()
    compress(compressed, 50.0)
    np.testing.assert_allclose(compressed, flat, atol=1.1 / 255)
    np.testing.assert_array_equal(compressed[0], compressed[2])


def test_what_was_taken_is_compressed():
    """JPEG's blocks are those of the small picture, which is then enlarged."""
    images = torch.stack([scene(seed=k) for k in range(6)])
    shares = (1.0, 0.22, 0.5, 0.617, 0.875, 0.99)
    films = [
        draw(k)._replace(resolution=share, jpeg_quality=30.0) for k, share in enumerate(shares)
    ]
    got = exposed(images, films)
    expected = torch.stack(
        [exposed_by_formula(images[k], films[k], round(shares[k] * SIZE), k) for k in range(6)]
    )
    off = (got - expected).abs().mean((1, 2, 3))
    assert off.max() < 5e-4
    lossless = exposed(images, [film._replace(jpeg_quality=100.0) for film in films])
    assert (got - lossless).abs().mean((1, 2, 3)).min() > 20 * off.max()


@pytest.mark.parametrize("size", [64, 256])
def test_short_blur_is_the_transfer_function(size):
    """What has a round blur is blurred by few taps, all else goes through the transform."""
    images = torch.stack([scene(size, seed=k) for k in range(5)])
    changes = (
        {},
        {"blur_px": 0.35},
        {"blur_px": 2.3, "sharpening": 1.5},
        {"blur_px": 0.5, "sharpening": 1.5},
        {"blur_px": 2.3},
    )
    parameters = batched([IDENTITY_FILM._replace(**change) for change in changes])
    parameters = parameters._make(field.float() for field in parameters)
    step = torch.tensor([1.0, 1.0, 1.0, 1.0, 4.5])
    got = images.clone()
    through_lens(got, parameters, step)
    expected = transferred(images, parameters, step)
    assert (got[1:] - images[1:]).abs().amax((1, 2, 3)).min() > 0.005
    torch.testing.assert_close(got, expected, atol=1.5e-3, rtol=0)
    # Taps sum to 1: flat stays flat.
    flat = torch.full_like(images, 0.6)
    through_lens(flat, parameters, step)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.6))


def exposed(images: Tensor, films: list[FilmParameters]) -> Tensor:
    """Behind the lens."""
    film = batched(films)
    film = film._make(field.float() for field in film)
    side = (film.resolution * images.shape[-1]).round()
    result = images.clone()
    expose(result, film, side, torch.arange(len(images)))
    return result


@pytest.mark.parametrize("size", [48, 128])  # a part of a strip, two strips
def test_exposure_is_that_of_the_formulas(size):
    images = torch.linspace(-0.1, 2, size) * torch.stack([scene(size, seed=k) for k in range(24)])
    films = [draw(k)._replace(jpeg_quality=100.0, saturation=1.6) for k in range(24)]
    sides = [round(film.resolution * size) for film in films]
    assert {side % 16 for side in sides} > {0}
    got = exposed(images, films)
    expected = torch.stack(
        [exposed_by_formula(images[k], films[k], sides[k], k) for k in range(24)]
    )
    # A level of the tone curve at most, and where light falls off, between pixels.
    torch.testing.assert_close(got, expected, atol=0.005, rtol=0)
    assert (got - expected).abs().mean() < 2e-5


@pytest.mark.parametrize("shape", [(1, 3, 120, 128), (1, 3, 120, 120), (1, 1, 128, 128)])
def test_bad_pictures_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 3, S, S\) with S a multiple of 16"):
        develop(torch.zeros(shape), one(), seeds(0))
