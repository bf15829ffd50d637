"""Networks: inference and training steps."""

import copy
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.made_data import Bench
from benchmarks.tables import Line
from benchmarks.timing import alternate, each
from prnet.datasets.pictures import CROP_SIZE
from prnet.losses.prn import PRNLoss
from prnet.losses.sadrnet import SADRNetLoss
from prnet.models.prn import PRN
from prnet.models.sadrnet import SADRNet
from prnet.sample import FaceSample


class Variant(NamedTuple):
    """A way to run the network."""

    memory_format: torch.memory_format
    compile: bool = False
    bf16: bool = False


LITERAL = "eager, contiguous"
VARIANTS = {
    LITERAL: Variant(torch.contiguous_format),
    "eager, channels_last": Variant(torch.channels_last),
    "compiled, channels_last": Variant(torch.channels_last, compile=True),
}
# CPUs without matrix units run bf16 slower than fp32.
CUDA_VARIANTS = {
    "eager, channels_last, bf16": Variant(torch.channels_last, bf16=True),
    "compiled, channels_last, bf16": Variant(torch.channels_last, compile=True, bf16=True),
}


def network_calls(
    bench: Bench,
    make_call: Callable[[Variant], Callable[[], object]],
    variants: Mapping[str, Variant] | None = None,  # None: all of the device
) -> dict[str, Callable[[], object]]:
    """A call for every way to run the network, compiled already; those that do not compile are
    named and left out."""
    if variants is None:
        variants = VARIANTS | (CUDA_VARIANTS if bench.device.type == "cuda" else {})
    calls = {}
    for name, variant in variants.items():
        if variant.compile and not bench.compile:
            continue
        call = make_call(variant)
        if variant.compile:
            try:
                call()
            except RuntimeError as error:  # no compiler for the generated code, for one
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                print(f"left out: {name}: {reason}", file=sys.stderr)
                continue
        calls[name] = call
    return calls


def network_lines(
    bench: Bench,
    what: str,
    calls: dict[str, Callable[[], object]],
    *,
    count: int,
    peers: tuple[str, ...] = (),
    baseline: str = LITERAL,
) -> list[Line]:
    timing = alternate(
        calls,
        device=bench.device,
        ceiling_device=bench.device,
        rounds=bench.rounds,
        sizes=bench.sizes,
    )
    seconds = {name: each(values, count) for name, values in timing.seconds.items()}
    return [
        Line(
            f"{what}, {name}",
            values,
            timing.ceilings,
            peers,
            *(() if name == baseline else (baseline, seconds[baseline])),
        )
        for name, values in seconds.items()
    ]


def inference_lines(
    bench: Bench, name: str, make_model: Callable[[], nn.Module], *, peers: dict[int, str]
) -> list[Line]:
    """A network, per image; `peers` by batch size."""
    lines = []
    for count in bench.sizes.inference:
        image = torch.rand(count, 3, CROP_SIZE, CROP_SIZE, device=bench.device)

        def make_call(variant: Variant, image: torch.Tensor = image) -> Callable[[], object]:
            model = make_model().eval()
            model.to(bench.device, memory_format=variant.memory_format)
            network = torch.compile(model, dynamic=False) if variant.compile else model
            laid_out = image.contiguous(memory_format=variant.memory_format)

            @torch.inference_mode()
            def call() -> None:
                with torch.autocast(bench.device.type, torch.bfloat16, enabled=variant.bf16):
                    network(laid_out)

            return call

        lines += network_lines(
            bench,
            f"{name} inference, batch {count}",
            network_calls(bench, make_call),
            count=count,
            peers=(peers[count],) if count in peers else (),
        )
    return lines


def step_call(
    make_model: Callable[[], nn.Module], loss_fn: nn.Module, sample: FaceSample, variant: Variant
) -> Callable[[], object]:
    """Forward, loss, backward and update on a batch that is there."""
    device = sample.image.device
    model = make_model().train()
    model.to(device, memory_format=variant.memory_format)
    network = torch.compile(model, dynamic=False) if variant.compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    laid_out = sample.image.contiguous(memory_format=variant.memory_format)

    def call() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=variant.bf16):
            prediction = network(laid_out)
        loss = sum(loss_fn(prediction, sample).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return call


def step_lines(
    bench: Bench,
    name: str,
    make_model: Callable[[], nn.Module],
    loss_fn: nn.Module,
    sample: FaceSample,
    *,
    peer: str,
) -> list[Line]:
    """A training step, per image."""
    make_call = partial(step_call, make_model, loss_fn, sample)
    count = len(sample.image)
    return network_lines(
        bench,
        f"{name} training step, batch {count}",
        network_calls(bench, make_call),
        count=count,
        peers=(peer,),
    )


def step_batch(bench: Bench) -> FaceSample:
    """Noise to take a step on."""
    count = bench.sizes.step or (16 if bench.device.type == "cuda" else 4)
    image = torch.rand(count, 3, CROP_SIZE, CROP_SIZE, device=bench.device)
    return FaceSample(
        image,
        position_map=CROP_SIZE * torch.rand_like(image),
        shape_map=1e5 * torch.rand_like(image),
        attention=torch.rand(count, CROP_SIZE // 8, CROP_SIZE // 8, device=bench.device),
    )


def prn_rows(bench: Bench) -> list[Line]:
    """PRN's inference and training step."""

    def make_model() -> nn.Module:
        return PRN(width=bench.sizes.network_width)

    loss_fn = PRNLoss()
    loss_fn.set_face(bench.face)
    loss_fn.to(bench.device)
    return [
        *inference_lines(bench, "PRN", make_model, peers={1: "prn_1", 16: "prn_16"}),
        *step_lines(bench, "PRN", make_model, loss_fn, step_batch(bench), peer="prn_step"),
    ]


def sadrnet_rows(bench: Bench) -> list[Line]:
    """SADRNet's inference, what of it the self-alignment takes, and its training step."""

    def make_model() -> SADRNet:
        model = SADRNet(width=bench.sizes.network_width)
        model.set_face(bench.face)
        return model

    lines = inference_lines(bench, "SADRNet", make_model, peers={1: "sadrnet_1"})
    model = make_model().eval().to(bench.device, memory_format=torch.channels_last)
    network = copy.copy(model)
    network.geometry = "pose_dependent"  # all heads still run
    for count in bench.sizes.inference:
        image = torch.rand(count, 3, CROP_SIZE, CROP_SIZE, device=bench.device)
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            found = model(image)
            maps = found.shape_map / model.shape_unit, found.pose_dependent_map
            attention = found.attention_logits.sigmoid()
            timing = alternate(
                {
                    "network alone": lambda image=image: network(image),
                    "self-alignment alone": lambda maps=maps, attention=attention: model.alignment(
                        *maps, attention
                    ),
                },
                device=bench.device,
                ceiling_device=bench.device,
                rounds=bench.rounds,
                sizes=bench.sizes,
            )
        alone, alignment = (each(values, count) for values in timing.seconds.values())
        lines += [
            Line(f"SADRNet, batch {count}, network alone", alone, timing.ceilings),
            Line(
                f"SADRNet, batch {count}, self-alignment alone",
                alignment,
                timing.ceilings,
                (),
                "the network alone",
                alone,
            ),
        ]
    loss_fn = SADRNetLoss()
    loss_fn.set_face(bench.face)
    loss_fn.to(bench.device)
    batch = step_batch(bench)
    return lines + step_lines(bench, "SADRNet", make_model, loss_fn, batch, peer="sadrnet_step")
