"""What a command imports before it has work: a bound on modules, which no shared core can move."""

import json
import subprocess
import sys

import pytest

from prnet.__main__ import VERBS

HEAVY = ("torch", "torchvision", "numba", "scipy", "matplotlib", "cv2")
# What reading options takes beside Hydra; a bar is drawn, and an array made, where there is work.
READERS = ("numpy", "tqdm")
# torch._dynamo comes with torchvision, triton with the counter of operations.
NEVER_AT_IMPORT = {"torchvision", "torch._dynamo", "triton", "matplotlib", "numba"}
SCRIPT = """
import json, runpy, sys
for module, *arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        print(f"exit {error.code}")
print(json.dumps(sorted(sys.modules)))
"""


def loaded(script: str, *arguments: str, cwd: object) -> tuple[list[str], set[str]]:
    """The lines a fresh interpreter printed, and the modules it ended with."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    return lines, set(json.loads(modules))


def test_options_are_read_before_heavy_imports(tmp_path):
    """Help of every verb, a configuration that is shown, choices and keys that are refused, and the
    papers' tables."""
    commands = [[f"prnet.{verb}", "--help"] for verb in VERBS]
    commands += [
        ["prnet.train", "--cfg", "job"],
        ["prnet.eval", "dataset=nowhere"],
        ["prnet.train", "lrr=3"],
        ["prnet.reconstruct", "experiment=2dasl_stage2"],
        ["prnet.tables"],
    ]
    lines, modules = loaded(SCRIPT, json.dumps(commands), cwd=tmp_path)
    ends = [line for line in lines if line.startswith("exit ")]
    assert len(ends) == len(commands)
    assert modules.isdisjoint((*HEAVY, *READERS))


def test_landmarks_as_arrays_are_scored_without_torch(tmp_path):
    script = """
import json, sys
import numpy as np
from prnet.metrics.nme import bbox_size, nme
import prnet.metrics.statistics
truth = np.arange(12.0).reshape(1, 4, 3)
print(nme(truth + [3, 4, 9], truth, bbox_size(truth), z_alignment="mean")[0])
print(json.dumps(sorted(sys.modules)))
"""
    (error,), modules = loaded(script, cwd=tmp_path)
    assert float(error) == pytest.approx(100 * 5 / 9)
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("module", "also"),
    [("eval", {"scipy.sparse", "prnet.synthetic.world"}), ("reconstruct", {"skimage"})],
)
def test_what_a_verb_imports(module, also, tmp_path):
    script = f"import json, sys, prnet.{module}\nprint(json.dumps(sorted(sys.modules)))"
    _, modules = loaded(script, cwd=tmp_path)
    assert "torch" in modules
    assert modules.isdisjoint(NEVER_AT_IMPORT | also)
