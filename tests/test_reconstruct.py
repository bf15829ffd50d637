"""`python -m prnet.reconstruct` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from prnet.reconstruct import framer_of, say_what_came

ROOT = Path(__file__).resolve().parents[1]


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "prnet.reconstruct", f"output={folder}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_without_input_the_astronaut_comes_out(tmp_path):
    done = call(tmp_path)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("looking for faces in ")
    assert last.startswith("written: ")
    assert "astronaut.glb" in last
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {
        *("astronaut.jpg", "astronaut.npz", "astronaut.glb", "astronaut_overlay.jpg"),
        "faces.json",
    }
    (record,) = json.loads((tmp_path / "faces.json").read_text())["inputs"]
    left, top, right, bottom = record["faces"][0]["box"]
    assert left < 221 < right
    assert top < 128 < bottom


def test_what_is_said_to_be_written_was_written_now(caplog):
    """Of this run's inputs alone; files that an earlier run made are as they were."""
    caplog.set_level("INFO")
    seen = {"faces": [{"files": ["a.glb"]}], "files": ["a.mp4"]}
    say_what_came([(seen, False)], Path("faces"))
    assert caplog.messages[-1] == f"written: {Path('faces/a.glb')}, {Path('faces/a.mp4')}"
    say_what_came([(seen, True)], Path("faces"))
    assert "kept: those of 1;" in caplog.messages[-2]
    assert caplog.messages[-1].startswith("as they were: ")
    caplog.clear()
    say_what_came([(seen, True), ({"faces": []}, False), (seen, False)], Path("faces"))
    assert caplog.messages[0] == "inputs: 3, faces: 2, in faces"
    assert "without a face: 1" in caplog.text
    assert "written" not in caplog.text


def test_a_mistake_is_one_line(tmp_path):
    done = call(tmp_path, "input=absent.jpg")
    assert done.returncode == 1
    assert "nothing found" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["a.png", "a"])
def test_boxes_of_a_table(tmp_path, name):
    (tmp_path / "boxes.csv").write_text(f"name,left,top,right,bottom\n{name},176,88,274,172\n")
    _, framer = framer_of(str(tmp_path / "boxes.csv"), None)
    (framing,) = framer(tmp_path / "a.png", np.zeros((9, 9, 3), np.uint8))
    assert framing.center.tolist() == [225, 130]
    assert framing.size == 91
    with pytest.raises(ValueError, match=r"b.png: no line for it in .*boxes.csv"):
        framer(tmp_path / "b.png", np.zeros((9, 9, 3), np.uint8))


def test_landmarks_of_files(tmp_path):
    points = np.random.default_rng(0).uniform(50, 150, (68, 2))
    np.savetxt(tmp_path / "a.txt", points)
    words, framer = framer_of(None, str(tmp_path))
    assert words == f"landmarks={tmp_path}"
    (framing,) = framer(tmp_path / "a.png", np.zeros((9, 9, 3), np.uint8))
    assert framing.size == pytest.approx(np.ptp(points, axis=0).mean())
    with pytest.raises(ValueError, match="no landmarks for it"):
        framer(tmp_path / "b.png", np.zeros((9, 9, 3), np.uint8))


def test_a_whole_picture_is_a_crop(tmp_path):
    """A face cut out with a crop's margin is the crop again."""
    face = skimage.data.astronaut()[40:190, 150:300]
    Image.fromarray(face).save(tmp_path / "a.png")
    _, framer = framer_of("whole", None)
    (framing,) = framer(tmp_path / "a.png", face)
    assert framing.center.tolist() == [74.5, 74.5]
    assert 1.5 * framing.size == pytest.approx(149)


def test_two_sources_of_boxes_contradict():
    with pytest.raises(ValueError, match="not both"):
        framer_of("a.csv", "b.csv")
