"""Pictures of a face: what is drawn lies where the photo has it."""

from dataclasses import replace

import numpy as np
import pytest

from prnet.detection.framing import Framing
from prnet.page.views import SIDE, VIEWS, close_up, thumbnail


@pytest.mark.parametrize("number", [0, 1])
def test_every_view_is_a_picture(visit, number):
    face = visit.faces[number]
    drawn = {name: view(face, visit.texture) for name, view in VIEWS.items()}
    for name, picture in drawn.items():
        assert (picture.dtype, picture.shape[2]) == (np.uint8, 3), name
        assert picture.std() > 5, name
    assert len({picture.tobytes() for picture in drawn.values()}) == len(VIEWS)


@pytest.mark.parametrize("size", [40.0, 300.0, 3000.0])
def test_points_lie_where_the_picture_shows_them(visit, size):
    """A blob painted at a landmark is found at the landmark of the close-up, at any scale."""
    at = np.array([1000, 700])
    rows, columns = np.mgrid[:1500, :2000]
    blob = np.exp(-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (2 * (size / 40) ** 2))
    picture = np.repeat(np.rint(255 * blob).astype(np.uint8)[..., None], 3, 2)
    landmarks = np.tile([*at, 0.0], (68, 1)).astype(np.float32)
    framing = Framing(at - [0.2 * size, 0.1 * size], size)
    face = replace(visit.face, picture=picture, landmarks=landmarks, framing=framing)
    shown = close_up(face)
    weight = shown.picture[..., 0].astype(float)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    found = [(weight * places).sum() / weight.sum() for places in (columns, rows)]
    np.testing.assert_allclose(found, shown.landmarks[0, :2], atol=0.1)


def test_depth_is_brightest_at_the_nose_and_black_beside_the_head(visit):
    depth = VIEWS["Depth"](visit.face, visit.texture)[..., 0]
    column, row = np.rint(close_up(visit.face).landmarks[30, :2]).astype(int)
    assert depth[row, column] > 0.95 * depth.max()
    assert not depth[:40, :40].any()


def test_position_map_spans_its_range_on_the_face_alone(visit):
    drawn = VIEWS["Position map"](visit.face, visit.texture)
    mask = visit.face.face.uv.face_mask.numpy() > 0
    assert drawn.reshape(-1, 3).max(0).tolist() == [255, 255, 255]
    corners = drawn[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert not corners.any()


def test_small_pictures_tell_the_faces_apart(visit):
    large, small = (thumbnail(face) for face in visit.faces)
    assert large.shape == small.shape
    # The second is the first, mirrored.
    same = np.abs(large.astype(int) - small).mean()
    mirrored = np.abs(large.astype(int) - small[:, ::-1]).mean()
    assert mirrored < 0.7 * same
