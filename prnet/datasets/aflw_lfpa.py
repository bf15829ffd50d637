"""AFLW-LFPA: 1,299 faces of AFLW with 34 labelled points each, those that are visible.

Its own annotation files could not be verified, so they are read from a neutral one:

DATA_DIR/AFLW_LFPA/NAME.jpg (or .png; NAME may name a sub-folder)      the pictures
DATA_DIR/AFLW_LFPA/landmarks.npz    names (n,) of strings, boxes (n, 4), points (n, 34, 2), visible
    (n, 34) of bools or 0 and 1; optional: yaws_deg (n,), pixel_origin "zero_based" (the default),
    "matlab", "face3d" or "sadrnet"
DATA_DIR/AFLW_LFPA/landmarks.csv    or the same as lines name,left,top,right,bottom,x0,y0,v0, ...,
    x33,y33,v33 and, optional, yaw_deg; zero_based

Boxes and points are in px of the picture; what is not visible may be anything, empty too.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prnet.checks import require_choice, require_degrees, require_finite, require_inside
from prnet.datasets.evaluation import EvaluationItem, TestSet, framed_input
from prnet.datasets.fits import PICTURE_SUFFIXES
from prnet.datasets.pictures import CropRule
from prnet.files import read_json_object, read_npz, take
from prnet.files.csv_tables import read_csv
from prnet.geometry.camera import PIXEL_ORIGINS, pixel_origin_shift

HINT = (
    "write it of the annotations: names (n,), boxes (n, 4), points (n, 34, 2) and visible (n, 34), "
    "px; as .csv name,left,top,right,bottom,x0,y0,v0,...,x33,y33,v33"
)
NUM_POINTS = 34
TABLE = Path(__file__).resolve().parents[1] / "assets" / "aflw_lfpa_points.json"
BOX_COLUMNS = ["left", "top", "right", "bottom"]
POINT_COLUMNS = [f"{kind}{index}" for index in range(NUM_POINTS) for kind in "xyv"]


class Annotations(NamedTuple):
    """The neutral file's content; n faces, zero_based px."""

    names: list[str]
    boxes: np.ndarray  # (n, 4)
    points: np.ndarray  # (n, 34, 2), 0 where not visible
    visible: np.ndarray  # (n, 34), bool
    yaws_deg: np.ndarray | None  # (n,)


class AFLWLFPA(TestSet):
    """Faces as evaluation items: `points`, `points_visible` and `box` are the truth.

    Only the points that the `table` gives a counterpart among the 68 are there; see the text of
    `prnet/assets/aflw_lfpa_points.json`. `crop` None reads no picture; a network sees the square of
    `crop` about the box.
    """

    name = "aflw_lfpa"
    metric = "nme_points_2d"
    has_fits = False
    options = ("table",)

    def __init__(
        self,
        data_dir: Path | str,
        *,
        table: Path | str | None = None,
        crop: CropRule | None = None,
    ) -> None:
        self.folder = Path(data_dir) / "AFLW_LFPA"
        self.annotations = read_annotations(self.folder)
        self.names = self.annotations.names
        groups = read_table(TABLE if table is None else Path(table))
        self.mapped = np.array([index for index, group in enumerate(groups) if group is not None])
        self.point_groups = tuple(group for group in groups if group is not None)
        self.table = str(TABLE.name if table is None else table)
        self.crop = crop
        seen = self.annotations.visible[:, self.mapped].any(1)
        if not seen.all():
            blind = [self.names[index] for index in np.flatnonzero(~seen)[:5]]
            raise ValueError(
                f"{self.folder}: {(~seen).sum()} faces have no visible point that {self.table} "
                f"maps ({', '.join(blind)})"
            )

    def notes(self) -> dict:
        yaws = "as annotated" if self.annotations.yaws_deg is not None else "unknown: all in 0"
        return {
            "points_table": self.table,
            "points_compared": self.mapped.tolist(),
            "points_left_out": sorted(set(range(NUM_POINTS)) - set(self.mapped.tolist())),
            "yaw": yaws,
        }

    def __getitem__(self, index: int) -> EvaluationItem:
        annotations = self.annotations
        name, box = annotations.names[index], annotations.boxes[index]
        network_input = None
        if self.crop is not None:
            source = self._picture(name)
            network_input = framed_input(source, box.reshape(2, 2), self.crop, name=name)
        return EvaluationItem(
            name=name,
            yaw_deg=0.0 if annotations.yaws_deg is None else float(annotations.yaws_deg[index]),
            network_input=network_input,
            points=torch.from_numpy(annotations.points[index, self.mapped]),
            points_visible=torch.from_numpy(annotations.visible[index, self.mapped]),
            box=torch.from_numpy(box),
        )

    def _picture(self, name: str) -> Path:
        for suffix in PICTURE_SUFFIXES:
            path = self.folder / f"{name}{suffix}"
            if path.is_file():
                return path
        raise FileNotFoundError(
            f"{self.folder / name}: no picture ({', '.join(PICTURE_SUFFIXES)}) of this name, which "
            "the annotations have"
        )


