"""What takes more than two seconds says so before it begins: what stands on the terminal as the
slow call is entered. (The statistics of batch norm: tests/test_train.py.)"""

import sys
from types import SimpleNamespace

import pytest
import torch

from prnet.command import console
from prnet.datasets import synthetic
from prnet.datasets.pictures import CropRule
from prnet.evaluation.evaluate import EvaluationOptions, evaluate
from prnet.evaluation.sources import NetworkSource
from prnet.export import onnx, runtime
from prnet.models.prn import PRN
from tests.evaluations import Scripted, shipped, true_maps
from tests.small_face import small_face
from tests.test_eval import aflw2000, batches_of


class Entered(Exception):
    """The slow call, which nobody waits for here."""


def enter(*_arguments: object, **_options: object) -> None:
    raise Entered


def test_compiling_the_renderer(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("prnet.synthetic.world.SyntheticFaces", enter)
    rule = SimpleNamespace(world=None, size=64, backgrounds=None)
    with pytest.raises(Entered):
        _ = synthetic.RenderedFaces(rule, seed=0).faces
    assert "compiling it, the first time, takes up to some minutes" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("slow", "said"),
    [(torch.export, "following the network"), (torch.onnx, "translating its 2 operations")],
)
def test_writing_onnx(slow, said, monkeypatch):
    pytest.importorskip("onnxscript")
    module = torch.fx.symbolic_trace(lambda image: torch.relu(image + 1))
    program = SimpleNamespace(graph_module=module)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: program)
    monkeypatch.setattr(slow, "export", enter)
    lines = []
    with pytest.raises(Entered):
        onnx.translated(torch.nn.Identity(), torch.rand(2, 3, 8, 8), None, say=lines.append)
    assert lines[-1].startswith(said)


def test_a_validation_and_an_evaluation(tiny_data_dir, face, monkeypatch, capsys):
    test_set = aflw2000(tiny_data_dir, face, CropRule())
    source = NetworkSource(Scripted(true_maps(batches_of(test_set), face)), face, description="")
    monkeypatch.setattr(NetworkSource, "predict", enter)
    with pytest.raises(Entered):
        evaluate(source, test_set, shipped("default"), EvaluationOptions(batch_size=1))
    assert "evaluate:   0%" in capsys.readouterr().err


def test_exporting_for_a_runtime(monkeypatch, tmp_path, caplog):
    pytest.importorskip("onnxruntime")
    caplog.set_level("INFO")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runtime, "_export", enter)
    model = PRN(width=1)
    checkpoint = {"model": {}, "weights": model.state_dict()}
    with pytest.raises(Entered):
        runtime.choose_runtime(model, small_face(256), checkpoint, "onnx", torch.device("cpu"))
    assert "exporting the network, once" in caplog.messages[-1]


@pytest.mark.parametrize("seen", [True, False])
def test_importing_torch(seen, monkeypatch, capsys):
    """On a terminal, and gone when it is done; a log is not told."""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: seen)
    with console.waiting("importing"):
        before = capsys.readouterr().err
    after = capsys.readouterr().err
    assert (before, after.strip()) == ("importing" if seen else "", "")
    assert after.startswith("\r") == seen
