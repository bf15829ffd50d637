"""The public SADRNet checkpoint, as tensors for `SADRNet(layout="released")`."""

from pathlib import Path

import torch
from torch import Tensor

from prnet.checks import faults_listed

# Constants that the released module keeps as frozen parameters. The second is never used.
MEAN_SHAPE_MAP = "rebuilder.mean_posmap_tensor"
CONSTANTS = (MEAN_SHAPE_MAP, "rebuilder.revert_operator")
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def released_names() -> dict[str, str]:
    """Every tensor of the network by its released name -> its name here."""
    names = {}

    def add(released: str, own: str, *, tensors: tuple[str, ...] = ("weight",)) -> None:
        names.update({f"{released}.{tensor}": f"{own}.{tensor}" for tensor in tensors})

    def add_norm(released: str, own: str) -> None:
        add(released, own, tensors=NORM_TENSORS)

    add("layer0.pipe.0", "stem.0")
    add_norm("layer0.pipe.1", "stem.1")
    for i in range(10):
        released = f"block{i + 1}"
        own = f"low_level.{i}" if i < 6 else f"high_level.{i - 6}"
        for number, layer in enumerate(("reduce", "conv", "expand"), start=1):
            add(f"{released}.conv{number}", f"{own}.{layer}")
            add_norm(f"{released}.bn{number}", f"{own}.{layer}_norm")
        if i % 2 == 0:  # the strided blocks
            add(f"{released}.shortcut.0", f"{own}.shortcut.0")
            add_norm(f"{released}.shortcut.1", f"{own}.shortcut.1")
    for i in range(4):
        add(f"attention_branch.conv{i + 1}.pipe.0", f"attention.{i}.0")
        add_norm(f"attention_branch.conv{i + 1}.pipe.1", f"attention.{i}.1")
    add("attention_branch.conv5", "attention.4")
    for released, own, count in (
        ("decoder_low", "decoder", 10),
        ("decoder_kpt", "pose_dependent_head", 7),
        ("decoder_offset", "deformation_head", 7),
    ):
        for i in range(count):
            add(f"{released}.{i}.deconv", f"{own}.{i}.0")
            add_norm(f"{released}.{i}.BN_AC.0", f"{own}.{i}.1")
    return names


def read_released_sadrnet(path: Path | str) -> tuple[dict[str, Tensor], Tensor]:
    """The state of `SADRNet(layout="released")` and the mean shape map (3, 256, 256), model frame,
    in units of 1 / 1.5e-5 micrometre, of a file like the public net_021.pth: a plain state_dict, of
    any age of PyTorch.

    Every tensor must be there and none be left over; shapes are checked where the weights are
    loaded (`checkpoint.load_weights`). No code in the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state_dict, or not SADRNet's.

    Source: SADRNv2.py and modules.py of the released code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; net_021.pth comes from the page of the released code"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file makes it raise nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: not a readable torch file ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path}: got a {type(state).__name__}, expected a state_dict of tensors")

    names = released_names()
    faults = {
        "missing": [name for name in (*names, MEAN_SHAPE_MAP) if name not in state],
        "unexpected": [str(n) for n in state if n not in names and n not in CONSTANTS],
    }
    if found := faults_listed(faults):
        raise ValueError(f"{path}: not the weights of SADRNv2 ({len(state)} tensors): {found}")
    return {own: state[released] for released, own in names.items()}, state[MEAN_SHAPE_MAP]
