"""`python -m prnet.build`: an archive of image + fit pairs, photos with landmarks, head scans or a
synthetic world -> files to train or to test with."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("build")  # ends here: options are read before what follows is imported

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from prnet.building.archives import BuildOptions, build_archive, find_archive
from prnet.building.florence import build_florence, write_renderings_sheet
from prnet.building.frozen_worlds import freeze
from prnet.building.landmarks_only import build_landmarks
from prnet.building.scan_rendering import RenderRule
from prnet.building.turned_faces import ExtraRule, build_extra
from prnet.checks import require_choice, require_count
from prnet.datasets.fits import find_300w_lp, find_aflw2000
from prnet.datasets.pictures import CropRule
from prnet.datasets.synthetic import SyntheticRule
from prnet.drawing.contact_sheet import (
    archive_samples,
    write_contact_sheet,
    write_landmark_sheet,
    write_sheet,
)
from prnet.entry import num_workers
from prnet.faces.loading import FaceFiles, load_face


def build_pairs(cfg: DictConfig) -> None:
    """A built set of an archive's pairs, and a sheet of its samples."""
    face_files = FaceFiles(**cfg.face)
    build_archive(
        cfg.dataset.subsets,
        data_dir=cfg.data_dir,
        output=cfg.output,
        face_files=face_files,
        options=BuildOptions(
            dataset=cfg.dataset.name,
            crop=CropRule(**cfg.crop),
            pixel_origin=cfg.pixel_origin,
            maps=cfg.maps,
            map_dtype=cfg.map_dtype,
        ),
        workers=num_workers(cfg.workers),
    )
    if cfg.contact_sheet:
        write_contact_sheet(cfg.output, face_files.load(), count=cfg.contact_sheet)


def build_turned(cfg: DictConfig) -> None:
    """The faces of 300W-LP turned beyond profile, and a sheet of them."""
    face_files, values = FaceFiles(**cfg.face), dataset_values(cfg)
    pairs = find_archive("300w_lp", values.pop("subsets"), face_files, data_dir=cfg.data_dir)
    workers = num_workers(cfg.workers)
    build_extra(pairs, cfg.output, ExtraRule(**values), face_files, workers=workers)
    if cfg.contact_sheet:
        turned = find_300w_lp(cfg.output, ["Extra"])
        items = archive_samples(turned, face := face_files.load(), count=cfg.contact_sheet)
        write_sheet(Path(cfg.output) / "300W_LP" / "contact_sheet.png", items, face)


def build_photos(cfg: DictConfig) -> None:
    """Photos with landmarks alone, and a sheet of them."""
    if cfg.dataset.landmarks is None:
        raise ValueError("dataset=landmarks_only: give dataset.landmarks=FILE or DIR")
    build_landmarks(
        cfg.dataset.landmarks,
        cfg.output,
        pictures=cfg.dataset.pictures,
        landmarks_origin=cfg.dataset.landmarks_origin,
        hidden=cfg.dataset.hidden,
        crop=CropRule(**cfg.crop),
        pixel_origin=cfg.pixel_origin,
        workers=num_workers(cfg.workers),
    )
    if cfg.contact_sheet:
        write_landmark_sheet(cfg.output, count=cfg.contact_sheet)


def build_scans(cfg: DictConfig) -> None:
    """Renderings of head scans, and a sheet of them with their true points."""
    rule = RenderRule.from_values(dataset_values(cfg))
    folder = build_florence(cfg.data_dir, cfg.output, rule, workers=num_workers(cfg.workers))
    if cfg.contact_sheet:
        write_renderings_sheet(folder, count=cfg.contact_sheet)


def build_world(cfg: DictConfig) -> None:
    """A synthetic world as files, and a sheet of its training samples, or of its test samples."""
    rule = SyntheticRule.from_values(dataset_values(cfg))
    world = rule.world._replace(crop_scale=cfg.picture_scale)
    freeze(
        rule._replace(size=cfg.picture_size, world=world),
        cfg.output,
        count=cfg.count,
        test_count=cfg.test_count,
        scans=cfg.scans,
        workers=num_workers(cfg.workers),
    )
    if cfg.contact_sheet:
        face = load_face("embedded")
        pairs = find_300w_lp(cfg.output, ["Synthetic"]) if cfg.count else ()
        items = archive_samples(pairs or find_aflw2000(cfg.output), face, count=cfg.contact_sheet)
        write_sheet(Path(cfg.output) / "contact_sheet.png", items, face)


def dataset_values(cfg: DictConfig) -> dict:
    """The plain values of the data set, without its name."""
    values = OmegaConf.to_container(cfg.dataset, resolve=True)
    del values["name"]
    return values


BUILDERS: dict[str, Callable[[DictConfig], None]] = {
    "300w_lp": build_pairs,
    "aflw2000": build_pairs,
    "300w_lp_extra": build_turned,
    "landmarks_only": build_photos,
    "florence": build_scans,
    "synthetic": build_world,
}


def main(cfg: DictConfig) -> None:
    require_choice("dataset", cfg.dataset.name, BUILDERS)
    for name in ("contact_sheet", "count", "test_count", "scans"):
        require_count(name, cfg[name], least=0)
    require_count("picture_size", cfg.picture_size)
    BUILDERS[cfg.dataset.name](cfg)
