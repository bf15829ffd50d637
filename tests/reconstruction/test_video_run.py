"""A video from its frames to its files, each read back, and every way in which it may end."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.spatial.transform import Rotation

from prnet.entry import CONFIG_DIR
from prnet.reconstruct import video_settings
from prnet.reconstruction import video, video_run
from prnet.reconstruction.arkit import time_code
from prnet.reconstruction.outputs import WRITERS
from prnet.reconstruction.performance import MOVING
from prnet.reconstruction.run import Settings, find_photos, reconstruct_photos
from prnet.reconstruction.smoothing import Smoothing
from prnet.reconstruction.video import VideoWriter
from prnet.reconstruction.video_run import VideoSettings
from tests.gltf_validator import needs_validator, require_valid

FRAMES, FPS = 8, 12.5
OUTPUTS = ("npz", "glb", "overlay", "landmarks", "pose", "arkit", "texture")
SETTINGS = Settings("default", ("npz",), "detector", 0.6)


@pytest.fixture(scope="module")
def film(tmp_path_factory, astronaut) -> Path:
    """Her head, tilting."""
    path = tmp_path_factory.mktemp("film") / "head.mp4"
    with VideoWriter(path, FPS) as writer:
        for k in range(FRAMES):
            turn = cv2.getRotationMatrix2D((225.0, 130.0), 2.5 * k - 8, 1.0)
            turn[:, 2] -= [100, 20]
            writer.write(cv2.warpAffine(astronaut, turn, (240, 220)), k / FPS)
    return path


def run(source: Path, output: Path, reconstructor, **options) -> dict:
    settings = SETTINGS._replace(**options)
    content = reconstruct_photos(
        find_photos(source), output, reconstructor, settings, progress=False
    )
    (record,) = content["inputs"]
    return record


@pytest.fixture(scope="module")
def made(film, tmp_path_factory, reconstructor) -> tuple[Path, dict]:
    """Everything that moves, and one picture that does not."""
    output = tmp_path_factory.mktemp("made")
    return output, run(film, output, reconstructor, outputs=OUTPUTS)


def test_faces_json_tells_each_face(made):
    output, record = made
    assert (record["frames"], record["fps"], record["width"], record["height"]) == (
        8,
        12.5,
        240,
        220,
    )
    assert record["files"] == ["head_overlay.mp4"]
    (face,) = record["faces"]
    assert (face["number"], face["first_frame"], face["last_frame"], face["frames"]) == (1, 0, 7, 8)
    left, top, right, bottom = face["box"]
    assert left < 125 < right
    assert top < 110 < bottom
    assert "why" not in record
    files = {*face["files"], *record["files"], "faces.json"}
    assert files == {path.name for path in output.iterdir()}
    assert json.loads((output / "faces.json").read_text())["inputs"] == [record]


def test_the_overlay_has_every_frame_and_a_drawing_on_it(made, film):
    output, _ = made
    with video.VideoReader(output / "head_overlay.mp4") as drawn, video.VideoReader(film) as plain:
        pairs = list(zip(drawn, plain, strict=True))
    assert len(pairs) == FRAMES
    for with_mesh, without in pairs:
        differs = np.abs(with_mesh.picture.astype(int) - without.picture).mean(-1) > 25
        assert differs[90:130, 100:150].mean() > 0.3
        assert differs[:, :30].mean() < 0.02


def test_the_track_follows_the_head_as_it_tilts(made):
    output, _ = made
    track = np.load(output / "head.npz")
    assert track["frames"].tolist() == list(range(FRAMES))
    np.testing.assert_allclose(track["times_s"], np.arange(FRAMES) / FPS, atol=1e-3)
    assert track["landmarks"].shape == (FRAMES, 68, 3)
    assert track["exp_params"].shape == (FRAMES, 51)
    roll = track["pose_deg"][:, 2]
    assert (np.diff(roll) < 0).all()  # OpenCV's positive angle is counter-clockwise
    assert -20 < roll[-1] - roll[0] < -8  # of 17.5, smoothed
    rows = json.loads((output / "head_landmarks.json").read_text())["frames"]
    np.testing.assert_allclose([r["landmarks"] for r in rows], track["landmarks"], atol=1e-3)
    poses = json.loads((output / "head_pose.json").read_text())["frames"]
    np.testing.assert_allclose([pose["roll_deg"] for pose in poses], roll, atol=0.01)


def test_arkit_tables_have_a_line_a_frame(made):
    output, _ = made
    rows = json.loads((output / "head_arkit.json").read_text())
    assert rows["fps"] == FPS
    with (output / "head_arkit.csv").open() as file:
        lines = list(csv.DictReader(file))
    codes = [line["Timecode"] for line in lines]
    assert codes == [f"00:00:00:{k:02d}.000" for k in range(FRAMES)]
    for line, row in zip(lines, rows["frames"], strict=True):
        assert float(line["JawOpen"]) == pytest.approx(row["jawOpen"], abs=1e-3)


def test_time_codes():
    assert time_code(0.0, 30.0) == "00:00:00:00.000"
    assert time_code(3661.5, 30.0) == "01:01:01:15.000"
    assert time_code(31 / 29.97, 29.97) == "00:00:01:01.000"  # labels count to 30, none dropped
    assert time_code(0.55, 10.0) == "00:00:00:05.500"
    assert time_code(4.0, 0.5) == "00:00:02:00.000"


class Player:
    """Values of a GLB's animation at a time, by the specification."""

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        size = int.from_bytes(raw[12:16], "little")
        self.content = json.loads(raw[20 : 20 + size])
        self.binary = raw[28 + size :]
        (self.animation,) = self.content["animations"]

    def numbers(self, index: int) -> np.ndarray:
        accessor = self.content["accessors"][index]
        view = self.content["bufferViews"][accessor["bufferView"]]
        count = accessor["count"] * {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        return np.frombuffer(self.binary, "<f4", count, view["byteOffset"])

    def keys(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Times (K,) and values (K, ...)."""
        (channel,) = (c for c in self.animation["channels"] if c["target"]["path"] == path)
        sampler = self.animation["samplers"][channel["sampler"]]
        times = self.numbers(sampler["input"])
        return times, self.numbers(sampler["output"]).reshape(len(times), -1)


def test_the_glb_plays_the_shapes_and_the_head(made):
    output, _ = made
    player, track = Player(output / "head.glb"), np.load(output / "head.npz")
    names = player.content["meshes"][0]["extras"]["targetNames"]
    rows = json.loads((output / "head_arkit.json").read_text())["frames"]
    times, weights = player.keys("weights")
    np.testing.assert_allclose(times, track["times_s"], atol=1e-6)
    expected = [[row[name] for name in names] for row in rows]
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    _, rotations = player.keys("rotation")
    found = Rotation.from_quat(rotations).as_matrix()
    np.testing.assert_allclose(found, track["rotation"], atol=1e-6)
    assert ((rotations[1:] * rotations[:-1]).sum(1) > 0).all()
    _, places = player.keys("translation")
    moved = np.diff(track["translation"][[0, -1]] / track["scale"][[0, -1], None], axis=0)[0]
    np.testing.assert_allclose(places[-1, :2], 1e-6 * moved[:2], atol=1e-5)  # metres
    assert places[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["maps", "bfm"])
def test_without_arkit_shapes_the_mesh_turns(kind, film, tmp_path, reconstructor, monkeypatch):
    """The same network with its coefficients, or their names, kept to itself."""
    decoded = type(reconstructor)._decoded

    def without(self, *arguments):
        faces = decoded(self, *arguments)
        if kind == "maps":
            return [replace(face, shape_params=None, exp_params=None) for face in faces]
        bfm = self.face._replace(name="bfm", exp_names=None)
        return [replace(face, face=bfm) for face in faces]

    monkeypatch.setattr(type(reconstructor), "_decoded", without)
    limited = VideoSettings(max_frames=3)
    record = run(film, tmp_path, reconstructor, outputs=("glb", "npz"), video=limited)
    assert record["faces"][0]["files"] == ["head.glb", "head.npz"]
    player, track = Player(tmp_path / "head.glb"), np.load(tmp_path / "head.npz")
    assert ("exp_params" in track) == (kind == "bfm")
    moved = {channel["target"]["path"] for channel in player.animation["channels"]}
    assert moved == {"rotation", "translation"}
    found = Rotation.from_quat(player.keys("rotation")[1]).as_matrix()
    np.testing.assert_allclose(found, track["rotation"], atol=1e-6)
    message = "predicts a position map" if kind == "maps" else "no ARKit coefficients"
    with pytest.raises(ValueError, match=message):
        run(film, tmp_path / "other", reconstructor, outputs=("arkit", "overlay"))
    assert not list((tmp_path / "other").glob("*overlay*"))


@needs_validator
def test_khronos_validator_finds_no_fault(made):
    info = require_valid(made[0] / "head.glb")
    assert info["animationCount"] == 1
    assert info["hasMorphTargets"]


def test_smoothing_is_an_option(made, film, tmp_path, reconstructor):
    run(film, tmp_path, reconstructor, video=VideoSettings(smoothing=None))
    raw, smooth = (np.load(folder / "head.npz")["landmarks"] for folder in (tmp_path, made[0]))
    np.testing.assert_allclose(raw[0], smooth[0], atol=1e-2)
    assert np.abs(raw[1:] - smooth[1:]).max() > 0.05


def test_a_rerun_skips_a_video_that_is_whole(film, tmp_path, reconstructor, monkeypatch):
    limited = VideoSettings(max_frames=2)
    first = run(film, tmp_path, reconstructor, video=limited)
    assert first["frames"] == 2
    assert "why" not in first
    with monkeypatch.context() as patched:
        patched.setattr("prnet.reconstruction.run.reconstruct_video", None)
        assert run(film, tmp_path, reconstructor, video=limited) == first
    with pytest.raises(ValueError, match=r"of a run with.*choose another output"):
        run(film, tmp_path, reconstructor, video=VideoSettings(max_frames=3))


def stopping(after: int):
    """A drawing that Ctrl-C interrupts, so many frames later."""
    left = iter(range(after))

    def drawn(picture: np.ndarray, _faces: dict) -> np.ndarray:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return picture

    return drawn


def test_ctrl_c_keeps_what_is_done_and_ends_the_run(film, tmp_path, reconstructor, monkeypatch):
    monkeypatch.setattr(video_run, "drawn", stopping(3))
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(film.read_bytes())
    record = run(folder, tmp_path / "out", reconstructor, outputs=("npz", "overlay"))
    assert record["input"].endswith("a.mp4")
    assert record["why"] == "stopped after 3 frames"
    assert record["frames"] == 3
    with video.VideoReader(tmp_path / "out" / "a_overlay.mp4") as reader:
        assert sum(1 for _ in reader) == 3
    # The frame that was begun has a face, but was not shown.
    assert np.load(tmp_path / "out" / "a.npz")["frames"].tolist()[:3] == [0, 1, 2]


def test_a_camera_runs_until_ctrl_c_and_is_never_done(film, tmp_path, reconstructor, monkeypatch):
    monkeypatch.setattr(
        video, "_camera", lambda _source: cv2.VideoCapture(str(film), cv2.CAP_FFMPEG)
    )
    for _ in range(2):
        monkeypatch.setattr(video_run, "drawn", stopping(4))
        record = run(Path("camera:0"), tmp_path, reconstructor, outputs=("npz", "overlay"))
        assert "why" not in record
        assert record["stem"] == "camera_0"
        assert record["frames"] == 4
    assert (tmp_path / "camera_0.npz").is_file()


def test_what_ends_early_or_shows_nothing_is_listed(film, tmp_path, reconstructor, caplog):
    folder = tmp_path / "films"
    folder.mkdir()
    cut = cv2.VideoWriter(str(folder / "cut.avi"), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (240, 220))
    with video.VideoReader(film) as reader:
        for frame in reader:
            cut.write(cv2.cvtColor(frame.picture, cv2.COLOR_RGB2BGR))
    cut.release()
    content = (folder / "cut.avi").read_bytes()
    (folder / "cut.avi").write_bytes(content[: len(content) * 2 // 3])
    with VideoWriter(folder / "nobody.mp4", FPS) as writer:
        for k in range(2):
            writer.write(np.full((96, 128, 3), 90, np.uint8), k / FPS)
    (folder / "text.mp4").write_text("no video")
    settings = SETTINGS
    records = reconstruct_photos(
        find_photos(folder), tmp_path / "out", reconstructor, settings, progress=False
    )["inputs"]
    by_name = {Path(record["input"]).name: record for record in records}
    done = by_name["cut.avi"]["frames"]
    assert by_name["cut.avi"]["why"] == f"cut off or damaged, {done} of 8 frames could be read"
    assert by_name["cut.avi"]["faces"][0]["frames"] == done
    assert (tmp_path / "out" / "cut.npz").is_file()
    assert by_name["nobody.mp4"]["why"] == "no face found"
    assert "not a video that OpenCV reads" in by_name["text.mp4"]["why"]
    assert "cut.avi: cut off or damaged" in caplog.text


def test_a_video_without_a_frame_leaves_nothing(film, tmp_path, reconstructor, monkeypatch):
    monkeypatch.setattr(video.VideoReader, "__iter__", lambda _self: iter(()))
    record = run(film, tmp_path, reconstructor, outputs=("npz", "overlay"))
    assert record["why"] == "a video without a frame that can be read"
    assert record["faces"] == record["files"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["faces.json"]


def test_boxes_are_for_photos(film, tmp_path, reconstructor):
    content = reconstruct_photos(
        [film], tmp_path, reconstructor, SETTINGS, framer=lambda *_: [], progress=False
    )
    assert "is for photos" in content["inputs"][0]["why"]


def test_every_output_of_a_photo_is_one_of_a_video():
    assert set(MOVING) < set(WRITERS)


def test_settings_of_the_configuration():
    config = OmegaConf.load(Path(CONFIG_DIR) / "reconstruct.yaml")
    assert video_settings(config.video, config.smoothing) == VideoSettings()
    assert video_settings(config.video, False).smoothing is None
    assert VideoSettings().plain()["smoothing"] == {
        name: one._asdict() for name, one in Smoothing()._asdict().items()
    }
    config.video.max_frames = 0
    with pytest.raises(ValueError, match="max_frames: got 0"):
        video_settings(config.video, config.smoothing)
    with pytest.raises(ValueError, match="smoothing: got True"):
        video_settings(OmegaConf.merge(config.video, {"max_frames": None}), True)
