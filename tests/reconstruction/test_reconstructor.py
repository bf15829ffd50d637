"""From a picture to points in its px: known places, and what must not change them."""

import numpy as np
import pytest
import torch

import prnet
from prnet.detection.framing import crop_from_picture, framing_of_points
from prnet.faces.loading import load_face
from prnet.geometry import camera
from prnet.geometry.pose_parameters import crop_points
from prnet.models.compact import Compact
from prnet.reconstruction.outputs import write_outputs
from prnet.reconstruction.reconstructor import Reconstructor, pose_of, reduced_picture
from prnet.sample import Prediction

# Outer corners of the eyes, nose tip and corners of the mouth of the astronaut, marked by eye, px.
MARKED = {36: (194, 102), 45: (254, 105), 30: (221, 128), 48: (202, 141), 54: (241, 142)}


def test_three_lines_find_her_landmarks(her_face):
    size = np.sqrt(np.prod(np.ptp(her_face.landmarks[:, :2], axis=0)))
    found = her_face.landmarks[list(MARKED), :2]
    assert np.linalg.norm(found - list(MARKED.values()), axis=1).mean() < 0.08 * size
    assert callable(prnet.load)


def test_the_mesh_is_one_thing(her_face):
    """Finite, no vertex at the origin, every triangle of it, the landmarks among its vertices."""
    assert np.isfinite(her_face.vertices).all()
    assert (her_face.vertices[:, :2].min(0) > 30).all()
    assert her_face.triangles.max() == len(her_face.vertices) - 1
    distance = np.abs(her_face.vertices[None] - her_face.landmarks[:, None]).sum(2).min(1)
    assert distance.max() == 0
    assert her_face.vertices[:, 2].min() == pytest.approx(0, abs=0.5)


