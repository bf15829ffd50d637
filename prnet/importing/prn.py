"""PRN's weights: the published ones of TensorFlow, and those of the re-implementation in PyTorch.

Sources: predictor.py of YadiraF/PRNet and its checkpoint's index; torchmodel.py, torchmodule.py and
dataloader.py of reshow/PRNet-PyTorch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from prnet.importing.states import Imported, Names
from prnet.models.prn import DECODER, ENCODER

TENSORFLOW = "PRNet's 256_256_resfcn256_weight, an npz of TensorFlow's variables"
PYTORCH = "reshow/PRNet-PyTorch (InitPRN2)"
SCOPE = "resfcn256/"
STEM = f"{SCOPE}Conv/weights"
# TensorFlow's [k, k, in, out], and [k, k, out, in] of transposed convolutions, in torch's order.
TORCH_FROM_TENSORFLOW = (3, 2, 0, 1)
NORM_FROM_TENSORFLOW = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
NUM_DECONVS = len(DECODER) + 3


def is_tensorflow(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(SCOPE) for name in state)


def is_pytorch(state: Mapping[str, Tensor]) -> bool:
    return "encoder.0.pipe.0.pipe.0.weight" in state


def own_deconv(index: int) -> str:
    """The name here of the transposed convolutions, of which the last is the head."""
    return f"decoder.{index}" if index + 1 < NUM_DECONVS else "head"


def tensorflow_names() -> dict[str, str]:
    """Every tensor by its name in the TensorFlow graph."""
    names = {}

    def add(theirs: str, own: str) -> None:
        names[f"{SCOPE}{theirs}/weights"] = f"{own}.weight"

    def add_norm(theirs: str, own: str) -> None:
        for tensor, name in NORM_FROM_TENSORFLOW.items():
            names[f"{SCOPE}{theirs}/BatchNorm/{name}"] = f"{own}.{tensor}"

    def add_both(theirs: str, own: str) -> None:
        add(theirs, f"{own}.conv")
        add_norm(theirs, f"{own}.norm")

    def numbered(name: str, index: int) -> str:
        return f"{name}_{index}" if index else name

    add_both("Conv", "encoder.0")
    for i, (_, stride) in enumerate(ENCODER):
        theirs, own = numbered("resBlock", i), f"encoder.{i + 1}"
        add_both(f"{theirs}/Conv", f"{own}.reduce")
        add_both(f"{theirs}/Conv_1", f"{own}.conv")
        add(f"{theirs}/Conv_2", f"{own}.expand")
        if stride > 1:
            add(f"{theirs}/shortcut", f"{own}.shortcut")
        add_norm(theirs, f"{own}.norm")
    for i in range(NUM_DECONVS):
        add_both(numbered("Conv2d_transpose", i), own_deconv(i))
    return names


def import_tensorflow(state: Mapping[str, Tensor]) -> Imported:
    """Adam's moments and the like may be there.

    Raises:
        ValueError: a tensor is missing or too many.
    """
    names = Names()
    names.own = tensorflow_names()
    extra = tuple(n for n in state if "/Adam" in n or not n.startswith(SCOPE))
    renamed = names.renamed(state, source=TENSORFLOW, ignored=extra)
    weights = {
        own: tensor.permute(TORCH_FROM_TENSORFLOW).contiguous() if tensor.ndim == 4 else tensor
        for own, tensor in renamed.items()
    }
    norms = [name.removesuffix(".running_mean") for name in weights if name.endswith("_mean")]
    weights |= {f"{norm}.num_batches_tracked": torch.tensor(0) for norm in norms}
    changes = {"width": weights["encoder.0.conv.weight"].shape[0]}
    return Imported(TENSORFLOW, "prn", changes, weights, "face3d")


def pytorch_names() -> Names:
    """Every tensor of the re-implementation."""
    names = Names()
    names.add("layer0.pipe.0", "encoder.0.conv")
    names.add_norm("layer0.pipe.1", "encoder.0.norm")
    for i, (_, stride) in enumerate(ENCODER):
        theirs, own = f"encoder.{i}", f"encoder.{i + 1}"
        for number, layer in enumerate(("reduce", "conv")):
            names.add(f"{theirs}.pipe.{number}.pipe.0", f"{own}.{layer}.conv")
            names.add_norm(f"{theirs}.pipe.{number}.pipe.1", f"{own}.{layer}.norm")
        names.add(f"{theirs}.pipe.2", f"{own}.expand")
        if stride > 1:
            names.add(f"{theirs}.shortcut.0", f"{own}.shortcut")
        names.add_norm(f"{theirs}.BN_AC.0", f"{own}.norm")
    for i in range(NUM_DECONVS):
        names.add(f"decoder.{i}.deconv", f"{own_deconv(i)}.conv")
        names.add_norm(f"decoder.{i}.BN_AC.0", f"{own_deconv(i)}.norm")
    return names


def import_pytorch(state: Mapping[str, Tensor]) -> Imported:
    """What its loss keeps may be there.

    Raises:
        ValueError: a tensor is missing or too many.
    """
    extra = tuple(name for name in state if name.startswith("loss."))
    weights = pytorch_names().renamed(state, source=PYTORCH, ignored=extra)
    changes = {"width": state["layer0.pipe.0.weight"].shape[0]}
    return Imported(PYTORCH, "prn_pytorch", changes, weights, "face3d")
