"""Building, reading and splitting a set; the device-side targets made from it."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import scipy.io
import torch

from prnet.building import packing
from prnet.building.archives import BuildOptions, build_archive, encode_map
from prnet.datasets.built import BuiltSet, held_out, photo_ranks, source_photo
from prnet.datasets.fits import find_aflw2000, read_fit
from prnet.datasets.pictures import (
    CropRule,
    collate_fits,
    crop_square,
    decode_picture,
    image_from_picture,
    reduction_for,
    write_picture,
)
from prnet.datasets.training_sets import StepSampler, TrainingSets
from prnet.faces.loading import FaceFiles
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder
from tests.commands import run_commands
from tests.tiny import (
    HEIGHT,
    bfm_files,
    read_back,
    tiny_face,
    write_bfm_files,
    write_tiny_bfm,
    write_tiny_data_dir,
)

AUDIT_KEYS = {
    "large_angles",
    "negative_scale",
    "cast_dtypes",
    "landmark_mismatch",
    "landmarks_unchecked",
    "unreadable",
}


def build(data_dir, output, dataset="aflw2000", subsets=None, **options):
    return build_archive(
        subsets,
        data_dir=data_dir,
        output=output,
        face_files=FaceFiles("bfm", str(data_dir / "BFM"), None),
        options=BuildOptions(dataset, **options),
        workers=0,
    )


@pytest.fixture(scope="module")
def built(tiny_data_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "set"
    build(tiny_data_dir, output, maps=True)
    return BuiltSet(output)


def change_mat(path, **changes):
    content = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    scipy.io.savemat(path, content | changes)


def test_build_json_has_exactly_the_documented_keys(built):
    build_json = json.loads((built.directory / "build.json").read_text())
    assert set(build_json) == {"dataset", "count", "face", "samples", "audit"}
    assert set(build_json["audit"]) == AUDIT_KEYS
    assert build_json["dataset"] == "aflw2000"
    assert build_json["count"] == len(build_json["samples"]) == 6
    fingerprint = build_json["face"].pop("fingerprint")
    assert len(fingerprint) == 12
    counts = {"vertices": 98, "shape_bases": 4, "exp_bases": 3}
    assert build_json["face"] == {"name": "bfm", **counts}
    assert build_json["samples"] == sorted(build_json["samples"])
    assert build_json["audit"]["landmark_mismatch"] == {}
    assert build_json["audit"]["landmarks_unchecked"] == []


def test_records_meet_the_annotated_landmarks(built, face, tiny_data_dir):
    """Record -> model -> crop meets the file's own pt3d_68, and so does the map within a texel."""
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    batch = collate_fits([built[i] for i in range(len(built))])
    vertices = face.morphable_model(batch.shape_params, batch.exp_params)
    crop_vertices = camera.transform_points(batch.crop_from_model, vertices)
    position_map = decoder(batch.shape_params, batch.exp_params, batch.crop_from_model)
    sampled = read_back(face.uv, position_map)[:, face.landmark_index]
    for i, pair in enumerate(find_aflw2000(tiny_data_dir)):
        item = built[i]  # reduction 1: the picture is the image
        annotated = read_fit(pair.fit).landmarks - np.array([1.0, 1.0, 0.0])
        expected = camera.transform_points(item.crop_from_picture, torch.from_numpy(annotated))
        decoded = crop_vertices[i, face.landmark_index]
        assert (decoded - expected)[:, :2].abs().max() < 2e-3, pair.name
        # A coarse mesh read off a grid of 256: a corner of a triangle is off by part of a texel.
        assert (sampled[i] - expected)[:, :2].abs().max() < 2.0, pair.name
        depth_shift = expected[:, 2] - decoded[:, 2]
        assert depth_shift.std() < 2e-3, pair.name
    assert crop_vertices[..., 2].amin(1).abs().max() < 1e-3


