"""Make BFM.mat, BFM_info.mat and BFM_UV.mat (face3d's format) from the raw BFM-2009.

The same as face3d's generate.m: the 53,490 vertices of the BFM are trimmed to the 53,215 of the
300W-LP fits, three UV coordinates are repaired, the mouth is closed. Indices stay 1-based and
triangles stay columns, as face3d's loader expects.

Without an optional file the fields made from it are left out and named.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from prnet.checks import require_finite
from prnet.files import read_mat, written_whole

RAW_VERTICES = 53_490
VERTICES = 53_215
TRIANGLES = 105_840
MOUTH_TRIANGLES = 108
LANDMARKS = 68

BFM_FILE = "01_MorphableModel.mat"
INFO_FILE = "model_info.mat"
EXPRESSION_FILE = "Model_Expression.mat"
SIGMA_FILE = "sigma_exp.mat"
MOUTH_FILE = "Model_tri_mouth.mat"
UV_FILE = "BFM_UV.mat"

PROFILING = "it is in [Face Profiling], on the 3DDFA page of Xiangyu Zhu"
SOURCES = {
    BFM_FILE: "it is the Basel Face Model of 2009, sent on registration at faces.dmi.unibas.ch/bfm",
    INFO_FILE: "it is on the 3DDFA and HPEN pages of Xiangyu Zhu",
    EXPRESSION_FILE: "it is on the 3DDFA and HPEN pages of Xiangyu Zhu",
    SIGMA_FILE: "it holds sigma_exp where Model_Expression.mat does not",
    UV_FILE: "it is util/BFM_UV.mat of github.com/anilbas/3DMMasSTN",
    MOUTH_FILE: PROFILING,
    "Model_face_contour_trimed.mat": PROFILING,
    "Modelplus_nose_hole.mat": PROFILING,
    "Modelplus_parallel.mat": PROFILING,
}
REQUIRED = (BFM_FILE, INFO_FILE, EXPRESSION_FILE, UV_FILE)
OPTIONAL_FIELDS = {
    "Model_face_contour_trimed.mat": (
        "face_contour",
        "face_contour_line",
        "face_contour_front",
        "face_contour_front_line",
    ),
    "Modelplus_nose_hole.mat": ("nose_hole", "nose_hole_right", "nose_hole_left"),
    "Modelplus_parallel.mat": ("parallel", "parallel_face_contour"),
}

# 1-based, as in generate.m: a vertex whose UV is wrong, and those whose mean replaces it.
UV_REPAIRS = {10032: (10033, 10158), 10155: (10534, 10157, 10661), 10280: (10916, 10286)}

# The triangle generate.m drops (1-based) and those it adds between the lips. The last one's 6168
# looks like a slip for 6167, but it is what the published maps were made with.
MOUTH_DROPPED = 38
MOUTH_ADDED = (
    (6420, 6542, 6664),
    (6420, 6294, 6167),
    (6167, 6297, 6420),
    (6167, 6297, 6296),
    (6167, 6296, 6295),
    (6167, 6295, 6039),
    (6168, 6295, 6039),
)

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
WRONG_VINTAGE = (
    "the fits of 300W-LP and AFLW2000-3D need the BFM of 2009, 01_MorphableModel.mat with shapeMU "
    "and 53490 vertices; the BFM of 2017 and 2019 (.h5) and models made from it have another mesh"
)
# Bytes 0-115 of a MATLAB 5 file are free text, where scipy writes the time: equal inputs would give
# different files.
HEADER = b"MATLAB 5.0 MAT-file, made from BFM-2009 by prnet.convert_bfm".ljust(116)


class Conversion(NamedTuple):
    """Content of the three files, indices 1-based."""

    model: dict[str, np.ndarray]  # BFM.mat
    model_info: dict[str, np.ndarray]  # BFM_info.mat
    uv: np.ndarray  # BFM_UV.mat: (53215, 2), float64, in [0, 1]
    left_out: list[str]  # fields without an input, each with the reason


def convert(source: Path) -> Conversion:
    """Read the raw files and convert them; the files are not changed.

    Coordinates are micrometres, flat with x, y, z of each vertex in turn, float32.

    Raises:
        FileNotFoundError: a required file is missing; the message says where it comes from.
        ValueError: a file is damaged, of another vintage, or holds another mesh.
    """
    _require_files(source)
    left_out = []
    info = _Source.open(source, INFO_FILE)
    trim_index = info.indices("trimIndex", (VERTICES, 1), RAW_VERTICES)
    if len(np.unique(trim_index)) != VERTICES:
        raise ValueError(f"{info.path}: trimIndex names a vertex twice; the file is damaged")
    keypoints = info.indices("keypoints", (1, LANDMARKS), VERTICES)
    triangles = info.indices("tri", (3, TRIANGLES), VERTICES)
    model_info = {
        "kpt_ind": keypoints,
        "trimIndex": trim_index,
        "segbin": _trimmed(info, "segbin", 4, trim_index).T.astype(np.uint8),
    }
    for name, limit in (("symlist", VERTICES), ("symlist_tri", TRIANGLES)):
        if name in info.content:
            model_info[name] = info.indices(name, (2, None), limit)
        else:
            left_out.append(f"model_info.{name}: not in {info.path}")
    if "segbin_tri" in info.content:
        model_info["segbin_tri"] = info.array("segbin_tri", (TRIANGLES, 4)).T.astype(np.uint8)
    else:
        left_out.append(f"model_info.segbin_tri: not in {info.path}")

    uv_source = _Source.open(source, UV_FILE)
    uv = repaired_uv(_trimmed(uv_source, "UV", 2, trim_index)).astype(np.float64)
    if uv.min() < 0 or uv.max() > 1:
        raise ValueError(
            f"{uv_source.path}: UV spans {uv.min():g} to {uv.max():g}, expected 0 to 1"
        )
    model_info["uv_coords"] = uv

    model = {"tri": triangles, "kpt_ind": keypoints}
    expression_fields, reason = _read_expression(source)
    model |= expression_fields
    left_out += reason

    if _locate(source, MOUTH_FILE).is_file():
        mouth = _Source.open(source, MOUTH_FILE)
        mouth_triangles = mouth.indices("tri_mouth", (3, MOUTH_TRIANGLES), VERTICES)
        model["tri_mouth"] = model_info["tri_mouth"] = closed_mouth(mouth_triangles)
    else:
        left_out.append(
            f"model.tri_mouth: no {MOUTH_FILE} ({PROFILING}); the gap between the lips stays open"
        )
    for name, fields in OPTIONAL_FIELDS.items():
        if not _locate(source, name).is_file():
            left_out.append(f"model_info.{', '.join(fields)}: no {name} ({SOURCES[name]})")
            continue
        optional = _Source.open(source, name)
        model_info |= {field: optional.index_field(field, VERTICES) for field in fields}

    return Conversion(model | _read_bfm(source, trim_index), model_info, uv, left_out)


def write(conversion: Conversion, output: Path) -> None:
    """Write the three files; equal inputs give equal bytes."""
    contents = {
        "BFM.mat": {"model": conversion.model},
        "BFM_info.mat": {"model_info": conversion.model_info},
        "BFM_UV.mat": {"UV": conversion.uv},
    }
    for name, content in contents.items():
        with written_whole(output / name) as temporary, temporary.open("wb") as file:
            scipy.io.savemat(file, content)
            file.seek(0)
            file.write(HEADER)


def trimmed_rows(trim_index: np.ndarray) -> np.ndarray:  # (n, 1), 1-based
    """0-based rows of the kept vertices in a flat array of x, y, z per vertex, (3 n,)."""
    return (3 * (trim_index - 1) + np.arange(3)).ravel()


def repaired_uv(uv: np.ndarray) -> np.ndarray:  # (53215, 2)
    """UV with three wrong vertices at the mean of neighbours; a second repair changes nothing."""
    repaired = uv.copy()
    for vertex, neighbours in UV_REPAIRS.items():
        repaired[vertex - 1] = uv[np.array(neighbours) - 1].mean(0)
    return repaired


def closed_mouth(triangles: np.ndarray) -> np.ndarray:  # (3, 108), 1-based
    """The triangles between the lips without the wrong one and with the missing ones, (3, 114)."""
    added = np.array(MOUTH_ADDED, dtype=triangles.dtype).T
    return np.concatenate([np.delete(triangles, MOUTH_DROPPED - 1, axis=1), added], axis=1)


class _Source(NamedTuple):
    """The arrays of one raw file, checked as they are taken."""

    path: Path
    content: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path, name: str) -> "_Source":
        path = _locate(folder, name)
        return cls(path, read_mat(path, hint=SOURCES[name]))

    @property
    def names(self) -> list[str]:
        return sorted(name for name in self.content if not name.startswith("__"))

    def array(self, key: str, shape: tuple[int | None, int | None]) -> np.ndarray:
        """Finite numbers of a given shape (None: any); a vector may lie the other way."""
        if key not in self.content:
            raise ValueError(f"{self.path}: no array {key!r}, found {self.names}")
        array = self.content[key]
        if array.ndim == 2 and 1 in shape and array.shape[shape.index(1)] != 1:
            array = array.T
        fits = array.ndim == 2 and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype.kind not in "biuf":
            expected = " x ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(
                f"{self.path}: {key} is {array.dtype} of shape {array.shape}, "
                f"expected numbers of shape {expected}"
            )
        require_finite(f"{self.path}: {key}", array)
        return array

    def indices(self, key: str, shape: tuple[int | None, int | None], limit: int) -> np.ndarray:
        """1-based indices into `limit` things, int32."""
        return _checked_indices(self.array(key, shape), key, limit, self.path)

    def index_field(self, key: str, limit: int) -> np.ndarray:
        """Indices of vertices, as one array or as a cell array of them."""
        cells = self.content.get(key)
        if cells is None or cells.dtype != object:
            return self.indices(key, (None, None), limit)
        checked = cells.copy()
        for position, cell in np.ndenumerate(cells):
            checked[position] = _checked_indices(cell, key, limit, self.path)
        return checked


def _checked_indices(array: np.ndarray, key: str, limit: int, path: Path) -> np.ndarray:
    if array.size and (array.min() < 1 or array.max() > limit or (array % 1).any()):
        raise ValueError(
            f"{path}: {key} spans {array.min():g} to {array.max():g}, expected indices 1 to {limit}"
        )
    # Files hold uint16, in which 3 * 53490 would wrap around.
    return array.astype(np.int32)


def _locate(folder: Path, name: str) -> Path:
    """The file, flat or in one of face3d's folders; the flat path where it is in none."""
    candidates = [folder / name, *(folder / sub / name for sub in ("raw", "3ddfa", "stn"))]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _require_files(source: Path) -> None:
    """Name everything that is missing at once, and another vintage as what it is."""
    bfm = _locate(source, BFM_FILE)
    if bfm.is_file():
        with bfm.open("rb") as file:
            signature = file.read(len(HDF5_SIGNATURE))
        if signature == HDF5_SIGNATURE:
            raise ValueError(f"{bfm}: an HDF5 file; {WRONG_VINTAGE}")
    elif others := sorted(path.name for path in source.rglob("*.h5")):
        raise ValueError(f"{source}: found {', '.join(others)} but no {BFM_FILE}; {WRONG_VINTAGE}")
    missing = [
        f"{name} ({SOURCES[name]})" for name in REQUIRED if not _locate(source, name).is_file()
    ]
    if missing:
        raise FileNotFoundError(f"{source}: missing {'; '.join(missing)}")


