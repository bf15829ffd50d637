"""The public SADRNet checkpoint, for `SADRNet(layout="released")`.

Source: SADRNv2.py and modules.py of the released code.
"""

from collections.abc import Mapping

from torch import Tensor

from prnet.importing.states import Imported, Names

SOURCE = "SADRNet's net_021.pth (SADRNv2)"
# Constants that the released module keeps as frozen parameters. The second is never used.
MEAN_SHAPE_MAP = "rebuilder.mean_posmap_tensor"
CONSTANTS = (MEAN_SHAPE_MAP, "rebuilder.revert_operator")


def is_sadrnet(state: Mapping[str, Tensor]) -> bool:
    return "attention_branch.conv5.weight" in state or MEAN_SHAPE_MAP in state


def released_names() -> Names:
    """Every tensor of the network by its released name."""
    names = Names()
    names.add("layer0.pipe.0", "stem.0")
    names.add_norm("layer0.pipe.1", "stem.1")
    for i in range(10):
        released = f"block{i + 1}"
        own = f"low_level.{i}" if i < 6 else f"high_level.{i - 6}"
        for number, layer in enumerate(("reduce", "conv", "expand"), start=1):
            names.add(f"{released}.conv{number}", f"{own}.{layer}")
            names.add_norm(f"{released}.bn{number}", f"{own}.{layer}_norm")
        if i % 2 == 0:  # the strided blocks
            names.add(f"{released}.shortcut.0", f"{own}.shortcut.0")
            names.add_norm(f"{released}.shortcut.1", f"{own}.shortcut.1")
    for i in range(4):
        names.add(f"attention_branch.conv{i + 1}.pipe.0", f"attention.{i}.0")
        names.add_norm(f"attention_branch.conv{i + 1}.pipe.1", f"attention.{i}.1")
    names.add("attention_branch.conv5", "attention.4")
    for released, own, count in (
        ("decoder_low", "decoder", 10),
        ("decoder_kpt", "pose_dependent_head", 7),
        ("decoder_offset", "deformation_head", 7),
    ):
        for i in range(count):
            names.add(f"{released}.{i}.deconv", f"{own}.{i}.0")
            names.add_norm(f"{released}.{i}.BN_AC.0", f"{own}.{i}.1")
    return names


def import_sadrnet(state: Mapping[str, Tensor]) -> Imported:
    """With the mean shape map (3, 256, 256), model frame, in units of 1 / 1.5e-5 micrometre.

    Raises:
        ValueError: a tensor is missing or too many.
    """
    weights = released_names().renamed(state, source=SOURCE, ignored=CONSTANTS)
    if MEAN_SHAPE_MAP not in state:
        raise ValueError(f"not the weights of {SOURCE}: 1 missing ({MEAN_SHAPE_MAP})")
    changes = {"width": state["layer0.pipe.0.weight"].shape[0]}
    return Imported(SOURCE, "sadrnet_released", changes, weights, "sadrnet", state[MEAN_SHAPE_MAP])
