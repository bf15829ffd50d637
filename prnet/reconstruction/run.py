"""Many photos and videos: what is read, what each face is called, what is done already, and
faces.json."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from prnet import __version__
from prnet.detection.framing import Framing
from prnet.files import (
    matching_files,
    read_json_object,
    read_text,
    visible_files,
    write_json,
)
from prnet.reconstruction.outputs import MORE, face_record, write_outputs
from prnet.reconstruction.photos import SUFFIXES, read_photo
from prnet.reconstruction.reconstructor import Reconstructor
from prnet.reconstruction.tars import SUFFIX as TAR_SUFFIX
from prnet.reconstruction.tars import is_tar, members_of
from prnet.reconstruction.video import SUFFIXES as VIDEO_SUFFIXES
from prnet.reconstruction.video import VideoReader, is_camera, is_video
from prnet.reconstruction.video_run import VideoSettings, reconstruct_video

log = logging.getLogger(__name__)

INDEX = "faces.json"
LIST_SUFFIX = ".txt"
# faces.json is written anew so often, and at the end whatever happens.
SAVE_SECONDS = 10.0

# Boxes instead of the detector's: the framings of one photo.
Framer = Callable[[Path, np.ndarray], Sequence[Framing]]


class Settings(NamedTuple):
    """What decides the files of a run."""

    checkpoint: str
    outputs: tuple[str, ...]
    framing: str  # "detector", or what stands for it
    threshold: float  # of the detector
    video: VideoSettings = VideoSettings()


def find_photos(source: Path | str) -> list[Path]:
    """The photos and videos of `find_inputs`, those in its tars too; a camera.

    Raises:
        FileNotFoundError: there is none.
        ValueError: as `find_inputs`, or a tar cannot be read.
    """
    found = []
    for path in find_inputs(source):
        found += members_of(path, SUFFIXES) if is_tar(path) else [path]
    if not found:
        raise FileNotFoundError(f"input={source}: no photo in it, one with {', '.join(SUFFIXES)}")
    return found


def find_inputs(source: Path | str) -> list[Path]:
    """The photos, videos and tars of a file, a folder (its sub-folders too) or a pattern, sorted,
    or of a list, as it has them; a camera.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a list that is no text.
    """
    path = Path(source)
    expected = "a file, a folder, a list, camera:0 or a pattern such as 'photos/*.jpg'"
    if path.is_file() and path.suffix.lower() == LIST_SUFFIX:
        lines = (line.strip() for line in read_text(path).splitlines())
        found = [Path(line) for line in dict.fromkeys(lines) if line]
        expected = "the path of a photo, a video or a tar in each line"
    elif path.is_file() or is_camera(source):
        return [path]
    elif path.is_dir():
        suffixes = (*SUFFIXES, *VIDEO_SUFFIXES, TAR_SUFFIX)
        found = visible_files(path, suffixes, below=True)
        expected = f"a picture, a video or a tar, with one of {', '.join(suffixes)}"
    else:
        found = [one for one in matching_files(str(source)) if not one.name.startswith(".")]
    if not found:
        raise FileNotFoundError(f"input={source}: nothing found; expected {expected}")
    return found


def stems_of(photos: Sequence[Path], known: Mapping[Path, str] | None = None) -> dict[Path, str]:
    """Photo -> how its files' names begin, all different: its own stem, with the suffix where two
    photos differ by that alone, else with its folder or a number. What is `known` stays."""
    stems = dict(known or {})
    taken = {stem.lower() for stem in stems.values()}  # some file systems do not tell a from A
    numbers: dict[str, Iterator[int]] = {}
    for photo in photos:
        if photo in stems:
            continue
        own = photo.stem.replace(":", "_")  # a camera's
        ending = photo.suffix.lstrip(".").lower()
        folder = photo.parent.stem if is_tar(photo.parent) else photo.parent.name
        candidates = [own, f"{own}_{ending}", f"{folder}_{own}"]
        count = numbers.setdefault(candidates[1].lower(), itertools.count(2))
        numbered = (f"{own}_{ending}_{number}" for number in count)
        endless = itertools.chain(candidates, numbered)
        stem = next(one for one in endless if one.lower() not in taken)
        stems[photo] = stem
        taken.add(stem.lower())
    return stems


def reconstruct_photos(
    photos: Sequence[Path],
    output: Path,
    reconstructor: Reconstructor,
    settings: Settings,
    *,
    framer: Framer | None = None,  # None: the detector
    progress: bool = True,
    tell: Callable[[dict, bool], None] = lambda _record, _kept: None,
) -> dict:
    """Write what `settings` names of every face of every photo and video; the content of
    OUTPUT/faces.json, which has earlier runs' too.

    What has a record with all its files is skipped, but for a camera; what cannot be read, or
    shows no face, is listed with the reason. Left early, what is done is kept. `tell` is told of
    each input its record, and whether it was kept as it was.
    """
    index = output / INDEX
    done = earlier_records(index, settings)
    stems = stems_of(photos)
    log.info("looking for faces in %s", photos[0] if len(photos) == 1 else f"{len(photos)} files")
    records: dict[str, dict] = {}
    saved = time.monotonic()
    try:
        bar = tqdm(photos, desc="reconstruct", unit="file", disable=not progress or len(photos) < 2)
        for photo in bar:
            record, stopped = done.get(str(photo)), False
            kept = record is not None and record["stem"] == stems[photo]
            kept = kept and _is_whole(output, record)
            if not kept:
                one = photo, stems[photo], output, reconstructor, settings, framer
                record, stopped = reconstruct_input(*one, progress=progress)
            records[str(photo)] = record
            tell(record, kept)
            if stopped:
                break
            if time.monotonic() - saved > SAVE_SECONDS:
                saved = time.monotonic()
                write_index(index, settings, {**done, **records}.values())
    finally:
        content = write_index(index, settings, {**done, **records}.values())
    return content


def reconstruct_input(
    source: Path,
    stem: str,
    output: Path,
    reconstructor: Reconstructor,
    settings: Settings,
    framer: Framer | None,
    *,
    progress: bool,
) -> tuple[dict, bool]:
    """The record of one photo or video, its files written, and whether Ctrl-C ended it."""
    one = source, stem, output, reconstructor, settings, framer
    return _video(*one, progress) if is_video(source) else (_photo(*one), False)


def _photo(
    photo: Path,
    stem: str,
    output: Path,
    reconstructor: Reconstructor,
    settings: Settings,
    framer: Framer | None,
) -> dict:
    """The record of one photo, its files written."""
    record = {"input": str(photo), "stem": stem, "faces": []}
    try:
        read = read_photo(photo)
        height, width = read.picture.shape[:2]
        record |= {"width": width, "height": height, "orientation": read.orientation}
        if framer is None:
            faces = reconstructor(read.picture)
        else:
            faces = reconstructor.framed(read.picture, framer(photo, read.picture))
    except (ValueError, OSError) as error:
        log.warning("%s", error)
        return record | {"why": str(error)}
    if not faces:
        log.warning("%s: no face found", photo)
        return record | {"why": "no face found"}
    for number, face in enumerate(faces, 1):
        place = output / stem if number == 1 else output / MORE / f"{stem}_{number}"
        files = write_outputs(face, place, settings.outputs)
        names = [path.relative_to(output).as_posix() for path in files]
        record["faces"].append(face_record(face, names))
    return record


def _video(
    video: Path,
    stem: str,
    output: Path,
    reconstructor: Reconstructor,
    settings: Settings,
    framer: Framer | None,
    progress: bool,
) -> tuple[dict, bool]:
    """The record of one video, its files written, and whether Ctrl-C ended it."""
    try:
        if framer is not None:
            raise ValueError(f"{video}: {settings.framing} is for photos; leave it out")
        reader = VideoReader(video)
    except (ValueError, OSError) as error:
        if is_camera(video):
            raise
        log.warning("%s", error)
        return {"input": str(video), "stem": stem, "faces": [], "why": str(error)}, False
    options = settings.outputs, settings.video
    with reader:
        record, stopped = reconstruct_video(
            reader, output / stem, reconstructor, *options, progress=progress
        )
    if "why" in record:
        log.warning("%s: %s", video, record["why"])
    return {"input": str(video), "stem": stem} | record, stopped


def earlier_records(index: Path, settings: Settings) -> dict[str, dict]:
    """The records of an earlier run of the same settings, by input.

    Raises:
        ValueError: the folder is of another run.
    """
    if not index.is_file():
        return {}
    content = read_json_object(index)
    if content.get("settings") != _plain_settings(settings):
        raise ValueError(
            f"{index}: of a run with {content.get('settings')}, this one has "
            f"{_plain_settings(settings)}; choose another output= or delete it"
        )
    return {record["input"]: record for record in content["inputs"]}


def _is_whole(output: Path, record: dict) -> bool:
    files = [name for face in record["faces"] for name in face["files"]]
    files += record.get("files", [])
    unfinished = "why" in record or is_camera(record["input"])
    return not unfinished and bool(files) and all((output / name).is_file() for name in files)


def _plain_settings(settings: Settings) -> dict:
    return settings._asdict() | {"outputs": list(settings.outputs), "video": settings.video.plain()}


def write_index(index: Path, settings: Settings, records: Iterable[dict]) -> dict:
    """Write faces.json, or that of a part of a run; its content."""
    content = {
        "version": __version__,
        "settings": _plain_settings(settings),
        "pixel_origin": "zero_based, of the picture with its EXIF orientation applied",
        "inputs": list(records),
    }
    write_json(index, content)
    return content
