"""When a run's network is compiled."""

import itertools

import pytest
import torch

from prnet.training import compiling
from prnet.training.compiling import STEPS_THAT_EARN, compiles

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def compiler(monkeypatch) -> None:
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: None)


def test_a_setting_is_followed():
    for setting, steps, resumed in itertools.product(
        (True, False), (1, STEPS_THAT_EARN), (None, True, False)
    ):
        assert compiles(setting, steps=steps, device=CPU, resumed=resumed) is setting
    with pytest.raises(ValueError, match="trainer.compile: got 'yes', expected one of True, False"):
        compiles("yes", steps=1, device=CPU, resumed=None)


def test_auto_is_for_long_runs_with_a_compiler(monkeypatch, caplog):
    caplog.set_level("INFO")
    assert compiles("auto", steps=STEPS_THAT_EARN, device=CPU, resumed=None)
    assert not compiles("auto", steps=STEPS_THAT_EARN - 1, device=CPU, resumed=None)
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: "g++")
    assert not compiles("auto", steps=STEPS_THAT_EARN, device=CPU, resumed=None)
    assert "trainer.compile=auto: false (no g++ here)" in caplog.text


def test_auto_goes_on_as_before(monkeypatch):
    """However few steps are left; where it cannot, it says so."""
    assert compiles("auto", steps=1, device=CPU, resumed=True)
    assert not compiles("auto", steps=STEPS_THAT_EARN, device=CPU, resumed=False)
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: "g++")
    assert not compiles("auto", steps=1, device=CPU, resumed=False)
    with pytest.raises(ValueError, match="that run compiled its network, and here is no g\\+\\+"):
        compiles("auto", steps=1, device=CPU, resumed=True)
