"""What `prnet.reconstruct` and `prnet.swap` say of what they cannot use: one line with the name."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from prnet.checkpoint import load_checkpoint, save_checkpoint
from tests.commands import run_commands

PHOTOS = {
    "empty.jpg": "empty.jpg: the file is empty",
    "cut.jpg": "cut.jpg: the JPEG is cut short (900 bytes)",
    "text.jpg": "text.jpg: not a readable picture (cannot identify image file",
    "huge.png": "huge.png: not a readable picture (30000 x 30000 px are more than 4e+08; make it",
    "one.png": "one.png: no face found",
    "long.png": "long.png: no face found",
    "none.png": "none.png: no face found",
}
STOPPED = {
    "input=absent.jpg": "input=absent.jpg: nothing found; expected a file, a folder, a list,",
    "checkpoint=absent.pt": "absent.pt: no such file; train writes best.pt",
    "checkpoint=text.pt": "text.pt: not a checkpoint of prnet, or cut off or damaged (it has 5",
    "checkpoint=other.pt": "other.pt: a torch file, but not a checkpoint of prnet",
    "checkpoint=bfm.pt": "bfm.pt: trained for face=bfm; data/BFM/BFM.mat: missing",
    "checkpoint=alien.pt": "alien.pt: face that it was trained for: got 'flame', expected one of",
    "checkpoint=older.pt": "older.pt: trained for a face with fingerprint 000000000000, this one",
    "output=file": "file: cannot be written (File exists); choose another output folder",
    "output=file/sub": "file/sub: cannot be written (Not a directory); choose another output",
    "outputs=[stl]": "outputs: got 'stl', expected one of npz, glb",
}
SWAPS = {
    ("source=none.png",): "target=: missing; give source=PHOTO target=PHOTO",
    ("source=none.png", "target=one.png", "output=a.doc"): "output=a.doc: no format for '.doc'",
    ("source=none.png", "target=one.png", "output=file/a.png"): "file: cannot be written",
    ("source=absent.png", "target=one.png", "output=a.png"): "absent.png: no such file",
    ("source=none.png", "target=one.png", "output=a.png"): "source=none.png: no face found; take",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[tuple[str, ...], list[str]]:
    """Arguments -> the lines that the command said, in a folder of files that nobody wants."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "photos").mkdir()
    for place in (folder, folder / "photos"):
        (place / "empty.jpg").write_bytes(b"")
        (place / "text.jpg").write_text("hello")
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(place / "cut.jpg")
        (place / "cut.jpg").write_bytes((place / "cut.jpg").read_bytes()[:900])
        for name, size in (("one", (1, 1)), ("long", (30_000, 40)), ("none", (64, 64))):
            Image.new("RGB", size, (90, 120, 60)).save(place / f"{name}.png")
        (place / "huge.png").write_bytes(png_header(30_000, 30_000))
    (folder / "file").touch()
    (folder / "text.pt").write_text("hello")
    torch.save({"a": torch.zeros(1)}, folder / "other.pt")
    shipped = load_checkpoint("swift_synthetic")
    for name, change in (
        ("bfm", {"name": "bfm", "vertices": 53215}),
        ("alien", {"name": "flame"}),
        ("older", {**shipped["face"], "fingerprint": 12 * "0"}),
    ):
        save_checkpoint(folder / f"{name}.pt", {**shipped, "face": change})
    commands = [["prnet.reconstruct", "input=photos", "output=made"]]
    for argument in STOPPED:
        given = [] if argument.startswith("input") else ["input=none.png"]
        commands.append(["prnet.reconstruct", *given, argument])
    commands += [["prnet.swap", *arguments] for arguments in SWAPS]
    printed = run_commands(*commands, cwd=folder)
    lines = {
        tuple(command[1:]): text.strip().splitlines()
        for command, text in zip(commands, printed, strict=True)
    }
    lines["index"] = json.loads((folder / "made" / "faces.json").read_text())["inputs"]
    return lines


def png_header(width: int, height: int) -> bytes:
    """A picture of a size, its pixels missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest


def test_photos_that_show_nothing_are_listed_and_the_others_go_on(said):
    lines = said["input=photos", "output=made"]
    assert lines[-1] == "exit 0"
    reasons = {record["input"].removeprefix("photos/"): record["why"] for record in said["index"]}
    assert reasons.keys() == PHOTOS.keys()
    for name, message in PHOTOS.items():
        assert f"photos/{message}" in "\n".join(lines)
        assert message in f"{name}: {reasons[name].removeprefix(f'photos/{name}: ')}"


@pytest.mark.parametrize("argument", STOPPED)
def test_what_stops_the_command_is_one_line(said, argument):
    key = (argument,) if argument.startswith("input") else ("input=none.png", argument)
    (line, status) = said[key]
    assert line.startswith(STOPPED[argument])
    assert status == "exit 1"


@pytest.mark.parametrize("arguments", SWAPS)
def test_what_a_swap_cannot_do_is_one_line(said, arguments):
    (line, status) = said[arguments]
    assert line.startswith(SWAPS[arguments])
    assert status == "exit 1"
