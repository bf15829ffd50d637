"""A reconstructor from weights: the network, the face it was trained for, and its crops."""

from pathlib import Path

import torch

from prnet.checks import require_choice
from prnet.faces.loading import FACES, load_face
from prnet.models.loading import load_model, require_same_face
from prnet.reconstruction.reconstructor import Reconstructor

# The best weights that come with the package.
DEFAULT = "mobile_frnet_synthetic"


def load(
    checkpoint: Path | str = "default",
    *,
    data_dir: Path | str = "data",
    device: torch.device | str = "cpu",
    **options: object,
) -> Reconstructor:
    """A reconstructor.

    checkpoint: "default", the name of weights that come with the package, or a file of
        `prnet.train`.
    data_dir: where the BFM lies, for networks that were trained for it.
    options: as `Reconstructor` takes them.

    Raises:
        FileNotFoundError: no such file, or the face that the network needs is not there.
        ValueError: not a checkpoint, or of another face.
    """
    path = DEFAULT if str(checkpoint) == "default" else checkpoint
    model, content = load_model(path)
    name = (content.get("face") or {}).get("name", "bfm")
    folder = Path(data_dir)
    require_choice(f"{path}: face that it was trained for", name, FACES)
    try:
        face = load_face(name, bfm_dir=folder / "BFM", prnet_uv_dir=folder / "PRNet_uv")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: trained for face={name}; {error}") from error
    require_same_face(content, face, source=path)
    origin = str(content.get("pixel_origin", "zero_based"))
    return Reconstructor(model, face, pixel_origin=origin, device=device, **options)
