"""`python -m prnet.demo`: a page in the browser, a photo in, a head out."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("demo")  # ends here: options are read before what follows is imported

import importlib
import logging
import os
import tempfile
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from prnet.entry import resolve_device

log = logging.getLogger(__name__)


def the_page() -> ModuleType:
    """`prnet.page.app`, which needs what the extra `demo` installs.

    Raises:
        ValueError: that is missing.
    """
    try:
        return importlib.import_module("prnet.page.app")
    except ModuleNotFoundError as error:
        raise ValueError(
            f'the page needs {error.name}, which is not installed: pip install "prnet[demo]"'
        ) from error


def main(cfg: DictConfig) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's calls of its own server
    with tempfile.TemporaryDirectory(prefix="prnet_demo_") as folder:
        # Gradio reads these as it is imported: where uploads go, and that nothing is reported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        log.info("starting the page: Gradio and the network are loaded")
        app = the_page()
        from prnet.page.studio import Studio
        from prnet.reconstruction.photos import write_astronaut

        options = {"device": resolve_device(cfg.device), "runtime": cfg.runtime}
        studio = Studio(Path(folder), cfg.checkpoint, data_dir=cfg.data_dir, **options)
        example = write_astronaut(Path(folder, "astronaut.jpg"))
        page = app.build_page(studio, example=example)
        limits = {"most_megabytes": cfg.most_megabytes}
        with app.serving(page, host=cfg.host, port=cfg.port, **limits) as address:
            log.info("open %s in a browser; Ctrl-C ends it", address)
            app.wait()
