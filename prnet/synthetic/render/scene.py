"""The geometry of a sample: head and accessories as one mesh in three layers.

Letters: B batch, V vertices of head and accessories together, T triangles.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prnet.faces.embedded import SEAM_SPAN, Head, window_triangles
from prnet.faces.face import Face
from prnet.geometry.compiled import cached
from prnet.geometry.rasterize import corners_of
from prnet.synthetic.render.bank import MARGIN, texel_of
from prnet.synthetic.render.normals import diagonals_of
from prnet.synthetic.worn.accessories import CUTOUT, LENS, OPAQUE, Accessories, AccessoryParameters
from prnet.synthetic.worn.patterns import KIND_NAMES

# What is painted alike; also the order in which a layer's pixels are drawn.
MOUTH_PARTS = ("cavity", "teeth", "tongue")
LOOKS = ("skin", "eye", *MOUTH_PARTS, *KIND_NAMES)
SKIN, EYE = LOOKS.index("skin"), LOOKS.index("eye")
MOUTH_LOOK, ACCESSORY_LOOK = LOOKS.index(MOUTH_PARTS[0]), LOOKS.index(KIND_NAMES[0])
# How the head's regions look; regions that are not here are not drawn.
REGIONS = {
    "skin": SKIN,
    "neck": SKIN,
    "eye_left": EYE,
    "eye_right": EYE,
    "cavity": LOOKS.index("cavity"),
    "upper_teeth": LOOKS.index("teeth"),
    "lower_teeth": LOOKS.index("teeth"),
    "tongue": LOOKS.index("tongue"),
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
    """Triangles that are drawn together, as compiled loops take them. Sheets are listed with both
    windings, so that back faces can always be left out."""

    triangles: np.ndarray  # (T, 3), uint32, vertices of head and accessories
    two_sided: np.ndarray  # (T,), bool: of a sheet
    look: np.ndarray  # (T,), uint8, into `LOOKS`
    attributes: np.ndarray  # (V, 4): u, v, occlusion, scalp hair
    eye_direction: np.ndarray  # (V, 3)


class Scene:
    """Everything about the mesh that no sample changes."""

    def __init__(self, head: Head, face: Face, accessories: Accessories) -> None:
        self.head, self.accessories = head, accessories
        self.num_head = head.morphable_model.num_vertices
        self.num_vertices = self.num_head + accessories.num_vertices
        self.window = head.triangles[window_triangles(head)].unique()
        margin = functional.pad(face.uv.face_mask, (MARGIN,) * 4)
        self.face_mask = margin.flatten()  # of the texture with its margin
        tables = self._attributes().numpy(), self._eye_direction().numpy()
        self.layers: dict[int, Layer] = {}
        # Of each layer but the head's its vertices, which lie together.
        self.worn: dict[int, slice] = {}
        fronts = []
        for kind in (OPAQUE, CUTOUT, LENS):
            triangles, two_sided, look = self._triangles(kind)
            fronts.append(triangles)
            self.worn[kind] = slice(int(triangles.min()), int(triangles.max()) + 1)
            triangles = torch.cat([triangles, triangles[two_sided].flip(1)])
            two_sided, look = (torch.cat([x, x[two_sided]]) for x in (two_sided, look))
            arrays = corners_of(triangles), two_sided.numpy(), look.to(torch.uint8).numpy()
            self.layers[kind] = Layer(*arrays, *tables)
        # Shadows are cast by everything but glass.
        self.casting = np.concatenate([self.layers[x].triangles for x in (OPAQUE, CUTOUT)])
        # Of all layers together, for `quad_normals`.
        self.diagonals = torch.cat([diagonals_of(triangles) for triangles in fronts])

    def _triangles(self, kind: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of one layer: triangles (T, 3), each once; which are of sheets (T,); looks (T,)."""
        accessories, head = self.accessories, self.head
        chosen = accessories.layer == kind
        triangles = accessories.triangles[chosen] + self.num_head
        two_sided = accessories.two_sided[chosen]
        look = ACCESSORY_LOOK + accessories.kind[chosen]
        if kind == OPAQUE:
            names = head.region_names
            head_look = torch.tensor([REGIONS.get(name, -1) for name in names])
            head_look = head_look[head.triangle_region]
            shown = head_look >= 0
            sheet = torch.tensor([name in TWO_SIDED_REGIONS for name in names])
            triangles = torch.cat([head.triangles[shown], triangles])
            two_sided = torch.cat([sheet[head.triangle_region][shown], two_sided])
            look = torch.cat([head_look[shown], look])
        return triangles, two_sided, look

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
        vertices = shape_params.new_zeros(len(shape_params), self.num_vertices, 3)
        head, worn = vertices.split([self.num_head, self.accessories.num_vertices], 1)
        parts = zip(*(each.split(ROWS) for each in (shape_params, exp_params, head)), strict=True)
        for shape, exp, target in parts:
            missing = (0, 0, 0, ROWS - len(shape))
            shape, exp = functional.pad(shape, missing), functional.pad(exp, missing)
            target.copy_(self.head.morphable_model(shape, exp)[: len(target)])
        worn.copy_(self.accessories.vertices(head, accessories))
        return vertices


def transform(matrix: Tensor, points: Tensor) -> Tensor:  # (B, 3 or 4, 4), (B, N, 3)
    """Apply an affine map to points, (B, N, 3); sums in one order for every batch."""
    moved = torch.zeros_like(points)
    transform_into(matrix.numpy(), points.contiguous().numpy(), moved.numpy())
    return moved


@cached()
def transform_into(
    matrix: np.ndarray,  # (B, 3 or 4, 4)
    points: np.ndarray,  # (B, N, 3)
    moved: np.ndarray,  # (B, N, 3), written
) -> None:
    for sample in range(len(points)):
        for row in range(3):
            m_x, m_y = matrix[sample, row, 0], matrix[sample, row, 1]
            m_z, shift = matrix[sample, row, 2], matrix[sample, row, 3]
            for point in range(points.shape[1]):
                x, y = points[sample, point, 0], points[sample, point, 1]
                z = points[sample, point, 2]
                moved[sample, point, row] = m_x * x + m_y * y + m_z * z + shift
