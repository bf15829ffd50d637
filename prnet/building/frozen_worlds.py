"""A synthetic world frozen to files in the layout of the archives: ready for `data_dir=DIR`.

DIR/300W_LP/Synthetic/NAME.jpg, NAME.mat   training samples: Pose_Para, Shape_Para, Exp_Para, pt2d
DIR/AFLW2000/NAME.jpg, NAME.mat            test samples, of another seed, with pt3d_68 as well
DIR/attention/300W_LP/Synthetic/NAME.png   255 where the face is seen; so for AFLW2000
DIR/Florence/SUBJECT/SUBJECT.obj           textured head scans, millimetre
DIR/face.npz                               the face model that the fits are of
DIR/plan.json                              which world it is
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.building.head_scans import write_scan
from prnet.building.resumable import planned, resumable
from prnet.datasets.fits import write_fit
from prnet.datasets.pictures import write_picture
from prnet.datasets.synthetic import (
    HELD_OUT_SEED_SHIFT,
    RenderedFaces,
    SyntheticRule,
    sample_name,
    to_bytes,
    to_mask,
    to_values,
)
from prnet.faces.embedded import load_embedded
from prnet.files import written_whole
from prnet.geometry import camera
from prnet.workers import chunks

PIECE_SIZE = 32  # samples that are rendered together
SECONDS = 0.03  # of work in a sample, about
SCANS_SEED_SHIFT = 2_000_003
TRAINING, TEST, SCANS = "300W_LP/Synthetic", "AFLW2000", "Florence"
# Fields of a rule that say how a stream is read, not what is in it.
READING = ("samples_per_epoch", "held_out")


class WorldFile(NamedTuple):
    """One of the things to write."""

    folder: str  # `TRAINING`, `TEST` or `SCANS`
    index: int

    @property
    def stem(self) -> str:
        """Its file without a suffix, from the output on."""
        if self.folder == SCANS:
            name = f"subject_{self.index + 1:02d}"
            return f"{self.folder}/{name}/{name}"
        return f"{self.folder}/{sample_name(self.index)}"


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
    world = {k: v for k, v in to_values(rule).items() if k not in READING}
    with planned(output, **world, face=load_embedded().describe()):
        write_face(output / "face.npz")
        pieces = [
            piece
            for folder, number in ((TRAINING, count), (TEST, test_count))
            for piece in chunks([WorldFile(folder, index) for index in range(number)], PIECE_SIZE)
        ]
        pieces += [[WorldFile(SCANS, index)] for index in range(scans)]
        resumable(
            output,
            pieces,
            functools.partial(_write_piece, output=output),
            functools.partial(_worlds, rule),
            functools.partial(_marker, output),
            title="render",
            unit="sample",
            seconds=SECONDS,
            workers=workers,
        )


def _marker(output: Path, file: WorldFile) -> Path:
    return output / f"{file.stem}{'.obj' if file.folder == SCANS else '.mat'}"


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


def _worlds(rule: SyntheticRule) -> dict[str, RenderedFaces]:
    shifts = {TRAINING: 0, TEST: HELD_OUT_SEED_SHIFT, SCANS: SCANS_SEED_SHIFT}
    return {folder: RenderedFaces(rule, seed=rule.seed + shift) for folder, shift in shifts.items()}


def _write_piece(
    files: Sequence[WorldFile], worlds: dict[str, RenderedFaces], *, output: Path
) -> dict[str, str]:
    """Files of one folder; the .mat or the .obj comes last and marks one as finished."""
    folder, indices = files[0].folder, [file.index for file in files]
    faces = worlds[folder].faces
    if folder == SCANS:
        for file in files:
            write_scan(_marker(output, file).parent, faces, file.index)
        return {}
    batch = faces.batch(indices)
    fits = faces.fits(indices)
    pictures = to_bytes(batch.image).permute(0, 2, 3, 1).contiguous().numpy()
    seen = to_mask(batch.attention).numpy()
    landmarks = camera.convert_origin(batch.landmarks.double(), "zero_based", "matlab").numpy()
    size = pictures.shape[1]
    for i, file in enumerate(files):
        write_picture(output / f"{file.stem}.jpg", pictures[i])
        write_picture(
            output / "attention" / f"{file.stem}.png", np.repeat(seen[i, :, :, None], 3, 2)
        )
        write_fit(
            _marker(output, file),
            fits[i],
            height=size,
            width=size,
            landmarks=landmarks[i],
            with_depth=folder == TEST,
        )
    return {}
