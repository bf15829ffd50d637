"""scripts/benchmark.py at toy sizes: what it makes, how it divides, what it prints. No times."""

import functools
import importlib
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from prnet.datasets.fits import find_aflw2000, read_fit
from prnet.export.runtime import fingerprint
from prnet.geometry.mesh import vertex_normals
from prnet.models.face_decoder import FaceDecoder
from prnet.reconstruction.loading import load
from tests.load_script import load_script

benchmark = load_script("benchmark")
card_rows = sys.modules["benchmarks.card_rows"]
data_rows = sys.modules["benchmarks.data_rows"]
evaluation_rows = sys.modules["benchmarks.evaluation_rows"]
made_data = sys.modules["benchmarks.made_data"]
network_rows = sys.modules["benchmarks.network_rows"]
peer_code = sys.modules["benchmarks.peer_code"]
peer_data = sys.modules["benchmarks.peer_data"]
peer_data_rows = sys.modules["benchmarks.peer_data_rows"]
peer_network_rows = sys.modules["benchmarks.peer_network_rows"]
peer_rows = sys.modules["benchmarks.peer_rows"]
peers = sys.modules["benchmarks.peers"]
reconstruct_rows = sys.modules["benchmarks.reconstruct_rows"]
regressor_rows = sys.modules["benchmarks.regressor_rows"]
runtime_rows = sys.modules["benchmarks.runtime_rows"]
tables = sys.modules["benchmarks.tables"]
timing = sys.modules["benchmarks.timing"]
SIZES = timing.Sizes(
    vertex_rows=23,
    vertex_columns=21,
    shape_bases=5,
    exp_bases=3,
    pictures=3,
    picture_side=96,
    build=(1, 4),
    build_all_cores=(1, 3),
    loader=3,
    loader_batch=2,
    map_batch=2,
    network_width=1,
    inference=(1,),
    regressors=("mobilenet_v2",),
    step=1,
    card_batches=(2,),
    evaluation=3,
    evaluation_batch=2,
    nme=2,
    icp=1,
    raster=(24, 256),
    reconstruct_threads=(),
    reconstruct_starts=False,
    synthetic=2,
    synthetic_sides=(48,),
    sgemm=32,
    copy=1024,
    stretch_seconds=0,
)
PEER_MACHINE = timing.Ceilings(peers.PEER_SGEMM, peers.PEER_COPY)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Made data and the set built of them."""
    work_dir = tmp_path_factory.mktemp("benchmark")
    return made_data.prepare(None, work_dir, rounds=2, compile=False, sizes=SIZES)


def test_real_sizes_are_those_of_the_bfm():
    sizes = timing.Sizes()
    assert sizes.vertex_rows * sizes.vertex_columns == 53_215
    assert (sizes.shape_bases, sizes.exp_bases) == (199, 29)
    # With less work the build would not start a process.
    work = min(sizes.build_all_cores) * timing.archives.SECONDS
    assert work >= timing.resumable.POOL_FROM


def test_made_face_is_outward_and_covers_the_layout(bench):
    vertices = bench.face.morphable_model.mean * torch.tensor([1.0, -1.0, 1.0])
    normals = vertex_normals(vertices[None], bench.face.triangles)[0]
    assert (normals[:, 2] > 0).all()
    assert bench.face.describe()["vertices"] == 23 * 21
    assert len(bench.face.triangles) == 2 * 22 * 20
    corner_sum = bench.face.uv.barycentric.sum(-1)
    torch.testing.assert_close(corner_sum, torch.ones_like(corner_sum))
    tip = bench.face.landmark_index[30]
    assert vertices[tip, 0].abs() < 1e-3 * vertices[:, 0].max()


def test_made_fits_agree_with_their_landmarks(bench):
    """The builder's audit finds nothing, and the faces lie in their pictures."""
    build = json.loads((bench.built.directory / "build.json").read_text())
    assert build["count"] == 3
    assert not any(build["audit"].values())
    for pair in bench.pairs:
        landmarks = read_fit(pair.fit).landmarks
        assert 1 <= landmarks[:, :2].min() <= landmarks[:, :2].max() <= SIZES.picture_side
        assert np.ptp(landmarks[:, 1]) > 0.2 * SIZES.picture_side


