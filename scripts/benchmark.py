"""Time what a user waits for, beside the published systems' own code on the same work.

    python scripts/benchmark.py [--data-dir DIR] [--rounds N] [--rows NAME,...] > table.md

DIR holds BFM/ and AFLW2000/ (and PRNet_uv/, if there). Without it the script makes a face of the
BFM's size and pictures with fits in AFLW2000-3D's layout, so it runs on any machine.

Variants of our own are alternated round by round in this process: their ratio is direct. A peer's
code is not run here: its figure (PEERS) was measured on another machine and is carried over by the
speed of a matrix product or of a copy, timed in every round beside what it is compared with. Such a
ratio is indirect. Compiling the network takes minutes on a few cores; --no-compile leaves it out.
Run it on an otherwise idle machine.
"""

import argparse
import copy
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import scipy.io
import torch
from omegaconf import OmegaConf

from prnet.config_path import CONFIG_DIR
from prnet.datasets import builder
from prnet.datasets.aflw2000 import AFLW2000
from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.builder import BuildOptions, FaceFiles, build_archive
from prnet.datasets.built import BuiltSet
from prnet.datasets.evaluation import evaluation_loader
from prnet.datasets.fits import FacePair, decode_vertices, find_aflw2000, fit_matrix
from prnet.datasets.pictures import CROP_SIZE, CropRule, collate_fits, write_picture
from prnet.datasets.predictions import find_predictions, find_topology, write_prediction
from prnet.entry import num_workers, resolve_device
from prnet.faces.bfm import load_bfm
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder
from prnet.geometry.rasterize import rasterize
from prnet.losses.position_map import PositionMapLoss
from prnet.metrics.nme import align_depth, bbox_size, nme
from prnet.models.prn import PRN
from prnet.protocol import Protocol
from prnet.sample import FaceSample, Fit, FitBatch
from prnet.scoring import evaluate_model, evaluate_predictions
from prnet.synthetic.world import SyntheticFaces


class Peer(NamedTuple):
    """What another system's code needed on the machine of PEER_SGEMM and PEER_COPY."""

    system: str
    milliseconds: float  # for one image, map, face or sample
    bound: Literal["compute", "memory", "scalar"]  # see `carried_over`
    source: str  # the measurement


# The peers' machine: 2 cores of a Xeon with AVX-512, torch 2.15, a BFM of 199 + 29 bases. Their
# code: YadiraF/PRNet fc12fe5, YadiraF/face3d 2fc2690, MCG-NJU/SADRNet a5e6fac, patched where it did
# not run as published.
PEER_SGEMM = 292.0  # GFLOP/s, 2048 x 2048 in float32
PEER_COPY = 22.7  # GB/s, read and written
PEERS = {
    "example_8": Peer(
        "face3d example 8", 23.1, "scalar", "whole dataset item, mean of 40 images, one process"
    ),
    "prepare": Peer(
        "SADRNet prepare.py", 29.0, "scalar", "whole dataset item, mean of 40 images, one process"
    ),
    "face3d_map": Peer(
        "face3d", 14.3, "memory", "235 parameters to a map of all texels, one at a time"
    ),
    "sadrnet_loader": Peer(
        "SADRNet loader", 1000 / 118, "scalar", "118 samples/s of 2 workers, targets on the CPU"
    ),
    "prn_1": Peer("PRN literal, torch eager", 75.9, "compute", "inference, batch 1"),
    "prn_16": Peer("PRN literal, torch eager", 130.0, "compute", "inference, batch 16, per image"),
    "prn_step": Peer(
        "PRN literal, torch eager",
        8070 / 16,
        "compute",
        "training step, batch 16, per image; rough: 3 rounds, the fastest 1.5 times as fast",
    ),
    "sadrnet_nme": Peer(
        "SADRNet NME", 200 / 32, "memory", "3D NME of 32 dense faces in memory, one thread"
    ),
    "face3d_256": Peer("face3d", 4.04, "scalar", "z-buffer of the BFM at 256 px, C++, one thread"),
    "face3d_450": Peer("face3d", 7.92, "scalar", "z-buffer of the BFM at 450 px, C++, one thread"),
}
PEER_MAP_BYTES = 786_560  # face3d and SADRNet: a float32 map as .npy
PEER_PICTURE_BYTES = 20_500  # its crop of 256 px as JPEG, quality 95, mean of 40

