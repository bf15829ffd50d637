"""Turned faces: the fit's geometry, the picture, and the set that is written."""

import concurrent.futures
import json
import math
import shutil

import cv2
import numpy as np
import pytest
import scipy.io
import torch

from prnet.building.turned_faces import ExtraRule, build_extra, plan_turns
from prnet.building.turning import head_pose, require_turnable, turn_fit, turn_photo
from prnet.datasets.fits import (
    decode_vertices,
    find_300w_lp,
    fit_matrix,
    read_fit,
)
from prnet.datasets.pictures import decode_picture
from prnet.faces.loading import FaceFiles, load_face
from prnet.geometry import camera
from prnet.sample import Fit
from tests.tiny import project, tiny_face, tiny_rotation

SIZE = 128


@pytest.fixture(scope="module")
def head():
    return load_face("embedded")


def make_fit(face, yaw_deg, *, pitch_deg=0.0, roll_deg=0.0, side=70.0, center=(64.0, 64.0)) -> Fit:
    """A fit whose landmarks' box has that mean side and centre, px."""
    model = face.morphable_model
    random = np.random.default_rng(0)
    fit = Fit(
        shape_params=random.normal(0, 0.3, model.num_shape),
        exp_params=np.zeros(model.num_exp),
        angles=np.radians([pitch_deg, yaw_deg, roll_deg]),
        translation=np.zeros(3),
        scale=1.0,
    )
    box_center, box_side = camera.box_from_points(landmarks_of(fit, face))
    fit = fit._replace(scale=side / float(box_side))
    shift = np.array(center) - camera.box_from_points(landmarks_of(fit, face))[0].numpy()
    return fit._replace(translation=np.array([shift[0], -shift[1], 0]))


def landmarks_of(fit, face):
    vertices = decode_vertices(face.morphable_model, fit)[face.landmark_index].double()
    return camera.transform_points(fit_matrix(fit, SIZE), vertices)


def rotation_of(fit):
    return tiny_rotation(*fit.angles)


def smooth_photo() -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    channels = [np.sin(5 * rows + k) * np.cos(4 * columns - k) for k in range(3)]
    return np.rint(127 + 100 * np.stack(channels, -1)).astype(np.uint8)


def noise_photo() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def dotted_photo(point) -> np.ndarray:
    """Grey, with a white dot of 4 px at the point, image px."""
    photo = np.full((SIZE, SIZE, 3), 60, np.uint8)
    x, y = round(16 * float(point[0])), round(16 * float(point[1]))
    return cv2.circle(photo, (x, y), 32, (255, 255, 255), -1, cv2.LINE_AA, 4)


