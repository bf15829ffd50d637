"""`prnet VERB` is `python -m prnet.VERB`."""

import subprocess
import sys
from pathlib import Path

from prnet.__main__ import VERBS

ROOT = Path(__file__).resolve().parents[1]


def call(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "prnet", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_verb_is_a_module():
    """A module with a `main` is listed, and what is listed is one."""
    package = ROOT / "prnet"
    modules = {path.stem for path in package.glob("*.py") if "def main(" in path.read_text()}
    rooms = {path.parent.name for path in package.glob("*/__main__.py")}
    assert set(VERBS) == (modules | rooms) - {"__main__"}


def test_verbs_are_listed_and_run():
    assert all(verb in call("--help").stdout for verb in VERBS)
    done = call("tables", "paper=nobody")
    assert done.returncode == 1
    assert "paper: got 'nobody', expected one of" in done.stdout
    done = call("trian")
    assert done.returncode == 1
    assert "no verb 'trian'" in done.stderr
