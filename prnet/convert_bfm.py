"""`python -m prnet.convert_bfm`: the raw Basel Face Model in the format that this package reads."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("convert_bfm")  # ends here: options are read before what follows is imported

import logging
from pathlib import Path

from omegaconf import DictConfig

from prnet.faces.raw_bfm import convert_folder

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    for line in convert_folder(Path(cfg.source), Path(cfg.output)):
        log.info("%s", line)
