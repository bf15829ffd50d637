"""68 landmarks of photos as anybody's tools leave them, one photo a file or a table of many.

| file            | content                                          | pixel origin               |
|-----------------|--------------------------------------------------|----------------------------|
| NAME.txt, .csv  | 68 lines `x y [z]`, blanks or commas             | the caller's               |
| NAME.npy        | array (68, 2 or 3)                               | the caller's               |
| NAME.npz        | landmarks (68, 2 or 3), and its pixel_origin     | its own, or the caller's   |
| FILE.csv        | first line `name,x0,y0,[z0,]...`, a photo a line | the caller's               |
| NAME.pts        | 300-W: n_points and braces                       | "matlab": counted from 1   |
| NAME.mat        | pt3d_68, pt2d, pts_3d or pts_2d                  | "matlab"                   |

Order iBUG, px of the photo. `nan`, or an empty cell of a table, is a point that is not seen; what
negative numbers mean: `prnet.datasets.hidden_landmarks`.

Where asked for, .pts files may have AFLW's 21 points, each -1 -1 if not seen: they become the 18 of
2DASL's landmark map and the chin; the middles of the eyes and of the mouth stand for both points
that they lie between.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.checks import name_list, require_choice
from prnet.datasets.fits import pictures_in
from prnet.datasets.hidden_landmarks import (
    CHOICES,
    LOOKING,
    MIRRORED_FACE,
    Marks,
    facing_of,
    landmark_fault,
    resolve_hidden,
)
from prnet.files import read_mat, read_npy, read_npz, read_text, visible_files
from prnet.files.csv_tables import read_csv
from prnet.geometry.camera import pixel_origin_shift

log = logging.getLogger(__name__)

HINT = "give a file of landmarks"
NUM_LANDMARKS = 68
SUFFIXES = (".txt", ".csv", ".npy", ".npz", ".pts", ".mat")
# Which of the 68 each of AFLW's 21 is: brows, eyes, ear, nose, ear, mouth, chin.
AFLW_POINTS = (
    *((index,) for index in (17, 19, 21, 22, 24, 26)),
    *((36,), (37, 40), (39,), (42,), (43, 46), (45,)),
    *((), (31,), (30,), (35,), ()),
    *((48,), (62, 66), (54,), (8,)),
)
# The landmarks of AFLW2000-3D and 300W-LP, then those in 300W-LP's own landmarks/ folder.
MAT_KEYS = ("pt3d_68", "pt2d", "pts_3d", "pts_2d")


class LandmarkItem(NamedTuple):
    """One photo to be fitted."""

    name: str
    landmarks: np.ndarray  # (68, 2 or 3), image px, "zero_based"; NaN where not seen
    picture: Path
    marks: Marks = Marks()  # of the points that were marked as hidden


def find_landmarks(
    path: Path | str,
    *,
    pictures: Path | str | None = None,
    pixel_origin: str = "zero_based",
    aflw_points: bool = False,
    hidden: str = "auto",
) -> tuple[list[LandmarkItem], dict[str, str]]:
    """Every photo of a file or a folder, sorted by name, and why others cannot be used: {name:
    reason}.

    The picture is NAME.jpg, .jpeg or .png, in `pictures`, by default beside the landmarks.
    `hidden`: as `resolve_hidden`.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without a file of landmarks.
        ValueError: an unknown pixel origin, or choice of `hidden`.
    """
    require_choice("hidden", hidden, CHOICES)
    shift = pixel_origin_shift(pixel_origin, "zero_based")
    files = files_of_landmarks(path)
    folder = Path(pictures) if pictures is not None else files[0].parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: missing; pictures= names the folder of the photos")
    photos = pictures_in(folder)

    items: dict[str, LandmarkItem] = {}
    failed: dict[str, str] = {}
    mirrored = 0
    for file in files:
        try:
            found = _read(file, shift, aflw_points, hidden)
        except (OSError, ValueError) as error:
            failed[file.name] = str(error)
            continue
        for name, (landmarks, marks) in found.items():
            fault = landmark_fault(landmarks)
            mirrored += fault == MIRRORED_FACE
            if fault is not None:
                failed[name] = f"{file}: {fault}"
            elif name in items:
                failed[f"{name} ({file.name})"] = f"{file}: {name} has landmarks in a file before"
            elif name not in photos:
                failed[name] = f"{file}: no picture {name}.jpg, .jpeg or .png in {folder}"
            else:
                items[name] = LandmarkItem(name, landmarks, photos[name], marks)
    likely = _likely_mirrored(list(items.values()), mirrored)
    return sorted(item for item in items.values() if item.name not in likely), failed | likely


def _likely_mirrored(items: Sequence[LandmarkItem], mirrored: int) -> dict[str, str]:
    """Faces in profile of which the points do not tell whether they are mirrored, where more of the
    others are than are not: {name: why they cannot be used}."""
    facing = {item.name: facing_of(item.landmarks) for item in items} if mirrored else {}
    looking = sum(one is not None and one > LOOKING for one in facing.values())
    if mirrored <= looking:
        return {}
    why = f"as in {mirrored} of the other photos {MIRRORED_FACE}; in profile both look alike"
    return {name: why for name, one in facing.items() if one is not None and one <= LOOKING}


def log_marks(items: Sequence[LandmarkItem]) -> None:
    """Say how many points were taken as marked, and of which photos."""
    marked = [item for item in items if any(item.marks)]
    if marked:
        log.info(
            "marked points: %d not seen, %d hidden at (x, y) for (-x, -y), in %s; hidden=none takes"
            " every number as a place",
            sum(item.marks.unseen for item in marked),
            sum(item.marks.hidden for item in marked),
            name_list(item.name for item in marked),
        )


def files_of_landmarks(path: Path | str) -> list[Path]:
    """That file, or those in that folder, sorted.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without a file of landmarks.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"landmarks={path}: missing; give a file of 68 landmarks or a folder of them"
        )
    files = visible_files(path, SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"landmarks={path}: no file of landmarks; expected NAME with one of "
            f"{', '.join(SUFFIXES)}"
        )
    return files


