"""`python -m prnet.convert_bfm`: the raw Basel Face Model in the format that this package reads."""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from prnet.entry import CONFIG_DIR, one_line_errors
from prnet.faces.raw_bfm import convert_folder

log = logging.getLogger(__name__)


@hydra.main(config_path=CONFIG_DIR, config_name="convert_bfm", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    for line in convert_folder(Path(cfg.source), Path(cfg.output)):
        log.info("%s", line)


if __name__ == "__main__":
    main()
