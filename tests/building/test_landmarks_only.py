"""Photos with landmarks alone: files, the built set, mixed batches, hidden fits, their limits."""

import json

import numpy as np
import pytest
import torch

from prnet.building.archives import BuildOptions, build_archive
from prnet.building.landmarks_only import build_landmarks
from prnet.datasets.augment import AugmentRule, augment, draw_similarity
from prnet.datasets.evaluation import HeldOut, collate_evaluation
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.landmark_files import find_landmarks, read_landmarks
from prnet.datasets.landmark_set import open_set
from prnet.datasets.pictures import CropRule, collate_fits
from prnet.datasets.training_sets import StepSampler, TrainingSets
from prnet.datasets.warp import make_sample
from prnet.faces.loading import FaceFiles
from prnet.geometry import camera
from prnet.geometry.landmark_map import MIRRORED_68
from prnet.geometry.position_map import PositionMapDecoder
from prnet.workers import loader_of
from tests.tiny import AFLW2000_YAWS_DEG

STILL = AugmentRule(rotation_deg=0, translation=0, scale=(1, 1), color=(1, 1), occlusion=0)


@pytest.fixture(scope="module")
def landmarks_dir(tiny_data_dir, tmp_path_factory):
    """Of the fits of AFLW2000 nothing but their pt3d_68."""
    output = tmp_path_factory.mktemp("landmarks") / "set"
    build_landmarks(tiny_data_dir / "AFLW2000", output, crop=CropRule())
    return output


@pytest.fixture(scope="module")
def decoder(face):
    return PositionMapDecoder(face.morphable_model, face.uv, landmark_index=face.landmark_index)


def test_items_have_the_landmarks_of_the_archive_in_their_crop(
    tiny_data_dir, landmarks_dir, tmp_path, face
):
    """The same photos built with their fits: the same crop, and landmarks where theirs are."""
    build_archive(
        None,
        data_dir=tiny_data_dir,
        output=tmp_path / "fitted",
        face_files=FaceFiles("bfm", str(tiny_data_dir / "BFM"), None),
        options=BuildOptions("aflw2000"),
        workers=0,
    )
    fitted = open_set(tmp_path / "fitted", face.describe())
    built = open_set(landmarks_dir, face.describe())
    assert built.names == fitted.names == sorted(AFLW2000_YAWS_DEG)
    for index in range(len(built)):
        item, other = built[index], fitted[index]
        assert not item.has_fit
        assert other.has_fit
        np.testing.assert_array_equal(item.picture, other.picture)
        torch.testing.assert_close(
            item.crop_from_picture, other.crop_from_picture, atol=1e-3, rtol=1e-4
        )
        vertices = face.morphable_model(other.shape_params[None], other.exp_params[None])
        points = camera.transform_points(
            other.crop_from_model, vertices[0, face.landmark_index].double()
        )
        torch.testing.assert_close(item.landmarks, points[:, :2], atol=2e-2, rtol=0)


def test_mixed_batch_takes_each_sample_its_own_landmarks(built_dir, landmarks_dir, decoder, face):
    fitted, built = (open_set(one, face.describe()) for one in (built_dir, landmarks_dir))
    batch = collate_fits([fitted[0], built[2], fitted[1]._replace(has_fit=False)])
    assert batch.has_fit.tolist() == [True, False, False]
    sample = make_sample(batch, decoder, targets={"fit", "landmarks"})
    assert sample.has_fit is batch.has_fit
    assert sample.landmarks_visible.all()
    torch.testing.assert_close(sample.landmarks[1], built[2].landmarks.float())
    for row, index in ((0, 0), (2, 1)):
        one = make_sample(collate_fits([fitted[index]]), decoder, targets={"landmarks"})
        assert one.has_fit is None
        torch.testing.assert_close(sample.landmarks[row], one.landmarks[0])
    assert collate_fits([fitted[0], fitted[1]]).landmarks is None


def test_unseen_points_are_zero_and_not_visible(tiny_data_dir, tmp_path, decoder, face):
    """A table with an empty cell and a photo of three points only."""
    items, _ = find_landmarks(tiny_data_dir / "AFLW2000")
    header = ",".join(["name", *(f"{axis}{k}" for k in range(68) for axis in "xy")])
    rows = [header]
    for number, item in enumerate(items):
        points = item.landmarks[:, :2].copy()
        if number == 0:
            points[8] = np.nan
        if number == 1:
            points[3:] = np.nan
        if number == 2:
            points[2:] = np.nan
        cells = ["" if np.isnan(value) else f"{value:.3f}" for value in points.ravel()]
        rows.append(",".join([item.name, *cells]))
    (tmp_path / "points.csv").write_text("\n".join(rows))
    build = build_landmarks(
        tmp_path / "points.csv",
        tmp_path / "set",
        pictures=tiny_data_dir / "AFLW2000",
        crop=CropRule(),
    )
    assert list(build["audit"]["unreadable"]) == [items[2].name]
    assert "2 points are seen" in build["audit"]["unreadable"][items[2].name]
    built = open_set(tmp_path / "set", face.describe())
    sample = make_sample(collate_fits([built[0], built[1]]), decoder, targets={"landmarks"})
    assert (~sample.landmarks_visible[0]).nonzero().flatten().tolist() == [8]
    assert sample.landmarks_visible[1].sum() == 3
    assert (sample.landmarks[~sample.landmarks_visible] == 0).all()