def test_pairs_are_repeated_in_order(bench, tmp_path):
    made_data.repeat_pairs(bench.pairs, tmp_path, 7)
    repeated = find_aflw2000(tmp_path)
    assert [pair.picture.resolve() for pair in repeated] == [
        bench.pairs[i % 3].picture.resolve() for i in range(7)
    ]
    assert repeated[6].fit.resolve() == bench.pairs[0].fit.resolve()


@pytest.mark.parametrize(
    ("bound", "sgemm", "copy", "expected"),
    [
        ("compute", 0.5, 0.1, 20.0),
        ("memory", 0.5, 0.1, 100.0),
        ("scalar", 0.5, 0.1, 20.0),
        ("scalar", 0.5, 4.0, 2.5),
        ("compute", 1.0, 1.0, 10.0),
    ],
)
def test_peers_are_carried_over_by_their_ceiling(bound, sgemm, copy, expected):
    peer = peers.Peer("system", 10.0, bound, "")
    ceilings = timing.Ceilings(sgemm * peers.PEER_SGEMM, copy * peers.PEER_COPY)
    assert peers.carried_over(peer, ceilings) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123456, "0.0123"), (0.75, "0.750"), (13.64, "13.6"), (151.6, "152")],
)
def test_numbers_have_three_digits(value, text):
    assert tables.plain(value) == text


def test_large_numbers_have_no_exponent():
    assert tables.plain(1_234_567) == "1,230,000"


def test_ratios_are_medians_over_rounds(monkeypatch):
    """Of 1, 10 and 2 ms against 4, 20 and 40 ms: 4, 2 and 20 times, not 20 / 2."""
    monkeypatch.setitem(peers.PEERS, "some", peers.Peer("system", 10.0, "compute", "somewhere"))
    half = timing.Ceilings(peers.PEER_SGEMM / 2, peers.PEER_COPY)
    line = tables.Line(
        "work",
        [0.001, 0.010, 0.002],
        [PEER_MACHINE, half, PEER_MACHINE],
        ("some",),
        "slow",
        [0.004, 0.020, 0.040],
    )
    assert tables.time_row(line) == (
        "| work | 2.00 (1.00 to 10.0) | 500 | system: 10.0, here 10.0 | 5.00 x | 4.00 x slow |"
    )


def test_calls_are_warmed_up_then_alternated():
    calls = []
    timed = timing.alternate(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        device=torch.device("cpu"),
        ceiling_device=torch.device("cpu"),
        rounds=3,
        sizes=SIZES,
    )
    assert calls == ["a", "b"] + 3 * ["a", "b"]
    assert set(timed.seconds) == {"a", "b"}
    assert [len(values) for values in timed.seconds.values()] == [3, 3]
    assert len(timed.ceilings) == 3
    assert min(min(ceilings) for ceilings in timed.ceilings) > 0


def test_short_calls_are_repeated():
    """A call of under a millisecond fills 20 ms, as its mean."""
    calls = []
    timed = timing.alternate(
        {"a": lambda: calls.append(1)},
        device=torch.device("cpu"),
        ceiling_device=torch.device("cpu"),
        rounds=1,
        sizes=SIZES._replace(stretch_seconds=0.02),
    )
    assert len(calls) > 20
    assert timed.seconds["a"][0] < 0.02


