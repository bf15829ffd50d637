"""`python -m prnet.build`: an archive of image + fit pairs -> a built set; a synthetic world ->
files in the layout of the archives."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from prnet.config_path import CONFIG_DIR
from prnet.contact_sheet import archive_samples, write_contact_sheet, write_sheet
from prnet.datasets.builder import BuildOptions, FaceFiles, build_archive
from prnet.datasets.fits import find_300w_lp, find_aflw2000
from prnet.datasets.freeze import freeze
from prnet.datasets.pictures import CropRule
from prnet.datasets.synthetic import SyntheticRule
from prnet.entry import num_workers, one_line_errors
from prnet.faces.loading import load_face


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


if __name__ == "__main__":
    main()