def read_table(path: Path) -> list[tuple[int, ...] | None]:
    """For each of the 34 points the indices of the 68 whose mean it is, None: not compared.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not 34 such entries, or none but nulls.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table; copy and change {TABLE}")
    groups = take(read_json_object(path), "groups", list, path)
    if len(groups) != NUM_POINTS:
        raise ValueError(f"{path}: groups: got {len(groups)}, expected {NUM_POINTS} entries")
    for number, group in enumerate(groups):
        valid = isinstance(group, list) and bool(group)
        valid = valid and all(type(index) is int and 0 <= index < 68 for index in group)
        if group is not None and not valid:
            raise ValueError(
                f"{path}: groups[{number}] is {group}, expected a list of indices of the 68, or "
                "null"
            )
    if all(group is None for group in groups):
        raise ValueError(f"{path}: every entry is null, nothing can be compared")
    return [None if group is None else tuple(group) for group in groups]


def read_annotations(folder: Path) -> Annotations:
    """landmarks.npz of a folder, or its landmarks.csv.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: both are, or the content is not as the module says.
    """
    archive, table = folder / "landmarks.npz", folder / "landmarks.csv"
    if archive.is_file() and table.is_file():
        raise ValueError(f"{folder}: has landmarks.npz and landmarks.csv; keep one")
    if not archive.is_file() and not table.is_file():
        raise FileNotFoundError(f"{archive}: missing (and {table.name}); {HINT}")
    path = archive if archive.is_file() else table
    found = _read_npz(path) if path is archive else _read_csv(path)
    if not found.names or len(set(found.names)) != len(found.names):
        raise ValueError(
            f"{path}: {len(found.names)} names, {len(set(found.names))} different; expected one "
            "each, face by face"
        )
    require_inside(path, found.names)
    require_finite(f"{path}: one of the boxes", found.boxes)
    require_finite(f"{path}: one of the visible points", found.points[found.visible])
    if found.yaws_deg is not None:
        require_finite(f"{path}: yaws_deg", found.yaws_deg)
        require_degrees(f"{path}: yaws_deg", found.yaws_deg)
    empty = ~(found.boxes[:, 2:] > found.boxes[:, :2]).all(1)
    if empty.any():
        raise ValueError(
            f"{path}: the box of {found.names[int(empty.argmax())]} has no area; expected left < "
            "right and top < bottom"
        )
    # What nobody sees must not turn a masked sum into NaN.
    return found._replace(points=np.where(found.visible[..., None], found.points, 0.0))


def _read_npz(path: Path) -> Annotations:
    content = read_npz(path, hint=HINT)
    count = len(content.get("names", ()))
    shapes = {
        "names": (count,),
        "boxes": (count, 4),
        "points": (count, NUM_POINTS, 2),
        "visible": (count, NUM_POINTS),
        "yaws_deg": (count,),
    }
    for key, shape in shapes.items():
        if key == "yaws_deg" and key not in content:
            continue
        got = content[key].shape if key in content else "nothing"
        if got != shape:
            raise ValueError(f"{path}: {key}: got {got}, expected {shape}")
    origin = str(content.get("pixel_origin", "zero_based"))
    require_choice(f"{path}: pixel_origin", origin, PIXEL_ORIGINS)
    shift = np.array(pixel_origin_shift(origin, "zero_based"))
    yaws_deg = content.get("yaws_deg")
    return Annotations(
        [str(name) for name in content["names"]],
        content["boxes"].astype(np.float64) + np.tile(shift, 2),
        content["points"].astype(np.float64) + shift,
        _flags(content["visible"], path),
        None if yaws_deg is None else yaws_deg.astype(np.float64),
    )


def _read_csv(path: Path) -> Annotations:
    header = ("name", *BOX_COLUMNS, *POINT_COLUMNS)
    table = read_csv(path, header, (*header, "yaw_deg"), hint=HINT, may_be_empty=True)
    names = list(table.rows)
    values = np.array(list(table.rows.values())).reshape(len(names), len(table.columns))
    points = values[:, 4 : 4 + 3 * NUM_POINTS].reshape(len(names), NUM_POINTS, 3)
    return Annotations(
        names,
        values[:, :4],
        points[..., :2],
        _flags(points[..., 2], path),
        values[:, -1] if "yaw_deg" in table.columns else None,
    )


def _flags(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{path}: visible: expected 0 or 1 for every point")
    return values.astype(bool)
