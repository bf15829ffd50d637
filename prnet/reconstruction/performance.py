"""One face of a video over time, and what is written of it, by the names of the option `outputs`.

| name                 | file                  | content                                         |
|----------------------|-----------------------|-------------------------------------------------|
| npz                  | STEM.npz              | frames, times, landmarks, pose, coefficients    |
| glb                  | STEM.glb              | the head with shapes and pose that play         |
| landmarks, pose      | STEM_NAME.json        | the same numbers, a list of frames              |
| arkit                | STEM_arkit.json, .csv | the 51 coefficients of every frame              |
| all others           | as of a photo         | of the frame that shows the face best           |

Letters: F frames in which the face was seen, S shape and E expression coefficients.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from prnet.export.gltf import Animation
from prnet.files import csv_text, write_json, write_npz, write_text
from prnet.reconstruction.arkit import (
    LIVE_LINK_COLUMNS,
    BoundedExpression,
    bounded_expression,
    live_link_row,
    named_values,
    time_code,
)
from prnet.reconstruction.glb import METRES, write_face_glb
from prnet.reconstruction.outputs import WRITERS, pose_values
from prnet.reconstruction.reconstructor import FaceReconstruction, HeadPose
from prnet.reconstruction.video import Frame


@dataclass
class Performance:
    """A face's numbers frame by frame; a picture is kept of the best one alone."""

    number: int
    frames: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    landmarks: list[np.ndarray] = field(default_factory=list)
    poses: list[HeadPose] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    shape_params: list[np.ndarray] = field(default_factory=list)
    exp_params: list[np.ndarray] = field(default_factory=list)
    best: FaceReconstruction | None = None
    best_frame: int = 0
    prominence: float = 0.0  # the sum of its sizes, px
    _best_score: float = -1.0

    def add(self, frame: Frame, raw: FaceReconstruction, smoothed: FaceReconstruction) -> None:
        """The next frame: `raw` as predicted, `smoothed` what is written."""
        self.frames.append(frame.index)
        self.times_s.append(frame.time_s)
        self.landmarks.append(smoothed.landmarks)
        self.poses.append(smoothed.pose)
        self.confidences.append(float(raw.confidence or 0.0))
        if smoothed.exp_params is not None and smoothed.shape_params is not None:
            self.shape_params.append(smoothed.shape_params)
            self.exp_params.append(smoothed.exp_params)
        self.prominence += raw.framing.size
        # Sure, large, and seen from the front: what its texture is taken from.
        score = self.confidences[-1] * raw.framing.size * max(raw.pose.rotation[2, 2], 0.05)
        if score > self._best_score:
            self._best_score, self.best, self.best_frame = score, raw, frame.index

    @functools.cached_property
    def coefficients(self) -> np.ndarray:
        """ARKit's, from 0 to 1, (F, E); raises as `require_coefficients`."""
        bounded = require_coefficients(self.best)
        return np.stack([bounded(one) for one in self.exp_params])

    def angles_deg(self) -> np.ndarray:
        """Pitch, yaw, roll, (F, 3)."""
        return np.stack([pose.angles_deg for pose in self.poses])


def require_coefficients(face: FaceReconstruction) -> BoundedExpression:
    """What bounds ARKit's coefficients.

    Raises:
        ValueError: the network or the face has none.
    """
    if face.exp_params is None:
        raise ValueError(
            "outputs=arkit: the network predicts a position map; of a video use one of parameters"
        )
    return bounded_expression(face.face)


def write_performance(
    one: Performance, stem: Path, outputs: Sequence[str], *, fps: float
) -> list[Path]:
    """Write what is asked for of one face; the files. The overlay is of all faces, not here."""
    files: list[Path] = []
    for name in outputs:
        if name in MOVING:
            files += MOVING[name](one, stem, fps)
        elif name != "overlay":
            files += WRITERS[name](one.best, stem)
    return files


def _npz(one: Performance, stem: Path, fps: float) -> list[Path]:
    content = {
        "frames": np.array(one.frames),
        "times_s": np.array(one.times_s),
        "fps": fps,
        "landmarks": np.stack(one.landmarks),
        "pixel_origin": "zero_based",
        "pose_deg": one.angles_deg(),
        "rotation": np.stack([pose.rotation for pose in one.poses]),
        "scale": np.array([pose.scale for pose in one.poses]),
        "translation": np.stack([pose.translation for pose in one.poses]),
        "confidence": np.array(one.confidences),
    }
    if one.exp_params:
        content["shape_params"] = np.stack(one.shape_params)
        content["exp_params"] = np.stack(one.exp_params)
    path = stem.with_name(f"{stem.name}.npz")
    write_npz(path, content)
    return [path]


def _glb(one: Performance, stem: Path, fps: float) -> list[Path]:
    path = stem.with_name(f"{stem.name}.glb")
    times = np.array(one.times_s)
    rotations = np.stack([pose.rotation for pose in one.poses])
    # A weak perspective says where a head is across the picture and not how far.
    places = np.stack([pose.translation / pose.scale for pose in one.poses]) * METRES
    places -= places[0]
    places[:, 2] = 0
    weights = None
    face = one.best
    if one.exp_params and face.face.exp_names is not None:
        weights = one.coefficients
        face = replace(face, shape_params=np.mean(one.shape_params, 0))
    quaternions = Rotation.from_matrix(rotations).as_quat()
    # The shorter way from each key to the next: q and -q are one rotation.
    turns = np.cumprod(np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1, 1))
    quaternions[1:] *= turns[:, None]
    write_face_glb(path, face, animation=Animation(times, weights, quaternions, places))
    return [path]


def _landmarks(one: Performance, stem: Path, fps: float) -> list[Path]:
    rows = [{"landmarks": np.round(points.astype(float), 3).tolist()} for points in one.landmarks]
    content = {"order": "iBUG 68", "pixel_origin": "zero_based"}
    return _json(one, stem.with_name(f"{stem.name}_landmarks.json"), fps, rows, content)


def _pose(one: Performance, stem: Path, fps: float) -> list[Path]:
    rows = [
        pose_values(replace(one.best, pose=pose)) | {"rotation": pose.rotation.tolist()}
        for pose in one.poses
    ]
    return _json(one, stem.with_name(f"{stem.name}_pose.json"), fps, rows, {})


def _arkit(one: Performance, stem: Path, fps: float) -> list[Path]:
    names = bounded_expression(one.best.face).names
    rows = [named_values(names, values) for values in one.coefficients]
    table = stem.with_name(f"{stem.name}_arkit.csv")
    moments = zip(one.times_s, one.coefficients, one.angles_deg(), strict=True)
    lines = [
        live_link_row(names, values, timecode=time_code(time_s, fps), angles_deg=angles)
        for time_s, values, angles in moments
    ]
    write_text(table, csv_text([LIVE_LINK_COLUMNS, *lines]))
    return [*_json(one, stem.with_name(f"{stem.name}_arkit.json"), fps, rows, {}), table]


def _json(
    one: Performance, path: Path, fps: float, rows: Sequence[dict], content: dict
) -> list[Path]:
    moments = zip(one.frames, one.times_s, one.confidences, rows, strict=True)
    frames = [
        {"frame": frame, "time_s": round(time_s, 4), "confidence": round(confidence, 4)} | row
        for frame, time_s, confidence, row in moments
    ]
    write_json(path, content | {"fps": fps, "frames": frames})
    return [path]


MOVING: dict[str, Callable[[Performance, Path, float], list[Path]]] = {
    "npz": _npz,
    "glb": _glb,
    "landmarks": _landmarks,
    "pose": _pose,
    "arkit": _arkit,
}
