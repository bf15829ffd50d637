"""How a CUDA card computes: which arithmetic, and whether the same each time."""

import logging
import os

import torch

log = logging.getLogger(__name__)

# cuBLAS sums in another order from run to run unless it has room of its own for it.
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def prepare_card(device: torch.device, *, precision: str, deterministic: bool) -> None:
    """Settings of the whole process, before anything is computed on the card.

    - TF32, 10 bits of mantissa, is for convolutions alone and with `precision` tf32: in products
      of matrices, of which targets and alignments are made, it would be a tenth of a px.
    - Kernels are chosen by trying, as all batches have one shape; or, with `deterministic`, among
      those that sum in one order, which torch names where it has none.

    Raises:
        ValueError: TF32 without a card.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"trainer.precision=tf32: is of CUDA cards, and this runs on {device.type}; take fp32"
        )
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
    log.info(
        "card: %s, %s kernels",
        precision,
        "deterministic" if deterministic else "the fastest",
    )
