"""Who may import whom: the one-way flow of the package, read from the source of every module."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "prnet"

# Everybody may import these; they import nothing of the package but each other.
LEAVES = {"__init__", "checks", "sample", "files", "workers"}

# A room is a sub-package or a module of prnet. It may import itself, the leaves, and these rooms.
VERBS = {
    "build",
    "compare",
    "convert_bfm",
    "demo",
    "eval",
    "export.__main__",
    "fit",
    "import_weights",
    "reconstruct",
    "show",
    "swap",
    "tables",
    "train",
}
ALLOWED = {
    **dict.fromkeys(LEAVES, set()),
    "checkpoint": set(),
    "geometry": set(),
    "detection": {"geometry"},
    "faces": {"geometry"},
    "synthetic": {"geometry", "faces"},
    "metrics": {"geometry"},
    "models": {"geometry", "faces", "checkpoint"},
    "losses": {"geometry", "faces"},
    "export": {"geometry", "faces", "models", "checkpoint"},
    "importing": {"geometry", "models"},
    "datasets": {"geometry", "faces", "synthetic", "detection"},
    "drawing": {"geometry", "faces", "datasets"},
    "building": {"geometry", "faces", "synthetic", "datasets", "drawing", "export"},
    "evaluation": {"geometry", "faces", "datasets", "drawing", "metrics", "models"},
    "reports": {"drawing", "metrics", "evaluation"},
    "reconstruction": {"geometry", "faces", "detection", "datasets", "drawing", "export", "models"},
    "page": {"geometry", "drawing", "checkpoint", "reconstruction"},
    "papers": {"reports"},
    "training": {"geometry", "faces", "datasets", "drawing", "evaluation", "models", "losses"},
    "entry": set(),
    "command": {"entry"},
}
ALLOWED["training"] |= {"checkpoint"}
ALLOWED |= dict.fromkeys(VERBS, set(ALLOWED))  # no verb imports another
ALLOWED["__init__"] = {"reconstruction"}  # the library's front, imported when it is called
ALLOWED["__main__"] = set()
ENTRY_POINTS = {*VERBS, "entry", "command"}
CONFIGURATION = {"hydra", "omegaconf"}


def unit_of(module: str) -> str:
    """`prnet.geometry.camera` -> `geometry`; `prnet` -> `__init__`; a room that is a verb too has
    it in `prnet.ROOM.__main__`."""
    parts = [*module.split("."), "__init__"]
    return ".".join(parts[1:3]) if parts[2:3] == ["__main__"] else parts[1]


def imported_modules(node: ast.AST) -> list[str]:
    """Dotted names an import statement reaches; `from prnet import eval` reaches `prnet.eval`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom) or node.level > 0:
        return []
    if node.module != "prnet":
        return [node.module]
    return [f"prnet.{alias.name}" if alias.name in ALLOWED else "prnet" for alias in node.names]


def violations(module: str, source: str) -> list[str]:
    """What the module may not import, one sentence each; imports inside functions count."""
    unit = unit_of(module)
    if unit not in ALLOWED:
        return [f"{module}: unknown; add a row for {unit!r} to ALLOWED in {Path(__file__).name}"]
    found = []
    for node in ast.walk(ast.parse(source)):
        where = f"{module}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom):
            if node.level > 0:
                found.append(f"{where}: relative import")
            if any(alias.name == "*" for alias in node.names):
                found.append(f"{where}: star import")
        for name in imported_modules(node):
            top = name.partition(".")[0]
            if top in CONFIGURATION and unit not in ENTRY_POINTS:
                found.append(
                    f"{where}: {unit} imports {top}; only entry points see the configuration"
                )
            if top == "prnet" and unit_of(name) not in ALLOWED[unit] | LEAVES | {unit}:
                found.append(f"{where}: {unit} may not import {name}")
    return found


MODULES = sorted(
    ".".join(("prnet", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way(module):
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert violations(module, file.read_text()) == []


def test_rules_have_no_cycle():
    """Units can be put in an order in which each only imports earlier ones."""
    remaining = {unit: allowed - {unit} for unit, allowed in ALLOWED.items()}
    while remaining:
        ready = {unit for unit, allowed in remaining.items() if not allowed & remaining.keys()}
        assert ready, f"cycle among {sorted(remaining)}"
        remaining = {unit: allowed for unit, allowed in remaining.items() if unit not in ready}


def test_nobody_imports_a_verb():
    assert not [unit for unit, allowed in ALLOWED.items() if allowed & VERBS]


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        (
            "prnet.geometry.camera",
            "from prnet.faces import bfm",
            "geometry may not import prnet.faces",
        ),
        (
            "prnet.losses.maps",
            "import prnet.metrics.nme",
            "losses may not import prnet.metrics.nme",
        ),
        (
            "prnet.models",
            "def f():\n    from prnet import datasets",
            "may not import prnet.datasets",
        ),
        ("prnet.eval", "import os, prnet.train as t", "eval may not import prnet.train"),
        ("prnet.faces.bfm", "from .face import Face", "relative import"),
        ("prnet.faces.bfm", "from torch import *", "star import"),
        ("prnet.datasets.fits", "from omegaconf import OmegaConf", "only entry points"),
        (
            "prnet.sample",
            "from prnet.geometry import camera",
            "sample may not import prnet.geometry",
        ),
        ("prnet.utils", "", "unknown; add a row for 'utils'"),
    ],
)
def test_violations_are_found(module, source, expected):
    (message,) = violations(module, source)
    assert expected in message


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("prnet.geometry.uv", "from prnet.geometry import camera\nimport torch"),
        ("prnet.metrics.nme", "from prnet.sample import Prediction"),
        ("prnet.train", "import hydra\nfrom prnet import training, __version__"),
    ],
)
def test_allowed_imports_pass(module, source):
    assert violations(module, source) == []
