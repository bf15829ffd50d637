"""scripts/turned_photos.py: copies are turned with their landmarks, and errors are counted."""

import numpy as np
import pytest

from tests.load_script import load_script

turned_photos = load_script("turned_photos")


def photo(tilt_deg: float) -> "turned_photos.Photo":
    """A bright spot at every landmark, of a face that leans clockwise."""
    angle = np.radians(tilt_deg)
    points = np.tile([60.0, 45], (68, 1))
    down = np.array([-np.sin(angle), np.cos(angle)])
    points[turned_photos.EYES] -= 15 * down
    points[turned_photos.MOUTH] += 15 * down
    picture = np.zeros((90, 120, 3), np.uint8)
    columns, rows = points.round().astype(int).T
    picture[rows, columns] = 255
    return turned_photos.Photo("a", picture, points)


@pytest.mark.parametrize("angle", [0, 30, 90, 150, 180])
def test_landmarks_turn_with_the_picture(angle):
    upright = photo(0)
    turned = turned_photos.turned(upright, angle)
    for column, row in turned.landmarks.round().astype(int):
        assert turned.picture[row - 1 : row + 2, column - 1 : column + 2].max() > 50
    down = turned.landmarks[48] - turned.landmarks[36]
    assert np.degrees(np.arctan2(down[0], down[1])) == pytest.approx(angle, abs=1e-6)
    assert len(turned.picture) == 150  # nothing is cut off


def test_upright_is_within_fifteen_degrees():
    assert [turned_photos.is_upright(photo(tilt)) for tilt in (-14, 0, 14, 16, 90, 180)] == [
        *(True, True, True),
        *(False, False, False),
    ]


def test_faces_that_are_not_found_count_and_the_nearest_is_scored():
    upright = photo(0)

    class Face:
        def __init__(self, shift: float) -> None:
            self.landmarks = np.column_stack([upright.landmarks + [shift, 0], np.zeros(68)])

    assert turned_photos.error_percent(lambda _picture: [], upright, 30.0) == 100
    faces = [Face(40), Face(-3), Face(20)]
    assert turned_photos.error_percent(lambda _picture: faces, upright, 30.0) == pytest.approx(10)


def test_the_table_names_what_is_lost():
    lines = turned_photos.table(np.array([[4.0, 5], [6, 100]]), [0.0, 90.0], ["a", "b"])
    assert "| turned by, degrees | 0 | 90 |" in lines
    assert "| mean | 5.00 | 52.50 |" in lines
    assert "| error over 20, or not found | 0 | 1 |" in lines
    assert lines[-2:] == ["* 0: none lost", "* 90: b (100)"]
