"""Hats, hoods and clothes: cloth laid over the head's chart.

Letters: B batch, C columns and R rows of the chart, P points along. Sizes in mm.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.synthetic.noise import smoothstep
from prnet.synthetic.worn.head_chart import (
    FIRST_ROW,
    LAST_ROW,
    NUM_COLUMNS,
    HeadChart,
    Measured,
    row_at,
)
from prnet.synthetic.worn.solids import join, meet_at_crown, sheet, where_worn

HAT_COLUMNS, DOME_POINTS, BRIM_POINTS = 40, 10, 4
HOOD_COLUMNS, HOOD_POINTS = 48, 14
WRAP_COLUMNS, WRAP_POINTS = 32, 8
GARMENT_COLUMNS, GARMENT_POINTS = 56, 10
# Rows of a garment on the chart; the others spread over the shoulders and fall.
GARMENT_CHART_POINTS = 5
SHOULDER_HALF_MM = (205.0, 95.0)  # across, and front to back
SHOULDER_DROP_MM, GARMENT_DROP_MM = 45.0, 240.0
SHOULDER_LIFT_MM = 14.0
EAR_ROOM_MM = 2.0
HAIR_ROOM_MM = 2.0  # between hair and the hat that presses it


class HeadwearParameters(NamedTuple):
    """What is worn on the head and below it. A worn flag is 0 or 1; rows of the chart."""

    hat_worn: np.ndarray  # ()
    hat_row: np.ndarray  # (), mean row of its edge
    hat_tilt: np.ndarray  # (), how much lower it sits at the back, rows
    hat_slant: np.ndarray  # (), and at the subject's left
    hat_gap_mm: np.ndarray  # ()
    hat_crown_mm: np.ndarray  # (), added at the top
    hat_square: np.ndarray  # (), 0: round as the head, 1: a flat top
    brim_mm: np.ndarray  # (), 0: none
    brim_half_deg: np.ndarray  # (), 180: all round; a visor: about 60
    brim_droop: np.ndarray  # (), slope downwards
    hood_worn: np.ndarray  # ()
    hood_front_row: np.ndarray  # (), its edge on the forehead
    hood_open_deg: np.ndarray  # (), azimuth of its edge at the cheeks
    hood_gap_mm: np.ndarray  # ()
    hood_hang: np.ndarray  # ()
    wrap_worn: np.ndarray  # (), round the neck: scarf, collar, the lower part of a headscarf
    wrap_row: np.ndarray  # (), its upper edge in front
    wrap_rise: np.ndarray  # (), how much higher it is at the back, rows
    wrap_gap_mm: np.ndarray  # ()
    garment_worn: np.ndarray  # ()
    garment_row: np.ndarray  # (), its neckline at the sides
    garment_neckline: np.ndarray  # (), how much lower it is in front, rows
    garment_gap_mm: np.ndarray  # ()
    fold_mm: np.ndarray  # ()
    fold_vector: np.ndarray  # (3, 3): azimuth count, per row, phase


class Headwear:
    """Vertices of hat, hood, wrap and garment."""

    def __init__(self) -> None:
        dome = sheet(HAT_COLUMNS, DOME_POINTS, closed=True)
        self.hat = join([dome, sheet(HAT_COLUMNS, BRIM_POINTS, closed=True)])
        self.hood = join(
            [sheet(HOOD_COLUMNS, HOOD_POINTS, closed=True), sheet(WRAP_COLUMNS, WRAP_POINTS)]
        )
        self.garment = sheet(GARMENT_COLUMNS, GARMENT_POINTS, closed=True)

    def ceiling(self, chart: HeadChart, parameters: HeadwearParameters) -> Tensor:
        """How thick hair can be under hat and hood, (B, C, R) mm; inf where neither is."""
        edge = _hat_edge(chart.azimuth[:, None], parameters)  # (B, C, 1)
        # Below the edge the hair swells back within some 30 mm.
        below = (chart.rows - edge - 0.08).clamp(min=0)
        free = 1 + (below / 0.04) ** 2
        gap = parameters.hat_gap_mm[:, None, None] - HAIR_ROOM_MM
        hat = torch.where(parameters.hat_worn[:, None, None] > 0.5, gap * free, torch.inf)
        under = 0.3 * parameters.hood_gap_mm[:, None, None]
        return torch.where(parameters.hood_worn[:, None, None] > 0.5, under, hat)

    def hat_vertices(
        self, chart: HeadChart, measured: Measured, parameters: HeadwearParameters
    ) -> Tensor:
        """Vertices of `hat`, (B, n, 3), mm."""
        upward = chart.directions[..., 1]
        gap = parameters.hat_gap_mm[:, None, None]
        crown = parameters.hat_crown_mm[:, None, None] * smoothstep(upward, 0.1, 0.9)
        # A flat top: the shoulders of the dome are pushed out, most at 45 degrees.
        corner = 4 * (upward * (1 - upward)).clamp(min=0)
        square = parameters.hat_square[:, None, None] * corner * (12 + crown * 0.5)
        offset = torch.maximum(gap + crown + square, measured.ear_room(EAR_ROOM_MM))
        offset = offset + 0.3 * _folds(chart, parameters)
        surface = measured.points + chart.directions * offset[..., None]

        azimuth = _around(HAT_COLUMNS)
        edge = _hat_edge(azimuth[:, None], parameters)  # (B, Q, 1)
        share = torch.linspace(0, 1, DOME_POINTS)
        row = FIRST_ROW + (edge - FIRST_ROW) * share
        dome = meet_at_crown(chart.look_up(surface, azimuth[:, None].expand_as(row), row))

        rim = dome[:, :, -1]
        half = torch.deg2rad(parameters.brim_half_deg)[:, None]
        reach = (1 - (azimuth / half) ** 2).clamp(min=0).sqrt()  # 0 at the ends of a visor
        all_round = (half > 3).float()
        length = parameters.brim_mm[:, None] * (reach * (1 - all_round) + all_round)
        slope = parameters.brim_droop[:, None]
        # A visor points straight ahead, a brim all round away from the head.
        ahead = torch.stack(
            [azimuth.sin(), torch.zeros_like(azimuth), azimuth.cos()], -1
        ) * all_round[..., None] + azimuth.new_tensor([0.0, 0.0, 1.0]) * (1 - all_round[..., None])
        level = torch.zeros_like(length)
        down = torch.stack([level, -slope * length, level], -1)
        out = torch.linspace(0, 1, BRIM_POINTS)[:, None]
        brim = rim[:, :, None] + (ahead * length[..., None])[:, :, None] * out
        brim = brim + down[:, :, None] * out**1.5
        return torch.cat([dome.flatten(1, 2), brim.flatten(1, 2)], 1)

    def hood_vertices(
        self, chart: HeadChart, measured: Measured, parameters: HeadwearParameters
    ) -> Tensor:
        """Vertices of `hood`, (B, n, 3), mm: the hood, then what is wrapped round the neck."""
        folds = _folds(chart, parameters)
        gap = torch.maximum(parameters.hood_gap_mm[:, None, None], measured.ear_room(EAR_ROOM_MM))
        # Over the shoulders it lies on the garment.
        room = chart.shoulder_room(measured.points) + smoothstep(chart.rows, 1.9, 2.3) * (
            parameters.garment_gap_mm + parameters.fold_mm + 3
        ).view(-1, 1, 1)
        surface = chart.hang(measured, gap + folds + room, parameters.hood_hang[:, None, None])
        azimuth = _around(HOOD_COLUMNS)
        opening = torch.deg2rad(parameters.hood_open_deg)[:, None]
        side = smoothstep(azimuth.abs(), opening - 0.3, opening + 0.12)
        end = parameters.hood_front_row[:, None]
        end = end + side * (LAST_ROW - end) + 0.25 * (azimuth.abs() / opening).clamp(max=1) ** 2
        share = torch.linspace(0, 1, HOOD_POINTS)
        row = FIRST_ROW + (end.clamp(max=LAST_ROW)[..., None] - FIRST_ROW) * share
        hood = meet_at_crown(_lay(chart, surface, azimuth, row)).flatten(1, 2)

        gap = parameters.wrap_gap_mm[:, None, None] + folds + room
        first = torch.full((NUM_COLUMNS,), row_at(-60.0))
        surface = chart.hang(measured, gap, 0.5, first_row=first)
        azimuth = torch.linspace(-math.pi, math.pi, WRAP_COLUMNS)
        top = parameters.wrap_row[:, None] - parameters.wrap_rise[:, None] * (1 - azimuth.cos()) / 2
        share = torch.linspace(0, 1, WRAP_POINTS)
        row = top[..., None] + (LAST_ROW - top[..., None]) * share
        wrap = _lay(chart, surface, azimuth, row).flatten(1, 2)
        return torch.cat(
            [where_worn(hood, parameters.hood_worn), where_worn(wrap, parameters.wrap_worn)], 1
        )

    def garment_vertices(
        self, chart: HeadChart, measured: Measured, parameters: HeadwearParameters
    ) -> Tensor:
        """Vertices of `garment`, (B, n, 3), mm."""
        offset = parameters.garment_gap_mm[:, None, None] + _folds(chart, parameters) * 0.5
        offset = offset + chart.shoulder_room(measured.points)
        surface = measured.points + chart.directions * offset[..., None]
        azimuth = _around(GARMENT_COLUMNS)
        front = azimuth.cos().clamp(min=0) ** 2
        top = parameters.garment_row[:, None] + parameters.garment_neckline[:, None] * front
        top = top.clamp(max=LAST_ROW - 0.05)
        share = torch.linspace(0, 1, GARMENT_CHART_POINTS)
        row = top[..., None] + (LAST_ROW - top[..., None]) * share
        upper = _lay(chart, surface, azimuth, row)  # (B, Q, P, 3)

        last = upper[:, :, -1]
        center = last.mean(1)
        level = torch.stack([azimuth.sin(), azimuth.cos()], -1)
        shoulder = level * level.new_tensor(SHOULDER_HALF_MM)  # (Q, 2)
        count = GARMENT_POINTS - GARMENT_CHART_POINTS
        out = torch.linspace(0, 1, count + 1)[1:]
        reach = (out * 1.6).clamp(max=1)
        near = reach * (2 - reach)  # to the shoulders' outline
        drop = SHOULDER_DROP_MM * near + GARMENT_DROP_MM * (out - 0.5).clamp(min=0) * 2
        flat = last[..., ::2]  # (B, Q, 2), x and z
        spread = (
            flat[:, :, None] + (center[:, None, ::2] + shoulder - flat)[:, :, None] * near[:, None]
        )
        x, z = spread.unbind(-1)
        lower = torch.stack([x, last[:, :, None, 1] - drop, z], -1)
        return torch.cat([upper, lower], 2).flatten(1, 2)


def _around(count: int) -> Tensor:
    """Azimuths of a closed sheet, (count,)."""
    return torch.arange(count) * (2 * math.pi / count) - math.pi


def _hat_edge(azimuth: Tensor, parameters: HeadwearParameters) -> Tensor:  # (Q, 1)
    """Row of the hat's edge, (B, Q, 1): lower behind (tilt) and on one side (slant)."""
    tilt, slant = parameters.hat_tilt[:, None, None], parameters.hat_slant[:, None, None]
    edge = parameters.hat_row[:, None, None] - tilt * azimuth.cos() + slant * azimuth.sin()
    return edge.clamp(0.3, 1.6)


def _folds(chart: HeadChart, parameters: HeadwearParameters) -> Tensor:
    """Folds of cloth, (B, C, R) mm, >= 0; few at the crown."""
    count, along, phase = parameters.fold_vector[..., None, None].unbind(2)  # each (B, 3, 1, 1)
    wave = count * chart.azimuth[:, None] + along * chart.rows + phase
    total = (1 + wave.sin()).sum(1) * smoothstep(chart.rows, 0.2, 0.9)
    return parameters.fold_mm[:, None, None] * total


def _lay(
    chart: HeadChart,
    surface: Tensor,  # (B, C, R, 3)
    azimuth: Tensor,  # (Q,)
    row: Tensor,  # (B, Q, P)
) -> Tensor:
    """Points of a cloth on a surface, (B, Q, P, 3). The head ends in the slope of the shoulders,
    which no ray meets: cloth passes above it."""
    points = chart.look_up(surface, azimuth[:, None].expand_as(row), row)
    lift = SHOULDER_LIFT_MM * azimuth.sin().abs()[:, None] * smoothstep(row, 2.4, 2.85)
    return points + lift[..., None] * points.new_tensor([0.0, 1.0, 0.0])
