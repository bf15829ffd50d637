"""A picture of a built set to look at: photo, position map, mesh and landmarks drawn back."""

import logging
from pathlib import Path

import numpy as np

from prnet.datasets.built import BuiltSet
from prnet.datasets.pictures import collate_fits, write_picture
from prnet.datasets.warp import make_sample
from prnet.faces.face import Face
from prnet.files import written_whole
from prnet.geometry.position_map import PositionMapDecoder
from prnet.visualize import draw_landmarks, draw_mesh, draw_position_map, tile, to_picture

log = logging.getLogger(__name__)


def write_contact_sheet(directory: Path | str, face: Face, *, count: int) -> Path:
    """DIR/contact_sheet.png with `count` samples spread evenly over the set, a row each.

    What is drawn went the whole way: record, decoder, crop. A mesh that does not sit on its face
    here is wrong in training too.
    """
    built = BuiltSet(directory)
    built.require_face(face.describe())
    chosen = np.unique(np.linspace(0, len(built) - 1, count).astype(int))
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    pictures = []
    for index in chosen:
        sample = make_sample(collate_fits([built[index]]), decoder)
        photo = to_picture(sample.image[0])
        vertices = face.uv.face_points(sample.position_map)[0]
        landmarks = face.uv.landmarks(sample.position_map)[0]
        pictures += [
            photo,
            draw_position_map(sample.position_map[0]),
            draw_mesh(photo, vertices, face.uv.grid_triangles),
            draw_landmarks(photo, landmarks),
        ]
    path = Path(directory) / "contact_sheet.png"
    with written_whole(path) as temporary:
        write_picture(temporary, tile(pictures, columns=8))
    log.info("look at %s", path)
    return path
