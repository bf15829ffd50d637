"""Pictures of a data set to look at: photo, position map, mesh and landmarks drawn back."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from prnet.datasets.built import BuiltSet
from prnet.datasets.fits import FacePair, require_fit_of
from prnet.datasets.landmark_set import LandmarkSet
from prnet.datasets.pictures import CropRule, FitItem, collate_fits, write_picture
from prnet.datasets.records import (
    SetRecord,
    decode_pairs,
    fill_record,
    load_pair,
    record_dtype,
)
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
from prnet.geometry.position_map import PositionMapDecoder

log = logging.getLogger(__name__)

SAMPLES_A_ROW = 2


def write_contact_sheet(directory: Path | str, face: Face, *, count: int) -> None:
    """DIR/contact_sheet.png with `count` samples spread evenly over a built set.

    The samples are read as in training (record, decoder, crop): a mesh that does not lie on its
    face here is wrong in training too.
    """
    built = BuiltSet(directory)
    built.require_face(face.describe())
    items = [built[index] for index in spread(len(built), count)]
    write_sheet(Path(directory) / "contact_sheet.png", items, face)


def write_landmark_sheet(directory: Path | str, *, count: int) -> None:
    """DIR/contact_sheet.png with `count` photos of a set without fits, their landmarks drawn."""
    built = LandmarkSet(directory, 0, 0)
    pictures = []
    for index in spread(len(built), count):
        item = built[index]
        batch = collate_fits([item])
        photo = to_picture(warp_to_crop(batch.picture, batch.crop_from_picture)[0])
        pictures.append(draw_points(photo, item.landmarks))
    path = Path(directory) / "contact_sheet.png"
    write_picture(path, tile(pictures, columns=2 * SAMPLES_A_ROW))
    log.info("look at %s", path)


def archive_samples(pairs: Sequence[FacePair], face: Face, *, count: int) -> list[FitItem]:
    """`count` of an archive's image + fit pairs, spread evenly, each as a built set would hand it
    to training.

    Raises:
        ValueError, OSError: picture or fit cannot be read, or a face is too small for a crop.
    """
    model, rule, pixel_origin = face.morphable_model, CropRule(), "zero_based"
    indices = spread(len(pairs), count)
    records = np.zeros(len(indices), record_dtype(model.num_shape, model.num_exp))
    items = []
    for record, index in zip(records, indices, strict=True):
        loaded = load_pair(pairs[index])
        require_fit_of(face.name, loaded.file.fit, source=pairs[index].fit)
        fill_record(record, loaded, decode_pairs([loaded], face, pixel_origin), 0, rule)
        reader = SetRecord(record, rule, pixel_origin)
        items.append(reader.item(loaded.data, source=pairs[index].picture))
    return items


def write_sheet(
    path: Path | str,
    items: Sequence[FitItem],
    face: Face,
    *,
    attention: Iterable[torch.Tensor] | None = None,  # (S, S), bool: where the face is seen
) -> None:
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
    write_picture(path, tile(pictures, columns=columns))
    log.info("look at %s", path)


def spread(total: int, count: int) -> list[int]:
    """At most `count` indices spread evenly over `total`."""
    return np.unique(np.linspace(0, total - 1, count).astype(int)).tolist()
