"""Khronos' validator of glTF, where its folder is named (`GLTF_VALIDATOR`) and Node.js is there."""

import json
import os
import subprocess
from pathlib import Path

import pytest

needs_validator = pytest.mark.skipif(
    "GLTF_VALIDATOR" not in os.environ, reason="the folder of gltf-validator"
)
SCRIPT = (
    "const v=require(process.env.GLTF_VALIDATOR),fs=require('fs');"
    "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))"
    ".then(r=>console.log(JSON.stringify(r)))"
)


def require_valid(path: Path) -> dict:
    """What it says of the content (`info`), once it has found no fault."""
    command = ["node", "-e", SCRIPT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    issues = report["issues"]
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]
    return report["info"]