CARRIED_BY = {
    "compute": "sgemm",
    "memory": "copy",
    "scalar": "sgemm or copy, whichever favours the peer",
}
NOTES = """\
* Indirect ratios are orders of magnitude. A matrix product is much slower where vectors are narrow
  or cores are shared, Python and scalar C++ hardly: those follow neither ceiling and are carried
  over by the one that favours them. Most use one thread, so that more than 2 favour them again.
* Build: example 8 and prepare.py write a float32 map beside a crop; a built set holds the fit
  beside the picture's own bytes, and its maps are made in the training batch (the map rows). Files
  are in the page cache; what is done once, loading the face and starting processes, is left out.
* Maps: face3d's map has all texels. Of PRN's loss only the face texels have a weight.
* Loader: SADRNet's 118 samples/s need 2 processes, ours one; it makes an attention target too.
* Synthetic samples: one thread; every process renders as many.
* Scoring: SADRNet's figure is the arithmetic alone, as our NME line; scoring reads each prediction
  and each fit, decodes the truth and computes all four metrics. Its picture is read for its height.
"""


class Sizes(NamedTuple):
    """How much is timed. The defaults are real sizes."""

    vertex_rows: int = 367  # of the made face; 367 * 145 = 53,215 as the BFM
    vertex_columns: int = 145
    shape_bases: int = 199
    exp_bases: int = 29
    pictures: int = 64  # made; builds of more repeat them
    picture_side: int = 450
    build: tuple[int, int] = (1, 1025)  # images; what the second takes more than the first counts
    build_all_cores: tuple[int, int] = (builder.POOL_FROM, 3 * builder.POOL_FROM)
    loader: int = 256
    loader_batch: int = 64
    map_batch: int = 64
    network_width: int = 16
    inference: tuple[int, ...] = (1, 16)
    step: int | None = None  # None: 4 on the CPU, 16 on a GPU
    evaluation: int = 64
    evaluation_batch: int = 16
    nme: int = 32
    raster: tuple[int, ...] = (256, 450)
    synthetic: int = 64
    synthetic_sides: tuple[int, ...] = (128, 256)
    sgemm: int = 2048
    copy: int = 2**26  # float32 values
    stretch_seconds: float = 0.2  # a shorter call is repeated until it fills this


class Bench(NamedTuple):
    """What the rows share."""

    pairs: list[FacePair]
    face: Face  # on the CPU
    face_files: FaceFiles
    built: BuiltSet
    work_dir: Path
    device: torch.device
    rounds: int
    compile: bool
    sizes: Sizes


class Ceilings(NamedTuple):
    """What a device can do at the moment."""

    sgemm: float  # GFLOP/s
    copy: float  # GB/s, read and written


class Timing(NamedTuple):
    """Calls that were alternated."""

    seconds: dict[str, list[float]]  # of one call, one a round
    ceilings: list[Ceilings]  # of the same rounds


class Line(NamedTuple):
    """One line of the table."""

    what: str
    seconds: list[float]  # per item, one a round
    ceilings: list[Ceilings]  # of the same rounds
    peers: tuple[str, ...] = ()  # keys of PEERS
    baseline: str = ""  # a variant of our own, and its seconds per item in the same rounds
    baseline_seconds: list[float] | None = None


class Variant(NamedTuple):
    """A way to run the network."""

    memory_format: torch.memory_format
    compile: bool = False
    bf16: bool = False


CPU = torch.device("cpu")
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


# Timing.


