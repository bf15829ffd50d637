"""`python -m prnet.show`: a contact sheet of any data set."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("show")  # ends here: options are read before what follows is imported

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from prnet.building.archives import find_archive
from prnet.checks import require_choice
from prnet.datasets.synthetic import RenderedFaces, SyntheticRule
from prnet.drawing.contact_sheet import archive_samples, write_sheet
from prnet.faces.loading import FaceFiles

log = logging.getLogger(__name__)

DATASETS = ("synthetic", "300w_lp", "aflw2000")


def main(cfg: DictConfig) -> None:
    require_choice("dataset", cfg.dataset.name, DATASETS)
    output, face_files = Path(cfg.output), FaceFiles(**cfg.face)
    if cfg.dataset.name == "synthetic":
        rule = SyntheticRule.from_values(OmegaConf.to_container(cfg.dataset, resolve=True))
        log.info("compiling the renderer and rendering %d faces", cfg.count)
        faces = RenderedFaces(rule, seed=rule.seed)
        seen = faces.faces.batch(range(cfg.count)).attention.cpu()
        items, face = faces.__getitems__(range(cfg.count)), face_files.load()
        write_sheet(output, items, face, attention=seen)
    else:
        name, subsets = cfg.dataset.name, cfg.dataset.subsets
        pairs = find_archive(name, subsets, face_files, data_dir=cfg.data_dir)
        face = face_files.load()
        write_sheet(output, archive_samples(pairs, face, count=cfg.count), face)
    log.info("written: %s", output)
