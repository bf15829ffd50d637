"""Glasses: two rims, a bridge, two temples, two lenses, fitted to the eyes, the nose and the ears.

Letters: B batch, N vertices of the head, K anchor vertices, Q points round a lens, P points along.
Lenses lie on one curved surface z = z_0 - wrap x^2 - tilt (y - y_0) in front of the face (mm).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.faces.embedded import Head
from prnet.synthetic.worn.head_chart import UM_PER_MM, HeadChart, Measured
from prnet.synthetic.worn.solids import Piece, join, sweep, tube, where_worn

RIM_POINTS = 24
RIM_AROUND = 5
TEMPLE_POINTS = 8
TEMPLE_AROUND = 4
BRIDGE_POINTS = 6
LENS_RINGS = 3
# Vertices of the mean that the lens surface must clear: round the eyes, not on the nose, whose
# bridge stands between the rims.
CLEAR_X_MM, CLEAR_Y_MM = (13.0, 58.0), (6.0, 62.0)
# The side of the head that a temple passes on the mean: height about the eyes', and depths.
TEMPLE_BAND_MM, TEMPLE_DEPTH_MM = 18.0, (2.0, 88.0)
TEMPLE_GAP_MM = 3.0
HOOK_DROP_MM, HOOK_DEPTH_MM = 18.0, 20.0
EAR_CONTACT_MM = 4.0  # below the topmost vertex of the ear


class GlassesParameters(NamedTuple):
    """One pair of glasses; lengths in mm."""

    worn: np.ndarray  # ()
    rimmed: np.ndarray  # (), 0: the lenses have no rims
    half_width_mm: np.ndarray  # (), of a lens
    half_height_mm: np.ndarray  # ()
    squareness: np.ndarray  # (), exponent of the outline: 2 round, 5 almost a rectangle
    droop: np.ndarray  # (), how much lower the outer half reaches, as of aviators
    gap_mm: np.ndarray  # (), between the lenses
    rim_mm: np.ndarray  # (), thickness
    temple_mm: np.ndarray  # (), height of the temples
    wrap: np.ndarray  # (), 1 / mm
    tilt: np.ndarray  # ()
    slide_mm: np.ndarray  # (), down the nose
    clearance_mm: np.ndarray  # (), between the face and the lenses


class Glasses:
    """Vertices of the frame and of the lenses on each head."""

    def __init__(self, head: Head) -> None:
        mean = head.morphable_model.mean / UM_PER_MM
        surface = mean[: head.num_surface]
        x, y, z = surface.unbind(-1)
        near = (x.abs() > CLEAR_X_MM[0]) & (x.abs() < CLEAR_X_MM[1]) & (z > 55)
        near &= (y > CLEAR_Y_MM[0]) & (y < CLEAR_Y_MM[1])
        self.clear_index = near.nonzero().squeeze(1)  # (K,)
        nose = (x.abs() < 9) & (y > 12) & (y < 44) & (z > 80)
        self.nose_index = nose.nonzero().squeeze(1)

        ear = head.masks["ears"][: head.num_surface] > 0.5
        height = mean[head.landmark_index[[36, 45]], 1].mean() + 4
        beside, top = [], []
        for sign in (-1, 1):
            ear_side = (ear & (sign * x > 0)).nonzero().squeeze(1)
            top.append(ear_side[y[ear_side].argmax()])
            passed = ((y - height).abs() < TEMPLE_BAND_MM) & (sign * x > 0) & ~ear
            passed &= (z > TEMPLE_DEPTH_MM[0]) & (z < TEMPLE_DEPTH_MM[1])
            beside.append(passed.nonzero().squeeze(1))
        self.beside_index = tuple(beside)  # the subject's right, then left
        self.ear_index = torch.stack(top)  # (2,)

        rim = [tube(RIM_AROUND, RIM_POINTS, ring=True) for _ in range(2)]
        temple = [tube(TEMPLE_AROUND, TEMPLE_POINTS) for _ in range(2)]
        self.frame = join([*rim, *temple, tube(RIM_AROUND, BRIDGE_POINTS)])
        self.lenses = join([_lens_piece() for _ in range(2)])

    def vertices(
        self,
        _: HeadChart,
        measured: Measured,
        parameters: GlassesParameters,
        head_vertices: Tensor,  # (B, N, 3), um
    ) -> Tensor:
        """Vertices of `frame`, then of `lenses`, (B, n, 3), mm."""
        glasses = parameters._make(field[:, None] for field in parameters)  # (B, 1) each
        eyes = torch.stack(
            [measured.landmarks[:, 36:42].mean(1), measured.landmarks[:, 42:48].mean(1)], 1
        )  # (B, 2, 3)
        half_distance = (eyes[:, 1, 0] - eyes[:, 0, 0])[:, None] / 2
        middle = eyes.mean(1)  # (B, 3)
        # Lenses are ground to the eyes: a wide-set pair wears wide ones.
        half_width = torch.minimum(glasses.half_width_mm, 1.25 * half_distance - 7)
        center_x = torch.maximum(glasses.gap_mm / 2 + half_width, 0.94 * half_distance)
        center_y = middle[:, 1:2] - glasses.slide_mm

        def bend(x: Tensor, y: Tensor) -> Tensor:  # (B, any)
            return -glasses.wrap * (x - middle[:, :1]) ** 2 + glasses.tilt * (y - center_y)

        clear = head_vertices[:, self.clear_index] / UM_PER_MM
        reach = clear[..., 2] - bend(clear[..., 0], clear[..., 1])
        front = reach.amax(1, keepdim=True) + glasses.clearance_mm

        angle = torch.arange(RIM_POINTS) * (2 * math.pi / RIM_POINTS)
        cos, sin = angle.cos(), angle.sin()
        radius = (cos.abs() ** glasses.squareness + sin.abs() ** glasses.squareness) ** (
            -1 / glasses.squareness
        )
        outline_x, outline_y = half_width * radius * cos, glasses.half_height_mm * radius * sin
        lower = (-sin).clamp(min=0)
        outline_y = outline_y - glasses.droop * glasses.half_height_mm * lower * (0.4 + 0.6 * cos)

        rims, lenses, temples = [], [], []
        rings = torch.linspace(0, 1, LENS_RINGS + 1)[:, None, None]
        forward = torch.tensor([0.0, 0.0, 1.0]).expand(len(eyes), 1, 3)
        for side, sign in enumerate((-1, 1)):
            x = middle[:, :1] + sign * (center_x + outline_x)
            y = center_y + outline_y
            rim = torch.stack([x, y, front + bend(x, y)], -1)  # (B, Q, 3)
            thick = (glasses.rim_mm / 2).expand(-1, RIM_POINTS)
            ring = sweep(rim, thick, thick, forward, RIM_AROUND, ring=True)
            rims.append(where_worn(ring, parameters.rimmed))
            # Rings from the middle to the rim.
            center = rim.mean(1, keepdim=True)
            lenses.append((center[:, None] + (rim - center)[:, None] * rings).flatten(1, 2))
            temples.append(self._temple(head_vertices, rim[:, 1], side, glasses))

        inner = half_width * 0.98
        share = torch.linspace(-1, 1, BRIDGE_POINTS)
        x = middle[:, :1] + (center_x - inner) * share
        y = center_y + glasses.half_height_mm * (0.32 + 0.18 * (1 - share**2))
        nose = head_vertices[:, self.nose_index] / UM_PER_MM
        beyond = (nose[..., 1] - y.mean(1, keepdim=True)).abs() * 2  # only what is level counts
        saddle = (nose[..., 2] - beyond).amax(1, keepdim=True) + 1.2
        z = torch.maximum(front + bend(x, y), saddle - 3 * share**2)
        half = (glasses.rim_mm / 2).clamp(min=0.6).expand(-1, BRIDGE_POINTS)
        upright = torch.tensor([0.0, 1.0, 0.0]).expand(len(eyes), 1, 3)
        bridge = sweep(torch.stack([x, y, z], -1), half, half, upright, RIM_AROUND)

        return torch.cat([*rims, *temples, bridge, *lenses], 1)

    def _temple(
        self,
        head_vertices: Tensor,  # (B, N, 3), um
        corner: Tensor,  # (B, 3), where it is hinged
        side: int,  # 0: the subject's right
        glasses: GlassesParameters,  # (B, 1) each
    ) -> Tensor:
        """From the hinge past the side of the head to the ear's top, and down behind it."""
        sign = 2 * side - 1
        beside = head_vertices[:, self.beside_index[side]] / UM_PER_MM
        ear = head_vertices[:, self.ear_index[side]] / UM_PER_MM
        ear = ear - ear.new_tensor([sign * 3.0, EAR_CONTACT_MM, 0.0])
        share = torch.linspace(0, 1, TEMPLE_POINTS - 2)[:, None]
        straight = corner[:, None] + (ear - corner)[:, None] * share  # (B, P - 2, 3)
        # Never inside the head: at least as far out as the skin it passes.
        past = (straight[:, :, None, 1:] - beside[:, None, :, 1:]).abs()
        skin = (sign * beside[:, None, :, 0] - 0.5 * past.sum(-1)).amax(-1)
        out = torch.maximum(sign * straight[..., 0], skin + TEMPLE_GAP_MM)
        straight = torch.stack([sign * out, straight[..., 1], straight[..., 2]], -1)
        inward = ear.new_tensor([-sign * 3.0, -HOOK_DROP_MM, -HOOK_DEPTH_MM])
        knee = straight[:, -1] + inward * ear.new_tensor([0.3, 0.2, 0.5])
        path = torch.cat([straight, knee[:, None], (straight[:, -1] + inward)[:, None]], 1)

        taper = torch.linspace(1, 0.6, TEMPLE_POINTS)
        height = glasses.temple_mm / 2 * taper
        thick = (glasses.rim_mm * 0.4).clamp(0.5, 1.2).expand_as(height)
        upright = ear.new_tensor([0.0, 1.0, 0.0]).expand(len(ear), 1, 3)
        return sweep(path, height, thick, upright, TEMPLE_AROUND)


