"""The geometry of a sample: head and accessories as one mesh in three layers.

Letters: B batch, V vertices of head and accessories together, T triangles.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prnet.faces.embedded import SEAM_SPAN, Head, window_triangles
from prnet.faces.face import Face
from prnet.synthetic.rasterize_cpu import corners_of, quad_normals_cpu
from prnet.synthetic.render.bank import MARGIN, texel_of
from prnet.synthetic.worn.accessories import (
    CUTOUT,
    KIND_NAMES,
    LENS,
    OPAQUE,
    Accessories,
    AccessoryParameters,
)

# What is painted alike; also the order in which a layer's pixels are kept.
GROUPS = SKIN, EYE, MOUTH, ACCESSORY = range(4)
NO_GROUP = len(GROUPS)
MOUTH_PARTS = ("cavity", "teeth", "tongue")
# The same with each part of the mouth and each kind of accessory apart, and their first.
LOOKS = ("skin", "eye", *MOUTH_PARTS, *KIND_NAMES)
MOUTH_LOOK, ACCESSORY_LOOK = LOOKS.index(MOUTH_PARTS[0]), LOOKS.index(KIND_NAMES[0])
# Group and kind of the head's regions; regions that are not here are not drawn.
REGIONS = {
    "skin": (SKIN, 0),
    "neck": (SKIN, 0),
    "eye_left": (EYE, 0),
    "eye_right": (EYE, 0),
    "cavity": (MOUTH, MOUTH_PARTS.index("cavity")),
    "upper_teeth": (MOUTH, MOUTH_PARTS.index("teeth")),
    "lower_teeth": (MOUTH, MOUTH_PARTS.index("teeth")),
    "tongue": (MOUTH, MOUTH_PARTS.index("tongue")),
}
TWO_SIDED_REGIONS = ("cavity",)
INNER_LIPS = slice(60, 68)
# Light fades this fast behind the lips, beyond their thickness.
MOUTH_DEPTH_UM = 18_000.0
MOUTH_RIM_UM = 12_000.0
FAR_OUTSIDE = -1e4
# The product of coefficients and bases has always this many rows: the order in which a library
# sums depends on the shape, and a sample must not depend on its batch.
ROWS = 16


class Layer(NamedTuple):
    """Triangles that are drawn together."""

    triangles: Tensor  # (T, 3), vertices of head and accessories
    kind: Tensor  # (T,), part of the mouth, or kind of the accessory
    two_sided: Tensor  # (T,), bool: listed with both windings
    group: Tensor  # (T + 1,), uint8; entry t + 1 is of triangle t, entry 0 is NO_GROUP
    look: Tensor  # (T,), uint8; of `LOOKS`
    vertices: Tensor  # (n,), those of the triangles
    num_backs: int  # of the triangles, at their end: sheets seen from behind


class Mesh(NamedTuple):
    """A layer as compiled loops take it."""

    triangles: np.ndarray  # (T, 3), uint32
    two_sided: np.ndarray  # (T,)
    look: np.ndarray  # (T,)
    attributes: np.ndarray  # (V, 4): u, v, occlusion, scalp hair
    eye_direction: np.ndarray  # (V, 3)


class Scene:
    """Everything about the mesh that no sample changes."""

    def __init__(self, head: Head, face: Face, accessories: Accessories) -> None:
        self.head, self.accessories = head, accessories
        self.num_head = head.morphable_model.num_vertices
        self.num_vertices = self.num_head + accessories.num_vertices
        self.layers = {kind: self._layer(kind) for kind in (OPAQUE, CUTOUT, LENS)}
        # Shadows are cast by everything but glass.
        self.casting = torch.cat([self.layers[OPAQUE].triangles, self.layers[CUTOUT].triangles])
        self.window = head.triangles[window_triangles(head)].unique()
        self.attributes = self._attributes()
        self.eye_direction = self._eye_direction()
        margin = functional.pad(face.uv.face_mask, (MARGIN,) * 4)
        self.face_mask = margin.flatten()  # of the texture with its margin
        quads = torch.cat(
            [
                quads_of(layer.triangles[: len(layer.triangles) - layer.num_backs])
                for layer in self.layers.values()
            ]
        )
        # Diagonals of each quad, whose cross product is twice its area; start before end.
        self._diagonals = quads[:, [0, 2, 1, 3]].to(torch.int32)
        # A triangle names its last corner twice, which is to count once.
        corner, quad = quads.flatten(), torch.arange(len(quads)).repeat_interleave(4)
        once = torch.ones_like(quads, dtype=torch.bool)
        once[:, 3] = quads[:, 3] != quads[:, 2]
        corner, quad = corner[once.flatten()], quad[once.flatten()]
        self._incident = quad[torch.argsort(corner, stable=True)].to(torch.int32)
        counts = torch.bincount(corner, minlength=self.num_vertices)
        self._incident_start = (counts.cumsum(0) - counts).to(torch.int32)

    def to(self, device: torch.device | str) -> "Scene":
        """The scene with its tensors on another device; in place."""
        self.accessories = self.accessories.to(device)
        self.head = self.head._replace(morphable_model=self.head.morphable_model.to(device))
        self.layers = {
            kind: Layer(*(v.to(device) if isinstance(v, Tensor) else v for v in layer))
            for kind, layer in self.layers.items()
        }
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    @cached_property
    def meshes(self) -> dict[int, Mesh]:
        """The layers on a CPU."""
        tables = self.attributes.numpy(), self.eye_direction.numpy()
        return {
            kind: Mesh(
                corners_of(layer.triangles), layer.two_sided.numpy(), layer.look.numpy(), *tables
            )
            for kind, layer in self.layers.items()
        }

    @cached_property
    def casting_corners(self) -> np.ndarray:
        """`casting` on a CPU, (T, 3) uint32."""
        return corners_of(self.casting)

    def _layer(self, kind: int) -> Layer:
        accessories, head = self.accessories, self.head
        chosen = accessories.layer == kind
        triangles = accessories.triangles[chosen] + self.num_head
        part = accessories.kind[chosen]
        group = torch.full_like(part, ACCESSORY)
        two_sided = accessories.two_sided[chosen]
        if kind == OPAQUE:
            drawn = [REGIONS.get(name, (NO_GROUP, 0)) for name in head.region_names]
            head_group, head_part = torch.tensor(drawn)[head.triangle_region].unbind(1)
            shown = head_group != NO_GROUP
            sheet = torch.tensor([name in TWO_SIDED_REGIONS for name in head.region_names])
            triangles = torch.cat([head.triangles[shown], triangles])
            part = torch.cat([head_part[shown], part])
            group = torch.cat([head_group[shown], group])
            two_sided = torch.cat([sheet[head.triangle_region][shown], two_sided])
        # Sheets are listed with both windings, so that back faces can always be left out.
        back = triangles[two_sided].flip(1)
        first_look = torch.tensor([0, 1, MOUTH_LOOK, ACCESSORY_LOOK])
        look = first_look[group] + part
        group = torch.cat([torch.tensor([NO_GROUP]), group, group[two_sided]])
        triangles = torch.cat([triangles, back]).contiguous()
        return Layer(
            triangles,
            torch.cat([part, part[two_sided]]),
            torch.cat([two_sided, two_sided[two_sided]]),
            group.to(torch.uint8),
            torch.cat([look, look[two_sided]]).to(torch.uint8),
            triangles.unique(),
            len(back),
        )

    def _attributes(self) -> Tensor:
        """Column and row of the texture, occlusion and scalp hair of every vertex, (V, 4);
        accessories have u and v instead of column and row."""
        head = self.head
        table = torch.zeros(self.num_vertices, 4)
        texels = texel_of(head.uv_coords)
        # At the back of the head u jumps from one side to the other: put that far outside.
        u = head.uv_coords[head.triangles, 0]  # (T, 3)
        seam = head.triangles[u.amax(1) - u.amin(1) > SEAM_SPAN]
        texels[seam[(seam < head.num_surface).all(1)].unique(), 1] = FAR_OUTSIDE
        table[: self.num_head, :2] = texels
        table[self.num_head :, :2] = self.accessories.uv
        table[:, 2] = 1
        table[: self.num_head, 2] = head.ambient_occlusion
        table[: self.num_head, 3] = self.accessories.scalp_hair
        # Inside the mouth it gets darker with the distance from the lips.
        mean = head.morphable_model.mean
        lips = mean[head.landmark_index[INNER_LIPS], 2].mean()
        inner = slice(head.num_surface, self.num_head)
        depth = (lips - MOUTH_RIM_UM - mean[inner, 2]).clamp(min=0)
        table[inner, 2] = torch.exp(-depth / MOUTH_DEPTH_UM)
        return table

    def _eye_direction(self) -> Tensor:
        """Direction from its eye's centre to every vertex, on the mean, (V, 3); 0 where no eye."""
        head = self.head
        table = torch.zeros(self.num_vertices, 3)
        for name, center in zip(("eye_left", "eye_right"), head.eye_centers, strict=True):
            region = head.region_names.index(name)
            vertices = head.triangles[head.triangle_region == region].unique()
            offset = head.morphable_model.mean[vertices] - center
            table[vertices] = functional.normalize(offset, dim=1)
        return table

    def vertices(
        self,
        shape_params: Tensor,  # (B, S)
        exp_params: Tensor,  # (B, E)
        accessories: AccessoryParameters,  # tensors, leading B
    ) -> Tensor:
        """Head and accessories in the model frame, (B, V, 3)."""
        parts = []
        for shape, exp in zip(shape_params.split(ROWS), exp_params.split(ROWS), strict=True):
            missing = (0, 0, 0, ROWS - len(shape))
            shape, exp = functional.pad(shape, missing), functional.pad(exp, missing)
            parts.append(self.head.morphable_model(shape, exp))
        head = torch.cat(parts)[: len(shape_params)]
        return torch.cat([head, self.accessories.vertices(head, accessories)], 1)

    def normals(self, points: Tensor) -> Tensor:  # (B, V, 3), crop px
        """Outward unit normals, (B, V, 3): means over each vertex's quads, weighted by their area.

        Sums run in the order of the list: on a CPU in a compiled loop, elsewhere by gathers.
        """
        if points.device.type == "cpu":
            return torch.stack([quad_normals_cpu(each, self._diagonals) for each in points])
        return self.normals_by_gathers(points)

    def normals_by_gathers(self, points: Tensor) -> Tensor:  # (B, V, 3), crop px
        """`normals` in plain torch, on any device."""
        batch, num_quads = len(points), len(self._diagonals)
        shift = torch.arange(batch, device=points.device, dtype=torch.int32)[:, None, None]
        rows = points.reshape(-1, 3)
        signs = points.new_tensor([-1.0, 1.0]).expand(batch * num_quads, 2).contiguous()
        corners = self._diagonals + self.num_vertices * shift  # (B, Q, 4)
        first, second = (
            functional.embedding_bag(
                corners[..., part].reshape(-1, 2), rows, per_sample_weights=signs, mode="sum"
            )
            for part in (slice(0, 2), slice(2, 4))
        )
        faces = torch.linalg.cross(first, second)  # (B Q, 3)
        index = (self._incident + num_quads * shift[:, 0]).flatten()
        start = (self._incident_start + len(self._incident) * shift[:, 0]).flatten()
        total = functional.embedding_bag(index, faces, start, mode="sum")
        length = total.square().sum(1, keepdim=True).sqrt()
        return (total / length.clamp(min=1e-12)).view_as(points)