def test_augmentation_moves_given_landmarks_as_it_moves_those_of_fits(built_dir, decoder, face):
    """One face twice: by its fit, and by its landmarks alone."""
    fitted = open_set(built_dir, face.describe())
    items = [fitted[index] for index in range(6)]
    known = make_sample(collate_fits(items), decoder, targets={"landmarks"}).landmarks
    unfitted = [
        item._replace(
            landmarks=points.double(), has_fit=False, crop_from_model=torch.eye(4).double()
        )
        for item, points in zip(items, known, strict=True)
    ]
    rule = AugmentRule(rotation_deg=40, translation=0.1, mirror=0.5)
    samples = [
        augment(
            collate_fits(batch),
            decoder,
            rule,
            torch.Generator().manual_seed(5),
            targets={"landmarks"},
        )
        for batch in (items, unfitted)
    ]
    _, mirrored = draw_similarity(6, rule, torch.Generator().manual_seed(5))
    assert 0 < mirrored.sum() < 6
    torch.testing.assert_close(samples[0].image, samples[1].image)
    torch.testing.assert_close(samples[0].landmarks, samples[1].landmarks, atol=1e-3, rtol=1e-5)
    # The jaw runs from the left of the picture to the right in a mirror too.
    jaw = samples[1].landmarks[:, 16, 0] - samples[1].landmarks[:, 0, 0]
    still = known[:, 16, 0] - known[:, 0, 0]
    assert ((jaw > 0) == (still > 0)).all()
    assert MIRRORED_68[0] == 16


def test_aflw_points_stand_for_the_18_and_the_chin(tmp_path):
    points = np.arange(42, dtype=float).reshape(21, 2) + 10
    points[4] = -1
    lines = "\n".join(f"{x} {y}" for x, y in points)
    (tmp_path / "a.pts").write_text(f"version: 1\nn_points: 21\n{{\n{lines}\n}}\n")
    with pytest.raises(ValueError, match=r"21 lines.*expected 68"):
        read_landmarks(tmp_path / "a.pts")
    landmarks = read_landmarks(tmp_path / "a.pts", aflw_points=True)["a"]
    seen = np.flatnonzero(~np.isnan(landmarks).any(1)).tolist()
    assert seen == [
        8,
        17,
        19,
        21,
        22,
        26,
        30,
        31,
        35,
        36,
        37,
        39,
        40,
        42,
        43,
        45,
        46,
        48,
        54,
        62,
        66,
    ]
    # .pts counts pixels from 1.
    np.testing.assert_allclose(landmarks[36], points[6] - 1)
    np.testing.assert_allclose(landmarks[[37, 40]].mean(0), points[7] - 1)
    np.testing.assert_allclose(landmarks[[62, 66]], [points[18] - 1] * 2)
    np.testing.assert_allclose(landmarks[8], points[20] - 1)


def test_archives_of_landmarks_say_their_own_pixel_origin(tmp_path):
    points = np.random.default_rng(0).uniform(0, 100, (68, 3))
    np.savez(tmp_path / "a.npz", landmarks=points, pixel_origin="matlab")
    np.savez(tmp_path / "b.npz", landmarks=points)
    np.savez(tmp_path / "c.npz", points=points)
    np.testing.assert_allclose(read_landmarks(tmp_path / "a.npz")["a"], points - [1, 1, 0])
    shifted = read_landmarks(tmp_path / "b.npz", shift=(2.0, 3.0))["b"]
    np.testing.assert_allclose(shifted, points + [2, 3, 0])
    with pytest.raises(ValueError, match=r"c.npz.*landmarks"):
        read_landmarks(tmp_path / "c.npz")


def test_build_is_finished_once_and_refuses_other_folders(tiny_data_dir, tmp_path):
    source, output = tiny_data_dir / "AFLW2000", tmp_path / "set"
    first = build_landmarks(source, output, crop=CropRule())
    changed = (output / "records.npy").stat().st_mtime_ns
    assert build_landmarks(source, output, crop=CropRule()) == first
    assert (output / "records.npy").stat().st_mtime_ns == changed
    with pytest.raises(ValueError, match="another output="):
        build_landmarks(source, output, crop=CropRule(scale=1.6))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="another output="):
        build_landmarks(source, tmp_path / "other", crop=CropRule())
    # A killed build of the same kind is written anew.
    (output / "build.json").unlink()
    assert build_landmarks(source, output, crop=CropRule()) == first


