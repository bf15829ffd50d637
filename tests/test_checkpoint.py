"""Checkpoints: written whole, read without running code, loaded strictly."""

import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from prnet import checkpoint as checkpoint_module
from prnet.checkpoint import (
    describe_source,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)


def small_model(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 3, 3))


def small_state() -> dict:
    return {"model": {"name": "small", "width": 4}, "weights": small_model().state_dict()}


def assert_same(left: object, right: object) -> None:
    """Equal in type and value, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key, value in left.items():
            assert_same(value, right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert (type(left), left) == (type(right), right)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(2, 3, 8, 8, generator=generator)
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()


def test_round_trip(tmp_path):
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer, range(2))
    state = {
        "model": {"name": "small", "width": 4, "coordinate_scale": 281.6, "flag": True},
        "weights": model.state_dict(),
        "face": {"name": "bfm", "vertices": 53215, "masks": ["a", None]},
        "training": {
            "step": 2,
            "best": float("inf"),
            "optimizer": optimizer.state_dict(),
            "seed": 2**127 + 1,
            "random": torch.get_rng_state(),
        },
    }
    path = tmp_path / "new" / "last.pt"
    save_checkpoint(path, state)
    assert_same(load_checkpoint(path), {"format": 1, **state})
    assert_same(load_checkpoint(str(path)), {"format": 1, **state})
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_going_on_from_a_checkpoint_is_not_stopping(tmp_path):
    """Weights, BN statistics and Adam's moments after 2 + 3 steps are those after 5."""
    whole = small_model()
    optimizer = torch.optim.Adam(whole.parameters())
    trained(whole, optimizer, range(5))

    first = small_model()
    first_optimizer = torch.optim.Adam(first.parameters())
    trained(first, first_optimizer, range(2))
    training = {"step": 2, "optimizer": first_optimizer.state_dict()}
    state = {"model": {"name": "small"}, "weights": first.state_dict(), "training": training}
    save_checkpoint(tmp_path / "last.pt", state)

    second = small_model()
    second_optimizer = torch.optim.Adam(second.parameters())
    loaded = load_checkpoint(tmp_path / "last.pt")
    load_weights(second, loaded["weights"], source="last.pt")
    second_optimizer.load_state_dict(loaded["training"]["optimizer"])
    trained(second, second_optimizer, range(loaded["training"]["step"], 5))
    assert_same(second.state_dict(), whole.state_dict())
    assert_same(second_optimizer.state_dict(), optimizer.state_dict())


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name in ("a.pt", "b.pt"):
        save_checkpoint(tmp_path / name, small_state())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_weights_in_channels_last_load_into_any_layout(tmp_path):
    model = small_model().to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "m.pt", {"model": {"name": "s"}, "weights": model.state_dict()})
    other = small_model()
    nn.init.zeros_(other[0].weight)
    load_weights(other, load_checkpoint(tmp_path / "m.pt")["weights"], source="m.pt")
    assert torch.equal(other[0].weight, model[0].weight)
    assert other[0].weight.is_contiguous()


class _Disk(Exception):
    pass


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, small_state())
    before = path.read_bytes()

    def half_a_file(content, file):
        file.write(before[: len(before) // 2])
        raise _Disk

    monkeypatch.setattr(checkpoint_module.torch, "save", half_a_file)
    with pytest.raises(_Disk):
        save_checkpoint(path, {**small_state(), "face": {"name": "other"}})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


class Point(NamedTuple):
    x: int


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"face": {"path": Path("x")}}, r"checkpoint\['face'\]\['path'\]: pathlib\..*Path cannot"),
        ({"face": {"mean": np.float64(1)}}, r"\['mean'\]: numpy\.float64 cannot be stored"),
        ({"face": {"mean": np.zeros(2)}}, r"\['mean'\]: numpy\.ndarray cannot be stored"),
        ({"training": [1, [Point(1)]]}, r"\['training'\]\[1\]\[0\]: .*Point cannot be stored"),
        ({"training": {"model": nn.Identity()}}, r"Identity cannot be stored"),
        ({"training": {(1, 2): 3}}, r"key \(1, 2\) is neither str nor int"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, extra, message):
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path / "last.pt", {**small_state(), **extra})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["model", "weights"])
def test_a_state_without_model_or_weights_is_not_written(tmp_path, key):
    state = small_state()
    del state[key]
    with pytest.raises(ValueError, match=f"a checkpoint needs '{key}', got"):
        save_checkpoint(tmp_path / "last.pt", state)
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such file; train writes best\.pt"):
        load_checkpoint(tmp_path / "gone.pt")


