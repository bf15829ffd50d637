"""Tars as folders of photos, shards of results, and what happens to a photo that kills."""

import io
import json
import os
import signal
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prnet.reconstruct import whole_picture
from prnet.reconstruction.cluster import ClusterOptions, reconstruct_on_cluster
from prnet.reconstruction.loading import load
from prnet.reconstruction.photos import SUFFIXES, read_photo
from prnet.reconstruction.run import Settings, find_inputs, find_photos, reconstruct_photos
from prnet.reconstruction.shards import (
    Ledger,
    Piece,
    ShardMaker,
    begin_run,
    plan_pieces,
    write_merged_index,
)
from prnet.reconstruction.tars import TarWriter, damage_of, members_of

SETTINGS = Settings("default", ("npz", "landmarks"), "boxes=whole", 0.6)
NO_FACE = "left.jpg"


def framer(photo: Path, picture: np.ndarray) -> list:
    return [] if photo.name == NO_FACE else whole_picture(photo, picture)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, astronaut) -> Path:
    """Four photos of which one has no face, one file that is none, and a tar of two of them."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/a.png", NO_FACE):
        shift = sum(map(ord, name)) % 9
        Image.fromarray(astronaut[40:190, 150 + shift : 300 + shift]).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"nothing")
    with tarfile.open(folder / "shard.tar", "w") as archive:
        archive.add(folder / "b.png", "./0001.png")
        archive.add(folder / "sub" / "a.png", "deep/0002.png")
        archive.add(folder / "a.png", "deep/._0002.png")
        archive.addfile(tarfile.TarInfo("0001.json"), io.BytesIO())
    return folder


def unpacked(output: Path, to: Path) -> dict[str, bytes]:
    """The files of all shards, by name."""
    for tar in sorted(output.glob("*.tar")):
        with tarfile.open(tar) as archive:
            archive.extractall(to, filter="data")
    return contents(to)


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "faces.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def make_all(source: Path, output: Path, reconstructor, **options) -> list[str]:
    """All shards in this process; the names of those that were made."""
    plan = plan_pieces(find_inputs(source), output, SETTINGS, shard_size=2)
    begin_run(output, SETTINGS)
    maker = ShardMaker(lambda: reconstructor, output, SETTINGS, framer, **options)
    for piece in plan.pieces:
        maker(Piece.of_json(piece.as_json()))
    write_merged_index(output, plan.names, SETTINGS)
    return [piece.name for piece in plan.pieces]


def without_shards(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in one.items() if key != "shard"} for one in records]


def by_input(records: list[dict]) -> list[dict]:
    return sorted(records, key=lambda record: record["input"])


def test_a_tar_is_a_folder_of_photos(photos):
    tar = photos / "shard.tar"
    found = find_photos(tar)
    assert found == [tar / "0001.png", tar / "deep" / "0002.png"]
    np.testing.assert_array_equal(
        read_photo(found[0]).picture, read_photo(photos / "b.png").picture
    )
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_photo(tar / "0003.png")
    assert find_photos(f"{photos}/*.tar") == found
    assert set(found) < set(find_photos(photos))


def test_a_list_has_photos_in_its_order(photos, tmp_path, monkeypatch):
    names = [photos / "b.png", photos / "absent.png", photos / "a.png", photos / "shard.tar"]
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*names, names[0], ""])))
    found = find_photos(tmp_path / "list.txt")
    assert found == [*names[:3], *find_photos(photos / "shard.tar")]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(FileNotFoundError, match="expected the path of a photo"):
        find_photos(tmp_path / "empty.txt")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_of_a_tar_that_is_cut_off_the_rest_is_read(photos, tmp_path, kept):
    data = (photos / "shard.tar").read_bytes()
    size = (photos / "b.png").stat().st_size
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[: 512 + int(kept * size)])
    (member,) = members_of(cut, SUFFIXES)
    assert "cut off or damaged at byte" in damage_of(cut)
    with pytest.raises(ValueError, match=rf"0001.png: cut off, .* of its {size} bytes"):
        read_photo(member)
    assert damage_of(photos / "shard.tar") is None


def test_what_is_no_tar_is_refused(tmp_path):
    for name, content in (("a.tar", b"x" * 2000), ("b.tar", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: (not a readable tar|the file is empty)"):
            members_of(tmp_path / name, SUFFIXES)
    with tarfile.open(tmp_path / "c.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ValueError, match="plain tars, not compressed"):
        members_of(tmp_path / "c.tar", SUFFIXES)


def test_members_never_leave_their_tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("/etc/a.png", "../../b.png", "good/c.png"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("d.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found = [path.relative_to(tmp_path).as_posix() for path in find_photos(tmp_path / "a.tar")]
    assert found == ["a.tar/etc/a.png", "a.tar/good/c.png"]


def test_shards_hold_what_one_machine_writes(photos, tmp_path, reconstructor):
    """The same bytes by the same names, the same records; the tars themselves are reproducible."""
    known = reconstructor, SETTINGS
    local = reconstruct_photos(find_photos(photos), tmp_path / "l", *known, framer=framer)
    made = make_all(photos, tmp_path / "o", reconstructor)
    assert made == ["shard", "photos-000000", "photos-000001", "photos-000002"]
    expected = contents(tmp_path / "l")
    assert len(expected) == 2 * 5
    assert unpacked(tmp_path / "o", tmp_path / "u") == expected
    merged = json.loads((tmp_path / "o" / "faces.json").read_text())
    assert by_input(without_shards(merged.pop("inputs"))) == by_input(local.pop("inputs"))
    assert merged == local
    make_all(photos, tmp_path / "again", reconstructor)
    assert contents(tmp_path / "again") == contents(tmp_path / "o")


def test_a_rerun_makes_what_is_missing_and_what_is_new(photos, tmp_path, reconstructor):
    output, names = tmp_path / "o", ["b.png", "a.png", NO_FACE]
    (tmp_path / "list.txt").write_text("\n".join(str(photos / name) for name in names))
    assert make_all(tmp_path / "list.txt", output, reconstructor) == [
        "photos-000000",
        "photos-000001",
    ]
    first = contents(output)
    assert make_all(tmp_path / "list.txt", output, reconstructor) == []
    (output / "photos-000000.json").unlink()
    assert make_all(tmp_path / "list.txt", output, reconstructor) == ["photos-000000"]
    assert contents(output) == first
    names.insert(0, "sub/a.png")
    (tmp_path / "list.txt").write_text("\n".join(str(photos / name) for name in names))
    assert make_all(tmp_path / "list.txt", output, reconstructor) == ["photos-000002"]
    records = json.loads((output / "faces.json").read_text())["inputs"]
    assert [record["stem"] for record in records] == ["b", "a", "left", "a_png"]


def test_folders_of_other_runs_are_refused(photos, tmp_path, reconstructor):
    reconstruct_photos(
        [photos / "a.png"], tmp_path / "l", reconstructor, SETTINGS, framer=framer, progress=False
    )
    with pytest.raises(ValueError, match="of a run with engine=local"):
        make_all(photos, tmp_path / "l", reconstructor)
    begin_run(tmp_path / "o", SETTINGS._replace(outputs=("npz",)))
    with pytest.raises(ValueError, match="choose another output= or delete it"):
        make_all(photos, tmp_path / "o", reconstructor)
    with pytest.raises(ValueError, match="the tars of the input lie there"):
        make_all(photos, photos, reconstructor)


def test_a_photo_that_kills_is_left_out_after_some_deaths(photos, tmp_path, reconstructor):
    """A process that dies leaves its ledger; the third that finds the same photo there goes on
    without it, and all others are made."""

    class Died(BaseException):
        pass

    def killing(photo: Path, picture: np.ndarray) -> list:
        if photo.name == "b.png":
            raise Died
        return framer(photo, picture)

    names = ("a.png", "b.png", NO_FACE)
    piece = Piece("photos-000000", tuple(str(photos / name) for name in names), ("a", "b", "left"))
    deadly_photo, ledger = str(photos / "b.png"), tmp_path / "photos-000000.begun"
    for deaths in (1, 2):
        maker = ShardMaker(lambda: reconstructor, tmp_path, SETTINGS, killing, attempts=2)
        with pytest.raises(Died):
            maker(piece)
        assert Ledger(ledger).deaths == {deadly_photo: deaths}
        assert not list(tmp_path.glob("*.tar"))
    maker = ShardMaker(lambda: reconstructor, tmp_path, SETTINGS, killing, attempts=2)
    assert tuple(maker(piece)) == (3, 1, 2)
    records = json.loads((tmp_path / "photos-000000.json").read_text())["inputs"]
    assert [record.get("why") for record in records] == [
        None,
        "2 processes died of it; left out",
        "no face found",
    ]
    assert not ledger.exists()


def test_an_error_of_the_program_is_of_one_photo(photos, tmp_path, reconstructor, monkeypatch):
    """A full disk is everybody's: nothing is listed for it, and nothing half written remains."""
    piece = Piece("s", (str(photos / "a.png"), str(photos / "b.png")), ("a", "b"))
    failing = {"a.png": RuntimeError("odd picture")}

    def breaks(photo: Path, picture: np.ndarray) -> list:
        if photo.name in failing:
            raise failing[photo.name]
        return framer(photo, picture)

    maker = ShardMaker(lambda: reconstructor, tmp_path, SETTINGS, breaks)
    assert tuple(maker(piece)) == (2, 1, 1)
    record = json.loads((tmp_path / "s.json").read_text())["inputs"][0]
    assert record["why"].endswith("a.png: RuntimeError: odd picture")
    (tmp_path / "s.json").unlink()
    monkeypatch.setattr(TarWriter, "add", _full)
    with pytest.raises(OSError, match="No space left"):
        maker(piece)
    assert not (tmp_path / "s.json").exists()
    assert not list(tmp_path.glob(".*"))


