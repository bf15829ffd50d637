"""A reconstructor from weights: the network, the face it was trained for, and its crops."""

from pathlib import Path

import torch

from prnet.models.loading import load_with_face
from prnet.reconstruction.reconstructor import Reconstructor


def load(
    checkpoint: Path | str = "default",
    *,
    data_dir: Path | str = "data",
    device: torch.device | str = "cpu",
    **options: object,
) -> Reconstructor:
    """A reconstructor.

    checkpoint: as `prnet.checkpoint.find_checkpoint` takes it: "default", the best weights that
        come with the package; their name; a file; a run's folder; "hf://USER/REPO".
    data_dir: where the BFM lies, for networks that were trained for it.
    options: as `Reconstructor` takes them.

    Raises:
        FileNotFoundError: no such file, or the face that the network needs is not there.
        ValueError: not a checkpoint, or of another face.
    """
    model, face, content = load_with_face(checkpoint, data_dir=data_dir)
    origin = str(content.get("pixel_origin", "zero_based"))
    return Reconstructor(model, face, pixel_origin=origin, device=device, **options)