def _trimmed(source: _Source, key: str, columns: int, trim_index: np.ndarray) -> np.ndarray:
    """One row per vertex: 53,490 rows are trimmed, 53,215 already are."""
    array = source.array(key, (None, columns))
    if len(array) == RAW_VERTICES:
        return array[trim_index[:, 0] - 1]
    if len(array) == VERTICES:
        return array
    raise ValueError(
        f"{source.path}: {key} has {len(array)} rows, expected {RAW_VERTICES} or {VERTICES}"
    )


def _read_expression(source: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Fields of the expression, which comes on the trimmed vertices, and what is left out."""
    expression = _Source.open(source, EXPRESSION_FILE)
    basis = expression.array("w_exp", (3 * VERTICES, None)).astype(np.float32)
    fields = {
        "expMU": expression.array("mu_exp", (3 * VERTICES, 1)).astype(np.float32),
        "expPC": basis,
    }
    if "sigma_exp" not in expression.content:
        if not _locate(source, SIGMA_FILE).is_file():
            return fields, [f"model.expEV: sigma_exp is not in {expression.path}, no {SIGMA_FILE}"]
        expression = _Source.open(source, SIGMA_FILE)
    fields["expEV"] = expression.array("sigma_exp", (basis.shape[1], 1)).astype(np.float32)
    return fields, []


def _read_bfm(source: Path, trim_index: np.ndarray) -> dict[str, np.ndarray]:
    """Fields of shape and texture, trimmed."""
    raw = _Source.open(source, BFM_FILE)
    mean = raw.content.get("shapeMU")
    if mean is None or mean.size != 3 * RAW_VERTICES:
        found = (
            f"no shapeMU, found {raw.names}"
            if mean is None
            else f"shapeMU has {mean.size} values, expected {3 * RAW_VERTICES}"
        )
        raise ValueError(f"{raw.path}: {found}; {WRONG_VINTAGE}")
    rows = trimmed_rows(trim_index)
    fields = {}
    for prefix in ("shape", "tex"):
        basis = raw.array(f"{prefix}PC", (3 * RAW_VERTICES, None))
        fields[f"{prefix}MU"] = raw.array(f"{prefix}MU", (3 * RAW_VERTICES, 1))[rows]
        fields[f"{prefix}PC"] = basis[rows]
        fields[f"{prefix}EV"] = raw.array(f"{prefix}EV", (basis.shape[1], 1))
    return {name: array.astype(np.float32, copy=False) for name, array in fields.items()}


def convert_folder(source: Path, output: Path) -> list[str]:
    """Convert the raw files of a folder; returns what was made and what was left out, in words.

    Raises:
        FileNotFoundError: no such folder, or required files are missing.
        ValueError: a file is not what it should be, or would be overwritten.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder of raw BFM files")
    raw_uv = _locate(source, UV_FILE)
    if raw_uv.resolve() == (output / UV_FILE).resolve():
        raise ValueError(f"{raw_uv} would be overwritten; give another output=")
    conversion = convert(source)
    write(conversion, output)
    num_shape, num_exp = (conversion.model[name].shape[1] for name in ("shapePC", "expPC"))
    made = f"{output}: {VERTICES} vertices, {num_shape} shape, {num_exp} expression bases"
    return [made, *(f"left out: {line}" for line in conversion.left_out)]
