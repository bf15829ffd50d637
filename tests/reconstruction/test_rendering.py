"""Pictures of faces whose pose and paint are known."""

import numpy as np
import pytest
import torch

from prnet.faces.loading import load_face
from prnet.geometry.rasterize import rasterize
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.rendering import coordinate_code, frontal_picture, seen_values
from prnet.reconstruction.texture import texture_of
from tests.known_faces import known_face, pattern


@pytest.fixture(scope="module")
def embedded():
    return load_face("embedded")


@pytest.fixture(scope="module")
def posed(embedded) -> FaceReconstruction:
    return known_face(embedded, seed=2)


def test_seen_values_are_those_of_the_whole_z_buffer(posed):
    """Also where the mesh reaches beyond the picture on every side, or lies beside it."""
    triangles = torch.from_numpy(posed.triangles)
    for size, shift in ((240, 0), (60, -90), (100, -30)):
        moved = posed.vertices + np.float32([shift, shift, 0])
        mesh = torch.from_numpy(moved)[None]
        raster = rasterize(mesh, triangles, height=size, width=size, cull_back_faces=True)
        seen = seen_values(moved, posed.triangles, moved, height=size, width=size)
        there = raster.triangle[0].numpy() >= 0
        assert there.any()
        here = np.zeros_like(there)
        here[seen.rows, seen.columns] = True
        assert (here != there).mean() < 1e-3
        # The value of a vertex's place is the place of the pixel.
        np.testing.assert_allclose(seen.values[:, 0], seen.columns, atol=2e-3)
        np.testing.assert_allclose(seen.values[:, 1], seen.rows, atol=2e-3)
    beside = posed.vertices + np.float32([1000, 0, 0])
    assert len(seen_values(beside, posed.triangles, beside, height=99, width=99).rows) == 0


@pytest.mark.parametrize("of_map", [False, True])
def test_the_code_says_which_point_of_the_mean_face_is_seen(embedded, of_map):
    """Read back at the landmarks: their places on the mean, each axis from 0 to 255."""
    face = known_face(embedded, seed=4, angles_deg=(5, 25, -8), of_map=of_map)
    code = coordinate_code(face)
    mean = embedded.morphable_model.mean.numpy()
    expected = 255 * (mean - mean.min(0)) / np.ptp(mean, axis=0)
    shown = [*range(4, 12), *range(17, 36), 48, 51, 54, 57]  # not beside a fold, nor turned away
    x, y = np.rint(face.landmarks[shown, :2]).astype(int).T
    found = code[y, x].astype(float)
    difference = np.abs(found - expected[embedded.landmark_index[shown]])
    assert np.median(difference) < 3
    assert np.percentile(difference, 90) < 8
    assert (code[:5] == 0).all()
    # The subject's left is red, up is green, forward is blue.
    left, right, chin = (np.rint(face.landmarks[k, :2]).astype(int) for k in (45, 36, 8))
    assert code[left[1], left[0], 0] > code[right[1], right[0], 0]
    assert code[right[1], right[0], 1] > code[chin[1], chin[0], 1]


def test_from_the_front_each_place_has_the_colour_that_was_painted_there(embedded):
    """A face turned aside, its pattern known by u and v, comes out upright and not mirrored."""
    face = known_face(embedded, seed=5, angles_deg=(0, 25, 20), paint=(1, 1, 1))
    picture = frontal_picture(face, texture_of(face), size=300)
    upright = known_face(embedded, seed=5, angles_deg=(0, 0, 0))
    drawn = upright.vertices.copy()
    low, high = drawn[:, :2].min(0), drawn[:, :2].max(0)
    drawn[:, :2] = (drawn[:, :2] - (low + high) / 2) * 0.9 * 299 / (high - low).max() + 149.5
    seen = seen_values(drawn, upright.triangles, upright.texture_coords, height=300, width=300)
    inside = embedded.uv.face_mask.numpy()
    column, row = (np.rint(255 * part).astype(int) for part in seen.values.T)
    row = 255 - row
    on_face = (np.minimum(row, column) >= 0) & (np.maximum(row, column) <= 255)
    on_face[on_face] = inside[row[on_face], column[on_face]]
    expected = pattern(seen.values[on_face], (1, 1, 1)).astype(int)
    found = picture[seen.rows[on_face], seen.columns[on_face]]
    difference = np.abs(found - expected)
    assert np.median(difference) <= 2
    assert (difference.max(1) > 20).mean() < 0.25  # what was hidden, filled from the other side
