"""GLB files read back, by a reader of the test's own and by trimesh: geometry, morph targets,
texture, the subject's left and right."""

import json
import struct

import cv2
import numpy as np
import pytest
import torch
import trimesh

from prnet.export.gltf import Animation, Material, Morphs, Part, write_glb
from prnet.faces.embedded import load_head
from prnet.faces.loading import load_face
from prnet.reconstruction.arkit import BoundedExpression
from prnet.reconstruction.glb import frontal_vertices, write_face_glb
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.texture import colours_at, texture_of
from tests.known_faces import known_face

TYPES = {5126: np.float32, 5125: np.uint32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class Glb:
    """The content of a GLB, by the specification."""

    def __init__(self, path) -> None:
        raw = path.read_bytes()
        magic, version, length = struct.unpack("<4sII", raw[:12])
        assert (magic, version, length) == (b"glTF", 2, len(raw))
        size, kind = struct.unpack("<I4s", raw[12:20])
        assert (kind, size % 4) == (b"JSON", 0)
        self.json = json.loads(raw[20 : 20 + size])
        start = 20 + size
        binary_size, kind = struct.unpack("<I4s", raw[start : start + 8])
        assert kind == b"BIN\0"
        self.binary = raw[start + 8 : start + 8 + binary_size]

    def view(self, number: int) -> bytes:
        view = self.json["bufferViews"][number]
        assert view["byteOffset"] % 4 == 0
        return self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]

    def accessor(self, number: int) -> np.ndarray:
        accessor = self.json["accessors"][number]
        shape = (accessor["count"], WIDTHS[accessor["type"]])
        dtype = TYPES[accessor["componentType"]]
        values = np.zeros(shape, dtype)
        if "bufferView" in accessor:
            values = np.frombuffer(self.view(accessor["bufferView"]), dtype).reshape(shape).copy()
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            rows = np.frombuffer(self.view(sparse["indices"]["bufferView"]), np.uint32)
            moved = np.frombuffer(self.view(sparse["values"]["bufferView"]), dtype)
            assert len(rows) == sparse["count"]
            values[rows] = moved.reshape(len(rows), -1)
        if "min" in accessor:
            np.testing.assert_array_equal(values.min(0), np.float32(accessor["min"]))
            np.testing.assert_array_equal(values.max(0), np.float32(accessor["max"]))
        return values

    @property
    def primitives(self) -> list[dict]:
        return self.json["meshes"][0]["primitives"]


@pytest.fixture(scope="module")
def her_glb(her_face, tmp_path_factory) -> Glb:
    path = tmp_path_factory.mktemp("glb") / "face.glb"
    write_face_glb(path, her_face)
    return Glb(path)


def test_morph_targets_are_arkits_by_name_and_bounded(her_glb, her_face):
    mesh = her_glb.json["meshes"][0]
    assert mesh["extras"]["targetNames"] == list(load_head().exp_names)
    assert len(mesh["weights"]) == 51
    assert min(mesh["weights"]) >= 0
    assert max(mesh["weights"]) <= 1
    expected = BoundedExpression(her_face.face)(her_face.exp_params)
    np.testing.assert_allclose(mesh["weights"], expected, atol=1e-6)


def test_base_and_targets_are_the_head_in_metres(her_glb, her_face):
    """Base + sum of weights times targets is the head model at these coefficients."""
    model = load_head().morphable_model
    primitive = her_glb.primitives[0]
    base = her_glb.accessor(primitive["attributes"]["POSITION"])
    weights = torch.tensor(her_glb.json["meshes"][0]["weights"])
    moved = base.copy()
    for weight, target in zip(weights, primitive["targets"], strict=True):
        moved += float(weight) * her_glb.accessor(target["POSITION"])
    shape_params = torch.from_numpy(her_face.shape_params)[None]
    expected = 1e-6 * model(shape_params, weights[None])[0].numpy()
    np.testing.assert_allclose(moved[: len(expected)], expected, atol=1e-6)
    assert 0.15 < np.ptp(base[:, 1]) < 0.45  # metres of a head with its neck


