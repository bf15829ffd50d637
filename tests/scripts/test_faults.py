"""scripts/faults.py, a little of it: commands killed at random, files damaged, nothing wrong."""

import os
import re
import subprocess
import sys

from tests.load_script import SCRIPTS

ONLY = "--only=build,train,checkpoint,built set"


def test_killed_commands_get_through_and_damaged_files_are_named():
    """Each command is started until it gets through; what it leaves is to the bit what one leaves
    that nobody killed."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / "faults.py", "--rounds=1", "--mutations=1", ONLY],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS.parent)},
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = re.findall(r"^\| (.+?) \| \d+ \| ", done.stdout, re.MULTILINE)
    assert {"build", "train", "checkpoint, .pt", "built set, records.npy"} <= set(rows)
