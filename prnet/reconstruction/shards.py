"""Many photos in pieces, each of which becomes one shard: NAME.tar with the files of its faces, as
a run on one machine names them, and NAME.json with what faces.json says of them.

A shard is done when NAME.json is there. NAME.begun says which photo a process is at: one that finds
it knows what the process before it died of.
"""

import json
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from prnet.files import (
    STALE_SECONDS,
    of_one_file,
    read_json_object,
    remove_leftovers,
    take,
    write_json,
    written_whole,
)
from prnet.reconstruction.photos import SUFFIXES
from prnet.reconstruction.reconstructor import Reconstructor
from prnet.reconstruction.run import (
    INDEX,
    Framer,
    Settings,
    earlier_records,
    reconstruct_input,
    stems_of,
    write_index,
)
from prnet.reconstruction.tars import TarWriter, damage_of, is_tar, members_of

log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """What becomes one shard."""

    name: str  # of the shard
    inputs: tuple[str, ...]  # photos and videos, or one tar
    stems: tuple[str, ...] = ()  # how the files of each photo are named; none of a tar: its own

    def as_json(self) -> str:
        return json.dumps(self)

    @classmethod
    def of_json(cls, text: str) -> "Piece":
        name, inputs, stems = json.loads(text)
        return cls(name, tuple(inputs), tuple(stems))


class Counts(NamedTuple):
    """What came of a shard, or of a run."""

    inputs: int
    faces: int
    empty: int  # inputs without a face

    @classmethod
    def of(cls, records: Sequence[dict]) -> "Counts":
        faces = [len(record["faces"]) for record in records]
        return cls(len(faces), sum(faces), faces.count(0))


class Plan(NamedTuple):
    """What there is to do in an output folder."""

    done: list[str]  # shards that are whole
    pieces: list[Piece]  # the others

    @property
    def names(self) -> list[str]:
        """Of all shards, sorted."""
        return sorted([*self.done, *(piece.name for piece in self.pieces)])


def plan_pieces(
    inputs: Sequence[Path], output: Path, settings: Settings, *, shard_size: int
) -> Plan:
    """A piece for every tar, named as it is, and one for every `shard_size` photos that are in no
    whole shard yet, by the first free numbers.

    Raises:
        ValueError: OUTPUT is of another run, or of one without shards, or holds the input's tars.
    """
    index = output / INDEX
    if any("shard" not in record for record in earlier_records(index, settings).values()):
        raise ValueError(f"{index}: of a run with engine=local; choose another output=")
    tars = [path for path in inputs if is_tar(path)]
    if any(tar.parent.resolve() == output.resolve() for tar in tars):
        raise ValueError(f"output={output}: the tars of the input lie there; choose another")
    reserved = {index: index.stem}
    names = stems_of(tars, reserved)
    done, pieces = [], []
    for tar in tars:
        if (output / f"{names[tar]}.json").is_file():
            done.append(names[tar])
        else:
            pieces.append(Piece(names[tar], (str(tar),)))
    photos = [path for path in inputs if path not in names]
    taken = set(names.values())
    known: dict[Path, str] = {}
    for file in sorted(output.glob("*.json")):
        if file.stem not in taken:
            found = earlier_records(file, settings)
            known |= {Path(one): record["stem"] for one, record in found.items()}
            done.append(file.stem)
            taken.add(file.stem)
    stems = stems_of(photos, known)
    left = [photo for photo in photos if photo not in known]
    numbers = (f"photos-{number:06d}" for number in range(len(taken) + len(left)))
    free = (name for name in numbers if name not in taken)
    for start in range(0, len(left), shard_size):
        part = left[start : start + shard_size]
        pieces.append(
            Piece(next(free), tuple(map(str, part)), tuple(stems[photo] for photo in part))
        )
    return Plan(done, pieces)