def test_written_maps_equal_the_decoded_ones(built, face):
    decoder = PositionMapDecoder(face.morphable_model, face.uv, texels="all")
    batch = collate_fits([built[i] for i in range(len(built))])
    decoded = decoder(batch.shape_params, batch.exp_params, batch.crop_from_model)
    for name, position_map in zip(built.names, decoded, strict=True):
        written = np.load(built.directory / "maps" / f"{name}.npy")
        assert written.shape == (256, 256, 3)
        assert written.dtype == np.float32
        np.testing.assert_allclose(written, position_map.permute(1, 2, 0).numpy(), atol=1e-3)
        assert abs(written[..., 2].min()) < 1.0  # the smallest z over the mesh is 0


def test_fixed_point_maps_keep_negative_coordinates():
    position_map = np.linspace(-127.9, 383.9, 300, dtype=np.float32).reshape(10, 10, 3)
    stored = encode_map(position_map, "uint16")
    assert stored.dtype == np.uint16
    decoded = stored / 128.0
    decoded[decoded >= 384] -= 512
    np.testing.assert_allclose(decoded, position_map, atol=0.5 / 128 + 1e-5)
    positive = position_map >= 0
    np.testing.assert_allclose(
        stored[positive] / 128.0, position_map[positive], atol=0.5 / 128 + 1e-5
    )
    with pytest.raises(ValueError, match="map_dtype=float16 or float32"):
        encode_map(position_map + 1, "uint16")


