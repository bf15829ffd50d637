"""What of a run's steps is compiled, and that it then computes the same."""

import functools
import itertools

import pytest
import torch

from prnet.train import read_settings, run
from prnet.training import compiling
from prnet.training.compiling import SCOPES, STEPS_THAT_EARN, compiled_scope
from tests.plans import configuration, plan

CPU, CARD = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def compiler(monkeypatch) -> None:
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: None)


def scope(setting, *, steps=1, device=CPU, resumed=None, **changes) -> str:
    changes["compile"] = setting
    return compiled_scope(plan(**changes), steps=steps, device=device, resumed=resumed)


def test_a_setting_is_followed():
    for steps, resumed, device in itertools.product(
        (1, STEPS_THAT_EARN), (None, *SCOPES), (CPU, CARD)
    ):
        options = {"steps": steps, "resumed": resumed, "device": device}
        assert scope(True, **options) == "network"
        assert scope(False, **options) == "no"
        for named in ("network", "step"):
            assert scope(named, **options) == named
    assert scope("graphs", device=CARD) == "graphs"
    with pytest.raises(ValueError, match="trainer.compile=graphs: is for CUDA cards .* cpu and 1"):
        scope("graphs")
    with pytest.raises(ValueError, match="accumulate=1, and this run has cuda and 2; take step"):
        scope("graphs", device=CARD, batch_size=4, accumulate=2)
    with pytest.raises(ValueError, match="trainer.compile: got 'yes', expected one of True, False"):
        scope("yes")


def test_auto_is_for_long_runs_with_a_compiler(monkeypatch, caplog):
    caplog.set_level("INFO")
    for device in (CPU, CARD):
        assert scope("auto", steps=STEPS_THAT_EARN, device=device) == "network"
        assert scope("auto", steps=STEPS_THAT_EARN - 1, device=device) == "no"
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: "g++")
    assert scope("auto", steps=STEPS_THAT_EARN) == "no"
    assert "trainer.compile=auto: no (no g++ here)" in caplog.text
    for setting in (True, "network", "step"):
        with pytest.raises(ValueError, match=f"trainer.compile={str(setting).lower()}: no g\\+\\+"):
            scope(setting)


def test_auto_goes_on_as_before(monkeypatch):
    """However few steps are left; where it cannot, it says so. Files of before say true or
    false."""
    for resumed in SCOPES:
        assert scope("auto", steps=STEPS_THAT_EARN, resumed=resumed) == resumed
    assert scope("auto", resumed=True) == "network"
    assert scope("auto", steps=STEPS_THAT_EARN, resumed=False) == "no"
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: "g++")
    assert scope("auto", resumed="no") == "no"
    with pytest.raises(ValueError, match=r"that run was compiled \(step\), and here is no g\+\+"):
        scope("auto", resumed="step")


def test_a_run_is_one_graph_and_the_same(tiny_data_dir, built_dir, tmp_path, monkeypatch):
    """Of pictures of several sizes from a loader; the code is not generated, which takes minutes,
    but all else is as it is."""
    counters = torch._dynamo.utils.counters
    traced = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", lambda *given, mode=None, **more: traced(*given, **more))

    def trained(setting: str) -> dict:
        torch.compiler.reset()
        counters.clear()
        folder = tmp_path / str(setting)
        words = [f"data_dir={tiny_data_dir}", f"built={built_dir}", "face=bfm", "dataset=300w_lp"]
        words += ["augment=photos", "device=cpu", "validation_fraction=0", "optimizer.name=sgd"]
        words += ["model.network.input_side=64", "model.network.width=2", "trainer.batch_size=2"]
        words += ["trainer.epochs=100", "trainer.max_steps=3", f"trainer.compile={setting}"]
        run(read_settings(configuration(*words)), folder)
        return torch.load(folder / "last.pt", weights_only=True)

    expected = trained("false")
    assert not counters["stats"]
    found = trained("step")
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    torch.compiler.reset()
    assert found["training"]["compiled"] == "step"
    for key, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][key], value, rtol=1e-3, atol=1e-5)
