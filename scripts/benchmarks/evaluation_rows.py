"""Scoring."""

import copy
import statistics
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.made_data import Bench, alternate_on_host, repeat_pairs
from benchmarks.tables import Line
from benchmarks.timing import alternate, each
from prnet.datasets.aflw2000 import AFLW2000
from prnet.datasets.fits import decode_vertices, find_aflw2000, read_fit
from prnet.datasets.pictures import CROP_SIZE, CropRule
from prnet.datasets.predictions import find_topology, write_prediction
from prnet.entry import CONFIG_DIR
from prnet.evaluation.evaluate import EvaluationOptions, evaluate
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.sources import NetworkSource, PredictionSource
from prnet.geometry.icp import IcpRule, icp
from prnet.metrics.nme import bbox_size, nme
from prnet.models.prn import PRN


def clouds(bench: Bench) -> list[np.ndarray]:
    """Face points of different people without their poses, (P, 3) each, model frame; one more than
    pairs are aligned."""
    chosen = [bench.pairs[i % len(bench.pairs)] for i in range(bench.sizes.icp + 1)]
    uv = bench.face.uv
    faces = [decode_vertices(bench.face.morphable_model, read_fit(pair.fit).fit) for pair in chosen]
    return [uv.at_texels(vertices[None], uv.face_index)[0].double().numpy() for vertices in faces]


def evaluation_rows(bench: Bench) -> list[Line]:
    """The metric alone, ICP, saved predictions, and a network's output, per face."""
    sizes = bench.sizes
    values = OmegaConf.load(Path(CONFIG_DIR) / "protocol" / "default.yaml")
    values = OmegaConf.to_container(OmegaConf.merge({"data_dir": ""}, values), resolve=True)
    del values["data_dir"]
    protocol = Protocol.from_values(values)
    face = copy.deepcopy(bench.face).to(bench.device)
    model = PRN(width=sizes.network_width).eval()
    model.to(bench.device, memory_format=torch.channels_last)

    data_dir, predictions = bench.work_dir / "evaluation", bench.work_dir / "predictions"
    repeat_pairs(bench.pairs, data_dir, sizes.evaluation)
    pairs = find_aflw2000(data_dir)
    random = np.random.default_rng(2)
    num_points = face.uv.face_index.numel()
    for pair in pairs:
        write_prediction(
            predictions / f"{pair.name}.npz",
            random.uniform(0, sizes.picture_side, (68, 3)),
            random.uniform(0, sizes.picture_side, (num_points, 3)),
            landmarks_origin="zero_based",
            vertices_origin="zero_based",
        )
    generator = torch.Generator(bench.device).manual_seed(0)
    predicted, truth = torch.rand(
        2, sizes.nme, num_points, 3, generator=generator, device=bench.device, dtype=torch.float64
    )

    def arithmetic() -> None:
        nme(predicted, truth, bbox_size(truth), z_alignment="mean").cpu()

    people = clouds(bench)

    def align(rule: IcpRule) -> None:
        for source, target in pairwise(people):
            icp(source, target, with_scale=True, rule=rule)

    options = EvaluationOptions(batch_size=sizes.evaluation_batch, progress=False)

    def score_saved() -> None:
        topology = find_topology(face, bench.face_files.prnet_uv_dir)
        source = PredictionSource(predictions, face, topology=topology, device=bench.device)
        evaluate(source, AFLW2000(pairs, face), protocol, options)

    def score_network() -> None:
        source = NetworkSource(model, face, description="benchmark")
        test_set = AFLW2000(pairs, crop=CropRule())
        evaluate(source, test_set, protocol, options)

    image = torch.rand(sizes.evaluation_batch, 3, CROP_SIZE, CROP_SIZE, device=bench.device)
    image = image.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def network_alone() -> None:
        model(image)

    host = alternate_on_host(
        bench,
        {
            "nme": arithmetic,
            "icp": lambda: align(IcpRule()),
            "one level": lambda: align(IcpRule(levels=(1,))),
            "saved": score_saved,
        },
    )
    network = alternate(
        {
            "alone": network_alone,
            "whole": score_network,
        },
        device=bench.device,
        ceiling_device=bench.device,
        rounds=bench.rounds,
        sizes=sizes,
    )

    def total(seconds: list[float]) -> str:
        return f"{sizes.evaluation} faces (2,000: {2000 * statistics.median(seconds):.1f} s)"

    saved = each(host.seconds["saved"], sizes.evaluation)
    whole = each(network.seconds["whole"], sizes.evaluation)
    return [
        Line(
            f"NME 3D of {sizes.nme} x {num_points:,} points in memory",
            each(host.seconds["nme"], sizes.nme),
            host.ceilings,
            ("sadrnet_nme",),
        ),
        Line(
            f"ICP with scale of {num_points:,} points until it stands still",
            each(host.seconds["icp"], sizes.icp),
            host.ceilings,
            ("icp_20",),
            "without coarse levels",
            each(host.seconds["one level"], sizes.icp),
        ),
        Line(f"score saved predictions, {total(saved)}", saved, host.ceilings, ("sadrnet_nme",)),
        Line(
            f"evaluate PRN, batch {sizes.evaluation_batch}, {total(whole)}",
            whole,
            network.ceilings,
            ("prn_16",),
            "the network alone",
            each(network.seconds["alone"], sizes.evaluation_batch),
        ),
    ]
