"""Made-up benchmarks as their authors store them: AFLW, AFLW-LFPA and renderings of Florence."""

import json
from pathlib import Path

import numpy as np

from prnet.datasets.aflw import POINT_GROUPS
from prnet.datasets.pictures import write_picture

AFLW_NAMES = ("image00002", "image00004", "image00006")
AFLW_YAWS_DEG = (-12.0, 45.0, 105.0)
# The side of AFLW's pictures, px.
SIDE = 450
# Squares in px from 1, ends included; the second leaves the picture at the right.
SQUARES = np.array([[101, 121, 220, 240], [231, 61, 470, 300], [1, 40, 180, 219]])
STORED = np.array([[101, 121, 220, 240], [231, 61, 450, 300], [1, 40, 180, 219]])
LFPA_NAMES = ["a", "b/c"]
LFPA_YAWS_DEG = [10.0, -70.0]
FLORENCE_YAWS_DEG = (0, 40, 80)


def painted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth picture, at zero-based px."""
    return np.stack([100 + 0.2 * x, 100 + 0.2 * y, 120 + 0.1 * (x - y)], -1)


def crop_of(square: np.ndarray) -> np.ndarray:
    """120 x 120 px of the picture, black beyond it: each averages its part of the square."""
    steps = (np.arange(120) + 0.5) / 120
    size = square[2] - square[0] + 1
    x, y = np.meshgrid(square[0] - 1.5 + steps * size, square[1] - 1.5 + steps * size)
    colors = painted(x, y)
    inside = (x > -0.5) & (y > -0.5) & (x < SIDE - 0.5) & (y < SIDE - 0.5)
    return np.rint(colors * inside[..., None]).astype(np.uint8)


def write_aflw(data_dir: Path) -> None:
    """Three faces as 3DDFA stores them."""
    folder = data_dir / "AFLW"
    (folder / "AFLW_GT_crop").mkdir(parents=True)
    random = np.random.default_rng(0)
    landmarks = np.zeros((3, 2, 68))
    points = np.zeros((3, 2, 21))
    for index, (name, square) in enumerate(zip(AFLW_NAMES, SQUARES, strict=True)):
        write_picture(folder / "AFLW_GT_crop" / f"{name}.png", crop_of(square))
        size = square[2] - square[0]
        landmarks[index] = square[:2, None] + size * random.uniform(0.2, 0.8, (2, 68))
        points[index] = np.stack([landmarks[index][:, list(g)].mean(1) for g in POINT_GROUPS], 1)
    # Not visible: x is -1, y the flipped -1 as in the published file.
    points[:, 0, 16], points[:, 1, 16] = -1, 452
    (folder / "AFLW_GT_crop.list").write_text("".join(f"{name}.png\n" for name in AFLW_NAMES))
    np.save(folder / "AFLW_GT_crop_roi_box.npy", STORED.astype(np.uint16))
    np.save(folder / "AFLW_GT_crop_yaws.npy", np.array(AFLW_YAWS_DEG, dtype=np.float32))
    np.save(folder / "AFLW_GT_pts21.npy", points)
    np.save(folder / "AFLW_GT_pts68.npy", landmarks)


def lfpa_content() -> dict[str, np.ndarray]:
    """The annotations of two faces."""
    random = np.random.default_rng(0)
    visible = random.random((2, 34)) < 0.7
    visible[:, 0] = True
    points = random.uniform(20, 80, (2, 34, 2))
    points[~visible] = np.nan
    return {
        "names": np.array(LFPA_NAMES),
        "boxes": np.array([[10.0, 20, 90, 84], [5, 5, 95, 95]]),
        "points": points,
        "visible": visible,
        "yaws_deg": np.array(LFPA_YAWS_DEG),
    }


def write_lfpa(data_dir: Path) -> None:
    """Those faces, and pictures of nothing."""
    folder = data_dir / "AFLW_LFPA"
    (folder / "b").mkdir(parents=True)
    np.savez(folder / "landmarks.npz", **lfpa_content())
    picture = np.random.default_rng(1).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    write_picture(folder / "a.png", picture)
    write_picture(folder / "b" / "c.jpg", picture)


def write_florence(data_dir: Path, points: np.ndarray) -> None:
    """Pictures of nothing as renderings, one a yaw; the truth of all are `points` (M, 3), px."""
    folder = data_dir / "Florence_renderings" / "anna"
    folder.mkdir(parents=True)
    (folder.parent / "renderings.json").write_text(json.dumps({"region": "nose_radius"}))
    (folder / "subject.json").write_text("{}")
    picture = np.random.default_rng(2).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    for yaw_deg in FLORENCE_YAWS_DEG:
        name = f"anna_p+20_y{yaw_deg:+d}"
        write_picture(folder / f"{name}.png", picture)
        eyes = np.array([[70.0, 90, 0], [130, 90, 0]])
        truth = {"vertices": points.astype(np.float32), "outer_eyes": eyes}
        np.savez(folder / f"{name}.npz", **truth, pitch_deg=20.0, yaw_deg=float(yaw_deg))