def test_the_head_of_a_map_is_the_one_nearest_to_it(tmp_path):
    """A map of known coefficients: the base is its identity at rest, the weights its expression."""
    truth, of_map = (known_face(load_face("embedded"), seed=3, of_map=kind) for kind in (0, 1))
    write_face_glb(tmp_path / "a.glb", of_map)
    glb = Glb(tmp_path / "a.glb")
    head = load_head()
    shape_params = torch.from_numpy(truth.shape_params)[None]
    rest = 1e-6 * head.morphable_model(shape_params, torch.zeros(1, 51))[0].numpy()
    base = glb.accessor(glb.primitives[0]["attributes"]["POSITION"])[: len(rest)]
    on_face = ~head.regions["rest"].numpy()  # eyes, nose and mouth
    mean = 1e-6 * head.morphable_model.mean.numpy()
    distance, apart = (
        np.linalg.norm((points - rest)[on_face], axis=1).mean() for points in (base, mean)
    )
    assert distance < 0.25 * apart
    weights = np.array(glb.json["meshes"][0]["weights"])
    assert np.abs(weights - truth.exp_params).mean() < 0.06


def test_the_jaw_opens_downwards_and_the_left_eye_is_on_the_left(her_glb):
    """+Y up, face toward +Z, so the subject's left is +X; eyeLook shapes turn the eyeballs."""
    names = her_glb.json["meshes"][0]["extras"]["targetNames"]
    primitive = her_glb.primitives[0]
    base = her_glb.accessor(primitive["attributes"]["POSITION"])

    def target(name: str) -> np.ndarray:
        return her_glb.accessor(primitive["targets"][names.index(name)]["POSITION"])

    jaw = target("jawOpen")
    lowest = np.argmin(jaw[:, 1])
    assert jaw[lowest, 1] < -0.01
    assert base[lowest, 2] > 0
    for name in ("eyeBlinkLeft", "mouthSmileLeft", "eyeLookUpLeft"):
        moved = np.linalg.norm(target(name), axis=1)
        assert base[moved > 0.3 * moved.max(), 0].mean() > 0.01
    assert np.linalg.norm(target("tongueOut" if "tongueOut" in names else "jawOpen")) > 0


def test_another_reader_sees_a_head_wound_outward_with_its_texture(her_face, tmp_path):
    path = tmp_path / "face.glb"
    write_face_glb(path, her_face)
    scene = trimesh.load(path)
    (skin,) = (g for g in scene.geometry.values() if g.visual.material.name == "skin")
    assert skin.visual.material.baseColorTexture.size == (1024, 1024)
    # The mean of normals times places is positive where a surface faces outward.
    outward = np.einsum("ij,ij->i", skin.face_normals, skin.triangles_center - skin.centroid)
    assert (outward * skin.area_faces).sum() > 0
    nose = skin.vertices[np.argmax(skin.vertices[:, 2])]
    assert abs(nose[0]) < 0.01


