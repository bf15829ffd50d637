"""Real faces of 300W-LP turned in 3D to a larger yaw, written in the layout of the archive.

DIR/300W_LP/Extra/NAME_YAW.jpg, .mat   the turned photo and its fit; NAME is SUBSET_STEM of the
                                       source, YAW the head's yaw in degrees ("yaw95", "yaw-95")
DIR/extra.json                         where each sample comes from, and what could not be read

DIR is a data folder: `data_dir=DIR dataset=300w_lp dataset.subsets=[Extra]` trains on it.
"""

import functools
import itertools
import logging
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.building.resumable import (
    left_out,
    planned,
    require_most,
    resumable,
    some_reasons,
)
from prnet.building.turning import head_pose, require_turnable, turn_fit, turn_photo
from prnet.datasets.fits import FacePair, decode_vertices, fit_matrix, read_fit, write_fit
from prnet.datasets.pictures import decode_picture, write_picture
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles
from prnet.files import read_json_object, write_json
from prnet.geometry import camera
from prnet.sample import Fit
from prnet.workers import chunks

log = logging.getLogger(__name__)

FOLDER = "300W_LP/Extra"
# Beyond this the picture would be mostly the back of the head, which no photo of a face shows.
LARGEST_YAW_DEG = 120
PIECE_SIZE = 8  # samples that one process makes at a time
SECONDS = 0.15  # of work in a sample, about


class ExtraRule(NamedTuple):
    """Which turns are made of which faces. Yaw is `prnet.building.turning.HeadPose`'s, degrees.

    Either `yaw_deg`: every sample gets a yaw drawn from these whole degrees, both ends included, on
    the side the face looks to already, if a turn of at most `max_turn_deg` leads there. Or
    `increments_deg`: every face is turned by each of these, away from the camera, or toward it
    where negative. Turns that end beyond `LARGEST_YAW_DEG` are not made.
    """

    yaw_deg: tuple[int, int] | None = (90, 105)
    increments_deg: tuple[int, ...] | None = None
    max_turn_deg: float = 30.0
    count: int | None = 5000  # samples in all; None: one of every face, or all its increments
    seed: int = 0  # of the order of the faces and of the drawn yaws

    def check(self) -> None:
        """Raise ValueError unless the values make sense together."""
        if (self.yaw_deg is None) == (self.increments_deg is None):
            raise ValueError(
                f"got yaw_deg {self.yaw_deg} and increments_deg {self.increments_deg}, expected "
                "one of them, and null for the other"
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"count: got {self.count}, expected at least 1, or null for all")
        degrees = self.yaw_deg if self.yaw_deg is not None else self.increments_deg
        if any(value != int(value) for value in degrees):
            raise ValueError(f"got {list(degrees)}, expected whole degrees")
        if self.yaw_deg is None:
            if not degrees or len(set(degrees)) != len(degrees):
                raise ValueError(f"increments_deg: got {list(degrees)}, expected different ones")
            return
        if len(degrees) != 2 or not 0 <= degrees[0] <= degrees[1] <= LARGEST_YAW_DEG:
            raise ValueError(
                f"yaw_deg: got {list(degrees)}, expected [from, to] within 0 to {LARGEST_YAW_DEG}"
            )
        if not self.max_turn_deg > 0:
            raise ValueError(f"max_turn_deg: got {self.max_turn_deg}, expected more than 0")


class Turn(NamedTuple):
    """One sample to make."""

    name: str  # of the file, without a suffix
    pair: FacePair
    yaw_deg: float  # of the source
    turn_deg: float


def build_extra(
    pairs: Sequence[FacePair],
    output: Path | str,
    rule: ExtraRule,
    face_files: FaceFiles,
    *,
    workers: int = 0,
) -> dict:
    """Write, or finish writing, the turned faces of `rule`; returns the content of extra.json.

    A sample whose .mat is there is left alone: a killed run goes on where it stopped, a larger
    count or another rule adds to what is there. A pair that cannot be read or turned is listed with
    the reason, and with `count` the next face takes its place if its fit is at fault.

    Raises:
        ValueError: the rule is not one, a listing of another format is in the way, or not one
            sample came of the pairs.
    """
    rule.check()
    output = Path(output)
    # Another rule adds, so that the plan says no more than of which face the fits are.
    face = face_files.load().describe()
    with planned(output / FOLDER, dataset="300w_lp_extra", face=face):
        listing_file = output / "extra.json"
        listing = {"samples": {}, "unreadable": {}}
        if listing_file.is_file():
            listing = read_json_object(listing_file)
            if set(listing) != {"samples", "unreadable"}:
                raise ValueError(
                    f"{listing_file}: holds {sorted(listing)}, expected samples and unreadable; "
                    "choose another output="
                )
        turns, unreadable = plan_turns(pairs, rule)
        for turn in turns:
            listing["unreadable"].pop(turn.pair.name, None)
        listing["unreadable"].update(unreadable)
        marker = functools.partial(_fit_file, output)
        failed = resumable(
            output / FOLDER,
            chunks(turns, PIECE_SIZE),
            functools.partial(_write_turns, output=output),
            face_files.load,
            marker,
            title="turn faces",
            unit="sample",
            seconds=SECONDS,
            workers=workers,
        )
    listing["unreadable"].update(failed)
    made = [turn for turn in turns if marker(turn).is_file()]
    for turn in made:
        listing["samples"][turn.name] = {
            "source": turn.pair.name,
            "yaw_deg": round(turn.yaw_deg + turn.turn_deg, 3),
            "turn_deg": round(turn.turn_deg, 3),
        }
    if not made:
        reasons = some_reasons(listing["unreadable"])
        raise ValueError(
            f"{output}: not one of {len(pairs)} faces could be turned as asked "
            f"({reasons or 'they look elsewhere: allow a larger max_turn_deg'})"
        )
    write_json(listing_file, listing)
    unreadable = listing["unreadable"]
    log.info("%s: %d samples, %d unreadable", output / FOLDER, len(made), len(unreadable))
    if rule.count is not None and len(made) < rule.count:
        log.warning("%d samples were asked for: these faces allow no more", rule.count)
    require_most(output / FOLDER, len(made), unreadable)
    return listing


