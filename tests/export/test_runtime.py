"""What runs a network: the same maps, exported once, and refused where they differ."""

import contextlib
import logging

import pytest
import torch
from torch import nn

from prnet.export import runtime
from prnet.export.runtime import choose_runtime, fingerprint
from prnet.faces.face import Face
from prnet.models.attention import SpatialGroupEnhance
from prnet.models.face_decoder import FaceDecoder
from prnet.models.loading import build_network
from prnet.models.network import Network
from tests.small_face import small_face

pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SIDE = 64
MODELS = {
    "sadrnet": {"name": "sadrnet", "width": 1},
    "mobilenet_v1": {"name": "mobilenet_v1", "width": 0.25, "num_shape": 3, "num_exp": 2},
}


@pytest.fixture(scope="module")
def face() -> Face:
    small = small_face(SIDE)
    return Face("tiny", small.morphable_model, small.uv, None, torch.arange(68) % 60, {})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def network(name: str, face: Face, seed: int = 0) -> tuple[Network, dict]:
    torch.manual_seed(seed)
    model = build_network(MODELS[name], source=name)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    if model.num_parameters is not None:
        mean = torch.zeros(17)
        mean[[0, 5, 10]], mean[[3, 7]] = 1e-4, torch.tensor([SIDE / 2, -SIDE / 2])
        model.set_statistics(
            mean, torch.tensor([1e-6] * 3 + [1.0] + [1e-6] * 3 + [1.0] + [1e-6] * 9)
        )
    model.set_face(face)
    return model.eval(), {"model": MODELS[name], "weights": model.state_dict()}


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_exported_once_and_the_same(name, face, monkeypatch):
    """Any batch; "auto" takes what is there; "torch" goes back."""
    model, checkpoint = network(name, face)
    assert choose_runtime(model, face, checkpoint, "auto", CPU) == "torch"
    assert model.engine is None
    image = torch.rand(3, 3, SIDE, SIDE)
    expected, decoder = model(image), FaceDecoder(model, face)
    assert choose_runtime(model, face, checkpoint, "onnx", CPU) == "onnx"
    monkeypatch.setattr(runtime, "translated", None)  # from here on nothing is exported
    monkeypatch.setattr(runtime, "PACKAGES", {"openvino": "no_such_package", "onnx": "onnxruntime"})
    for choice in ("onnx", "auto"):
        assert choose_runtime(model, face, checkpoint, choice, CPU) == "onnx"
        found = model(image)
        assert model.engine is not None
        torch.testing.assert_close(decoder.mesh(found), decoder.mesh(expected), atol=1e-3, rtol=0)
        assert [f is None for f in found] == [f is None for f in expected]
    assert choose_runtime(model, face, checkpoint, "torch", CPU) == "torch"
    assert torch.equal(decoder.mesh(model.eval()(image)), decoder.mesh(expected))


def test_what_is_refused(face, cache, monkeypatch, caplog):
    model, checkpoint = network("mobilenet_v1", face)
    with pytest.raises(ValueError, match="runtime: got 'tensorrt', expected one of auto, torch"):
        choose_runtime(model, face, checkpoint, "tensorrt", CPU)
    with pytest.raises(ValueError, match="runtime=onnx runs on the CPU, not on cuda"):
        choose_runtime(model, face, checkpoint, "onnx", torch.device("cuda"))
    assert choose_runtime(model, face, checkpoint, "auto", torch.device("cuda")) == "torch"
    monkeypatch.setattr(runtime, "PACKAGES", {"openvino": "no_such_package", "onnx": "onnxruntime"})
    with pytest.raises(ModuleNotFoundError, match=r'pip install "prnet\[openvino\]"'):
        choose_runtime(model, face, checkpoint, "openvino", CPU)
    # A file that computes something else is not kept.
    monkeypatch.setattr(runtime, "_export", lambda model, face, path, runtime: path.touch())
    monkeypatch.setattr(
        runtime, "_engine", lambda *_: lambda image: tuple(2 + x for x in model.layers(image))
    )
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="differs from torch's by"):
        choose_runtime(model, face, checkpoint, "onnx", CPU)
    assert model.engine is None
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("bits", "kept"), [(1, True), (300, False)])
def test_a_steep_network_may_differ_as_rounding_moves_it(bits, kept, face, cache, monkeypatch):
    """Of an image that differs by so many last bits; more than 1e-3 px in both cases."""
    model, checkpoint = network("mobilenet_v1", face)
    model.set_statistics(model.parameter_mean, 1e5 * model.parameter_std)
    model.eval()
    decoder, image = FaceDecoder(model, face), torch.rand(2, 3, SIDE, SIDE)

    def engine(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return model.layers(image * (1 + bits * torch.finfo().eps))

    monkeypatch.setattr(runtime, "_export", lambda model, face, path, runtime: path.touch())
    monkeypatch.setattr(runtime, "_engine", lambda *_: engine)
    with contextlib.nullcontext() if kept else pytest.raises(ValueError, match="differs from"):
        choose_runtime(model, face, checkpoint, "onnx", CPU)
    assert (model.engine is engine) == kept
    model.engine = None
    expected = decoder.mesh(model(image))
    model.engine = engine
    assert (decoder.mesh(model(image)) - expected).abs().max() > 1e-3


def test_fingerprint_is_of_weights_and_options(face):
    _, checkpoint = network("mobilenet_v1", face)
    _, other = network("mobilenet_v1", face, seed=1)
    assert fingerprint(checkpoint) == fingerprint(dict(checkpoint))
    changed = {**checkpoint, "model": {**checkpoint["model"], "channel_order": "bgr"}}
    assert len({fingerprint(each) for each in (checkpoint, other, changed)}) == 3
    turned = {**checkpoint, "weights": dict(reversed(checkpoint["weights"].items()))}
    assert fingerprint(turned) == fingerprint(checkpoint)


@pytest.mark.parametrize(("name", "in_rows"), [("onnx", True), ("openvino", False)])
def test_attention_is_written_as_each_runtime_likes_it(name, in_rows, face, tmp_path, monkeypatch):
    """The network itself is left as it was."""
    traced = []
    file = type("File", (), {"save": lambda self, path: None})()
    monkeypatch.setattr(runtime, "translated", lambda *given, say: traced.append(given[0]) or file)
    model = build_network({"name": "mobile_frnet", "num_shape": 3, "num_exp": 2}, source=name)
    before = [part.traced_in_rows for part in attention_of(model)]
    runtime._export(model, face, tmp_path / "file.onnx", name)
    assert {part.traced_in_rows for part in attention_of(traced[0])} == {in_rows}
    assert [part.traced_in_rows for part in attention_of(model)] == before


def attention_of(network: nn.Module) -> list[SpatialGroupEnhance]:
    return [part for part in network.modules() if isinstance(part, SpatialGroupEnhance)]
