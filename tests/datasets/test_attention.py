"""Where the face is seen: the silhouette against the z-buffer, and what covers it."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prnet.datasets.attention_target import (
    attention_iou,
    attention_target,
    released_silhouette,
    silhouette,
)
from prnet.datasets.augment import AugmentRule, augment, draw_similarity
from prnet.datasets.evaluation import collate_evaluation, true_attention
from prnet.datasets.occluders import ImageOccluder
from prnet.datasets.pictures import FitItem, collate_fits
from prnet.datasets.synthetic import held_out_faces
from prnet.datasets.warp import make_sample, warp_to_crop
from prnet.faces.loading import load_face
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder, pixels_of
from prnet.geometry.rasterize import rasterize
from prnet.models.network import Network
from prnet.sample import FitBatch, Prediction
from tests.evaluations import Items, score_network, shipped
from tests.worlds import shipped_rule

SIZE = 64
RULE = shipped_rule(size=48, held_out=3)
# A closed mouth off the picture.
NO_MOUTH = torch.full((1, 68, 2), -1e3)


@pytest.fixture(scope="module")
def embedded():
    return load_face("embedded")


@pytest.fixture(scope="module")
def embedded_decoder(embedded):
    return PositionMapDecoder(embedded.morphable_model, embedded.uv)


@pytest.fixture(scope="module")
def rendered() -> FitBatch:
    return held_out_faces(RULE).rendered.fits([0, 1, 2])


def posed(face, *, count: int, zoom: tuple[float, float]) -> Tensor:
    """Model frame -> crop px, (count, 4, 4): any roll, yaw beyond profile, off the middle."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    mean = face.morphable_model.mean
    angles = torch.stack([uniform(-0.5, 0.5), uniform(-1.83, 1.83), uniform(-1.5, 1.5)], -1)
    width = mean[:, 0].amax() - mean[:, 0].amin()
    scale = 150 / width * uniform(*zoom)
    matrix = camera.image_from_model(
        scale, angles, torch.zeros(count, 3), torch.full((count,), 256.0)
    )
    landmarks = mean[face.landmark_index].expand(count, -1, -1)
    center = camera.transform_points(matrix, landmarks)[..., :2].mean(1)
    matrix[:, :2, 3] += 127.5 - center + uniform(-40, 40, 2)
    return matrix


def z_buffer(points: Tensor, triangles: Tensor, side: int, *, finer: int = 1) -> Tensor:
    """The silhouette of the same texels as a mesh, (B, finer side, finer side)."""
    points = points.clone()
    points[..., :2] = (points[..., :2] + 0.5) * finer - 0.5
    return rasterize(points, triangles, height=finer * side, width=finer * side).triangle >= 0


@pytest.mark.parametrize("zoom", [(0.9, 1.1), (1.2, 1.5)])
def test_silhouette_is_that_of_the_z_buffer(embedded, embedded_decoder, zoom):
    """IoU at the crop's resolution, mean absolute error at the attention's; faces cut by the border
    and beyond profile among them."""
    count = 8
    generator = torch.Generator().manual_seed(1)
    shape_params = 0.7 * torch.randn(count, 80, generator=generator)
    exp_params = torch.rand(count, 51, generator=generator) * 0.2
    matrix = posed(embedded, count=count, zoom=zoom)
    points, landmarks = embedded_decoder.points_of(
        embedded_decoder(shape_params, exp_params, matrix)
    )
    got = silhouette(points, landmarks, size=256)
    true = z_buffer(points, embedded.uv.grid_triangles, 256)
    iou = (got & true).flatten(1).sum(1) / (got | true).flatten(1).sum(1)
    assert iou.mean() > 0.985
    assert iou.min() > 0.97
    soft = attention_target(z_buffer(points, embedded.uv.grid_triangles, 256, finer=4), None)
    error = (attention_target(got, None) - soft).abs()
    assert error.mean() < 0.003
    assert error.max() < 0.5  # no hole


def grid_of_points(low: tuple[float, float], high: tuple[float, float], step: float) -> Tensor:
    """Points of a rectangle, its border among them, (1, P, 2)."""
    axes = [
        torch.linspace(a, b, math.ceil((b - a) / step) + 1) for a, b in zip(low, high, strict=True)
    ]
    return torch.cartesian_prod(*axes)[None]


