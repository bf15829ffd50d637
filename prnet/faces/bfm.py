"""The Basel Face Model in face3d's files: BFM.mat, BFM_info.mat, BFM_UV.mat.

Units are micrometres. Any number of leading bases is taken. `prnet.convert_bfm` makes the
files from the raw BFM-2009.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from prnet.checks import require_finite
from prnet.faces.face import REGIONS, Face, fingerprint_of
from prnet.files import read_mat, read_table
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.uv import UVLayout

log = logging.getLogger(__name__)

NUM_LANDMARKS = 68
UV_RESOLUTION = 256
UV_DATA_HINT = "clone PRNet for its Data/uv-data"


def load_bfm(
    bfm_dir: Path | str,
    *,
    prnet_uv_dir: Path | str | None = None,
    border_quirk: bool = False,
) -> Face:
    """Read a BFM in face3d's format.

    The face mask and the landmark cells come from PRNet's own files where `prnet_uv_dir` holds them
    (`face_ind.txt`, `uv_kpt_ind.txt`) and are derived from the model otherwise; the log says which.

    Raises:
        FileNotFoundError: a file is missing; the message says where it comes from.
        ValueError: a file's content does not have the expected form.
    """
    bfm_dir = Path(bfm_dir)
    model = _Struct(bfm_dir / "BFM.mat", "model")
    info = _Struct(bfm_dir / "BFM_info.mat", "model_info")
    neutral_mean, exp_mean = model.column("shapeMU"), model.column("expMU")
    if len(exp_mean) != len(neutral_mean):
        raise ValueError(
            f"{model.path}: expMU has {len(exp_mean)} rows, shapeMU {len(neutral_mean)}; "
            "expected the same vertices"
        )
    mean = neutral_mean + exp_mean
    require_finite(f"{model.path}: mean", mean)
    num_vertices = len(mean) // 3
    shape_basis, exp_basis = (model.basis(name, num_vertices) for name in ("shapePC", "expPC"))

    triangles = model.indices("tri", num_vertices).T
    if triangles.shape[1] != 3:
        raise ValueError(f"{model.path}: tri has shape {triangles.T.shape}, expected (3, T)")
    source = model if "kpt_ind" in model.fields else info
    landmark_index = source.indices("kpt_ind", num_vertices).ravel()
    if len(landmark_index) != NUM_LANDMARKS:
        raise ValueError(f"{source.path}: kpt_ind has {len(landmark_index)} entries, expected 68")
    regions = np.asarray(info.field("segbin"))
    if regions.shape != (len(REGIONS), num_vertices):
        raise ValueError(
            f"{info.path}: segbin has shape {regions.shape}, "
            f"expected ({len(REGIONS)}, {num_vertices}): {', '.join(REGIONS)}"
        )
    regions = regions.astype(bool)
    mirror_index = _mirror_index(info, num_vertices)

    uv_coords = _read_uv(bfm_dir / "BFM_UV.mat", num_vertices)
    face_mask = landmark_cells = None
    if prnet_uv_dir is not None and (Path(prnet_uv_dir) / "face_ind.txt").is_file():
        face_mask = read_prnet_face_mask(Path(prnet_uv_dir) / "face_ind.txt")
        landmark_cells = read_prnet_landmark_cells(Path(prnet_uv_dir) / "uv_kpt_ind.txt")
        log.info("face mask: %d pixels of PRNet's %s", face_mask.sum(), prnet_uv_dir)
    # Triangles of the lips close the slit where the model has them; drawn last, they only fill
    # gaps.
    surface = triangles
    if "tri_mouth" in model.fields:
        surface = np.concatenate([triangles, model.indices("tri_mouth", num_vertices).T])
    uv = UVLayout(
        uv_coords,
        surface,
        landmark_index,
        regions[:3].any(0),
        resolution=UV_RESOLUTION,
        face_mask=face_mask,
        landmark_cells=landmark_cells,
        border_quirk=border_quirk,
    )
    if face_mask is None:
        log.info("face mask: %d pixels, derived from the jaw line", uv.face_index.numel())
    log.info(
        "BFM: %d vertices, %d shape and %d expression bases; that many of a fit's are used",
        num_vertices,
        len(shape_basis),
        len(exp_basis),
    )
    arrays = {
        name: np.ascontiguousarray(values, dtype=np.float32)
        for name, values in (
            ("mean", mean.reshape(-1, 3)),
            ("shape_basis", shape_basis),
            ("exp_basis", exp_basis),
        )
    }
    others = {"triangles": surface, "landmark_index": landmark_index, "uv_coords": uv_coords}
    return Face(
        name="bfm",
        morphable_model=MorphableModel(*map(torch.from_numpy, arrays.values())),
        uv=uv,
        triangles=torch.from_numpy(np.ascontiguousarray(surface)),
        landmark_index=torch.from_numpy(landmark_index),
        regions=dict(zip(REGIONS, torch.from_numpy(regions), strict=True)),
        mirror_index=None if mirror_index is None else torch.from_numpy(mirror_index),
        shape_std=model.deviations("shapeEV", len(shape_basis)),
        exp_std=model.deviations("expEV", len(exp_basis)),
        fingerprint=fingerprint_of(arrays | others),
    )


def read_prnet_face_mask(path: Path) -> np.ndarray:
    """PRNet's face_ind.txt as a mask, (256, 256) bool."""
    index = read_table(path, hint=UV_DATA_HINT).astype(np.int64).ravel()
    if len(index) == 0 or index.min() < 0 or index.max() >= UV_RESOLUTION**2:
        raise ValueError(f"{path}: expected flat indices of a 256 x 256 map, 0 to 65535")
    mask = np.zeros(UV_RESOLUTION**2, dtype=bool)
    mask[index] = True
    return mask.reshape(UV_RESOLUTION, UV_RESOLUTION)