def test_her_texture_is_right_side_up_and_not_mirrored(her_face):
    """A photo painted by its halves: the texture has them where the UV layout does."""
    painted = np.zeros_like(her_face.picture)
    middle = her_face.landmarks[30, 0]
    painted[:, : int(middle)] = (255, 0, 0)  # the subject's right
    painted[:, int(middle) :] = (0, 0, 255)
    painted[: int(her_face.landmarks[27, 1]), :, 1] = 255  # the forehead
    face = FaceReconstruction(**{**vars(her_face), "picture": painted})
    texture = texture_of(face, size=256)
    cells = face.face.uv.landmark_cells.numpy()
    cheeks = ((cells[eye] + cells[mouth]) // 2 for eye, mouth in ((36, 48), (45, 54)))
    right, left = (texture.picture[tuple(cheek)] for cheek in cheeks)
    assert right[0] > 200
    assert right[2] < 60
    assert left[2] > 200
    assert left[0] < 60
    brow, chin = texture.picture[tuple(cells[19] - [8, 0])], texture.picture[tuple(cells[8])]
    assert brow[1] > 200
    assert chin[1] < 60


def test_colours_of_many_points_and_of_long_pictures():
    """A ramp of 40,000 columns has at each place the value of the place; outside its border's."""
    ramp = np.repeat((np.arange(40_000) // 200).astype(np.uint8)[None, :, None], 4, 0)
    ramp = np.repeat(ramp, 3, 2)
    x = np.linspace(20_000, 40_100, 70_000)  # a face spans less than OpenCV's limit
    found = colours_at(ramp, x, np.full_like(x, 2.5))
    assert found.shape == (70_000, 3)
    assert np.abs(found[:, 0] - x.clip(0, 39_999) / 200).max() <= 1.01
    assert colours_at(ramp, x[:6].reshape(2, 3), x[:6].reshape(2, 3)).shape == (2, 3, 3)


def test_unseen_texels_are_filled_from_the_other_side(reconstructor, astronaut, her_face):
    """A mesh turned to profile shows one cheek; the hidden one takes its colour."""
    turn = np.radians(70)
    rotation = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    center = her_face.vertices.mean(0)

    def turned(points: np.ndarray) -> np.ndarray:
        return ((points - center) @ rotation.T + center).astype(np.float32)

    flat = turned(her_face.position_map.reshape(3, -1).T).T.reshape(3, 256, 256)
    picture = np.full_like(astronaut, (120, 90, 60))
    face = FaceReconstruction(
        **{
            **vars(her_face),
            "picture": picture,
            "vertices": turned(her_face.vertices),
            "position_map": flat,
        }
    )
    texture = texture_of(face, size=256)
    mask = face.face.uv.face_mask.numpy()
    share = (texture.seen & mask).sum() / mask.sum()
    assert 0.3 < share < 0.75
    halves = texture.seen[:, :128].sum(), texture.seen[:, 128:].sum()
    assert max(halves) > 3 * min(halves)
    assert np.abs(texture.picture[mask].astype(int) - (120, 90, 60)).max() <= 1


def test_frontal_vertices_are_the_models_but_for_the_cameras_shear(her_face):
    model = her_face.face.morphable_model
    coefficients = (torch.from_numpy(c)[None] for c in (her_face.shape_params, her_face.exp_params))
    expected = model(*coefficients)[0].numpy()
    distance = np.linalg.norm(frontal_vertices(her_face) - expected, axis=1)
    assert distance.mean() < 6000  # micrometre


def tetrahedron() -> dict:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    return {
        "vertices": vertices,
        "normals": np.tile([0.0, 0, 1], (4, 1)),
        "texture_coords": vertices[:, :2],
        "parts": [Part(np.array([[0, 2, 1], [0, 1, 3]]), Material("plain"))],
        "morphs": Morphs(["a", "b"], np.zeros((2, 4, 3)) + np.eye(4, 3), np.array([0.5, 0])),
    }


def test_an_animation_of_weights(tmp_path):
    weights = np.array([[0, 0.25], [1, 0.75], [0.5, 0]])
    turns = np.array([[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]], dtype=float)
    animation = Animation(np.array([0, 0.04, 0.08]), weights, turns)
    write_glb(tmp_path / "a.glb", **tetrahedron(), animation=animation)
    glb = Glb(tmp_path / "a.glb")
    (found,) = glb.json["animations"]
    paths = [channel["target"]["path"] for channel in found["channels"]]
    assert paths == ["weights", "rotation"]
    output = [glb.accessor(found["samplers"][c["sampler"]]["output"]) for c in found["channels"]]
    np.testing.assert_allclose(output[0].reshape(3, 2), weights)
    np.testing.assert_allclose(output[1], turns)
    times = glb.accessor(found["samplers"][0]["input"]).ravel()
    np.testing.assert_allclose(times, [0, 0.04, 0.08])


def test_pictures_are_embedded(tmp_path):
    data = cv2.imencode(".png", np.full((4, 4, 3), 7, np.uint8))[1].tobytes()
    content = tetrahedron()
    content["parts"] = [Part(content["parts"][0].triangles, Material("skin", texture=data))]
    write_glb(tmp_path / "a.glb", **content)
    glb = Glb(tmp_path / "a.glb")
    assert glb.json["images"][0]["mimeType"] == "image/png"
    assert glb.view(glb.json["images"][0]["bufferView"]) == data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normals": np.zeros((3, 3))}, r"normals: got shape \(3, 3\), expected \(4, 3\)"),
        ({"vertices": np.full((4, 3), np.nan)}, "not finite"),
        ({"parts": []}, "at least one part"),
        ({"parts": [Part(np.array([[0, 1, 4]]), Material("m"))]}, "not one of the 4"),
        ({"morphs": None, "animation": Animation(np.zeros(1), np.zeros((1, 2)))}, "morph"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_glb(tmp_path / "a.glb", **{**tetrahedron(), **change})
    assert not (tmp_path / "a.glb").exists()