class TestFit:
    @pytest.mark.parametrize("yaw_deg", [-100.0, -40.0, 0.0, 65.0, 89.0])
    def test_head_pose_states_the_rotation(self, head, yaw_deg):
        """R = Rz(roll) Rx(pitch) Ry(yaw), from the elementary matrices."""
        fit = make_fit(head, yaw_deg, pitch_deg=14, roll_deg=-23)
        yaw, pitch, roll = head_pose(fit)
        stated = tiny_rotation(0, 0, roll) @ tiny_rotation(pitch, 0, 0) @ tiny_rotation(0, yaw, 0)
        np.testing.assert_allclose(stated, rotation_of(fit), atol=1e-12)

    def test_yaw_of_an_upright_head_is_the_fit_s_own(self, head):
        assert math.degrees(head_pose(make_fit(head, -37.0)).yaw) == pytest.approx(-37)

    @pytest.mark.parametrize("turn_deg", [-50.0, 20.0, 35.0])
    def test_turn_is_about_the_axis_of_the_model(self, head, turn_deg):
        fit = make_fit(head, 70.0, pitch_deg=8, roll_deg=12)
        turned = turn_fit(fit, head, math.radians(turn_deg), height=SIZE, width=SIZE)
        expected = rotation_of(fit) @ tiny_rotation(0, math.radians(turn_deg), 0)
        np.testing.assert_allclose(rotation_of(turned), expected, atol=1e-12)
        assert math.degrees(head_pose(turned).yaw - head_pose(fit).yaw) == pytest.approx(turn_deg)
        assert turned.scale == fit.scale
        np.testing.assert_array_equal(turned.shape_params, fit.shape_params)
        np.testing.assert_array_equal(turned.exp_params, fit.exp_params)

    def test_angles_pass_profile_without_standing_on_the_head(self, head):
        fit = make_fit(head, 80.0)
        turned = turn_fit(fit, head, math.radians(20), height=SIZE, width=SIZE)
        np.testing.assert_allclose(np.degrees(turned.angles), [0, 100, 0], atol=1e-9)

    def test_middle_of_the_head_stays(self, head):
        fit = make_fit(head, 10.0, pitch_deg=5)
        turned = turn_fit(fit, head, math.radians(40), height=SIZE, width=SIZE)
        middle = decode_vertices(head.morphable_model, fit).double().mean(0, keepdim=True)
        before, after = (
            camera.transform_points(fit_matrix(f, SIZE), middle) for f in (fit, turned)
        )
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)

    def test_there_and_back_is_the_first_fit(self, head):
        fit = make_fit(head, 15.0, pitch_deg=-10, roll_deg=6, side=60)
        turn = math.radians(45)
        away = turn_fit(fit, head, turn, height=SIZE, width=SIZE)
        assert np.abs(away.angles - fit.angles).max() > 0.5
        back = turn_fit(away, head, -turn, height=SIZE, width=SIZE)
        np.testing.assert_allclose(back.angles, fit.angles, atol=1e-9)
        np.testing.assert_allclose(back.translation, fit.translation, atol=1e-6)

    @pytest.mark.parametrize("roll_deg", [0.0, 90.0, 180.0, 270.0])
    def test_face_at_the_border_is_brought_back(self, head, roll_deg):
        """A cheek that would leave the picture on its left, top, right or bottom."""
        roll = tiny_rotation(0, 0, math.radians(roll_deg))
        rotation = torch.from_numpy(roll @ tiny_rotation(0, math.radians(60), 0))
        angles = np.degrees(camera.angles_from_rotation(rotation).numpy())
        x, y, _ = roll @ [-28, 0, 0]
        fit = make_fit(
            head, angles[1], pitch_deg=angles[0], roll_deg=angles[2], center=(63.5 + x, 63.5 - y)
        )
        before = landmarks_of(fit, head)[:, :2]
        margin = min(float(before.min()), float(SIZE - 1 - before.max()))
        assert 0 < margin < 5
        turned = turn_fit(fit, head, math.radians(-60), height=SIZE, width=SIZE)
        after = landmarks_of(turned, head)[:, :2]
        margin = min(float(after.min()), float(SIZE - 1 - after.max()))
        assert margin == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"scale": -1e-3}, "mirrored"),
            ({"angles": np.radians([85.0, 0, 0])}, "85 degrees from above or below"),
        ],
    )
    def test_degenerate_fits_are_refused(self, head, change, message):
        fit = make_fit(head, 0.0)._replace(**change)
        with pytest.raises(ValueError, match=message):
            require_turnable(fit, landmarks_of(make_fit(head, 0.0), head).numpy(), SIZE, SIZE)

    @pytest.mark.parametrize(
        ("placed", "message"),
        [({"side": 10.0}, "spans 10 px"), ({"center": (-9.0, 64.0)}, r"centre \(-9, 64\) px")],
    )
    def test_faces_that_are_not_there_are_refused(self, head, placed, message):
        fit = make_fit(head, 0.0, **placed)
        with pytest.raises(ValueError, match=message):
            require_turnable(fit, landmarks_of(fit, head).numpy(), SIZE, SIZE)

    def test_ordinary_fit_is_accepted(self, head):
        fit = make_fit(head, 50.0)
        require_turnable(fit, landmarks_of(fit, head).numpy(), SIZE, SIZE)


