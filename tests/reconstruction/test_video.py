"""Videos in and out: frames, their times, and files that are none."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from prnet.reconstruction import video
from prnet.reconstruction.video import VideoReader, VideoWriter, is_camera, is_video

SIZE = (64, 48)  # width, height, px


def grey(level: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), level, np.uint8)


def write(path: Path, levels: list[int], fps: float, code: str = "mp4v") -> Path:
    """A video of plain frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, SIZE)
    assert writer.isOpened(), f"this build of OpenCV cannot write {code}"
    for level in levels:
        writer.write(grey(level))
    writer.release()
    return path


def levels_of(path: Path) -> list[int]:
    with VideoReader(path) as reader:
        return [round(float(frame.picture.mean())) for frame in reader]


class FakeCapture:
    """Frames at given times, as a decoder or a camera might hand them out."""

    def __init__(self, times_ms: list[float], fps: float) -> None:
        self.times, self.fps, self.at = times_ms, fps, -1

    def read(self):
        self.at += 1
        return (True, grey(self.at)) if self.at < len(self.times) else (False, None)

    def get(self, what: int) -> float:
        values = {cv2.CAP_PROP_FPS: self.fps, cv2.CAP_PROP_FRAME_COUNT: -1.0}
        return values.get(what, self.times[min(max(self.at, 0), len(self.times) - 1)])

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def release(self) -> None:
        pass


@pytest.mark.parametrize("fps", [25.0, 29.97])
def test_frames_come_in_order_with_their_times_and_colours(tmp_path, fps):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps) as writer:
        for k in range(12):
            picture = grey(20 * k)
            picture[..., 0] = 250  # red
            writer.write(picture, k / fps)
        assert not path.exists()
    with VideoReader(path) as reader:
        assert reader.fps == pytest.approx(fps, abs=1e-3)
        assert reader.num_frames == 12
        frames = list(reader)
        assert reader.shortage(len(frames)) is None
    assert [frame.index for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / fps, atol=1e-3)
    for k, frame in enumerate(frames):
        red, green, blue = frame.picture.reshape(-1, 3).mean(0)
        assert abs(red - 250) < 12
        assert abs(green - 20 * k) < 12
        assert abs(blue - 20 * k) < 12


def test_a_written_video_keeps_the_times_of_uneven_frames(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 10.0) as writer:
        for level, time_s in ((0, 0.0), (80, 0.1), (160, 0.42), (240, 0.44)):
            writer.write(grey(level), time_s)
    found = np.array(levels_of(tmp_path / "a.mp4"))
    # The last one comes too early for a frame of its own.
    np.testing.assert_allclose(found, [0, 80, 160, 160, 160], atol=6)


def test_nothing_is_left_of_a_video_that_was_broken_off(tmp_path):
    def broken_off() -> None:
        with VideoWriter(tmp_path / "a.mp4", 10.0) as writer:
            writer.write(grey(9), 0.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0.0, 1000.0, 90000.0, float("nan")])
def test_a_file_without_a_rate_still_has_times(tmp_path, monkeypatch, caplog, fps):
    (tmp_path / "a.webm").write_bytes(b"1")
    times = [0.0, 33.0, 80.0, 81.0, 200.0]
    monkeypatch.setattr(video, "_opened", lambda *_: FakeCapture(times, fps))
    with VideoReader(tmp_path / "a.webm") as reader:
        assert reader.fps == 30
        assert reader.num_frames is None
        found = [frame.time_s for frame in reader]
    np.testing.assert_allclose(found, np.array(times) / 1000)
    assert "names no rate of frames" in caplog.text


@pytest.mark.parametrize(
    "times", [[0.0] * 5, [0.0, 40.0, 20.0, 120.0, 9e9], [float("nan")] * 5, [70.0, 70.0, 150, 1, 2]]
)
def test_times_that_stand_still_or_go_back_are_mended(tmp_path, monkeypatch, times):
    (tmp_path / "a.avi").write_bytes(b"1")
    monkeypatch.setattr(video, "_opened", lambda *_: FakeCapture(times, 25.0))
    with VideoReader(tmp_path / "a.avi") as reader:
        found = np.array([frame.time_s for frame in reader])
    assert found[0] == 0
    assert (np.diff(found) > 0).all()
    assert found[-1] < 1


def test_a_file_cut_in_the_middle_says_so(tmp_path):
    whole = write(tmp_path / "a.avi", [5 * k for k in range(40)], 25.0, "MJPG")
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    with VideoReader(whole) as reader:
        count = sum(1 for _ in reader)
        assert 5 < count < 35
        assert reader.shortage(count) == (f"cut off or damaged, {count} of 40 frames could be read")


def test_what_is_no_video_is_one_line(tmp_path, capfd):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video" * 99)
    cut = write(tmp_path / "cut.mp4", [9] * 30, 25.0)
    cut.write_bytes(cut.read_bytes()[:500])
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4: no such file"):
        VideoReader(tmp_path / "absent.mp4")
    with pytest.raises(ValueError, match=r"empty\.mp4: the file is empty"):
        VideoReader(tmp_path / "empty.mp4")
    for name in ("text.mp4", "cut.mp4"):
        with pytest.raises(ValueError, match=f"{name}: not a video that OpenCV reads"):
            VideoReader(tmp_path / name)
    with pytest.raises(ValueError, match="camera:front: expected a number"):
        VideoReader("camera:front")
    with pytest.raises(ValueError, match="camera:97: no camera of that number"):
        VideoReader("camera:97")


def test_a_video_is_known_by_its_name_or_by_its_content(tmp_path):
    assert is_video("camera:0")
    assert is_camera(Path("camera:0"))
    assert is_video(Path("a.MP4"))
    assert not is_video(Path("a.jpg"))
    moving = write(tmp_path / "a.mp4", [1, 2, 3], 25.0).rename(tmp_path / "moving")
    Image.new("RGB", (20, 20)).save(tmp_path / "picture", "png")
    (tmp_path / "text").write_text("neither")
    assert is_video(moving)
    assert not is_video(tmp_path / "picture")
    assert not is_video(tmp_path / "text")
    assert not is_video(tmp_path / "absent")


def test_a_camera_has_the_clock_for_its_time(monkeypatch):
    monkeypatch.setattr(video, "_opened", lambda *_: FakeCapture([0.0] * 3, 0.0))
    ticks = iter([100.0, 100.2, 101.0])
    monkeypatch.setattr(video.time, "monotonic", lambda: next(ticks))
    with VideoReader("camera:0") as reader:
        found = [frame.time_s for frame in reader]
        assert reader.shortage(3) == "the camera gives no more frames"
    np.testing.assert_allclose(found, [0, 0.2, 1.0])
