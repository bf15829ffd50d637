"""Make of a run's checkpoint one that can come with the package: half the size, weights alone.

    python scripts/pack_weights.py --checkpoint outputs/mobile_frnet_synthetic/TIME/best.pt \\
        --output prnet/assets/weights/mobile_frnet_synthetic.pt

What was learned is rounded to float16 (a network is built in float32 all the same); statistics stay
as they are, and what only a resumed run needs is left out. Weights trained on a licensed face
are bound by its terms and refused: only those of the embedded face may travel. Photographs the
checkpoint does not know of; whoever packs it has to.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from prnet.checkpoint import load_weights, save_checkpoint
from prnet.faces.embedded import NAME, load_embedded
from prnet.models.loading import load_model

KEPT = ("model", "face", "pixel_origin", "experiment")


def pack(path: Path) -> tuple[dict, nn.Module]:
    """What to save of the checkpoint at `path`, and its network as it was.

    Raises:
        FileNotFoundError, ValueError: as `load_model`; or it was trained for another face than the
            embedded one, or a weight is beyond what float16 holds.
    """
    model, checkpoint = load_model(path)
    face = (checkpoint.get("face") or {}).get("name")
    if face != NAME:
        raise ValueError(
            f"{path}: trained for the face {face!r}, whose terms bind the weights; only weights of "
            f"the face {NAME!r}, trained on synthetic pictures, may come with the package"
        )
    weights = model.state_dict()
    for name, parameter in model.named_parameters():
        weights[name] = parameter.detach().half()
        if not weights[name].isfinite().all():
            raise ValueError(f"{path}: {name} is beyond the range of float16")
    return {key: checkpoint[key] for key in KEPT if key in checkpoint} | {"weights": weights}, model


def largest_difference(model: nn.Module, packed: dict, *, source: Path) -> float:
    """Of all that the network answers to noise, packed from as it was, relative to the spread."""
    model.set_face(load_embedded())
    images = torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model.eval()(images)
        load_weights(model, packed["weights"], source=source)
        after = model(images)
    return max(
        float((new - old).abs().max() / old.std())
        for old, new in zip(before, after, strict=True)
        if isinstance(old, torch.Tensor)
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        packed, model = pack(options.checkpoint)
        save_checkpoint(options.output, packed)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    difference = largest_difference(model, packed, source=options.output)
    print(
        f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB; its predictions differ "
        f"by at most {difference:.1e} of their standard deviation"
    )


if __name__ == "__main__":
    main()