def test_each_row_can_be_timed_and_printed(monkeypatch, capsys):
    monkeypatch.setattr(data_rows, "num_workers", lambda _setting: 2)
    whole = evaluation_rows.clouds
    # Clouds of all face pixels, however small the made face: an ICP of theirs takes seconds.
    monkeypatch.setattr(
        evaluation_rows, "clouds", lambda bench: [cloud[::40] for cloud in whole(bench)]
    )
    benchmark.main(["--rounds", "2", "--no-compile", "--device", "cpu"], sizes=SIZES)
    printed = capsys.readouterr().out
    tables = [line for line in printed.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {3, 5, 6, 7}
    times = [line.split("|")[1:-1] for line in tables if line.count("|") == 7][2:]
    whats = [cells[0].strip() for cells in times]
    for start, count in {
        "build, in this process": 1,
        "build, with all 2 cores": 1,
        "position map, ": 5,
        "loader, ": 2,
        "PRN inference, batch 1, ": 2,
        "PRN training step, batch 1, ": 2,
        "SADRNet inference, batch 1, ": 2,
        "SADRNet, batch 1, network alone": 1,
        "SADRNet, batch 1, self-alignment alone": 1,
        "SADRNet training step, batch 1, ": 2,
        "mobilenet_v2, one face, 120 px, torch eager": 1,
        "PRN to its map, batch 1, torch": 1,
        "SADRNet with its alignment, batch 1, torch": 1,
        "Mobile-FRNet with its map, batch 1, torch": 1,
        "swift with its fit and map, with the mirror image, batch 1, torch": 1,
        "swift with its fit and map, without it, batch 1, torch": 1,
        "NME 3D of 2 x ": 1,
        "score saved predictions, 3 faces (2,000: ": 1,
        "evaluate PRN, batch 2, 3 faces (2,000: ": 1,
        "raster, 880 triangles, ": 2,
    }.items():
        assert sum(what.startswith(start) for what in whats) == count, start
    number = r"-?[\d,]+(\.\d+)?"
    for _, ours, rate, peer, indirect, direct in times:
        assert re.fullmatch(rf" {number} \({number} to {number}\) ", ours)
        assert re.fullmatch(rf" {number} ", rate)
        assert peer.count("here") == indirect.count(" x") == peer.count("<br>") + 1 or peer == "  "
        assert re.fullmatch(rf" {number} x .+|  ", direct)
    assert "made by this script; face of 483 vertices, 5 shape and 3 expression bases" in printed
    assert "2 rounds" in printed
    # 62 outputs; 2.16 times mb05's 0.046e9 operations.
    assert "| mobilenet_v2 | 2.303 | 0.0992 | 2.16 x | 4.61 |" in printed


def test_only_the_rows_asked_for_on_given_data(tiny_data_dir, capsys):
    benchmark.main(
        ["--rounds", "1", "--rows", "raster", "--data-dir", str(tiny_data_dir)], sizes=SIZES
    )
    printed = capsys.readouterr().out
    assert f"AFLW2000-3D and BFM of {tiny_data_dir}; face of 98 vertices" in printed
    assert printed.count("| raster, ") == 2
    assert "loader, " not in printed
    assert "* face3d, 4.04 ms" in printed
    assert "example 8, 23.1 ms" not in printed


CLONE = """
from torch import nn
def mobilenet_05():
    return nn.Sequential(nn.Conv2d(3, 2, 120), nn.Flatten())
"""


def test_peers_run_beside_ours(tmp_path, capsys):
    """Of the clones that are there; nothing of them stays behind."""
    before = set(sys.modules), list(sys.path), Path.cwd()
    (tmp_path / "3DDFA_V2" / "models").mkdir(parents=True)
    (tmp_path / "3DDFA_V2" / "models" / "mobilenet_v1.py").write_text(CLONE)
    on_the_cpu = ["--clock", "cpu", "--device", "cpu"]
    benchmark.main(
        ["--rounds", "1", "--peers", str(tmp_path), "--no-compile", *on_the_cpu], sizes=SIZES
    )
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "3DDFA_V2 mb05" in line]
    assert [row.split("|")[3].split(":")[0].strip() for row in rows] == [
        "mobile_frnet",
        "swift, which also sees the mirror image",
    ]
    assert "PRNet-PyTorch" not in printed
    assert not {name for name in set(sys.modules) - before[0] if name.startswith("models")}
    assert (list(sys.path), Path.cwd()) == before[1:]


