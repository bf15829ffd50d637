"""Builds, maps, loaders, the z-buffer and the synthetic world."""

import copy
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.made_data import Bench, alternate_on_host, repeat_pairs
from benchmarks.peers import PEERS
from benchmarks.tables import Line
from benchmarks.timing import CPU, alternate, each
from prnet.building.archives import BuildOptions, build_archive
from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.pictures import collate_fits
from prnet.datasets.synthetic import SyntheticRule
from prnet.entry import num_workers, shipped_dataset
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder
from prnet.geometry.rasterize import rasterize
from prnet.sample import FaceSample, FitBatch
from prnet.synthetic.world import SyntheticFaces


def build_call(
    data_dir: Path, face_files: FaceFiles, *, options: BuildOptions, workers: int = 1
) -> Callable[[], None]:
    """A build of DATA_DIR/AFLW2000, which leaves nothing behind."""

    def call() -> None:
        output = data_dir / "built"
        build_archive(
            None,
            data_dir=data_dir,
            output=output,
            face_files=face_files,
            options=options,
            workers=workers,
        )
        shutil.rmtree(output)

    return call


def build_rows(bench: Bench) -> list[Line]:
    """What an image adds to a build, in this process and with all cores."""
    plans = [("in this process", bench.sizes.build, 1)]
    cores = num_workers("auto")
    if cores > 1:
        plans.append((f"with all {cores} cores", bench.sizes.build_all_cores, cores))
    calls = {}
    for name, counts, workers in plans:
        for count in counts:
            data_dir = bench.work_dir / f"{count} images, {name}"
            repeat_pairs(bench.pairs, data_dir, count)
            calls[f"{name}, {count}"] = build_call(
                data_dir, bench.face_files, options=BuildOptions("aflw2000"), workers=workers
            )
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


def mean_head(face: Face, side: int) -> torch.Tensor:
    """Its vertices (1, N, 3), px, where they fill nine tenths of a picture of `side` px."""
    mean = face.morphable_model.mean * torch.tensor([1.0, -1.0, 1.0])
    low, high = mean.amin(0), mean.amax(0)
    scale = 0.9 * side / float((high - low)[:2].max())
    return ((mean - (low + high) / 2) * scale + (side - 1) / 2)[None]


def raster_rows(bench: Bench) -> list[Line]:
    """The z-buffer of the mean head."""
    triangles = bench.face.triangles.to(bench.device)
    lines = []
    for side in bench.sizes.raster:
        vertices = mean_head(bench.face, side).to(bench.device)
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
    """Rendering samples of the synthetic world, textures and backgrounds made before."""
    lines = []
    count = bench.sizes.synthetic
    rule = SyntheticRule.from_values(shipped_dataset("synthetic"))
    for side in bench.sizes.synthetic_sides:
        faces = SyntheticFaces(rule.world, size=side)
        numbers = range(count)
        faces.batch(numbers)
        timing = alternate_on_host(
            bench, {"render": lambda faces=faces, numbers=numbers: faces.batch(numbers)}
        )
        lines.append(
            Line(
                f"synthetic sample, {side} px, batch {count}",
                each(timing.seconds["render"], count),
                timing.ceilings,
            )
        )
    return lines
