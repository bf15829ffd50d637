"""OBJ files: read back by the rules of the format."""

import numpy as np
import pytest

from prnet.export.mesh import write_obj
from tests.tiny import sphere


def read(path) -> tuple[np.ndarray, np.ndarray]:
    lines = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
    faces = [[corner.split("/")[0] for corner in line[1:]] for line in lines if line[0] == "f"]
    return vertices, np.array(faces, int) - 1


def test_outward_in_the_image_is_outward_in_the_file(tmp_path):
    """A sphere as the image frame has it, y turned up: positive volume by the file's order."""
    vertices, triangles = sphere(2.0, (0.0, 0.0, 0.0), rings=12)
    write_obj(tmp_path / "ball.obj", vertices * [1, -1, 1], triangles)
    points, corners = read(tmp_path / "ball.obj")
    a, b, c = (points[corners[:, i]] for i in range(3))
    volume = (np.cross(a, b) * c).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 8, rel=0.05)


def test_coordinates_are_written_as_they_are(tmp_path):
    vertices = np.eye(3)
    write_obj(tmp_path / "a.obj", vertices, np.array([[0, 1, 2]]))
    points, corners = read(tmp_path / "a.obj")
    np.testing.assert_array_equal(points, vertices)
    assert corners.tolist() == [[2, 1, 0]]
    assert not (tmp_path / "a.mtl").exists()


def test_texture_has_its_material_and_its_own_indices(tmp_path):
    write_obj(
        tmp_path / "a.obj",
        np.eye(3),
        np.array([[0, 1, 2]]),
        texture_coords=np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.5]]),
        texture_triangles=np.array([[3, 1, 2]]),
        texture_name="skin.png",
    )
    text = (tmp_path / "a.obj").read_text()
    assert "mtllib a.mtl" in text
    assert "f 3/3 2/2 1/4" in text
    assert "map_Kd skin.png" in (tmp_path / "a.mtl").read_text()


def test_shapes_that_do_not_fit_are_refused(tmp_path):
    triangles = np.array([[0, 1, 2]])
    with pytest.raises(ValueError, match=r"vertices: got shape \(3, 2\)"):
        write_obj(tmp_path / "a.obj", np.zeros((3, 2)), triangles)
    with pytest.raises(ValueError, match="both its coordinates and the name"):
        write_obj(tmp_path / "a.obj", np.eye(3), triangles, texture_name="skin.png")
    with pytest.raises(ValueError, match="texture_triangles"):
        write_obj(
            tmp_path / "a.obj",
            np.eye(3),
            triangles,
            texture_coords=np.zeros((3, 2)),
            texture_triangles=np.zeros((2, 3), int),
            texture_name="skin.png",
        )
    assert list(tmp_path.iterdir()) == []
