"""Faces put into other photos: what must come out, and what must stay."""

import cv2
import numpy as np
import pytest

from prnet.faces.loading import load_face
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.rendering import seen_values
from prnet.reconstruction.swapping import parts_mask, require_parts, swap_face
from prnet.reconstruction.texture import texture_of
from tests.known_faces import known_face, pattern


@pytest.fixture(scope="module")
def embedded():
    return load_face("embedded")


@pytest.fixture(scope="module")
def source(embedded) -> FaceReconstruction:
    return known_face(embedded, seed=1, angles_deg=(0, -10, 0), paint=(2, 3, 4), scale=0.9)


@pytest.fixture(scope="module")
def target(embedded) -> FaceReconstruction:
    return known_face(embedded, seed=2, angles_deg=(5, 20, 10), paint=(0.3, 0.2, 0.1))


def texels_of(face: FaceReconstruction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that show the mesh, and their u and v."""
    height, width = face.picture.shape[:2]
    seen = seen_values(
        face.vertices, face.triangles, face.texture_coords, height=height, width=width
    )
    return seen.rows, seen.columns, seen.values


def in_region(face: FaceReconstruction, parts: tuple[str, ...]) -> np.ndarray:
    """(H, W) bool, by the mask of the UV layout."""
    rows, columns, coords = texels_of(face)
    mask = np.pad(parts_mask(face.face, parts), 30)
    at = np.rint(255 * coords).astype(int).clip(-29, 284)
    region = np.zeros(face.picture.shape[:2], bool)
    region[rows, columns] = mask[30 + 255 - at[:, 1], 30 + at[:, 0]]
    return region


@pytest.mark.parametrize("parts", [("face",), ("eyes",), ("nose", "mouth")])
def test_a_face_swapped_with_itself_changes_nearly_nothing(source, parts):
    result = swap_face(source, source, parts=parts)
    difference = np.abs(result.astype(int) - source.picture)
    region = in_region(source, parts)
    assert difference[~region].max() == 0
    assert difference[region].mean() < 3
    assert np.median(difference[region]) <= 2


@pytest.mark.parametrize("parts", [("face",), ("mouth",)])
def test_beside_the_region_every_pixel_stays(source, target, parts):
    before = target.picture.copy()
    result = swap_face(source, target, parts=parts)
    changed = (result != before).any(2)
    assert not (changed & ~in_region(target, parts)).any()
    assert changed[in_region(target, parts)].mean() > 0.7
    np.testing.assert_array_equal(target.picture, before)


def test_the_sources_pattern_lies_on_the_targets_geometry(source, target):
    """Poisson blending keeps gradients: inside, the pattern's waves, whatever the tone."""
    result = swap_face(source, target).astype(float)
    rows, columns, coords = texels_of(target)
    at = np.rint(255 * coords).astype(int).clip(0, 255)
    seen = np.zeros(result.shape[:2], bool)  # what the source's picture shows
    seen[rows, columns] = texture_of(source, size=256).seen[255 - at[:, 1], at[:, 0]]
    region = cv2.erode((seen & in_region(target, ("face",))).astype(np.uint8), np.ones((9, 9))) > 0
    wanted, old = np.zeros_like(result), target.picture.astype(float)
    wanted[rows, columns] = pattern(coords, (2, 3, 4))
    for channel in range(3):
        slopes = [np.diff(image[..., channel], axis=1) for image in (result, wanted, old)]
        both = region[:, 1:] & region[:, :-1]
        made, new, before = (slope[both] for slope in slopes)
        assert np.corrcoef(made, new)[0, 1] > 0.7
        assert abs(np.corrcoef(made, before)[0, 1]) < 0.3


def test_one_swap_after_another_keeps_the_first(source, target):
    first = swap_face(source, target, parts=("eyes",))
    both = swap_face(source, target, first, parts=("mouth",))
    eyes, mouth = (in_region(target, (part,)) for part in ("eyes", "mouth"))
    np.testing.assert_array_equal(both[eyes & ~mouth], first[eyes & ~mouth])
    assert (both[mouth] != first[mouth]).any()


@pytest.mark.parametrize("cut", [np.s_[:, 120:], np.s_[110:, :], np.s_[118:124, 118:124]])
def test_faces_cut_by_the_border_and_tiny_pictures(source, target, cut):
    rows, columns = (part.start or 0 for part in cut)
    moved = target.vertices - np.float32([columns, rows, 0])
    face = FaceReconstruction(
        **{**vars(target), "picture": target.picture[cut].copy(), "vertices": moved}
    )
    result = swap_face(source, face)
    assert result.shape == face.picture.shape
    assert not ((result != face.picture).any(2) & ~in_region(face, ("face",))).any()


def test_a_face_beyond_the_picture_changes_nothing(source, target):
    away = target.vertices + np.float32([5000, 0, 0])
    face = FaceReconstruction(**{**vars(target), "vertices": away})
    np.testing.assert_array_equal(swap_face(source, face), target.picture)


def test_networks_of_maps_swap_alike(embedded, source, target):
    other = known_face(embedded, seed=2, angles_deg=(5, 20, 10), paint=(0.3, 0.2, 0.1), of_map=True)
    difference = np.abs(swap_face(source, other).astype(int) - swap_face(source, target))
    assert np.percentile(difference[in_region(target, ("face",))], 90) < 12


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match=r"parts: got 'ear', expected one of face, eyes"):
        require_parts(["ear"])
    with pytest.raises(ValueError, match="none given"):
        require_parts([])
