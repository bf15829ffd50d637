"""The commands as a user starts them, in one process: it is the imports that take long."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, runpy, sys
for module, *arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # of a command before; runpy warns of it
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        status = error.code
        if isinstance(status, str):  # as Python itself ends with a text
            print(status)
            status = 1
    print(f"exit {status}", flush=True)
"""


def run_commands(*commands: list[str], cwd: Path, timeout: float = 240) -> list[str]:
    """What each `python -m MODULE ARGUMENTS` says in folder `cwd`, its last line "exit STATUS"."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout
    return re.split(r"(?<=exit \d)\n", done.stdout)[:-1]
