"""The synthetic stream as a training set and a test set, and frozen to the archives' layout."""

import json
import pickle

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from prnet.building.frozen_worlds import freeze
from prnet.datasets.evaluation import Kept, collate_evaluation
from prnet.datasets.fits import decode_vertices, find_300w_lp, find_aflw2000, fit_matrix, read_fit
from prnet.datasets.pictures import CropRule, collate_fits, decode_picture
from prnet.datasets.synthetic import (
    HELD_OUT_SEED_SHIFT,
    RenderedFaces,
    SyntheticRule,
    SyntheticSets,
    crop_from_rendered,
    held_out_faces,
)
from prnet.datasets.training_sets import StepSampler
from prnet.datasets.warp import make_sample
from prnet.drawing.contact_sheet import archive_samples
from prnet.entry import CONFIG_DIR, shipped_dataset
from prnet.faces.loading import load_face
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder
from prnet.workers import loader_of
from tests.worlds import shipped_rule

SIZE = 48
RULE = shipped_rule(size=SIZE, samples_per_epoch=10, held_out=3)


@pytest.fixture(scope="module")
def embedded():
    return load_face("embedded")


@pytest.fixture(scope="module")
def sets() -> SyntheticSets:
    return SyntheticSets(RULE)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Three training and two test samples, one scan."""
    output = tmp_path_factory.mktemp("frozen") / "world"
    freeze(RULE, output, count=3, test_count=2, scans=1)
    return output


def test_epochs_follow_each_other_and_never_repeat(sets):
    sampler = StepSampler(sets, batch_size=4, seed=0)
    batches = iter(sampler)
    drawn = [next(batches) for _ in range(4)]
    assert sampler.steps_per_epoch == 2
    assert drawn == [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13], [14, 15, 16, 17]]


def test_loader_renders_the_batch_the_sampler_names(sets):
    sampler = StepSampler(sets, batch_size=2, seed=0, start=1)
    batch = next(iter(loader_of(sets.concatenated(), collate_fits, batch_sampler=sampler)))
    alone = sets.rendered.fits([2, 3])
    for got, expected in zip(batch, alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_held_out_people_of_a_training_are_rendered_once(monkeypatch):
    """However often they are validated on, and as ever."""
    kept, anew = Kept(held_out_faces(RULE)), held_out_faces(RULE)
    first = kept.__getitems__([0, 1])
    rendered = []
    faces = kept.items.rendered.faces
    batch = faces.batch
    monkeypatch.setattr(faces, "batch", lambda indices: rendered.extend(indices) or batch(indices))
    again = kept.__getitems__([2, 1, 0])
    assert rendered == [2]
    assert again[1] is first[1]
    assert again[2] is first[0]
    expected = anew.__getitems__([2, 1, 0])
    for one, other in zip(again, expected, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.network_input.picture, other.network_input.picture)


def test_held_out_people_are_of_another_seed(sets):
    (held_out,) = sets.validation
    assert held_out.rendered.seed == RULE.seed + HELD_OUT_SEED_SHIFT
    assert len(held_out) == 3
    assert not torch.equal(sets.shown(1).shape_params, sets.rendered.fits([0]).shape_params)


def test_position_map_meets_the_landmarks(sets, embedded):
    """Sample -> crop -> map, read at the landmark cells, against the renderer's own landmarks."""
    batch = sets.rendered.fits([0, 1, 2])
    sample = make_sample(batch, PositionMapDecoder(embedded.morphable_model, embedded.uv))
    rendered = sets.rendered.faces.batch([0, 1, 2])
    expected = camera.transform_points(crop_from_rendered(SIZE).float(), rendered.landmarks)
    distance = (embedded.uv.landmarks(sample.position_map) - expected).norm(dim=-1)
    assert distance.mean() < 1.0  # crop px: cells are the texels nearest to the landmarks
    assert sample.image.shape == (3, 3, 256, 256)