def test_a_folder_is_its_best(tmp_path):
    def refused(reason: str) -> None:
        with pytest.raises(FileNotFoundError, match=f"no best.pt in this folder, {reason}"):
            find_checkpoint(tmp_path)

    refused("nor safetensors")
    (tmp_path / "last.pt").touch()
    refused(f"only last.pt, .* give {tmp_path}/last.pt")
    (tmp_path / "a.safetensors").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "a.safetensors"
    (tmp_path / "b.safetensors").touch()
    (tmp_path / "last.pt").unlink()
    refused("2 files of .safetensors; name one")
    (tmp_path / "best.pt").touch()
    assert find_checkpoint(str(tmp_path)) == tmp_path / "best.pt"


def test_safetensors_round_trip(tmp_path):
    """Bit for bit, whatever a tensor's memory layout and type."""
    state = small_state() | {"face": {"name": "embedded", "vertices": 3}, "pixel_origin": "matlab"}
    weights = state["weights"]
    weights["0.weight"] = weights["0.weight"].to(memory_format=torch.channels_last)
    weights["2.bias"] = weights["2.bias"].half()
    save_checkpoint(tmp_path / "m.safetensors", state)
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.keys() == {"format", *state}
    assert_same({**loaded["weights"]}, {name: weights[name] for name in loaded["weights"]})
    assert loaded["weights"].keys() == weights.keys()
    assert loaded["model"] == state["model"]
    assert loaded["face"] == state["face"]


