"""Networks from an image to its position map, under each runtime of `prnet.export.runtime`."""

import copy
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.made_data import Bench
from benchmarks.network_rows import network_lines
from benchmarks.tables import Line
from benchmarks.timing import CPU
from prnet.datasets.pictures import CROP_SIZE
from prnet.export.runtime import PACKAGES, choose_runtime
from prnet.faces.face import Face
from prnet.models.face_decoder import FaceDecoder
from prnet.models.loading import build_network, load_with_face
from prnet.models.network import Network

TORCH = "torch"
NAMES = {TORCH: TORCH, "onnx": "ONNX Runtime", "openvino": "OpenVINO"}
FRNET_BASES = 40, 10  # shape and expression, as published


class Opened(NamedTuple):
    """What `choose_runtime` takes: a network in eval mode that has its face, on the CPU."""

    model: Network
    face: Face
    checkpoint: Mapping[str, object]


def installed_runtimes(bench: Bench, runtimes: Sequence[str]) -> list[str]:
    """Those that are there to be timed; one whose packages are missing is named and left out."""
    if not bench.compile:  # writing their files takes as long as compiling
        return []
    installed = []
    for runtime in runtimes:
        if all(importlib.util.find_spec(name) for name in (PACKAGES[runtime], "onnxscript")):
            installed.append(runtime)
        else:
            print(f'left out: {NAMES[runtime]}; pip install "prnet[{runtime}]"', file=sys.stderr)
    return installed


def untrained(bench: Bench, options: Mapping[str, object]) -> Opened:
    """A network of the benchmark's face."""
    model = build_network(options, source=options["name"])
    model.set_face(bench.face)
    return Opened(model.eval(), bench.face, {"model": options, "weights": model.state_dict()})


def mobile_frnet(bench: Bench) -> Opened:
    bases = bench.face.morphable_model
    num_shape, num_exp = map(min, FRNET_BASES, (bases.num_shape, bases.num_exp))
    return untrained(bench, {"name": "mobile_frnet", "num_shape": num_shape, "num_exp": num_exp})


def shipped(*, mirror_average: bool) -> Opened:
    """The network that comes with the package, and the face that does."""
    model, face, checkpoint = load_with_face("default")
    model.mirror_average = mirror_average
    model.set_face(face)
    options = {**checkpoint["model"], "mirror_average": mirror_average}
    return Opened(model.eval(), face, {**checkpoint, "model": options})


def run_by(bench: Bench, network: Opened, runtime: str) -> Network:
    """A copy that this runtime runs; what is exported for it goes with the benchmark."""
    model = copy.deepcopy(network.model).to(memory_format=torch.channels_last)
    folder = bench.work_dir / "networks"
    choose_runtime(model, network.face, network.checkpoint, runtime, CPU, folder=folder)
    return model


def networks(bench: Bench) -> Iterator[tuple[str, Opened, tuple[int, ...]]]:
    """What each does, the network, and its batches."""
    width, batches = bench.sizes.network_width, bench.sizes.inference
    yield "PRN to its map", untrained(bench, {"name": "prn", "width": width}), batches
    sadrnet = untrained(bench, {"name": "sadrnet", "width": width})
    yield "SADRNet with its alignment", sadrnet, batches
    yield "Mobile-FRNet with its map", mobile_frnet(bench), (1,)
    yield "swift with its fit and map, with the mirror image", shipped(mirror_average=True), (1,)
    yield "swift with its fit and map, without it", shipped(mirror_average=False), (1,)


def map_call(
    model: Network,
    decoder: FaceDecoder,
    image: Tensor,  # (B, 3, 256, 256)
) -> Callable[[], Tensor]:
    """The position maps of images, (B, 3, 256, 256), crop px."""

    @torch.inference_mode()
    def call() -> Tensor:
        prediction = model(image)
        if not decoder.has_vertices:
            return prediction.position_map
        return decoder.position_map(prediction, decoder.mesh(prediction))

    return call


def runtime_rows(bench: Bench) -> list[Line]:
    """An image to its position map on the CPU, torch beside the runtimes that are installed."""
    runtimes = (TORCH, *installed_runtimes(bench, ["onnx", "openvino"]))
    lines: list[Line] = []
    for what, network, batches in networks(bench):
        models = {NAMES[runtime]: run_by(bench, network, runtime) for runtime in runtimes}
        decoder = FaceDecoder(network.model, network.face)
        for count in batches:
            image = torch.rand(count, 3, CROP_SIZE, CROP_SIZE)
            image = image.contiguous(memory_format=torch.channels_last)
            lines += network_lines(
                bench._replace(device=CPU),
                f"{what}, batch {count}",
                {name: map_call(model, decoder, image) for name, model in models.items()},
                count=count,
                baseline=TORCH,
            )
    return lines