def test_peers_are_exported_beside_ours(bench, monkeypatch):
    """The clone's network as a file, ours as `choose_runtime` has it run."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    chosen = []

    def choose(model, face, checkpoint, runtime, device, *, folder):
        chosen.append((checkpoint["model"].get("mirror_average"), runtime))
        model.engine = model.layers

    monkeypatch.setattr(runtime_rows, "choose_runtime", choose)
    clone = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 120), torch.nn.Flatten()).eval()
    monkeypatch.setattr(peer_network_rows, "mb05", lambda _folder: clone)
    lines = list(peer_network_rows.regressor_lines(Path(), bench._replace(compile=True)))
    assert [line.what for line in lines] == ["one face, torch", "one face, ONNX Runtime"]
    assert chosen == [(None, "onnx"), (True, "onnx"), (False, "onnx")]
    peer, ours = lines[1].peers["3DDFA_V2 mb05"], lines[1].ours
    (image,) = peer.args
    torch.testing.assert_close(*peer(), clone(image))
    looks = {what: len(call()) for what, call in ours.items()}  # both: how far apart they are too
    assert looks == {
        "mobile_frnet": 1,
        "swift, which also sees the mirror image": 2,
        "swift without it": 1,
    }


def test_a_clone_that_is_not_built_is_named_and_left_out(bench, tmp_path, capsys):
    (tmp_path / "face3d").mkdir()
    lines = peer_rows.peer_table(tmp_path, bench, ["raster", "loader", "synthetic"])
    assert len(lines) == 2  # the head alone
    told = capsys.readouterr().err.splitlines()
    assert told == ["left out: raster, face3d: No module named 'face3d'"]


def test_what_comes_before_the_first_image_is_subtracted(bench, monkeypatch):
    """Of 5 images 3 s with their start of 1 s, of the peer's 2 images 4 s: 0.5 s and 2 s each."""
    seconds = {"theirs": [4.0, 4.0], "ours": [3.0, 5.0], "ours, its start": [1.0, 1.0]}
    monkeypatch.setattr(peer_rows, "alternate", lambda *_, **__: timing.Timing(seconds, []))
    peers, ours = {"theirs": time.time}, {"ours": time.time}
    line = timing.Beside("work", 4, peers, ours, peer_count=2, starts=ours, trains=True)
    assert peer_rows.line_rows(line, bench) == [
        "| work (theirs) | 2,000 (2,000 to 2,000) | ours: 750 (500 to 1,000) | 3.00 |"
    ]


def test_peers_are_given_the_same_face(bench, monkeypatch):
    """By their formula it has our vertices; bases that are lacking move nothing."""
    monkeypatch.setattr(peer_data_rows, "PART", (2, 1))
    monkeypatch.setattr(peer_data_rows, "WHOLE", (7, 4))
    random = np.random.default_rng(0)
    fit = {"Shape_Para": random.normal(size=(199, 1)), "Exp_Para": random.normal(size=(29, 1))}
    meshes = {}
    for (num_shape, num_exp), files in zip(
        ((2, 1), (7, 4)), peer_data_rows.faces_of(bench).values(), strict=True
    ):
        face = files.load()
        read = peer_code.as_read(face)
        own = [*face.morphable_model.buffers(), face.landmark_index, face.uv.vertex_pixels]
        given = [*read.values(), peer_code.uv_places(face)]
        assert not any(np.shares_memory(a, b.numpy()) for a in given for b in own)
        monkeypatch.setattr(peer_data.scipy.io, "loadmat", lambda _path: fit)
        cut = peer_data.leading(face).loadmat("a.mat")
        monkeypatch.undo()
        assert (len(cut["Shape_Para"]), len(cut["Exp_Para"])) == (num_shape, num_exp)
        theirs = read["shapeMU"] + read["expMU"]
        theirs = theirs + read["shapePC"] @ cut["Shape_Para"] + read["expPC"] @ cut["Exp_Para"]
        shape, expression = (
            torch.from_numpy(cut[key].T).float() for key in ("Shape_Para", "Exp_Para")
        )
        ours = face.morphable_model(shape, expression)[0]
        np.testing.assert_allclose(theirs.reshape(3, -1, order="F").T, ours, rtol=1e-4, atol=1)
        meshes[num_shape] = ours
    counts = {"Shape_Para": 5, "Exp_Para": 3}
    cut = (torch.from_numpy(fit[key][:count].T).float() for key, count in counts.items())
    at_five = bench.face.morphable_model(*cut)[0]
    torch.testing.assert_close(meshes[7], at_five)
    assert not torch.allclose(meshes[2], at_five)


def test_convolutions_of_old_torch_keep_their_size():
    layer = torch.nn.Conv2d(1, 1, 4, padding=3, padding_mode="circular", bias=False)
    image = torch.rand(1, 1, 8, 8)
    assert layer(image).shape[-1] == 11
    assert peer_code.as_trained(layer)(image).shape[-1] == 8


