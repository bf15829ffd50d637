"""Everything worn or held: hair, glasses, hats, hoods, clothes, hands and things before the face.

Letters: B batch, N vertices of the head, A vertices and T triangles of the accessories, K kinds.
The mesh has one fixed topology: a batch shares its triangles, and what a sample does not wear
sits at one point far behind the head, without area.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prnet.faces.embedded import Head
from prnet.synthetic.worn.glasses import Glasses, GlassesParameters, draw_glasses
from prnet.synthetic.worn.hair import Hair, HairParameters, scalp_hair
from prnet.synthetic.worn.hair_styles import HairRule, draw_hair
from prnet.synthetic.worn.hand_poses import HandRule, draw_hands
from prnet.synthetic.worn.hands import HandParameters, Hands
from prnet.synthetic.worn.head_chart import UM_PER_MM, HeadChart, Measured
from prnet.synthetic.worn.headwear import Headwear, HeadwearParameters
from prnet.synthetic.worn.headwear_styles import HeadwearRule, draw_headwear
from prnet.synthetic.worn.patterns import (
    BEARD,
    GARMENT,
    GLASSES_FRAME,
    HAIR,
    HAND,
    HAT,
    HOOD,
    LENSES,
    OBJECT,
    draw_paint,
)
from prnet.synthetic.worn.solids import NOWHERE_MM, join, select

# How a triangle covers what is behind it: wholly, where alpha says so, or as glass.
OPAQUE, CUTOUT, LENS = 0, 1, 2


class AccessoryRule(NamedTuple):
    """Probabilities of wearing or holding, by what it is."""

    hair: HairRule
    headwear: HeadwearRule
    hands: HandRule
    glasses: float
    sunglasses: float  # besides glasses


class AccessoryParameters(NamedTuple):
    """What one sample wears: float64 scalars and arrays; of a batch: float32 tensors, (B, ...)."""

    hair: HairParameters
    headwear: HeadwearParameters
    glasses: GlassesParameters
    hands: HandParameters
    paint: np.ndarray  # (K, P)


class Accessories:
    """The mesh of all accessories. Attributes are tensors of fixed size.

    Attributes:
        triangles: (T, 3) int64. Outward as those of the head.
        layer: (T,) int64, OPAQUE, CUTOUT or LENS.
        kind: (T,) int64, into KIND_NAMES.
        two_sided: (T,) bool. Sheets, listed once and seen from both sides: they are not to be
            culled, and their normals are to be turned to the viewer. The others are closed.
        uv: (A, 2) float32, across the pattern and along it.
        scalp_hair: (N,) float32 in [0, 1], where hair grows on the skin.
    """

    def __init__(self, head: Head) -> None:
        self.chart = HeadChart(head)
        self.hair = Hair(self.chart)
        self.headwear = Headwear()
        self.glasses = Glasses(head)
        self.hands = Hands()
        self.scalp_hair = scalp_hair(head)
        # In the order of `vertices`.
        pieces = (
            (self.hair.sheets, CUTOUT, HAIR),
            (self.hair.beard, CUTOUT, BEARD),
            (self.hair.bun, CUTOUT, HAIR),
            (self.headwear.hat, OPAQUE, HAT),
            (self.headwear.hood, OPAQUE, HOOD),
            (self.headwear.garment, OPAQUE, GARMENT),
            (self.glasses.frame, OPAQUE, GLASSES_FRAME),
            (self.glasses.lenses, LENS, LENSES),
            (self.hands.hands, OPAQUE, HAND),
            (self.hands.object, OPAQUE, OBJECT),
        )
        self.triangles, self.uv, self.two_sided = join([piece for piece, _, _ in pieces])
        self.num_vertices = len(self.uv)
        counts = torch.tensor([len(piece.triangles) for piece, _, _ in pieces])
        self.layer = torch.tensor([layer for _, layer, _ in pieces]).repeat_interleave(counts)
        self.kind = torch.tensor([kind for _, _, kind in pieces]).repeat_interleave(counts)

    def vertices(
        self,
        head_vertices: Tensor,  # (B, N, 3), model frame, um
        parameters: AccessoryParameters,  # of tensors, (B, ...)
    ) -> Tensor:
        """The accessories on these heads, (B, A, 3), model frame, um."""
        chart, hair, headwear, hands = self.chart, self.hair, self.headwear, self.hands
        everybody = chart.measure(head_vertices)

        def fit(worn: Tensor, count: int, make: Callable, *needed: tuple | Tensor) -> Tensor:
            """Only those who wear it are worked on, with what is needed of them; the others get
            `NOWHERE_MM`."""
            wearers = (worn > 0.5).nonzero().squeeze(1)
            points = worn.new_tensor(NOWHERE_MM).repeat(len(worn), count, 1)
            if len(wearers) == 0:
                return points
            made = make(chart, *(select(part, wearers) for part in (everybody, *needed)))
            return points.index_copy(0, wearers, made)

        def hair_vertices(
            chart: HeadChart, heads: Measured, chosen: HairParameters, covering: HeadwearParameters
        ) -> Tensor:
            ceiling = headwear.ceiling(chart, covering)
            # Under a hood, hair cannot stand further off than the hood.
            hooded = torch.minimum(chosen.hang, covering.hood_hang)
            hang = torch.where(covering.hood_worn > 0.5, hooded, chosen.hang)
            return hair.vertices(chart, heads, chosen._replace(hang=hang), ceiling)

        shell, heads, hand = parameters.hair, parameters.headwear, parameters.hands
        bun_worn = shell.worn * shell.bun_worn * (1 - heads.hood_worn) * (1 - heads.hat_worn)
        hooded = torch.maximum(heads.hood_worn, heads.wrap_worn)
        glasses, eyewear = self.glasses, parameters.glasses
        num_glasses = len(glasses.frame.uv) + len(glasses.lenses.uv)
        pieces = (
            fit(shell.worn, len(hair.sheets.uv), hair_vertices, shell, heads),
            fit(shell.beard_worn, len(hair.beard.uv), hair.beard_vertices, shell),
            fit(bun_worn, len(hair.bun.uv), hair.bun_vertices, shell),
            fit(heads.hat_worn, len(headwear.hat.uv), headwear.hat_vertices, heads),
            fit(hooded, len(headwear.hood.uv), headwear.hood_vertices, heads),
            fit(heads.garment_worn, len(headwear.garment.uv), headwear.garment_vertices, heads),
            fit(eyewear.worn, num_glasses, glasses.vertices, eyewear, head_vertices),
            fit(hand.worn.amax(1), len(hands.hands.uv), hands.hand_vertices, hand),
            fit(hand.object_worn, len(hands.object.uv), hands.object_vertices, hand),
        )
        return torch.cat(pieces, 1) * UM_PER_MM


def draw_accessories(generator: np.random.Generator, rule: AccessoryRule) -> AccessoryParameters:
    """What one sample wears; the same state of the generator gives the same."""
    eyewear = generator.random()
    sun = eyewear < rule.sunglasses
    return AccessoryParameters(
        hair=draw_hair(generator, rule.hair),
        headwear=draw_headwear(generator, rule.headwear),
        hands=draw_hands(generator, rule.hands),
        glasses=draw_glasses(generator, worn=eyewear < rule.sunglasses + rule.glasses, sun=sun),
        paint=draw_paint(generator, sun=sun),
    )
