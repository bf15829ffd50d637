"""The published systems' own code, beside ours on the same work in the same rounds (--peers DIR).

DIR holds clones by their names: 3DDFA_V2 (cleardusk), SADRNet (MCG-NJU, with the BFM as its
data/Out), PRNet-PyTorch (reshow), face3d (YadiraF, its mesh/cython built). What of it the torch of
today refuses is mended as it is loaded, each with its reason beside it; nothing of it is written
to.
"""

import contextlib
import importlib
import os
import statistics
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.made_data import Bench
from benchmarks.tables import plain
from benchmarks.timing import CPU, alternate, each
from prnet.faces.face import Face
from prnet.geometry.position_map import PositionMapDecoder
from prnet.metrics.nme import bbox_size, nme
from prnet.models.loading import build_network
from prnet.models.network import Network

MAP_SIDE = 256


class Beside(NamedTuple):
    """One line: the same work by a peer's code and by ours."""

    what: str
    count: int  # images or faces of a call
    peer: Callable[[], object]
    ours: dict[str, Callable[[], object]]
    peer_count: int | None = None  # of the peer's call, where it is not as many


@contextlib.contextmanager
def at_home(folder: Path, **absent: types.ModuleType) -> Iterator[None]:
    """Import from a clone, as if started in it; `absent` stands for modules that it compiles, or
    that read what the work here does not need."""
    here, modules = Path.cwd(), set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules.update(absent)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        sys.path.remove(str(folder))
        theirs = [name for name in set(sys.modules) - modules if _is_of(folder, sys.modules[name])]
        for name in {*theirs, *absent}:
            del sys.modules[name]


def _is_of(folder: Path, module: types.ModuleType) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(str(place).startswith(str(folder)) for place in places)