def test_rectangle_is_exact():
    """The pixels whose centre lies inside, wherever the border lies between them."""
    for low, high in (((10.3, 20.6), (40.7, 50.2)), ((10.9, 20.1), (40.1, 50.9))):
        got = silhouette(grid_of_points(low, high, 0.3), NO_MOUTH, size=SIZE)[0]
        inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        rows, columns = (slice(math.ceil(low[i]), math.floor(high[i]) + 1) for i in (1, 0))
        inside[rows, columns] = True
        assert torch.equal(got, inside)


@pytest.mark.parametrize("step", [1.0, 3.0, 5.9])
def test_points_apart_leave_no_holes(step):
    """Up to twice `CLOSING` px, 6, and nothing is added outside."""
    got = silhouette(grid_of_points((10.3, 20.6), (40.7, 50.2), step), NO_MOUTH, size=SIZE)[0]
    assert got[22:50, 12:40].all()
    got[21:51, 11:41] = False
    assert not got.any()


def test_points_farther_apart_are_no_surface():
    got = silhouette(grid_of_points((10.3, 20.6), (40.7, 50.2), 8.0), NO_MOUTH, size=SIZE)[0]
    assert not got[22:50, 12:40].all()


def test_border_cuts_and_points_outside_are_ignored():
    points = grid_of_points((-30.0, -40.0), (20.4, 90.0), 0.5)
    got = silhouette(points, NO_MOUTH, size=SIZE)[0]
    assert got[:, :21].all()
    assert not got[:, 21:].any()
    far = torch.tensor([[[1e9, 5.0], [-1e9, 5.0], [70.0, 30.0], [30.0, 71.0], [-9.0, -9.0]]])
    assert not silhouette(far, NO_MOUTH, size=SIZE).any()
    assert torch.equal(silhouette(torch.cat([points, far], 1), NO_MOUTH, size=SIZE)[0], got)


def test_open_mouth_belongs_to_the_face():
    above = grid_of_points((5.0, 5.0), (60.0, 20.0), 0.5)
    below = grid_of_points((5.0, 45.0), (60.0, 60.0), 0.5)
    landmarks = NO_MOUTH.clone()
    landmarks[0, 60:65] = torch.tensor([[10, 32], [22, 20], [32, 20], [42, 20], [54.0, 32]])
    landmarks[0, 65:68] = torch.tensor([[42, 45], [32, 45], [22, 45.0]])
    got = silhouette(torch.cat([above, below], 1), landmarks, size=SIZE)[0]
    assert got[21:45, 23:42].all()
    assert not got[25:40, :10].any()


def test_a_batch_is_its_items():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(3, 400, 3, generator=generator) * 90 - 10
    landmarks = torch.rand(3, 68, 3, generator=generator) * 90 - 10
    together = silhouette(points, landmarks, size=SIZE)
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.equal(together[one], silhouette(points[one], landmarks[one], size=SIZE))
    assert not torch.equal(together[0], together[1])


def test_target_is_the_uncovered_share():
    seen = torch.ones(1, 64, 64, dtype=torch.bool)
    covered = torch.zeros_like(seen)
    covered[0, :, :3] = True  # three of a pixel's eight columns
    target = attention_target(seen, covered, size=8)
    assert (target[0, :, 0] == 5 / 8).all()
    assert (target[0, :, 1:] == 1).all()
    assert (attention_target(seen, None, size=8) == 1).all()
    with pytest.raises(ValueError, match="no divisor of the crop's 64 px"):
        attention_target(seen, None, size=7)


def test_iou_of_attention():
    target = torch.tensor([[[1.0, 0.6], [0.4, 0.0]]] * 4)
    target[3] = 0.5
    logits = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [-1, -1, 1, 1], [-1, -1, -1, -1.0]])
    iou = attention_iou(logits.view(4, 2, 2), target)
    torch.testing.assert_close(iou, torch.tensor([1, 1 / 3, 0, 1]))


def test_mirrored_samples_have_mirrored_attention(embedded_decoder, rendered):
    rule = AugmentRule(rotation_deg=0, translation=0, scale=(1, 1), mirror=1.0)
    moved, mirrored = draw_similarity(3, rule, torch.Generator().manual_seed(0))
    for batch, tolerance in ((rendered, 1e-3), (rendered._replace(visible=None), 0.01)):
        plain = make_sample(batch, embedded_decoder, targets=("attention",))
        sample = make_sample(
            batch, embedded_decoder, targets=("attention",), moved=moved, mirrored=mirrored
        )
        assert plain.attention.shape == (3, 32, 32)
        assert plain.position_map is None
        assert (plain.attention.flip(-1) - sample.attention).abs().mean() < tolerance
        assert (plain.attention - sample.attention).abs().mean() > 5 * tolerance


