"""The picture that an evaluation leaves: which images it keeps, and that it can be read back."""

import torch

from prnet.datasets.pictures import decode_picture
from prnet.drawing.gallery import Gallery


def fill(gallery: Gallery, face, errors: list[list[float]]) -> None:
    """Batches of images whose grey level tells them apart."""
    number = 0
    mean = face.uv.position_map(face.morphable_model.mean[None] * torch.tensor([5e-4, -5e-4, 5e-4]))
    for batch in errors:
        levels = torch.arange(number, number + len(batch)) / 100
        images = levels[:, None, None, None].expand(-1, 3, 256, 256)
        gallery.add(images, mean.expand(len(batch), -1, -1, -1) + 128, ranked_by_the_first(batch))
        number += len(batch)


def ranked_by_the_first(errors: list[float]) -> dict[str, torch.Tensor]:
    return {"nme_68_2d": torch.tensor(errors), "nme_68_3d": -torch.tensor(errors)}


def kept(shown) -> list[int]:
    """Numbers of the images kept, from their grey level."""
    return [round(int(one.photo[0, 0, 0]) / 255 * 100) for one in shown]


def test_first_and_worst_are_kept(face):
    gallery = Gallery(face, count=2)
    fill(gallery, face, [[1.0, 5.0, 2.0], [9.0, 0.5], [3.0, 7.0]])
    assert kept(gallery.first) == [0, 1]
    assert kept(gallery.worst) == [3, 6]
    assert [one.error for one in gallery.worst] == [9.0, 7.0]


def test_fewer_images_than_places(face, tmp_path):
    gallery = Gallery(face, count=4)
    fill(gallery, face, [[1.0, 2.0]])
    gallery.write(tmp_path / "faces.png")
    picture = decode_picture((tmp_path / "faces.png").read_bytes(), source="the gallery")
    assert picture.shape == (4 * 256, 2 * 256, 3)  # landmarks and meshes, first and worst
    # The second of the worst row is the better image.
    assert picture[2 * 256, 0, 0] > picture[2 * 256, 256, 0]


def test_without_a_metric_all_are_equal(face):
    gallery = Gallery(face, count=2)
    gallery.add(torch.zeros(2, 3, 256, 256), torch.zeros(2, 3, 256, 256), {})
    assert [one.error for one in gallery.worst] == [0.0, 0.0]
