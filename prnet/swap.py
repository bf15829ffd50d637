"""`python -m prnet.swap`: the face of one photo in another."""

import logging
from pathlib import Path

import cv2
import hydra
from omegaconf import DictConfig, ListConfig

from prnet.checks import require_choice
from prnet.datasets.pictures import write_picture
from prnet.detection.detector import FaceDetector
from prnet.entry import CONFIG_DIR, one_line_errors, resolve_device
from prnet.reconstruction.loading import load
from prnet.reconstruction.photos import read_photo
from prnet.reconstruction.reconstructor import FaceReconstruction, Reconstructor
from prnet.reconstruction.swapping import require_parts, swap_face

log = logging.getLogger(__name__)

FACES = ("largest", "all")


@hydra.main(config_path=CONFIG_DIR, config_name="swap", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    for name in ("source", "target", "output"):
        if cfg[name] is None:
            raise ValueError(f"{name}=: missing; give source=PHOTO target=PHOTO output=FILE.jpg")
    output = Path(cfg.output)
    if not cv2.haveImageWriter(output.name):
        raise ValueError(f"output={output}: no format for {output.suffix!r}; use .jpg or .png")
    require_choice("faces", cfg.faces, FACES)
    given = list(cfg.parts) if isinstance(cfg.parts, ListConfig) else [str(cfg.parts)]
    parts = require_parts(given)
    reconstructor = load(
        cfg.checkpoint,
        data_dir=cfg.data_dir,
        device=resolve_device(cfg.device),
        detector=FaceDetector(threshold=float(cfg.threshold)),
    )
    source, *others = faces_of(reconstructor, "source", cfg.source)
    if others:
        log.info("source=%s: %d faces, the largest is taken", cfg.source, 1 + len(others))
    targets = faces_of(reconstructor, "target", cfg.target)
    targets = targets[:1] if cfg.faces == "largest" else targets
    picture = targets[0].picture
    for target in targets:
        picture = swap_face(source, target, picture, parts=parts)
    write_picture(output, picture)
    log.info("%d faces swapped in %s", len(targets), output)


def faces_of(
    reconstructor: Reconstructor, option: str, photo: Path | str
) -> list[FaceReconstruction]:
    """The faces of a photo, the largest first.

    Raises:
        FileNotFoundError, ValueError: not a readable photo, or it shows no face.
    """
    faces = reconstructor(read_photo(photo).picture)
    if not faces:
        raise ValueError(
            f"{option}={photo}: no face found; give another photo, or lower threshold="
        )
    return faces


if __name__ == "__main__":
    main()
