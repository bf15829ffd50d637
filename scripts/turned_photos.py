"""How exact faces are that lie in their photos: copies of upright ones, turned by several angles.

python scripts/turned_photos.py --data-dir DIR [--every N] [--angles 0,90,180] > table.md

DIR/AFLW2000 holds pictures with 68 landmarks in AFLW2000-3D's layout (README, "A fit from 68
landmarks", makes it of photos of your own). The error is the mean distance of the landmarks in the
plane, % of the box of the true ones in the upright photo; a face that is not found counts 100.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from prnet.datasets.fits import FacePair, find_aflw2000, read_fit
from prnet.datasets.pictures import decode_picture
from prnet.geometry.camera import pixel_origin_shift
from prnet.reconstruction.loading import load
from prnet.reconstruction.reconstructor import Reconstructor

# Upright: the eyes lie above the mouth but for so much.
LEAST_TILT_DEG = 15
NOT_FOUND = 100.0
LOST = 20.0  # an error beyond this is another face's, or of one taken for upside down
EYES, MOUTH = slice(36, 48), [48, 54]


class Photo(NamedTuple):
    name: str
    picture: np.ndarray  # (H, W, 3), uint8 RGB
    landmarks: np.ndarray  # (68, 2), px


def read_photo(pair: FacePair) -> Photo:
    landmarks = read_fit(pair.fit).landmarks
    if landmarks is None:
        raise ValueError(f"{pair.fit}: no pt3d_68, the 68 landmarks")
    points = landmarks[:, :2] + np.array(pixel_origin_shift("matlab", "zero_based"))
    picture = decode_picture(pair.read_picture(), source=pair.picture)
    return Photo(pair.name, picture, points)


def is_upright(photo: Photo) -> bool:
    down = photo.landmarks[MOUTH].mean(0) - photo.landmarks[EYES].mean(0)
    return abs(np.degrees(np.arctan2(-down[0], down[1]))) < LEAST_TILT_DEG


def turned(photo: Photo, angle_deg: float) -> Photo:
    """Anti-clockwise about the picture's centre, black around, nothing cut off."""
    height, width = photo.picture.shape[:2]
    side = int(np.ceil(np.hypot(height, width)))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1)
    matrix[:, 2] += (side - np.array([width, height])) / 2
    points = photo.landmarks @ matrix[:, :2].T + matrix[:, 2]
    return Photo(photo.name, cv2.warpAffine(photo.picture, matrix, (side, side)), points)


def error_percent(reconstructor: Reconstructor, photo: Photo, size: float) -> float:
    """Of the face that lies nearest to the true one."""
    middle = photo.landmarks.mean(0)
    found = [face.landmarks[:, :2] for face in reconstructor(photo.picture)]
    if not found:
        return NOT_FOUND
    nearest = min(found, key=lambda points: np.linalg.norm(points.mean(0) - middle))
    return 100 * float(np.linalg.norm(nearest - photo.landmarks, axis=1).mean()) / size


def table(errors: np.ndarray, angles: list[float], names: list[str]) -> list[str]:  # (P, A)
    rows = {
        "mean": [f"{value:.2f}" for value in errors.mean(0)],
        "median": [f"{value:.2f}" for value in np.median(errors, 0)],
        f"error over {LOST:g}, or not found": [str(n) for n in (errors > LOST).sum(0)],
    }
    lines = [
        f"{len(errors)} upright photos, NME of 68 landmarks in 2D, %",
        "",
        f"| turned by, degrees | {' | '.join(f'{angle:g}' for angle in angles)} |",
        "|---" * (len(angles) + 1) + "|",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
        "",
    ]
    for angle, column in zip(angles, errors.T, strict=True):
        lost = [f"{names[i]} ({column[i]:.0f})" for i in np.flatnonzero(column > LOST)]
        lines.append(f"* {angle:g}: {', '.join(lost) or 'none lost'}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--every", type=int, default=1, help="take every N-th upright photo")
    parser.add_argument("--angles", default="0,30,60,90,120,150,180", help="degrees")
    options = parser.parse_args()
    angles = [float(angle) for angle in options.angles.split(",")]
    torch.set_num_threads(1)
    reconstructor = load(options.checkpoint, data_dir=options.data_dir)
    photos = [read_photo(pair) for pair in find_aflw2000(options.data_dir)]
    photos = [photo for photo in photos if is_upright(photo)][:: options.every]
    errors = np.zeros((len(photos), len(angles)))
    for row, photo in enumerate(tqdm(photos, unit="photo")):
        size = float(np.sqrt(np.prod(np.ptp(photo.landmarks, axis=0))))
        for column, angle in enumerate(angles):
            there = turned(photo, angle)
            errors[row, column] = error_percent(reconstructor, there, size)
    print("\n".join(table(errors, angles, [photo.name for photo in photos])))


if __name__ == "__main__":
    main()