def test_a_fit_that_is_none_is_listed_and_the_others_are_built(tmp_path):
    data_dir = write_tiny_data_dir(tmp_path / "data")
    folder = data_dir / "AFLW2000"
    pose = scipy.io.loadmat(folder / "image00002.mat")["Pose_Para"]
    huge, away = pose.copy(), pose.copy()
    huge[0, 6], away[0, 3] = 1e300, 1e6
    change_mat(folder / "image00002.mat", Pose_Para=huge)
    change_mat(folder / "image00004.mat", Pose_Para=away)
    data = bytearray((folder / "image00006.jpg").read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    (folder / "image00006.jpg").write_bytes(data)
    unreadable = build(data_dir, tmp_path / "set", "aflw2000")["audit"]["unreadable"]
    assert set(unreadable) == {"image00002", "image00004", "image00006"}
    assert "Pose_Para holds 1e+300" in unreadable["image00002"]
    assert "0 of 68 landmarks inside" in unreadable["image00004"]
    assert "its header says 65500 x 65500 px" in unreadable["image00006"]


def test_audit_lists_what_is_unusual_and_keeps_it(tmp_path):
    data_dir = write_tiny_data_dir(tmp_path / "data")
    folder = data_dir / "AFLW2000"
    pose = scipy.io.loadmat(folder / "image00002.mat")["Pose_Para"]
    turned = pose.copy()
    turned[0, 2] = np.radians(-250)
    change_mat(folder / "image00002.mat", Pose_Para=turned)
    change_mat(folder / "image00004.mat", Exp_Para=np.zeros((29, 1), np.uint8))
    mirrored = scipy.io.loadmat(folder / "image00006.mat")["Pose_Para"].copy()
    mirrored[0, 6] *= -1
    change_mat(folder / "image00006.mat", Pose_Para=mirrored)
    (folder / "image00008.jpg").write_bytes((folder / "image00008.jpg").read_bytes()[:2000])
    (folder / "image00010.mat").unlink()
    content = scipy.io.loadmat(folder / "image00013.mat")
    change_mat(folder / "image00013.mat", pt3d_68=content["pt3d_68"] + 90.0)

    build_json = build(data_dir, tmp_path / "set")
    audit = build_json["audit"]
    assert audit["large_angles"] == ["image00002"]
    assert audit["cast_dtypes"] == {"image00004": ["Exp_Para"]}
    assert audit["negative_scale"] == ["image00006"]
    assert set(audit["unreadable"]) == {"image00008", "image00010"}
    assert "cut short" in audit["unreadable"]["image00008"]
    assert "image00010.mat" in audit["unreadable"]["image00010"]
    assert audit["landmark_mismatch"]["image00013"] == pytest.approx(90 * 3**0.5, abs=3)
    assert set(build_json["samples"]) == {
        "image00002",
        "image00004",
        "image00006",
        "image00013",
    }
    assert len(BuiltSet(tmp_path / "set")) == 4


def test_300w_lp_names_subsets_and_refusals(tiny_data_dir, tmp_path, caplog):
    build_json = build(tiny_data_dir, tmp_path / "all", "300w_lp")
    assert len(build_json["samples"]) == 8
    assert build_json["samples"][0] == "AFW/AFW_100_1_0"
    assert "skipped" in caplog.text
    assert "HELEN_Flip" in caplog.text
    only = build(tiny_data_dir, tmp_path / "ibug", "300w_lp", subsets=["IBUG"])
    assert {name.split("/")[0] for name in only["samples"]} == {"IBUG"}
    with pytest.raises(FileNotFoundError, match="LFPW"):
        build(tiny_data_dir, tmp_path / "lfpw", "300w_lp", subsets=["LFPW"])
    with pytest.raises(ValueError, match="landmarks"):
        build(tiny_data_dir, tmp_path / "code", "300w_lp", subsets=["landmarks"])
    with pytest.raises(ValueError, match="dataset: got 'afw', expected one of 300w_lp, aflw2000"):
        build(tiny_data_dir, tmp_path / "other", "afw")


@pytest.fixture
def shards_of_two(monkeypatch):
    monkeypatch.setattr(packing, "SHARD_SIZE", 2)


def test_build_is_deterministic_and_resumes(tiny_data_dir, tmp_path, monkeypatch, shards_of_two):
    """Stopped between two parts and run again, a build gives the bytes of an uninterrupted one."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    build(tiny_data_dir, whole)
    write_json, written = packing.write_json, []

    def fail_on_second(path, content):
        if path.parent.name == "parts":
            written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_json(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_json", fail_on_second)
        with pytest.raises(KeyboardInterrupt):
            build(tiny_data_dir, cut)
    with pytest.raises(FileNotFoundError, match="unfinished build"):
        BuiltSet(cut)
    finished = (cut / "parts" / "0.json").stat().st_mtime_ns
    time.sleep(0.01)
    build(tiny_data_dir, cut)
    assert_same_files(whole, cut)
    assert finished < (cut / "pictures" / "1.bin").stat().st_mtime_ns
    assert (cut / "pictures" / "0.bin").stat().st_mtime_ns <= finished


def test_killed_build_finishes(tiny_data_dir, tmp_path, shards_of_two):
    """A real SIGKILL in the middle of the work, then the same command again."""
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from prnet.building import archives, packing
        packing.SHARD_SIZE = 2
        write_json = packing.write_json
        def kill_on_third(path, content):
            if path.name == "2.json":
                os.kill(os.getpid(), signal.SIGKILL)
            write_json(path, content)
        packing.write_json = kill_on_third
        archives.build_archive(
            None, data_dir=Path({str(tiny_data_dir)!r}), output=Path({str(tmp_path / "set")!r}),
            face_files=archives.FaceFiles("bfm", {str(tiny_data_dir / "BFM")!r}, None),
            options=archives.BuildOptions("aflw2000"), workers=0)
        """
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=os.environ | {"PYTHONPATH": "."}
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "set" / "build.json").exists()
    assert build(tiny_data_dir, tmp_path / "set")["count"] == 6
    assert len(BuiltSet(tmp_path / "set")) == 6


def test_other_options_or_folders_are_refused(built, tiny_data_dir, tmp_path):
    with pytest.raises(
        ValueError,
        match="options.pixel_origin is zero_based there and face3d here",
    ):
        build(tiny_data_dir, built.directory, pixel_origin="face3d")
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not empty"):
        build(tiny_data_dir, tmp_path)
    with pytest.raises(FileNotFoundError, match="prnet.build"):
        BuiltSet(tmp_path)
    with pytest.raises(ValueError, match="pixel origin"):
        build(tiny_data_dir, tmp_path / "new", pixel_origin="corner")


