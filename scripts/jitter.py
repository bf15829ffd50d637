"""How much faces of a video tremble and lag, with and without smoothing.

    python scripts/jitter.py [--people N] [--checkpoint NAME] > table.md

The still video is the astronaut's portrait, repeated with noise; in the moving ones rendered heads
turn, nod, wander, speak and blink along smooth paths, and the truth is known. Both are written as
MPEG-4 and read back. Trembling is the mean length of the second differences of the 68 landmarks in
2D, the error their mean distance from the truth, both in % of the face's box (the root of its
area); the lag is the delay that explains most of the error.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data

from prnet.datasets.synthetic import SyntheticRule
from prnet.entry import shipped_dataset
from prnet.reconstruction.loading import load
from prnet.reconstruction.reconstructor import FaceReconstruction, Reconstructor
from prnet.reconstruction.smoothing import FaceSmoother, Smoothing
from prnet.reconstruction.tracking import Following, Tracker
from prnet.reconstruction.video import VideoReader, VideoWriter
from prnet.synthetic.parameters import SampleParameters
from prnet.synthetic.world import SyntheticFaces

FPS = 30.0
NOISE = 3.0  # standard deviation, of 255
# Px of a rendered picture, and its sides over those of the face's box.
SIDE, WIDTH = 512, 4.0


class Measured(NamedTuple):
    """Of one video."""

    trembling: float  # % of the box
    error: float  # % of the box
    lag_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=3, help="moving videos, one a person")
    parser.add_argument("--frames", type=int, default=180)
    parser.add_argument("--checkpoint", default="default")
    options = parser.parse_args()
    reconstructor = load(options.checkpoint)
    ways = {"as predicted": lambda: None, "smoothed": lambda: FaceSmoother(Smoothing())}
    rows: dict[str, list[list[float]]] = {name: [] for name in ("truth", *ways)}
    still = list(followed(reconstructor, noisy_photo(options.frames)))
    trembling = {name: trembling_of(smoothed(still, way)) for name, way in ways.items()}
    for person in range(options.people):
        print(f"person {person + 1} of {options.people}", file=sys.stderr)
        pictures, truth = moving_head(person, options.frames)
        found = list(followed(reconstructor, pictures))
        rows["truth"].append(measured(truth, truth))
        for name, way in ways.items():
            rows[name].append(measured(smoothed(found, way), truth))
    print("| landmarks | still: trembling, % | moving: trembling, % | error, % | lag, ms |")
    print("|---|---|---|---|---|")
    for name, values in rows.items():
        moving = Measured(*np.mean(values, 0))
        shown = f"{trembling[name]:.3f}" if name in trembling else ""
        cells = f"{moving.trembling:.3f} | {moving.error:.2f} | {moving.lag_ms:.0f}"
        print(f"| {name} | {shown} | {cells} |")


def noisy_photo(frames: int) -> Iterator[np.ndarray]:
    """One photo again and again."""
    random = np.random.default_rng(0)
    photo = skimage.data.astronaut()
    for _ in range(frames):
        noise = random.normal(0, NOISE, photo.shape)
        yield np.rint(photo + noise).clip(0, 255).astype(np.uint8)


def moving_head(person: int, frames: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures of a rendered head that moves, and its landmarks, (F, 68, 3), px."""
    values = shipped_dataset("synthetic")
    values["world"] |= {"crop_scale": WIDTH, "occluder_share": 0.0, "border_share": 0.0}
    faces = SyntheticFaces(SyntheticRule.from_values(values).world, size=SIDE)
    first = faces.parameters(person)
    names = faces.head.exp_names
    pictures, truth = [], []
    for k in range(frames):
        item = moved(first, k / FPS, names)._replace(index=k)  # the film's noise goes by it
        rendered = faces.renderer([item], faces.bank(0))
        pictures.append((255 * rendered.image[0].permute(1, 2, 0)).round().byte().numpy())
        truth.append(rendered.landmarks[0].numpy())
    return pictures, np.stack(truth)


def moved(first: SampleParameters, time_s: float, names: tuple[str, ...]) -> SampleParameters:
    """A person at a time: turning to 35 degrees, nodding, wandering by half a face, speaking."""

    def wave(hertz: float, phase: float = 0.0) -> float:
        return float(np.sin(2 * np.pi * hertz * time_s + phase))

    exp_params = np.zeros(len(names))
    exp_params[names.index("jawOpen")] = 0.25 * (1 + wave(1.5))
    exp_params[names.index("mouthSmileLeft")] = 0.3 * (1 + wave(0.3))
    exp_params[names.index("mouthSmileRight")] = 0.3 * (1 + wave(0.3))
    blink = max(0.0, 1 - abs((time_s % 2.0) - 1.0) / 0.12)
    for side in ("Left", "Right"):
        exp_params[names.index(f"eyeBlink{side}")] = blink
    pose = first.pose._replace(
        yaw=np.radians(35) * wave(0.35),
        nod=np.radians(8) * wave(0.5, 1.0),
        pitch=0.0,
        roll=np.radians(8) * wave(0.25, 2.0),
    )
    framing = first.framing._replace(
        scale=WIDTH * (1 + 0.15 * wave(0.2)),
        shift=np.array([0.5 * wave(0.3, 0.5), 0.25 * wave(0.4)]),
    )
    return first._replace(exp_params=exp_params, pose=pose, framing=framing)


def followed(
    reconstructor: Reconstructor, pictures: Iterator[np.ndarray] | list[np.ndarray]
) -> Iterator[FaceReconstruction]:
    """The first face of every frame, after the pictures were a video."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.mp4"
        with VideoWriter(path, FPS) as writer:
            for number, picture in enumerate(pictures):
                writer.write(picture, number / FPS)
        tracker = Tracker(reconstructor, Following())
        with VideoReader(path) as reader:
            for frame in reader:
                faces = tracker(frame.picture, frame.time_s)
                if len(faces) != 1 or faces[0].number != 1:
                    raise RuntimeError(f"frame {frame.index}: {len(faces)} faces, expected one")
                yield faces[0].face


def smoothed(faces: list[FaceReconstruction], way: Callable[[], FaceSmoother | None]) -> np.ndarray:
    """Landmarks, (F, 68, 3)."""
    smoother = way()
    if smoother is None:
        return np.stack([face.landmarks for face in faces])
    return np.stack([smoother(face, k / FPS).landmarks for k, face in enumerate(faces)])


def trembling_of(landmarks: np.ndarray) -> float:  # (F, 68, 3)
    """Second differences, % of the box."""
    points = landmarks[..., :2]
    length = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1)
    return float(100 * (length / box_sides(points)[1:-1, None]).mean())


def measured(landmarks: np.ndarray, truth: np.ndarray) -> Measured:  # (F, 68, 3)
    """The lag is the least-squares delay of the truth, landmarks' constant offsets left out."""
    apart = landmarks[..., :2] - truth[..., :2]
    error = 100 * (np.linalg.norm(apart, axis=-1) / box_sides(truth)[:, None]).mean()
    speed = FPS * np.gradient(truth[..., :2], axis=0)
    offset = apart - apart.mean(0)
    lag = -(offset * speed).sum() / np.maximum((speed**2).sum(), 1e-9)
    return Measured(trembling_of(landmarks), float(error), float(1000 * lag))


def box_sides(points: np.ndarray) -> np.ndarray:  # (F, 68, 2 or more)
    """Roots of the boxes' areas, (F,), px."""
    return np.sqrt(np.prod(np.ptp(points[..., :2], axis=1), -1))


if __name__ == "__main__":
    main()
