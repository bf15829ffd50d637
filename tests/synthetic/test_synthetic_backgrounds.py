"""Backgrounds and flat occluders of the synthetic world."""

import cv2
import numpy as np
import pytest

from prnet.synthetic.backgrounds import (
    KIND_SHARES,
    KINDS,
    OCCLUDER_SHARES,
    OCCLUDERS,
    BackgroundFolder,
    occluder,
    procedural_background,
)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [64, 256, 320])
def test_background_is_a_picture_and_a_function_of_the_generator(size):
    picture = procedural_background(generator(1), size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, procedural_background(generator(1), size))


def test_backgrounds_vary():
    pictures = np.stack([procedural_background(generator(seed), 64) for seed in range(120)])
    brightness = pictures.mean((1, 2, 3))
    assert brightness.min() < 25
    assert brightness.max() > 225
    assert len({picture.tobytes() for picture in pictures}) > 0.95 * len(pictures)
    plain = pictures.std((1, 2)).mean(1) < 12
    assert 0.05 < plain.mean() < 0.5


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_is_finite_and_mostly_in_range(make):
    for seed in range(3):
        canvas = make(generator(seed))
        assert canvas.ndim == 3
        assert canvas.shape[2] == 3
        assert np.isfinite(canvas).all()
        assert np.percentile(canvas, 1) > -0.2
        assert np.percentile(canvas, 50) < 1.2


def test_shares_are_distributions():
    assert sum(KIND_SHARES) == pytest.approx(1)
    assert sum(OCCLUDER_SHARES) == pytest.approx(1)
    assert len(KIND_SHARES) == len(KINDS)
    assert len(OCCLUDER_SHARES) == len(OCCLUDERS)


def test_occluder_is_a_picture_and_a_cover():
    covers = []
    for seed in range(80):
        color, alpha = occluder(generator(seed), 96)
        assert color.shape == (96, 96, 3)
        assert color.dtype == np.uint8
        assert alpha.shape == (96, 96)
        assert alpha.dtype == np.float32
        assert alpha.min() >= 0
        assert alpha.max() <= 1
        covers.append(alpha)
    again = occluder(generator(79), 96)
    assert np.array_equal(again[0], color)
    assert np.array_equal(again[1], alpha)
    covered = np.stack(covers).mean((1, 2))
    assert (covered > 0.02).mean() > 0.7
    assert np.median(covered) < 0.3
    assert covered.max() < 0.97


def write(path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def test_folder_finds_pictures_below_and_reads_squares(tmp_path):
    write(tmp_path / "red.png", np.full((40, 90, 3), (0, 0, 200), np.uint8))
    write(tmp_path / "deep" / "er" / "blue.JPG", np.full((200, 50, 3), (200, 0, 0), np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    folder = BackgroundFolder(tmp_path)
    assert len(folder.paths) == 2
    means = np.stack([folder.read(generator(seed), 32).mean((0, 1)) for seed in range(20)])
    red = means[:, 0] > 150
    assert 0 < red.sum() < 20
    np.testing.assert_allclose(means[red], [[200, 0, 0]] * red.sum(), atol=3)
    np.testing.assert_allclose(means[~red], [[0, 0, 200]] * (~red).sum(), atol=3)
    assert folder.read(generator(0), 32).shape == (32, 32, 3)


def test_folder_crops_are_parts_of_the_picture(tmp_path):
    ramp = np.tile(np.arange(128, dtype=np.uint8)[:, None, None], (1, 128, 3))
    write(tmp_path / "ramp.png", ramp)
    folder = BackgroundFolder(tmp_path)
    starts, spans = [], []
    for seed in range(20):
        square = folder.read(generator(seed), 16)
        assert np.array_equal(square, folder.read(generator(seed), 16))
        column = square[:, 0, 0].astype(int)
        assert (np.diff(column) >= 0).all()
        starts.append(column[0])
        spans.append(column[-1] - column[0])
    assert min(spans) < 60
    assert max(spans) > 90
    assert max(starts) > 30


def test_folder_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        BackgroundFolder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: holds no background picture"):
        BackgroundFolder(tmp_path / "empty")
    for content in (b"", b"not a picture"):
        (tmp_path / "broken.jpg").write_bytes(content)
        folder = BackgroundFolder(tmp_path)
        with pytest.raises(ValueError, match=r"broken\.jpg: not a picture"):
            folder.read(generator(0), 32)