def time_call(call: Callable[[], object], device: torch.device, *, repeats: int = 1) -> float:
    """Seconds of one call, the mean of `repeats` in a row."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def ceiling_calls(device: torch.device, sizes: Sizes) -> dict[str, Callable[[], object]]:
    left, right, product = (torch.rand(sizes.sgemm, sizes.sgemm, device=device) for _ in range(3))
    source, target = (torch.rand(sizes.copy, device=device) for _ in range(2))
    return {
        "sgemm": lambda: torch.mm(left, right, out=product),
        "copy": lambda: target.copy_(source),
    }


def alternate(
    calls: dict[str, Callable[[], object]],
    *,
    device: torch.device,
    ceiling_device: torch.device,
    rounds: int,
    sizes: Sizes,
) -> Timing:
    """Time every call, and the ceilings, in turn, `rounds` times; each is warmed up before."""
    timed = {name: (call, device) for name, call in calls.items()}
    for name, call in ceiling_calls(ceiling_device, sizes).items():
        timed[name] = (call, ceiling_device)
    repeats = {}
    for name, (call, where) in timed.items():
        once = time_call(call, where)
        if once < sizes.stretch_seconds:
            once = time_call(call, where)
        repeats[name] = max(1, math.ceil(sizes.stretch_seconds / once))
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, (call, where) in timed.items():
            seconds[name].append(time_call(call, where, repeats=repeats[name]))
    ceilings = [
        Ceilings(
            sgemm=2 * sizes.sgemm**3 / sgemm_seconds / 1e9,
            copy=2 * 4 * sizes.copy / copy_seconds / 1e9,
        )
        for sgemm_seconds, copy_seconds in zip(
            seconds.pop("sgemm"), seconds.pop("copy"), strict=True
        )
    ]
    return Timing(seconds, ceilings)


def alternate_on_host(bench: Bench, calls: dict[str, Callable[[], object]]) -> Timing:
    """`alternate`, for peers whose code cannot leave the CPU."""
    return alternate(
        calls, device=bench.device, ceiling_device=CPU, rounds=bench.rounds, sizes=bench.sizes
    )


def each(seconds: list[float], count: int) -> list[float]:
    return [value / count for value in seconds]


# Data.


def make_face(bfm_dir: Path, sizes: Sizes) -> None:
    """BFM.mat, BFM_info.mat, BFM_UV.mat in face3d's format: a leaning half cylinder with random
    smooth bases, a grid of vertices whose UV covers the square."""
    rows, columns = sizes.vertex_rows, sizes.vertex_columns
    v, u = np.meshgrid(np.linspace(1, 0, rows), np.linspace(0, 1, columns), indexing="ij")
    x, y = 2 * u.ravel() - 1, 2 * v.ravel() - 1
    mean = np.stack([9e4 * np.sin(1.3 * x), 1e5 * y, 1e5 * np.cos(1.3 * x) - 2e4 * y**2], -1)

    # Products of low powers, of unit length for shape and 0.5 mm per unit for expression.
    powers = np.stack([x**i * y**j for i in range(5) for j in range(5)])  # (25, N)
    random = np.random.default_rng(0)
    weights = random.normal(size=(sizes.shape_bases + sizes.exp_bases, 3, len(powers)))
    bases = (weights @ powers).transpose(2, 1, 0).reshape(mean.size, -1)  # (3 N, C)
    bases /= np.linalg.norm(bases, axis=0)
    exp_basis = bases[:, sizes.shape_bases :] * (500 * math.sqrt(mean.size))

    # Inward in the model frame, 1-based, one column per triangle, like the published file.
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel() + 1
    below = corner + columns
    triangles = np.concatenate(
        [np.stack([corner, corner + 1, below]), np.stack([corner + 1, below + 1, below])], 1
    )

    # A jaw, and 51 points on a spiral around the nose tip, landmark 30.
    turn = np.linspace(0, np.pi, 17)
    jaw = np.stack([0.5 - 0.42 * np.cos(turn), 0.6 - 0.42 * np.sin(turn)], -1)
    arm = np.arange(51) - 13
    spiral = 0.5 + (0.006 * arm * np.stack([np.cos(arm), np.sin(arm)])).T
    cells = np.rint(np.concatenate([jaw, spiral]) * [columns - 1, rows - 1]).astype(np.int64)
    landmarks = (rows - 1 - cells[:, 1]) * columns + cells[:, 0] + 1

    central = x**2 + y**2 < 0.2
    regions = np.stack([central, central, central, ~central]).astype(np.uint8)
    model = {
        "shapeMU": mean.reshape(-1, 1).astype(np.float32),
        "shapePC": bases[:, : sizes.shape_bases].astype(np.float32),
        "shapeEV": np.ones((sizes.shape_bases, 1), np.float32),
        "expMU": np.zeros((mean.size, 1), np.float32),
        "expPC": exp_basis.astype(np.float32),
        "expEV": np.ones((sizes.exp_bases, 1), np.float32),
        "tri": triangles.astype(np.int32),
        "kpt_ind": landmarks[None].astype(np.int32),
    }
    bfm_dir.mkdir(parents=True)
    scipy.io.savemat(bfm_dir / "BFM.mat", {"model": model})
    scipy.io.savemat(
        bfm_dir / "BFM_info.mat", {"model_info": {"segbin": regions, "kpt_ind": landmarks[None]}}
    )
    scipy.io.savemat(bfm_dir / "BFM_UV.mat", {"UV": np.stack([u.ravel(), v.ravel()], -1)})


def make_pairs(folder: Path, face: Face, sizes: Sizes) -> None:
    """Smooth pictures with fits, in the layout of AFLW2000-3D."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    side = sizes.picture_side
    for number in range(sizes.pictures):
        pitch, yaw, roll = random.uniform([-0.3, -1, -0.3], [0.3, 1, 0.3])
        # The pivot lies behind the face, which the translation brings back to the middle.
        scale = 0.6 * side / 2e5
        translation = [side / 2 + 6e4 * scale * math.sin(yaw), side / 2, -60.0]
        fit = Fit(
            shape_params=random.normal(0, 1e5, sizes.shape_bases),
            exp_params=random.normal(0, 1, sizes.exp_bases),
            angles=np.array([pitch, yaw, roll]),
            translation=np.array(translation),
            scale=scale,
        )
        landmarks = decode_vertices(face.morphable_model, fit)[face.landmark_index].double()
        landmarks = camera.transform_points(fit_matrix(fit, side, pixel_origin="matlab"), landmarks)
        # As JPEG of 450 px some 20 kB, the mean of AFLW2000-3D's.
        coarse = random.uniform(68, 188, (6, 6, 3))
        picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        stem = folder / f"image{number:05d}"
        write_picture(stem.with_suffix(".jpg"), picture.clip(0, 255).astype(np.uint8))
        scipy.io.savemat(
            stem.with_suffix(".mat"),
            {
                "Pose_Para": np.array([[pitch, yaw, roll, *translation, scale]]),
                "Shape_Para": fit.shape_params[:, None],
                "Exp_Para": fit.exp_params[:, None],
                "Tex_Para": np.zeros((199, 1)),
                "Color_Para": np.ones((1, 7)),
                "Illum_Para": np.zeros((1, 10)),
                "roi": np.array([[1, 1, side, side]], np.int16),
                "pt2d": np.full((2, 21), -1.0),
                "pt3d_68": landmarks.numpy().T,
            },
            do_compression=True,
        )