def read_prnet_landmark_cells(path: Path) -> np.ndarray:
    """PRNet's uv_kpt_ind.txt as (68, 2), row and column: its first line holds the columns."""
    table = read_table(path, hint=UV_DATA_HINT)
    if table.shape != (2, NUM_LANDMARKS):
        raise ValueError(f"{path}: got a table of {table.shape}, expected 2 rows of 68 numbers")
    if table.min() < 0 or table.max() >= UV_RESOLUTION:
        raise ValueError(f"{path}: expected cells of a 256 x 256 map, 0 to 255")
    return table[::-1].T.astype(np.int64)


class _Struct:
    """A 1 x 1 MATLAB struct; what is wrong with a field is said with the file's name."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        content = read_mat(path, hint="make it with python -m prnet.convert_bfm")
        if key not in content:
            found = sorted(name for name in content if not name.startswith("__"))
            raise ValueError(f"{path}: no struct {key!r}, found {found}; expected face3d's format")
        struct = content[key]
        if struct.dtype.names is None or struct.size != 1:
            raise ValueError(f"{path}: {key!r} is not a 1 x 1 struct; expected face3d's format")
        self.fields = dict(zip(struct.dtype.names, struct.ravel()[0], strict=True))

    def field(self, name: str) -> np.ndarray:
        if name not in self.fields:
            raise ValueError(f"{self.path}: no field {name!r}, found {sorted(self.fields)}")
        return self.fields[name]

    def column(self, name: str) -> np.ndarray:
        """x, y, z of each vertex in turn, (3 N,) float64."""
        column = np.asarray(self.field(name), dtype=np.float64).ravel()
        if len(column) == 0 or len(column) % 3:
            raise ValueError(f"{self.path}: {name} has {len(column)} rows, expected 3 per vertex")
        return column

    def basis(self, name: str, num_vertices: int) -> np.ndarray:
        """A basis as (C, N, 3) float64; rows of the file are x, y, z of each vertex in turn."""
        basis = np.asarray(self.field(name), dtype=np.float64)
        if basis.ndim != 2 or basis.shape[0] != 3 * num_vertices:
            expected = f"({3 * num_vertices}, C)"
            raise ValueError(f"{self.path}: {name} has shape {basis.shape}, expected {expected}")
        require_finite(f"{self.path}: {name}", basis)
        return basis.T.reshape(basis.shape[1], num_vertices, 3)

    def indices(self, name: str, count: int) -> np.ndarray:
        """1-based indices of the file as 0-based ones."""
        index = np.asarray(self.field(name)).astype(np.int64) - 1
        if index.size and (index.min() < 0 or index.max() >= count):
            raise ValueError(f"{self.path}: {name} holds 1-based indices outside 1..{count}")
        return index

    def deviations(self, name: str, count: int) -> torch.Tensor | None:
        """One per coefficient, float32; None where the file has none or only ones instead."""
        if name not in self.fields:
            return None
        deviations = np.asarray(self.fields[name], dtype=np.float32).ravel()
        if len(deviations) < count:
            raise ValueError(f"{self.path}: {name} has {len(deviations)} values, expected {count}")
        require_finite(f"{self.path}: {name}", deviations)
        return None if (deviations == 1).all() else torch.from_numpy(deviations[:count].copy())


def _mirror_index(info: _Struct, num_vertices: int) -> np.ndarray | None:
    """The vertex on the other side (N,), from the pairs of `symlist`; None where those lack some.

    In the published file a few vertices of the lips are in two pairs: there the first counts, and
    the mirror of the mirror is another vertex close by.
    """
    if "symlist" not in info.fields:
        return None
    pairs = info.indices("symlist", num_vertices)
    mirror_index = np.full(num_vertices, -1)
    if pairs.ndim == 2 and len(pairs) == 2:
        from_side, to_side = np.concatenate([pairs, pairs[::-1]], axis=1)[:, ::-1]
        mirror_index[from_side] = to_side
    if (mirror_index < 0).any():
        log.warning(
            "%s: symlist of shape %s leaves %d of %d vertices without a partner, expected (2, "
            "pairs); the face has no mirror",
            info.path,
            pairs.shape,
            (mirror_index < 0).sum(),
            num_vertices,
        )
        return None
    return mirror_index


def _read_uv(path: Path, num_vertices: int) -> np.ndarray:
    content = read_mat(path, hint="it is stn/BFM_UV.mat of 3DMMasSTN")
    if "UV" not in content:
        raise ValueError(f"{path}: no array 'UV'")
    uv_coords = np.asarray(content["UV"], dtype=np.float64)
    if uv_coords.shape != (num_vertices, 2):
        raise ValueError(
            f"{path}: UV has shape {uv_coords.shape}, expected ({num_vertices}, 2); trim a file of "
            "53490 rows with python -m prnet.convert_bfm"
        )
    require_finite(f"{path}: UV", uv_coords)
    if uv_coords.min() < 0 or uv_coords.max() > 1:
        raise ValueError(
            f"{path}: UV runs from {uv_coords.min():g} to {uv_coords.max():g}, expected 0 to 1"
        )
    return uv_coords
