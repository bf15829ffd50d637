"""`python -m prnet.build`: an archive of image + fit pairs -> a built set."""

import hydra
from omegaconf import DictConfig

from prnet.config_path import CONFIG_DIR
from prnet.contact_sheet import write_contact_sheet
from prnet.datasets.builder import BuildOptions, FaceFiles, build_archive
from prnet.datasets.pictures import CropRule
from prnet.entry import num_workers, one_line_errors
from prnet.faces.bfm import load_bfm


@hydra.main(config_path=CONFIG_DIR, config_name="build", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    face_files = FaceFiles(cfg.face.bfm_dir, cfg.face.prnet_uv_dir)
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
        face = load_bfm(cfg.face.bfm_dir, prnet_uv_dir=cfg.face.prnet_uv_dir)
        write_contact_sheet(cfg.output, face, count=cfg.contact_sheet)


if __name__ == "__main__":
    main()