def repeat_pairs(pairs: list[FacePair], data_dir: Path, count: int) -> None:
    """DATA_DIR/AFLW2000 with `count` pairs: links to the given ones, over and over."""
    folder = data_dir / "AFLW2000"
    folder.mkdir(parents=True)
    for number in range(count):
        pair = pairs[number % len(pairs)]
        for path in (pair.picture, pair.fit):
            (folder / f"image{number:06d}{path.suffix}").symlink_to(path.resolve())


def prepare(
    data_dir: Path | None,
    work_dir: Path,
    *,
    device: torch.device = CPU,
    rounds: int,
    compile: bool,
    sizes: Sizes,
) -> Bench:
    """Read `data_dir`, or make data where it is None, and build the set that several rows read.

    Raises:
        FileNotFoundError, ValueError: a file of `data_dir` is missing or damaged.
    """
    if data_dir is None:
        data_dir = work_dir / "data"
        make_face(data_dir / "BFM", sizes)
        face = load_bfm(data_dir / "BFM")
        make_pairs(data_dir / "AFLW2000", face, sizes)
    face_files = FaceFiles("bfm", str(data_dir / "BFM"), str(data_dir / "PRNet_uv"))
    face = load_bfm(face_files.bfm_dir, prnet_uv_dir=face_files.prnet_uv_dir)
    pairs = find_aflw2000(data_dir)
    repeat_pairs(pairs, work_dir / "loader", min(sizes.loader, len(pairs)))
    build_archive(
        None,
        data_dir=work_dir / "loader",
        output=work_dir / "built",
        face_files=face_files,
        options=BuildOptions("aflw2000"),
        workers=1,
    )
    built = BuiltSet(work_dir / "built")
    return Bench(pairs, face, face_files, built, work_dir, device, rounds, compile, sizes)