class TestPhoto:
    def test_head_outside_of_the_photo_is_refused(self, head):
        fit = make_fit(head, 0.0, center=(-400.0, 64.0))
        with pytest.raises(ValueError, match="outside of the photo"):
            turn_photo(smooth_photo(), fit, fit, head)

    @pytest.mark.parametrize("yaw_deg", [0.0, -55.0])
    def test_no_turn_gives_the_photo_back(self, head, yaw_deg):
        photo = noise_photo()
        photo.setflags(write=False)
        fit = make_fit(head, yaw_deg, pitch_deg=5, roll_deg=-8)
        drawn = turn_photo(photo, fit, fit, head)
        assert drawn.dtype == np.uint8
        assert drawn.shape == photo.shape
        # Along the outline, some 300 px long, the two layers are blended.
        same = (np.abs(drawn.astype(int) - photo) <= 2).all(-1)
        assert same.mean() > 0.96

    def test_no_turn_gives_a_smooth_photo_back_everywhere(self, head):
        photo = smooth_photo()
        drawn = turn_photo(photo, *[make_fit(head, 20.0)] * 2, head)
        assert np.abs(drawn.astype(int) - photo).max() <= 2

    def test_marks_on_the_skin_turn_with_the_fit(self, head):
        """A dot painted on a vertex is found where the new fit projects that vertex."""
        fit = make_fit(head, -10.0)
        turned = turn_fit(fit, head, math.radians(-25), height=SIZE, width=SIZE)
        for landmark in (28, 30, 33, 57, 8):
            x, y = landmarks_of(fit, head)[landmark, :2].tolist()
            photo = dotted_photo((x, y))
            drawn = turn_photo(photo, fit, turned, head).astype(float)[..., 0] - 60
            rows, columns = np.mgrid[:SIZE, :SIZE]
            drawn *= drawn > 20
            found = [(drawn * columns).sum() / drawn.sum(), (drawn * rows).sum() / drawn.sum()]
            expected = landmarks_of(turned, head)[landmark, :2].numpy()
            assert np.linalg.norm(np.array(found) - expected) < 1.5
            assert np.linalg.norm([x, y] - expected) > 2

    @pytest.mark.parametrize("turn_deg", [-60, 40, 95])
    def test_no_hole_and_the_border_stays(self, head, turn_deg):
        """A photo without black, and a black hole would show."""
        photo = np.maximum(smooth_photo(), 60)
        fit = make_fit(head, 5.0, side=56)
        turned = turn_fit(fit, head, math.radians(turn_deg), height=SIZE, width=SIZE)
        drawn = turn_photo(photo, fit, turned, head)
        assert drawn.min() >= 45
        border = np.ones((SIZE, SIZE), bool)
        border[1:-1, 1:-1] = False
        np.testing.assert_allclose(drawn[border].astype(int), photo[border], atol=2)
        assert np.abs(drawn.astype(int) - photo).max() > 30

    def test_hidden_side_takes_the_colours_of_the_other(self, head):
        """A dot beside the near eye of a profile turned back is beside the far eye as well."""
        fit = make_fit(head, 65.0)
        turned = turn_fit(fit, head, math.radians(-65), height=SIZE, width=SIZE)
        drawn = turn_photo(dotted_photo(landmarks_of(fit, head)[45]), fit, turned, head)
        far, near = landmarks_of(turned, head)[[36, 45], :2].round().int().tolist()
        assert near[0] - far[0] > 20
        for x, y in (near, far):
            assert drawn[y - 1 : y + 2, x - 1 : x + 2].max() > 140

    def test_what_hides_a_cheek_is_not_painted_on_it(self, head):
        """The nose over the far cheek of a turned face leaves no second nose there."""
        fit = make_fit(head, 55.0)
        turned = turn_fit(fit, head, math.radians(-55), height=SIZE, width=SIZE)
        one_sided = head._replace(mirror_index=None)
        drawn = turn_photo(dotted_photo(landmarks_of(fit, head)[30]), fit, turned, one_sided)
        rows, columns = np.nonzero(drawn[..., 0] > 140)
        x, y = landmarks_of(turned, head)[30, :2].tolist()
        assert len(rows) > 5
        assert np.hypot(columns - x, rows - y).max() < 6


def files_of(tiny_data_dir):
    return FaceFiles("bfm", bfm_dir=str(tiny_data_dir / "BFM"))


def rule_of(**values) -> ExtraRule:
    return ExtraRule(**{"yaw_deg": None, "increments_deg": (20,), "count": None} | values)


