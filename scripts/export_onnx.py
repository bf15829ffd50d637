"""Write the network of a checkpoint as ONNX, for phones and runtimes without torch.

    python scripts/export_onnx.py --checkpoint outputs/mobile_frnet/TIME/best.pt --output face.onnx
    python scripts/export_onnx.py --checkpoint mobile_frnet_synthetic --output face.onnx

Input "image": the 256 px crop resized to the network's side, (B, 3, s, s), RGB in [0, 1]. Output
"parameters": (B, P), the 3 x 4 pose row by row in px of the 256 px crop, then shape and expression
coefficients. Networks that predict maps are refused. Needs pip install "prnet[onnx]".
"""

import argparse
import sys
from pathlib import Path

import torch

from prnet.export.onnx import ParametersAlone, example_inputs, write_onnx
from prnet.models.loading import load_model


def largest_difference(model: torch.nn.Module, path: Path) -> float:
    """Of the parameters of noise, ONNX Runtime's from torch's, relative to their own spread."""
    import onnxruntime  # asked for once `write_onnx` has named the packages

    inputs = example_inputs(model, batch=3)
    with torch.inference_mode():
        expected = ParametersAlone(model).eval()(*inputs.values())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: values.numpy() for name, values in inputs.items()})
    return float(((torch.from_numpy(found) - expected) / model.parameter_std).abs().max())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        model, _ = load_model(options.checkpoint)
        write_onnx(model.eval(), options.output)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    difference = largest_difference(model, options.output)
    megabytes = options.output.stat().st_size / 1e6
    print(
        f"{options.output}: {megabytes:.1f} MB; its parameters differ from torch's by at most "
        f"{difference:.1e} of their standard deviation"
    )


if __name__ == "__main__":
    main()
