"""Hair as a shell that follows the head, with loose locks, a bun and a long beard.

Letters: B batch, C columns and R rows of the head's chart, A control azimuths, L locks, P points
along. The shell's strands start at the crown, run down a column each and end at `end_row`: on the
skin where hair stops growing, or in the air for a fringe and for long hair.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.faces.embedded import Head
from prnet.synthetic.noise import smoothstep
from prnet.synthetic.worn.head_chart import (
    FIRST_ROW,
    LAST_ROW,
    NUM_COLUMNS,
    NUM_ROWS,
    ROW_LENGTH_MM,
    UM_PER_MM,
    HeadChart,
    Measured,
    row_at,
)
from prnet.synthetic.worn.solids import (
    Piece,
    join,
    meet_at_crown,
    sheet,
    superquadric,
    tube,
    unit,
    where_worn,
)

# Azimuths where the end of the strands is given, degrees from the front, the same on both sides:
# forehead, its corners, temple, sideburn, front and back of the ear, behind it, nape.
CONTROL_DEG = (0, 14, 28, 42, 56, 66, 75, 84, 102, 114, 145, 180)
# Where short hair stops growing there: front hairline, sideburns, above the ears, nape.
NATURAL_END = (0.57, 0.57, 0.59, 0.66, 0.81, 1.00, 1.28, 0.98, 1.00, 1.45, 1.78, 1.85)
STRAND_POINTS = 26
NUM_LOCKS = 60
LOCK_POINTS = 8
NUM_WAVES = 3
BEARD_COLUMNS = 21
BEARD_POINTS = 9
BEARD_HALF_DEG = 72.0
BUN_SHAPE = (12, 8)
LEAST_MM = 1.5  # between skin and hair: more than the chart's chords cut off
EAR_ROOM_MM = 2.5


class HairParameters(NamedTuple):
    """One head of hair. A worn flag is 0 or 1; lengths in mm, rows and azimuths of the chart."""

    worn: np.ndarray  # ()
    stubble: np.ndarray  # (), strength of the hair's colour on the scalp's skin
    end_row: np.ndarray  # (2, A), the subject's right and left side
    ragged: np.ndarray  # (C,), added to end_row
    top_mm: np.ndarray  # ()
    side_mm: np.ndarray  # ()
    edge: np.ndarray  # (), share of the thickness left where the strands end
    hang: np.ndarray  # (), 0: clings to the head and neck, 1: falls straight
    clump_mm: np.ndarray  # (C,)
    wave_mm: np.ndarray  # ()
    wave_count: np.ndarray  # (), per row unit
    lump_mm: np.ndarray  # ()
    lump_vector: np.ndarray  # (NUM_WAVES, 4): three spatial frequencies, rad/mm, and a phase
    lock_worn: np.ndarray  # ()
    lock_azimuth: np.ndarray  # (L,), rad
    lock_row: np.ndarray  # (L,)
    lock_length: np.ndarray  # (L,), row units
    lock_sway: np.ndarray  # (L,), rad
    lock_lift_mm: np.ndarray  # (L,), how far the tip stands off the shell
    lock_width_mm: np.ndarray  # (L,)
    bun_worn: np.ndarray  # ()
    bun_azimuth: np.ndarray  # (), rad
    bun_row: np.ndarray  # ()
    bun_half_mm: np.ndarray  # (3,)
    beard_worn: np.ndarray  # ()
    beard_mm: np.ndarray  # (), thickness
    beard_length: np.ndarray  # (), row units below the chin
    beard_taper: np.ndarray  # (), how much shorter it is at the sides


class Hair:
    """Vertices of the hair, on the chart of each head."""

    def __init__(self, chart: HeadChart) -> None:
        self.sheets = join(
            [
                sheet(NUM_COLUMNS, STRAND_POINTS, closed=True),
                *[_lock_piece(number) for number in range(NUM_LOCKS)],
            ]
        )
        self.beard = sheet(BEARD_COLUMNS, BEARD_POINTS)
        self.bun = tube(*BUN_SHAPE)
        side = torch.rad2deg(chart.azimuth)
        level = _control_weights(side.abs())  # (C, A)
        left = torch.where((side == 0) | (side == -180), 0.5, (side > 0).float())
        self.control = torch.stack([1 - left, left], -1)[..., None] * level[:, None]  # (C, 2, A)
        # Waves are laid out in space: by direction on the skull, by height below it.
        down = torch.tensor([0.0, -ROW_LENGTH_MM, 0.0]) * (chart.rows[:, None] - 1).clamp(min=0)
        self.place = (chart.directions * 85 + down).permute(2, 0, 1)  # (3, C, R), mm

    def end_rows(self, parameters: HairParameters) -> Tensor:
        """Where the strands of each column end, (B, C)."""
        smooth = (parameters.end_row[:, None] * self.control).sum((-1, -2))
        return (smooth + parameters.ragged).clamp(FIRST_ROW + 0.1, LAST_ROW)

    def thickness(
        self,
        chart: HeadChart,
        measured: Measured,
        parameters: HairParameters,
        ceiling: Tensor,  # (B, C, R), mm: what a hat leaves
    ) -> Tensor:
        """How far the hair stands out of the skull, (B, C, R) mm, also past its end."""

        def field(name: str) -> Tensor:
            return getattr(parameters, name)[:, None, None]

        upward = smoothstep(chart.directions[..., 1], 0.05, 0.85)
        thickness = field("side_mm") + (field("top_mm") - field("side_mm")) * upward
        vector = parameters.lump_vector[..., None, None].unbind(2)  # each (B, W, 1, 1)
        x, y, z = self.place
        lumps = (vector[0] * x + vector[1] * y + vector[2] * z + vector[3]).sin().sum(1)
        thickness = thickness + field("lump_mm") * lumps / 2
        thickness = thickness + parameters.clump_mm[..., None] * smoothstep(chart.rows, 0.1, 0.6)
        wave = (chart.rows * field("wave_count") + 2 * parameters.ragged[..., None] * 40).sin()
        thickness = thickness + field("wave_mm") * (1 + wave) * smoothstep(chart.rows, 0.7, 1.3)

        left = self.end_rows(parameters)[..., None] - chart.rows  # (B, C, R)
        thickness = thickness * (field("edge") + (1 - field("edge")) * smoothstep(left, 0.0, 0.3))
        # Hair over an ear lies on it, and leaves it gradually.
        room = measured.ear_room(EAR_ROOM_MM) * smoothstep(left, -0.1, 0.05)
        thickness = torch.maximum(thickness, room)
        return torch.minimum(thickness, ceiling).clamp(min=LEAST_MM)

    def vertices(
        self,
        chart: HeadChart,
        measured: Measured,
        parameters: HairParameters,
        ceiling: Tensor,  # (B, C, R), mm
    ) -> Tensor:
        """Vertices of `sheets`, (B, n, 3), mm."""
        thickness = self.thickness(chart, measured, parameters, ceiling)
        surface = chart.hang(measured, thickness, parameters.hang[:, None, None])
        shell = self._strands(chart, surface, parameters)
        # Locks also fall over ears that the shell leaves free.
        short = (measured.ear_room(EAR_ROOM_MM) - thickness).clamp(min=0)
        field = torch.cat([surface, short[..., None]], -1)
        locks = self._locks(chart, field, ceiling, parameters)
        return torch.cat([shell, where_worn(locks, parameters.lock_worn)], 1)

    def bun_vertices(
        self, chart: HeadChart, measured: Measured, parameters: HairParameters
    ) -> Tensor:
        """Vertices of `bun`, (B, n, 3), mm."""
        azimuth, row = parameters.bun_azimuth[:, None], parameters.bun_row[:, None]
        center = chart.look_up(measured.points, azimuth, row)
        away = parameters.side_mm + 0.7 * parameters.bun_half_mm[:, 2]
        center = center + chart.direction(azimuth, row) * away[:, None, None]
        round_body = torch.ones(len(row), 2)
        return center + superquadric(parameters.bun_half_mm, round_body, *BUN_SHAPE)

    def _strands(
        self,
        chart: HeadChart,
        surface: Tensor,  # (B, C, R, 3)
        parameters: HairParameters,
    ) -> Tensor:
        share = torch.linspace(0, 1, STRAND_POINTS)
        row = FIRST_ROW + (self.end_rows(parameters)[..., None] - FIRST_ROW) * share
        place = chart.row_of(row)
        above = place.floor().clamp(max=NUM_ROWS - 2)
        down = (place - above)[..., None]
        index = above.long().unsqueeze(-1).expand(-1, -1, -1, 3)
        points = surface.gather(2, index) * (1 - down) + surface.gather(2, index + 1) * down
        return meet_at_crown(points).flatten(1, 2)

    def _locks(
        self,
        chart: HeadChart,
        field: Tensor,  # (B, C, R, 4), the hair's surface, and what it lacks to clear an ear
        ceiling: Tensor,  # (B, C, R)
        parameters: HairParameters,
    ) -> Tensor:
        share = torch.linspace(0, 1, LOCK_POINTS)
        azimuth = parameters.lock_azimuth[..., None] + parameters.lock_sway[..., None] * share**1.5
        # A lock grows inside the hairline.
        end = chart.look_up(
            self.end_rows(parameters)[:, :, None, None].expand(-1, -1, NUM_ROWS, -1),
            parameters.lock_azimuth,
            torch.zeros_like(parameters.lock_azimuth),
        )
        root = torch.minimum(parameters.lock_row, 0.9 * end[..., 0])
        row = root[..., None] + parameters.lock_length[..., None] * share
        row = row.clamp(FIRST_ROW, LAST_ROW)  # (B, L, P)
        found = chart.look_up(field, azimuth, row)
        free = ceiling[..., :1].isinf().all(1)[..., None, None]  # (B, 1, 1, 1)
        lift = (parameters.lock_lift_mm[..., None] * share + 0.8)[..., None]
        out = chart.direction(azimuth, row)
        lift = torch.maximum(torch.where(free, lift, 0.8), found[..., 3:])
        points = found[..., :3] + out * lift
        ahead = torch.cat([points[:, :, 1:], points[:, :, -1:]], 2)
        tangent = ahead - torch.cat([points[:, :, :1], points[:, :, :-1]], 2)
        across = unit(torch.linalg.cross(tangent, out))
        half = parameters.lock_width_mm[..., None] / 2 * (1 - share**2).clamp(min=0.05).sqrt()
        edge = across * half[..., None]
        return torch.stack([points - edge, points + edge], 2).flatten(1, 3)

    def beard_vertices(
        self, chart: HeadChart, measured: Measured, parameters: HairParameters
    ) -> Tensor:
        """Vertices of `beard`, (B, n, 3), mm."""
        azimuth = torch.linspace(-1, 1, BEARD_COLUMNS)
        side = azimuth.abs()
        # From the sideburns round under the corners of the mouth to below the lip.
        root = row_at(-50 + 58 * smoothstep(side, 0.25, 1.0) + 4 * side)
        chin = row_at(-66 + 42 * smoothstep(side, 0.35, 1.0))
        length = parameters.beard_length[:, None] * (1 - parameters.beard_taper[:, None] * side)
        share = torch.linspace(0, 1, BEARD_POINTS)
        start, end = root[:, None], (chin + length)[..., None]  # (Q, 1), (B, Q, 1)
        row = start + (end - start) * share  # (B, Q, P)

        # What lies above the root (the nose) must not carry the beard.
        column_side = (chart.azimuth / math.radians(BEARD_HALF_DEG)).abs().clamp(max=1)
        first = row_at(-46 + 58 * smoothstep(column_side, 0.25, 1.0))
        body = smoothstep(chart.rows - first[:, None], -0.1, 0.35)  # (C, R)
        offset = LEAST_MM + parameters.beard_mm[:, None, None] * body
        surface = chart.hang(measured, offset, 1.0, first_row=first)
        spread = (azimuth * math.radians(BEARD_HALF_DEG))[:, None].expand_as(row)
        return chart.look_up(surface, spread, row).flatten(1, 2)


def scalp_hair(head: Head) -> Tensor:
    """Where short hair grows: a weight in [0, 1] for every vertex, (N,); 0 off the skin."""
    chart = HeadChart(head)
    mean = head.morphable_model.mean / UM_PER_MM
    azimuth, row, _ = chart.locate(mean)
    end = _control_weights(torch.rad2deg(azimuth).abs()) @ torch.tensor(NATURAL_END)
    weight = smoothstep(end - row, -0.03, 0.05) * (1 - head.masks["ears"])
    weight[head.num_surface :] = 0
    return weight


def _lock_piece(number: int) -> Piece:
    """One ribbon; every lock has strands of its own, so a place of its own in u."""
    part = sheet(2, LOCK_POINTS)
    u, v = part.uv.unbind(-1)
    return part._replace(uv=torch.stack([number * 0.618 % 1 + 0.02 * u, v], -1))


def _control_weights(azimuth_deg: Tensor) -> Tensor:  # (X,), 0 to 180
    """Weights of linear interpolation between the controls, (X, A)."""
    control = torch.tensor(CONTROL_DEG, dtype=torch.float32)
    angle = azimuth_deg.clamp(0, 180).contiguous()
    upper = torch.searchsorted(control, angle).clamp(1, len(control) - 1)
    share = (angle - control[upper - 1]) / (control[upper] - control[upper - 1])
    weights = torch.zeros(len(angle), len(control))
    weights.scatter_(1, upper[:, None] - 1, (1 - share)[:, None])
    return weights.scatter_(1, upper[:, None], share[:, None])
