"""The picture that an evaluation leaves: which images it keeps, whose names and errors it shows,
the truth beside the prediction."""

import numpy as np
import torch

from prnet.datasets.evaluation import EvaluationBatch
from prnet.datasets.pictures import decode_picture
from prnet.drawing import gallery as module
from prnet.drawing.gallery import HEADING_HEIGHT, NAME_HEIGHT, Gallery

# In px of the crop: the mean face, centred.
PLACE = torch.tensor([5e-4, -5e-4, 5e-4])
SIDE = 256
EDGE = 6


def batch_of(numbers: list[int], *, fits: bool = True) -> EvaluationBatch:
    """Images `i0`, `i1` ... whose crops are of twice the size of the picture, and whose fits are
    the mean face."""
    count = len(numbers)
    image_from_crop = torch.diag(torch.tensor([2.0, 2, 2, 1], dtype=torch.float64))
    image_from_model = torch.diag(torch.tensor([1e-3, -1e-3, 1e-3, 1], dtype=torch.float64))
    image_from_model[:3, 3] = 256
    return EvaluationBatch(
        names=[f"i{number}" for number in numbers],
        yaw_deg=[0.0] * count,
        landmarks=None,
        shape_params=torch.zeros(count, 4),
        exp_params=torch.zeros(count, 3),
        image_from_model=image_from_model.expand(count, -1, -1) if fits else None,
        picture=None,
        crop_from_picture=None,
        image_from_crop=image_from_crop.expand(count, -1, -1),
    )


def fill(gallery: Gallery, face, errors: list[list[float]], **options) -> None:
    """Batches of images whose grey level tells them apart; the prediction is the truth."""
    number = 0
    vertices = face.morphable_model(torch.zeros(1, 4), torch.zeros(1, 3))
    position_map = face.uv.position_map(vertices * PLACE + 128)
    predicted = face.uv.landmarks(position_map)[0], face.uv.face_points(position_map)[0]
    landmarks = 2 * predicted[0][None]
    for batch in errors:
        levels = torch.arange(number, number + len(batch)) / 100
        gallery.add(
            batch_of(list(range(number, number + len(batch))), **options),
            levels[:, None, None, None].expand(-1, 3, SIDE, SIDE),
            lambda _: predicted,
            {"68 landmarks": torch.tensor(batch), "another": -torch.tensor(batch)},
            landmarks.expand(len(batch), -1, -1),
        )
        number += len(batch)


def names(shown) -> list[str]:
    return [one.name for one in shown]


def read(path) -> np.ndarray:
    return decode_picture(path.read_bytes(), source="the gallery")


def test_first_and_worst_are_kept_with_names_and_errors(face):
    gallery = Gallery(face, face, count=2)
    fill(gallery, face, [[1.0, 5.0, 2.0], [9.0, 0.5], [3.0, 7.0]])
    assert names(gallery.first) == ["i0", "i1"]
    assert names(gallery.worst) == ["i3", "i6"]
    assert [one.error for one in gallery.worst] == [9.0, 7.0]
    assert [round(int(one.photo[0, 0, 0]) / 2.55) for one in gallery.worst] == [3, 6]
    assert (gallery.total, gallery.metric) == (7, "68 landmarks")


def test_truth_stands_beside_the_prediction(face, tmp_path):
    """Where they are equal, so are the pictures: the truth is brought from the image into the
    crop. A divider with a heading lies before each of the two blocks."""
    gallery = Gallery(face, face, count=4)
    fill(gallery, face, [[1.0, 2.0]])
    gallery.write(tmp_path / "faces.png")
    picture = read(tmp_path / "faces.png")
    block = NAME_HEIGHT + 2 * SIDE + EDGE
    assert picture.shape == (2 * (HEADING_HEIGHT + block), 2 * (2 * SIDE + EDGE), 3)
    for top in (HEADING_HEIGHT, 2 * HEADING_HEIGHT + block):
        rows = slice(top + NAME_HEIGHT, top + NAME_HEIGHT + 2 * SIDE)
        for left in (0, 2 * SIDE + EDGE):
            predicted = picture[rows, left : left + SIDE].astype(int)
            truth = picture[rows, left + SIDE : left + 2 * SIDE].astype(int)
            assert (predicted[: SIDE // 2] != predicted[0, 0]).any()  # something is drawn
            assert (abs(predicted - truth).max(-1) > 8).mean() < 0.01
        heading = picture[top - HEADING_HEIGHT : top]
        assert (heading > 200).any()
    # The first of the worst is the second image, which is lighter.
    worst = 2 * HEADING_HEIGHT + block + NAME_HEIGHT
    assert picture[worst, 0, 0] > picture[worst, 2 * SIDE + EDGE, 0]


def test_headings_say_what_and_how_bad(face, tmp_path, monkeypatch):
    said = []

    def heading(text: str, *, width: int, height: int) -> np.ndarray:
        said.append(text)
        return np.zeros((height, width, 3), np.uint8)

    monkeypatch.setattr(module, "draw_heading", heading)
    gallery = Gallery(face, face, count=1)
    fill(gallery, face, [[1.0, 2.5, 2.0]])
    gallery.write(tmp_path / "faces.png")
    about = "; left: predicted, right: truth"
    assert said == [
        "i0: 1.00",
        f"the first 1 of 3 images{about}",
        "i1: 2.50",
        f"the worst 1 of 3 by 68 landmarks{about}",
    ]


def test_without_a_truth_the_photo_stands_alone(face, tmp_path):
    gallery = Gallery(face, count=1)
    points = torch.full((68, 3), 100.0), torch.full((face.uv.face_index.numel(), 3), 100.0)
    image = torch.full((1, 3, SIDE, SIDE), 0.5)
    gallery.add(batch_of([0], fits=False), image, lambda _: points, {}, None)
    assert gallery.first[0].error is None
    gallery.write(tmp_path / "faces.png")
    picture = read(tmp_path / "faces.png")
    assert picture.shape[0] == HEADING_HEIGHT + NAME_HEIGHT + 2 * SIDE + EDGE  # no worst
    truth = picture[HEADING_HEIGHT + NAME_HEIGHT : -EDGE, SIDE : 2 * SIDE]
    assert (truth == 128).all()
