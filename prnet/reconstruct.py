"""`python -m prnet.reconstruct`: photos and videos in, faces out."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("reconstruct")  # ends here: options are read before what follows is imported

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf

from prnet.checks import require_choice
from prnet.datasets.landmark_files import SUFFIXES, read_landmarks
from prnet.detection.detector import FaceDetector
from prnet.detection.framing import Framing, framing_of_points
from prnet.entry import resolve_device
from prnet.files import require_folder, visible_files
from prnet.files.csv_tables import read_csv
from prnet.reconstruction.cluster import ClusterOptions, reconstruct_on_cluster
from prnet.reconstruction.loading import load
from prnet.reconstruction.outputs import require_outputs, require_possible
from prnet.reconstruction.photos import write_astronaut
from prnet.reconstruction.reconstructor import Reconstructor
from prnet.reconstruction.run import (
    Framer,
    Settings,
    find_photos,
    reconstruct_photos,
)
from prnet.reconstruction.smoothing import Smoothing
from prnet.reconstruction.tracking import Following
from prnet.reconstruction.video_run import VideoSettings

log = logging.getLogger(__name__)

ENGINES = ("local", "ray")
BOX_COLUMNS = ("name", "left", "top", "right", "bottom")


def whole_picture(_photo: Path, picture: np.ndarray) -> Sequence[Framing]:
    """The picture is a crop already: its box is the face's with the margin of a crop."""
    height, width = picture.shape[:2]
    corners = np.array([[0, 0], [width - 1, height - 1]], dtype=np.float64)
    center, half = corners.mean(0), (corners[1] - corners[0]) / 2 / 1.5
    return [framing_of_points(np.stack([center - half, center + half]))]


def given_boxes(file: Path) -> Framer:
    """Boxes of the 68 landmarks, a CSV with name,left,top,right,bottom: px of the upright picture,
    NAME as the photo's or its stem, several lines for several faces."""
    rows = read_csv(file, BOX_COLUMNS, hint="give boxes=FILE.csv, or leave it out").rows
    by_name = {name: values.reshape(2, 2) for name, values in rows.items()}

    def framings(photo: Path, _picture: np.ndarray) -> Sequence[Framing]:
        box = by_name.get(photo.name, by_name.get(photo.stem))
        if box is None:
            raise ValueError(f"{photo}: no line for it in {file}")
        return [framing_of_points(box)]

    return framings


def given_landmarks(path: Path) -> Framer:
    """68 landmarks of each photo, a table or a folder of files, px of the upright picture."""

    def framings(photo: Path, _picture: np.ndarray) -> Sequence[Framing]:
        found = (
            [path]
            if path.is_file()
            else [file for file in visible_files(path, SUFFIXES) if file.stem == photo.stem]
        )
        for file in found:
            points = read_landmarks(file).get(photo.stem)
            if points is not None:
                return [framing_of_points(points[~np.isnan(points).any(1)])]
        raise ValueError(f"{photo}: no landmarks for it in {path}")

    return framings


def framer_of(boxes: str | None, landmarks: str | None) -> tuple[str, Framer | None]:
    """Where boxes come from, in words, and how; None: the detector.

    Raises:
        ValueError: two sources at once.
    """
    if boxes is not None and landmarks is not None:
        raise ValueError("give boxes= or landmarks=, not both")
    if boxes == "whole":
        return "boxes=whole", whole_picture
    if boxes is not None:
        return f"boxes={boxes}", given_boxes(Path(boxes))
    if landmarks is not None:
        return f"landmarks={landmarks}", given_landmarks(Path(landmarks).absolute())
    return "detector", None


def video_settings(video: DictConfig, smoothing: DictConfig | bool) -> VideoSettings:
    """Raises ValueError for a value out of its range."""
    values = OmegaConf.to_container(video)
    limit = values.pop("max_frames")
    if limit is not None and limit < 1:
        raise ValueError(f"video.max_frames: got {limit}, expected 1 or more")
    if smoothing is True or smoothing is None:
        raise ValueError(f"smoothing: got {smoothing}, expected its values or false")
    made = Smoothing.of(**OmegaConf.to_container(smoothing)) if smoothing else None
    return VideoSettings(Following(**values).checked(), made, limit)


def astronaut(output: Path) -> list[Path]:
    """The example photo, in the output folder to be looked at beside what is made of it."""
    path = output / "astronaut.jpg"
    return [path if path.is_file() else write_astronaut(path)]


def make_reconstructor(options: dict, detector: dict, device: str) -> Reconstructor:
    """One of plain values, which can be sent to another process."""
    return load(**options, detector=FaceDetector(**detector), device=device)


def main(cfg: DictConfig) -> None:
    require_choice("engine", cfg.engine, ENGINES)
    spread = ClusterOptions(**cfg.ray).checked() if cfg.engine == "ray" else None
    output = Path(cfg.output)
    names = list(cfg.outputs) if isinstance(cfg.outputs, ListConfig) else [str(cfg.outputs)]
    framing, framer = framer_of(cfg.boxes, cfg.landmarks)
    settings = Settings(
        str(cfg.checkpoint),
        require_outputs(names),
        framing,
        float(cfg.detector.threshold),
        video_settings(cfg.video, cfg.smoothing),
    )
    require_folder(output)
    options = {key: cfg[key] for key in ("checkpoint", "data_dir", "runtime", "crop_scale")}
    if spread is not None:
        options["runtime"] = spread.runtime(cfg.runtime)
        for key in ("checkpoint", "data_dir"):
            options[key] = as_seen_elsewhere(cfg[key])
    make = functools.partial(make_reconstructor, options, OmegaConf.to_container(cfg.detector))
    if spread is None:
        photos = astronaut(output) if cfg.input is None else find_photos(cfg.input)
    reconstructor = make(resolve_device(cfg.device) if spread is None else "cpu")
    gives_parameters = reconstructor.model.num_parameters is not None
    require_possible(settings.outputs, reconstructor.face, gives_parameters=gives_parameters)
    if spread is not None:
        made = functools.partial(make, spread.device(cfg.device))
        counts = reconstruct_on_cluster(cfg.input, output, made, settings, spread, framer=framer)
        log.info("made now: inputs %d, faces %d, in %s", counts.inputs, counts.faces, output)
        if counts.empty:
            log.warning("without a face: %d, listed with the shards they belong to", counts.empty)
        return
    told: list[tuple[dict, bool]] = []
    reconstruct_photos(
        *(photos, output, reconstructor, settings),
        framer=framer,
        tell=lambda record, kept: told.append((record, kept)),
    )
    say_what_came(told, output)


def say_what_came(told: Sequence[tuple[dict, bool]], output: Path) -> None:
    """Faces and files of this run's inputs: the record of each, and whether it was kept."""
    faces = sum(len(record["faces"]) for record, _ in told)
    log.info("inputs: %d, faces: %d, in %s", len(told), faces, output)
    kept = sum(kept for _, kept in told)
    if kept:
        log.info("made by an earlier run and kept: those of %d; delete a file to renew it", kept)
    empty = sum(not record["faces"] for record, _ in told)
    if empty:
        log.warning("without a face: %d, listed in %s", empty, output / "faces.json")
    if len(told) == 1 and faces:
        ((record, kept),) = told
        names = [*record["faces"][0]["files"], *record.get("files", [])]
        files = ", ".join(str(output / name) for name in names)
        log.info("%s: %s", "as they were" if kept else "written", files)


def as_seen_elsewhere(path: str) -> str:
    """A path that is there, as processes see it that work in another folder; a name as it is."""
    return str(Path(path).absolute()) if Path(path).exists() else path