def plan_turns(pairs: Sequence[FacePair], rule: ExtraRule) -> tuple[list[Turn], dict[str, str]]:
    """The samples to make, and why fits on the way could not be read, {name: reason}.

    Faces come in the seed's order; where there are fewer than `count`, each comes again with
    another yaw.
    """
    order = np.random.default_rng(rule.seed).permutation(len(pairs)).tolist()
    unreadable: dict[str, str] = {}
    readable: dict[int, float] = {}

    def turns() -> Iterator[Turn]:
        left = order
        for round_number in itertools.count():
            useful = []
            for index in left:
                pair = pairs[index]
                if round_number == 0:
                    with left_out(unreadable, pair.name):
                        readable[index] = math.degrees(head_pose(read_fit(pair.fit).fit).yaw)
                    if pair.name in unreadable:
                        continue
                found = _turns_of(pair, readable[index], rule)
                mine = found[round_number : round_number + 1] if rule.yaw_deg else found
                yield from mine
                if mine:
                    useful.append(index)
            left = useful
            # Increments are all made in the first round, and without a count so is one yaw each.
            if not left or rule.count is None or rule.yaw_deg is None:
                return

    return list(itertools.islice(turns(), rule.count)), unreadable


def _turns_of(pair: FacePair, yaw_deg: float, rule: ExtraRule) -> list[Turn]:
    """Every turn the rule allows this face, in the order in which they are taken."""
    side = 1 if yaw_deg >= 0 else -1
    if rule.yaw_deg is None:
        asked = [side * increment for increment in rule.increments_deg]
    else:
        random = np.random.default_rng([rule.seed, zlib.crc32(pair.name.encode())])
        targets = random.permutation(np.arange(int(rule.yaw_deg[0]), int(rule.yaw_deg[1]) + 1))
        asked = [side * target - yaw_deg for target in targets.tolist()]
        asked = [turn for turn in asked if abs(turn) <= rule.max_turn_deg]
    stem = pair.name.replace("/", "_")
    return [
        Turn(f"{stem}_yaw{math.floor(yaw_deg + turn + 0.5)}", pair, yaw_deg, turn)
        for turn in asked
        if abs(yaw_deg + turn) <= LARGEST_YAW_DEG
    ]


def _fit_file(output: Path, turn: Turn) -> Path:
    return output / FOLDER / f"{turn.name}.mat"


def _write_turns(turns: Sequence[Turn], face: Face, *, output: Path) -> dict[str, str]:
    """Make and write samples; the .mat comes last and marks one as finished."""
    failed = {}
    for turn in turns:
        with left_out(failed, turn.pair.name):
            photo = decode_picture(turn.pair.read_picture(), source=turn.pair.picture.name)
            fit = read_fit(turn.pair.fit).fit
            height, width = photo.shape[:2]
            require_turnable(fit, _landmarks(fit, face, height), height, width)
        if turn.pair.name in failed:
            continue
        turned = turn_fit(fit, face, math.radians(turn.turn_deg), height=height, width=width)
        picture = turn_photo(photo, fit, turned, face)
        write_picture(output / FOLDER / f"{turn.name}.jpg", picture)
        write_fit(
            _fit_file(output, turn),
            turned,
            height=height,
            width=width,
            landmarks=_landmarks(turned, face, height, pixel_origin="matlab"),
            with_depth=False,
        )
    return failed


def _landmarks(
    fit: Fit, face: Face, height: int, *, pixel_origin: str = "zero_based"
) -> np.ndarray:
    """(68, 3), image px."""
    landmark_model = face.morphable_model.at_vertices(face.landmark_index)
    image_from_model = fit_matrix(fit, height, pixel_origin=pixel_origin)
    vertices = decode_vertices(landmark_model, fit).double()
    return camera.transform_points(image_from_model, vertices).numpy()
