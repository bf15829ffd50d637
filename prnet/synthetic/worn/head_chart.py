"""A chart of the head: columns round it, rows down it, as a ray shot from inside would see them.

Letters: B batch, N vertices of the head, C columns, R rows, X points of a chart. The chart is a
capsule. A column is an azimuth, 0 in front and pi/2 at the subject's left ear. A row is a height:
0 at the crown, 1 where the azimuth's ray is level, above that by polar angle (90 degrees a unit),
below that by distance down (`ROW_LENGTH_MM` a unit). Hair, hats and hands are laid on it, so that
they follow the head that wears them. Lengths are millimetres of the model frame.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prnet.faces.embedded import Head
from prnet.geometry.compiled import cached
from prnet.geometry.rasterize import rasterize
from prnet.synthetic.noise import smoothstep

NUM_COLUMNS = 64
NUM_ROWS = 44
# The rays' origin on the mean head, and where the axis has moved to 100 mm further down: inside
# the skull, and inside the neck, which stands further back.
CENTER_MM = (0.0, 50.0, 10.0)
AXIS_SHIFT_MM = -14.0
ROW_LENGTH_MM = 100.0
FIRST_ROW = 0.06  # no ray points at the pole itself, where every column meets
LAST_ROW = 2.95
# Columns stand closer in front: azimuth = pi (share t + (1 - share) t^3), t in [-1, 1).
FRONT_SHARE = 0.7
# Cells of the ears count as hidden from this weight of the mask on.
EAR_WEIGHT = 0.05
# How many columns and rows round an ear its height is felt.
EAR_SPREAD = (2, 1)
UM_PER_MM = 1000.0


class Measured(NamedTuple):
    """One batch of heads on the chart, millimetre."""

    points: Tensor  # (B, C, R, 3), the skull, face and neck, as if there were no ears
    ear: Tensor  # (B, C, R), how far out along the ray an ear nearby stands; 0 elsewhere
    landmarks: Tensor  # (B, 68, 3)

    def ear_room(self, gap_mm: float) -> Tensor:
        """What lies over an ear at such a distance must leave it, (B, C, R) mm."""
        return (self.ear + gap_mm) * (self.ear > 0)


class HeadChart:
    """Where the rays leave the head: found once on the mean, carried along with the vertices."""

    def __init__(self, head: Head) -> None:
        mean = head.morphable_model.mean / UM_PER_MM  # (N, 3)
        fraction = torch.arange(NUM_COLUMNS) / NUM_COLUMNS * 2 - 1
        self.azimuth = math.pi * (FRONT_SHARE * fraction + (1 - FRONT_SHARE) * fraction**3)  # (C,)
        self.rows = torch.linspace(FIRST_ROW, LAST_ROW, NUM_ROWS)  # (R,)
        polar = self.rows.clamp(max=1) * (math.pi / 2)
        self.directions = torch.stack(  # (C, R, 3)
            [
                self.azimuth.sin()[:, None] * polar.sin(),
                polar.cos().expand(NUM_COLUMNS, -1),
                self.azimuth.cos()[:, None] * polar.sin(),
            ],
            -1,
        )

        surface = head.triangles[(head.triangles < head.num_surface).all(1)]
        is_ear = head.masks["ears"][surface].amax(1) > EAR_WEIGHT
        azimuth, row, distance = self.locate(mean)
        position = torch.stack([self.column_of(azimuth), _node_of(row), distance], -1)  # (N, 3)

        skull = surface[~is_ear]
        triangle, weights = _shoot(position, skull)
        index, weights = _fill_columns(skull[triangle], weights, triangle >= 0)
        triangle, outer_weights = _shoot(position, surface)
        cell = (is_ear[triangle] & (triangle >= 0)).nonzero()  # (E, 2)
        outer_index = surface[triangle[*cell.t()]]  # (E, 3)

        # One gather for all: cells, ears, landmarks, by corner.
        self.num_ear = len(cell)
        corners = weights.shape[-1]
        pad = (0, corners - 3)
        index = torch.cat(
            [
                index.flatten(0, 1),
                functional.pad(outer_index, pad),
                head.landmark_index[:, None].expand(-1, corners),
            ]
        )  # (C R + E + 68, K)
        alone = torch.eye(1, corners).expand(68, -1)
        weights = torch.cat(
            [weights.flatten(0, 1), functional.pad(outer_weights[*cell.t()], pad), alone]
        )
        self.index, self.weights = index.contiguous(), weights
        self.ear_cell = cell[:, 0] * NUM_ROWS + cell[:, 1]  # (E,)
        self.ear_direction = self.directions.flatten(0, 1)[self.ear_cell]
        # Cells near an ear, and the ear's cells they are near to.
        column = torch.arange(NUM_COLUMNS)[:, None, None] - cell[:, 0]
        column = (column + NUM_COLUMNS // 2) % NUM_COLUMNS - NUM_COLUMNS // 2
        row = torch.arange(NUM_ROWS)[:, None] - cell[:, 1]
        near = (column.abs() <= EAR_SPREAD[0]) & (row.abs() <= EAR_SPREAD[1])  # (C, R, E)
        self.near_cell = near.any(-1).flatten().nonzero().squeeze(1)  # (D,)
        self.near_ear = near.flatten(0, 1)[self.near_cell]  # (D, E)

    def measure(self, head_vertices: Tensor) -> Measured:  # (B, N, 3), um
        """The chart of these heads."""
        found = head_vertices.new_zeros(len(head_vertices), len(self.index), 3)
        _carry(head_vertices.numpy(), self.index.numpy(), self.weights.numpy(), found.numpy())
        cells, ears, landmarks = found.split([NUM_COLUMNS * NUM_ROWS, self.num_ear, 68], 1)
        out = ((ears - cells[:, self.ear_cell]) * self.ear_direction).sum(-1).clamp(min=0)
        spread = (out[:, None] * self.near_ear).amax(-1)  # (B, D)
        ear = spread.new_zeros(cells.shape[:2]).index_copy(1, self.near_cell, spread)
        return Measured(
            cells.unflatten(1, (NUM_COLUMNS, NUM_ROWS)),
            ear.unflatten(1, (NUM_COLUMNS, NUM_ROWS)),
            landmarks,
        )

    def column_of(self, azimuth: Tensor) -> Tensor:  # any shape, rad
        """The column, a real number in [0, C), that an azimuth falls in."""
        wrapped = torch.remainder(azimuth + math.pi, 2 * math.pi) - math.pi
        position = torch.searchsorted(self.azimuth, wrapped.contiguous(), right=True)
        lower = (position - 1).clamp(min=0)
        start = self.azimuth[lower]
        end = torch.cat([self.azimuth[1:], self.azimuth.new_tensor([math.pi])])[lower]
        return lower + (wrapped - start) / (end - start)

    def row_of(self, row: Tensor) -> Tensor:  # any shape, units of a row
        """The place, a real number in [0, R - 1], among the chart's rows; clamped to it."""
        return _node_of(row).clamp(0, NUM_ROWS - 1)

    def direction(self, azimuth: Tensor, row: Tensor) -> Tensor:  # the same shape
        """The unit vector of a ray, (..., 3)."""
        polar = row.clamp(max=1) * (math.pi / 2)
        level = polar.sin()
        return torch.stack([azimuth.sin() * level, polar.cos(), azimuth.cos() * level], -1)

    def locate(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (X, 3), mm
        """Azimuth, row and distance from the axis of points of the mean head, each (X,)."""
        x, y, z = (points - points.new_tensor(CENTER_MM)).unbind(-1)
        below = (-y).clamp(min=0)
        z = z - below * (AXIS_SHIFT_MM / ROW_LENGTH_MM)
        level = torch.hypot(x, z)
        above = torch.atan2(level, y) / (math.pi / 2)
        row = torch.where(y > 0, above, 1 + below / ROW_LENGTH_MM)
        return torch.atan2(x, z), row, torch.hypot(level, y.clamp(min=0))

    def look_up(
        self,
        grid: Tensor,  # (B, C, R, D), values of the chart
        azimuth: Tensor,  # (B, ...), rad
        row: Tensor,  # (B, ...), units of a row
    ) -> Tensor:
        """Values between the chart's nodes, bilinear, (B, ..., D). Columns wrap round."""
        column, place = self.column_of(azimuth), self.row_of(row)
        left, top = column.floor(), place.floor().clamp(max=NUM_ROWS - 2)
        across, down = (column - left)[..., None], (place - top)[..., None]
        left, top = left.long() % NUM_COLUMNS, top.long()
        right = (left + 1) % NUM_COLUMNS

        flat = grid.flatten(1, 2)
        upper = _pick(flat, left * NUM_ROWS + top) * (1 - across)
        upper = upper + _pick(flat, right * NUM_ROWS + top) * across
        lower = _pick(flat, left * NUM_ROWS + top + 1) * (1 - across)
        lower = lower + _pick(flat, right * NUM_ROWS + top + 1) * across
        return upper * (1 - down) + lower * down

    def reach(self, points: Tensor) -> Tensor:  # (B, C, R, 3)
        """How far out the points of each ray are from the chart's axis, level, (B, C, R)."""
        across = points[..., 0] * self.directions[..., 0]
        return across + (points[..., 2] - CENTER_MM[2]) * self.directions[..., 2]

    def shoulder_room(self, points: Tensor) -> Tensor:  # (B, C, R, 3)
        """What a cloth needs besides its own gap to span the shoulders, whose slope is steep
        between the rays: (B, C, R) mm, 0 on the head."""
        reach = self.reach(points)
        spanned = torch.maximum(reach.roll(1, 1), reach.roll(-1, 1))
        spanned = torch.maximum(spanned, reach)
        for step in (1, 2):
            beyond = reach[..., -1:] + step * (reach[..., -1:] - reach[..., -2:-1])
            below = torch.cat([reach[..., step:], beyond.expand(-1, -1, step)], -1)
            spanned = torch.maximum(spanned, below)
        room = spanned - reach
        return room.clamp(min=0) * smoothstep(self.rows, 1.9, 2.3)

    def hang(
        self,
        measured: Measured,
        offset: Tensor,  # (B, C, R), mm out of the skull along the ray
        hang: Tensor | float,  # (B, 1, 1), 0: clings to the head; 1: falls straight from its widest
        *,
        first_row: Tensor | None = None,  # (C,), where it starts; None: at the crown
    ) -> Tensor:
        """A cloth or hair over the head: the surface (B, C, R, 3) that never lies inside it."""
        below = self.directions[..., 1].abs() < 0.02
        level = self.directions[..., ::2].norm(dim=-1)
        out = self.reach(measured.points) + offset * level
        carried = out
        if first_row is not None:
            carried = out.masked_fill(self.rows < first_row[:, None], -torch.inf)
        slack = (carried.cummax(-1).values - out).clamp(min=0) * below
        return measured.points + self.directions * (offset + slack * hang)[..., None]


def row_at(height: Tensor | float) -> Tensor | float:  # mm, y
    """The row at a height at or below the level, on the mean head."""
    return 1 + (CENTER_MM[1] - height) / ROW_LENGTH_MM


@cached()
def _carry(
    vertices: np.ndarray,  # (B, N, 3), um
    index: np.ndarray,  # (X, K)
    weights: np.ndarray,  # (X, K)
    found: np.ndarray,  # (B, X, 3), mm, zeros; written
) -> None:
    """Means of vertices, corner by corner: the same bits in a batch of any size."""
    for sample in range(len(vertices)):
        for place in range(len(index)):
            for corner in range(index.shape[1]):
                weight = weights[place, corner]
                if corner and weight == 0:
                    continue
                vertex = index[place, corner]
                for axis in range(3):
                    found[sample, place, axis] += vertices[sample, vertex, axis] * weight
            for axis in range(3):
                found[sample, place, axis] /= np.float32(UM_PER_MM)


def _node_of(row: Tensor) -> Tensor:  # any shape
    return (row - FIRST_ROW) * ((NUM_ROWS - 1) / (LAST_ROW - FIRST_ROW))


def _shoot(
    chart_position: Tensor,  # (N, 3): column, row in nodes, distance from the axis
    triangles: Tensor,  # (T, 3)
) -> tuple[Tensor, Tensor]:
    """The triangle each ray leaves through, (C, R), -1 where none, and its weights, (C, R, 3).

    Triangles across the back of the head appear at both ends of the chart.
    """
    position = chart_position[triangles]  # (T, 3, 3)
    column = position[..., 0]
    across = (column.amax(1) - column.amin(1) > NUM_COLUMNS / 2)[:, None]
    high = torch.where(across & (column < NUM_COLUMNS / 2), column + NUM_COLUMNS, column)
    low = torch.where(across, high - NUM_COLUMNS, high)
    corners = torch.cat(
        [torch.stack([shifted, position[..., 1], position[..., 2]], -1) for shifted in (high, low)]
    )  # (2 T, 3, 3)
    soup = torch.arange(len(corners) * 3).view(-1, 3)
    raster = rasterize(corners.reshape(1, -1, 3), soup, height=NUM_ROWS, width=NUM_COLUMNS)
    found = raster.triangle[0].t()
    triangle = torch.where(found < 0, -1, found % len(triangles))
    return triangle, raster.barycentric[0].transpose(0, 1)


def _fill_columns(index: Tensor, weights: Tensor, hit: Tensor) -> tuple[Tensor, Tensor]:
    """Rays that leave nowhere (through an ear) take a mean of the nearest ones of their row:
    (C, R, 6) vertices and weights."""
    columns = torch.arange(NUM_COLUMNS)
    filled_index = torch.cat([index, index], -1)
    filled_weights = torch.cat([weights, torch.zeros_like(weights)], -1)
    for row in range(NUM_ROWS):
        kept = hit[:, row].nonzero().squeeze(1)
        for column in columns[~hit[:, row]]:
            behind, ahead = (column - kept) % NUM_COLUMNS, (kept - column) % NUM_COLUMNS
            a, b = kept[behind.argmin()], kept[ahead.argmin()]
            share = behind.min() / (behind.min() + ahead.min())
            filled_index[column, row] = torch.cat([index[a, row], index[b, row]])
            filled_weights[column, row] = torch.cat(
                [weights[a, row] * (1 - share), weights[b, row] * share]
            )
    return filled_index, filled_weights


def _pick(flat: Tensor, index: Tensor) -> Tensor:  # (B, C R, D), (B, ...)
    cells = index.flatten(1)[..., None].expand(-1, -1, flat.shape[-1])
    return flat.gather(1, cells).view(*index.shape, -1)