def test_known_visibility_is_moved_with_the_picture(embedded_decoder, rendered):
    """A mask painted into the picture too is found in the image where the attention has it."""
    mask = torch.zeros(3, 48, 48, dtype=torch.uint8)
    mask[:, 11:30, 17:25] = 255
    batch = rendered._replace(picture=mask[:, None].expand(-1, 3, -1, -1), visible=mask)
    rule = AugmentRule(mirror=0.5, color=(1, 1), occlusion=0.0)
    sample = augment(
        batch, embedded_decoder, rule, torch.Generator().manual_seed(2), targets=("attention",)
    )
    assert 0.02 < sample.attention.mean() < 0.5
    torch.testing.assert_close(sample.attention, attention_target(sample.image[:, 0], None))


def test_occluders_are_taken_from_the_attention(embedded_decoder, rendered):
    def cover_left(image: Tensor) -> tuple[Tensor, Tensor]:
        covered = torch.zeros(3, 256, 256, dtype=torch.bool)
        covered[:, :, :120] = True
        return image * 0.5, covered

    for batch in (rendered, rendered._replace(visible=None)):
        plain = make_sample(batch, embedded_decoder, targets=("attention",))
        sample = make_sample(batch, embedded_decoder, targets=("attention",), disturb=cover_left)
        assert torch.equal(sample.image, plain.image * 0.5)
        assert torch.equal(sample.attention[..., 15:], plain.attention[..., 15:])
        assert not sample.attention[..., :15].any()
        assert plain.attention[..., :15].any()


def test_attention_moves_no_random_number(embedded_decoder, rendered):
    rule = AugmentRule(occlusion=1.0, occluder="sadrnet", mirror=0.5)
    samples = [
        augment(rendered, embedded_decoder, rule, torch.Generator().manual_seed(0), targets=targets)
        for targets in (("position_map",), ("position_map", "attention"))
    ]
    assert samples[0].attention is None
    assert torch.equal(samples[0].image, samples[1].image)
    assert torch.equal(samples[0].position_map, samples[1].position_map)
    without = rule._replace(occlusion=0.0)
    whole = augment(
        rendered,
        embedded_decoder,
        without,
        torch.Generator().manual_seed(0),
        targets=("attention",),
    )
    assert (samples[1].attention <= whole.attention + 1e-6).all()
    assert samples[1].attention.sum() < 0.995 * whole.attention.sum()


def test_face_without_a_mask_of_the_visible_one(face):
    """Batches of built sets: visible is None from the item to the device."""
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    item = FitItem(
        picture=np.zeros((40, 30, 3), np.uint8),
        crop_from_picture=torch.eye(4).double(),
        crop_from_model=posed(face, count=1, zoom=(1, 1))[0].double(),
        shape_params=torch.zeros(face.morphable_model.num_shape),
        exp_params=torch.zeros(face.morphable_model.num_exp),
    )
    batch = collate_fits([item, item]).to("cpu")
    assert batch.visible is None
    sample = make_sample(batch, decoder, targets=("position_map", "attention"))
    true = z_buffer(face.uv.face_points(sample.position_map), face.uv.grid_triangles, 256)
    assert (sample.attention - attention_target(true, None)).abs().mean() < 0.005
    # One item that does not know what is seen of its face leaves the batch without.
    seen = np.full((40, 30), 255, np.uint8)
    assert collate_fits([item, item._replace(visible=seen)]).visible is None
    larger = item._replace(picture=np.zeros((44, 50, 3), np.uint8), visible=seen[:20])
    padded = collate_fits([item._replace(visible=seen), larger]).visible
    assert padded.shape == (2, 40, 30)
    assert padded[1, :20].all()
    assert not padded[1, 20:].any()


def test_truth_of_an_evaluation_is_that_of_training(embedded, embedded_decoder):
    faces = held_out_faces(RULE)
    fits = faces.rendered.fits([0, 1, 2])
    batch = collate_evaluation([faces[i] for i in range(3)])
    expected = make_sample(fits, embedded_decoder, targets=("attention",)).attention
    got = true_attention(batch, embedded, None, size=32)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)

    unknown = batch._replace(visible=None)
    silhouettes = make_sample(
        fits._replace(visible=None), embedded_decoder, targets=("attention",)
    ).attention
    got = true_attention(unknown, embedded, None, size=32)
    assert (got - silhouettes).abs().mean() < 1e-3
    assert true_attention(unknown, None, None, size=32) is None
    assert true_attention(unknown._replace(image_from_model=None), embedded, None, size=32) is None


