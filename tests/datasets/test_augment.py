"""Augmentation moves image and map by one similarity, exactly."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional

from prnet.datasets import warp
from prnet.datasets.augment import (
    AugmentRule,
    augment,
    developed,
    draw,
    draw_blur,
    draw_film,
    draw_gain,
    draw_similarity,
    reach_of,
    softening_to,
)
from prnet.datasets.pictures import FitItem, collate_fits
from prnet.datasets.warp import make_sample, warp_to_crop
from prnet.entry import CONFIG_DIR
from prnet.geometry import camera, position_map
from prnet.geometry.position_map import PositionMapDecoder
from prnet.sample import FitBatch

SIZE = 256


def blob_picture(points: torch.Tensor, height: int, width: int, sigma: float = 6.0) -> torch.Tensor:
    """One Gaussian blob per channel at sub-pixel (x, y), (3, height, width) uint8."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    blobs = [torch.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2) / (2 * sigma**2)) * 255 for p in points]
    return torch.stack(blobs).round().to(torch.uint8)


def centroid(channel: torch.Tensor) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    mass = channel.double()
    return torch.stack([(x * mass).sum(), (y * mass).sum()]) / mass.sum()


@pytest.fixture(scope="module")
def decoder(face):
    return PositionMapDecoder(face.morphable_model, face.uv)


def frontal_batch(face, count: int) -> tuple[FitBatch, torch.Tensor]:
    """`count` equal frontal faces whose picture has a blob at landmarks 36, 30 and 54."""
    crop_from_model = camera.crop_from_image(torch.tensor([150.0, 140.0]), torch.tensor(260.0))
    image_from_model = camera.image_from_model(
        torch.tensor(8e-4), torch.zeros(3), torch.tensor([150.0, 160.0, 0.0]), torch.tensor(300.0)
    )
    vertices = face.morphable_model.mean[None]
    image = camera.transform_points(image_from_model, vertices)[0, face.landmark_index]
    picture = blob_picture(image[[36, 30, 54]], 300, 310)
    batch = FitBatch(
        picture=picture.expand(count, -1, -1, -1),
        crop_from_picture=crop_from_model.expand(count, -1, -1),
        crop_from_model=(crop_from_model @ image_from_model).expand(count, -1, -1),
        shape_params=torch.zeros(count, face.morphable_model.num_shape),
        exp_params=torch.zeros(count, face.morphable_model.num_exp),
    )
    return batch, image


def test_image_and_map_agree_to_a_hundredth_of_a_pixel(face, decoder):
    """Blobs painted at landmarks of the photo are found, after warping, where the moved fit puts
    them."""
    batch, _ = frontal_batch(face, 12)
    rule = AugmentRule(rotation_deg=45, translation=0.05, scale=(0.9, 1.2), mirror=0.5)
    moved, mirrored = draw_similarity(12, rule, torch.Generator().manual_seed(3))
    assert 0 < mirrored.sum() < 12
    sample = make_sample(batch, decoder, moved=moved, mirrored=mirrored)
    vertices = face.morphable_model.mean[None].expand(12, -1, -1)
    truth = camera.transform_points(moved @ batch.crop_from_model, vertices)[:, face.landmark_index]
    for i in range(12):
        for channel, landmark in enumerate((36, 30, 54)):
            found = centroid(sample.image[i, channel])
            assert (found - truth[i, landmark, :2]).norm() < 0.005

    # The same through the map: the affine map of the un-augmented one, texel by texel.
    plain = decoder(batch.shape_params, batch.exp_params, batch.crop_from_model)
    for i in range(12):
        source = plain[i].flip(-1) if mirrored[i] else plain[i]
        points = face.uv.face_points(source[None])
        expected = camera.transform_points(moved[i], points)
        got = face.uv.face_points(sample.position_map[i : i + 1])
        both = points.abs().sum(-1) > 0
        assert (got - expected)[both].abs().max() < 1e-3


