"""`python -m prnet.show`: a contact sheet of any data set."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("show")  # ends here: options are read before what follows is imported

import logging
from pathlib import Path

from omegaconf import DictConfig

from prnet.checks import require_choice
from prnet.datasets.fits import find_300w_lp, find_aflw2000
from prnet.datasets.synthetic import RenderedFaces, SyntheticRule
from prnet.drawing.contact_sheet import archive_samples, write_sheet
from prnet.entry import shipped_dataset
from prnet.faces.loading import load_face

log = logging.getLogger(__name__)

DATASETS = ("synthetic", "300w_lp", "aflw2000")


def main(cfg: DictConfig) -> None:
    require_choice("dataset", cfg.dataset, DATASETS)
    data_dir, output = Path(cfg.data_dir), Path(cfg.output)
    face = load_face(
        cfg.face or ("embedded" if cfg.dataset == "synthetic" else "bfm"),
        bfm_dir=data_dir / "BFM",
        prnet_uv_dir=data_dir / "PRNet_uv",
    )
    if cfg.dataset == "synthetic":
        rule = SyntheticRule.from_values(shipped_dataset("synthetic") | {"size": cfg.size})
        log.info("compiling the renderer and rendering %d faces", cfg.count)
        faces = RenderedFaces(rule, seed=cfg.seed)
        seen = faces.faces.batch(range(cfg.count)).attention.cpu()
        write_sheet(output, faces.__getitems__(range(cfg.count)), face, attention=seen)
    else:
        subsets = None if cfg.subsets is None else list(cfg.subsets)
        found = find_300w_lp(data_dir, subsets) if cfg.dataset == "300w_lp" else None
        pairs = find_aflw2000(data_dir) if found is None else found
        write_sheet(output, archive_samples(pairs, face, count=cfg.count), face)
    log.info("written: %s", output)
