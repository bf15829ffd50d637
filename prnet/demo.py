"""`python -m prnet.demo`: a page in the browser, a photo in, a head out."""

import importlib
import logging
import os
import tempfile
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from prnet.command.running import command
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


@command("demo")
def main(cfg: DictConfig) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's calls of its own server
    with tempfile.TemporaryDirectory(prefix="prnet_demo_") as folder:
        # Gradio reads these as it is imported: where uploads go, and that nothing is reported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        app = the_page()
        from prnet.page.studio import Studio
        from prnet.reconstruction.photos import write_astronaut

        studio = Studio(
            Path(folder), cfg.checkpoint, data_dir=cfg.data_dir, device=resolve_device(cfg.device)
        )
        example = write_astronaut(Path(folder, "astronaut.jpg"))
        page = app.build_page(studio, example=example)
        limits = {"most_megabytes": cfg.most_megabytes}
        with app.serving(page, host=cfg.host, port=cfg.port, **limits) as address:
            log.info("open %s in a browser; Ctrl-C ends it", address)
            app.wait()


if __name__ == "__main__":
    main()
