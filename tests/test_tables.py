"""`python -m prnet.tables`: its options, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from prnet.entry import CONFIG_DIR
from prnet.tables import make_tables
from tests.evaluations import made_report

ROOT = Path(__file__).resolve().parents[1]


def run(caplog, *overrides: str) -> str:
    """What `python -m prnet.tables` says, in this process."""
    caplog.clear()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"), caplog.at_level("INFO"):
        make_tables(compose("tables", overrides=list(overrides)))
    return "\n".join(caplog.messages)


def test_options(tmp_path, caplog):
    made_report(tmp_path, "a.json")
    out = tmp_path / "out"
    said = run(caplog, "paper=prn", "table=1", f"ours=[{tmp_path}/*.json]", f"output={out}")
    assert "| PRN, ours | **1.11** |" in said
    written = ["prn_1.csv", "prn_1.md", "prn_1.tex"]
    assert sorted(path.name for path in out.iterdir()) == written
    assert all(f"{out}/{name}" in said for name in written)
    assert "| PRN, ours |" in run(
        caplog, "paper=prn", "table=fig5", f"ours={tmp_path}/a.json", f"output={out}"
    )
    run(caplog, "paper=2dasl", f"output={out}")
    assert {path.name for path in out.glob("2dasl*.md")} == {
        f"2dasl_{n}.md" for n in ("1", "2", "3", "fig6", "fig7")
    }
    assert "| sadrnet | 5 | Table V: Size of the models |" in run(caplog)
    with pytest.raises(ValueError, match="need paper="):
        run(caplog, f"ours=[{tmp_path}/a.json]")


def test_command_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "prnet.tables", "paper=prn", f"ours=[{tmp_path}/*.json]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.strip().count("\n") == 0
    assert f"no file matches '{tmp_path}/*.json'" in done.stdout
