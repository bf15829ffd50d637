"""Pictures of a data set to look at: photo, position map, mesh and landmarks drawn back."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from prnet.datasets.built import BuiltSet
from prnet.datasets.evaluation import crop_picture
from prnet.datasets.fits import FacePair, decode_vertices, fit_matrix, pad_params, read_fit
from prnet.datasets.landmark_set import LandmarkSet
from prnet.datasets.pictures import (
    CropRule,
    FitItem,
    collate_fits,
    crop_square,
    decode_picture,
    shift_depth,
    write_picture,
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
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder

log = logging.getLogger(__name__)

SAMPLES_A_ROW = 2


def write_contact_sheet(directory: Path | str, face: Face, *, count: int) -> Path:
    """DIR/contact_sheet.png with `count` samples spread evenly over a built set.

    What is drawn went the whole way: record, decoder, crop. A mesh that does not sit on its face
    here is wrong in training too.
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
        ValueError, FileNotFoundError: picture or fit cannot be read.
    """
    model = face.morphable_model
    fit = read_fit(pair.fit).fit
    data = pair.picture.read_bytes()
    picture = decode_picture(data, source=pair.picture)
    image_from_model = fit_matrix(fit, picture.shape[0])
    vertices = camera.transform_points(image_from_model, decode_vertices(model, fit).double())
    center, size = crop_square(vertices[face.landmark_index].numpy(), rule, seed_name=pair.name)
    network_input = crop_picture(data, picture, center, size, rule, source=pair.picture)
    crop_from_image = camera.invert_affine(network_input.image_from_crop)
    return FitItem(
        picture=network_input.picture,
        crop_from_picture=network_input.crop_from_picture,
        crop_from_model=crop_from_image
        @ shift_depth(image_from_model, float(vertices[:, 2].min())),
        shape_params=torch.from_numpy(pad_params(fit.shape_params, model.num_shape)),
        exp_params=torch.from_numpy(pad_params(fit.exp_params, model.num_exp)),
    )
