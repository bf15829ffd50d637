"""Networks, their training steps and the metric, beside those of the clones."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.made_data import Bench
from benchmarks.network_rows import LITERAL, VARIANTS, network_calls, step_batch, step_call
from benchmarks.peer_code import mb05, prn, prn_step, sadrnet, sadrnet_step
from benchmarks.regressor_rows import example_input, exported_call
from benchmarks.runtime_rows import installed_runtimes, mobile_frnet, run_by, shipped
from benchmarks.timing import Beside
from prnet.datasets.pictures import CROP_SIZE
from prnet.losses.loss import Loss
from prnet.losses.prn import PRNLoss
from prnet.losses.sadrnet import SADRNetLoss
from prnet.metrics.nme import bbox_size, nme
from prnet.models.loading import build_network
from prnet.models.network import Network

UNIT = 280.0  # px, of PRNet-PyTorch's and SADRNet's maps


def our_network(name: str) -> Network:
    network = build_network({"name": name}, source=name)
    return network.eval().to(memory_format=torch.channels_last)


def network_lines(
    bench: Bench, name: str, system: str, peer: Callable[[torch.Tensor], object], ours: Network
) -> Iterator[Beside]:
    random = torch.Generator().manual_seed(0)
    for count in bench.sizes.inference:
        image = torch.rand(count, 3, CROP_SIZE, CROP_SIZE, generator=random)
        last = image.contiguous(memory_format=torch.channels_last)
        calls = {"torch, channels_last": partial(ours, last)}
        yield Beside(f"{name}, batch {count}", count, {system: partial(peer, image)}, calls)


def step_line(
    bench: Bench, name: str, loss_fn: Loss, peers: dict[str, Callable[[], object]]
) -> Beside:
    """A training step on the batch that the peers' have."""

    def make_model() -> Network:
        model = build_network({"name": name}, source=name)
        model.set_face(bench.face)
        return model

    loss_fn.set_face(bench.face)
    sample = step_batch(bench)
    variants = {key: variant for key, variant in VARIANTS.items() if key != LITERAL}
    calls = network_calls(bench, partial(step_call, make_model, loss_fn, sample), variants)
    count = len(sample.image)
    return Beside(f"{name}, training step, batch {count}", count, peers, calls, trains=True)


def prn_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    system = "PRNet-PyTorch"
    theirs = prn(folder / system)
    network = torch.nn.Sequential(theirs.layer0, theirs.encoder, theirs.decoder)
    yield from network_lines(bench, "PRN", system, network, our_network("prn"))
    sample = step_batch(bench)
    step = prn_step(theirs, sample.image, sample.position_map / UNIT)
    yield step_line(bench, "prn", PRNLoss(), {system: step})


def sadrnet_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    system = "SADRNet"
    theirs, _ = sadrnet(folder / system)
    ours = our_network("sadrnet")
    ours.set_face(bench.face)

    def predict(image: torch.Tensor) -> dict:
        return theirs({"img": image}, None, "predict")

    yield from network_lines(bench, "SADRNet with alignment", system, predict, ours)
    sample = step_batch(bench)
    targets = sample.position_map / UNIT, torch.rand_like(sample.image), sample.attention[:, None]
    step = sadrnet_step(theirs, sample.image, *targets)
    yield step_line(bench, "sadrnet", SADRNetLoss(), {system: step})


def nme_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    _, their_nme = sadrnet(folder / "SADRNet")
    count = bench.sizes.nme
    random = torch.Generator().manual_seed(0)
    maps = torch.rand(2, count, 3, CROP_SIZE, CROP_SIZE, generator=random)
    index = bench.face.uv.face_index
    truth, predicted = (side.flatten(2)[:, :, index].mT.contiguous() for side in maps)
    calls = {"numba": lambda: nme(predicted, truth, bbox_size(truth), z_alignment="mean")}
    yield Beside(f"NME 3D, {count} faces", count, {"SADRNet": partial(their_nme, *maps)}, calls)


def regressor_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    theirs, image = mb05(folder / "3DDFA_V2"), torch.rand(1, 3, 120, 120)
    named = {"mobile_frnet": "mobile_frnet", "swift, which also sees the mirror image": "swift"}
    ours = {what: our_network(name) for what, name in named.items()}
    calls = {what: partial(model.layers, example_input(model)) for what, model in ours.items()}
    yield Beside("one face, torch", 1, {"3DDFA_V2 mb05": partial(theirs, image)}, calls)
    if not installed_runtimes(bench, ["onnx"]):
        return
    exported = {
        "mobile_frnet": mobile_frnet(bench),
        "swift, which also sees the mirror image": shipped(mirror_average=True),
        "swift without it": shipped(mirror_average=False),
    }
    models = {what: run_by(bench, network, "onnx") for what, network in exported.items()}
    calls = {what: partial(model.engine, example_input(model)) for what, model in models.items()}
    peer = exported_call(theirs, image, bench.work_dir / "mb05.onnx")
    yield Beside("one face, ONNX Runtime", 1, {"3DDFA_V2 mb05": peer}, calls)
