"""Videos and cameras: frames with their times, and a video that is written at those times.

OpenCV's own FFmpeg decodes what it is given and encodes MPEG-4 Part 2, which needs no licence of
a codec and is in every one of its builds.
"""

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from prnet.files import written_whole
from prnet.reconstruction.photos import SUFFIXES as PHOTO_SUFFIXES

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)
CAMERA = "camera:"
# Where a file names no rate, or one that only says how finely it counts time (1000, 90000).
FALLBACK_FPS = 30.0
MOST_FPS = 500.0
# A longer step between two frames is a fault of the file's times, s.
LONGEST_STEP = 10.0
# The share of the frames that a file promises; some promise a few more than they hold.
WHOLE = 0.97


class Frame(NamedTuple):
    """One picture of a video."""

    index: int  # from 0
    time_s: float  # since the first frame, ascending
    picture: np.ndarray  # (H, W, 3), uint8 RGB, upright


def is_camera(source: Path | str) -> bool:
    """`camera:0` and so on."""
    return str(source).startswith(CAMERA)


def is_video(source: Path | str) -> bool:
    """A camera, or a file to be read as a video: by its suffix, and where that says nothing, by
    whether it is a picture."""
    path = Path(source)
    suffix = path.suffix.lower()
    if is_camera(source) or suffix in SUFFIXES:
        return True
    if suffix in PHOTO_SUFFIXES or not path.is_file():
        return False
    with contextlib.suppress(OSError, UnidentifiedImageError), Image.open(path):
        return False
    return _opened(str(path), cv2.CAP_FFMPEG).isOpened()


class VideoReader:
    """The frames of a file or of a camera, each once."""

    def __init__(self, source: Path | str) -> None:
        """Open it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a video that OpenCV reads, or no camera of that number.
        """
        self.source = str(source)
        self.is_camera = is_camera(source)
        if self.is_camera:
            self._capture = _camera(self.source)
        else:
            self._capture = _file(Path(source))
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        known = math.isfinite(fps) and 0 < fps <= MOST_FPS
        if not known and not self.is_camera:
            log.warning(
                "%s: names no rate of frames (%g); what is written has %g frames a second",
                *(self.source, fps, FALLBACK_FPS),
            )
        self.fps = fps if known else FALLBACK_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = int(count) if 0 < count < 1e9 and not self.is_camera else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """Frames until there are no more."""
        started, last = 0.0, -1.0 / self.fps
        index = 0
        while True:
            read, picture = self._capture.read()
            if not read or picture is None:
                return
            now = time.monotonic() if self.is_camera else self._stored_time()
            started = now if index == 0 else started
            # Files without times give 0, or the last one again.
            if not 0 < now - started - last <= LONGEST_STEP:
                now = started + last + 1 / self.fps
            last = now - started
            yield Frame(index, last, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            index += 1

    def _stored_time(self) -> float:
        seconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        return seconds if math.isfinite(seconds) else 0.0

    def shortage(self, frames_read: int) -> str | None:
        """What is wrong where the frames ended after so many; None: nothing."""
        if self.is_camera:
            return "the camera gives no more frames"
        if frames_read == 0:
            return "a video without a frame that can be read"
        if self.num_frames is not None and frames_read < WHOLE * self.num_frames:
            return f"cut off or damaged, {frames_read} of {self.num_frames} frames could be read"
        return None


def _opened(source: str | int, backend: int) -> cv2.VideoCapture:
    """Open without what OpenCV and FFmpeg would say on the terminal: the error says it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source, backend)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _file(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    capture = _opened(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise ValueError(
            f"{path}: not a video that OpenCV reads, or cut off before its index; try to convert "
            "it, as with ffmpeg -i FILE out.mp4"
        )
    return capture


def _camera(source: str) -> cv2.VideoCapture:
    number = source.removeprefix(CAMERA)
    if not number.isdecimal():
        raise ValueError(f"input={source}: expected a number, as in camera:0")
    capture = _opened(int(number), cv2.CAP_ANY)
    if not capture.isOpened():
        raise ValueError(f"input={source}: no camera of that number, or another program has it")
    return capture


class VideoWriter:
    """An MP4 of constant rate: a frame is shown from its time on, repeated or left out as the rate
    has it."""

    def __init__(self, path: Path, fps: float) -> None:
        """The file appears, whole, when the block that the writer is used in ends; without a frame
        there is none."""
        self.path, self.fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._written = 0
        self._whole = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()
        self._whole.__exit__(*error)

    def write(self, picture: np.ndarray, time_s: float) -> None:
        """Add one frame, (H, W, 3), uint8 RGB, of the size of the first.

        Raises:
            OSError: the video cannot be encoded or written.
        """
        if self._writer is None:
            temporary = self._whole.enter_context(written_whole(self.path))
            size = picture.shape[1::-1]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(temporary), code, self.fps, size)
            if not self._writer.isOpened():
                raise OSError(f"{self.path}: a video of {size} px could not be opened to write")
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        for _ in range(round(time_s * self.fps) + 1 - self._written):
            self._writer.write(bgr)
            self._written += 1
