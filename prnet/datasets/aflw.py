"""AFLW as 3DDFA tests on it: 21,080 crops of 120 px, up to 21 labelled points each.

Reads what 3DDFA's authors published, in DATA_DIR/AFLW, row i of every array for line i of the list:

AFLW_GT_crop/NAME.jpg, AFLW_GT_crop.list    the crops
AFLW_GT_crop_roi_box.npy   (n, 4)      left, top, right, bottom in the picture, px from 1
AFLW_GT_crop_yaws.npy      (n,)        degrees
AFLW_GT_pts21.npy          (n, 2, 21)  labels in the picture, px from 1; -1 where not visible
AFLW_GT_pts68.npy          (n, 2, 68)  of a fit; their box is the unit of the error

A box that leaves the picture was stored clipped, while its crop is of the whole square with black
beyond the picture: what is found in such a crop is mapped back wrongly by its box. `roi` chooses
how: "published", as 3DDFA's script does, or "corrected".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prnet.checks import require_choice, require_degrees, require_finite, require_inside
from prnet.datasets.evaluation import EvaluationItem, NetworkInput, TestSet
from prnet.datasets.fits import LEAST_SPAN
from prnet.datasets.pictures import CropRule, crop_matrix, crop_square, decode_picture
from prnet.files import read_bytes, read_npy, read_text
from prnet.geometry.camera import invert_affine, pixel_origin_shift

MAPPINGS = ("corrected", "published")
FRAMES = ("landmarks", "picture")
CROP_SIDE = 120
SHIFT = np.array(pixel_origin_shift("matlab", "zero_based"))  # px, of the labels
# Side of the pictures the boxes are in: 3DDFA's own crops of AFLW's photographs.
PICTURE_SIDE = 450
# Grey values up to here are the black beyond a picture, after JPEG.
BLACK = 12
HINT = "3DDFA's repository has these files: test.configs, and test.data in its downloads"
# Indices of the 68 whose mean is each of AFLW's 21 points. Ears are the jaw's third point.
# Source: ind_68to21 of 3DDFA's benchmark_aflw.py, there from 1.
POINT_GROUPS = (
    *((17,), (19,), (21,), (22,), (24,), (26,)),
    *((36,), (36, 37, 38, 39, 40, 41), (39,), (42,), (42, 43, 44, 45, 46, 47), (45,)),
    *((2,), (31,), (30,), (35,), (14,)),
    *((48,), (60, 61, 62, 63, 64, 65, 66, 67), (54,), (8,)),
)


class RoiBox(NamedTuple):
    """The square that a crop shows, px from 1, ends included, and what was wrong with its box."""

    box: np.ndarray  # (4,), float64: left, top, right, bottom
    clipped: bool  # the stored box is not the crop taken
    explained: bool  # `box` is


class AFLW(TestSet):
    """Crops as evaluation items: `points`, `points_visible` and `box` are the truth.

    `crop` None reads no crop. Networks see the square of `crop` about the 68 points, or, with
    `frame` "picture", the whole crop. `roi` is one of `MAPPINGS`.
    """

    name = "aflw"
    metric = "nme_points_2d"
    point_groups = POINT_GROUPS
    has_fits = False
    options = ("roi", "frame")

    def __init__(
        self,
        data_dir: Path | str,
        *,
        roi: str = "corrected",
        frame: str = "landmarks",
        crop: CropRule | None = None,
    ) -> None:
        require_choice("dataset.roi", roi, MAPPINGS)
        require_choice("dataset.frame", frame, FRAMES)
        self.folder = Path(data_dir) / "AFLW"
        self.files = _read_list(self.folder / "AFLW_GT_crop.list")
        count = len(self.files)
        self.boxes = _read_array(self.folder / "AFLW_GT_crop_roi_box.npy", (count, 4))
        self.yaws_deg = _read_array(self.folder / "AFLW_GT_crop_yaws.npy", (count,))
        self.points = _read_array(self.folder / "AFLW_GT_pts21.npy", (count, 2, 21))
        self.landmarks = _read_array(self.folder / "AFLW_GT_pts68.npy", (count, 2, 68))
        self.names = [Path(file).with_suffix("").as_posix() for file in self.files]
        unusable = ~(self.points != -1).all(1).any(1)
        unusable |= (np.ptp(self.landmarks, axis=2) < LEAST_SPAN).any(1)
        require_degrees(self.folder / "AFLW_GT_crop_yaws.npy", self.yaws_deg)
        if unusable.any():
            bad = [self.names[index] for index in np.flatnonzero(unusable)[:5]]
            raise ValueError(
                f"{self.folder}: {unusable.sum()} faces have no visible point or 68 points "
                f"within 2 px ({', '.join(bad)}); expected labels as 3DDFA published them"
            )
        self.roi, self.frame, self.crop = roi, frame, crop
        self.true_boxes = [self._true_box(index) for index in range(count)]

    def notes(self) -> dict:
        named = list(zip(self.names, self.true_boxes, strict=True))
        return {
            "roi": self.roi,
            "roi_clipped": [name for name, found in named if found.clipped],
            "roi_unexplained": [name for name, found in named if not found.explained],
        }

    def __getitem__(self, index: int) -> EvaluationItem:
        points = self.points[index].T  # (21, 2)
        landmarks = self.landmarks[index].T  # (68, 2)
        return EvaluationItem(
            name=self.names[index],
            yaw_deg=float(self.yaws_deg[index]),
            network_input=self._network_input(index, landmarks + SHIFT),
            points=torch.from_numpy(points + SHIFT),
            points_visible=torch.from_numpy((points != -1).all(1)),
            box=torch.from_numpy(np.concatenate([landmarks.min(0), landmarks.max(0)] + SHIFT)),
        )

    def _network_input(self, index: int, landmarks: np.ndarray) -> NetworkInput | None:
        if self.crop is None:
            return None
        found = self.true_boxes[index]
        corrected = corrected_mapping(found.box)
        if self.frame == "landmarks":
            picture_from_image = invert_affine(corrected)[:2].numpy()
            framed = landmarks @ picture_from_image[:, :2].T + picture_from_image[:, 3]
            center, size = crop_square(framed, self.crop, seed_name=self.names[index])
        else:
            center, size = np.full(2, (CROP_SIDE - 1) / 2), float(CROP_SIDE)
        crop_from_picture = crop_matrix(center, size, self.crop)
        image_from_picture = corrected
        if self.roi == "published":
            image_from_picture = published_mapping(self.boxes[index])
        return NetworkInput(
            self._read_crop(index),
            crop_from_picture,
            image_from_picture @ invert_affine(crop_from_picture),
        )

    def _read_crop(self, index: int) -> np.ndarray:  # (120, 120, 3), uint8 RGB
        path = self.folder / "AFLW_GT_crop" / self.files[index]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing, but it is in AFLW_GT_crop.list; {HINT}")
        crop = decode_picture(read_bytes(path), source=path)
        if crop.shape != (CROP_SIDE, CROP_SIDE, 3):
            raise ValueError(f"{path}: {crop.shape[1]} x {crop.shape[0]} px, expected 120 x 120")
        return crop

    def _true_box(self, index: int) -> RoiBox:
        box = self.boxes[index]
        low, high = _at_border(box)
        if box[2] - box[0] == box[3] - box[1] and not (low | high).any():
            return RoiBox(box, clipped=False, explained=True)
        return unclipped(box, black_borders(self._read_crop(index)))


def published_mapping(box: np.ndarray) -> torch.Tensor:  # (4,), px from 1
    """px of the 120-px crop -> zero-based px of the picture as 3DDFA's script has it, (4, 4):
    x (right - left) / 120 + left, which is in px from 1."""
    size = box[2:] - box[:2]
    return _mapping(size / CROP_SIDE, box[:2] - 1)


def corrected_mapping(box: np.ndarray) -> torch.Tensor:  # (4,), px from 1, ends included
    """px of the 120-px crop -> zero-based px of the picture, (4, 4), pixel centres at integers on
    both sides: the crop's 120 px share the right - left + 1 px of the square among them."""
    scale = (box[2:] - box[:2] + 1) / CROP_SIDE
    return _mapping(scale, box[:2] - 1.5 + 0.5 * scale)