def test_cpu_time_counts_work_alone():
    """Sleeping takes none of it."""
    device = torch.device("cpu")
    assert timing.time_call(lambda: time.sleep(0.05), device, clock="cpu") < 0.04
    assert timing.time_call(lambda: time.sleep(0.05), device) >= 0.05


def test_stages_of_a_photo_are_timed_and_their_files_written(tmp_path):
    stages = importlib.import_module("benchmarks.reconstruct_stages")
    found = stages.stages(load(), tmp_path, 1)
    assert {"read", "network alone", "photo to all three files"} < set(found)
    assert min(min(seconds) for seconds in found.values()) > 0
    assert found["network alone"].cpu < found["photo to all three files"].cpu
    for stem in ("face", "whole"):
        files = {path.name for path in tmp_path.glob(f"{stem}*")}
        assert files == {f"{stem}.npz", f"{stem}.glb", f"{stem}_overlay.jpg"}


def test_stages_by_threads_make_one_table():
    one = {"stages": {"read": (0.002, 0.0025), "find": (0.0171, 0.018)}, "peak_bytes": 1.04e9}
    two = {"stages": {"read": (0.002, 0.002), "find": (0.02, 0.011)}, "peak_bytes": 1.1e9}
    assert reconstruct_rows.stage_table({1: one, 2: two}) == [
        "| a photo of 512 px with one face | 1 thread, CPU ms (ms) | 2 threads, CPU ms (ms) |",
        "| --- | --- | --- |",
        "| read | 2.00 (2.50) | 2.00 (2.00) |",
        "| find | 17.1 (18.0) | 20.0 (11.0) |",
        "| peak of memory | 1,040 MB | 1,100 MB |",
    ]


def test_disk_table_counts_every_byte(bench):
    map_row, whole_row = tables.disk_table(bench.built)[2:]
    files = [path for path in bench.built.directory.rglob("*") if path.is_file()]
    pictures = sum(pair.picture.stat().st_size for pair in bench.pairs) / 3
    whole = sum(path.stat().st_size for path in files) / 3
    assert f"| {whole:,.0f} | 807,060 | {tables.plain(807_060 / whole)} x |" in whole_row
    assert f"| {whole - pictures:,.0f} | 786,560 |" in map_row


def test_only_compiled_variants_are_compiled(bench, monkeypatch):
    compiled = []

    def compile_nothing(model, **_options):
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile_nothing)
    lines = network_rows.prn_rows(bench._replace(compile=True))
    variants = [line.what.rsplit("1, ", 1)[1] for line in lines]
    assert variants == 2 * list(network_rows.VARIANTS)  # inference, then steps
    assert len(compiled) == 2
    baselines = ["", network_rows.LITERAL, network_rows.LITERAL]
    assert [line.baseline for line in lines] == 2 * baselines


def test_networks_run_in_onnx_runtime_too(bench, monkeypatch):
    """Beside torch, as its multiple; the file itself is tested with the export."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(regressor_rows, "exported_call", lambda *_: int)
    runtime, eager = regressor_rows.regressor_rows(bench._replace(compile=True))
    assert runtime.what == "mobilenet_v2, one face, 120 px, ONNX Runtime"
    assert runtime.peers == ("mobilenet_ort",)
    assert runtime.baseline_seconds == eager.seconds


def test_runtimes_of_one_network_alternate(bench, monkeypatch, capsys):
    """A real file, in the benchmark's folder alone; a runtime that is not installed is named."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("XDG_CACHE_HOME", str(bench.work_dir / "user"))
    packages = {"openvino": "no_such_package", "onnx": "onnxruntime"}
    monkeypatch.setattr(runtime_rows, "PACKAGES", packages)
    calls, whole = {}, runtime_rows.map_call

    def counted(model, decoder, image):
        engine = "torch" if model.engine is None else "onnx"
        calls[engine] = whole(model, decoder, image)
        return calls[engine]

    monkeypatch.setattr(runtime_rows, "map_call", counted)
    first = next(runtime_rows.networks(bench))
    monkeypatch.setattr(runtime_rows, "networks", lambda _bench: [first])
    lines = runtime_rows.runtime_rows(bench._replace(compile=True))
    assert [line.what for line in lines] == [
        "PRN to its map, batch 1, torch",
        "PRN to its map, batch 1, ONNX Runtime",
    ]
    assert [line.baseline for line in lines] == ["", "torch"]
    assert lines[1].baseline_seconds == lines[0].seconds
    torch.testing.assert_close(calls["onnx"](), calls["torch"](), atol=1e-3, rtol=0)
    assert 'left out: OpenVINO; pip install "prnet[openvino]"\n' in capsys.readouterr().err
    files = list((bench.work_dir / "networks").iterdir())
    assert [path.name.partition(".")[2] for path in files] == ["onnx.onnx"]
    assert not (bench.work_dir / "user" / "prnet").exists()


