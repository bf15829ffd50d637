"""Make a checkpoint of prnet from SADRNet's public weights.

    python scripts/import_sadrnet.py --weights net_021.pth --data-dir data --output sadrnet.pt
    python -m prnet.eval dataset=aflw2000 checkpoint=sadrnet.pt

DATA_DIR/BFM holds the face it was trained for; the mean face in the file is compared with it. With
PRNet's Data/uv-data in DATA_DIR/PRNet_uv the landmark cells are the released code's too.
"""

import argparse
import sys
from pathlib import Path

from torch import Tensor

from prnet.checkpoint import load_weights, save_checkpoint
from prnet.entry import shipped_values
from prnet.export.sadrnet import read_released_sadrnet
from prnet.faces.face import Face
from prnet.faces.loading import load_face
from prnet.models.loading import build_network
from prnet.models.sadrnet import SHAPE_UNIT

# Of the mean over the face texels. Both come from the same mesh: only how the border of a triangle
# is rasterised differs, at a few texels.
LARGEST_DIFFERENCE_UM = 100


def mean_face_difference(
    mean_shape_map: Tensor,  # (3, 256, 256), in units of `SHAPE_UNIT` micrometres
    face: Face,
) -> float:
    """Mean distance of two mean faces over the face texels, micrometres."""
    own = face.uv.position_map(face.morphable_model.mean[None])[0]
    apart = (mean_shape_map * SHAPE_UNIT - own).norm(dim=0)
    return float(apart[face.uv.face_mask].mean())


def import_sadrnet(weights: Path, *, face: Face, output: Path) -> float:
    """Write the checkpoint; returns how far the mean face in the file is from the face's.

    Raises:
        FileNotFoundError, ValueError: as `read_released_sadrnet` and `load_weights`; or the mean
            face in the file is another.
    """
    released, mean_shape_map = read_released_sadrnet(weights)
    configured = shipped_values("model", "sadrnet_released")
    values = {k: v for k, v in configured["network"].items() if not k.startswith("_")}
    described = {"name": configured["name"], **values}
    model = build_network(described, source=weights)
    load_weights(model, released, source=weights)
    difference = mean_face_difference(mean_shape_map, face)
    if not difference <= LARGEST_DIFFERENCE_UM:
        raise ValueError(
            f"{weights}: its mean face is {difference:.0f} micrometres from that of the face model "
            f"at hand, expected at most {LARGEST_DIFFERENCE_UM}; bring the BFM of 300W-LP's fits "
            "(scripts/convert_bfm.py)"
        )
    save_checkpoint(
        output,
        {
            "model": described,
            "weights": model.state_dict(),
            "face": face.describe(),
            "pixel_origin": "sadrnet",
        },
    )
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, help="net_021.pth")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, required=True, help="FILE.pt")
    options = parser.parse_args()
    try:
        face = load_face(
            "bfm",
            bfm_dir=options.data_dir / "BFM",
            prnet_uv_dir=options.data_dir / "PRNet_uv",
        )
        difference = import_sadrnet(options.weights, face=face, output=options.output)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{options.output}: written; its mean face is {difference:.0f} micrometres from ours")


if __name__ == "__main__":
    main()