def read_landmarks(
    path: Path,
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    aflw_points: bool = False,
    hidden: str = "auto",
) -> dict[str, np.ndarray]:
    """The landmarks of one file, {name: (68, 2 or 3)}, "zero_based".

    `shift` is added to those of formats that have no pixel origin of their own; `hidden`: as
    `resolve_hidden`.

    Raises:
        ValueError: not one of the formats in this module's head.
    """
    found = _read(path, shift, aflw_points, hidden)
    return {name: landmarks for name, (landmarks, _) in found.items()}


def _read(
    path: Path, shift: tuple[float, float], aflw_points: bool, hidden: str
) -> dict[str, tuple[np.ndarray, Marks]]:
    suffix = path.suffix.lower()
    if suffix == ".csv" and read_text(path).split(",", 1)[0].strip() == "name":
        headers = [
            ["name", *(f"{axis}{k}" for k in range(NUM_LANDMARKS) for axis in axes)]
            for axes in ("xy", "xyz")
        ]
        table = read_csv(path, *headers, hint=HINT, may_be_empty=True)
        found = {name: row.reshape(NUM_LANDMARKS, -1) for name, row in table.rows.items()}
    elif suffix == ".npy":
        found = {path.stem: read_npy(path, hint=HINT)}
    elif suffix == ".mat":
        found = {path.stem.removesuffix("_pts"): _read_mat(path)}
    elif suffix == ".npz":
        content = read_npz(path, "landmarks", hint=HINT)
        found = {path.stem: content["landmarks"]}
        if "pixel_origin" in content:
            shift = pixel_origin_shift(str(content["pixel_origin"]), "zero_based")
    elif suffix == ".pts":
        lines = _between_braces(path)
        if aflw_points and sum(bool(line.strip()) for line in lines) == len(AFLW_POINTS):
            found = {path.stem: _from_aflw(_numbers(lines, path, count=len(AFLW_POINTS)))}
        else:
            found = {path.stem: _numbers(lines, path)}
    else:
        found = {path.stem: _numbers(read_text(path).splitlines(), path)}
    if suffix in (".mat", ".pts"):
        shift = pixel_origin_shift("matlab", "zero_based")
    settled = {}
    for name, array in found.items():
        landmarks, marks = resolve_hidden(_checked(array, path, name), hidden)
        moved = landmarks.copy()
        moved[:, :2] += shift
        settled[name] = moved, marks
    return settled


def _checked(array: np.ndarray, path: Path, name: str) -> np.ndarray:  # (68, 2 or 3), float64
    if array.ndim != 2 or array.shape[0] != NUM_LANDMARKS or array.shape[1] not in (2, 3):
        raise ValueError(f"{path}: {name} has shape {array.shape}, expected (68, 2) or (68, 3)")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: {name} holds {array.dtype}, expected real numbers")
    landmarks = array.astype(np.float64)
    landmarks[np.isnan(landmarks).any(1)] = np.nan
    if np.isinf(landmarks).any():
        raise ValueError(f"{path}: {name} holds infinite coordinates")
    return landmarks


def _numbers(lines: list[str], path: Path, *, count: int = NUM_LANDMARKS) -> np.ndarray:
    """Lines of numbers, blanks or commas between them."""
    rows = [line.replace(",", " ").split() for line in lines if line.strip()]
    counts = {len(row) for row in rows}
    if len(rows) != count or len(counts) != 1:
        raise ValueError(
            f"{path}: {len(rows)} lines of {sorted(counts)} values, expected {count} of 2 or 3"
        )
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers ({error})") from error


def _between_braces(path: Path) -> list[str]:
    _, opened, rest = read_text(path).partition("{")
    body, closed, _ = rest.partition("}")
    if not opened or not closed:
        raise ValueError(f"{path}: no braces around the points; expected a .pts file of 300-W")
    return body.splitlines()


def _from_aflw(points: np.ndarray) -> np.ndarray:  # (21, 2 or 3)
    """The 68, (68, 2); NaN where AFLW has none or the point is not seen."""
    landmarks = np.full((NUM_LANDMARKS, 2), np.nan)
    for point, places in zip(points[:, :2], AFLW_POINTS, strict=True):
        if (point != -1).any():
            landmarks[list(places)] = point
    return landmarks


def _read_mat(path: Path) -> np.ndarray:
    content = read_mat(path, hint=HINT)
    for key in MAT_KEYS:
        if key in content and NUM_LANDMARKS in content[key].shape:
            array = np.asarray(content[key])
            # pt2d and pt3d_68 have a column a point, the others a row.
            return array if array.shape[0] == NUM_LANDMARKS else array.T
    found = {key: value.shape for key, value in content.items() if not key.startswith("__")}
    raise ValueError(f"{path}: no {', '.join(MAT_KEYS)} of 68 points, found {found}")
