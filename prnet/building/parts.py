"""One part of a built set: pairs read, audited and packed."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prnet.building.audit import FULL_BASES, Audit
from prnet.building.map_files import encode_map
from prnet.datasets.built import record_dtype
from prnet.datasets.fits import FacePair, FitFile, fit_matrix, pad_params, read_fit
from prnet.datasets.pictures import CropRule, crop_matrix, crop_square, decode_picture, shift_depth
from prnet.faces.face import Face
from prnet.files import write_json, written_whole
from prnet.geometry import camera

DECODE_BATCH = 64


class BuildOptions(NamedTuple):
    """What decides the content of a built set."""

    dataset: str
    crop: CropRule = CropRule()
    pixel_origin: str = "zero_based"
    maps: bool = False
    map_dtype: str = "float32"


class Unreadable(NamedTuple):
    name: str
    reason: str


class Loaded(NamedTuple):
    """One pair read from disk, before anything is decoded."""

    name: str
    file: FitFile
    picture: bytes
    height: int
    width: int


def part_file(output: Path, number: int) -> Path:
    """What marks a part as finished."""
    return output / "parts" / f"{number}.json"


def build_part(
    number: int, pairs: list[FacePair], output: Path, options: BuildOptions, face: Face
) -> None:
    """Read, audit and pack one part. Its .json is written last and marks it as finished."""
    loaded: list[Loaded] = []
    unreadable: dict[str, str] = {}
    for pair in pairs:
        one = _load(pair)
        if isinstance(one, Unreadable):
            unreadable[one.name] = one.reason
        else:
            loaded.append(one)

    model = face.morphable_model
    records = np.zeros(len(loaded), record_dtype(model.num_shape, model.num_exp))
    audit = Audit(full_bases=(model.num_shape, model.num_exp) == FULL_BASES)
    kept: list[int] = []
    for start in range(0, len(loaded), DECODE_BATCH):
        chunk = loaded[start : start + DECODE_BATCH]
        shape_params, exp_params = (
            np.stack([pad_params(getattr(one.file.fit, key), count) for one in chunk])
            for key, count in (("shape_params", model.num_shape), ("exp_params", model.num_exp))
        )
        vertices = model(
            torch.from_numpy(shape_params).float(), torch.from_numpy(exp_params).float()
        )
        image_from_model = torch.stack(
            [
                fit_matrix(one.file.fit, one.height, pixel_origin=options.pixel_origin)
                for one in chunk
            ]
        )
        depth = vertices @ image_from_model[:, 2, :3, None].float()  # (chunk, N, 1)
        depth_min = depth.amin((1, 2)) + image_from_model[:, 2, 3]
        landmarks = camera.transform_points(
            image_from_model, vertices[:, face.landmark_index].double()
        ).numpy()
        for i, one in enumerate(chunk):
            record = records[start + i]
            record["shape_params"], record["exp_params"] = shape_params[i], exp_params[i]
            record["depth_min"] = depth_min[i]
            reason = _fill_record(record, one, landmarks[i], options, audit)
            if reason is not None:
                unreadable[one.name] = reason
                continue
            kept.append(start + i)
            if options.maps:
                _write_map(output, record, one, vertices[i], options, face)

    records = records[kept]
    loaded = [loaded[i] for i in kept]
    sizes = np.array([len(one.picture) for one in loaded], dtype=np.int64)
    records["shard"] = number
    records["picture_bytes"] = sizes
    records["picture_offset"] = np.cumsum(sizes) - sizes
    with written_whole(output / "pictures" / f"{number}.bin") as temporary:
        temporary.write_bytes(b"".join(one.picture for one in loaded))
    with written_whole(output / "parts" / f"{number}.npy") as temporary:
        np.save(temporary, records)
    write_json(
        part_file(output, number),
        {
            "samples": [one.name for one in loaded],
            "audit": {**audit.lists(), "unreadable": unreadable},
            "face": {
                "vertices": model.num_vertices,
                "shape_bases": model.num_shape,
                "exp_bases": model.num_exp,
            },
        },
    )


def _load(pair: FacePair) -> Loaded | Unreadable:
    try:
        if not pair.picture.is_file():
            return Unreadable(pair.name, f"no picture {pair.picture.name} beside the fit")
        data = pair.picture.read_bytes()
        height, width = decode_picture(data, source=pair.picture.name).shape[:2]
        return Loaded(pair.name, read_fit(pair.fit), data, height, width)
    except (OSError, ValueError) as error:
        return Unreadable(pair.name, str(error))


def _fill_record(
    record: np.void,
    one: Loaded,
    landmarks: np.ndarray,  # (68, 3), decoded, image px
    options: BuildOptions,
    audit: Audit,
) -> str | None:
    """Fill pose and crop, and audit; returns why the sample cannot be used, if so."""
    try:
        center, size = crop_square(landmarks, options.crop, seed_name=one.name)
    except ValueError as error:
        return str(error)
    fit = one.file.fit
    record["image_size"] = one.height, one.width
    record["crop_center"], record["crop_size"] = center, size
    record["scale"], record["angles"] = fit.scale, fit.angles
    record["translation"] = fit.translation
    audit.check(one.name, one.file, landmarks, options.pixel_origin)
    return None


def _write_map(
    output: Path,
    record: np.void,
    one: Loaded,
    vertices: torch.Tensor,
    options: BuildOptions,
    face: Face,
) -> None:
    """DIR/maps/NAME.npy: (256, 256, 3), rows v, columns u, x y z in crop px."""
    crop_from_image = crop_matrix(record["crop_center"], float(record["crop_size"]), options.crop)
    image_from_model = fit_matrix(one.file.fit, one.height, pixel_origin=options.pixel_origin)
    crop_from_model = crop_from_image @ shift_depth(image_from_model, float(record["depth_min"]))
    crop_vertices = camera.transform_points(crop_from_model.float(), vertices)
    position_map = face.uv.position_map(crop_vertices[None])[0].permute(1, 2, 0).numpy()
    try:
        stored = encode_map(position_map, options.map_dtype)
    except ValueError as error:
        raise ValueError(f"{one.name}: {error}") from error
    with written_whole(output / "maps" / f"{one.name}.npy") as temporary:
        np.save(temporary, stored)
