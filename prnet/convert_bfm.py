"""`python -m prnet.convert_bfm`: the raw Basel Face Model in the format that this package reads."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from prnet.command.running import command
from prnet.faces.raw_bfm import convert_folder

log = logging.getLogger(__name__)


@command("convert_bfm")
def main(cfg: DictConfig) -> None:
    for line in convert_folder(Path(cfg.source), Path(cfg.output)):
        log.info("%s", line)


if __name__ == "__main__":
    main()