def draw_glasses(generator: np.random.Generator, *, worn: bool, sun: bool) -> GlassesParameters:
    """One pair: thin metal or thick plastic, round to rectangular, aviators among them."""
    uniform = generator.uniform
    thick = generator.random() < 0.5
    aviator = generator.random() < (0.35 if sun else 0.1)
    height = uniform(17, 25) if sun or aviator else uniform(12, 22)
    return GlassesParameters(
        worn=np.float64(worn),
        rimmed=np.float64(generator.random() > 0.15),
        half_width_mm=np.float64(max(uniform(22, 28) + 2 * sun, height)),
        half_height_mm=np.float64(height),
        squareness=np.float64(uniform(2.0, 2.6) if aviator else uniform(2.0, 6.0)),
        droop=np.float64(uniform(0.2, 0.45) if aviator else uniform(0.0, 0.15)),
        gap_mm=np.float64(uniform(14, 21)),
        rim_mm=np.float64(uniform(2.2, 5.5) if thick else uniform(0.8, 1.8)),
        temple_mm=np.float64(uniform(3, 9) if thick else uniform(1.2, 3)),
        wrap=np.float64(uniform(0.0015, 0.004) if sun else uniform(0.0005, 0.002)),
        tilt=np.float64(uniform(0.08, 0.2)),
        slide_mm=np.float64(uniform(-1, 5) + 8 * float(generator.random() < 0.08)),
        clearance_mm=np.float64(uniform(1.5, 5)),
    )


def _lens_piece() -> Piece:
    """Rings of a disc; uv spans the lens from its inner lower to its outer upper corner."""
    ring = torch.arange(LENS_RINGS)[:, None] * RIM_POINTS
    around = torch.arange(RIM_POINTS)
    beside = (around + 1) % RIM_POINTS
    inner_a, inner_b = ring + around, ring + beside
    outer_a, outer_b = inner_a + RIM_POINTS, inner_b + RIM_POINTS
    triangles = torch.cat(
        [
            torch.stack([inner_a, outer_b, outer_a], -1)[1:].reshape(-1, 3),
            torch.stack([inner_a, inner_b, outer_b], -1)[1:].reshape(-1, 3),
            torch.stack([inner_a[0], outer_b[0], outer_a[0]], -1),
        ]
    )
    angle = around * (2 * math.pi / RIM_POINTS)
    share = torch.linspace(0, 1, LENS_RINGS + 1)[:, None]
    uv = torch.stack([share * angle.cos(), share * angle.sin()], -1) / 2 + 0.5
    return Piece(triangles, uv.reshape(-1, 2), torch.ones(len(triangles), dtype=torch.bool))