def test_set_in_another_pixel_origin(tiny_data_dir, landmarks_dir, tmp_path, face):
    build_landmarks(
        tiny_data_dir / "AFLW2000", tmp_path / "set", crop=CropRule(), pixel_origin="face3d"
    )
    legacy, plain = (
        open_set(one, face.describe()).records["landmarks"]
        for one in (tmp_path / "set", landmarks_dir)
    )
    np.testing.assert_allclose(legacy, plain + np.float32([1, -1]), rtol=0, atol=1e-4)
    info = json.loads((tmp_path / "set" / "format.json").read_text())
    assert (info["kind"], info["pixel_origin"]) == ("landmarks", "face3d")


def test_hidden_fits_are_a_share_of_photos_and_teach_no_statistics(built_dir, face):
    sets = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe(), hide_fits=0.5)
    samples = sets.concatenated()
    flags = np.array([samples[i].has_fit for i in range(len(samples))])
    np.testing.assert_array_equal(flags, sets.fitted)
    assert 0 < flags.sum() < len(flags)
    names = sets.sets[0].names
    by_photo = {}
    for name, flag in zip(names, flags, strict=True):
        by_photo.setdefault(name.rsplit("_", 1)[0], set()).add(bool(flag))
    assert all(len(kinds) == 1 for kinds in by_photo.values())

    shown = sets.posed_fits(100)
    own = {tuple(sets.sets[0][i].shape_params.tolist()) for i in np.flatnonzero(flags)}
    assert {tuple(row) for row in shown.shape_params.tolist()} == own
    everything = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    assert everything.fitted.all()
    assert len(everything.posed_fits(100).mirrored) == len(names)
    with pytest.raises(ValueError, match=r"hide_fits: got 1"):
        TrainingSets([built_dir], face=face.describe(), hide_fits=1.0)


def test_sets_of_both_kinds_mix_by_ratio(built_dir, landmarks_dir, face):
    sets = TrainingSets(
        [built_dir, landmarks_dir],
        ratios=[1, 3],
        validation_fraction=0.3,
        face=face.describe(),
    )
    # No photo without a fit is held out.
    assert {held.built.directory for held in sets.validation} == {built_dir}
    assert len(sets.training[1]) == len(AFLW2000_YAWS_DEG)
    order = sets.order(0, 0)
    share = (~sets.fitted[order]).mean()
    assert share == pytest.approx(0.75, abs=0.05)
    sampler = StepSampler(sets, batch_size=4, seed=0)
    batch = next(iter(loader_of(sets.concatenated(), collate_fits, batch_sampler=sampler)))
    np.testing.assert_array_equal(batch.has_fit.numpy(), sets.fitted[order[:4]])
    with pytest.raises(ValueError, match="not one training sample has a fit"):
        TrainingSets([landmarks_dir], face=face.describe())


def test_number_of_images_without_a_fit_is_limited(built_dir, landmarks_dir, face):
    def unfitted(**settings) -> set:
        sets = TrainingSets(
            [built_dir, landmarks_dir], validation_fraction=0.0, face=face.describe(), **settings
        )
        names = [part.built.names[index] for part in sets.training for index in part.indices]
        return {name for name, fitted in zip(names, sets.fitted, strict=True) if not fitted}

    few, more, every = (unfitted(landmark_images=count) for count in (2, 4, None))
    assert (len(few), len(more), len(every)) == (2, 4, 6)
    assert few < more < every
    assert len(unfitted(landmark_images=7, hide_fits=0.5)) == 7
    with pytest.raises(ValueError, match=r"landmark_images: got 7, there are 6"):
        unfitted(landmark_images=7)


def test_given_landmarks_come_back_in_crop_px(tiny_data_dir, built_dir, face, decoder):
    """What an evaluation gives to a network lies where the fit's landmarks are."""
    fitted = open_set(built_dir, face.describe())
    batch = collate_evaluation([HeldOut(fitted, np.arange(2))[i] for i in range(2)])
    given = GivenLandmarks(tiny_data_dir / "300W_LP")
    points, seen = given.of(batch, pixel_origin="zero_based")
    assert seen.all()
    expected = make_sample(
        collate_fits([fitted[0], fitted[1]]), decoder, targets={"landmarks"}
    ).landmarks
    torch.testing.assert_close(points, expected, atol=2e-2, rtol=0)
    with pytest.raises(ValueError, match="none for 2: other, x of 2 images"):
        given.of(batch._replace(names=["other", "x"]), pixel_origin="zero_based")
    given.by_name["x"] = np.full((68, 2), np.nan)
    with pytest.raises(ValueError, match="not one point is seen of 1: x$"):
        given.points([batch.names[0], "x"])
    with pytest.raises(FileNotFoundError, match="landmarks="):
        GivenLandmarks(tiny_data_dir / "nowhere")