@pytest.mark.parametrize("name", ["build.json", "format.json"])
def test_a_damaged_set_is_named(name, built, tmp_path):
    shutil.copytree(built.directory, tmp_path / "built")
    text = (built.directory / name).read_text()
    (tmp_path / "built" / name).write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=rf"{name}: not readable as JSON"):
        BuiltSet(tmp_path / "built")


def test_set_knows_its_face(built, face):
    built.require_face(face.describe())
    for change in ({"shape_bases": 199}, {"fingerprint": "0" * 12}):
        with pytest.raises(ValueError, match="built with a face"):
            built.require_face(face.describe() | change)


def test_a_set_is_never_half_of_one_face_and_half_of_another(
    tiny_data_dir, tmp_path, monkeypatch, shards_of_two
):
    """A build that is killed, and gone on with after the BFM's files were replaced by others of the
    same sizes."""
    data_dir, output = tmp_path / "data", tmp_path / "set"
    shutil.copytree(tiny_data_dir, data_dir)
    monkeypatch.setattr(packing, "_join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(data_dir, output)
    files = bfm_files(tiny_face())
    files["BFM.mat"]["model"]["shapePC"] = files["BFM.mat"]["model"]["shapePC"][:, ::-1]
    write_bfm_files(data_dir / "BFM", files)
    with pytest.raises(ValueError, match=r"face\.fingerprint is \w{12} there and \w{12} here"):
        build(data_dir, output)


def interrupted(*_arguments):
    raise KeyboardInterrupt


def assert_same_files(first, second):
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_a_failing_disk_stops_the_build_which_then_goes_on(
    built, tiny_data_dir, tmp_path, shards_of_two
):
    """Reading this process's memory from its start is an input/output error."""
    data_dir = shutil.copytree(tiny_data_dir, tmp_path / "data")
    picture = data_dir / "AFLW2000" / "image00008.jpg"
    data = picture.read_bytes()
    picture.unlink()
    picture.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=r"image00008: cannot be read .*then run the same command"):
        build(data_dir, tmp_path / "set")
    assert not (tmp_path / "set" / "build.json").exists()
    picture.unlink()
    picture.write_bytes(data)
    build(data_dir, tmp_path / "set")
    build(data_dir, tmp_path / "fresh")
    assert_same_files(tmp_path / "fresh", tmp_path / "set")


def test_what_vanished_is_not_what_never_was(tiny_data_dir, tmp_path):
    """A picture without a fit is listed; a pair that was found and is gone ends the build."""
    data_dir = shutil.copytree(tiny_data_dir, tmp_path / "data")
    pair = find_aflw2000(data_dir)[0]
    pair.picture.unlink()
    with pytest.raises(FileNotFoundError, match=r"no picture image00002\.jpg beside the fit"):
        pair.read_picture()
    pair.fit.unlink()
    with pytest.raises(OSError, match="gone since it was found") as gone:
        pair.read_picture()
    assert not isinstance(gone.value, FileNotFoundError)


def test_what_was_left_out_is_tried_again(tiny_data_dir, tmp_path, shards_of_two):
    """Mended, it takes its place: the set is then the one that a new build makes."""
    data_dir, output = shutil.copytree(tiny_data_dir, tmp_path / "data"), tmp_path / "set"
    folder = data_dir / "AFLW2000"
    data = {name: (folder / name).read_bytes() for name in ("image00004.jpg", "image00010.mat")}
    for name in data:
        (folder / name).write_bytes(b"torn")
    assert set(build(data_dir, output)["audit"]["unreadable"]) == {"image00004", "image00010"}
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    build(data_dir, output)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for name in data:
        (folder / name).write_bytes(data[name])
    assert build(data_dir, output)["count"] == 6
    build(data_dir, tmp_path / "fresh")
    assert_same_files(tmp_path / "fresh", output)


