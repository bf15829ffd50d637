"""`python -m prnet.build`: an archive of image + fit pairs -> a built set; a synthetic world ->
files in the layout of the archives."""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from prnet.building.archives import build_archive, require_archives
from prnet.building.florence import build_florence, write_renderings_sheet
from prnet.building.frozen_worlds import freeze
from prnet.building.landmarks_only import build_landmarks
from prnet.building.parts import BuildOptions
from prnet.building.scan_rendering import RenderRule
from prnet.building.turned_faces import ExtraRule, build_extra
from prnet.datasets.fits import find_300w_lp, find_aflw2000
from prnet.datasets.pictures import CropRule
from prnet.datasets.synthetic import SyntheticRule
from prnet.drawing.contact_sheet import (
    archive_samples,
    write_contact_sheet,
    write_landmark_sheet,
    write_sheet,
)
from prnet.entry import CONFIG_DIR, num_workers, one_line_errors
from prnet.faces.loading import FaceFiles, load_face

log = logging.getLogger(__name__)


def build_turned(cfg: DictConfig, face_files: FaceFiles) -> None:
    """The faces of 300W-LP turned beyond profile, and a sheet of them."""
    require_archives("300w_lp", face_files, data_dir=cfg.data_dir)
    pairs, missing = find_300w_lp(cfg.data_dir, cfg.dataset.subsets)
    for subset in missing:
        log.warning("skipped: %s is not there", Path(cfg.data_dir) / "300W_LP" / subset)
    rule = OmegaConf.to_container(cfg.dataset, resolve=True)
    values = {key: value for key, value in rule.items() if key not in ("name", "subsets")}
    workers = num_workers(cfg.workers)
    build_extra(pairs, cfg.output, ExtraRule(**values), face_files, workers=workers)
    if cfg.contact_sheet:
        turned, _ = find_300w_lp(cfg.output, ["Extra"])
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
        crop=CropRule(**cfg.crop),
        pixel_origin=cfg.pixel_origin,
        workers=num_workers(cfg.workers),
    )
    if cfg.contact_sheet:
        write_landmark_sheet(cfg.output, count=cfg.contact_sheet)


def build_scans(cfg: DictConfig) -> None:
    """Renderings of head scans, and a sheet of them with their true points."""
    values = OmegaConf.to_container(cfg.dataset, resolve=True)
    del values["name"]
    rule = RenderRule.from_values(values)
    folder = build_florence(cfg.data_dir, cfg.output, rule, workers=num_workers(cfg.workers))
    if cfg.contact_sheet:
        write_renderings_sheet(folder, count=cfg.contact_sheet)


@hydra.main(config_path=CONFIG_DIR, config_name="build", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    if cfg.dataset.name == "synthetic":
        rule = SyntheticRule.from_values(OmegaConf.to_container(cfg.dataset, resolve=True))
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
            pairs = find_300w_lp(cfg.output, ["Synthetic"])[0] if cfg.count else ()
            items = archive_samples(
                pairs or find_aflw2000(cfg.output), face, count=cfg.contact_sheet
            )
            write_sheet(Path(cfg.output) / "contact_sheet.png", items, face)
        return
    if cfg.dataset.name == "florence":
        build_scans(cfg)
        return
    if cfg.dataset.name == "landmarks_only":
        build_photos(cfg)
        return
    face_files = FaceFiles(**cfg.face)
    if cfg.dataset.name == "300w_lp_extra":
        build_turned(cfg, face_files)
        return
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


if __name__ == "__main__":
    main()
