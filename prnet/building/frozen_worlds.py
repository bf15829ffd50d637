"""A synthetic world frozen to files in the layout of the archives: ready for `data_dir=DIR`.

DIR/300W_LP/Synthetic/NAME.jpg, NAME.mat   training samples: Pose_Para, Shape_Para, Exp_Para, pt2d
DIR/AFLW2000/NAME.jpg, NAME.mat            test samples, of another seed, with pt3d_68 as well
DIR/attention/300W_LP/Synthetic/NAME.png   255 where the face is seen; so for AFLW2000
DIR/Florence/SUBJECT/SUBJECT.obj           textured head scans, millimetre
DIR/face.npz                               the face model that the fits are of
DIR/plan.json                              which world it is
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from prnet.building.head_scans import write_scan
from prnet.datasets.fits import write_fit
from prnet.datasets.pictures import write_picture
from prnet.datasets.synthetic import (
    HELD_OUT_SEED_SHIFT,
    RenderedFaces,
    SyntheticRule,
    sample_name,
    to_bytes,
)
from prnet.faces.embedded import load_embedded
from prnet.files import read_json_object, write_json, written_whole
from prnet.geometry import camera
from prnet.workers import in_processes

PART_SIZE = 32
SCANS_SEED_SHIFT = 2_000_003
TRAINING, TEST = "300W_LP/Synthetic", "AFLW2000"


class Part(NamedTuple):
    """Samples that are rendered together."""

    folder: str  # `TRAINING` or `TEST`
    indices: tuple[int, ...]


def freeze(
    rule: SyntheticRule,
    output: Path | str,
    *,
    count: int,
    test_count: int,
    scans: int = 0,
    workers: int = 0,
) -> None:
    """Write, or finish writing, `count` training and `test_count` test samples, `scans` head scans
    and the face.

    A sample whose .mat is there, and a scan whose .obj is, are left alone: a killed run goes on
    where it stopped, and a larger count adds to what is there.

    Raises:
        ValueError: a count below 0, or `output` holds another world.
    """
    output = Path(output)
    if min(count, test_count, scans) < 0 or count + test_count + scans == 0:
        raise ValueError(
            f"got count {count}, test_count {test_count}, scans {scans}; expected some of one"
        )
    # How the stream is read does not move what is in it.
    reading = ("samples_per_epoch", "held_out")
    values = {key: value for key, value in rule.to_values().items() if key not in reading}
    plan = json.loads(json.dumps({"format": 1, **values}))
    plan_file = output / "plan.json"
    if plan_file.is_file():
        if read_json_object(plan_file) != plan:
            raise ValueError(f"{output}: holds another world; choose another output= or delete it")
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output}: not empty and not a frozen world; choose another output=")
    write_json(plan_file, plan)
    write_face(output / "face.npz")

    pending = [*_pending(output, TRAINING, count), *_pending(output, TEST, test_count)]
    left = sum(len(part.indices) for part in pending)
    with tqdm(
        total=count + test_count,
        initial=count + test_count - left,
        desc="render",
        unit="sample",
    ) as bar:
        for part, _ in in_processes(
            functools.partial(_write_part, output=output),
            pending,
            functools.partial(_worlds, rule),
            # Processes take longer to start than a few parts to render.
            workers=workers if len(pending) > 2 * workers else 0,
        ):
            bar.update(len(part.indices))
    people = RenderedFaces(rule, seed=rule.seed + SCANS_SEED_SHIFT)
    for index in range(scans):
        folder = output / "Florence" / f"subject_{index + 1:02d}"
        if not (folder / f"{folder.name}.obj").is_file():
            write_scan(folder, people.faces, index)


def write_face(path: Path) -> None:
    """The embedded face for other programs: V = mean + shape_basis a + exp_basis b, micrometre.

    Arrays: mean (N, 3), shape_basis (S, N, 3), exp_basis (E, N, 3), triangles (T, 3), uv_pixels
    (N, 2) column and row of a 256 x 256 map, landmark_index (68,), face_mask (256, 256), exp_names.
    """
    face = load_embedded()
    model = face.morphable_model
    with written_whole(path) as temporary:
        np.savez_compressed(
            temporary,
            mean=model.mean.numpy(),
            shape_basis=model.basis[: model.num_shape].numpy(),
            exp_basis=model.basis[model.num_shape :].numpy(),
            triangles=face.triangles.numpy().astype(np.int32),
            uv_pixels=face.uv.vertex_pixels.numpy(),
            landmark_index=face.landmark_index.numpy().astype(np.int32),
            face_mask=face.uv.face_mask.numpy(),
            exp_names=np.array(face.exp_names),
        )


def _pending(output: Path, folder: str, count: int) -> Iterator[Part]:
    """Parts that lack a sample, each with what it lacks."""
    for start in range(0, count, PART_SIZE):
        indices = tuple(
            index
            for index in range(start, min(start + PART_SIZE, count))
            if not (output / folder / f"{sample_name(index)}.mat").is_file()
        )
        if indices:
            yield Part(folder, indices)


def _worlds(rule: SyntheticRule) -> dict[str, RenderedFaces]:
    return {
        TRAINING: RenderedFaces(rule, seed=rule.seed),
        TEST: RenderedFaces(rule, seed=rule.seed + HELD_OUT_SEED_SHIFT),
    }


def _write_part(part: Part, worlds: dict[str, RenderedFaces], *, output: Path) -> None:
    """Render and write; the .mat of a sample comes last and marks it as finished."""
    faces = worlds[part.folder].faces
    batch = faces.batch(part.indices)
    fits = faces.fits(part.indices)
    pictures = to_bytes(batch.image).permute(0, 2, 3, 1).contiguous().numpy()
    seen = 255 * batch.attention.to(torch.uint8).numpy()
    landmarks = camera.convert_origin(batch.landmarks.double(), "zero_based", "matlab").numpy()
    size = pictures.shape[1]
    for i, index in enumerate(part.indices):
        name = sample_name(index)
        with written_whole(output / part.folder / f"{name}.jpg") as temporary:
            write_picture(temporary, pictures[i])
        with written_whole(output / "attention" / part.folder / f"{name}.png") as temporary:
            write_picture(temporary, np.repeat(seen[i, :, :, None], 3, 2))
        write_fit(
            output / part.folder / f"{name}.mat",
            fits[i],
            height=size,
            width=size,
            landmarks=landmarks[i],
            with_depth=part.folder == TEST,
        )
