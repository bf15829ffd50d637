"""`python -m prnet.demo`: a page in the browser, a photo in, a head out."""

import logging
import os
import signal
import tempfile
from pathlib import Path

import hydra
from omegaconf import DictConfig

from prnet.entry import CONFIG_DIR, one_line_errors, refuse_old_spellings, resolve_device

log = logging.getLogger(__name__)


@hydra.main(config_path=CONFIG_DIR, config_name="demo", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    # A server that is told to stop removes its files too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="prnet_demo_") as folder:
        # Gradio reads these as it is imported: where uploads go, and that nothing is reported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            from prnet.page.app import build_page, serving, wait
        except ModuleNotFoundError as error:
            raise ValueError(
                f'the page needs {error.name}, which is not installed: pip install "prnet[demo]"'
            ) from error
        from prnet.page.studio import Studio
        from prnet.reconstruction.photos import write_astronaut

        studio = Studio(
            Path(folder), cfg.checkpoint, data_dir=cfg.data_dir, device=resolve_device(cfg.device)
        )
        example = write_astronaut(Path(folder, "astronaut.jpg"))
        page = build_page(studio, example=example)
        limits = {"most_megabytes": cfg.most_megabytes}
        with serving(page, host=cfg.host, port=cfg.port, **limits) as address:
            log.info("open %s in a browser; Ctrl-C ends it", address)
            wait()


if __name__ == "__main__":
    refuse_old_spellings(main)()
