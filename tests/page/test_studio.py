"""What the page does, without a page: photos to faces, faces in other expressions."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from prnet.datasets.pictures import write_picture
from prnet.page.studio import (
    KEPT_HEADS,
    LONGEST_SIDE,
    choose,
    expression_of,
    reduced,
    write_download,
    write_shown,
)
from prnet.reconstruction.glb import METRES, the_head


def vertices_of(path) -> np.ndarray:
    """(N, 3), metres; the parts share them."""
    scene = trimesh.load(path, process=False)
    return next(iter(scene.geometry.values())).vertices


def test_faces_are_the_largest_first_and_can_be_chosen(visit):
    assert len(visit.faces) == 2
    assert visit.faces[0].framing.size > 1.5 * visit.faces[1].framing.size
    other = choose(visit, 1)
    assert (visit.chosen, other.chosen) == (0, 1)
    assert other.faces is visit.faces
    assert not np.array_equal(other.texture.picture, visit.texture.picture)
    names = [write_download(one, expression_of(one)).name for one in (visit, other)]
    assert names == ["two_1.glb", "two_2.glb"]


@pytest.mark.parametrize("name", [None, "jawOpen", "eyeBlinkLeft"])
def test_a_moved_head_is_the_models(visit, name):
    """The vertices of what is shown are those of the face model at the sliders' coefficients."""
    expression = dict.fromkeys(the_head().exp_names, 0.0) | ({name: 0.75} if name else {})
    found = vertices_of(write_shown(visit, expression))
    model = the_head().morphable_model
    shape_params = torch.from_numpy(visit.face.shape_params)[None]
    coefficients = torch.tensor([list(expression.values())])
    expected = METRES * model(shape_params, coefficients)[0].numpy()
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-6)


def test_the_download_is_the_head_at_rest_with_its_expression(visit):
    expression = expression_of(visit) | {"jawOpen": 2.0}  # more than there is
    path = write_download(visit, expression)
    rest = dict.fromkeys(expression, 0.0)
    np.testing.assert_allclose(vertices_of(path), vertices_of(write_shown(visit, rest)), atol=1e-7)
    raw = path.read_bytes()
    assert b'"jawOpen"' in raw
    weights = raw.split(b'"weights":[')[1].split(b"]")[0].split(b",")
    clipped = [min(value, 1.0) for value in expression.values()]
    np.testing.assert_allclose([float(value) for value in weights], clipped)


def test_old_heads_go_and_a_closed_visit_leaves_nothing(studio, two_faces):
    visit = studio.look(two_faces, studio.weights[0])
    paths = [write_shown(visit, expression_of(visit)) for _ in range(KEPT_HEADS + 2)]
    assert [path.exists() for path in paths] == [False] * 2 + [True] * KEPT_HEADS
    visit.close()
    assert not visit.folder.exists()


def make_empty(path) -> None:
    path.touch()


def make_text(path) -> None:
    path.write_text("no picture")


def make_cut(path) -> None:
    write_picture(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:900])


def make_faceless(path) -> None:
    write_picture(path, np.full((200, 200, 3), 90, np.uint8))


def make_huge(path) -> None:
    Image.new("1", (12_000, 9_000)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_empty, "^bad.png: the file is empty$"),
        (make_text, r"^bad.png: not a readable picture \(cannot identify"),
        (make_cut, "^bad.png: not a readable picture"),
        (make_faceless, "^bad.png: no face found; take a photo that shows one larger$"),
        (make_huge, r"^bad.png: .*12000 x 9000 px are more than 1e\+08; make it smaller"),
    ],
)
def test_a_bad_photo_is_told_without_where_it_lies(studio, tmp_path, make, message):
    make(tmp_path / "bad.png")
    with pytest.raises(ValueError, match=message) as caught:
        studio.look(tmp_path / "bad.png", studio.weights[0])
    assert str(tmp_path) not in str(caught.value)


def test_weights_are_chosen_by_name_alone(studio, two_faces):
    with pytest.raises(ValueError, match=r"weights: got '/etc/passwd', expected one of"):
        studio.look(two_faces, "/etc/passwd")


def test_a_large_photo_is_brought_down():
    picture = np.zeros((50, 3 * LONGEST_SIDE, 3), np.uint8)
    assert reduced(picture).shape == (17, LONGEST_SIDE, 3)
    assert reduced(picture[:, :100]).shape == (50, 100, 3)