def _full(_writer: TarWriter, _file: Path, _name: str) -> None:
    raise OSError(28, "No space left on device")


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"ray\.shard_size: got 0"):
        ClusterOptions(shard_size=0).checked()
    with pytest.raises(ValueError, match=r"ray\.cards: got 2"):
        ClusterOptions(cards=2).checked()
    with pytest.raises(ValueError, match="ray.cards says it"):
        ClusterOptions().device("cuda")
    assert ClusterOptions(cards=0.25).device("auto") == "cuda"
    with pytest.raises(ValueError, match="engine=ray: give input="):
        reconstruct_on_cluster(None, Path(), load, SETTINGS, ClusterOptions())


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes on this machine."""
    pytest.importorskip("ray", reason='needs pip install "prnet[scale]"')
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # at 15, a busy machine leaves them nothing
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    cluster.add_node(num_cpus=3)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def deadly(photo: Path, picture: np.ndarray) -> list:
    """As a decoder that crashes."""
    if photo.name == "b.png":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)  # long enough to be killed from outside
    return framer(photo, picture)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_two_nodes_a_killed_actor_and_a_photo_that_kills(
    photos, tmp_path, reconstructor, two_nodes
):
    """Equal to the run on one machine but for the photo that no process survives."""
    expected = reconstruct_photos(
        find_photos(photos), tmp_path / "l", reconstructor, SETTINGS, framer=framer, progress=False
    )
    output, killed = tmp_path / "o", []

    def kill_one() -> None:
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            for begun in output.glob("*.begun"):
                found = json.loads(begun.read_text())
                if not found["photo"].endswith("b.png"):
                    os.kill(found["process"], signal.SIGKILL)
                    killed.append(found["photo"])
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    options = ClusterOptions(actors=2, shard_size=2, attempts=2)
    counts = reconstruct_on_cluster(
        photos, output, load, SETTINGS, options, framer=deadly, progress=False
    )
    killer.join()
    assert killed
    assert tuple(counts) == (7, 4, 3)
    assert {path.suffix for path in output.iterdir()} == {".tar", ".json"}
    assert not list(output.glob(".*"))
    merged = json.loads((output / "faces.json").read_text())["inputs"]
    (left_out,) = (one for one in merged if one["input"] == str(photos / "b.png"))
    assert left_out["why"] == "2 processes died of it; left out"
    others = [one for one in expected["inputs"] if one["input"] != left_out["input"]]
    kept = [one for one in without_shards(merged) if one["input"] != left_out["input"]]
    assert by_input(kept) == by_input(others)
    files = contents(tmp_path / "l")
    assert unpacked(output, tmp_path / "u") == {
        name: data for name, data in files.items() if name not in ("b.npz", "b_landmarks.json")
    }
    again = reconstruct_on_cluster(
        photos, output, load, SETTINGS, options, framer=deadly, progress=False
    )
    assert tuple(again) == (0, 0, 0)