def _mapping(scale: np.ndarray, offset: np.ndarray) -> torch.Tensor:  # (2,), (2,)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[[0, 1, 2], [0, 1, 2]] = torch.from_numpy(np.append(scale, scale.mean()))
    matrix[:2, 3] = torch.from_numpy(offset)
    return matrix


def _at_border(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (4,)
    """Whether the low and the high ends (2,) of the box lie on the picture's border."""
    return box[:2] <= 1, box[2:] >= PICTURE_SIDE


def unclipped(
    box: np.ndarray,  # (4,), px from 1, clipped to the picture
    black: np.ndarray,  # (4,), px of the crop that are black at its left, top, right, bottom
) -> RoiBox:
    """The square that was cropped.

    A direction whose ends are both inside the picture has the square's whole side. Where neither
    has, the black at the ends on the picture's border, in 120ths of the square, says how much is
    missing. A box that is shorter without lying on the border stays as it is, unexplained.
    """
    low, high = _at_border(box)
    length = box[2:] - box[:2]
    dark_low, dark_high = np.where(low, black[:2], 0), np.where(high, black[2:], 0)
    whole = ~(low | high)
    if whole.any():
        side = length[whole].max()
    else:
        seen = CROP_SIDE - dark_low - dark_high
        side = max(np.rint((length + 1) * CROP_SIDE / seen - 1).max(), length.max())
    missing = side - length
    if (missing[whole] != 0).any() or (missing < 0).any():
        return RoiBox(box, clipped=True, explained=False)
    # What is missing lies beyond the end on the border; beyond both, as the black is shared.
    share = np.where(low & high, 0.5, low.astype(float))
    both = low & high & (dark_low + dark_high > 0)
    share[both] = (dark_low / np.maximum(dark_low + dark_high, 1))[both]
    corner = box[:2] - np.rint(share * missing)
    found = np.concatenate([corner, corner + side])
    return RoiBox(found, clipped=bool(missing.any()), explained=True)


def black_borders(crop: np.ndarray) -> np.ndarray:  # (H, W, 3), uint8
    """Rows or columns without light at the left, top, right and bottom, (4,), px."""
    lit = crop.max(2) > BLACK
    columns, rows = np.flatnonzero(lit.any(0)), np.flatnonzero(lit.any(1))
    if not len(columns):
        return np.zeros(4)
    height, width = lit.shape
    return np.array([columns[0], rows[0], width - 1 - columns[-1], height - 1 - rows[-1]], float)


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {HINT}")
    files = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    require_inside(path, files)
    if not files or len(set(files)) != len(files):
        raise ValueError(
            f"{path}: {len(files)} names, {len(set(files))} different; expected a list"
        )
    return files


def _read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    array = read_npy(path, hint=HINT)
    if array.dtype.kind not in "fiu" or array.shape != shape:
        raise ValueError(
            f"{path}: holds {array.dtype} {array.shape}, expected numbers {shape}, a row for each "
            "line of AFLW_GT_crop.list"
        )
    array = array.astype(np.float64)
    require_finite(f"{path}:", array)
    return array
