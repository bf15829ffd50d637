"""Cutting a head out of the body mesh: which vertices, which polygons, what mirrors what."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from embedded_face.wheel import BodyMesh
from prnet.geometry.subdivision import NO_CORNER

# How much of the body stays: down to here, and this far to each side.
NECK_BOTTOM, NECK_HALF_WIDTH = -176.0, 115.0
# Rings of an eyeball's cap, as a share of the way from its middle to the lids.
CAP_RINGS = (0.8, 0.55, 0.28)

SURFACE_REGIONS = ("skin", "neck", "eye_left", "eye_right", "mouth_slit")
INNER_GROUPS = {
    "upper_teeth": "helper-upper-teeth",
    "lower_teeth": "helper-lower-teeth",
    "tongue": "helper-tongue",
    "lashes_lower_left": "helper-l-eyelashes-1",
    "lashes_upper_left": "helper-l-eyelashes-2",
    "lashes_lower_right": "helper-r-eyelashes-1",
    "lashes_upper_right": "helper-r-eyelashes-2",
}
REGION_NAMES = (*SURFACE_REGIONS, "cavity", *INNER_GROUPS)


class Topology(NamedTuple):
    """The coarse head: its surface's vertices come first."""

    combination: csr_array  # (C, V), each coarse vertex as a convex combination of the body's
    polygons: np.ndarray  # (P, 4), three corners end in NO_CORNER; the surface's come first
    polygon_region: np.ndarray  # (P,), index into REGION_NAMES
    crease_edges: np.ndarray  # (edges, 2), rims of lids and lips
    mirror_index: np.ndarray  # (C,)
    texture_vertices: np.ndarray  # (C, 2), NaN where the head's chart has none


class _Cap(NamedTuple):
    """What closes one eye: rings of new vertices from the lids to the middle of the eyeball."""

    polygons: list[list[int]]
    combinations: list[tuple[np.ndarray, np.ndarray]]  # body vertices and weights, one a new vertex


def cut_head(mesh: BodyMesh, reference: np.ndarray) -> Topology:
    """The head of the body mesh, closed at the eyes and the mouth, with what lies inside.

    `reference` (V, 3) is an average adult on the mesh; the choices by position are made on it.
    """
    mirror = mirror_vertices(mesh.vertices)
    charts = _charts(mesh)
    on_body = np.unique(mesh.faces[np.concatenate(charts)])
    crown = on_body[[np.argmax(reference[on_body, 1])]]
    head = _chart_with(charts, mesh.faces, crown)
    others = [chart for chart in charts if chart is not head]

    # Four rims: the neck, the mouth in front of it, and the eyes.
    rims = sorted(boundary_loops(mesh.faces[head]), key=lambda rim: reference[rim, 0].mean())
    left_rim = rims[-1]
    neck_rim, mouth_rim = sorted(rims[1:-1], key=lambda rim: reference[rim, 2].mean())
    torso = _chart_with(others, mesh.faces, neck_rim)
    middle = reference[mesh.faces[torso]].mean(1)
    neck = torso[(middle[:, 1] > NECK_BOTTOM) & (np.abs(middle[:, 0]) < NECK_HALF_WIDTH)]
    cavity = _chart_with(others, mesh.faces, mouth_rim)
    right_rim = mirror[left_rim]

    num_body = len(mesh.vertices)
    left = _eye_cap(left_rim, mesh.faces[mesh.groups == "helper-l-eye"], reference, num_body)
    polygons = {
        "skin": mesh.faces[head].tolist(),
        "neck": mesh.faces[neck].tolist(),
        "eye_left": left.polygons,
    }
    # The right cap is the left one's mirror image, its vertices the next ones.
    count = len(left.combinations)
    extended_mirror = np.concatenate(
        [mirror, num_body + count + np.arange(count), num_body + np.arange(count)]
    )
    polygons["eye_right"] = [extended_mirror[polygon[::-1]].tolist() for polygon in left.polygons]
    combinations = left.combinations + [(mirror[index], w) for index, w in left.combinations]
    polygons["mouth_slit"] = zip_rim(mouth_rim, reference, mirror)
    polygons["cavity"] = mesh.faces[cavity].tolist()
    for region, group in INNER_GROUPS.items():
        polygons[region] = mesh.faces[mesh.groups == group].tolist()

    on_surface = _corners(polygons[name] for name in SURFACE_REGIONS)
    inside = np.setdiff1d(_corners(polygons.values()), on_surface)
    kept = np.concatenate([on_surface, inside])
    new_index = np.full(num_body + 2 * count, -1)
    new_index[kept] = np.arange(len(kept))
    table = np.full((sum(map(len, polygons.values())), 4), NO_CORNER)
    flat = [polygon for name in REGION_NAMES for polygon in polygons[name]]
    for row, polygon in zip(table, flat, strict=True):
        row[: len(polygon)] = new_index[polygon]

    texture = np.full((num_body + 2 * count, 2), np.nan)
    texture[mesh.faces[head]] = mesh.texture_vertices[mesh.texture_faces[head]]
    creases = [np.stack([rim, np.roll(rim, -1)], -1) for rim in (left_rim, right_rim, mouth_rim)]
    return Topology(
        combination=_combination_matrix(num_body, combinations)[kept],
        polygons=table,
        polygon_region=np.repeat(
            np.arange(len(REGION_NAMES)), [len(polygons[name]) for name in REGION_NAMES]
        ),
        crease_edges=new_index[np.concatenate(creases)],
        mirror_index=new_index[extended_mirror[kept]],
        texture_vertices=texture[kept],
    )


