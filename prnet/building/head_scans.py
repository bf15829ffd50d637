"""Writing head scans of synthetic people, as a scanner would give them.

A scan is the surface of the whole head, at rest, as a textured OBJ in millimetre.
"""

from pathlib import Path

import numpy as np
import torch

from prnet.datasets.pictures import write_picture
from prnet.export.mesh import write_obj
from prnet.synthetic.parameters import stack
from prnet.synthetic.person.textures import compose_albedo
from prnet.synthetic.srgb import srgb_encode
from prnet.synthetic.world import SyntheticFaces

MICROMETRE_PER_MILLIMETRE = 1000.0
# The picture shows the face window in its middle, the skin's plain tone around it; its lower left
# corner is for triangles that the chart does not show.
WINDOW_SIDE, PICTURE_SIDE = 256, 512
PLAIN_CORNER = (0.01, 0.01)
# A triangle across the chart's seam at the back of the head spans more than this of it.
SEAM_SPAN = 0.5


def write_scan(folder: Path | str, faces: SyntheticFaces, index: int) -> Path:
    """FOLDER/NAME.obj, .mtl and .png of the person of sample `index`, NAME the folder's; returns
    the OBJ.

    The OBJ is written last and marks the scan as finished.
    """
    folder = Path(folder)
    head, person = faces.head, faces.parameters(index)
    shape_params = torch.from_numpy(person.shape_params).float()[None]
    at_rest = shape_params.new_zeros(1, head.morphable_model.num_exp)
    vertices = head.morphable_model(shape_params, at_rest)[0, : head.num_surface]
    on_surface = (head.triangles < head.num_surface).all(1)
    triangles = head.triangles[on_surface].numpy()

    margin = (PICTURE_SIDE - WINDOW_SIDE) // 2
    chart = head.uv_coords[: head.num_surface].numpy()
    # Texel centres of the window lie at integers, those of an OBJ's texture at halves.
    texture_coords = (margin + 0.5 + (WINDOW_SIDE - 1) * chart) / PICTURE_SIDE
    corners = texture_coords[triangles]  # (T, 3, 2)
    beyond = (corners.min((1, 2)) < 0) | (corners.max((1, 2)) > 1)
    beyond |= np.ptp(corners[..., 0], axis=1) > SEAM_SPAN
    texture_triangles = np.where(beyond[:, None], len(texture_coords), triangles)

    write_picture(folder / f"{folder.name}.png", skin_picture(faces, index))
    path = folder / f"{folder.name}.obj"
    write_obj(
        path,
        vertices.numpy() / MICROMETRE_PER_MILLIMETRE,
        triangles,
        texture_coords=np.concatenate([texture_coords, [PLAIN_CORNER]]),
        texture_triangles=texture_triangles,
        texture_name=f"{folder.name}.png",
    )
    return path


def skin_picture(faces: SyntheticFaces, index: int) -> np.ndarray:
    """The skin of sample `index` without light, (512, 512, 3) uint8 sRGB, the face window in its
    middle."""
    person = faces.parameters(index)
    layers = faces.texture(index).float()  # (256 * 256, L), rows of the window
    material = stack([person.material])
    material = type(material)(*(field[0] for field in material))
    window = srgb_encode(compose_albedo(layers, material)).reshape(WINDOW_SIDE, WINDOW_SIDE, 3)
    picture = srgb_encode(material.skin_tone).expand(PICTURE_SIDE, PICTURE_SIDE, 3).clone()
    margin = (PICTURE_SIDE - WINDOW_SIDE) // 2
    inside = slice(margin, margin + WINDOW_SIDE)
    picture[inside, inside] = window
    return (255 * picture).round().to(torch.uint8).numpy()
