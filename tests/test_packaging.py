"""An installed wheel finds its configuration inside itself, a checkout beside itself."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

from prnet import __version__, entry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that `pip install .` would install."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # A build back end works on the current folder.
        return folder / build_wheel(str(folder))


@pytest.fixture
def site_packages(wheel, tmp_path) -> Path:
    """A folder into which the wheel was installed, beside a stranger's package called configs."""
    folder = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "configs").mkdir()
    (folder / "configs" / "train.yaml").write_text("stranger: true\n")
    return folder


def run_installed(site_packages: Path, cwd: Path, *arguments: str) -> str:
    """Standard output of Python with the installed package first on its path."""
    environment = {**os.environ, "PYTHONPATH": str(site_packages)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_wheel_holds_the_package_and_every_config(wheel):
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    configs = sorted((ROOT / "configs").rglob("*.yaml"))
    assert configs
    for path in configs:
        assert content[f"prnet/{path.relative_to(ROOT).as_posix()}"] == path.read_bytes()
    for path in (ROOT / "prnet").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in content
    assets = [path for path in (ROOT / "prnet" / "assets").rglob("*") if path.is_file()]
    assert ROOT / "prnet" / "assets" / "embedded_face.npz" in assets
    for path in assets:
        assert content[path.relative_to(ROOT).as_posix()] == path.read_bytes()
    top_level = {name.split("/")[0] for name in content}
    assert sorted(top_level) == ["prnet", f"prnet-{__version__}.dist-info"]


def test_installed_package_uses_its_own_configs(site_packages, tmp_path):
    """The commands compose from any folder, from the packaged tree, not the stranger's."""
    code = (
        "import runpy; from prnet.entry import CONFIG_DIR; print(CONFIG_DIR);"
        "runpy.run_module('prnet.train', run_name='__main__', alter_sys=True)"
    )
    output = run_installed(site_packages, tmp_path, "-c", code, "--cfg", "job")
    assert output.splitlines()[0] == str(site_packages / "prnet" / "configs")
    assert "data_dir: data" in output
    assert "stranger" not in output


def test_checkout_uses_the_configs_beside_the_package():
    assert entry.CONFIG_DIR == str(ROOT / "configs")
    assert (ROOT / "configs" / "train.yaml").is_file()


def test_licence_and_python_are_declared(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"prnet-{__version__}.dist-info/METADATA").decode()
        licence = archive.read(f"prnet-{__version__}.dist-info/licenses/LICENSE").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Apache License" in licence


def spoken(source: str) -> list[str]:
    """The strings of a module that are no docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, documented) and node.body)
    docstrings = {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}
    nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings)
    return [node.value for node in nodes if isinstance(node.value, str)]


def test_messages_name_no_file_that_a_wheel_lacks():
    """Nor does --help."""
    absent = re.compile(r"\b(docs|scripts|tests)/|data/README|README\.md|ASSETS\.md")
    texts = {path: spoken(path.read_text()) for path in (ROOT / "prnet").rglob("*.py")}
    for path in (ROOT / "configs").glob("*.yaml"):
        texts[path] = [path.read_text().partition("template: |-")[2]]
    assert sum(map(len, texts.values())) > 1000
    found = {str(path): list(filter(absent.search, said)) for path, said in texts.items()}
    assert {path: said for path, said in found.items() if said} == {}
