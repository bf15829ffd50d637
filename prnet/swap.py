"""`python -m prnet.swap`: the face of one photo in another."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("swap")  # ends here: options are read before what follows is imported

import logging
from pathlib import Path

import cv2
from omegaconf import DictConfig, ListConfig

from prnet.checks import require_choice
from prnet.datasets.pictures import write_picture
from prnet.detection.detector import FaceDetector
from prnet.entry import resolve_device
from prnet.files import require_folder
from prnet.reconstruction.loading import load
from prnet.reconstruction.photos import read_photo
from prnet.reconstruction.swapping import require_parts, swap_face

log = logging.getLogger(__name__)

FACES = ("largest", "all")


def main(cfg: DictConfig) -> None:
    for name in ("source", "target", "output"):
        if cfg[name] is None:
            raise ValueError(f"{name}=: missing; give source=PHOTO target=PHOTO output=FILE.jpg")
    output = Path(cfg.output)
    if not cv2.haveImageWriter(output.name):
        raise ValueError(f"output={output}: no format for {output.suffix!r}; use .jpg or .png")
    require_folder(output.parent)
    require_choice("faces", cfg.faces, FACES)
    given = list(cfg.parts) if isinstance(cfg.parts, ListConfig) else [str(cfg.parts)]
    parts = require_parts(given)
    photos = [read_photo(photo).picture for photo in (cfg.source, cfg.target)]
    reconstructor = load(
        cfg.checkpoint,
        data_dir=cfg.data_dir,
        device=resolve_device(cfg.device),
        detector=FaceDetector(threshold=float(cfg.threshold)),
    )
    source, targets = map(reconstructor, photos)
    for name, found in (("source", source), ("target", targets)):
        if not found:
            raise ValueError(
                f"{name}={cfg[name]}: no face found; take another, or lower threshold="
            )
    if len(source) > 1:
        log.info("source=%s: %d faces, the largest is taken", cfg.source, len(source))
    targets = targets[:1] if cfg.faces == "largest" else targets
    picture = photos[1]
    for target in targets:
        picture = swap_face(source[0], target, picture, parts=parts)
    write_picture(output, picture)
    log.info("%d faces swapped in %s", len(targets), output)
