"""Batch-norm running statistics as a function of data rather than of training history.

Letters: B batch, C channels, H W height and width.
"""

import copy
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from prnet.datasets.augment import AugmentRule, augment
from prnet.datasets.pictures import collate_fits
from prnet.datasets.training_sets import TrainingData
from prnet.geometry.position_map import PositionMapDecoder
from prnet.training.plan import Plan, batch_generator

# Runs shorter than this many steps need their statistics recomputed by themselves
# (`trainer.recompute_batch_norm=auto`), from so many batches.
SHORT_RUN_STEPS = 20_000
SHORT_RUN_BATCHES = 32
# The second, of several processes, has them all see the same batches here.
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class _Moments:
    """Count, mean and sum of squared deviations per channel, merged batch by batch in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0  # (C,)
        self.deviation: Tensor | float = 0.0  # (C,)

    def add(self, features: Tensor) -> None:  # (B, C, H, W)
        precision = torch.promote_types(features.dtype, torch.float32)
        variance, mean = torch.var_mean(features.to(precision), dim=(0, 2, 3), correction=0)
        variance, mean = variance.double(), mean.double()
        count = features.numel() // features.shape[1]
        total = self.count + count
        step = mean - self.mean
        # Chan, Golub and LeVeque: pairwise update of mean and squared deviations.
        self.mean = self.mean + step * (count / total)
        self.deviation = (
            self.deviation + variance * count + step.square() * (self.count * count / total)
        )
        self.count = total


def forgets_slowly(model: nn.Module) -> bool:
    """Whether a batch norm's running statistics need more than some hundred steps to settle."""
    norms = (module for module in model.modules() if isinstance(module, BATCH_NORMS))
    return any(norm.momentum is not None and norm.momentum < 0.01 for norm in norms)


def calibration_batches(model: nn.Module, plan: Plan, total_steps: int, *, samples: int) -> int:
    """How many batches, of an epoch of `samples`, the statistics are recomputed from; 0: they are
    not."""
    wanted = plan.recompute_batch_norm
    if wanted == "auto":
        short = total_steps < SHORT_RUN_STEPS
        wanted = SHORT_RUN_BATCHES if short and forgets_slowly(model) else 0
    return min(wanted, math.ceil(samples / plan.batch_size))


def training_images(
    data: TrainingData,
    decoder: PositionMapDecoder,
    rule: AugmentRule,
    plan: Plan,
    step: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """The first epoch's batches, augmented as `step` says, (B, 3, H, W) each; the last may be
    smaller."""
    samples = data.concatenated()
    order = data.order(plan.seed, 0)
    for start in range(0, len(order), plan.batch_size):
        chosen = order[start : start + plan.batch_size].tolist()
        batch = collate_fits([samples[i] for i in chosen]).to(device)
        generator = batch_generator(plan.seed, step, start, device)
        yield augment(batch, decoder, rule, generator, targets=()).image


@torch.no_grad()
def recompute_batch_norm(
    model: nn.Module,
    batches: Iterable[Tensor],  # each (B, C, H, W), what `model` takes; sizes may differ
) -> int:
    """Make the running statistics of every BatchNorm2d those of `batches`; return the batch count.

    With PRN's momentum of 0.001 running statistics lag thousands of steps behind the weights. Here
    they become mean and unbiased variance over all pixels of all batches together, of what a layer
    sees while its predecessors normalise by the statistics of each batch, as in training. (An
    average of the batches' variances would miss the spread of their means.) All else stays as it
    is; on an error so do the statistics. Pass the bare module, not a compiled or distributed
    wrapper of it.

    Raises:
        ValueError: no batch, or statistics that are not finite.
    """
    # A copy sees the batches: its modes and its own running statistics are nobody's.
    probe = copy.deepcopy(model).eval()
    moments = {}
    for name, norm in probe.named_modules():
        if isinstance(norm, BATCH_NORMS) and norm.track_running_stats:
            norm.train()  # normalises by the batch
            found = moments[name] = _Moments()
            norm.register_forward_pre_hook(lambda _, args, found=found: found.add(args[0]))
    num_batches = 0
    for images in batches:
        probe(images)
        num_batches += 1

    if num_batches == 0:
        raise ValueError("batch-norm statistics: got no batch, expected at least one")
    for name, found in moments.items():
        if found.count and not (found.mean + found.deviation).isfinite().all():
            raise ValueError(f"batch-norm statistics: {name} sees values that are not finite")
    for name, found in moments.items():
        if found.count:
            norm = model.get_submodule(name)
            norm.running_mean.copy_(found.mean)
            norm.running_var.copy_(found.deviation / (found.count - 1))
    return num_batches
