"""2DASL's landmark map (FLM): 18 points of a face as single pixels of a picture.

Letters: B batch, S side of the map.
"""

from typing import Literal

import torch
from torch import Tensor

from prnet.geometry.camera import transform_points

BACKGROUND, POINT = -1.0, 1.0
Rounding = Literal["nearest", "floor"]

# Each of the 18 points is the mean of these two of the 68 (order iBUG), a single one twice. The 17
# of the outline are left out: in a photo they are not points of the surface. The centre of the
# mouth is that of the inner lips, as in the released code; the paper's text takes the middle of its
# corners.
POINTS_18 = (
    *((index, index) for index in (17, 19, 21, 22, 24, 26)),  # brows
    *((36, 36), (37, 40), (39, 39)),  # eye on the left of the image
    *((42, 42), (43, 46), (45, 45)),  # eye on the right
    *((31, 31), (30, 30), (35, 35)),  # nose
    *((48, 48), (62, 66), (54, 54)),  # mouth
)
# The landmark that a mirrored face has in the place of each, iBUG: runs of them, turned round.
MIRRORED_RUNS = ((0, 17), (17, 27), (27, 28), (28, 29), (29, 30), (30, 31), (31, 36))
MIRRORED_RUNS += ((42, 46), (46, 48), (36, 40), (40, 42), (48, 55), (55, 60), (60, 65), (65, 68))
MIRRORED_68 = tuple(i for start, stop in MIRRORED_RUNS for i in reversed(range(start, stop)))


def points_18(points: Tensor) -> Tensor:  # (B, 68, C)
    """The 18 of the landmark map among 68 points, (B, 18, C)."""
    first, second = _pairs_18(points)
    return (first + second) / 2


def visible_18(visible: Tensor) -> Tensor:  # (B, 68), bool
    """Which of the 18 are there: those of which every part is, (B, 18)."""
    first, second = _pairs_18(visible)
    return first & second


def _pairs_18(values: Tensor) -> list[Tensor]:  # (B, 68, ...)
    """Of both parts of each of the 18, (B, 18, ...) twice."""
    # Views, put together on the device: a list of indices would be copied there, and waited for.
    each = values.unbind(1)
    return [torch.stack([each[i] for i in part], 1) for part in zip(*POINTS_18, strict=True)]


def landmark_map(
    points: Tensor,  # (B, 18, 2 or more), px of the map, pixel centres at integers
    visible: Tensor,  # (B, 18), bool
    *,
    size: int,
    rounding: Rounding = "nearest",
) -> Tensor:
    """+1 at the pixel of each point, -1 elsewhere, (B, 1, S, S); no gradient passes.

    With `rounding` "nearest" that is the pixel in which the point lies; "floor", as released, loses
    what is behind the point, half a pixel up and to the left in the mean, and leaves the first row
    and the first column empty. Points outside are moved to the nearest pixel that is left, and what
    is no number to the first.
    """
    shift, least = (0.5, 0) if rounding == "nearest" else (0.0, 1)
    column, row = (
        (points.detach()[..., axis].float() + shift)
        .nan_to_num()
        .floor()
        .clamp(least, size - 1)
        .long()
        for axis in (0, 1)
    )
    # An invisible point writes to a cell behind the map, which is cut off.
    cell = torch.where(visible, row * size + column, size * size)
    flat = points.new_full((points.shape[0], size * size + 1), BACKGROUND, dtype=torch.float32)
    flat.scatter_(1, cell, POINT)
    return flat[:, :-1].reshape(-1, 1, size, size)


def resize_points(
    points: Tensor,  # (..., 2 or more), px of a picture of side `source`
    *,
    source: int,
    target: int,
) -> Tensor:
    """The points after the picture is resampled to side `target`, its edges kept; z only scaled."""
    ratio = target / source
    shift = torch.zeros(points.shape[-1], dtype=points.dtype, device=points.device)
    shift[:2].fill_((ratio - 1) / 2)
    return points * ratio + shift


def move_landmarks(
    landmarks: Tensor,  # (B, 68, 2), crop px
    moved: Tensor,  # (B, 4, 4), crop px -> crop px
    mirrored: Tensor | None = None,  # (B,), bool; `moved` holds the mirror of x already
) -> Tensor:
    """The landmarks of a crop after a similarity, (B, 68, 2); mirrored faces swap left and
    right."""
    depth = torch.zeros_like(landmarks[..., :1])
    points = transform_points(moved, torch.cat([landmarks, depth], -1))[..., :2]
    return points if mirrored is None else swap_sides(points, mirrored)


def swap_sides(
    values: Tensor,  # (B, 68, ...), one a landmark
    mirrored: Tensor,  # (B,), bool
) -> Tensor:
    """Where mirrored, the values of the landmarks on the other side."""
    chosen = mirrored.reshape(-1, *[1] * (values.ndim - 1))
    mirrored_values = [values[:, start:stop].flip(1) for start, stop in MIRRORED_RUNS]
    return torch.where(chosen, torch.cat(mirrored_values, 1), values)
