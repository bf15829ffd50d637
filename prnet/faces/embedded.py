"""The face that comes with the package: `assets/embedded_face.npz`, made from CC0 data by
`scripts/build_embedded_face.py` (see ASSETS.md).

The file holds a coarse head in mm; it is refined once by Catmull-Clark as it is read. Letters: C
coarse vertices, N render vertices, T triangles, P polygons.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy  # which imports scipy.sparse where it is first used
import torch
from torch import Tensor

from prnet.faces.face import REGIONS, Face, fingerprint_of
from prnet.files import read_npz
from prnet.geometry.morphable_model import MorphableModel
from prnet.geometry.subdivision import NO_CORNER, Subdivision, catmull_clark, quad_triangles
from prnet.geometry.uv import UVLayout, face_mask_from_jaw, uv_pixels

NAME = "embedded"
ASSET = Path(__file__).resolve().parents[1] / "assets" / "embedded_face.npz"
MICROMETRES = 1000  # in a millimetre, the unit of the file
# Polygons of these regions form the closed surface that is refined; the others are only rendered.
SURFACE_REGIONS = ("skin", "neck", "eye_left", "eye_right", "mouth_slit")
MASKS = ("lips", "eyelids", "ears")
UV_RESOLUTION = 256
# A triangle that spans more of u than this is cut by the seam at the back of the head.
SEAM_SPAN = 0.5
# The face mask: how far the jaw line is pushed outward from the nose tip, and the hair line's v.
JAW_SCALE = 1.05
HAIR_LINE = 0.89
# Expression coefficients are weights in [0, 1] of which most are near 0: about their rms.
EXP_STD = 0.3


class Head(NamedTuple):
    """Everything a renderer needs; CPU, model frame, micrometre (one unit for all faces).

    Vertices: the refined surface first, then the coarse vertices of the parts inside it.
    """

    morphable_model: MorphableModel  # shape bases of unit variance; expressions are weights in 0..1
    num_surface: int
    triangles: Tensor  # (T, 3), outward in the y-down image frame
    triangle_region: Tensor  # (T,), index into region_names
    region_names: tuple[str, ...]
    uv_coords: Tensor  # (N, 2), the face window is [0, 1]^2; beyond it outside, -1 off the surface
    landmark_index: Tensor  # (68,), iBUG order
    mirror_index: Tensor  # (N,), the vertex on the other side
    ambient_occlusion: Tensor  # (N,), 1 where all of the sky is seen
    masks: dict[str, Tensor]  # `MASKS`, (N,), in [0, 1]
    regions: dict[str, Tensor]  # (N,), bool: `prnet.faces.face.REGIONS`
    exp_names: tuple[str, ...]  # ARKit's
    eye_centers: Tensor  # (2, 3), of the eyeballs on the mean, the subject's left first
    eye_radius: float
    fingerprint: str  # of the file's content


def load_head() -> Head:
    """The whole head, read and refined.

    Raises:
        FileNotFoundError: the asset is not where the package was installed.
    """
    asset = read_npz(ASSET, hint="install the package again, with its assets")
    region_names = tuple(asset["region_names"].tolist())
    polygons = asset["polygons"].astype(np.int64)
    polygon_region = asset["polygon_region"].astype(np.int64)
    on_surface = np.isin(polygon_region, [region_names.index(name) for name in SURFACE_REGIONS])
    surface_polygons, inner_polygons = polygons[on_surface], polygons[~on_surface]
    num_coarse = surface_polygons.max() + 1
    refined = catmull_clark(num_coarse, surface_polygons, asset["crease_edges"].astype(np.int64))
    num_surface = refined.matrix.shape[0]
    landmark_index = asset["landmark_index"].astype(np.int64)
    slide = slide_matrix(
        num_surface, landmark_index, asset["landmark_corners"], asset["landmark_weights"]
    )
    surface_from_coarse = (slide @ refined.matrix).astype(np.float32)

    inner_triangles, inner_parent = _inner_triangles(inner_polygons, refined, num_coarse)
    triangles = np.concatenate([quad_triangles(refined.quads), inner_triangles])
    triangle_region = np.concatenate(
        [
            polygon_region[on_surface][refined.parent].repeat(2),
            polygon_region[~on_surface][inner_parent],
        ]
    )
    fields = {
        name: _render_vertices(asset[name], surface_from_coarse)
        for name in ("mean", "shape_basis", "exp_basis")
    }
    unit = {name: asset[name].astype(np.float32) / 255 for name in ("ambient_occlusion", *MASKS)}
    region_class = asset["region_class"]
    return Head(
        morphable_model=MorphableModel(**{n: torch.from_numpy(f) for n, f in fields.items()}),
        num_surface=num_surface,
        # The file's polygons are outward where y points up.
        triangles=torch.from_numpy(np.ascontiguousarray(triangles[:, ::-1])),
        triangle_region=torch.from_numpy(triangle_region),
        region_names=region_names,
        uv_coords=torch.from_numpy(asset["uv_coords"]),
        landmark_index=torch.from_numpy(landmark_index),
        mirror_index=torch.from_numpy(asset["mirror_index"].astype(np.int64)),
        ambient_occlusion=torch.from_numpy(unit["ambient_occlusion"]),
        masks={name: torch.from_numpy(unit[name]) for name in MASKS},
        regions={name: torch.from_numpy(region_class == k) for k, name in enumerate(REGIONS)},
        exp_names=tuple(asset["exp_names"].tolist()),
        eye_centers=torch.from_numpy(asset["eye_centers"] * np.float32(MICROMETRES)),
        eye_radius=float(asset["eye_radius"]) * MICROMETRES,
        fingerprint=fingerprint_of(asset),
    )


def load_embedded() -> Face:
    """The part of the head that the position map covers, with its UV layout.

    Raises:
        FileNotFoundError: as `load_head`.
    """
    head = load_head()
    in_window = window_triangles(head)
    kept, compact = torch.unique(head.triangles[in_window], return_inverse=True)
    index = torch.full((len(head.uv_coords),), -1)
    index[kept] = torch.arange(len(kept))
    regions = {name: region[kept] for name, region in head.regions.items()}
    landmark_index = index[head.landmark_index]
    uv_coords = head.uv_coords[kept].double().numpy()
    uv = UVLayout(
        uv_coords,
        compact.numpy(),
        landmark_index.numpy(),
        ~regions["rest"].numpy(),
        resolution=UV_RESOLUTION,
        face_mask=face_mask(uv_pixels(uv_coords, UV_RESOLUTION)[landmark_index], UV_RESOLUTION),
    )
    return Face(
        name=NAME,
        morphable_model=head.morphable_model.at_vertices(kept),
        uv=uv,
        triangles=compact,
        landmark_index=landmark_index,
        regions=regions | {"ears": head.masks["ears"][kept] > 0.5},
        mirror_index=index[head.mirror_index[kept]],
        shape_std=torch.ones(head.morphable_model.num_shape),
        exp_std=torch.full((head.morphable_model.num_exp,), EXP_STD),
        exp_names=head.exp_names,
        fingerprint=head.fingerprint,
    )


def window_triangles(head: Head) -> Tensor:
    """The surface triangles that reach into the face window, indices into `head.triangles`."""
    surface = torch.tensor([head.region_names.index(name) for name in SURFACE_REGIONS])
    on_surface = torch.isin(head.triangle_region, surface)
    corners = head.uv_coords[head.triangles]  # (T, 3, 2)
    low, high = corners.amin(1), corners.amax(1)
    reaches = ((high >= 0) & (low <= 1)).all(1) & (high[:, 0] - low[:, 0] < SEAM_SPAN)
    return (on_surface & reaches).nonzero().squeeze(1)


def face_mask(landmark_pixels: np.ndarray, resolution: int) -> np.ndarray:  # (68, 2)
    """Face without neck, ears and hair, (H, W) bool.

    Down to the jaw line, and between its ends up to the hair line in half an ellipse.
    """
    below_hair = face_mask_from_jaw(
        landmark_pixels, resolution=resolution, margin=0, jaw_scale=JAW_SCALE
    )
    tip = landmark_pixels[30]
    right, left = tip + JAW_SCALE * (landmark_pixels[[0, 16]] - tip)
    center = (right + left) / 2
    across = (np.arange(resolution) - center[0]) / (left[0] - center[0])
    height = center[1] - (resolution - 1) * (1 - HAIR_LINE)
    up = (center[1] - np.arange(resolution)[:, None]) / height
    return below_hair & (across**2 + up.clip(min=0) ** 2 <= 1)


def slide_matrix(
    num_vertices: int,
    index: np.ndarray,  # (K,), vertices that move
    corners: np.ndarray,  # (K, 3), vertices of the triangle each moves into
    weights: np.ndarray,  # (K, 3)
) -> "scipy.sparse.csr_array":
    """Puts some vertices on to given places of the surface, (N, N): landmarks are vertices."""
    stay = np.setdiff1d(np.arange(num_vertices), index)
    rows = np.concatenate([stay, np.repeat(index, 3)])
    columns = np.concatenate([stay, corners.ravel()])
    values = np.concatenate([np.ones(len(stay)), weights.ravel()])
    return scipy.sparse.coo_array(
        (values, (rows, columns)), shape=(num_vertices, num_vertices)
    ).tocsr()


def _render_vertices(
    values: np.ndarray,  # (C, 3) or (bases, C, 3), mm
    surface_from_coarse: "scipy.sparse.csr_array",  # (num_surface, coarse vertices of the surface)
) -> np.ndarray:
    """A field at the render vertices, in micrometre, float32."""
    by_vertex = np.moveaxis(values.astype(np.float32) * np.float32(MICROMETRES), -2, 0)  # (C, ...)
    on_surface, inner = np.split(
        by_vertex.reshape(len(by_vertex), -1), surface_from_coarse.shape[1:]
    )
    rows = np.concatenate([surface_from_coarse @ on_surface, inner])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(-1, *by_vertex.shape[1:]), 0, -2))


def _inner_triangles(
    polygons: np.ndarray,  # (P, 4), coarse vertices
    refined: Subdivision,
    num_coarse: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles on the render vertices (T, 3) and the polygon of each (T,).

    Where a polygon has a side in common with the surface it takes the vertex that refinement put
    on that side, or the rim would show cracks.
    """
    num_surface = refined.matrix.shape[0]
    on_side = {tuple(edge): num_coarse + e for e, edge in enumerate(refined.edges.tolist())}
    triangles, parent = [], []
    for number, polygon in enumerate(polygons.tolist()):
        corners = [corner for corner in polygon if corner != NO_CORNER]
        ring = []
        for corner, after in zip(corners, corners[1:] + corners[:1], strict=True):
            ring.append(corner if corner < num_coarse else corner - num_coarse + num_surface)
            middle = on_side.get((min(corner, after), max(corner, after)))
            ring += [middle] if middle is not None else []
        # A fan from the last vertex on a side, if any, so that no triangle is flat.
        on_sides = [k for k, vertex in enumerate(ring) if num_coarse <= vertex < num_surface]
        start = max(on_sides, default=0)
        ring = ring[start:] + ring[:start]
        fan = [[ring[0], ring[k], ring[k + 1]] for k in range(1, len(ring) - 1)]
        triangles += fan
        parent += [number] * len(fan)
    return np.array(triangles), np.array(parent)