def as_trained(network: nn.Module) -> nn.Module:
    """In eval mode, its circular convolutions padded as the torch of then did, by as many px in all
    as torch pads today on each side."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "circular":
            (padding, _) = layer.padding
            layer._reversed_padding_repeated_twice = [(padding + 1) // 2, padding // 2] * 2
    return network.eval()


def sadrnet(folder: Path) -> tuple[nn.Module, nn.Module]:
    """The network and its NME."""
    compiled = "src.faceutil.mesh.cython.mesh_core_cython"
    with at_home(folder, **{compiled: types.ModuleType(compiled)}):
        uv_face = importlib.import_module("src.dataset.uv_face")
        # What its loss imports from there, and what was commented out there.
        uv_face.uv_triangles = np.load("data/uv_data/uv_triangles.npy")
        network = importlib.import_module("src.model.SADRNv2").get_model()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight)  # as made, all points coincide in eval mode
        # It fails where a landmark is predicted outside the crop.
        *_, last = (
            part for part in network.decoder_kpt.modules() if isinstance(part, nn.BatchNorm2d)
        )
        nn.init.constant_(last.weight, 0.01)
        nn.init.constant_(last.bias, 0.46)
        return as_trained(network), importlib.import_module("src.model.loss").NME()


def prn(folder: Path) -> nn.Module:
    loss = types.ModuleType("loss")  # reads the BFM
    loss.getLossFunction = lambda _name: lambda _rate: nn.Identity()
    with at_home(folder, loss=loss):
        network = importlib.import_module("torchmodel").InitPRN2()
    return as_trained(nn.Sequential(network.layer0, network.encoder, network.decoder))


def mb05(folder: Path) -> nn.Module:
    with at_home(folder):
        return importlib.import_module("models.mobilenet_v1").mobilenet_05().eval()


def face3d_map(folder: Path, face: Face, parameters: Sequence[np.ndarray]) -> Callable:
    """Coefficients to the map of all texels, as its example 8 does."""
    with at_home(folder):
        mesh = importlib.import_module("face3d.mesh")
        model = importlib.import_module("face3d.morphable_model").MorphabelModel
    ours = face.morphable_model
    shape, expression = (
        np.ascontiguousarray(basis.flatten(1).T.numpy())
        for basis in ours.basis.split([ours.num_shape, ours.num_exp])
    )
    bfm = object.__new__(model)  # its constructor reads a file of texture too
    mean = ours.mean.numpy().reshape(-1, 1)
    bfm.model = {"shapeMU": mean, "shapePC": shape, "expPC": expression}
    pixels = face.uv.vertex_pixels.numpy()
    places = np.concatenate([pixels, np.zeros_like(pixels[:, :1])], 1)
    triangles = face.triangles.numpy().astype(np.int32)
    angles, translation = np.array([0.1, 0.2, 0.3]), np.array([128.0, 128.0, 0.0])

    def call() -> np.ndarray:
        vertices = bfm.generate_vertices(*parameters)
        vertices = bfm.transform_3ddfa(vertices, 1e-3, angles, translation)
        return mesh.render.render_colors(places, triangles, vertices, MAP_SIDE, MAP_SIDE, c=3)

    return call


def our_network(name: str) -> Network:
    network = build_network({"name": name}, source=name)
    return network.eval().to(memory_format=torch.channels_last)


def beside(folder: Path, bench: Bench) -> Iterator[Beside]:
    """The lines whose peers are in the folder."""
    random = torch.Generator().manual_seed(0)
    if (folder / "PRNet-PyTorch").is_dir():
        theirs, ours = prn(folder / "PRNet-PyTorch"), our_network("prn")
        for count in bench.sizes.inference:
            image = torch.rand(count, 3, MAP_SIDE, MAP_SIDE, generator=random)
            last = image.contiguous(memory_format=torch.channels_last)
            calls = {"torch, channels_last": partial(ours, last)}
            yield Beside(
                f"PRN, batch {count} (PRNet-PyTorch)", count, partial(theirs, image), calls
            )
    if (folder / "SADRNet").is_dir():
        theirs, their_nme = sadrnet(folder / "SADRNet")
        ours = our_network("sadrnet")
        ours.set_face(bench.face)
        for count in bench.sizes.inference:
            image = torch.rand(count, 3, MAP_SIDE, MAP_SIDE, generator=random)
            last = image.contiguous(memory_format=torch.channels_last)
            calls = {"torch, channels_last": partial(ours, last)}
            peer = partial(theirs, {"img": image}, None, "predict")
            yield Beside(f"SADRNet with alignment, batch {count} (SADRNet)", count, peer, calls)
        count = bench.sizes.nme
        maps = torch.rand(2, count, 3, MAP_SIDE, MAP_SIDE, generator=random)
        index = bench.face.uv.face_index
        truth, predicted = (side.flatten(2)[:, :, index].mT.contiguous() for side in maps)
        calls = {"numba": lambda: nme(predicted, truth, bbox_size(truth), z_alignment="mean")}
        yield Beside(f"NME 3D, {count} faces (SADRNet)", count, partial(their_nme, *maps), calls)
    if (folder / "face3d").is_dir():
        model = bench.face.morphable_model
        decoder = PositionMapDecoder(model, bench.face.uv, texels="all")
        for count in (1, bench.sizes.map_batch):
            sides = [(model.num_shape, 1e5), (model.num_exp, 1.0)]
            drawn = [
                scale * torch.randn(count, length, generator=random) for length, scale in sides
            ]
            peer = face3d_map(folder / "face3d", bench.face, [side[:1].T.numpy() for side in drawn])
            matrices = torch.diag(torch.tensor([1e-3, 1e-3, 1e-3, 1.0])).repeat(count, 1, 1)
            calls = {"vertices, then texels": partial(decoder, *drawn, matrices)}
            what = f"parameters to the map of all texels, {len(model.basis)} bases, batch {count}"
            yield Beside(f"{what} (face3d)", count, peer, calls, peer_count=1)
    if (folder / "3DDFA_V2").is_dir():
        theirs, image = mb05(folder / "3DDFA_V2"), torch.rand(1, 3, 120, 120, generator=random)
        ours = {name: our_network(name) for name in ("mobile_frnet", "swift")}
        calls = {
            name: partial(model.layers, torch.rand(1, 3, model.input_side, model.input_side))
            for name, model in ours.items()
        }
        yield Beside("one face, torch (3DDFA_V2 mb05)", 1, partial(theirs, image), calls)


@torch.inference_mode()
def peer_table(folder: Path, bench: Bench) -> list[str]:
    """Every line alternated; ratios are medians of the rounds' own."""
    lines = [
        "| work, per image or face | peer, ms | ours, ms | peer / ours |",
        "|---|---|---|---|",
    ]
    for line in beside(folder, bench):
        print(f"timing: {line.what}", file=sys.stderr)
        timing = alternate(
            {"peer": line.peer, **line.ours},
            device=CPU,
            ceiling_device=CPU,
            rounds=bench.rounds,
            sizes=bench.sizes,
        )
        peer = each(timing.seconds["peer"], line.peer_count or line.count)
        for name in line.ours:
            ours = each(timing.seconds[name], line.count)
            ratio = statistics.median(a / b for a, b in zip(peer, ours, strict=True))
            lines.append(
                f"| {line.what} | {spread(peer)} | {name}: {spread(ours)} | {plain(ratio)} |"
            )
    return lines


def spread(seconds: list[float]) -> str:
    low, middle, high = (1000 * f(seconds) for f in (min, statistics.median, max))
    return f"{plain(middle)} ({plain(low)} to {plain(high)})"
