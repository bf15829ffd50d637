"""Saved predictions of any method, told apart by their file names.

| file          | of           | content                                                         |
|---------------|--------------|-----------------------------------------------------------------|
| NAME_kpt.txt  | PRNet        | 68 lines x y z; pixel origin face3d                             |
| NAME_mesh.mat | PRNet        | `vertices` (N, 3), usually its 43,867 face pixels; face3d       |
| NAME.mat      | 3DDFA, 2DASL | `vertex` (3, N) or (N, 3), often the BFM's 53,215; matlab       |
| NAME.npz      | prnet        | `landmarks` (68, 3) or (68, 2), `vertices` (N, 3), one or both; |
|               |              | `pixel_origin` zero_based (the default), matlab, face3d or      |
|               |              | sadrnet; `vertices_pixel_origin` where that of the vertices is  |
|               |              | another                                                         |
| NAME.obj,     | any          | the points in their order, zero_based, y down or, as PRNet's    |
| NAME.ply      |              | and 3DDFA_V2's, up; counts where NAME has no other file         |

All in px of the original image, z toward the camera. Letters: N points.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.checks import require_choice, require_finite
from prnet.datasets.hidden_landmarks import is_right_handed
from prnet.datasets.obj_files import read_points
from prnet.faces.bfm import read_prnet_face_mask, read_prnet_landmark_cells
from prnet.faces.face import Face
from prnet.files import read_mat, read_npz, read_table, visible_files, written_whole
from prnet.geometry.camera import PIXEL_ORIGINS

# Suffix of the file name -> whose format; the longest that fits counts.
FORMATS = {"_kpt.txt": "prnet", "_mesh.mat": "prnet", ".mat": "3ddfa", ".npz": "npz"}
MESHES = {".obj": "obj", ".ply": "ply"}
MISSING = "it was there when the folder was listed"
NUM_LANDMARKS = 68
NUM_BFM_VERTICES = 53215
NUM_PRNET_FACE_PIXELS = 43867


class SavedPrediction(NamedTuple):
    """The points of one image, px, each in its pixel origin; float32 or float64 as stored."""

    file: Path  # the one to name in a message
    landmarks: np.ndarray | None  # (68, 2 or 3)
    landmarks_origin: str
    vertices: np.ndarray | None  # (N, 3)
    vertices_origin: str


class Topology(NamedTuple):
    """Where the 68 landmarks are among the points of a mesh, by the number of points."""

    landmark_index: dict[int, np.ndarray]  # N -> (68,)
    absent: dict[int, str]  # N -> why its landmarks are unknown here


def find_predictions(directory: Path | str) -> dict[str, list[Path]]:
    """The files of every NAME in a folder, sorted.

    Raises:
        FileNotFoundError: no such folder, or no prediction in it.
        ValueError: a NAME has predictions in two formats.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder of predictions")
    found: dict[str, list[Path]] = {}
    for path in visible_files(directory):
        suffix = _suffix(path)
        if suffix is not None:
            found.setdefault(path.name[: -len(suffix)], []).append(path)
    named = set(found)
    for path in visible_files(directory, MESHES):
        if path.stem not in named:
            found.setdefault(path.stem, []).append(path)
    if not found:
        raise FileNotFoundError(
            f"{directory}: no prediction found; expected NAME{', NAME'.join((*FORMATS, *MESHES))}"
        )
    for name, paths in found.items():
        if len({FORMATS.get(_suffix(path), path.suffix) for path in paths}) > 1:
            raise ValueError(
                f"{directory}: {name} has predictions in two formats "
                f"({', '.join(path.name for path in paths)}); keep one"
            )
    return dict(sorted(found.items()))


def _suffix(path: Path) -> str | None:
    fitting = [suffix for suffix in FORMATS if path.name.lower().endswith(suffix)]
    return max(fitting, key=len) if fitting else None


def read_prediction(paths: list[Path]) -> SavedPrediction:
    """The prediction of one NAME from its files.

    Raises:
        ValueError: a file is damaged, has other content than its name promises, another shape, or
            values that are not finite.
    """
    suffix = paths[0].suffix.lower()
    if suffix == ".npz":
        return _read_own(paths[0])
    if suffix in MESHES:
        vertices = _require_points("vertices", read_points(paths[0]), paths[0])
        return SavedPrediction(paths[0], None, "zero_based", vertices, "zero_based")
    if FORMATS[_suffix(paths[0])] == "3ddfa":
        vertices = _read_mat_points(paths[0], "vertex", transposed=True)
        return SavedPrediction(paths[0], None, "matlab", vertices, "matlab")
    landmarks = vertices = None
    for path in paths:
        if path.suffix.lower() == ".txt":
            landmarks = read_table(path, hint=MISSING)
            landmarks = _require_points("landmarks", landmarks, path, count=NUM_LANDMARKS)
        else:
            vertices = _read_mat_points(path, "vertices", transposed=False)
    return SavedPrediction(paths[-1], landmarks, "face3d", vertices, "face3d")


def write_prediction(
    path: Path | str,
    landmarks: np.ndarray,  # (68, 3)
    vertices: np.ndarray | None,  # (N, 3)
    *,
    landmarks_origin: str,
    vertices_origin: str,
) -> None:
    """Write NAME.npz, float32."""
    content = {"landmarks": landmarks.astype(np.float32), "pixel_origin": landmarks_origin}
    if vertices is not None:
        content["vertices"] = vertices.astype(np.float32)
        content["vertices_pixel_origin"] = vertices_origin
    with written_whole(path) as temporary:
        np.savez(temporary, **content)