# Rows.


def build_rows(bench: Bench) -> list[Line]:
    """What an image adds to a build, in this process and with all cores."""

    def build(data_dir: Path, workers: int) -> Callable[[], None]:
        def call() -> None:
            output = data_dir / "built"
            build_archive(
                None,
                data_dir=data_dir,
                output=output,
                face_files=bench.face_files,
                options=BuildOptions("aflw2000"),
                workers=workers,
            )
            shutil.rmtree(output)

        return call

    plans = [("in this process", bench.sizes.build, 1)]
    cores = num_workers("auto")
    if cores > 1:
        plans.append((f"with all {cores} cores", bench.sizes.build_all_cores, cores))
    calls = {}
    for name, counts, workers in plans:
        for count in counts:
            data_dir = bench.work_dir / f"{count} images, {name}"
            repeat_pairs(bench.pairs, data_dir, count)
            calls[f"{name}, {count}"] = build(data_dir, workers)
    timing = alternate(
        calls, device=CPU, ceiling_device=CPU, rounds=bench.rounds, sizes=bench.sizes
    )
    lines: list[Line] = []
    for name, (few, many), _ in plans:
        short, long = timing.seconds[f"{name}, {few}"], timing.seconds[f"{name}, {many}"]
        added = [(b - a) / (many - few) for a, b in zip(short, long, strict=True)]
        lines.append(
            Line(
                f"build, {name}, from {few} ({statistics.median(short):.1f} s) to {many} images "
                f"({statistics.median(long):.1f} s)",
                added,
                timing.ceilings,
                ("example_8", "prepare"),
                *(("this process", lines[0].seconds) if lines else ()),
            )
        )
    return lines


def map_rows(bench: Bench) -> list[Line]:
    """Coefficients to position maps: the composed bases against the mesh and a gather from it."""

    def to_device(count: int) -> FitBatch:
        items = [bench.built[i % len(bench.built)] for i in range(count)]
        return collate_fits(items).to(bench.device)

    one, many = to_device(1), to_device(bench.sizes.map_batch)
    face = copy.deepcopy(bench.face).to(bench.device)

    def through_the_mesh() -> torch.Tensor:
        vertices = face.morphable_model(one.shape_params, one.exp_params)
        return face.uv.position_map(camera.transform_points(one.crop_from_model, vertices))

    def through_the_decoder(decoder: PositionMapDecoder, batch: FitBatch) -> Callable:
        return lambda: decoder(batch.shape_params, batch.exp_params, batch.crop_from_model)

    mesh = "mesh, then its texels, batch 1, all texels"
    calls: dict[str, Callable[[], object]] = {mesh: through_the_mesh}
    counts = {mesh: 1}
    for texels in ("all", "face"):
        decoder = PositionMapDecoder(bench.face.morphable_model, bench.face.uv, texels=texels)
        decoder.to(bench.device)
        for count, batch in ((1, one), (bench.sizes.map_batch, many)):
            name = f"batch {count}, {texels} texels"
            calls[name] = through_the_decoder(decoder, batch)
            counts[name] = count
    with torch.inference_mode():
        timing = alternate_on_host(bench, calls)
    seconds = {name: each(timing.seconds[name], count) for name, count in counts.items()}
    return [
        Line(
            f"position map, {name}",
            seconds[name],
            timing.ceilings,
            ("face3d_map",),
            *(() if name == mesh else ("through the mesh", seconds[mesh])),
        )
        for name in seconds
    ]