def quads_of(triangles: Tensor) -> Tensor:  # (T, 3)
    """Neighbours in the list that share an edge as one quad, (Q, 4) in the triangles' order of
    corners; the other triangles with their last corner twice."""
    single = torch.cat([triangles, triangles[:, 2:]], 1)
    even = len(triangles) // 2 * 2
    first, second = triangles[0:even:2], triangles[1:even:2]
    shared = (first[:, :, None] == second[:, None, :]).any(2)  # (T / 2, 3), corners of the first
    joined = shared.sum(1) == 2
    # The corner that is not shared comes second: (a, b, c) and the far corner d.
    turn = ((~shared).float().argmax(1, keepdim=True) + torch.tensor([2, 0, 1])) % 3
    near = first.gather(1, turn)
    far = (second * ~(second[:, :, None] == first[:, None, :]).any(2)).sum(1, keepdim=True)
    alone = torch.cat([~joined.repeat_interleave(2), torch.ones(len(triangles) - even).bool()])
    return torch.cat([torch.cat([near, far], 1)[joined], single[alone]])


def transform(matrix: Tensor, points: Tensor) -> Tensor:  # (B, 3 or 4, 4), (B, N, 3)
    """Apply an affine map to points, (B, N, 3); sums in one order for every batch and device."""
    x, y, z = points.unbind(-1)
    rows = matrix[:, :3, :, None].unbind(1)  # three of (B, 4, 1)
    return torch.stack([m[:, 0] * x + m[:, 1] * y + m[:, 2] * z + m[:, 3] for m in rows], -1)