def test_damaged_safetensors_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, small_state())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    foreign = safetensors.torch.save({"a": torch.zeros(2)})
    for content, reason in (
        (b"", "."),
        (whole[:-9], "."),
        (whole[:40], "."),
        (bytes(flipped), "the tensors do not match their checksum"),
        (foreign, "without the entry 'prnet' that says what it is"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"m\.safetensors: not a checkpoint.*{reason}"):
            load_checkpoint(path)


def test_safetensors_carry_values_alone(tmp_path):
    path = tmp_path / "m.safetensors"
    state = small_state()
    save_checkpoint(path, {**state, "face": {"name": "${oc.env:HOME}"}})
    with pytest.raises(ValueError, match="is an interpolation; only values are read"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="only numbers and text go beside the weights"):
        save_checkpoint(path, {**state, "training": {"random": torch.zeros(3)}})


def test_a_repository_of_the_hub_is_found_in_its_cache(tmp_path, monkeypatch):
    """Without a network, as after a download: the layout is huggingface_hub's own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--somebody--faces"
    commit = "0123456789012345678901234567890123456789"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    save_checkpoint(folder / "snapshots" / commit / "faces.safetensors", small_state())
    loaded = load_checkpoint("hf://somebody/faces")
    assert loaded["model"] == small_state()["model"]
    for address in ("hf://somebody/else", "hf://no name"):
        with pytest.raises(FileNotFoundError, match=f"^{address}: not to be had .*hf://USER/REPO"):
            load_checkpoint(address)


def test_the_hub_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r'hf://a/b: needs pip install "prnet\[hub\]"'):
        load_checkpoint("hf://a/b")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps({"format": 1})])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"x\.pt: not a checkpoint .*\(it has {len(content)} bytes; "
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, kept):
    path = tmp_path / "x.pt"
    save_checkpoint(path, small_state())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"x\.pt: not a checkpoint of prnet, or cut off"):
        load_checkpoint(path)


def test_damaged_files_are_refused_or_read_right(tmp_path):
    """One byte changed anywhere: a ValueError naming the file, or a byte that carries nothing."""
    path = tmp_path / "x.pt"
    state = {"format": 1, **small_state()}
    save_checkpoint(path, small_state())
    whole = path.read_bytes()
    refusals = []
    rng = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path)
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert_same(loaded, state)
    assert len(refusals) > 20
    assert all(message.startswith(f"{path}: ") for message in refusals)


def test_other_zip_files_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"x\.pt: not a checkpoint of prnet.*readme\.txt"):
        load_checkpoint(path)


class Malicious:
    """Unpickled with full trust this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_run_from_a_file(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"format": 1, **small_state(), "face": Malicious(tmp_path / "made")}, path)
    with pytest.raises(ValueError, match=r"x\.pt: not a checkpoint .*Weights only load"):
        load_checkpoint(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (small_model().state_dict(), r"a torch file, but not .* no 'format' in \['0\.bias'"),
        ([1, 2], r"a torch file, but not a checkpoint of prnet.*list"),
        ({"format": 2, "model": {}, "weights": {}}, r"checkpoint format 2, this version reads 1"),
        ({"format": 1, "weights": {}}, r"without \['model'\], found \['format', 'weights'\]"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"x\.pt: .*{message}"):
        load_checkpoint(tmp_path / "x.pt")


def renamed(weights: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("weights", "messages"),
    [
        (
            OrderedDict(list(small_model().state_dict().items())[1:]),
            [r"run/best\.pt: weights do not fit Sequential \(9 tensors\): 1 missing \(0\.weight\)"],
        ),
        (
            {**small_model().state_dict(), "extra.weight": torch.zeros(1)},
            [r"1 unexpected \(extra\.weight\)"],
        ),
        (
            small_model(width=8).state_dict(),
            [
                r"7 of another shape \(0\.weight \(8, 3, 3, 3\) instead of \(4, 3, 3, 3\), ",
                r", \.\.\.\)",
            ],
        ),
        (
            renamed(small_model().state_dict(), "module."),
            [r"9 missing \(0\.weight, 0\.bias, ", r"9 unexpected \(module\.0\.weight, "],
        ),
    ],
)
def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded(weights, messages):
    model = small_model()
    nn.init.zeros_(model[2].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for message in messages:
        with pytest.raises(ValueError, match=message):
            load_weights(model, weights, source="run/best.pt")
    assert_same(dict(model.state_dict()), before)


def test_source_names_file_and_model():
    checkpoint = {"model": {"name": "prn", "width": 16}, "weights": {}}
    assert describe_source("best.pt", checkpoint) == "best.pt (model prn, width 16)"
    assert checkpoint["model"]["name"] == "prn"
    assert describe_source("x.pt", {"model": {}}) == "x.pt (model without a name)"


def test_prn_without_optimizer_is_53_megabytes(tmp_path):
    """13,353,618 parameters and 11,890 running statistics in float32, and little else."""
    from prnet.models.prn import PRN

    save_checkpoint(tmp_path / "p.pt", {"model": {"name": "prn"}, "weights": PRN().state_dict()})
    size = (tmp_path / "p.pt").stat().st_size
    assert 0 < size - 4 * (13_353_618 + 11_890) < 200_000


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    """A process that dies in the middle of torch.save: the old checkpoint is still whole."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, small_state())
    before = path.read_bytes()
    script = (
        "import os, sys, torch\n"
        "from prnet.checkpoint import save_checkpoint\n"
        "def dies(content, file):\n"
        "    file.write(b'half'); file.flush(); os._exit(9)\n"
        "torch.save = dies\n"
        "save_checkpoint(sys.argv[1], {'model': {}, 'weights': {}})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        check=False,
        cwd=Path(checkpoint_module.__file__).parents[1],
    )
    assert run.returncode == 9
    assert path.read_bytes() == before