class ShardMaker:
    """Makes shards, one after the other, in one process.

    >>> ShardMaker(make_reconstructor, Path("faces"), settings, None)(piece)
    """

    def __init__(
        self,
        make_reconstructor: Callable[[], Reconstructor],
        output: Path,
        settings: Settings,
        framer: Framer | None,  # None: the detector
        *,
        attempts: int = 3,
    ) -> None:
        """`attempts`: a photo that so many processes died of is listed and left out."""
        self.reconstructor = make_reconstructor()
        self.output = output
        self.settings = settings
        self.framer = framer
        self.attempts = attempts

    def __call__(self, piece: Piece) -> Counts:
        """Write the shard, if it is not there.

        Raises:
            OSError: it cannot be written.
        """
        index = self.output / f"{piece.name}.json"
        if index.is_file():
            return Counts.of(list(earlier_records(index, self.settings).values()))
        ledger = Ledger(self.output / f"{piece.name}.begun")
        photos, records = _photos_of(piece)
        tar = self.output / f"{piece.name}.tar"
        with tempfile.TemporaryDirectory(prefix="prnet_") as scratch, TarWriter(tar) as writer:
            for photo, stem in photos.items():
                deaths = ledger.begin(photo)
                record = {"input": str(photo), "stem": stem, "faces": []}
                if deaths >= self.attempts:
                    record["why"] = f"{deaths} processes died of it; left out"
                else:
                    record |= self._reconstruct(photo, stem, Path(scratch))
                names = [name for face in record["faces"] for name in face["files"]]
                for name in [*names, *record.get("files", [])]:
                    writer.add(Path(scratch, name), name)
                    Path(scratch, name).unlink()
                records.append(record | {"shard": tar.name})
        write_index(index, self.settings, records)
        ledger.path.unlink(missing_ok=True)
        return Counts.of(records)

    def _reconstruct(self, photo: Path, stem: str, scratch: Path) -> dict:
        """The record of one input; where the program fails, too."""
        known = self.reconstructor, self.settings, self.framer
        try:
            return reconstruct_input(photo, stem, scratch, *known, progress=False)[0]
        except Exception as error:  # noqa: BLE001 - one of a million; the others go on
            if not of_one_file(error) or "CUDA" in str(error):  # which fails from then on
                raise
            return {"why": f"{photo}: {type(error).__name__}: {error}"}


def _photos_of(piece: Piece) -> tuple[dict[Path, str], list[dict]]:
    """Photo -> stem, and the records of tars that cannot be read, or not to their end."""
    if piece.stems:
        return dict(zip(map(Path, piece.inputs), piece.stems, strict=True)), []
    tar = Path(piece.inputs[0])
    try:
        photos = members_of(tar, SUFFIXES)
        why = damage_of(tar) or (None if photos else f"{tar}: no photo in it")
    except (ValueError, OSError) as error:
        photos, why = [], str(error)
    lost = {"input": str(tar), "stem": piece.name, "faces": [], "why": why}
    lost["shard"] = f"{piece.name}.tar"
    return stems_of(photos), [] if why is None else [lost]


class Ledger:
    """NAME.begun: the photo that is worked on, and how many processes died of which."""

    def __init__(self, path: Path) -> None:
        """What the process before left there, which died of the photo that it was at."""
        self.path = path
        self.deaths: dict[str, int] = {}
        if path.is_file():
            try:
                found = read_json_object(path)
                self.deaths = take(found, "deaths", dict, path)
                photo = take(found, "photo", str, path)
            except ValueError as error:  # the machine went down while it was written
                log.warning("%s", error)
                return
            self.deaths[photo] = self.deaths.get(photo, 0) + 1

    def begin(self, photo: Path) -> int:
        """Note that the next photo is worked on; how many processes died of it before."""
        content = {
            "photo": str(photo),
            "deaths": self.deaths,
            "process": os.getpid(),
            "machine": platform.node(),
        }
        write_json(self.path, content)
        return self.deaths.get(str(photo), 0)


def write_merged_index(output: Path, names: Iterable[str], settings: Settings) -> None:
    """faces.json of the whole run from those of its shards, one in memory at a time."""
    index = output / INDEX
    write_index(index, settings, [])
    start, _, end = index.read_text().rpartition("[]")
    with written_whole(index) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(start + "[")
        for number, record in enumerate(_records(output, names, settings)):
            file.write((",\n" if number else "\n") + json.dumps(record))
        file.write("\n  ]" + end)


def _records(output: Path, names: Iterable[str], settings: Settings) -> Iterator[dict]:
    for name in names:
        path = output / f"{name}.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: a worker wrote it, and it is not here; give an output= that all machines "
                "have in common"
            )
        yield from earlier_records(path, settings).values()


def begin_run(output: Path, settings: Settings) -> None:
    """Put down the settings, where no run has yet; remove what killed writers left."""
    if not (output / INDEX).is_file():
        write_index(output / INDEX, settings, [])
    remove_leftovers(output, older_than=STALE_SECONDS)
