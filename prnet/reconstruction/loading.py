"""A reconstructor from weights: the network, the face it was trained for, and its crops."""

import logging
from pathlib import Path

import torch

from prnet.export.runtime import choose_runtime
from prnet.models.loading import load_with_face
from prnet.reconstruction.reconstructor import Reconstructor

log = logging.getLogger(__name__)


def load(
    checkpoint: Path | str = "default",
    *,
    data_dir: Path | str = "data",
    device: torch.device | str = "cpu",
    runtime: str = "torch",
    **options: object,
) -> Reconstructor:
    """A reconstructor.

    checkpoint: as `prnet.checkpoint.find_checkpoint` takes it: "default", the best weights that
        come with the package; their name; a file; a run's folder; "hf://USER/REPO".
    data_dir: where the BFM lies, for networks that were trained for it.
    runtime: what runs the network, as `prnet.export.runtime.choose_runtime` takes it.
    options: as `Reconstructor` takes them.

    Raises:
        FileNotFoundError: no such file, or the face that the network needs is not there.
        ValueError: not a checkpoint, or of another face; as `choose_runtime`.
    """
    model, face, content = load_with_face(checkpoint, data_dir=data_dir)
    origin = str(content.get("pixel_origin", "zero_based"))
    reconstructor = Reconstructor(model, face, pixel_origin=origin, device=device, **options)
    made = reconstructor.model, reconstructor.face, content
    chosen = choose_runtime(*made, runtime, reconstructor.device)
    log.debug("runtime: %s", chosen)
    return reconstructor