def with_y_down(
    prediction: SavedPrediction, topology: Topology, height: Callable[[], int]
) -> SavedPrediction:
    """A mesh of the image's frame, which is left-handed: of one with y up, as a right-handed face
    shows, y becomes height - 1 - y. Other predictions are as they are."""
    if prediction.file.suffix.lower() not in MESHES:
        return prediction
    index = topology.landmark_index.get(len(prediction.vertices))
    if index is None or not is_right_handed(prediction.vertices[index]):
        return prediction
    vertices = prediction.vertices.copy()
    vertices[:, 1] = height() - 1 - vertices[:, 1]
    return prediction._replace(vertices=vertices)


def find_topology(face: Face | None, prnet_uv_dir: Path | str | None) -> Topology:
    """The meshes whose landmarks are known: the face's vertices and face pixels.

    Without a face, PRNet's own tables still place the landmarks among its 43,867 face pixels.

    Raises:
        ValueError: a landmark's cell is not a face pixel.
    """
    absent = {
        NUM_BFM_VERTICES: "kpt_ind of DATA_DIR/BFM/BFM.mat says which of them are the 68 landmarks",
        NUM_PRNET_FACE_PIXELS: "face_ind.txt and uv_kpt_ind.txt of PRNet's Data/uv-data, in "
        "DATA_DIR/PRNet_uv, say which of them are the 68 landmarks",
    }
    if face is not None:
        mask, cells = face.uv.face_mask.cpu().numpy(), face.uv.landmark_cells.cpu().numpy()
        index = {face.morphable_model.num_vertices: face.landmark_index.cpu().numpy()}
    elif prnet_uv_dir is not None and (Path(prnet_uv_dir) / "face_ind.txt").is_file():
        mask = read_prnet_face_mask(Path(prnet_uv_dir) / "face_ind.txt")
        cells = read_prnet_landmark_cells(Path(prnet_uv_dir) / "uv_kpt_ind.txt")
        index = {}
    else:
        return Topology({}, absent)
    row, column = cells.T
    if not mask[row, column].all():
        raise ValueError(
            f"landmark cells {np.flatnonzero(~mask[row, column]).tolist()} are not face pixels; "
            "face mask and landmark cells are not of one UV layout"
        )
    index[int(mask.sum())] = (np.cumsum(mask) - 1).reshape(mask.shape)[row, column]
    return Topology(index, {count: why for count, why in absent.items() if count not in index})


def landmarks_of(prediction: SavedPrediction, topology: Topology) -> tuple[np.ndarray, str]:
    """The 68 landmarks (68, 2 or 3) of a prediction, its own or those of its vertices, and their
    pixel origin.

    Raises:
        ValueError: it has none, and its number of vertices is not one of `topology`.
    """
    if prediction.landmarks is not None:
        return prediction.landmarks, prediction.landmarks_origin
    count = len(prediction.vertices)
    if count in topology.landmark_index:
        return prediction.vertices[topology.landmark_index[count]], prediction.vertices_origin
    known = sorted(topology.landmark_index)
    reason = topology.absent.get(count, f"where they are is known for {known or 'no'} vertices")
    raise ValueError(
        f"{prediction.file}: {count} vertices and no landmarks: {reason}; "
        "or save NAME.npz with landmarks (68, 3) too"
    )


def _read_own(path: Path) -> SavedPrediction:
    content = read_npz(path, hint=MISSING)
    if not {"landmarks", "vertices"} & content.keys():
        raise ValueError(
            f"{path}: holds {sorted(content)}, expected landmarks (68, 3), vertices (N, 3) or both"
        )
    landmarks, vertices = content.get("landmarks"), content.get("vertices")
    if landmarks is not None:
        landmarks = _require_points(
            "landmarks", landmarks, path, count=NUM_LANDMARKS, dimensions=(2, 3)
        )
    if vertices is not None:
        vertices = _require_points("vertices", vertices, path)
    origin = _read_origin(content, "pixel_origin", "zero_based", path)
    vertices_origin = _read_origin(content, "vertices_pixel_origin", origin, path)
    return SavedPrediction(path, landmarks, origin, vertices, vertices_origin)


def _read_origin(content: dict[str, np.ndarray], key: str, default: str, path: Path) -> str:
    if key not in content:
        return default
    origin = content[key].item() if content[key].size == 1 else content[key].tolist()
    require_choice(f"{path}: {key}", origin, PIXEL_ORIGINS)
    return origin


def _read_mat_points(path: Path, key: str, *, transposed: bool) -> np.ndarray:
    """Points (N, 3) of a MATLAB file; where `transposed`, (3, N) is accepted too."""
    content = read_mat(path, hint=MISSING)
    if key not in content:
        found = sorted(name for name in content if not name.startswith("__"))
        raise ValueError(f"{path}: no array {key!r}, found {found}")
    points = content[key]
    if transposed and points.ndim == 2 and points.shape[0] == 3 and points.shape[1] != 3:
        points = points.T
    return _require_points(key, points, path)


def _require_points(
    name: str,
    points: np.ndarray,
    path: Path,
    *,
    count: int | None = None,
    dimensions: tuple[int, ...] = (3,),
) -> np.ndarray:
    """The points as a floating-point array, if they are ones."""
    expected = f"({count or 'N'}, {' or '.join(map(str, dimensions))})"
    if points.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} holds {points.dtype}, expected numbers {expected}")
    shape_fits = points.ndim == 2 and points.shape[1] in dimensions
    if not shape_fits or len(points) != (count or len(points)) or len(points) <= 3:
        transposed = points.ndim == 2 and points.shape[0] in dimensions and points.shape[1] > 3
        advice = "; it is transposed" if transposed else ""
        raise ValueError(f"{path}: {name} has shape {points.shape}, expected {expected}{advice}")
    require_finite(f"{path}: {name}", points)
    return points if points.dtype.kind == "f" else points.astype(np.float64)
