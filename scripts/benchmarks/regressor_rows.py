"""Networks that regress parameters: latencies of one face, and how large they are."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from benchmarks.made_data import Bench
from benchmarks.runtime_rows import installed_runtimes
from benchmarks.tables import Line, plain
from benchmarks.timing import CPU, alternate
from prnet.datasets.pictures import CROP_SIZE
from prnet.entry import CONFIG_DIR
from prnet.export.onnx import IMAGE
from prnet.export.runtime import onnx_engine
from prnet.models.network_size import network_size
from prnet.models.prn import PRN
from prnet.models.regressor import Regressor

PEERS_OF = {
    ("mobilenet_v2", "ONNX Runtime"): ("mobilenet_ort",),
    ("mobilenet_v2", "torch eager"): ("mobilenet_eager",),
    ("resnet50", "torch eager"): ("resnet_eager",),
    ("mobile_frnet", "ONNX Runtime"): ("mb05_ort",),
    ("mobile_frnet_no_attention", "ONNX Runtime"): ("mb05_ort",),
}
# 3DDFA_V2's mb05: millions of parameters, 1e9 multiply-accumulates.
MB05_PARAMS_M, MB05_GFLOPS = 0.85, 0.046


def make_regressor(name: str) -> Regressor:
    """A model of configs/model as it stands, untrained."""
    return instantiate(OmegaConf.load(Path(CONFIG_DIR, "model", f"{name}.yaml")).network).eval()


class ParametersAlone(nn.Module):
    """Its own crop to the parameters, without the face: what is timed of 3DDFA_V2's mb05 too."""

    def __init__(self, model: Regressor) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, s, s), RGB; of 2DASL (B, 4, s, s)
        seen = torch.cat([self.model.prepare(image[:, :3]), image[:, 3:]], 1)
        return self.model.parameters_of(self.model.whitened(seen))


def example_input(model: Regressor) -> Tensor:
    """Noise that `ParametersAlone` of this model takes, (1, C, s, s)."""
    return torch.rand(1, model.input_channels, model.input_side, model.input_side)


def exported_call(network: nn.Module, image: Tensor, path: Path) -> Callable[[], object]:
    """A network of one image (1, C, s, s), in eval mode, in ONNX Runtime; its file is `path`."""
    torch.onnx.export(network, (image,), path, input_names=[IMAGE], dynamo=True, verbose=False)
    return partial(onnx_engine(path), image)


def torch_call(model: Regressor) -> Callable[[], object]:
    network = ParametersAlone(copy.deepcopy(model)).to(memory_format=torch.channels_last).eval()
    image = example_input(model).contiguous(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: network(image))


def regressor_rows(bench: Bench) -> list[Line]:
    """One face to its parameters on the CPU, torch beside ONNX Runtime where that is installed."""
    with_runtime = installed_runtimes(bench, ["onnx"])
    lines = []
    for name in bench.sizes.regressors:
        model = make_regressor(name)
        calls = {}
        if with_runtime:
            calls["ONNX Runtime"] = exported_call(
                ParametersAlone(model), example_input(model), bench.work_dir / f"{name}.onnx"
            )
        calls["torch eager"] = torch_call(model)
        timing = alternate(
            calls, device=CPU, ceiling_device=CPU, rounds=bench.rounds, sizes=bench.sizes
        )
        for runtime, seconds in timing.seconds.items():
            eager = ("torch eager", timing.seconds["torch eager"])
            lines.append(
                Line(
                    f"{name}, one face, {model.input_side} px, {runtime}",
                    seconds,
                    timing.ceilings,
                    PEERS_OF.get((name, runtime), ()),
                    *(() if runtime == "torch eager" else eager),
                )
            )
    return lines


def size_table(bench: Bench) -> list[str]:
    """Parameters, operations and bytes; the same on every machine."""
    image = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    models = {name: make_regressor(name) for name in bench.sizes.regressors}
    models["prn"] = PRN(width=bench.sizes.network_width).eval()
    rows = [("3DDFA_V2 mb05, for comparison", MB05_PARAMS_M, MB05_GFLOPS)]
    for name, model in models.items():
        size = network_size(model, image)
        rows.append((name, size["params_m"], size["gflops"]))
    return [
        "| network | parameters, millions | operations, 1e9 | to mb05's | weights in fp16, MB |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {params_m:.3f} | {gflops:.4f} | {plain(gflops / MB05_GFLOPS)} x | "
            f"{2 * params_m:.2f} |"
            for name, params_m, gflops in rows
        ),
    ]
