"""How a CUDA card computes: which arithmetic, and whether the same each time."""

import logging
import os

import torch

from prnet.training.plan import Plan

log = logging.getLogger(__name__)

# cuBLAS sums in another order from run to run unless it has room of its own for it.
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def prepare_card(device: torch.device, plan: Plan) -> None:
    """Settings of the whole process, before anything is computed on the card.

    - TF32, 10 bits of mantissa, is for convolutions alone and where the plan says so: in products
      of matrices, of which targets and alignments are made, it would be a tenth of a px.
    - Kernels are chosen by trying, as all batches have one shape; or, with `plan.deterministic`,
      among those that sum in one order, which torch names where it has none.

    Raises:
        ValueError: TF32 without a card.
    """
    if plan.precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"trainer.precision=tf32: is of CUDA cards, and this runs on {device.type}; take fp32"
        )
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = plan.precision == "tf32"
    torch.backends.cudnn.benchmark = not plan.deterministic
    torch.backends.cudnn.deterministic = plan.deterministic
    if plan.deterministic:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True, warn_only=True)
    log.info(
        "card: %s, %s kernels",
        plan.precision,
        "deterministic" if plan.deterministic else "the fastest",
    )
