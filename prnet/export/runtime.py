"""One place that decides what runs a network on a CPU: torch, ONNX Runtime or OpenVINO.

What is handed to another runtime is `Network.layers`; crops, alignment and the face stay in torch.
It is exported once and kept in the user's cache folder, by the hash of weights, options and of the
code that uses them.
"""

import copy
import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prnet.checks import require_choice
from prnet.export.onnx import allowed_px, rounded_otherwise, translated
from prnet.faces.face import Face
from prnet.files import written_whole
from prnet.geometry.compiled import version_of
from prnet.models.attention import SpatialGroupEnhance
from prnet.models.face_decoder import FaceDecoder
from prnet.models.network import Network
from prnet.models.regressor import Regressor

log = logging.getLogger(__name__)

PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}  # the fastest first
RUNTIMES = ("auto", "torch", *PACKAGES)
Engine = Callable[[Tensor], tuple[Tensor, ...]]


class _Layers(nn.Module):
    """`Network.layers` as a module's forward."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.model.layers(image)


def cache_folder() -> Path:
    """Where exported networks are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prnet" / "networks"


def choose_runtime(
    model: Network,  # in any mode, on the device that it runs on
    face: Face,  # which it has by `set_face`
    checkpoint: Mapping[str, object],
    runtime: str,
    device: torch.device,
    *,
    folder: Path | None = None,  # of the exported networks; None: `cache_folder()`
) -> str:
    """Let `runtime` run the network in eval mode from now on; the one that was chosen.

    "auto" is the fastest that is installed and has this network in the folder already, since an
    export takes longer than some faces do; "onnx" and "openvino" export it first. Elsewhere than on
    a CPU "auto" is torch.

    Raises:
        ValueError: not a runtime, or none for this device; the exported network differs.
        ModuleNotFoundError: its package, or what exports, is not installed.
    """
    require_choice("runtime", runtime, RUNTIMES)
    model.engine = None
    name, folder = fingerprint(checkpoint), folder or cache_folder()
    paths = {each: folder / f"{name}.{each}.onnx" for each in PACKAGES}
    if runtime == "auto":
        ready = [each for each in PACKAGES if device.type == "cpu" and paths[each].is_file()]
        there = [each for each in ready if importlib.util.find_spec(PACKAGES[each])]
        runtime = there[0] if there else "torch"
    if runtime == "torch":
        return runtime
    if device.type != "cpu":
        raise ValueError(f"runtime={runtime} runs on the CPU, not on {device}; choose runtime=auto")
    if importlib.util.find_spec(PACKAGES[runtime]) is None:
        raise ModuleNotFoundError(
            f'runtime={runtime} needs {PACKAGES[runtime]}: pip install "prnet[{runtime}]"'
        )
    path = paths[runtime]
    if not path.is_file():
        with written_whole(path) as temporary:
            log.info("runtime=%s: exporting the network, once; kept as %s", runtime, path)
            _export(model, face, temporary, runtime)
            _compare(model, face, _engine(runtime, temporary))
    model.engine = _engine(runtime, path)
    return runtime


def fingerprint(checkpoint: Mapping[str, object]) -> str:
    """Of weights and options of a checkpoint, and of the sources that make a network of them."""
    digest = hashlib.sha256(f"{version_of('models'):08x}{torch.__version__}".encode())
    digest.update(json.dumps(checkpoint["model"], sort_keys=True).encode())
    # Sorted: safetensors reads a file's tensors in another order each time.
    for name, tensor in sorted(checkpoint["weights"].items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _export(model: Network, face: Face, path: Path, runtime: str) -> None:
    side = face.uv.resolution
    shape = (3, side, side)
    if isinstance(model, Regressor):
        shape = (model.input_channels, model.input_side, model.input_side)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    layers = _Layers(plain).eval().requires_grad_(False)
    for part in layers.modules():
        if isinstance(part, SpatialGroupEnhance):
            part.traced_in_rows = runtime == "onnx"
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    translated(layers, image, None, say=lambda step: log.debug("%s", step)).save(path)


def _compare(model: Network, face: Face, engine: Engine) -> None:
    """Raise ValueError where the mesh of two images of noise is another than torch's."""
    side = face.uv.resolution
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    decoder, training = FaceDecoder(model, face), model.training
    model.eval()
    given = () if model.landmark_map != "given" else (torch.full((2, 68, 2), side / 2),)
    with torch.inference_mode():
        expected = decoder.mesh(model(image, *given))
        moved = decoder.mesh(model(rounded_otherwise(image), *given)) - expected
        model.engine = engine
        found = decoder.mesh(model(image, *given))
    model.engine = None
    model.train(training)
    largest = float((found - expected).abs().max())
    allowed = allowed_px(float(moved.abs().max()))
    if not largest <= allowed:
        raise ValueError(
            f"the exported network differs from torch's by up to {largest:.1e} px, more than "
            f"{allowed:.1e}; choose runtime=torch"
        )
    log.info("on two images of noise the exported network is within %.1e px of torch's", largest)


def _engine(runtime: str, path: Path) -> Engine:
    return {"onnx": onnx_engine, "openvino": _openvino_engine}[runtime](path)


def onnx_engine(path: Path) -> Engine:
    """A file with one input in ONNX Runtime, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: Tensor) -> tuple[Tensor, ...]:  # (B, C, H, W)
        made = session.run(None, {name: image.float().contiguous().numpy()})
        return tuple(map(torch.from_numpy, made))

    return run


def _openvino_engine(path: Path) -> Engine:
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    # One image at a time: with a shape that it knows beforehand OpenVINO plans better than a batch
    # is worth.
    _, *shape = network.input().partial_shape
    network.reshape([1, *shape])
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(network, "CPU", settings)

    def run(image: Tensor) -> tuple[Tensor, ...]:  # (B, C, H, W)
        images = image.float().contiguous().numpy()
        made = [list(compiled(one[None]).values()) for one in images]
        return tuple(torch.from_numpy(np.concatenate(each)) for each in zip(*made, strict=True))

    return run
