"""Builds, maps, loading and drawing, beside the data code of the clones."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
import torch
from omegaconf import OmegaConf

from benchmarks.data_rows import build_call, mean_head
from benchmarks.made_data import Bench, repeat_pairs
from benchmarks.peer_data import (
    face3d_example_8,
    face3d_map,
    face3d_raster,
    sadrnet_loader,
    sadrnet_prepare,
)
from benchmarks.timing import Beside
from prnet.building.archives import BuildOptions
from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.fits import FacePair
from prnet.datasets.pictures import collate_fits
from prnet.entry import CONFIG_DIR
from prnet.faces.loading import FaceFiles
from prnet.geometry.position_map import PositionMapDecoder
from prnet.geometry.rasterize import corners_of, rasterize, z_buffer
from prnet.losses.loss import Loss, target_decoder
from prnet.losses.prn import PRNLoss
from prnet.losses.sadrnet import SADRNetLoss
from prnet.workers import chunks

# Shape and expression bases of the part of the BFM that is passed on, and of the whole.
PART, WHOLE = (40, 10), (199, 29)
BATCH = 16  # of PRN's and SADRNet's training
FEWER = 4  # a build beside peers is of so many times fewer images than one alone


def faces_of(bench: Bench) -> dict[str, FaceFiles]:
    """The benchmark's face with the bases of the part and of the whole. Those that it lacks are
    zero, which cost as much and leave the faces as they are."""
    read_from = Path(bench.face_files.bfm_dir)
    found = scipy.io.loadmat(read_from / "BFM.mat")["model"][0, 0]
    faces = {}
    for num_shape, num_exp in (PART, WHOLE):
        folder = bench.work_dir / f"BFM of {num_shape} + {num_exp}"
        if not folder.is_dir():
            folder.mkdir()
            for name in ("BFM_info.mat", "BFM_UV.mat"):
                shutil.copyfile(read_from / name, folder / name)
            model = {key: found[key] for key in found.dtype.names}
            for kind, count in (("shape", num_shape), ("exp", num_exp)):
                basis, deviations = model[f"{kind}PC"][:, :count], model[f"{kind}EV"][:count]
                lacking = count - basis.shape[1]
                model[f"{kind}PC"] = np.pad(basis, [(0, 0), (0, lacking)])
                model[f"{kind}EV"] = np.pad(deviations, [(0, lacking), (0, 0)], constant_values=1)
            scipy.io.savemat(folder / "BFM.mat", {"model": model})
        files = bench.face_files._replace(bfm_dir=str(folder))
        faces[f"{num_shape} + {num_exp}"] = files
    return faces


def each_of(prepare: Callable[[FacePair], None], pairs: list[FacePair]) -> Callable[[], None]:
    def call() -> None:
        for pair in pairs:
            prepare(pair)

    return call


def build_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    """What an image adds to a build; ours keeps picture and fit, or has the map too, as theirs."""
    few, many = bench.sizes.build
    pairs = bench.pairs[: bench.sizes.loader_batch]
    for bases, face_files in faces_of(bench).items():
        face, work_dir = face_files.load(), bench.work_dir / f"built with {bases}"
        makers = {"SADRNet": sadrnet_prepare, "face3d": face3d_example_8}
        peers = {
            name: each_of(make(folder / name, face, work_dir / name), pairs)
            for name, make in makers.items()
            if (folder / name).is_dir()
        }
        counts = few, max(few + 1, many // FEWER)
        for count in counts:
            repeat_pairs(bench.pairs, work_dir / str(count), count)
        starts, ours = (
            {
                name: build_call(
                    work_dir / str(count), face_files, options=BuildOptions("aflw2000", maps=maps)
                )
                for name, maps in (("picture and fit", False), ("with float32 maps", True))
            }
            for count in counts
        )
        yield Beside(
            f"build an image, {bases} bases",
            counts[1] - counts[0],
            peers,
            ours,
            peer_count=len(pairs),
            starts=starts,
        )


def map_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    random = torch.Generator().manual_seed(0)
    for bases, face_files in faces_of(bench).items():
        face = face_files.load()
        model = face.morphable_model
        decoder = PositionMapDecoder(model, face.uv, texels="all")
        for count in (1, bench.sizes.map_batch):
            sides = [(model.num_shape, 1e5), (model.num_exp, 1.0)]
            drawn = [
                scale * torch.randn(count, length, generator=random) for length, scale in sides
            ]
            peer = face3d_map(folder / "face3d", face, [side[:1].T.numpy() for side in drawn])
            matrices = torch.diag(torch.tensor([1e-3, 1e-3, 1e-3, 1.0])).repeat(count, 1, 1)
            calls = {"vertices, then texels": partial(decoder, *drawn, matrices)}
            what = f"parameters to the map of all texels, {bases} bases, batch {count}"
            yield Beside(what, count, {"face3d": peer}, calls, peer_count=1)


def augment_rule(name: str) -> AugmentRule:
    """The values of configs/augment/NAME.yaml."""
    values = OmegaConf.load(Path(CONFIG_DIR) / "augment" / f"{name}.yaml")
    return AugmentRule(**OmegaConf.to_container(values))


def loader_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    """Items of a built set as batches, augmented, with the targets of a loss, on the CPU; SADRNet's
    of the same pictures as its own code prepares them."""
    pairs = bench.pairs[: min(len(bench.built), bench.sizes.loader_batch)]
    prepared = bench.work_dir / "prepared"
    each_of(sadrnet_prepare(folder / "SADRNet", bench.face, prepared), pairs)()
    loader = sadrnet_loader(folder / "SADRNet", [prepared / pair.picture.stem for pair in pairs])
    batches = list(chunks(range(len(pairs)), BATCH))

    def theirs() -> None:
        for batch in batches:
            torch.utils.data.default_collate([loader[i] for i in batch])

    generator = torch.Generator().manual_seed(0)

    def ours(augmentation: str, loss_fn: Loss) -> Callable[[], object]:
        rule = augment_rule(augmentation)
        loss_fn.set_face(bench.face)
        decoder = target_decoder(loss_fn, bench.face)

        def call() -> None:
            for batch in batches:
                fits = collate_fits([bench.built[i] for i in batch])
                augment(fits, decoder, rule, generator, targets=loss_fn.targets)

        return call

    def items() -> None:
        for batch in batches:
            collate_fits([bench.built[i] for i in batch])

    calls = {
        "items alone, for a card": items,
        "its released augmentation and its targets": ours("sadrnet_released", SADRNetLoss()),
        "PRN's, position map alone": ours("prn", PRNLoss()),
    }
    what = f"a loader's item, augmented, targets on the CPU, batches of {BATCH}"
    yield Beside(what, len(pairs), {"SADRNet": theirs}, calls)


def raster_lines(folder: Path, bench: Bench) -> Iterator[Beside]:
    """The z-buffer of the mean head."""
    triangles = bench.face.triangles
    for side in bench.sizes.raster:
        vertices = mean_head(bench.face, side)
        peer = face3d_raster(folder / "face3d", vertices[0].numpy(), triangles.numpy(), side)
        drawn = partial(
            z_buffer, vertices[0].numpy(), corners_of(triangles), side, side, cull_back_faces=False
        )
        weighed = partial(rasterize, vertices, triangles, height=side, width=side)
        calls = {"drawn": drawn, "drawn, weighed and checked": weighed}
        what = f"z-buffer, {len(triangles):,} triangles, {side} px"
        yield Beside(what, 1, {"face3d": peer}, calls)