class TestBuild:
    def test_writes_what_the_archive_s_reader_reads(self, tiny_data_dir, tmp_path):
        """Every sample: the source's coefficients, its rotation turned, landmarks projected."""
        pairs = find_300w_lp(tiny_data_dir)
        listing = build_extra(
            pairs, tmp_path, rule_of(increments_deg=(15, 30)), files_of(tiny_data_dir)
        )
        written = find_300w_lp(tmp_path, ["Extra"])
        assert {pair.name.removeprefix("Extra/") for pair in written} == set(listing["samples"])
        assert len(written) == 2 * len(pairs)
        assert listing["unreadable"] == {}
        assert json.loads((tmp_path / "extra.json").read_text()) == listing
        sources = {pair.name: pair for pair in pairs}
        for pair in written:
            entry = listing["samples"][pair.name.removeprefix("Extra/")]
            source = read_fit(sources[entry["source"]].fit).fit
            file = read_fit(pair.fit)
            np.testing.assert_array_equal(file.fit.shape_params, source.shape_params)
            np.testing.assert_array_equal(file.fit.exp_params, source.exp_params)
            turn = tiny_rotation(0, math.radians(entry["turn_deg"]), 0)
            np.testing.assert_allclose(rotation_of(file.fit), rotation_of(source) @ turn, atol=1e-4)
            assert abs(entry["turn_deg"]) in (15, 30)
            picture = decode_picture(pair.picture.read_bytes(), source=pair.name)
            pose = [*file.fit.angles, *file.fit.translation, file.fit.scale]
            vertices = tiny_face().vertices(file.fit.shape_params, file.fit.exp_params)
            points = project(vertices[:68], np.array(pose))[:, :2]
            expected = points * [1, -1] + [0, picture.shape[0] + 1]
            np.testing.assert_allclose(file.landmarks_2d, expected, atol=1e-2)

    def test_increment_0_gives_the_source_back(self, tiny_data_dir, tmp_path):
        pairs = find_300w_lp(tiny_data_dir)
        listing = build_extra(
            pairs[:1], tmp_path, rule_of(increments_deg=(0,)), files_of(tiny_data_dir)
        )
        (name,) = listing["samples"]
        assert name == "AFW_AFW_100_1_0_yaw3"
        source = read_fit(pairs[0].fit).fit
        fit = read_fit(tmp_path / "300W_LP" / "Extra" / f"{name}.mat").fit
        for values, expected in zip(fit, source, strict=True):
            np.testing.assert_allclose(values, expected, atol=1e-9)
        photo, drawn = (
            cv2.imread(str(path)).astype(float)
            for path in (pairs[0].picture, tmp_path / "300W_LP" / "Extra" / f"{name}.jpg")
        )
        assert np.abs(photo - drawn).mean() < 2  # JPEG once more

    def test_resumes(self, tiny_data_dir, tmp_path):
        """What is there stays as it is, what is missing is made again and alike."""
        pairs = find_300w_lp(tiny_data_dir)
        first = build_extra(pairs[:3], tmp_path, rule_of(), files_of(tiny_data_dir))
        folder = tmp_path / "300W_LP" / "Extra"
        content = {path.name: path.read_bytes() for path in folder.glob("*.jpg")}
        kept, lost, _ = sorted(first["samples"])
        (folder / f"{kept}.jpg").write_bytes(b"not touched")
        (folder / f"{lost}.mat").unlink()
        (folder / f"{lost}.jpg").unlink()
        (tmp_path / "extra.json").unlink()
        again = build_extra(pairs[:3], tmp_path, rule_of(), files_of(tiny_data_dir))
        assert again == first
        assert (folder / f"{kept}.jpg").read_bytes() == b"not touched"
        assert (folder / f"{lost}.jpg").read_bytes() == content[f"{lost}.jpg"]
        assert (folder / f"{lost}.mat").is_file()

    def test_another_rule_adds(self, tiny_data_dir, tmp_path):
        pairs = find_300w_lp(tiny_data_dir)
        files = files_of(tiny_data_dir)
        first = build_extra(pairs[:2], tmp_path, rule_of(), files)
        both = build_extra(pairs[:2], tmp_path, rule_of(increments_deg=(-10,)), files)
        assert first["samples"].items() < both["samples"].items()
        assert len(both["samples"]) == 4

    def test_bad_pairs_are_listed_by_name(self, tiny_data_dir, tmp_path):
        data_dir = tmp_path / "data"
        shutil.copytree(tiny_data_dir / "300W_LP" / "AFW", data_dir / "300W_LP" / "AFW")
        folder = data_dir / "300W_LP" / "AFW"
        names = sorted(path.stem for path in folder.glob("*.mat"))
        (folder / f"{names[0]}.mat").write_bytes(b"no fit")
        (folder / f"{names[1]}.jpg").unlink()
        content = scipy.io.loadmat(folder / f"{names[2]}.mat")
        content["Pose_Para"][0, 6] *= -1
        fields = {key: value for key, value in content.items() if not key.startswith("__")}
        scipy.io.savemat(folder / f"{names[2]}.mat", fields)
        pairs = find_300w_lp(data_dir)
        listing = build_extra(pairs, tmp_path / "out", rule_of(), files_of(tiny_data_dir))
        reasons = listing["unreadable"]
        assert set(reasons) == {f"AFW/{name}" for name in names[:3]}
        assert "not a readable MATLAB file" in reasons[f"AFW/{names[0]}"]
        assert f"no picture {names[1]}.jpg" in reasons[f"AFW/{names[1]}"]
        assert "mirrored" in reasons[f"AFW/{names[2]}"]
        assert {one["source"] for one in listing["samples"].values()} == {
            f"AFW/{name}" for name in names[3:]
        }
        # Mended, a pair is made and its reason goes.
        shutil.copy(tiny_data_dir / "300W_LP" / "AFW" / f"{names[1]}.jpg", folder)
        listing = build_extra(pairs, tmp_path / "out", rule_of(), files_of(tiny_data_dir))
        assert set(listing["unreadable"]) == {f"AFW/{name}" for name in (names[0], names[2])}

    def test_nothing_made_is_an_error(self, tiny_data_dir, tmp_path):
        pairs = find_300w_lp(tiny_data_dir, ["IBUG"])
        rule = ExtraRule(yaw_deg=(90, 105), max_turn_deg=5)
        with pytest.raises(ValueError, match="not one of 2 faces .* larger max_turn_deg"):
            build_extra(pairs, tmp_path, rule, files_of(tiny_data_dir))

    def test_processes_write_the_same(self, tiny_data_dir, tmp_path, monkeypatch):
        """The pool's two functions, run by one that starts no process."""

        class Pool(concurrent.futures.ThreadPoolExecutor):
            def __init__(self, workers, *, mp_context, initializer, initargs):
                assert mp_context.get_start_method() == "spawn"
                super().__init__(workers, initializer=initializer, initargs=initargs)

        pairs = find_300w_lp(tiny_data_dir)
        files = files_of(tiny_data_dir)
        monkeypatch.setattr("prnet.building.turned_faces.PIECE_SIZE", 1)
        monkeypatch.setattr("prnet.building.resumable.POOL_FROM", 0)
        monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", Pool)
        alone = build_extra(pairs[:5], tmp_path / "alone", rule_of(), files)
        shared = build_extra(pairs[:5], tmp_path / "shared", rule_of(), files, workers=2)
        assert shared == alone
        for path in (tmp_path / "alone").rglob("*.jpg"):
            other = tmp_path / "shared" / path.relative_to(tmp_path / "alone")
            assert other.read_bytes() == path.read_bytes()


