"""`python -m prnet.import_weights`: weights that others published become a checkpoint."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("import_weights")  # ends here: options are read before what follows is imported

import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from prnet.checkpoint import load_weights, save_checkpoint
from prnet.entry import shipped_values
from prnet.faces.face import Face
from prnet.faces.loading import load_face
from prnet.importing import ddfa, prn, sadrnet
from prnet.importing.states import Imported, read_state, require_weights
from prnet.models.loading import build_network
from prnet.models.sadrnet import SHAPE_UNIT

log = logging.getLogger(__name__)

# Of the mean over the face texels. Both come from the same mesh: only how the border of a triangle
# is rasterised differs, at a few texels.
LARGEST_DIFFERENCE_UM = 100
KNOWN = (sadrnet.SOURCE, prn.TENSORFLOW, prn.PYTORCH, ddfa.SOURCE)


def recognised(state: Mapping[str, Tensor], whitening: Mapping[str, Tensor] | None) -> Imported:
    """Whose weights they are, as one of the package's networks takes them.

    Raises:
        ValueError: nobody's that is known, or not all of them.
    """
    if sadrnet.is_sadrnet(state):
        return sadrnet.import_sadrnet(state)
    if prn.is_tensorflow(state):
        return prn.import_tensorflow(state)
    if prn.is_pytorch(state):
        return prn.import_pytorch(state)
    if ddfa.is_ddfa(state):
        return ddfa.import_ddfa(state, whitening)
    known = "; ".join(KNOWN)
    raise ValueError(f"{len(state)} tensors ({', '.join([*state][:3])}, ...), expected {known}")


def mean_face_difference(
    mean_shape_map: Tensor,  # (3, 256, 256), in units of `SHAPE_UNIT` micrometres
    face: Face,
) -> float:
    """Mean distance of two mean faces over the face texels, micrometres."""
    own = face.uv.position_map(face.morphable_model.mean[None])[0]
    apart = (mean_shape_map * SHAPE_UNIT - own).norm(dim=0)
    return float(apart[face.uv.face_mask].mean())


def import_weights(
    path: Path, *, face: Face, output: Path, whitening: Path | None = None
) -> Imported:
    """Write the checkpoint; returns what was recognised.

    Raises:
        FileNotFoundError, ValueError: as `read_state`, `recognised` and `load_weights`; or the mean
            face in the file is another than the face's.
    """
    state = read_state(path)
    whitened = None if whitening is None else read_state(whitening)
    try:
        found = recognised(state, whitened)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    configured = shipped_values("model", found.configuration)
    values = {k: v for k, v in configured["network"].items() if not k.startswith("_")}
    described = {"name": configured["name"], **values, **found.changes}
    model = build_network(described, source=path)
    load_weights(model, found.weights, source=path)
    if found.mean_shape_map is not None:
        difference = mean_face_difference(found.mean_shape_map, face)
        if not difference <= LARGEST_DIFFERENCE_UM:
            raise ValueError(
                f"{path}: its mean face is {difference:.0f} micrometres from that of the face "
                f"model at hand, expected at most {LARGEST_DIFFERENCE_UM}; bring the BFM of "
                "300W-LP's fits (python -m prnet.convert_bfm)"
            )
    model.set_face(face)  # fails here, not in use, where the face has too few bases
    save_checkpoint(
        output,
        {
            "model": described,
            "weights": model.state_dict(),
            "face": face.describe(),
            "pixel_origin": found.pixel_origin,
        },
    )
    return found


def main(cfg: DictConfig) -> None:
    data_dir, output = Path(cfg.data_dir), Path(cfg.output)
    whitening = None if cfg.whitening is None else Path(cfg.whitening)
    for path in (Path(cfg.input), *filter(None, [whitening])):
        require_weights(path)  # before the face is read, which takes a moment
    face = load_face("bfm", bfm_dir=data_dir / "BFM", prnet_uv_dir=data_dir / "PRNet_uv")
    found = import_weights(Path(cfg.input), face=face, output=output, whitening=whitening)
    log.info("%s: %s", output, found.source)
