"""What the page does for a visitor, without the page: photos to faces, faces in other expressions.

A `Visit` belongs to one visitor and is never changed; a `Studio` is shared by all and hands its
networks to one at a time.
"""

import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from prnet.checkpoint import DEFAULT, shipped_weights
from prnet.reconstruction.glb import (
    Head,
    head_of,
    is_whole_head,
    write_face_glb,
    write_head,
    write_posed_head,
)
from prnet.reconstruction.loading import load
from prnet.reconstruction.photos import read_photo
from prnet.reconstruction.reconstructor import FaceReconstruction, Reconstructor
from prnet.reconstruction.texture import Texture, texture_of

# The longer side of a larger photo is brought down to it: the page shows no more.
LONGEST_SIDE = 2048
# A photo of more pixels is refused: with several visitors each takes some 10 bytes a pixel.
MOST_PIXELS = 100_000_000
# So many heads of a visit stay: a browser may still be reading the last ones.
KEPT_HEADS = 4


@dataclass(frozen=True)
class Visit:
    """The faces of one visitor's photo, and the one that is looked at."""

    folder: Path  # of the visit alone
    stem: str  # how the photo is called
    faces: tuple[FaceReconstruction, ...]  # the largest first
    chosen: int
    texture: Texture
    head: Head | None  # None: its mesh has no expressions to move

    @property
    def face(self) -> FaceReconstruction:
        return self.faces[self.chosen]

    def close(self) -> None:
        """Remove its files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Studio:
    """Networks by name, read when they are first chosen."""

    def __init__(
        self,
        folder: Path,  # where visits have their folders
        checkpoint: str = "default",
        **options: object,  # as `load` takes them
    ) -> None:
        """Raises as `load`, of `checkpoint`; the others that come with the package are read when
        they are chosen."""
        self.folder = folder
        self.first = DEFAULT if checkpoint == "default" else checkpoint
        self.weights = tuple(dict.fromkeys([self.first, *shipped_weights()]))
        self._options = options
        self._lock = threading.Lock()  # neither the detector nor the loading is for two at once
        self._reconstructors = {self.first: load(self.first, **options)}

    def look(self, photo: Path, weights: str) -> Visit:
        """The faces of a photo, the largest chosen.

        Raises:
            ValueError: no readable picture, too large a one, or no face in it; the message has the
                file's name alone.
            FileNotFoundError: weights whose face model is not there.
        """
        try:
            picture = reduced(read_photo(photo, most_pixels=MOST_PIXELS).picture)
        except ValueError as error:
            raise ValueError(str(error).replace(str(photo), photo.name)) from error
        with self._lock:
            faces = self._reconstructor(weights)(picture)
        if not faces:
            raise ValueError(f"{photo.name}: no face found; take a photo that shows one larger")
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="visit_"))
        return _of_face(folder, photo.stem, tuple(faces), 0)

    def _reconstructor(self, weights: str) -> Reconstructor:
        if weights not in self._reconstructors:
            if weights not in self.weights:
                raise ValueError(f"weights: got {weights!r}, expected one of {self.weights}")
            self._reconstructors[weights] = load(weights, **self._options)
        return self._reconstructors[weights]


def reduced(picture: np.ndarray) -> np.ndarray:  # (H, W, 3), uint8
    """The picture with a longer side of `LONGEST_SIDE` px at most."""
    scale = LONGEST_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = [max(round(scale * side), 1) for side in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def choose(visit: Visit, number: int) -> Visit:
    """Another face of the photo, counted from 0."""
    return _of_face(visit.folder, visit.stem, visit.faces, number)


def expression_of(visit: Visit) -> dict[str, float]:
    """The photo's coefficients by name, from 0 to 1 in hundredths; none where none can be moved."""
    if visit.head is None:
        return {}
    values = np.round(visit.head.coefficients.astype(float), 2).tolist()
    return dict(zip(visit.head.names, values, strict=True))


def write_shown(visit: Visit, expression: dict[str, float]) -> Path:
    """A GLB of the face in an expression, quickly; older ones of the visit go."""
    path = visit.folder / "shown" / f"{time.time_ns()}.glb"
    path.parent.mkdir(exist_ok=True)
    if visit.head is None:
        write_face_glb(path, visit.face, texture=visit.texture)
    else:
        write_posed_head(path, visit.head, _coefficients(visit.head, expression))
    for old in sorted(path.parent.glob("*.glb"))[:-KEPT_HEADS]:
        old.unlink(missing_ok=True)
    return path


def write_download(visit: Visit, expression: dict[str, float]) -> Path:
    """STEM.glb as `prnet.reconstruct` writes it, its morph targets set to an expression."""
    number = f"_{visit.chosen + 1}" if len(visit.faces) > 1 else ""
    path = visit.folder / f"{visit.stem}{number}.glb"
    if visit.head is None:
        write_face_glb(path, visit.face, texture=visit.texture)
    else:
        write_head(path, visit.head, _coefficients(visit.head, expression))
    return path


def _of_face(folder: Path, stem: str, faces: tuple[FaceReconstruction, ...], chosen: int) -> Visit:
    face = faces[chosen]
    texture = texture_of(face)
    head = head_of(face, texture) if is_whole_head(face) else None
    return Visit(folder, stem, faces, chosen, texture, head)


def _coefficients(head: Head, expression: dict[str, float]) -> np.ndarray:
    return np.clip([expression[name] for name in head.names], 0, 1)
