"""Points that are marked as hidden, points that truly lie out there, and what is no face at all."""

import numpy as np
import pytest
import torch

from prnet.datasets.hidden_landmarks import landmark_fault, require_in_picture, resolve_hidden
from prnet.datasets.landmark_files import find_landmarks
from prnet.faces.embedded import load_embedded
from prnet.geometry import camera

SIZE = 300
YAWS_DEG = (-88, -50, -20, 0, 35, 70, 86)
FAR_SIDE = {
    True: [*range(9, 17), *range(22, 27), *range(42, 48)],
    False: [*range(8), *range(17, 22)],
}


@pytest.fixture(scope="module")
def faces():
    """Yaw -> landmarks of other people's faces than the mean one, (68, 2), px, y down."""
    model = load_embedded().morphable_model
    random = torch.Generator().manual_seed(0)
    shape = torch.randn(len(YAWS_DEG), model.num_shape, generator=random)
    exp = torch.rand(len(YAWS_DEG), model.num_exp, generator=random) * 0.3
    points = model(shape, exp)[:, load_embedded().landmark_index].double()
    angles = torch.tensor([[0.2, np.radians(yaw), 0.3] for yaw in YAWS_DEG], dtype=torch.float64)
    turned = (points @ camera.rotation_from_angles(angles).transpose(1, 2))[..., :2].numpy()
    turned = turned / 1100 + [160, 150]
    turned[..., 1] = SIZE - turned[..., 1]
    return dict(zip(YAWS_DEG, turned, strict=True))


@pytest.mark.parametrize("yaw", YAWS_DEG)
def test_a_sign_is_a_mark_where_the_other_points_say_so(faces, yaw):
    points, hidden = faces[yaw], FAR_SIDE[yaw > 0]
    marked = points.copy()
    marked[hidden] *= -1
    found, marks = resolve_hidden(marked, "auto")
    np.testing.assert_array_equal(found, points)
    assert marks == (0, len(hidden))
    assert resolve_hidden(marked, "none")[0] is marked
    np.testing.assert_array_equal(resolve_hidden(marked, "negative")[0], points)


@pytest.mark.parametrize("yaw", YAWS_DEG)
@pytest.mark.parametrize("mark", [-1.0, 0.0])
def test_minus_ones_and_zeros_are_not_seen(faces, yaw, mark):
    points, hidden = faces[yaw].copy(), FAR_SIDE[yaw > 0]
    points[hidden] = mark
    for how in ("auto", "negative"):
        found, marks = resolve_hidden(points, how)
        assert marks == (len(hidden), 0)
        assert np.isnan(found[hidden]).all()
        np.testing.assert_array_equal(np.delete(found, hidden, 0), np.delete(points, hidden, 0))


@pytest.mark.parametrize("yaw", YAWS_DEG)
def test_points_truly_left_of_and_above_the_picture_stay(faces, yaw):
    points = faces[yaw]
    points = points - points[30] - 1  # one of them at (-1, -1) itself
    assert (points < 0).all(1).any()
    found, marks = resolve_hidden(points, "auto")
    np.testing.assert_array_equal(found, points)
    assert marks == (0, 0)


def test_signs_without_enough_other_points_stay(faces):
    points = -faces[0]
    points[:5] *= -1
    np.testing.assert_array_equal(resolve_hidden(points, "auto")[0], points)


@pytest.mark.parametrize("yaw", [-50, -20, 0, 35])
def test_mirrored_faces_and_shares_of_the_picture_are_told(faces, yaw):
    points = faces[yaw]
    assert landmark_fault(points) is None
    upside_down = SIZE - points  # turned by 180 degrees: no mirror
    assert landmark_fault(upside_down) is None
    for mirrored in (points[:, ::-1], points * [1, -1] + [0, SIZE], points * [-1, 1]):
        assert "mirrored face: x and y exchanged" in landmark_fault(mirrored)
    assert "expected px, not shares" in landmark_fault(points / SIZE)
    assert landmark_fault(np.full((68, 2), np.nan)) == "none of 68 landmarks is seen"


@pytest.mark.parametrize("mirrored", [0, 1, 4])
def test_profiles_go_with_the_faces_that_can_be_told(faces, tmp_path, mirrored):
    """A profile in a mirror is another profile: 4 of 4 others that are mirrored speak against it
    too, 1 of 4 against itself alone."""
    others = (-50, -20, 0, 35)
    for number, yaw in enumerate(YAWS_DEG):
        in_mirror = others.index(yaw) < mirrored if yaw in others else mirrored > 1
        points = faces[yaw][:, ::-1] if in_mirror else faces[yaw]
        np.savetxt(tmp_path / f"face{number}.txt", points)
        (tmp_path / f"face{number}.jpg").touch()
    items, failed = find_landmarks(tmp_path)
    assert len(items) + len(failed) == len(YAWS_DEG)
    assert len(failed) == {0: 0, 1: 1, 4: 7}[mirrored]
    for number, yaw in enumerate(YAWS_DEG):
        if mirrored == 4:
            told = "in 4 of the other photos the landmarks are a mirrored face"
            assert (told in failed[f"face{number}"]) == (yaw not in others)


@pytest.mark.parametrize("yaw", YAWS_DEG)
def test_faces_as_they_are_have_no_fault(faces, yaw):
    assert landmark_fault(faces[yaw]) is None
    require_in_picture(faces[yaw], SIZE, SIZE)


def test_points_outside_the_picture_are_counted(faces):
    points = faces[0]
    with pytest.raises(ValueError, match="^0 of 68 landmarks inside 40 x 50$"):
        require_in_picture(points + 60, 50, 40)
    outlier = points.copy()
    outlier[7] = 1e5, 20
    with pytest.raises(ValueError, match=r"landmark 7 at \(1e\+05, 20\), far outside 300 x 300"):
        require_in_picture(outlier, SIZE, SIZE)
    outlier[7] = np.nan
    require_in_picture(outlier, SIZE, SIZE)


def test_files_count_marks_before_their_pixel_origin_moves_them(tmp_path, faces):
    points = faces[35] + 1
    points[:5] = -1
    points[60:] *= -1
    lines = "\n".join(f"{x} {y}" for x, y in points)
    (tmp_path / "a.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    (tmp_path / "a.jpg").touch()
    mirrored = "\n".join(f"{y} {x}" for x, y in faces[35])
    (tmp_path / "b.txt").write_text(mirrored)
    (tmp_path / "b.jpg").touch()
    (item,), failed = find_landmarks(tmp_path)
    assert item.marks == (5, 8)
    assert np.isnan(item.landmarks[:5]).all()
    np.testing.assert_allclose(item.landmarks[5:], faces[35][5:])
    assert "b.txt: the landmarks are a mirrored face" in failed["b"]
    with pytest.raises(ValueError, match="hidden: got 'maybe', expected one of auto, negative"):
        find_landmarks(tmp_path, hidden="maybe")