def loader_rows(bench: Bench) -> list[Line]:
    """Samples a second from a built set, one process."""
    batch_size = bench.sizes.loader_batch
    indices = [i % len(bench.built) for i in range(batch_size)]
    decoder = PositionMapDecoder(bench.face.morphable_model, bench.face.uv).to(bench.device)
    generator = torch.Generator(bench.device).manual_seed(0)

    def items() -> list:
        return [bench.built[i] for i in indices]

    def batch() -> FaceSample:
        fits = collate_fits(items()).to(bench.device)
        return augment(fits, decoder, AugmentRule(), generator)

    timing = alternate_on_host(bench, {"items": items, "batch": batch})
    names = {
        "items": "loader, items alone",
        "batch": f"loader, batches of {batch_size}, augmented, targets on the {bench.device.type}",
    }
    return [
        Line(
            what,
            each(timing.seconds[name], batch_size),
            timing.ceilings,
            ("sadrnet_loader",),
        )
        for name, what in names.items()
    ]


def network_calls(
    bench: Bench,
    make_call: Callable[[Variant], Callable[[], object]],
) -> dict[str, Callable[[], object]]:
    """A call for every way to run the network, compiled already; those that do not compile are
    named and left out."""
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
    peer: str,
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
            (peer,),
            *(() if name == LITERAL else (LITERAL, seconds[LITERAL])),
        )
        for name, values in seconds.items()
    ]


def inference_rows(bench: Bench) -> list[Line]:
    """The network alone, per image."""
    lines = []
    for count in bench.sizes.inference:
        image = torch.rand(count, 3, CROP_SIZE, CROP_SIZE, device=bench.device)

        def make_call(variant: Variant, image: torch.Tensor = image) -> Callable[[], object]:
            model = PRN(width=bench.sizes.network_width).eval()
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
            f"PRN inference, batch {count}",
            network_calls(bench, make_call),
            count=count,
            peer="prn_1" if count == 1 else "prn_16",
        )
    return lines


