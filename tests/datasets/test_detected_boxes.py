"""Crops of detected boxes in an evaluation: the right face, its tilt, and what is not found."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from prnet.datasets.aflw2000 import AFLW2000, detected_looks
from prnet.datasets.evaluation import Demands
from prnet.datasets.fits import find_aflw2000, write_fit
from prnet.datasets.pictures import CropRule, write_picture
from prnet.datasets.test_sets import SetChoice
from prnet.datasets.warp import warp_to_crop
from prnet.detection.detector import FaceDetector
from prnet.detection.framing import Framing, framing_of_detection, framing_of_points, overlap
from prnet.detection.tilt import find_faces
from prnet.eval import OpenedNetwork, with_finder
from prnet.evaluation.evaluate import evaluate
from prnet.evaluation.sources import NetworkSource, turn_of
from prnet.faces.loading import FaceFiles
from prnet.geometry import camera
from prnet.reconstruction.loading import load
from prnet.sample import Fit
from tests.evaluations import shipped

# The box of the astronaut's landmarks, about, px.
HERS = np.array([[178.0, 92], [272, 172]])
RULE = CropRule("detector", 1.5, 0.0, 255.0)


def framings(picture: np.ndarray) -> list[tuple[Framing, ...]]:
    """Of the detector alone, without a network, which would look again."""
    return [(framing_of_detection(one),) for one in find_faces(FaceDetector(), picture)]


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def made_set(folder, picture: np.ndarray, box: np.ndarray) -> AFLW2000:
    """One image with landmarks in a box, and a fit of no matter."""
    folder = folder / "AFLW2000"
    folder.mkdir(parents=True)
    write_picture(folder / "a.png", picture)
    random = np.random.default_rng(0)
    points = np.column_stack([random.uniform(*box, (68, 2)), np.zeros(68)])
    points[:2, :2] = box
    fit = Fit(np.zeros(80), np.zeros(51), np.zeros(3), np.zeros(3), 1e-3)
    height, width = picture.shape[:2]
    write_fit(
        folder / "a.mat",
        fit,
        height=height,
        width=width,
        landmarks=points + [1, 1, 0],
        with_depth=True,
    )
    return AFLW2000(find_aflw2000(folder.parent), crop=RULE, finder=framings)


def test_of_several_faces_the_one_that_is_asked_for(astronaut):
    pair = np.concatenate([astronaut, astronaut], 1)
    for shift in (0, 512):
        (found,) = detected_looks(framings(pair), HERS + [shift, 0])
        assert found.tilt == 0
        assert np.abs(found.center - HERS.mean(0) - [shift, 0]).max() < 12
        assert found.size == pytest.approx(87, abs=12)


def test_a_face_that_is_not_found_is_framed_by_the_picture(tmp_path, astronaut):
    item = made_set(tmp_path, astronaut, HERS + [0, 250])[0]
    assert item.detected is False
    # 1.5 times the picture, about its middle.
    corners = torch.tensor([[0.0, 0, 0], [255, 255, 0]], dtype=torch.float64)
    places = camera.transform_points(item.network_input.image_from_crop, corners)[:, :2]
    half = 1.5 * 511 / 2
    expected = torch.tensor([[255.5 - half] * 2, [255.5 + half] * 2], dtype=torch.float64)
    torch.testing.assert_close(places, expected)


@pytest.mark.parametrize("tilt", [0.0, 0.6])
def test_an_evaluation_takes_both_looks_of_a_face_together(tmp_path, astronaut, tilt):
    """As `Reconstructor` does: the same landmarks, from the file and from the picture."""
    reconstructor = load()
    picture, box = leaning(astronaut, tilt)
    (face,) = reconstructor(picture)
    (earlier,) = face.earlier_framings
    assert earlier.tilt == face.framing.tilt == pytest.approx(tilt, abs=0.15)
    protocol = shipped("default", "protocol.crop.source=detector")
    network = OpenedNetwork(
        "default", {}, reconstructor.model, reconstructor.face, None, "", None, {}
    )
    demands = with_finder(protocol.demands(network=True), network, protocol, torch.device("cpu"))
    made = replace(made_set(tmp_path, picture, box), finder=demands.finder)
    saved = tmp_path / "saved"
    source = NetworkSource(network.model, network.face, description="", save_to=saved)
    evaluate(source, made, protocol)
    with np.load(saved / "a.npz") as points:
        apart = np.abs(points["landmarks"] - face.landmarks)[:, :2].max()
    alone = reconstructor.framed(picture, [face.framing])[0].landmarks
    assert apart < 0.1
    assert np.abs(alone - face.landmarks)[:, :2].max() > 0.25


def test_each_look_counts_as_much_as_all_before_it(tmp_path, astronaut):
    reconstructor = load()
    own = framing_of_points(HERS)
    looks = tuple(
        own._replace(center=own.center + [shift, 0], size=size)
        for shift, size in ((-6, 92), (3, 84), (0, 88))
    )
    made = replace(made_set(tmp_path, astronaut, HERS), finder=lambda _: [looks])
    saved = tmp_path / "saved"
    source = NetworkSource(reconstructor.model, reconstructor.face, description="", save_to=saved)
    evaluate(source, made, shipped("default", "protocol.crop.source=detector"))
    with np.load(saved / "a.npz") as points:
        found = points["landmarks"][:, :2]
    seen = [face.landmarks[:, :2] for face in reconstructor.framed(astronaut, looks)]
    expected = seen[0] / 4 + seen[1] / 4 + seen[2] / 2
    assert np.abs(found - expected).max() < 0.05
    assert min(np.abs(found - one).max() for one in seen) > 0.3


def leaning(picture: np.ndarray, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """Turned clockwise about her face, and the box of it."""
    center = tuple(HERS.mean(0).tolist())
    matrix = cv2.getRotationMatrix2D(center, -np.degrees(tilt), 1.0)
    return cv2.warpAffine(picture, matrix, picture.shape[1::-1]), HERS


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_picture_has_the_upright_ones_crop(tmp_path, astronaut, quarters):
    def crop(name: str, picture: np.ndarray, box: np.ndarray) -> torch.Tensor:
        item = made_set(tmp_path / name, picture, box)[0]
        assert item.detected is True
        picture = torch.from_numpy(item.network_input.picture.copy()).permute(2, 0, 1)[None]
        return warp_to_crop(picture, item.network_input.crop_from_picture[None].float())[0]

    box = HERS
    for _ in range(quarters):
        box = np.stack([box[:, 1], 511 - box[:, 0]], 1)
        box = np.stack([box.min(0), box.max(0)])
    upright = crop("upright", astronaut, HERS)
    turned = crop("turned", np.ascontiguousarray(np.rot90(astronaut, quarters)), box)
    # The detector sees other pixels: its box and tilt are not quite the same.
    assert (upright - turned).abs().mean() < 0.09
    assert (upright - turned.flip(1, 2)).abs().mean() > 0.15


def test_turn_of_a_crop_is_that_of_its_tilt():
    """What leans clockwise in the image is upright in the crop: back in the image it leans."""
    tilt = torch.tensor([0.0, 0.7], dtype=torch.float64)
    center = torch.tensor([[50.0, 60.0]] * 2, dtype=torch.float64)
    crop = camera.crop_from_image(center, torch.tensor([90.0, 90.0]).double(), tilt=tilt)
    turn = turn_of(camera.invert_affine(crop))
    angles = torch.stack([0 * tilt, 0 * tilt, tilt], -1)  # roll is clockwise
    torch.testing.assert_close(turn, camera.rotation_from_angles(angles))


def test_overlap_of_squares():
    first = Framing(np.array([0.0, 0]), 2.0)
    assert overlap(first, first) == 1
    assert overlap(first, Framing(np.array([1.0, 0]), 2.0)) == pytest.approx(1 / 3)
    assert overlap(first, Framing(np.array([0.0, 0]), 1.0)) == pytest.approx(1 / 4)
    assert overlap(first, Framing(np.array([2.5, 0]), 2.0)) == 0


def test_other_test_sets_have_no_faces_detected(tmp_path):
    for name in ("synthetic", "aflw"):
        choice = SetChoice(name, {}, tmp_path, FaceFiles("embedded"))
        with pytest.raises(ValueError, match="source=detector"):
            choice.require(Demands(crop=RULE))
