"""One video or camera, from its frames to the files of every face and the overlay."""

import contextlib
import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from prnet.reconstruction.outputs import MORE, drawn_over, face_record
from prnet.reconstruction.performance import (
    Performance,
    require_coefficients,
    write_performance,
)
from prnet.reconstruction.reconstructor import FaceReconstruction, Reconstructor
from prnet.reconstruction.smoothing import FaceSmoother, Smoothing
from prnet.reconstruction.tracking import Following, Tracker
from prnet.reconstruction.video import Frame, VideoReader, VideoWriter

log = logging.getLogger(__name__)

# A face that is seen in fewer frames was none.
LEAST_FRAMES = 5


class VideoSettings(NamedTuple):
    """What decides the files of a video beside the settings of photos."""

    following: Following = Following()
    smoothing: Smoothing | None = Smoothing()  # None: as predicted
    max_frames: int | None = None  # None: all of them; a camera until it is stopped

    def plain(self) -> dict:
        """As JSON has it."""
        smoothing = self.smoothing and {
            name: one._asdict() for name, one in self.smoothing._asdict().items()
        }
        return self._asdict() | {"following": self.following._asdict(), "smoothing": smoothing}


@dataclass
class _Watched:
    """What came of the frames."""

    performances: dict[int, Performance] = field(default_factory=dict)
    num_frames: int = 0
    size: tuple[int, int] = (0, 0)  # width, height, px
    time_s: float = 0.0  # of the last frame
    stopped: bool = False  # by Ctrl-C


def reconstruct_video(
    reader: VideoReader,
    stem: Path,  # folder and the start of the files' names
    reconstructor: Reconstructor,
    outputs: tuple[str, ...],
    settings: VideoSettings,
    *,
    progress: bool = True,
) -> tuple[dict, bool]:
    """Write what is asked for of every face of a video; what faces.json says of it, and whether
    Ctrl-C ended it.

    If it ends early, by Ctrl-C or because the file is cut off or damaged, what was done before is
    written, and the record says why; a camera has no other end.

    Raises:
        ValueError: `outputs` that the network has not.
    """
    limit, folder = settings.max_frames, stem.parent
    overlay = None
    with contextlib.ExitStack() as opened:
        if "overlay" in outputs:
            overlay = VideoWriter(stem.with_name(f"{stem.name}_overlay.mp4"), reader.fps)
            opened.enter_context(overlay)
        bar = tqdm(
            itertools.islice(reader, limit),
            desc=Path(reader.source).name,
            unit="frame",
            total=min(filter(None, (limit, reader.num_frames)), default=None),
            disable=not progress,
        )
        frames = opened.enter_context(bar)
        watched = _watch(frames, reconstructor, settings, overlay, arkit="arkit" in outputs)
    least = min(LEAST_FRAMES, watched.num_frames)
    kept = [one for one in watched.performances.values() if len(one.frames) >= least]
    faces = []
    for rank, one in enumerate(sorted(kept, key=lambda one: -one.prominence)):
        place = stem if rank == 0 else folder / MORE / f"{stem.name}_{one.number}"
        written = write_performance(one, place, outputs, fps=reader.fps)
        faces.append(_face(one, [path.relative_to(folder).as_posix() for path in written]))
    record = {
        "width": watched.size[0],
        "height": watched.size[1],
        "fps": round(reader.fps, 4),
        "frames": watched.num_frames,
        "seconds": round(watched.time_s, 3),
        "files": [overlay.path.name] if overlay is not None and watched.num_frames else [],
        "faces": faces,
    }
    why = None
    if watched.stopped and not reader.is_camera:
        why = f"stopped after {watched.num_frames} frames"
    elif not watched.stopped and watched.num_frames != limit:
        why = reader.shortage(watched.num_frames)
    if not faces and why is None:
        why = "no face found"
    return record | ({} if why is None else {"why": why}), watched.stopped


def _watch(
    frames: Iterable[Frame],
    reconstructor: Reconstructor,
    settings: VideoSettings,
    overlay: VideoWriter | None,
    *,
    arkit: bool,
) -> _Watched:
    """The faces of all frames, until they or the user's patience end."""
    watched = _Watched()
    tracker = Tracker(reconstructor, settings.following)
    smoothers: dict[int, FaceSmoother] = {}
    try:
        for frame in frames:
            shown = {}
            for number, raw in tracker(frame.picture, frame.time_s):
                face = raw
                if arkit and not watched.performances:
                    require_coefficients(raw)  # now, not after the last frame
                if settings.smoothing is not None:
                    smoother = smoothers.setdefault(number, FaceSmoother(settings.smoothing))
                    face = smoother(raw, frame.time_s)
                one = watched.performances.setdefault(number, Performance(number))
                one.add(frame, raw, face)
                shown[number] = face
            if overlay is not None:
                overlay.write(drawn(frame.picture, shown), frame.time_s)
            watched.num_frames, watched.time_s = frame.index + 1, frame.time_s
            watched.size = frame.picture.shape[1::-1]
    except KeyboardInterrupt:
        watched.stopped = True
    return watched


def _face(one: Performance, files: list[str]) -> dict:
    """A line of faces.json: box and pose are those of its best frame."""
    return {
        "number": one.number,
        "first_frame": one.frames[0],
        "last_frame": one.frames[-1],
        "frames": len(one.frames),
        "best_frame": one.best_frame,
        **face_record(one.best, files),
        "confidence": round(float(np.mean(one.confidences)), 4),
    }


def drawn(picture: np.ndarray, faces: dict[int, FaceReconstruction]) -> np.ndarray:
    """A frame with the mesh, the landmarks and the number of each face, (H, W, 3), uint8 RGB."""
    for number, face in faces.items():
        picture = drawn_over(picture, face)
        size = face.framing.size / 120
        corner = face.landmarks[:, :2].min(0) - [0, 0.1 * face.framing.size]
        place = tuple(int(value) for value in corner.clip(-1e4, 1e4))
        thickness = max(round(2 * size), 1)
        for color, width in (((0, 0, 0), 3 * thickness), ((255, 255, 255), thickness)):
            picture = cv2.putText(
                np.ascontiguousarray(picture),
                *(str(number), place, cv2.FONT_HERSHEY_SIMPLEX, max(size, 0.5), color, width),
                lineType=cv2.LINE_AA,
            )
    return picture
