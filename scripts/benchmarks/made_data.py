"""What the rows share: sizes, and data, the user's or made up."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import scipy.io
import torch

from benchmarks.timing import CPU, Sizes, Timing, alternate
from prnet.building.archives import BuildOptions, build_archive
from prnet.datasets.built import BuiltSet
from prnet.datasets.fits import FacePair, decode_vertices, find_aflw2000, fit_matrix
from prnet.datasets.pictures import write_picture
from prnet.faces.bfm import load_bfm
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.geometry import camera
from prnet.sample import Fit


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


def alternate_on_host(bench: Bench, calls: dict[str, Callable[[], object]]) -> Timing:
    """`alternate`, for peers whose code cannot leave the CPU."""
    return alternate(
        calls, device=bench.device, ceiling_device=CPU, rounds=bench.rounds, sizes=bench.sizes
    )


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