def test_a_known_pose_is_recovered():
    points = np.random.default_rng(3).normal(0, 7e4, (50, 3))
    angles = torch.tensor([0.2, -0.7, 0.4], dtype=torch.float64)
    rotation = camera.rotation_from_angles(angles).numpy()
    translation = np.array([120.0, -90, 30])
    vertices = (7e-4 * points @ rotation.T + translation) * [1, -1, 1]
    pose = pose_of(vertices, points)
    assert pose.scale == pytest.approx(7e-4)
    np.testing.assert_allclose(pose.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(pose.translation, translation, atol=1e-9)
    np.testing.assert_allclose(pose.angles_deg, np.degrees(angles.numpy()), atol=1e-7)


def test_pose_and_coefficients_give_the_mesh_but_for_the_cameras_shear(her_face):
    """picture = F (s R V + t): the predicted camera is affine, the pose its nearest rigid one."""
    model = her_face.face.morphable_model
    coefficients = (torch.from_numpy(c)[None] for c in (her_face.shape_params, her_face.exp_params))
    vertices = model(*coefficients)[0].double().numpy()
    pose = her_face.pose
    placed = (pose.scale * vertices @ pose.rotation.T + pose.translation) * [1, -1, 1]
    size = np.sqrt(np.prod(np.ptp(her_face.landmarks[:, :2], axis=0)))
    assert np.linalg.norm(placed - her_face.vertices, axis=1).mean() < 0.05 * size
    assert np.abs(placed.mean(0) - her_face.vertices.mean(0)).max() < 1e-3


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_picture_on_its_side_gives_the_same_face_on_its_side(
    reconstructor, astronaut, her_face, quarters
):
    """Turned without resampling: points turn with it, and so does the pose."""
    framing = framing_of_points(her_face.landmarks)
    (upright,) = reconstructor.framed(astronaut, [framing])
    turned = np.ascontiguousarray(np.rot90(astronaut, quarters))  # anti-clockwise

    def turn(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        for _ in range(quarters):
            x, y = y, len(astronaut) - 1 - x  # the picture is a square
        return np.stack([x, y, *np.moveaxis(points[..., 2:], -1, 0)], -1)

    angle = -np.pi / 2 * quarters
    there = framing._replace(center=turn(framing.center), tilt=angle)
    (face,) = reconstructor.framed(turned, [there])
    assert np.abs(face.vertices - turn(upright.vertices)).max() < 0.02
    assert np.abs(face.landmarks - turn(upright.landmarks)).max() < 0.02
    # About the viewing axis, anti-clockwise in the y-up plane.
    cos, sin = np.cos(angle), np.sin(angle)
    spin = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    np.testing.assert_allclose(face.pose.rotation, spin @ upright.pose.rotation, atol=1e-4)
    assert face.pose.scale == pytest.approx(upright.pose.scale, rel=1e-4)


def test_uncertainty_tells_a_face_from_none(reconstructor, astronaut, her_face):
    framing = framing_of_points(her_face.landmarks)
    elsewhere = framing._replace(center=np.array([400.0, 130]))  # a space shuttle
    face, nothing = reconstructor.framed(astronaut, [framing, elsewhere])
    assert 0 < face.uncertainty < 3
    assert nothing.uncertainty > 2 * face.uncertainty


def test_a_detected_face_is_the_mean_of_its_two_looks(reconstructor, astronaut, her_face):
    framings = [*her_face.earlier_framings, her_face.framing]
    looks = reconstructor.framed(astronaut, framings)
    apart = np.abs(looks[0].landmarks - looks[1].landmarks)[:, :2].max()
    assert apart > 0.5
    for field in ("landmarks", "vertices"):
        mean = sum(getattr(look, field)[:, :2] for look in looks) / 2
        assert np.abs(getattr(her_face, field)[:, :2] - mean).max() < 0.02 * apart
    assert her_face.uncertainty == pytest.approx(sum(look.uncertainty for look in looks) / 2)
    exp_params = sum(look.exp_params for look in looks) / 2
    np.testing.assert_allclose(her_face.exp_params, exp_params, atol=1e-5)


def test_batch_equals_items(reconstructor, astronaut, her_face):
    framing = framing_of_points(her_face.landmarks)
    framings = [framing._replace(size=framing.size * factor) for factor in (0.9, 1.0, 1.1)] * 6
    together = reconstructor.framed(astronaut, framings)
    alone = [reconstructor.framed(astronaut, [one])[0] for one in framings[:3]]
    for one, other in zip(together[-3:], alone, strict=True):
        assert np.abs(one.vertices - other.vertices).max() < 0.01
    assert reconstructor.framed(astronaut, []) == []


def test_a_face_cut_by_the_border_has_its_points_there(reconstructor, astronaut, her_face):
    cut = np.ascontiguousarray(astronaut[:, 220:])
    framing = framing_of_points(her_face.landmarks)
    moved = framing._replace(center=framing.center - [220, 0])
    (face,) = reconstructor.framed(cut, [moved])
    assert face.landmarks[:, 0].min() < 0
    assert np.isfinite(face.vertices).all()


def test_a_network_of_maps_has_a_mesh_of_its_face_pixels(astronaut, her_face):
    """A known map: the mesh is the mask's pixels, placed, and the pose is found from them."""
    face = load_face("embedded")
    framing = framing_of_points(her_face.landmarks)
    matrix = crop_from_picture([framing], scale=1.5)
    vertices = torch.from_numpy(her_face.vertices).double()[None]
    expected = face.uv.position_map(camera.transform_points(matrix, vertices).float())

    class Scripted(Compact):
        def forward(self, image: torch.Tensor) -> Prediction:
            return Prediction(position_map=expected)

    (found,) = Reconstructor(Scripted(width=1, rank=8), face).framed(astronaut, [framing])
    assert len(found.vertices) == face.uv.face_index.numel()
    assert found.triangles.max() == len(found.vertices) - 1
    at_pixels = face.uv.at_texels(torch.from_numpy(her_face.vertices)[None], face.uv.face_index)
    assert np.abs(found.vertices - at_pixels[0].numpy()).max() < 0.01
    assert np.abs(found.pose.angles_deg - her_face.pose.angles_deg).max() < 6
    assert found.shape_params is None
    assert found.exp_params is None


def test_reduction_keeps_places():
    """A ramp averaged down has, at the place that the matrix says, the value of that place."""
    columns = np.tile(np.linspace(0, 255, 1024), (900, 1))
    picture = np.repeat(columns[..., None], 3, 2).astype(np.uint8)
    framing = framing_of_points(np.array([[200.0, 150], [850, 800]]))
    matrix = crop_from_picture([framing], scale=1.5)[0]
    reduced, picture_from_reduced = reduced_picture(picture, matrix)
    assert picture_from_reduced[0, 0] == 2
    places = torch.tensor([[10.0, 20, 0], [300, 200, 0]], dtype=torch.float64)
    for (x, _, _), (column, row, _) in zip(
        camera.transform_points(picture_from_reduced, places), places, strict=True
    ):
        assert reduced[int(row), int(column), 0] == pytest.approx(255 * x / 1023, abs=1.5)


def test_parameters_of_the_crop_are_what_is_placed(reconstructor, astronaut, her_face):
    """The vertices are those of the predicted parameters, brought back by the crop's inverse."""
    framing = framing_of_points(her_face.landmarks)
    matrix = crop_from_picture([framing], scale=reconstructor.crop_scale)
    seen = []
    hook = reconstructor.model.register_forward_hook(lambda *call: seen.append(call[2]))
    (face,) = reconstructor.framed(astronaut, [framing])
    hook.remove()
    there = crop_points(reconstructor.face.morphable_model, seen[0].parameters).double()
    placed = camera.transform_points(camera.invert_affine(matrix), there)[0]
    assert np.abs(placed.numpy() - face.vertices).max() < 1e-3


def test_a_face_saves_itself_as_the_command_would(her_face, tmp_path):
    """One file by its suffix, byte for byte that of `outputs`; another suffix is refused."""
    for suffix in (".glb", ".obj", ".ply", ".npz"):
        (asked, *others) = her_face.save(tmp_path / f"one.d{suffix.upper()}")
        (same, *_) = write_outputs(her_face, tmp_path / "outputs", [suffix[1:]])
        assert asked == tmp_path / f"one.d{suffix}"
        assert (asked.read_bytes() == same.read_bytes()) or suffix == ".obj"
        assert [one.suffix for one in others] == ([".mtl", ".png"] if suffix == ".obj" else [])
    with pytest.raises(ValueError, match=r"suffix: got '\.stl', expected one of \.glb, \.obj"):
        her_face.save(tmp_path / "one.stl")


def test_a_face_names_its_expression_and_has_its_texture(her_face):
    coefficients = her_face.coefficients()
    assert len(coefficients) == 51
    assert all(0 <= value <= 1 for value in coefficients.values())
    assert coefficients["mouthSmileLeft"] > 0.2 > coefficients["mouthFrownLeft"]  # she smiles
    texture = her_face.texture(size=128)
    assert texture.picture.shape == (128, 128, 3)
    assert 0.2 < texture.seen.mean() < 0.9
