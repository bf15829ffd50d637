"""The published systems' own data code: a picture prepared, a sample loaded, a mesh drawn."""

import contextlib
import importlib
import io
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
import torch

from benchmarks.peer_code import as_read, at_home, stand_in, uv_places
from prnet.datasets.fits import FacePair
from prnet.faces.face import Face

MAP_SIDE = 256
FARTHEST = -999_999.0
SADRNET_CORE = "src.faceutil.mesh.cython.mesh_core_cython"


def leading(face: Face) -> types.SimpleNamespace:
    """SciPy's reader and writer of .mat, for their code: of a fit as many coefficients as the face
    has bases, without which their products fail."""
    model = face.morphable_model
    counts = {"Shape_Para": model.num_shape, "Exp_Para": model.num_exp}

    def loadmat(path: str) -> dict:
        found = scipy.io.loadmat(path)
        return found | {key: found[key][:count] for key, count in counts.items() if key in found}

    return types.SimpleNamespace(loadmat=loadmat, savemat=scipy.io.savemat)


def sadrnet_prepare(folder: Path, face: Face, output: Path) -> Callable[[FacePair], None]:
    """Its prepare.py, a picture at a time: OUTPUT/NAME has its crop, map, attention and matrices.

    Raises:
        ModuleNotFoundError: its mesh/cython is not built, or what it imports is not installed.
    """
    # It draws meshes by a GPU's driver, and its attention, as released, by none.
    absent = stand_in("src.visualize.render_mesh", render_face_orthographic=None)
    with at_home(folder, **absent):
        load = importlib.import_module("src.faceutil.morphable_model.load")
        load.load_BFM = lambda _path: as_read(face)
        load.load_uv_coords = lambda _path: np.zeros((1, 2))  # set below as it makes them
        prepare = importlib.import_module("src.dataset.prepare")
    prepare.uv_coords = uv_places(face)
    prepare.sio = leading(face)
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        processor = prepare.DataProcessor(prepare.BBOX_EXTEND_RATE, prepare.MARG_RATE)
    # It makes OUTPUT/NAME itself, and says so of every OUTPUT that is not there.
    return lambda pair: processor.process_item(str(pair.picture), str(output))


def sadrnet_loader(folder: Path, prepared: Sequence[Path]) -> torch.utils.data.Dataset:
    """Its FaceDataGenerator with its augmentation, of folders of `sadrnet_prepare`."""
    with at_home(folder, **stand_in(SADRNET_CORE)):
        load = importlib.import_module("src.faceutil.morphable_model.load")
        load.load_uv_coords = lambda _path: np.zeros((1, 2))  # of the BFM, and not used here
        loader = importlib.import_module("src.dataset.dataloader")
    loader.print = lambda *_text: None  # of every sample whose map is far from the mean
    items = []
    for path in prepared:
        item = loader.ImageData()
        item.read_path(path.as_posix())
        items.append(item)
    return loader.FaceDataGenerator(items, "IPOA", is_aug=True)


def face3d_model(folder: Path, face: Face) -> tuple[types.ModuleType, object]:
    """Its `mesh` package, and its morphable model of the face.

    Raises:
        ModuleNotFoundError: its mesh/cython is not built, or what it imports is not installed.
    """
    with at_home(folder):
        mesh = importlib.import_module("face3d.mesh")
        package = importlib.import_module("face3d.morphable_model")
        package.load.load_BFM = lambda _path: as_read(face)
        return mesh, package.MorphabelModel("BFM.mat")


def face3d_example_8(folder: Path, face: Face, output: Path) -> Callable[[FacePair], None]:
    """Its examples/8_generate_posmap_300WLP.py, a picture at a time: crop, map and the map's
    picture in OUTPUT."""
    with at_home(folder):
        with at_home(folder / "examples"):
            example = importlib.import_module("8_generate_posmap_300WLP")
        example.mesh, bfm = face3d_model(folder, face)
    example.uv_coords = uv_places(face)
    example.sio = leading(face)
    example.io = types.SimpleNamespace(imread=example.io.imread, imsave=_as_bytes(example.io))
    output.mkdir(parents=True, exist_ok=True)
    return lambda pair: example.run_posmap_300W_LP(
        bfm, pair.picture.as_posix(), pair.fit.as_posix(), str(output)
    )


def _as_bytes(skimage_io: types.ModuleType) -> Callable:
    """skimage's `imsave` as it was: of numbers from 0 to 1 bytes, which a JPEG takes no other."""

    def imsave(path: str, image: np.ndarray) -> None:
        image = (255 * image.clip(0, 1)).round().astype(np.uint8)
        skimage_io.imsave(path, image, check_contrast=False)

    return imsave


def face3d_map(folder: Path, face: Face, parameters: Sequence[np.ndarray]) -> Callable:
    """Coefficients to the map of all texels, as its example 8 does."""
    mesh, bfm = face3d_model(folder, face)
    places = uv_places(face)
    angles, translation = np.array([0.1, 0.2, 0.3]), np.array([128.0, 128.0, 0.0])

    def call() -> np.ndarray:
        vertices = bfm.generate_vertices(*parameters)
        vertices = bfm.transform_3ddfa(vertices, 1e-3, angles, translation)
        return mesh.render.render_colors(
            places, bfm.full_triangles, vertices, MAP_SIDE, MAP_SIDE, c=3
        )

    return call


def face3d_raster(
    folder: Path,
    vertices: np.ndarray,  # (N, 3), px
    triangles: np.ndarray,  # (T, 3)
    side: int,
) -> Callable:
    """Its `rasterize_triangles`; with depths in float32 and flat weights, as its core takes them,
    and with what it fills returned."""
    with at_home(folder):
        core = importlib.import_module("face3d.mesh").render.mesh_core_cython

    def call() -> tuple[np.ndarray, ...]:
        depth = np.zeros([side, side], np.float32) + np.float32(FARTHEST)
        index = np.zeros([side, side], np.int32) - 1
        weights = np.zeros([side * side, 3], np.float32)
        points, corners = vertices.astype(np.float32).copy(), triangles.astype(np.int32).copy()
        core.rasterize_triangles_core(
            points, corners, depth, index, weights, len(points), len(corners), side, side
        )
        return depth, index, weights

    return call
