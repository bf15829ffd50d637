"""One video or camera, from its frames to the files of every face and the overlay."""

import contextlib
import logging
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from prnet.drawing.pictures import draw_landmarks, draw_mesh
from prnet.reconstruction.outputs import MORE, face_record
from prnet.reconstruction.performance import Performance, write_performance
from prnet.reconstruction.reconstructor import FaceReconstruction, Reconstructor
from prnet.reconstruction.smoothing import FaceSmoother, Smoothing
from prnet.reconstruction.tracking import Following, Tracker
from prnet.reconstruction.video import VideoReader, VideoWriter, is_camera

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


class Interrupted(NamedTuple):
    """How a run went that Ctrl-C may have ended."""

    record: dict
    stopped: bool


def reconstruct_video(
    source: Path,
    stem: str,
    output: Path,
    reconstructor: Reconstructor,
    outputs: tuple[str, ...],
    settings: VideoSettings,
    *,
    progress: bool = True,
) -> Interrupted:
    """Write what is asked for of every face of a video; its record for faces.json.

    Whatever ends it early, a damaged file, a full disk or Ctrl-C, what was done before is written
    and the record says why.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, or one without a frame.
    """
    performances: dict[int, Performance] = {}
    record: dict = {"input": str(source), "stem": stem}
    stopped, files, last = False, [], None
    with contextlib.ExitStack() as opened:
        reader = opened.enter_context(VideoReader(source))
        overlay = None
        if "overlay" in outputs:
            path = output / f"{stem}_overlay.mp4"
            overlay = opened.enter_context(VideoWriter(path, reader.fps))
            files.append(path)
        limit = settings.max_frames
        total = min(filter(None, (limit, reader.num_frames)), default=None)
        bar = opened.enter_context(
            tqdm(reader, desc=source.name, unit="frame", total=total, disable=not progress)
        )
        tracker = Tracker(reconstructor, settings.following)
        smoothers: dict[int, FaceSmoother] = {}
        try:
            for frame in bar:
                tracked = tracker(frame.picture, frame.time_s)
                shown = {}
                for number, raw in tracked:
                    face = raw
                    if settings.smoothing is not None:
                        smoother = smoothers.setdefault(number, FaceSmoother(settings.smoothing))
                        face = smoother(raw, frame.time_s)
                    performances.setdefault(number, Performance(number)).add(frame, raw, face)
                    shown[number] = face
                if overlay is not None:
                    overlay.write(drawn(frame.picture, shown), frame.time_s)
                last = frame
                if limit is not None and frame.index + 1 >= limit:
                    break
        except KeyboardInterrupt:
            stopped = True
        if last is None:
            why = reader.shortage(0)
            raise ValueError(why if why and not stopped else f"{source}: stopped before a frame")
    num_frames = last.index + 1
    record |= {
        "width": last.picture.shape[1],
        "height": last.picture.shape[0],
        "fps": round(reader.fps, 4),
        "frames": num_frames,
        "seconds": round(last.time_s, 3),
        "faces": [],
    }
    least = min(LEAST_FRAMES, num_frames)
    kept = [one for one in performances.values() if len(one.frames) >= least]
    for rank, one in enumerate(sorted(kept, key=lambda one: -one.prominence)):
        place = output / stem if rank == 0 else output / MORE / f"{stem}_{one.number}"
        written = write_performance(one, place, outputs, fps=reader.fps)
        record["faces"].append(
            _face(one, [path.relative_to(output).as_posix() for path in written])
        )
    record["files"] = [path.relative_to(output).as_posix() for path in files]
    whole = limit is not None and num_frames >= limit
    why = None if whole else reader.shortage(num_frames)
    if stopped and not is_camera(source):
        why = f"{source}: stopped after {num_frames} frames"
    if not kept and why is None:
        why = f"{source}: no face found"
    if why is not None and not (stopped and is_camera(source)):
        log.warning("%s", why)
        record["why"] = why.removeprefix(f"{source}: ")
    return Interrupted(record, stopped)


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
        picture = draw_mesh(picture, face.vertices, torch.from_numpy(face.triangles), opacity=0.5)
        picture = draw_landmarks(picture, face.landmarks, stroke=face.framing.size / 170)
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
