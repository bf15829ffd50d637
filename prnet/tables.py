"""`python -m prnet.tables`: the tables of the papers beside our reports."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("tables")  # ends here: options are read before what follows is imported

import logging
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from prnet.entry import shipped
from prnet.papers.filling import fill, listing, write_table
from prnet.papers.formats import to_markdown
from prnet.papers.published import find_tables, published_tables
from prnet.reports.reading import find_reports
from prnet.reports.shipped import Shipped

log = logging.getLogger(__name__)


def make_tables(cfg: DictConfig) -> None:
    """What the configuration asks for: the list of tables, or tables filled, shown and written.

    Raises:
        ValueError, FileNotFoundError: an option, or a report it names, is not what it should be.
    """
    patterns = list(cfg.ours) if isinstance(cfg.ours, ListConfig) else [cfg.ours]
    if cfg.paper is None:
        if patterns or cfg.table is not None:
            raise ValueError("table= and ours= need paper=; without any, the tables are listed")
        log.info("\n%s", listing(published_tables()))
        return
    chosen = find_tables(cfg.paper, None if cfg.table is None else str(cfg.table))
    configured = Shipped(**shipped())
    reports = find_reports(patterns, configured.protocols["default"])
    for table in chosen:
        filled = fill(table, reports, configured)
        log.info("\n%s", to_markdown(filled))
        log.info("written: %s", ", ".join(map(str, write_table(filled, Path(cfg.output)))))


def main(cfg: DictConfig) -> None:
    make_tables(cfg)