def test_evaluation_items_agree_with_their_fit(embedded):
    """Landmarks, yaw and matrix of an item all describe the same face."""
    held_out = held_out_faces(RULE, CropRule(scale=1.6))
    batch = collate_evaluation([held_out[0], held_out[1]])
    vertices = embedded.morphable_model(batch.shape_params, batch.exp_params)
    at_landmarks = vertices[:, embedded.landmark_index].double()
    projected = camera.transform_points(batch.image_from_model, at_landmarks)
    expected = camera.convert_origin(batch.landmarks, "matlab", "zero_based")
    torch.testing.assert_close(projected, expected, rtol=0, atol=1e-2)
    rotation = batch.image_from_model[:, :3, :3]
    rotation = rotation / rotation[:, :1].norm(dim=-1, keepdim=True)
    flip = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    angles = camera.angles_from_rotation(rotation * flip[:, None])
    turned = camera.rotation_from_angles(angles)
    yaw = np.radians(batch.yaw_deg)
    np.testing.assert_allclose(-turned[:, 0, 2].numpy(), np.sin(yaw), atol=1e-6)
    assert batch.crop_from_picture.shape == (2, 4, 4)


def test_unknown_fields_and_choices_are_refused():
    values = shipped_dataset("synthetic")
    bins = [[0, 30, 0.5], [30, 90, 0.5]]
    world = values["world"] | {"yaw_bins": bins}
    with pytest.raises(ValueError, match="dataset.world: no field yaws"):
        SyntheticRule.from_values(values | {"world": world | {"yaws": 3}})
    with pytest.raises(ValueError, match="dataset: no field sede"):
        SyntheticRule.from_values(values | {"sede": 3})
    with pytest.raises(ValueError, match="dataset.world: no value for accessories, "):
        SyntheticRule.from_values(values | {"world": {"yaw_bins": bins}})
    rule = SyntheticRule.from_values(values | {"seed": 4, "world": world})
    assert rule.seed == 4
    assert rule.world.yaw_bins == ((0, 30, 0.5), (30, 90, 0.5))
    assert rule.world._replace(yaw_bins=RULE.world.yaw_bins) == RULE.world


def test_every_number_of_the_world_is_a_dial_of_the_configuration():
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", overrides=["dataset=synthetic", "dataset.world.shape_std=0.5"])
    assert cfg.dataset.world.shape_std == 0.5
    assert set(cfg.dataset.world) == set(RULE.world._fields)


@pytest.mark.parametrize(
    ("experiment", "size"), [("mobile_frnet_synthetic", 128), ("2dasl", 128), ("prn", 256)]
)
def test_pictures_are_rendered_at_the_side_of_the_network(experiment, size):
    """Up to the next size that can be: no network of 120 px is refused."""
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", overrides=[f"+experiment={experiment}", "dataset=synthetic"])
    rule = SyntheticRule.from_values(OmegaConf.to_container(cfg.dataset, resolve=True))
    batch = RenderedFaces(rule, seed=0).fits([0])
    assert batch.picture.shape[-1] == rule.size == size
    last = batch.crop_from_picture[0] @ torch.tensor([size - 1.0, size - 1.0, 0.0, 1.0])
    torch.testing.assert_close(last[:2], torch.tensor([255.0, 255.0]))


def test_frozen_world_is_read_by_the_archives_readers(frozen, embedded):
    pairs = find_300w_lp(frozen, ["Synthetic"])
    assert [pair.name for pair in pairs] == [f"Synthetic/synthetic_{i:06d}" for i in range(3)]
    for pair in find_aflw2000(frozen):
        file = read_fit(pair.fit)
        height = decode_picture(pair.picture.read_bytes(), source=pair.picture).shape[0]
        vertices = decode_vertices(embedded.morphable_model, file.fit)
        projected = camera.transform_points(
            fit_matrix(file.fit, height, pixel_origin="matlab"),
            vertices[embedded.landmark_index].double(),
        )
        distance = projected[:, :2] - torch.from_numpy(file.landmarks[:, :2])
        assert distance.abs().max() < 1e-3


def test_frozen_samples_are_those_of_the_stream(frozen, sets):
    pairs = find_300w_lp(frozen, ["Synthetic"])
    rendered = sets.rendered.faces.batch([0, 1, 2])
    for i, pair in enumerate(pairs):
        picture = decode_picture(pair.picture.read_bytes(), source=pair.picture)
        difference = picture - 255 * rendered.image[i].permute(1, 2, 0).numpy()
        assert np.abs(difference).mean() < 8  # of a JPEG
        np.testing.assert_allclose(
            read_fit(pair.fit).fit.shape_params, rendered.shape_params[i], atol=1e-6
        )