def test_networks_that_runtimes_run_make_maps(bench):
    """Each has an export of its own; with the mirror image the map is another than without."""
    image = torch.rand(2, 3, 256, 256)
    maps, names = [], set()
    for _, (model, face, checkpoint), _ in runtime_rows.networks(bench):
        maps.append(runtime_rows.map_call(model, FaceDecoder(model, face), image)())
        names.add(fingerprint(checkpoint))
    assert [made.shape for made in maps] == 5 * [image.shape]
    assert len(names) == 5
    *_, both, one = maps
    assert 0.01 < (both - one).abs().max() < 100


def test_what_does_not_compile_is_named_and_left_out(bench, monkeypatch, capsys):
    def fail(_model, **_options):
        def call(_image):
            raise RuntimeError("no C++ compiler\nand more")

        return call

    monkeypatch.setattr(torch, "compile", fail)
    lines = network_rows.prn_rows(bench._replace(compile=True))
    assert not [line for line in lines if "compiled" in line.what]
    assert len(lines) == 4
    assert "left out: compiled, channels_last: no C++ compiler\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "maps,mpas"], r"got mpas; choose of build, maps, loader"),
        (["--rounds", "0"], r"--rounds: got 0, expected at least 1"),
        (["--threads", "0"], r"--threads: got 0, expected at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(arguments, sizes=SIZES)
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*BFM\.mat: missing"):
        benchmark.main(["--data-dir", str(tmp_path)], sizes=SIZES)


def test_an_unknown_device_is_refused():
    with pytest.raises(SystemExit, match="error: device: got 'tpu'"):
        benchmark.main(["--device", "tpu"], sizes=SIZES)


def test_one_core_has_no_pool_to_time(bench, monkeypatch):
    monkeypatch.setattr(data_rows, "num_workers", lambda _setting: 1)
    (line,) = data_rows.build_rows(bench)
    assert line.what.startswith("build, in this process, from 1 (")
    assert line.baseline_seconds is None


def test_a_card_that_is_not_there_is_not_measured(bench, monkeypatch):
    """And what would be timed on it runs: a step, and what feeds it."""
    lines = card_rows.card_table(bench._replace(compile=True))
    rows = [line for line in lines if "not measured" in line]
    ways = len(card_rows.WAYS)
    assert len(rows) == 2 * ways + 3
    assert [line.count("4,600") for line in rows[:ways]] == [0, 0, 1, 1, 1, 1, 0, 0]
    assert [line.count("3,400") for line in rows[ways : 2 * ways]] == [0, 0, 1, 1, 1, 1, 0, 0]
    for trained in card_rows.TRAINED.values():
        way = card_rows.Way("fp32", "no")
        make = functools.partial(card_rows.step_call, bench, trained, way, count=2)
        speed, peak = card_rows.measured(bench, make, count=2)
        assert float(speed.replace(",", "")) > 0
        assert peak == ""
    monkeypatch.setattr(card_rows, "LOADED", 2)
    speeds = list(card_rows.feeding_speeds(bench, 2, 0))
    assert len(speeds) == 3
    assert min(speeds) > 0

    def fails() -> None:
        raise RuntimeError("CUDA out of memory.\nmore of it")

    found = card_rows.measured(bench, lambda: fails, count=2)
    assert found == ("failed: CUDA out of memory.", "")