def mirror_vertices(vertices: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:  # (V, 3)
    """The vertex at (-x, y, z) of every vertex, (V,).

    Raises:
        ValueError: the mesh is not symmetric.
    """
    distance, index = cKDTree(vertices).query(vertices * [-1, 1, 1])
    if distance.max() > tolerance or (index[index] != np.arange(len(index))).any():
        raise ValueError(
            f"mesh: a vertex is {distance.max():g} mm from its mirror image, expected a symmetric "
            "mesh without double vertices"
        )
    return index


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:  # (F, 4)
    """The open borders of a consistently oriented mesh, each a ring in the faces' direction."""
    sides = np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)
    present = {tuple(side) for side in sides.tolist()}
    following = {a: b for a, b in present if (b, a) not in present}
    loops = []
    while following:
        start = min(following)
        loop = [start]
        while (after := following.pop(loop[-1])) != start:
            loop.append(after)
        loops.append(np.array(loop))
    return loops


def zip_rim(
    rim: np.ndarray,  # (R,), a ring
    vertices: np.ndarray,  # (V, 3)
    mirror: np.ndarray,  # (V,)
) -> list[list[int]]:
    """Triangles that close a rim along its long axis, x, mirrored from one half.

    Between the corners two chains run, above and below; from the corner on, the chain that is
    behind takes the next step.
    """
    corner = int(np.argmax(vertices[rim, 0]))
    ring = np.roll(rim, -corner)
    first, last = np.flatnonzero(mirror[ring] == ring)[[0, -1]]
    forth, back = ring[: first + 1], np.concatenate([ring[:1], ring[last:][::-1]])
    i = j = 0
    triangles = []
    while i + 1 < len(forth) or j + 1 < len(back):
        step = i + 1 < len(forth) and (
            j + 1 == len(back) or vertices[forth[i + 1], 0] >= vertices[back[j + 1], 0]
        )
        # The rim runs along the faces around it: what fills it runs against it.
        if step:
            triangles.append([int(forth[i + 1]), int(forth[i]), int(back[j])])
            i += 1
        else:
            triangles.append([int(forth[i]), int(back[j]), int(back[j + 1])])
            j += 1
    triangles = [triangle for triangle in triangles if len(set(triangle)) == 3]
    return triangles + [mirror[triangle[::-1]].tolist() for triangle in triangles]


def _charts(mesh: BodyMesh) -> list[np.ndarray]:
    """The faces of each connected piece of the body's texture."""
    body = np.flatnonzero(mesh.groups == "body")
    ends = np.stack([mesh.texture_faces, np.roll(mesh.texture_faces, -1, axis=1)], -1)[body]
    first, second = ends.reshape(-1, 2).T
    count = len(mesh.texture_vertices)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    chart = connected_components(graph, directed=False)[1][mesh.texture_faces[body, 0]]
    return [body[chart == label] for label in np.unique(chart)]


def _chart_with(charts: list[np.ndarray], faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """The first chart that holds all of some vertices."""
    return next(chart for chart in charts if np.isin(vertices, faces[chart]).all())


def _eye_cap(
    rim: np.ndarray,  # (R,), the lids' edge
    eyeball: np.ndarray,  # (F, 4)
    vertices: np.ndarray,  # (V, 3)
    first_new: int,
) -> _Cap:
    """Rings on the eyeball, cast from its centre through rings that shrink from the lids' edge."""
    triangles = eyeball[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    corners = vertices[np.unique(eyeball)]
    center = (corners.max(0) + corners.min(0)) / 2
    edge = vertices[rim] - center
    middle = edge.mean(0)
    inverse = np.linalg.inv(np.swapaxes(vertices[triangles] - center, 1, 2))  # (T, 3, 3)

    def hit(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = inverse @ direction
        triangle = int(np.argmax(weights.min(1)))
        weights = weights[triangle].clip(min=0)
        return triangles[triangle], weights / weights.sum()

    rays = [middle + share * (ray - middle) for share in CAP_RINGS for ray in edge]
    combinations = [hit(ray) for ray in [*rays, middle]]
    count = len(rim)
    rings = [rim, *(first_new + np.arange(len(rays)).reshape(-1, count))]
    polygons = []
    for outer, inner in zip(rings[:-1], rings[1:], strict=True):
        turned = [np.roll(outer, -1), outer, inner, np.roll(inner, -1)]
        polygons += np.stack(turned, -1).tolist()
    apex = np.full(count, first_new + len(rays))
    polygons += np.stack([np.roll(rings[-1], -1), rings[-1], apex], -1).tolist()
    return _Cap(polygons, combinations)


def _combination_matrix(
    num_body: int, combinations: list[tuple[np.ndarray, np.ndarray]]
) -> csr_array:
    """Body vertices as they are, then the new ones, (V + new, V)."""
    rows = [np.arange(num_body)]
    columns, weights = [np.arange(num_body)], [np.ones(num_body)]
    for number, (index, shares) in enumerate(combinations):
        rows.append(np.full(len(index), num_body + number))
        columns.append(index)
        weights.append(shares)
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return coo_array(entries, shape=(num_body + len(combinations), num_body)).tocsr()


def _corners(groups) -> np.ndarray:
    """Vertices of lists of polygons, ascending."""
    return np.unique([corner for group in groups for polygon in group for corner in polygon])