def test_mirror_is_an_involution_and_swaps_sides(face, decoder):
    """Mirroring twice is the identity; the texels of the left eye hold the right eye's place."""
    batch, _ = frontal_batch(face, 1)
    rule = AugmentRule(rotation_deg=0, translation=0, scale=(1, 1), mirror=1.0)
    moved, mirrored = draw_similarity(1, rule, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved @ moved, torch.eye(4)[None], atol=1e-4, rtol=0)
    sample = make_sample(batch, decoder, moved=moved, mirrored=mirrored)
    plain = make_sample(batch, decoder)
    torch.testing.assert_close(sample.image.flip(-1), plain.image, atol=1e-3, rtol=0)
    expected = plain.position_map.flip(-1)
    covered = expected.abs().sum(1, keepdim=True) > 0
    expected = torch.cat([(SIZE - 1) - expected[:, :1], expected[:, 1:]], 1) * covered
    got = sample.position_map * covered
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


def test_ranges_of_the_similarity():
    rule = AugmentRule()
    matrix, mirrored = draw_similarity(4000, rule, torch.Generator().manual_seed(0))
    assert not mirrored.any()
    _, mirrored = draw_similarity(4000, rule._replace(mirror=0.5), torch.Generator().manual_seed(0))
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.03)
    scale = matrix[:, 2, 2]
    assert scale.min() >= 0.9
    assert scale.max() <= 1.2
    assert scale.min() < 0.91
    assert scale.max() > 1.19
    linear = matrix[:, :2, :2] / scale[:, None, None]
    torch.testing.assert_close(
        linear @ linear.transpose(1, 2), torch.eye(2).expand(4000, 2, 2), atol=1e-5, rtol=0
    )
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
    assert angle.abs().max() <= math.pi / 4 + 1e-5
    assert angle.max() > 0.99 * math.pi / 4
    assert angle.min() < -0.99 * math.pi / 4
    center = torch.tensor([127.5, 127.5, 0.0]).expand(4000, 1, 3)
    shift = camera.transform_points(matrix, center)[:, 0, :2] - 127.5
    assert shift.abs().max() <= 0.1 * SIZE + 1e-3
    assert (shift.amax(0) > 0.099 * SIZE).all()
    assert (shift.amin(0) < -0.099 * SIZE).all()
    # In-plane rotation leaves depth alone, scale applies to it.
    assert matrix[:, 2, :2].abs().max() == 0
    assert matrix[:, 2, 3].abs().max() == 0


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_crops_sampled_in_memory_are_those_of_torch(kind, monkeypatch):
    """Turned, scaled, mirrored and beyond every border."""
    generator = torch.Generator().manual_seed(0)
    rule = AugmentRule(rotation_deg=180, scale=(0.3, 4.0), translation=0.6, mirror=0.5)
    matrices, _ = draw_similarity(16, rule, generator)
    for height, width in ((200, 300), (2, 40)):
        picture = torch.randint(0, 256, (16, 2, height, width), generator=generator).to(kind)
        moved = matrices if height == 200 else matrices.clone()
        if height != 200:  # around the picture, which fills the crop
            moved = torch.diag(torch.tensor([9.0, 9.0, 1.0, 1.0])) @ moved
        got = warp_to_crop(picture, moved)
        with monkeypatch.context() as patch:
            patch.setattr(warp, "in_memory", lambda *_: False)
            expected = warp_to_crop(picture, moved)
        assert height != 200 or 0.2 < (expected > 0).float().mean() < 0.95
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


def test_faces_that_leave_the_frame_are_not_clipped(face, decoder):
    batch, _ = frontal_batch(face, 1)
    away = torch.eye(4)[None].clone()
    away[:, 0, 3] = -200.0
    sample = make_sample(batch, decoder, moved=away)
    plain = make_sample(batch, decoder)
    moved = face.uv.face_points(sample.position_map)
    torch.testing.assert_close(
        moved,
        face.uv.face_points(plain.position_map) - torch.tensor([200.0, 0, 0]),
        atol=1e-4,
        rtol=0,
    )
    assert moved[..., 0].min() < -50


