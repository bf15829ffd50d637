"""Pictures of a data set to look at: photo, position map, mesh and landmarks drawn back."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from prnet.datasets.built import BuiltSet
from prnet.datasets.fits import FacePair
from prnet.datasets.landmark_set import LandmarkSet
from prnet.datasets.pictures import CropRule, FitItem, collate_fits, write_picture
from prnet.datasets.records import (
    decode_pairs,
    fill_record,
    load_pair,
    record_dtype,
    record_item,
)
from prnet.datasets.synthetic import RenderedFaces
from prnet.datasets.warp import make_sample, warp_to_crop
from prnet.drawing.pictures import (
    draw_landmarks,
    draw_mask,
    draw_mesh,
    draw_points,
    draw_position_map,
    tile,
    to_picture,
)
from prnet.faces.face import Face
from prnet.files import written_whole
from prnet.geometry.position_map import PositionMapDecoder

log = logging.getLogger(__name__)

SAMPLES_A_ROW = 2


def write_contact_sheet(directory: Path | str, face: Face, *, count: int) -> Path:
    """DIR/contact_sheet.png with `count` samples spread evenly over a built set.

    The samples are read as in training (record, decoder, crop): a mesh that does not lie on its
    face here is wrong in training too.
    """
    built = BuiltSet(directory)
    built.require_face(face.describe())
    items = [built[int(index)] for index in spread(len(built), count)]
    return write_sheet(Path(directory) / "contact_sheet.png", items, face)


def write_landmark_sheet(directory: Path | str, *, count: int) -> Path:
    """DIR/contact_sheet.png with `count` photos of a set without fits, their landmarks drawn."""
    built = LandmarkSet(directory, 0, 0)
    pictures = []
    for index in spread(len(built), count):
        item = built[int(index)]
        batch = collate_fits([item])
        photo = to_picture(warp_to_crop(batch.picture, batch.crop_from_picture)[0])
        pictures.append(draw_points(photo, item.landmarks))
    path = Path(directory) / "contact_sheet.png"
    with written_whole(path) as temporary:
        write_picture(temporary, tile(pictures, columns=2 * SAMPLES_A_ROW))
    log.info("look at %s", path)
    return path


def archive_samples(
    pairs: Sequence[FacePair], face: Face, *, count: int, crop: CropRule | None = None
) -> list[FitItem]:
    """`count` of an archive's image + fit pairs, spread evenly, read as training would."""
    return [
        read_sample(pairs[int(index)], face, crop or CropRule())
        for index in spread(len(pairs), count)
    ]


def write_world_sheet(path: Path | str, faces: RenderedFaces, face: Face, *, count: int) -> Path:
    """The first `count` samples of a stream, with the visible face beside them."""
    indices = range(count)
    seen = faces.faces.batch(indices).attention.cpu()
    return write_sheet(path, faces.__getitems__(indices), face, attention=seen)


def write_sheet(
    path: Path | str,
    items: Sequence[FitItem],
    face: Face,
    *,
    attention: Iterable[torch.Tensor] | None = None,  # (S, S), bool: where the face is seen
) -> Path:
    """A row of pictures a sample: photo, position map, mesh, landmarks, and attention if known."""
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    masks = [None] * len(items) if attention is None else list(attention)
    pictures = []
    for item, mask in zip(items, masks, strict=True):
        sample = make_sample(collate_fits([item]), decoder)
        photo = to_picture(sample.image[0])
        vertices = face.uv.face_points(sample.position_map)[0]
        landmarks = face.uv.landmarks(sample.position_map)[0]
        pictures += [
            photo,
            draw_position_map(sample.position_map[0]),
            draw_mesh(photo, vertices, face.uv.grid_triangles),
            draw_landmarks(photo, landmarks),
        ]
        if mask is not None:
            pictures.append(draw_mask(photo, mask))
    columns = SAMPLES_A_ROW * len(pictures) // len(items)
    with written_whole(path) as temporary:
        write_picture(temporary, tile(pictures, columns=columns))
    log.info("look at %s", path)
    return Path(path)


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` indices spread evenly over `total`."""
    return np.unique(np.linspace(0, total - 1, count).astype(int))


def read_sample(pair: FacePair, face: Face, rule: CropRule) -> FitItem:
    """One image + fit pair as a built set would hand it to training.

    Raises:
        ValueError, OSError: picture or fit cannot be read, or the face is too small for a crop.
    """
    loaded, pixel_origin = load_pair(pair), "zero_based"
    model = face.morphable_model
    record = np.zeros(1, record_dtype(model.num_shape, model.num_exp))[0]
    fill_record(record, loaded, decode_pairs([loaded], face, pixel_origin), 0, rule)
    return record_item(record, loaded.data, rule, pixel_origin, source=pair.picture)
