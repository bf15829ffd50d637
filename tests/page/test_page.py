"""The page, served by the command: through its interface, and in a browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import trimesh

# CI says where its browser is, and then there must be one.
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
# Without a graphics card; as root a browser has no sandbox.
CHROMIUM_OPTIONS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE = 120  # seconds, on a machine that is busy
ROOT = Path(__file__).resolve().parents[2]


class Server(NamedTuple):
    process: subprocess.Popen
    address: str
    temporary: Path  # its TMPDIR


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("gradio_client", reason="pip install 'prnet[demo]'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    temporary = tmp_path_factory.mktemp("run")
    log = temporary.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "prnet.demo", f"port={port}", "most_megabytes=1"],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"open (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield Server(process, found[1], temporary)
    finally:
        process.kill()
        process.wait()


def test_visitors_do_not_see_each_other(server, two_faces, tmp_path):
    """Two sessions at once; bad photos; a file of the server's is not to be had."""
    from gradio_client import Client, handle_file

    first, second = (Client(server.address, verbose=False) for _ in range(2))
    (tmp_path / "empty.png").touch()
    photos = {"path": handle_file(str(two_faces)), "weights": "swift_synthetic"}
    said, faces, picture, *coefficients = first.predict(**photos, view="Mesh", api_name="/look")
    assert re.match(r"Face 1 of 2, confidence 1.00. Pitch [-+]\d+°, yaw", said)
    assert len(faces["value"]) == 2
    assert cv2.imread(picture).shape == (640, 640, 3)
    assert len(coefficients) == 51
    assert all(0 <= value <= 1 for value in coefficients)
    assert 0.1 < sum(coefficients) < 25

    photos["path"] = handle_file(str(tmp_path / "empty.png"))
    said = second.predict(**photos, view="Mesh", api_name="/look")[0]
    assert said == "**empty.png: the file is empty**"
    # The first visitor's faces are still there, the second's are not.
    moved = first.predict(0, *coefficients, api_name="/save")
    assert Path(moved).name == "two_1.glb"
    assert ".glb" not in str(second.predict(0, *coefficients, api_name="/save"))


def test_a_file_of_the_server_is_not_read(server):
    """One who speaks to the server without the page names a file that was not uploaded."""
    file = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    call = f"{server.address}gradio_api/call/look"
    data = json.dumps({"data": [file, "swift_synthetic", "Mesh"]}).encode()
    request = urllib.request.Request(call, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=PATIENCE) as answer:
        assert answer.read().startswith(b"event: error")


def test_in_a_browser(server, two_faces, tmp_path):
    """Upload, wait for the head, move it, choose the other face, download, upload a bad photo;
    nothing is asked of another machine."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.address)
        upload = page.locator("#photo input[type=file]")

        def head() -> np.ndarray:
            raw = np.frombuffer(page.locator("#head").screenshot(), np.uint8)
            return cv2.imdecode(raw, cv2.IMREAD_COLOR)[60:].astype(int)

        def wait_for_change(
            before: np.ndarray, act: Callable[[], object] = lambda: None
        ) -> np.ndarray:
            """The head once it looks otherwise, and stays so; a visitor acts again in a while."""
            begun = time.monotonic()
            acted, last = 0, before
            while (passed := time.monotonic() - begun) < PATIENCE:
                if passed >= acted * PATIENCE / 4:
                    act()
                    acted += 1
                page.wait_for_timeout(300)
                now = head()
                if (now == last).all() and (np.abs(now - before).max(2) > 40).mean() > 0.002:
                    return now
                last = now
            raise AssertionError("the head looks as before")

        upload.set_input_files(two_faces)
        page.locator("#head canvas").wait_for()
        shown = wait_for_change(np.full_like(head(), 255))
        skin = (shown[..., 2] > shown[..., 0] + 25).mean()  # red above blue
        assert skin > 0.05

        def open_jaw() -> None:
            page.locator("#jawOpen input[type=number]").fill("1")
            page.keyboard.press("Enter")

        page.get_by_role("tab", name="Jaw").click()
        moved = wait_for_change(shown, open_jaw)

        with page.expect_download() as download:
            page.locator("#download").click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.name == "two_1.glb"
        scene = trimesh.load(path)
        skin = next(g for g in scene.geometry.values() if g.visual.material.name == "skin")
        assert skin.visual.material.baseColorTexture.size == (1024, 1024)
        assert b'"jawOpen"' in path.read_bytes()

        page.locator("#faces button img").nth(1).click()
        page.locator("#message", has_text="Face 2 of 2").wait_for()
        wait_for_change(moved)

        (tmp_path / "cut.jpg").write_bytes(two_faces.read_bytes()[:5000])
        page.locator("#photo button[aria-label='Remove Image']").click()
        page.locator("#message", has_text="Drop a photo").wait_for()
        assert not page.locator("#head").is_visible()
        upload.set_input_files(tmp_path / "cut.jpg")
        page.locator("#message", has_text="cut.jpg: not a readable picture").wait_for()

        page.locator("#photo button[aria-label='Remove Image']").click()
        (tmp_path / "large.jpg").write_bytes(bytes(2 * 1024**2))
        upload.set_input_files(tmp_path / "large.jpg")
        page.get_by_text("exceed the maximum allowed size").wait_for()
        browser.close()
    strangers = [url for url in asked if not url.startswith((server.address, "blob:", "data:"))]
    assert strangers == []


def test_a_stopped_server_leaves_no_files(server):
    assert list(server.temporary.glob("prnet_demo_*/astronaut.jpg"))
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    assert list(server.temporary.iterdir()) == []