def test_warp_reads_zero_outside_and_keeps_identity():
    picture = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    same = warp_to_crop(picture, torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(same, picture.float() / 255, atol=2e-4, rtol=0)
    away = torch.eye(4).repeat(2, 1, 1)
    away[:, 0, 3] = 300.0
    assert warp_to_crop(picture, away).abs().max() == 0


def test_some_images_are_turned_and_the_rest_is_drawn_as_ever():
    """A rotation's probability takes the angle away, and moves no other random number."""
    rule = AugmentRule(mirror=0.5)
    always, mirrored = draw_similarity(2000, rule, torch.Generator().manual_seed(0))
    quarter, same_mirrored = draw_similarity(
        2000, rule._replace(rotation_probability=0.25), torch.Generator().manual_seed(0)
    )
    assert torch.equal(mirrored, same_mirrored)
    torch.testing.assert_close(always[:, 2, 2], quarter[:, 2, 2])
    center = torch.tensor([127.5, 127.5, 0.0]).expand(2000, 1, 3)
    torch.testing.assert_close(
        camera.transform_points(always, center), camera.transform_points(quarter, center)
    )
    upright = quarter[:, 0, 1] == 0
    assert upright.float().mean() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(always[~upright], quarter[~upright])


def test_some_images_have_their_channels_scaled():
    rule = AugmentRule(color=(0.6, 1.4))
    always = draw_gain(2000, rule, torch.Generator().manual_seed(0))
    rule = rule._replace(color_probability=0.5)
    half = draw_gain(2000, rule, torch.Generator().manual_seed(0))
    kept = (half == 1).flatten(1).all(1)
    assert kept.float().mean() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(half[~kept], always[~kept])
    assert always.min() >= 0.6
    assert always.max() <= 1.4


def test_each_channel_has_its_own_gain():
    gain = draw_gain(500, AugmentRule(color=(0.6, 1.4)), torch.Generator().manual_seed(0))[
        ..., 0, 0
    ]
    assert torch.corrcoef(gain.T).fill_diagonal_(0).abs().max() < 0.15
    assert gain.amin() < 0.61
    assert gain.amax() > 1.39


def test_released_colour_lies_over_occluders_and_beyond_white(face, decoder):
    """An occluder of one colour then has the image's gains, and nothing of a channel above 1 is
    lost."""
    batch, _ = frontal_batch(face, 40)
    batch = batch._replace(picture=torch.full_like(batch.picture, 230))
    upright = {"rotation_deg": 0, "translation": 0, "scale": (1, 1), "color": (1.4, 1.4)}
    rule = AugmentRule(**upright, occlusion=1.0, occluder="sadrnet")
    images = {
        (last, clip): augment(
            batch,
            decoder,
            rule._replace(color_last=last, color_clip=clip),
            torch.Generator().manual_seed(0),
        ).image
        for last in (False, True)
        for clip in (False, True)
    }
    white = 1.4 * 230 / 255
    assert images[False, True].max() == images[True, True].max() == 1
    assert images[False, False].max() == pytest.approx(white, abs=1e-5)
    assert images[True, False].max() == pytest.approx(1.4, abs=0.02)  # of a bright occluder
    torch.testing.assert_close(images[True, True], images[True, False].clamp(max=1))


@pytest.mark.parametrize("file", sorted(Path(CONFIG_DIR, "augment").glob("*.yaml")))
def test_configurations_name_every_field(file):
    """A field can only be changed on the command line if the configuration has it."""
    assert OmegaConf.load(file).keys() == set(AugmentRule._fields)


def test_a_rule_without_film_leaves_images_and_random_numbers_alone():
    """So that runs of the papers' rules draw what they drew before there was any."""
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(developed(image, draw_film(2, 8, AugmentRule(), generator)), image)
    assert torch.equal(generator.get_state(), before)


def test_film_stays_within_its_limits():
    image = torch.full((200, 3, 4, 4), 0.25)
    image[:, 0] = 0.3

    def made(**values):
        film = draw_film(200, 4, AugmentRule(**values), torch.Generator().manual_seed(0))
        return developed(image, film)

    gain = made(exposure=(0.5, 2.0)) / image
    assert 0.5 <= gain.min() < 0.55
    assert 1.9 < gain.max() <= 2.0
    assert gain.log().mean().abs() < 0.1  # as often half as twice
    torch.testing.assert_close(gain, gain[:, :1, :1, :1].expand_as(gain))  # one an image
    power = made(gamma=(0.5, 2.0)).log() / image.log()
    assert 0.5 <= power.min() < 0.55
    assert 1.9 < power.max() <= 2.0001
    assert power.log().mean().abs() < 0.1
    film = draw_film(200, 4, AugmentRule(gamma=(0.5, 2.0)), torch.Generator().manual_seed(0))
    black = developed(torch.zeros(200, 3, 4, 4), film)
    assert black.max() < 0.05  # a gradient of a power at 0 is not finite, so it is not quite 0
    spread = (made(contrast=(0.5, 2.0)) - image.mean((1, 2, 3), keepdim=True)) / (
        image - image.mean((1, 2, 3), keepdim=True)
    )
    assert 0.5 <= spread.min() < 0.55
    assert 1.9 < spread.max() <= 2.001
    torch.testing.assert_close(spread, spread[:, :1, :1, :1].expand_as(spread), rtol=1e-3, atol=0)
    grey = made(grey=0.3)
    colourless = (grey[:, 0] == grey[:, 1]).flatten(1).all(1)
    assert 40 < colourless.sum() < 80
    assert torch.equal(grey[~colourless], image[~colourless])
    grain = made(noise=0.1) - image
    noise = grain.flatten(1).std(1)
    assert 0.05 < noise.max() < 0.15
    assert noise.median() == pytest.approx(0.1 / 8, abs=0.005)  # the cube of a half
    assert torch.corrcoef(grain.transpose(0, 1).flatten(1)).triu(1).abs().max() < 0.1


def test_blur_takes_detail_from_some_images_and_keeps_their_tone():
    image = torch.rand(100, 3, 64, 64)
    rule = AugmentRule(blur=0.4, blur_side=(8, 8))
    softening, chosen = draw_blur(100, 64, rule, torch.Generator().manual_seed(0))
    assert 25 < chosen.sum() < 55
    soft = softening @ image @ softening.T
    assert soft.diff(dim=-1).abs().mean() / image.diff(dim=-1).abs().mean() < 0.1
    torch.testing.assert_close(soft.mean((2, 3)), image.mean((2, 3)), atol=0.02, rtol=0)


def test_blur_is_of_any_size_within_its_limits():
    rule = AugmentRule(blur=1.0, blur_side=(4, 60))

    def side(seed: int, size: int = 64, rule: AugmentRule = rule) -> int:
        softening, _ = draw_blur(1, size, rule, torch.Generator().manual_seed(seed))
        return int(torch.linalg.matrix_rank(softening))

    sides = [side(seed) for seed in range(60)]
    assert 4 <= min(sides) < 10
    assert 54 < max(sides) <= 60
    assert side(0, size=32, rule=rule._replace(blur_side=(60, 60))) == 32


@pytest.mark.parametrize("side", [1, 8, 37, 63, 64])
def test_blur_is_averaging_and_linear_enlarging(side):
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = functional.interpolate(image, size=side, mode="area")
    expected = functional.interpolate(small, size=64, mode="bilinear", align_corners=False)
    softening = softening_to(torch.tensor(float(side)).double(), 64)
    found = softening @ image @ softening.T
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_rates_and_sizes_of_the_rule_reach_the_images(face, decoder):
    """Of a grey picture: who is blurred, coloured and occluded, and by how much."""
    batch, _ = frontal_batch(face, 60)
    batch = batch._replace(picture=torch.full_like(batch.picture, 100))
    still = {"rotation_deg": 0.0, "translation": 0.0, "scale": (1.0, 1.0), "blur": 0.0}

    def made(**values):
        generator = torch.Generator().manual_seed(0)
        return augment(batch, decoder, AugmentRule(**still | values), generator, targets=()).image

    plain = {"color": (1.0, 1.0), "occlusion": 0.0}
    grey = made(**plain)
    covered = (made(**plain | {"occlusion": 0.4}) != grey).any(1)
    assert 14 < covered.flatten(1).any(1).sum() < 34
    small = (made(**plain | {"occlusion": 1.0, "occlusion_size": (0.05, 0.1)}) != grey).any(1)
    assert small.float().mean() < 0.01 < covered.float().mean()
    gain = (made(**plain | {"color": (1.5, 3.0), "color_probability": 0.2}) / grey)[..., 128, 128]
    coloured = (gain != 1).any(1)
    assert 5 < coloured.sum() < 22
    assert gain[coloured].min() > 1.5
    assert gain.max() <= 255 / 100 + 1e-4  # clipped to white
    beyond = made(**plain | {"color": (1.5, 3.0), "color_clip": False}) / grey
    assert beyond[..., 128, 128].max() > 2.8
    draws = draw(2, SIZE, AugmentRule(blur=1.0, blur_side=(50, 50)), torch.Generator())
    expected = softening_to(torch.tensor(50.0).double(), SIZE)
    assert torch.equal(draws.softening, expected)
    assert draws.soft.all()


def test_papers_configurations():
    """SADRNet III-E, and the rates of its released code."""
    rules = {
        name: AugmentRule(**OmegaConf.load(Path(CONFIG_DIR, "augment", f"{name}.yaml")))
        for name in ("prn", "sadrnet", "sadrnet_released")
    }
    defaults = AugmentRule()
    for field, value in rules["prn"]._asdict().items():
        default = getattr(defaults, field)
        expected = list(default) if isinstance(default, tuple) else default
        unused = field == "blur_side"
        assert unused or value == expected, field
    paper, released = rules["sadrnet"], rules["sadrnet_released"]
    assert (paper.rotation_deg, paper.rotation_probability, paper.translation) == (90, 1, 0.1)
    assert (list(paper.scale), list(paper.color)) == ([0.9, 1.1], [0.6, 1.4])
    assert released.rotation_probability == released.occlusion == 0.25
    assert (list(released.scale), released.color_probability) == ([0.97, 1.03], 0.5)
    assert paper.occluder == released.occluder == "sadrnet"
    assert (released.color_last, released.color_clip, released.attention) == (
        True,
        False,
        "released",
    )
    assert (paper.color_last, paper.color_clip, paper.attention) == (False, True, "silhouette")


def test_augment_is_reproducible(face, decoder):
    batch, _ = frontal_batch(face, 3)
    rule = AugmentRule(mirror=0.5)
    first, again, other = (
        augment(batch, decoder, rule, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.position_map, again.position_map)
    assert not torch.equal(first.position_map, other.position_map)
    assert first.image.shape == (3, 3, SIZE, SIZE)
    assert first.image.min() >= 0
    assert first.image.max() <= 1


@pytest.mark.parametrize("few", [0, 3], ids=["product", "fixed point"])
def test_decoder_equals_mesh_then_uv(face, monkeypatch, few):
    """Its few vertices against all of them, in memory and where it is differentiated."""
    monkeypatch.setattr(position_map, "FEW", few)
    monkeypatch.setattr(position_map, "CACHED_BYTES", 0)
    random = np.random.default_rng(0)
    model = face.morphable_model
    shape_params = torch.from_numpy(random.normal(0, 2e4, (3, model.num_shape))).float()
    exp_params = torch.from_numpy(random.normal(0, 1, (3, model.num_exp))).float()
    matrix = camera.image_from_model(
        torch.full((3,), 1e-3), torch.rand(3, 3), torch.rand(3, 3) * 100, torch.full((3,), 256.0)
    )
    vertices = model(shape_params, exp_params)
    expected = face.uv.position_map(camera.transform_points(matrix, vertices))
    expected_shape = face.uv.position_map(vertices)
    mirrored = torch.tensor([True, False, True])
    swapped = torch.where(mirrored[:, None, None, None], expected.flip(-1), expected)
    for texels in ("all", "face"):
        decoder = PositionMapDecoder(model, face.uv, texels=texels)
        got = decoder(shape_params, exp_params, matrix)
        shape = decoder.shape_map(decoder.offsets(shape_params, exp_params))
        assert (decoder.fixed_point is not None) == (few == 3)
        points = (face.uv.face_points(got), face.uv.face_points(expected))
        torch.testing.assert_close(*points, atol=1e-3, rtol=0)
        points = (face.uv.face_points(shape), face.uv.face_points(expected_shape))
        torch.testing.assert_close(*points, atol=0.5, rtol=0)  # of 1e5 um
        if texels == "all":
            torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)
        got = decoder(shape_params, exp_params, matrix, mirrored=mirrored)
        points = (face.uv.face_points(got), face.uv.face_points(swapped))
        torch.testing.assert_close(*points, atol=1e-3, rtol=0)

        followed = exp_params.clone().requires_grad_()
        through_torch = decoder(shape_params, followed, matrix, mirrored=mirrored)
        torch.testing.assert_close(got, through_torch, atol=1e-3, rtol=0)
        through_torch.sum().backward()
        assert followed.grad.abs().min() > 0
    with pytest.raises(ValueError, match="bases"):
        decoder(shape_params[:, :1], exp_params, matrix)
    with pytest.raises(ValueError, match="texels"):
        PositionMapDecoder(model, face.uv, texels="mask")


@pytest.mark.parametrize("name", ["none", "photos", "prn"])
def test_what_is_cut_off_is_in_no_image(name, face, decoder):
    """The same images from a part of the picture: of a face that fills a tenth of it, a tenth and
    the margin."""
    rule = AugmentRule(**OmegaConf.load(Path(CONFIG_DIR, "augment", f"{name}.yaml")))
    random = np.random.default_rng(0)
    tilt = torch.tensor(0.3, dtype=torch.float64)
    center, size = torch.tensor([410.0, 300.0], dtype=torch.float64), torch.tensor(200.0).double()
    picture = cv2.GaussianBlur(random.integers(0, 256, (900, 1200, 3), np.uint8), (9, 9), 2)
    item = FitItem(
        picture=picture,
        crop_from_picture=camera.crop_from_image(center, size, tilt=tilt),
        crop_from_model=torch.eye(4).double(),
        shape_params=torch.zeros(face.morphable_model.num_shape),
        exp_params=torch.zeros(face.morphable_model.num_exp),
        visible=picture[..., 0],
    )
    whole, cut = (collate_fits([item] * 8, reach=reach) for reach in (math.inf, reach_of(rule)))
    images = [
        augment(batch, decoder, rule, torch.Generator().manual_seed(3), targets=("attention",))
        for batch in (whole, cut)
    ]
    torch.testing.assert_close(images[0].image, images[1].image, atol=2e-3, rtol=0)
    torch.testing.assert_close(images[0].attention, images[1].attention, atol=2e-3, rtol=0)
    most = {"none": 0.08, "photos": 0.18, "prn": 0.25}[name]
    assert cut.picture.nbytes < most * whole.picture.nbytes


def test_a_crop_beside_its_picture_keeps_an_edge_of_it():
    item = FitItem(
        np.ones((30, 40, 3), np.uint8), torch.eye(4), torch.eye(4), torch.zeros(1), torch.zeros(1)
    )
    away = torch.eye(4)
    away[0, 3] = 500.0
    batch = collate_fits([item._replace(crop_from_picture=away)], reach=130.0)
    assert batch.picture.shape == (1, 3, 30, 2)
    assert not warp_to_crop(batch.picture, batch.crop_from_picture).any()