class TestRule:
    def test_targets_lie_in_the_range_on_the_same_side(self, tiny_data_dir):
        pairs = find_300w_lp(tiny_data_dir)
        turns, unreadable = plan_turns(
            pairs, ExtraRule(yaw_deg=(90, 105), max_turn_deg=60, count=30)
        )
        assert len(turns) == 30
        assert unreadable == {}
        assert len({turn.name for turn in turns}) == 30
        yaws = [turn.yaw_deg + turn.turn_deg for turn in turns]
        assert {turn.yaw_deg > 0 for turn in turns} == {True, False}
        for turn, yaw in zip(turns, yaws, strict=True):
            assert 90 <= round(abs(yaw), 6) <= 105
            assert yaw * turn.yaw_deg > 0
            assert abs(turn.turn_deg) <= 60
            assert turn.name.endswith(f"_yaw{round(yaw)}")

    def test_count_takes_as_many_and_a_larger_one_adds(self, tiny_data_dir):
        pairs = find_300w_lp(tiny_data_dir)
        few, more = (plan_turns(pairs, ExtraRule(max_turn_deg=60, count=n))[0] for n in (3, 12))
        assert more[:3] == few
        assert len(more) == 12

    def test_without_a_count_every_face_comes_once(self, tiny_data_dir):
        pairs = find_300w_lp(tiny_data_dir)
        turns, _ = plan_turns(pairs, ExtraRule(yaw_deg=(0, 60), max_turn_deg=120, count=None))
        assert sorted(turn.pair.name for turn in turns) == [pair.name for pair in pairs]

    def test_seed_decides(self, tiny_data_dir):
        pairs = find_300w_lp(tiny_data_dir)
        rule = ExtraRule(max_turn_deg=60, count=5)
        names = [[turn.name for turn in plan_turns(pairs, rule)[0]] for _ in range(2)]
        assert names[0] == names[1]
        other, _ = plan_turns(pairs, rule._replace(seed=1))
        assert [turn.name for turn in other] != names[0]

    def test_increments_go_away_from_the_camera(self, tiny_data_dir):
        pairs = find_300w_lp(tiny_data_dir)
        turns, _ = plan_turns(pairs, rule_of(increments_deg=(30, -5, 60)))
        for turn in turns:
            change = abs(turn.yaw_deg + turn.turn_deg) - abs(turn.yaw_deg)
            assert round(change, 6) in (30, -5, 60) or abs(turn.yaw_deg) < 5
            assert abs(turn.yaw_deg + turn.turn_deg) <= 120
        # Of 66 degrees, 60 more would show the back of the head.
        per_face = [turn.turn_deg for turn in turns if turn.pair.name == "AFW/AFW_200_1_1"]
        assert [round(value) for value in per_face] == [-30, 5]

    def test_the_two_of_a_flip_keep_their_names_apart(self, tiny_data_dir, tmp_path):
        for subset in ("AFW", "AFW_Flip"):
            (tmp_path / "300W_LP" / subset).mkdir(parents=True)
            for suffix in (".jpg", ".mat"):
                shutil.copy(
                    tiny_data_dir / "300W_LP" / "AFW" / f"AFW_100_1_0{suffix}",
                    tmp_path / "300W_LP" / subset,
                )
        turns, _ = plan_turns(find_300w_lp(tmp_path), rule_of())
        assert len({turn.name for turn in turns}) == 2

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"increments_deg": None}, "expected one of them"),
            ({"yaw_deg": (90, 105)}, "expected one of them"),
            ({"increments_deg": ()}, "increments_deg: got"),
            ({"increments_deg": (20, 20)}, "expected different ones"),
            ({"increments_deg": (20.5,)}, "whole degrees"),
            ({"increments_deg": None, "yaw_deg": (105, 90)}, r"\[from, to\]"),
            ({"increments_deg": None, "yaw_deg": (90, 150)}, "within 0 to 120"),
            ({"increments_deg": None, "yaw_deg": (90,)}, r"\[from, to\]"),
            ({"increments_deg": None, "yaw_deg": (90, 95), "max_turn_deg": 0}, "max_turn_deg"),
            ({"count": 0}, "count: got 0"),
        ],
    )
    def test_rules_that_make_no_sense_are_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            rule_of(**values).check()

    def test_foreign_listing_is_left_alone(self, tiny_data_dir, tmp_path):
        (tmp_path / "extra.json").write_text('{"other": 1}')
        pairs = find_300w_lp(tiny_data_dir)
        with pytest.raises(ValueError, match=r"extra\.json: holds \['other'\]"):
            build_extra(pairs, tmp_path, rule_of(), files_of(tiny_data_dir))
        assert (tmp_path / "extra.json").read_text() == '{"other": 1}'
