"""Hands laid on the head, and things held before it.

Letters: B batch, H hands, F fingers, P points along a finger. Lengths in mm. A hand is drawn flat,
in a plane whose origin is the middle knuckle and whose y runs along the middle finger, then laid
on the head's chart: so its fingers follow the face they touch.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.synthetic.noise import smoothstep
from prnet.synthetic.worn.head_chart import CENTER_MM, HeadChart, Measured, row_at
from prnet.synthetic.worn.solids import join, superquadric, sweep, tube, unit, where_worn

NUM_HANDS = 2
FINGER_AROUND, FINGER_POINTS = 7, 9
ARM_AROUND, ARM_POINTS = 8, 5
BODY_SHAPE = (14, 9)
STICK_AROUND, STICK_POINTS = 7, 4
# Thumb to little finger: base beside the wrist, knuckle, tip, all (x, y); radii there.
BASE_MM = ((16.0, -68.0), (14.0, -84.0), (5.0, -86.0), (-5.0, -86.0), (-14.0, -84.0))
KNUCKLE_MM = ((44.0, -38.0), (25.0, -2.0), (7.0, 2.0), (-11.0, 0.0), (-28.0, -8.0))
TIP_MM = ((58.0, 8.0), (32.0, 64.0), (8.0, 76.0), (-17.0, 70.0), (-42.0, 48.0))
RADII_MM = (
    (15.0, 12.0, 8.0),
    (14.0, 11.5, 6.5),
    (14.0, 12.0, 6.8),
    (14.0, 11.5, 6.5),
    (13.0, 10.5, 5.8),
)
NUM_FINGERS = len(TIP_MM)
# The chart's radius at the face: turns millimetres across into an azimuth.
CHART_RADIUS_MM = 88.0
ARM_STOPS_MM = (-34.0, -20.0, 8.0, 110.0, 230.0)
ARM_RADII_MM = (4.0, 21.0, 25.0, 31.0, 40.0)
SKULL_HEIGHT_MM = 96.0


class HandParameters(NamedTuple):
    """The hands and the object of one sample; per hand (H,)."""

    worn: np.ndarray  # (H,)
    side: np.ndarray  # (H,), 1: a left hand's outline, -1: a right one's
    azimuth: np.ndarray  # (H,), rad, of the middle knuckle
    height_mm: np.ndarray  # (H,), its y
    turn: np.ndarray  # (H,), rad: 0 fingers up, positive to the subject's right
    scale: np.ndarray  # (H,)
    spread: np.ndarray  # (H,), factor of the fan of the fingers
    curl: np.ndarray  # (H, F), 0 straight, 1 a fist
    gap_mm: np.ndarray  # (H,), between hand and face
    arm: np.ndarray  # (H, 3), direction of the forearm beyond that of the hand
    object_worn: np.ndarray  # ()
    object_azimuth: np.ndarray  # (), rad
    object_height_mm: np.ndarray  # ()
    object_gap_mm: np.ndarray  # ()
    object_half_mm: np.ndarray  # (3,), across, up and along the ray
    object_roundness: np.ndarray  # (2,), of `superquadric`
    object_spin: np.ndarray  # (), rad about the ray
    stick_mm: np.ndarray  # (), length; 0: none
    stick_radius_mm: np.ndarray  # ()
    stick_direction: np.ndarray  # (3,), across, up and along the ray


class Hands:
    """Vertices of the hands and of the object."""

    def __init__(self) -> None:
        one = [tube(FINGER_AROUND, FINGER_POINTS) for _ in range(NUM_FINGERS)]
        one.append(tube(ARM_AROUND, ARM_POINTS))
        self.hands = join(one * NUM_HANDS)
        self.object = join([tube(*BODY_SHAPE), tube(STICK_AROUND, STICK_POINTS)])

    def hand_vertices(
        self, chart: HeadChart, measured: Measured, parameters: HandParameters
    ) -> Tensor:
        """Vertices of `hands`, (B, n, 3), mm."""
        support = chart.hang(measured, measured.ear, 1.0)  # straight down under the chin
        return torch.cat(
            [self._hand(chart, support, parameters, hand) for hand in range(NUM_HANDS)], 1
        )

    def object_vertices(
        self, chart: HeadChart, measured: Measured, parameters: HandParameters
    ) -> Tensor:
        """Vertices of `object`, (B, n, 3), mm."""
        support = chart.hang(measured, measured.ear, 1.0)  # straight down under the chin
        azimuth = parameters.object_azimuth[:, None]
        nowhere = torch.zeros_like(azimuth)
        azimuth, row = _on_chart(azimuth, parameters.object_height_mm[:, None], nowhere, nowhere)
        away = chart.direction(azimuth, row.clamp(min=1))[:, 0]  # level
        half = parameters.object_half_mm
        center = chart.look_up(support, azimuth, row)[:, 0]
        center = center + away * (half[:, 2] + parameters.object_gap_mm)[:, None]
        across = torch.stack([away[:, 2], torch.zeros_like(away[:, 0]), -away[:, 0]], -1)
        up = away.new_tensor([0.0, 1.0, 0.0]).expand_as(away)
        cos, sin = parameters.object_spin.cos()[:, None], parameters.object_spin.sin()[:, None]
        frame = torch.stack([across * cos + up * sin, up * cos - across * sin, away], 1)  # (B,3,3)

        body = superquadric(half, parameters.object_roundness, *BODY_SHAPE)
        body = center[:, None] + _turn(body, frame)
        direction = _turn(unit(parameters.stick_direction)[:, None], frame)[:, 0]
        reach = torch.linspace(0, 1, STICK_POINTS)[:, None]
        path = center[:, None] + direction[:, None] * reach * parameters.stick_mm[:, None, None]
        radius = parameters.stick_radius_mm[:, None].expand(-1, STICK_POINTS)
        side = frame[:, :1] + 0.3 * frame[:, 2:]
        stick = sweep(path, radius, radius, side, STICK_AROUND)
        stick = where_worn(stick, (parameters.stick_mm > 0).to(half.dtype))
        return torch.cat([body, stick], 1)

    def _hand(
        self, chart: HeadChart, support: Tensor, parameters: HandParameters, hand: int
    ) -> Tensor:
        def value(name: str) -> Tensor:
            return getattr(parameters, name)[:, hand, None]

        base, knuckle, tip = (support.new_tensor(p) for p in (BASE_MM, KNUCKLE_MM, TIP_MM))
        curl = parameters.curl[:, hand]  # (B, F)
        fan = torch.stack([value("spread"), torch.ones_like(value("spread"))], -1)  # (B, 1, 2)
        finger = (tip - knuckle) * fan * (1 - 0.7 * curl)[..., None]
        # Stops from the wrist over the knuckle to the tip.
        share = torch.linspace(0, 1, FINGER_POINTS)
        palm, beyond = (share / 0.5).clamp(max=1), ((share - 0.5) / 0.5).clamp(min=0)
        flat = base[:, None] + (knuckle - base)[:, None] * palm[:, None]
        flat = flat + finger[:, :, None] * beyond[:, None]  # (B, F, P, 2)
        x = flat[..., 0] * value("side")[..., None] * value("scale")[..., None]
        y = flat[..., 1] * value("scale")[..., None]
        cos, sin = value("turn").cos()[..., None], value("turn").sin()[..., None]
        x, y = x * cos - y * sin, x * sin + y * cos

        azimuth, row = _on_chart(value("azimuth")[..., None], value("height_mm")[..., None], x, y)
        out = chart.direction(azimuth, row)
        points = chart.look_up(support, azimuth, row)
        radii = support.new_tensor(RADII_MM)  # (F, 3)
        radius = radii[:, :1] + (radii[:, 1:2] - radii[:, :1]) * palm
        radius = (radius + (radii[:, 2:] - radii[:, 1:2]) * beyond) * value("scale")[..., None]
        arch = 20 * curl[..., None] * (math.pi * smoothstep(share, 0.3, 1.0)).sin()
        points = points + out * (radius + value("gap_mm")[..., None] + arch)[..., None]

        # Rounded tips: the last stop closes the tube.
        radius = radius * (1 - 0.45 * (share == 1))
        side = torch.linalg.cross(out, points.new_tensor([0.0, 1.0, 0.0]).expand_as(out))
        rows = len(points) * NUM_FINGERS
        shape = (rows, FINGER_POINTS)
        fingers = sweep(
            points.reshape(*shape, 3),
            # The palm is wide and flat, its parts one body.
            (radius * (1.35 - 0.35 * beyond)).reshape(shape),
            (radius * (0.8 + 0.12 * beyond)).reshape(shape),
            side.reshape(*shape, 3),
            FINGER_AROUND,
        ).view(len(points), -1, 3)

        wrist = points[:, 1:, 0].mean(1)
        along = unit(wrist - points[:, 2, 3])
        forearm = unit(0.6 * along + parameters.arm[:, hand])
        path = wrist[:, None] + forearm[:, None] * (support.new_tensor(ARM_STOPS_MM)[:, None])
        radius = support.new_tensor(ARM_RADII_MM) * value("scale")
        arm = sweep(path, radius, radius * 0.75, side[:, 2, :1], ARM_AROUND)
        return where_worn(torch.cat([fingers, arm], 1), parameters.worn[:, hand])


def _on_chart(azimuth: Tensor, height: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Azimuth and row of points x mm across and y mm above a place of the chart."""
    height = height + y
    above = ((height - CENTER_MM[1]) / SKULL_HEIGHT_MM).clamp(0, 0.995)
    row = torch.where(height < CENTER_MM[1], row_at(height), above.acos() / (math.pi / 2))
    return azimuth + x / CHART_RADIUS_MM, row


def _turn(points: Tensor, frame: Tensor) -> Tensor:  # (B, n, 3), (B, 3, 3) of axes as rows
    """Points given by their coordinates along the axes, one sum at a time (the same bits in
    any batch)."""
    x, y, z = points.split(1, -1)
    return x * frame[:, None, 0] + y * frame[:, None, 1] + z * frame[:, None, 2]
