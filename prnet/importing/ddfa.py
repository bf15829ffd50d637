"""3DDFA_V2's MobileNets (mb1, mb05 and the like), for `MobileNetV1` with 40 and 10 coefficients.

Source: mobilenet_v1.py, TDDFA.py and utils/tddfa_util.py of cleardusk/3DDFA_V2.
"""

from collections.abc import Mapping

from torch import Tensor

from prnet.geometry.pose_parameters import NUM_POSE
from prnet.importing.states import Imported, Names
from prnet.models.mobilenet_v1 import PLAN, STEM

SOURCE = "3DDFA_V2's MobileNet"
HEADS = ("fc_param", "fc")  # the first beside one of 68 landmarks, which only training needs
LANDMARK_HEAD = ("fc_lm.weight", "fc_lm.bias")
CROP_SIDE, OWN_SIDE = 120, 256
# The names of its blocks, a letter a resolution.
BLOCKS = ("2_1", "2_2", "3_1", "3_2", "4_1", "4_2", *(f"5_{i}" for i in range(1, 7)), "6")
HOW_TO_WHITENING = (
    "its numbers are whitened: give whitening=FILE.npz, made where configs/"
    'param_mean_std_62d_120x120.pkl of 3DDFA_V2 is by python -c "import pickle, numpy; '
    "numpy.savez('whitening.npz', **pickle.load(open('param_mean_std_62d_120x120.pkl', 'rb')))\""
)


def is_ddfa(state: Mapping[str, Tensor]) -> bool:
    return "dw2_1.conv_dw.weight" in state


def ddfa_names(head: str) -> Names:
    """Every tensor of the network."""
    names = Names()
    names.add("conv1", "stem.0")
    names.add_norm("bn1", "stem.1")
    for i, _ in enumerate(PLAN):
        for part, own in (("dw", f"blocks.{i}.0"), ("sep", f"blocks.{i}.3")):
            names.add(f"dw{BLOCKS[i]}.conv_{part}", own)
            layer = int(own[-1]) + 1
            names.add_norm(f"dw{BLOCKS[i]}.bn_{part}", f"blocks.{i}.{layer}")
    names.add(head, "head", tensors=("weight", "bias"))
    return names


def whitening_here(
    mean: Tensor,  # (P,)
    std: Tensor,  # (P,)
) -> tuple[Tensor, Tensor]:
    """3DDFA's whitening as this package's networks have it.

    Theirs gives f R | t in px of the 120 px crop, counted from 1, with y = 120 - Y; ours in px of
    the 256 px crop, counted from 0, with y = -Y. The crops are the same square, resampled with its
    edges kept: x_256 = r (x_120 + 0.5) - 0.5 with r = 256 / 120.
    """
    ratio = OWN_SIDE / CROP_SIDE
    mean, std = mean.double().clone(), std.double().clone()
    mean[:NUM_POSE] *= ratio
    std[:NUM_POSE] *= ratio
    mean[3] += -0.5 * ratio - 0.5  # r (X - 1 + 0.5) - 0.5
    mean[7] += 0.5 - ratio * (CROP_SIDE + 0.5)  # -(r (120 - Y + 0.5) - 0.5)
    return mean.float(), std.float()


def import_ddfa(state: Mapping[str, Tensor], whitening: Mapping[str, Tensor] | None) -> Imported:
    """`whitening` holds `mean` and `std`, (62,).

    Raises:
        ValueError: a tensor is missing or too many, or of another shape; no whitening.
    """
    head = next((head for head in HEADS if f"{head}.weight" in state), HEADS[0])
    weights = ddfa_names(head).renamed(state, source=SOURCE, ignored=LANDMARK_HEAD)
    if whitening is None:
        raise ValueError(HOW_TO_WHITENING)
    outputs = len(weights["head.bias"])
    for name in ("mean", "std"):
        if name not in whitening or whitening[name].shape != (outputs,):
            found = {key: tuple(value.shape) for key, value in whitening.items()}
            raise ValueError(f"whitening: got {found}, expected mean and std ({outputs},)")
    mean, std = whitening_here(whitening["mean"], whitening["std"])
    weights |= {"parameter_mean": mean, "parameter_std": std}
    width = weights["stem.0.weight"].shape[0] / STEM
    return Imported(
        SOURCE, "mobilenet_v1", {"width": width, "channel_order": "bgr"}, weights, "zero_based"
    )
