"""When compiled loops are made anew, and where they cannot be kept."""

import ast
import errno
from pathlib import Path

import numba.core.caching
import pytest

import prnet
from prnet.geometry import compiled


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rooms with a source each."""
    for room in ("geometry", "synthetic", "losses"):
        (tmp_path / room / "inner").mkdir(parents=True)
        (tmp_path / room / "inner" / "colors.py").write_text("RED = 1\n")
    monkeypatch.setattr(compiled, "PACKAGE", tmp_path)
    compiled.version_of.cache_clear()
    yield tmp_path
    compiled.version_of.cache_clear()


@pytest.mark.parametrize(
    ("changed", "rooms"),
    [("synthetic", {"synthetic"}), ("geometry", {"synthetic", "geometry", "losses"})],
)
def test_a_source_is_of_its_room_and_those_of_geometry_of_all(package, changed, rooms):
    def versions() -> dict[str, int]:
        compiled.version_of.cache_clear()
        return {room: compiled.version_of(room) for room in ("geometry", "synthetic", "losses")}

    first = versions()
    assert versions() == first
    (package / changed / "inner" / "colors.py").write_text("RED = 2\n")
    now = versions()
    assert {room for room in now if now[room] != first[room]} == rooms


def test_a_function_carries_the_version_of_its_room(package):
    def draw() -> int:
        return 1

    draw.__module__ = "prnet.synthetic.render.draw"
    kept = compiled.cached()(draw)
    version = f"{compiled.version_of('synthetic'):08x}"
    assert kept.dispatcher.py_func.__qualname__.endswith(version)
    assert kept() == 1


@compiled.inlined()
def twice(x: int) -> int:
    return 2 * x


def quadruple(x: int) -> int:
    return twice(twice(x))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> compiled.Compiled:
    """A function of this package that has not been compiled yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(quadruple, "__module__", "prnet.geometry.quadruple")
    monkeypatch.setattr(quadruple, "__qualname__", "quadruple")
    monkeypatch.setattr(compiled, "_said", [])
    return compiled.cached()(quadruple)


def test_nothing_is_compiled_before_it_is_called(fresh):
    assert "dispatcher" not in vars(fresh)
    assert fresh(3) == 12
    assert "dispatcher" in vars(fresh)


def test_numba_is_not_imported_by_importing_the_package():
    for path in Path(prnet.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in getattr(node, "names", ())]
            assert "numba" not in [*names, getattr(node, "module", None)], path


def test_without_a_folder_to_keep_it_in_a_loop_is_compiled_all_the_same(fresh, monkeypatch, caplog):
    """A package and a home that are both read-only."""
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, "_locator_classes", [])
    assert fresh(3) == 12
    assert "made anew in each process" in caplog.text
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_on_a_full_disk_a_loop_is_compiled_all_the_same(fresh, monkeypatch, caplog):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", full)
    assert [fresh(3), fresh(3), fresh(1.5)] == [12, 12, 6]
    assert caplog.text.count("No space left on device") == 1