def test_a_large_share_left_out_is_an_error(tiny_data_dir, tmp_path):
    data_dir = shutil.copytree(tiny_data_dir, tmp_path / "data")
    for name in ("image00002", "image00006", "image00010", "image00013"):
        (data_dir / "AFLW2000" / f"{name}.jpg").write_bytes(b"torn")
    with pytest.raises(ValueError, match="4 of 6 cannot be used and are left out"):
        build(data_dir, tmp_path / "set")
    assert len(BuiltSet(tmp_path / "set")) == 2


def test_a_picture_too_small_for_a_face_is_left_out(tiny_data_dir, tmp_path):
    data_dir = shutil.copytree(tiny_data_dir, tmp_path / "data")
    write_picture(data_dir / "AFLW2000" / "image00006.jpg", np.zeros((1, 1, 3), np.uint8))
    unreadable = build(data_dir, tmp_path / "set")["audit"]["unreadable"]
    assert list(unreadable) == ["image00006"]
    assert "the picture has 1 x 1 px, expected 8 at least a side" in unreadable["image00006"]


def test_damage_to_a_built_set_is_found(built, tmp_path):
    folder = shutil.copytree(built.directory, tmp_path / "set")
    shard, records = folder / "pictures" / "0.bin", folder / "records.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    expected = rf"1: pictures/0\.bin has {len(whole) - 1} of {len(whole)} bytes; copy the set"
    with pytest.raises(ValueError, match=expected):
        BuiltSet(folder)
    shard.write_bytes(flipped(whole, 100))
    with pytest.raises(ValueError, match=r"0\.bin: the picture at byte 0 does not match its check"):
        BuiltSet(folder)[0]
    assert BuiltSet(folder)[1].picture.shape == built[1].picture.shape
    records.write_bytes(flipped(records.read_bytes(), -5))
    with pytest.raises(ValueError, match=r"records\.npy does not match its checksum"):
        BuiltSet(folder)


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 16
    return bytes(changed)


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path):
    folder = tmp_path / "data" / "AFLW2000"
    folder.mkdir(parents=True)
    (folder / "image00002.jpg").write_bytes(b"not a picture")
    write_tiny_bfm(tmp_path / "data" / "BFM")
    with pytest.raises(ValueError, match=r"not one sample.*image00002"):
        build(tmp_path / "data", tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("AFW/AFW_1051618982_1_0", "AFW_1051618982"),
        ("AFW_Flip/AFW_1051618982_1_12", "AFW_1051618982"),
        ("HELEN/HELEN_100032540_2_5", "HELEN_100032540"),
        ("IBUG/IBUG_image_008_1_0", "IBUG_image_008"),
        ("LFPW/LFPW_image_train_0001_3", "LFPW_image_train_0001"),
        ("mine/photo_17", "photo_17"),
        ("image04379", "image04379"),
        ("ALL/AFW_1_0", "AFW_1"),
        ("ALL/AFW_1_0_flip", "AFW_1"),
        ("ALL/AFW_1051618982_1_0_Flip", "AFW_1051618982"),
        ("AFLW/image20991_1", "image20991"),
        ("AFLW/image20991_2_mirror", "image20991"),
        ("mine/photo_17_flip", "photo_17"),
        ("mine/flip", "flip"),
    ],
)
def test_source_photo(name, photo):
    assert source_photo(name) == photo


def test_held_out_keeps_poses_of_a_photo_together():
    names = [f"{flip}/AFW_{photo}_1_{pose}" for flip in ("AFW", "AFW_Flip") for photo in range(500)
             for pose in range(3)]  # fmt: skip
    mask = held_out(names, 0.2)
    by_photo = {}
    for name, out in zip(names, mask, strict=True):
        by_photo.setdefault(source_photo(name), set()).add(bool(out))
    assert all(len(sides) == 1 for sides in by_photo.values())
    assert 0.15 < mask.mean() < 0.25
    assert not held_out(names, 0.0).any()
    # The other hash keeps them together too, and knows nothing of this one.
    ranks = photo_ranks(names)
    by_photo = dict(zip(map(source_photo, names), ranks, strict=True))
    assert ranks.tolist() == [by_photo[source_photo(name)] for name in names]
    assert abs(ranks[mask].mean() - ranks[~mask].mean()) < 0.1
    assert (ranks < 0.3).mean() == pytest.approx(0.3, abs=0.07)