def test_frozen_face_gives_the_landmarks_without_this_package(frozen):
    """face.npz and a .mat alone, with nothing but numpy: x and y of pt3d_68."""
    face = np.load(frozen / "face.npz")
    file = read_fit(find_aflw2000(frozen)[0].fit)
    fit = file.fit
    vertices = face["mean"] + np.tensordot(fit.shape_params, face["shape_basis"], 1)
    vertices = vertices + np.tensordot(fit.exp_params, face["exp_basis"], 1)
    rotation = camera.rotation_from_angles(torch.from_numpy(fit.angles)).numpy()
    points = fit.scale * vertices[face["landmark_index"]] @ rotation.T + fit.translation
    np.testing.assert_allclose(points[:, 0], file.landmarks[:, 0], atol=1e-2)
    np.testing.assert_allclose(SIZE + 1 - points[:, 1], file.landmarks[:, 1], atol=1e-2)


def test_freezing_again_finishes_what_is_missing(frozen):
    lost = frozen / "300W_LP" / "Synthetic" / "synthetic_000001.mat"
    kept = lost.with_name("synthetic_000000.mat")
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    freeze(RULE, frozen, count=3, test_count=2)
    assert kept.stat().st_mtime_ns == before
    assert read_fit(lost).fit.scale > 0
    assert len(content) == len(lost.read_bytes())


def test_freezing_refuses_another_world_and_strange_folders(frozen, tmp_path):
    with pytest.raises(ValueError, match="planned otherwise: seed is [0-9]+ there and 7 here"):
        freeze(RULE._replace(seed=7), frozen, count=3, test_count=2)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty and without a plan\.json"):
        freeze(RULE, tmp_path, count=1, test_count=0)
    with pytest.raises(ValueError, match="expected some of one"):
        freeze(RULE, tmp_path / "none", count=0, test_count=0)


def test_scan_is_a_textured_head(frozen):
    folder = frozen / "Florence" / "subject_01"
    lines = (folder / "subject_01.obj").read_text().splitlines()
    vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], float)
    coords = np.array([line.split()[1:3] for line in lines if line.startswith("vt ")], float)
    faces = [line.split()[1:] for line in lines if line.startswith("f ")]
    height = np.ptp(vertices[:, 1])
    assert 200 < height < 400  # millimetre, chin to crown and some of the neck
    corners = np.array([[int(corner.split("/")[0]) for corner in face] for face in faces]) - 1
    texture = np.array([[int(corner.split("/")[1]) for corner in face] for face in faces]) - 1
    used = coords[texture]
    assert used.min() >= 0
    assert used.max() <= 1
    # Outward where y points up: the enclosed volume is positive, and that of a head in litres.
    a, b, c = (vertices[corners[:, i]] for i in range(3))
    volume = (np.cross(a, b) * c).sum() / 6 / 1e6
    assert 2 < volume < 9
    picture = decode_picture((folder / "subject_01.png").read_bytes(), source="the texture")
    assert picture.shape == (512, 512, 3)


def test_archive_samples_sit_on_their_faces(frozen, embedded):
    pairs = find_300w_lp(frozen, ["Synthetic"])
    items = archive_samples(pairs, embedded, count=2)
    decoder = PositionMapDecoder(embedded.morphable_model, embedded.uv)
    for item, pair in zip(items, [pairs[0], pairs[2]], strict=True):
        params = [field.float()[None] for field in (item.shape_params, item.exp_params)]
        position_map = decoder(*params, item.crop_from_model.float()[None])
        landmarks = embedded.uv.landmarks(position_map)[0]
        picture_from_crop = camera.invert_affine(item.crop_from_picture).float()
        in_picture = camera.transform_points(picture_from_crop, landmarks)[:, :2]
        annotated = torch.from_numpy(read_fit(pair.fit).landmarks_2d).float() - 1
        assert (in_picture - annotated).norm(dim=-1).mean() < 1.0


def test_plan_says_which_world_it_is(frozen):
    plan = json.loads((frozen / "plan.json").read_text())
    assert plan["seed"] == RULE.seed
    assert plan["size"] == SIZE
    assert plan["world"]["accessories"]["glasses"] == RULE.world.accessories.glasses
    assert plan["world"]["yaw_bins"][0][:2] == [0.0, 30.0]


def test_loader_processes_are_not_sent_the_textures(sets):
    sets.rendered.fits([0])
    copy = pickle.loads(pickle.dumps(sets.rendered))  # noqa: S301 - our own bytes
    assert len(pickle.dumps(copy)) < 10_000
    for got, expected in zip(copy.fits([1]), sets.rendered.fits([1]), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