class Oracle(Network):
    """Predicts the true attention of images in their order, and what it was shown."""

    def __init__(self, position_map: Tensor, attention: Tensor) -> None:
        super().__init__()
        self.position_map, self.attention = position_map, attention
        self.unused = nn.Parameter(torch.zeros(1))
        self.images: list[Tensor] = []

    def forward(self, image: Tensor) -> Prediction:
        start = sum(map(len, self.images))
        self.images.append(image)
        part = slice(start, start + len(image))
        return Prediction(self.position_map[part], attention_logits=self.attention[part] - 0.5)


@pytest.mark.parametrize("occluder", [None, ImageOccluder("noise"), ImageOccluder("sadrnet")])
def test_evaluation_covers_images_and_reports_attention(embedded, embedded_decoder, occluder):
    faces = held_out_faces(RULE)
    items = [faces[i] for i in range(3)]
    batch = collate_evaluation(items)
    image = warp_to_crop(batch.picture, batch.crop_from_picture)
    covered = None
    if occluder is not None:
        image, covered = occluder(image, batch.names)
    truth = true_attention(batch, embedded, covered, size=32)
    fits = faces.rendered.fits([0, 1, 2])
    position_map = make_sample(fits, embedded_decoder).position_map
    model = Oracle(position_map, truth)
    report = score_network(
        model,
        Items(items, embedded),
        embedded,
        shipped("default"),
        batch_size=2,
        occluder=occluder,
    )
    assert report["occlusion"] == ("none" if occluder is None else occluder.occluder)
    assert report["attention"] == {"iou": 1.0, "count": 3}
    assert report["metrics"]["nme_68_2d"]["mean"] < 1
    torch.testing.assert_close(torch.cat(model.images), image, rtol=0, atol=0)


def test_released_target_is_2_px_larger_with_a_corner():
    """As its own mask of points: two pixels to every side, and the upper left 3 x 3."""
    points = torch.tensor([[[30.9, 20.2, 0], [31.1, 20.2, 0], [90.0, 40.0, 0], [-5.0, 50.0, 0]]])
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[18:23, 28:34] = True
    expected[38:43, 61:] = True  # from outside, onto the border
    expected[48:53, :3] = True
    expected[:3, :3] = True
    assert torch.equal(released_silhouette(pixels_of(points, size=SIZE))[0], expected)


def test_released_target_is_resized_as_pillow_does():
    random = np.random.default_rng(0)
    seen = torch.from_numpy(random.random((1, 256, 256)) < 0.5)
    got = attention_target(seen, None, overlapping=True)[0]
    picture = Image.fromarray(seen[0].numpy().astype(np.float32))
    expected = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_released_target_is_drawn_once_and_moved_with_the_picture(embedded_decoder, rendered):
    """Its corner too; and occluders are taken from it."""
    rule = AugmentRule(scale=(0.8, 0.8), mirror=0.5, occlusion=0.0, attention="released")
    settings = (rendered, embedded_decoder)
    sample = augment(*settings, rule, torch.Generator().manual_seed(4), targets=("attention",))
    moved, mirrored = draw_similarity(3, rule, torch.Generator().manual_seed(4))
    assert mirrored.any()
    points, _ = embedded_decoder.points_of(make_sample(*settings).position_map)
    pixels = pixels_of(points, size=256)
    offsets = embedded_decoder.offsets(rendered.shape_params, rendered.exp_params)
    marked = embedded_decoder.face_pixels(offsets, rendered.crop_from_model, size=256)
    assert (marked != pixels).sum() <= 3  # points on the border of two, by rounding
    assert pixels.sum() > 1000
    drawn = released_silhouette(pixels)
    warped = warp_to_crop(255 * drawn[:, None], moved)[:, 0]
    expected = attention_target(warped, None, overlapping=True)
    torch.testing.assert_close(sample.attention, expected, rtol=0, atol=1e-5)
    # Larger than the face by 2 px all around.
    plain = make_sample(*settings, targets=("attention",), attention="released").attention
    bare = make_sample(*settings, targets=("attention",)).attention
    assert plain.sum() > 1.05 * bare.sum()
    assert (plain[:, 0, 0] > 0.05).all()
    hidden = rule._replace(occlusion=1.0, occluder="noise")
    sample = augment(*settings, hidden, torch.Generator().manual_seed(4), targets=("attention",))
    assert (sample.attention <= expected + 1e-5).all()
    assert sample.attention.sum() < 0.95 * expected.sum()
    with pytest.raises(ValueError, match=r"augment.attention: got 'none'.*silhouette, released"):
        augment(*settings, rule._replace(attention="none"), torch.Generator())