def test_jitter_is_a_share_of_the_landmarks_box():
    """Of its mean side for the centre, of the crop for its size; drawn from the name alone."""
    points = np.array([[100.0, 50.0], [140.0, 150.0]])  # mean side 70
    rule = CropRule(scale=1.5, jitter=0.1)
    squares = [crop_square(points, rule, seed_name=f"i{k}") for k in range(1000)]
    shifts = (np.stack([center for center, _ in squares]) - [120, 100]) / 70
    growth = np.array([size for _, size in squares]) / 105 - 1
    for moved in (*shifts.T, growth):
        assert -0.1 <= moved.min() < -0.099
        assert 0.099 < moved.max() <= 0.1
    assert crop_square(points, rule, seed_name="i7")[1] == squares[7][1]
    center, size = crop_square(points, CropRule(), seed_name="i7")
    assert (*center, size) == (120, 100, 105)


def test_crops_of_whole_px_are_face3ds(tiny_data_dir, tmp_path):
    """Landmarks lose what is behind the point, toward 0, then the size does; jitter comes after.
    A set keeps the rule, and one of before, which does not name it, is read as it was."""
    points = np.array([[100.9, -50.9], [141.2, 150.3]])
    rule = CropRule(whole_px=True)
    center, size = crop_square(points, rule, seed_name="i7")
    assert (*center, size) == (120.5, 50, 180)  # 41 by 200, 1.5 * 120.5 = 180.75
    moved, grown = crop_square(points, rule._replace(jitter=0.1), seed_name="i7")
    assert np.abs(moved - center).max() <= 0.1 * 120.5
    assert grown != int(grown)

    whole, plain = tmp_path / "whole", tmp_path / "plain"
    build(tiny_data_dir, whole, crop=rule, pixel_origin="face3d")
    build(tiny_data_dir, plain, pixel_origin="face3d")
    assert "whole_px" not in json.loads((plain / "format.json").read_text())["crop"]
    assert [BuiltSet(one).crop_rule for one in (plain, whole)] == [CropRule(), rule]
    assert (BuiltSet(whole).records["crop_size"] % 1 == 0).all()
    assert (2 * BuiltSet(whole).records["crop_center"] % 1 == 0).all()
    away = BuiltSet(whole).records["crop_center"] - BuiltSet(plain).records["crop_center"]
    assert (away <= 0).all()
    assert (away > -1).all()
    with pytest.raises(ValueError, match="planned otherwise: options.crop"):
        build(tiny_data_dir, plain, crop=rule, pixel_origin="face3d")


def test_reduced_pictures_keep_their_place():
    """Averaging k x k pixels and reading at that place sees the same ramp."""
    ramp = np.arange(64, dtype=np.float64)
    for step in (1, 2, 4, 8):
        reduced = ramp.reshape(-1, step).mean(1)
        at = image_from_picture(step).inverse() @ torch.tensor([29.0, 0, 0, 1]).double()
        assert np.interp(at[0], np.arange(len(reduced)), reduced) == pytest.approx(29.0)
    assert [reduction_for(size) for size in (100, 511, 512, 1500, 9000)] == [1, 1, 2, 4, 8]


