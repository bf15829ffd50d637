"""Meshes as Wavefront OBJ. Letters: N vertices, T triangles, M texture coordinates."""

from pathlib import Path

import numpy as np

from prnet.files import written_whole


def write_obj(
    path: Path | str,
    vertices: np.ndarray,  # (N, 3), y up, any unit
    triangles: np.ndarray,  # (T, 3), outward in the y-down image frame, as `Face.triangles`
    *,
    texture_coords: np.ndarray | None = None,  # (M, 2), v up
    texture_triangles: np.ndarray | None = None,  # (T, 3), into texture_coords; None: triangles
    texture_name: str | None = None,  # picture beside the file; writes STEM.mtl too
) -> None:
    """Write PATH, and with a texture STEM.mtl beside it.

    Convention: an OBJ is right-handed with y up, where the triangles of an image's y-down frame
    would face inward: each is written in reverse order.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    path = Path(path)
    vertices, triangles = np.asarray(vertices), np.asarray(triangles)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices: got shape {vertices.shape}, expected (N, 3)")
    if (texture_coords is None) != (texture_name is None):
        raise ValueError("a texture needs both its coordinates and the name of its picture")
    lines = [f"# {len(vertices)} vertices, {len(triangles)} triangles"]
    corners = triangles[:, ::-1] + 1
    material = path.with_suffix(".mtl")
    if texture_coords is not None:
        lines.append(f"mtllib {material.name}")
    lines += [f"v {' '.join(f'{value:.6g}' for value in row)}" for row in vertices.tolist()]
    if texture_coords is None:
        lines += [f"f {a} {b} {c}" for a, b, c in corners.tolist()]
    else:
        used = triangles if texture_triangles is None else np.asarray(texture_triangles)
        if used.shape != triangles.shape:
            raise ValueError(f"texture_triangles: got {used.shape}, expected {triangles.shape}")
        lines += [f"vt {u:.6f} {v:.6f}" for u, v in texture_coords.tolist()]
        lines.append("usemtl skin")
        lines += [
            f"f {a}/{ta} {b}/{tb} {c}/{tc}"
            for (a, b, c), (ta, tb, tc) in zip(
                corners.tolist(), (used[:, ::-1] + 1).tolist(), strict=True
            )
        ]
    if texture_coords is not None:
        with written_whole(material) as temporary:
            temporary.write_text(f"newmtl skin\nKd 1 1 1\nmap_Kd {texture_name}\n")
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
