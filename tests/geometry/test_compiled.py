"""When compiled loops are made anew."""

from pathlib import Path

import pytest

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
    assert kept.py_func.__qualname__.endswith(version)
    assert kept() == 1