def test_sampler_covers_an_epoch_and_resumes_anywhere(built, tmp_path, tiny_data_dir, face):
    other = tmp_path / "lp"
    build(tiny_data_dir, other, "300w_lp")
    sets = TrainingSets([built.directory, other], validation_fraction=0.0, face=face.describe())
    sampler = StepSampler(sets, batch_size=3, seed=5)
    steps = iter(sampler)
    first = [next(steps) for _ in range(9)]
    assert sampler.steps_per_epoch == 4
    assert len({i for batch in first[:4] for i in batch}) == 12
    # Another epoch has another order.
    assert sets.order(5, 0).tolist() != sets.order(5, 1).tolist()
    assert sets.order(5, 1).tolist() == sets.order(5, 1).tolist()
    later = iter(StepSampler(sets, batch_size=3, seed=5, start=6))
    assert [next(later) for _ in range(3)] == first[6:]
    assert [next(iter(StepSampler(sets, batch_size=3, seed=6)))] != first[:1]

    # Two processes share each global batch without overlap.
    ranks = [iter(StepSampler(sets, batch_size=3, seed=5, rank=r, world_size=2)) for r in range(2)]
    shares = [next(rank) for rank in ranks]
    assert not set(shares[0]) & set(shares[1])
    assert sorted(shares[0] + shares[1]) == sorted(sets.order(5, 0)[:6].tolist())

    weighted = TrainingSets(
        [built.directory, other], ratios=[1, 3], validation_fraction=0.0, face=face.describe()
    )
    drawn = weighted.order(0, 0)
    assert len(weighted) == len(drawn) == 14
    assert (drawn < 6).sum() == round(14 / 4)
    with pytest.raises(ValueError, match="do not fill one batch"):
        StepSampler(sets, batch_size=15, seed=0)
    with pytest.raises(ValueError, match="built_ratios"):
        TrainingSets([built.directory], ratios=[1, 2], face=face.describe())


def test_pixel_origin_moves_the_labels_not_the_picture(tiny_data_dir, tmp_path, built):
    """face3d's labels lie one pixel right of and one above the 0-based ones; the crop follows
    them."""
    build(tiny_data_dir, tmp_path / "f", pixel_origin="face3d")
    legacy = BuiltSet(tmp_path / "f")
    difference = legacy.record(0).image_from_model() - built.record(0).image_from_model()
    np.testing.assert_allclose(difference[:3, 3], [1.0, -1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(
        legacy.records["crop_center"] - built.records["crop_center"],
        np.tile([1.0, -1.0], (6, 1)),
        atol=1e-6,
    )
    assert built.records["image_size"][0, 0] == HEIGHT


def test_build_command(tiny_data_dir, tmp_path):
    """The documented command, its files and its refusals, from another folder."""
    commands = [
        ["dataset=300w_lp", "dataset.subsets=[IBUG]", "maps=true", "map_dtype=float16"],
        ["dataset=300w_lp", "dataset.subsets=[LFPW]", "output=other"],
        ["dataset=aflw"],
        ["dataset=afw"],
    ]
    commands = [["prnet.build", f"data_dir={tiny_data_dir}", *arguments] for arguments in commands]
    done, refused, unbuilt, unknown = run_commands(*commands, cwd=tmp_path)
    assert done.endswith("exit 0"), done
    output = tmp_path / "data" / "built" / "300w_lp"
    built = BuiltSet(output)
    assert len(built) == 2
    maps = [np.load(output / "maps" / f"{name}.npy") for name in built.names]
    assert all(m.shape == (256, 256, 3) and m.dtype == np.float16 for m in maps)
    sheet = decode_picture((output / "contact_sheet.png").read_bytes(), source="the sheet")
    assert sheet.shape == (256, 8 * 256, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]

    assert "LFPW" in refused
    assert "dataset: got 'aflw', expected one of 300w_lp, aflw2000" in unbuilt
    assert "300w_lp" in unknown
    for output in (refused, unbuilt, unknown):
        assert output.endswith("exit 1"), output
        assert "Traceback" not in output


def test_loader_processes_are_sent_a_path_not_the_records(built):
    """The pickle of a set does not grow with it, and opens the same samples."""
    sent = pickle.dumps(built)
    assert len(sent) < 1000
    again = pickle.loads(sent)  # noqa: S301
    for field, other in zip(built[2], again[2], strict=True):
        assert np.array_equal(np.asarray(field), np.asarray(other))