def step_rows(bench: Bench) -> list[Line]:
    """Forward, loss, backward and update on a batch that is there, per image."""
    count = bench.sizes.step or (16 if bench.device.type == "cuda" else 4)
    image = torch.rand(count, 3, CROP_SIZE, CROP_SIZE, device=bench.device)
    target = FaceSample(image, CROP_SIZE * torch.rand_like(image))
    loss_fn = PositionMapLoss(bench.face.uv).to(bench.device)

    def make_call(variant: Variant) -> Callable[[], object]:
        model = PRN(width=bench.sizes.network_width).train()
        model.to(bench.device, memory_format=variant.memory_format)
        network = torch.compile(model, dynamic=False) if variant.compile else model
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        laid_out = image.contiguous(memory_format=variant.memory_format)

        def call() -> None:
            with torch.autocast(bench.device.type, torch.bfloat16, enabled=variant.bf16):
                prediction = network(laid_out)
            loss = sum(loss_fn(prediction, target).values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return call

    return network_lines(
        bench,
        f"PRN training step, batch {count}",
        network_calls(bench, make_call),
        count=count,
        peer="prn_step",
    )


def evaluation_rows(bench: Bench) -> list[Line]:
    """The metric alone, saved predictions, and a network's output, per face."""
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
        aligned = (align_depth(points, "mean") for points in (predicted, truth))
        nme(*aligned, bbox_size(truth)).cpu()

    def batches(crop: CropRule | None):
        num_shape, num_exp = face.morphable_model.num_shape, face.morphable_model.num_exp
        images = AFLW2000(pairs, num_shape=num_shape, num_exp=num_exp, crop=crop)
        return evaluation_loader(images, batch_size=sizes.evaluation_batch)

    common = {
        "face": face,
        "protocol": protocol,
        "dataset": "aflw2000",
        "source": "benchmark",
        "progress": False,
    }

    def score_saved() -> None:
        evaluate_predictions(
            find_predictions(predictions),
            batches(None),
            topology=find_topology(face, bench.face_files.prnet_uv_dir),
            device=bench.device,
            **common,
        )

    image = torch.rand(sizes.evaluation_batch, 3, CROP_SIZE, CROP_SIZE, device=bench.device)
    image = image.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def network_alone() -> None:
        model(image)

    host = alternate_on_host(bench, {"nme": arithmetic, "saved": score_saved})
    network = alternate(
        {
            "alone": network_alone,
            "whole": lambda: evaluate_model(model, batches(CropRule()), **common),
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


def raster_rows(bench: Bench) -> list[Line]:
    """The z-buffer of the mean head, which fills nine tenths of the picture."""
    mean = bench.face.morphable_model.mean * torch.tensor([1.0, -1.0, 1.0])
    low, high = mean.amin(0), mean.amax(0)
    triangles = bench.face.triangles.to(bench.device)
    lines = []
    for side in bench.sizes.raster:
        scale = 0.9 * side / float((high - low)[:2].max())
        vertices = ((mean - (low + high) / 2) * scale + (side - 1) / 2)[None].to(bench.device)
        timing = alternate_on_host(
            bench,
            {
                "raster": lambda vertices=vertices, side=side: rasterize(
                    vertices, triangles, height=side, width=side
                )
            },
        )
        lines.append(
            Line(
                f"raster, {len(triangles):,} triangles, {side} px",
                timing.seconds["raster"],
                timing.ceilings,
                (f"face3d_{side}",) if f"face3d_{side}" in PEERS else (),
            )
        )
    return lines


def synthetic_rows(bench: Bench) -> list[Line]:
    """Rendering samples of the synthetic world, textures and backgrounds made before; with a GPU
    both renderers, the numba z-buffer on the CPU and the plain torch one on the GPU."""
    lines = []
    count = bench.sizes.synthetic
    for device in dict.fromkeys((CPU, bench.device)):
        for side in bench.sizes.synthetic_sides:
            faces = SyntheticFaces(size=side, device=device)
            numbers = range(count)
            faces.batch(numbers)
            timing = alternate_on_host(
                bench, {"render": lambda faces=faces, numbers=numbers: faces.batch(numbers)}
            )
            lines.append(
                Line(
                    f"synthetic sample, {side} px, batch {count}, {device.type}",
                    each(timing.seconds["render"], count),
                    timing.ceilings,
                )
            )
    return lines


ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "build": build_rows,
    "maps": map_rows,
    "loader": loader_rows,
    "inference": inference_rows,
    "step": step_rows,
    "evaluation": evaluation_rows,
    "raster": raster_rows,
    "synthetic": synthetic_rows,
}


# The report.


def plain(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def carried_over(peer: Peer, ceilings: Ceilings) -> float:
    """Milliseconds of a peer on a machine of these ceilings.

    "compute" scales with the matrix product, "memory" with the copy; "scalar" code, bound by
    neither, with the one under which the peer comes out faster.
    """
    by_sgemm = peer.milliseconds * PEER_SGEMM / ceilings.sgemm
    by_copy = peer.milliseconds * PEER_COPY / ceilings.copy
    return {"compute": by_sgemm, "memory": by_copy, "scalar": min(by_sgemm, by_copy)}[peer.bound]


def time_row(line: Line) -> str:
    """A line of the Markdown table; ratios are medians of the rounds' own ratios."""
    milliseconds = [1000 * value for value in line.seconds]
    median = statistics.median(milliseconds)
    peers, indirect = [], []
    for name in line.peers:
        peer = PEERS[name]
        here = [carried_over(peer, ceilings) for ceilings in line.ceilings]
        peers.append(
            f"{peer.system}: {plain(peer.milliseconds)}, here {plain(statistics.median(here))}"
        )
        ratios = [theirs / ours for theirs, ours in zip(here, milliseconds, strict=True)]
        indirect.append(f"{plain(statistics.median(ratios))} x")
    direct = ""
    if line.baseline_seconds is not None:
        ratios = [a / b for a, b in zip(line.baseline_seconds, line.seconds, strict=True)]
        direct = f"{plain(statistics.median(ratios))} x {line.baseline}"
    cells = (
        line.what,
        f"{plain(median)} ({plain(min(milliseconds))} to {plain(max(milliseconds))})",
        plain(1000 / median),
        "<br>".join(peers),
        "<br>".join(indirect),
        direct,
    )
    return f"| {' | '.join(cells)} |"


def disk_table(built: BuiltSet) -> list[str]:
    """Bytes a sample, of our own set as built above; the same on every machine."""
    total = sum(path.stat().st_size for path in built.directory.rglob("*") if path.is_file())
    pictures = sum(path.stat().st_size for path in (built.directory / "pictures").iterdir())
    ours, picture = (total - pictures) / len(built), pictures / len(built)
    rows = (
        ("map, or what it is made from", ours, PEER_MAP_BYTES),
        ("with the picture", ours + picture, PEER_MAP_BYTES + PEER_PICTURE_BYTES),
    )
    return [
        "| bytes a sample on disk | ours | face3d, SADRNet | peer / ours |",
        "|---|---|---|---|",
        *(f"| {what} | {a:,.0f} | {b:,} | {plain(b / a)} x |" for what, a, b in rows),
    ]


def processor() -> str:
    """The CPU's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def header(bench: Bench, source: str) -> list[str]:
    """What the figures belong to."""
    lines = [
        f"* CPU: {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}",
    ]
    if hasattr(os, "getloadavg"):
        lines.append(
            f"* load average at the start: {os.getloadavg()[0]:.1f}; other work on the machine "
            "slows ours and the ceilings to different degrees"
        )
    devices = [CPU]
    if bench.device.type == "cuda":
        devices.append(bench.device)
        name = torch.cuda.get_device_name(bench.device)
        lines.append(f"* GPU: {name}, CUDA {torch.version.cuda}; maps, targets, network, raster")
    for device in devices:
        timing = alternate(
            {}, device=device, ceiling_device=device, rounds=bench.rounds, sizes=bench.sizes
        )
        sgemm, rate = (statistics.median(column) for column in zip(*timing.ceilings, strict=True))
        lines.append(
            f"* {device.type} ceilings at the start: sgemm {sgemm:.0f} GFLOP/s, copy {rate:.1f} "
            f"GB/s; of the peers' machine: {PEER_SGEMM:.0f}, {PEER_COPY}"
        )
    model = bench.face.morphable_model
    lines.append(
        f"* data: {source}; face of {model.num_vertices:,} vertices, {model.num_shape} shape and "
        f"{model.num_exp} expression bases (peers: 53,215 vertices, 199 and 29)"
    )
    lines.append(f"* {bench.rounds} rounds; median (min to max); ratios are medians of the rounds'")
    return lines


def report(bench: Bench, rows: Sequence[str], source: str) -> list[str]:
    """Time the rows; the lines of the Markdown report."""
    head = header(bench, source)
    lines: list[Line] = []
    for name in rows:
        print(f"timing: {name}", file=sys.stderr)
        lines += ROWS[name](bench)
    used = dict.fromkeys(name for line in lines for name in line.peers)
    return [
        "# Benchmark",
        "",
        *head,
        "",
        "| what, per image, map or sample | ours, ms | a second | peer, ms | peer / ours, indirect "
        "| our own variant / ours, direct |",
        "|---|---|---|---|---|---|",
        *(time_row(line) for line in lines),
        "",
        *disk_table(bench.built),
        "",
        *NOTES.splitlines(),
        "",
        "Peers' figures, of another machine:",
        "",
        *(
            f"* {peer.system}, {plain(peer.milliseconds)} ms: {peer.source}; carried over by "
            f"{CARRIED_BY[peer.bound]}"
            for peer in map(PEERS.get, used)
        ),
    ]


def row_names(text: str) -> list[str]:
    """The value of --rows."""
    names = text.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(f"got {', '.join(unknown)}; choose of {', '.join(ROWS)}")
    return names


def main(arguments: Sequence[str] | None = None, *, sizes: Sizes | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder with BFM/ and AFLW2000/; else made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--rows", type=row_names, default=list(ROWS), help=f"of {','.join(ROWS)}; all"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="of torch; else its own choice")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    options = parser.parse_args(arguments)
    for name in ("rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: got {value}, expected at least 1")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    source = "made by this script"
    if options.data_dir is not None:
        source = f"AFLW2000-3D and BFM of {options.data_dir}"
    with tempfile.TemporaryDirectory() as work_dir:
        try:
            bench = prepare(
                options.data_dir,
                Path(work_dir),
                device=resolve_device(options.device),
                rounds=options.rounds,
                compile=not options.no_compile,
                sizes=sizes or Sizes(),
            )
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        print("\n".join(report(bench, options.rows, source)))


if __name__ == "__main__":
    main()
