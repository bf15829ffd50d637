"""No reader runs what a file says: there is no way to it in the package, and what is text stays
text."""

import ast
import json
from pathlib import Path

import pytest
import torch

import prnet
from prnet.checkpoint import load_checkpoint, save_checkpoint
from prnet.reports.reading import read_report

PACKAGE = Path(prnet.__file__).parent
# Modules that make objects, or run text, of what they read.
FORBIDDEN = {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle", "code", "yaml"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
# Readers that are safe with this argument alone, and what it must be.
SAFE = {
    "np.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "np.lib.format.read_array": ("allow_pickle", False),
}
# The entry points alone make what text names, that of the package's own configuration.
RESOLVERS = {"train"}


def ways_to_code(path: Path) -> list[str]:
    """What a module imports or calls by which a file could run something."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in FORBIDDEN]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in BUILTINS:
            found.append(name)
        if name in SAFE:
            argument, value = SAFE[name]
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if getattr(given.get(argument), "value", None) is not value:
                found.append(f"{name} without {argument}={value}")
        if name == "instantiate" and path.stem not in RESOLVERS:
            found.append(name)
    return found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from yaml import load", ["yaml"]),
        ("x = eval(text)", ["eval"]),
        ("model.eval()", []),
        ("np.load(path)", ["np.load without allow_pickle=False"]),
        ("np.load(path, allow_pickle=True)", ["np.load without allow_pickle=False"]),
        ("np.load(path, allow_pickle=False)", []),
        ("torch.load(path, weights_only=False)", ["torch.load without weights_only=True"]),
        ("instantiate(values)", ["instantiate"]),
    ],
)
def test_ways_to_code_are_seen(line, found, tmp_path):
    (tmp_path / "a.py").write_text(line)
    assert ways_to_code(tmp_path / "a.py") == found


def test_the_package_has_no_way_to_code():
    found = {str(path.relative_to(PACKAGE)): ways_to_code(path) for path in PACKAGE.rglob("*.py")}
    assert {path: ways for path, ways in found.items() if ways} == {}


CODE = ("${oc.env:HOME}", {"_target_": "os.getcwd"})


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("place", ["card", "face", "model"])
def test_the_text_of_shared_weights_is_refused(code, place, tmp_path):
    state = {"model": {"name": "prn"}, "face": {}, "card": {}, "weights": {"a": torch.zeros(1)}}
    save_checkpoint(tmp_path / "a.safetensors", state | {place: {**state[place], "license": code}})
    with pytest.raises(ValueError, match=rf"a\.safetensors: \['{place}'\]\['license'\]"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("code", CODE)
def test_the_text_of_a_report_stays_text(code, tmp_path):
    report = {
        "metrics": {},
        "protocol": {"name": "default", "crop": code},
        "source": "predictions DIR",
        "dataset": "aflw2000",
        "count": 0,
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert read_report(tmp_path / "report.json", {}).protocol["crop"] == code
