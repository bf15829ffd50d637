"""The training loop: batches -> a checkpoint, resumable to the bit: on a CPU, and with
`trainer.deterministic` on a CUDA card as far as its kernels are.

Letters: B batch, H W crop and map side.
"""

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from prnet.datasets.augment import AugmentRule, draw, require_rule
from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.training_sets import StepSampler, TrainingData
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.loss import Loss
from prnet.models.network import Network
from prnet.training.average import WeightAverage
from prnet.training.batch_norm import calibration_batches, recompute_batch_norm, training_images
from prnet.training.compiling import compiled_scope
from prnet.training.feeding import feed
from prnet.training.optimizer import make_optimizer, set_learning_rate
from prnet.training.plan import Plan, batch_generator
from prnet.training.processes import Processes
from prnet.training.run_files import RunFiles
from prnet.training.schedule import require_same_rates
from prnet.training.step import Forward, compiled
from prnet.training.step_log import StepLog
from prnet.training.stop import StopSignal
from prnet.training.validation import Validation

log = logging.getLogger(__name__)


class Ending(NamedTuple):
    """How a run ended."""

    signal: int  # the number of the one that stopped it; 0: it is finished
    best: float  # the lowest score of a validation; infinite where there was none


def train(
    model: Network,
    loss_fn: Loss,
    data: TrainingData,
    decoder: PositionMapDecoder,
    *,
    plan: Plan,
    rule: AugmentRule,
    schedule: Callable[[float, float], float],
    processes: Processes,
    run_dir: Path,
    header: dict,
    validate: Callable[[Network], Validation] | None,
    resume: dict | None,
    settings: Mapping[str, object] | None = None,
) -> Ending:
    """Train from `resume`'s step, or from 0, to the end; leaves last.pt and best.pt in `run_dir`.

    - `schedule`: (epochs done, epochs of the run) -> factor of the learning rate.
    - `header`: goes into every checkpoint (model, face).
    - `validate`: runs on every process; None: best.pt is the last state.
    - `resume`: `training` of a last.pt, whose weights the model has already.
    - `settings`: plain values that `resume` must have in common with this run, where it has any.

    Raises:
        FloatingPointError: a loss is not finite; last.pt holds the state before it.
        ValueError: the optimizer is none of its choices, or `resume` belongs to a run
            over other samples, batches or processes, or with other settings.
        ConnectionError: another process of the run is gone.
    """
    require_rule(rule)
    device = processes.device
    start = resume["step"] if resume else 0
    batching = {"batch_size": plan.batch_size, "seed": plan.seed, "start": start}
    sampler = StepSampler(data, **batching, rank=processes.rank, world_size=processes.size)
    steps_per_epoch = sampler.steps_per_epoch
    total_steps = plan.total_steps(steps_per_epoch)

    # Network, optimiser, and where an earlier run left them.
    memory_format = torch.channels_last if plan.channels_last else torch.contiguous_format
    model.to(device, memory_format=memory_format)
    optimizer = make_optimizer(model, plan, device)
    average = WeightAverage(model, plan.average)
    scope = compiled_scope(
        plan,
        steps=total_steps - start,
        device=device,
        resumed=resume.get("compiled", False) if resume else None,
    )
    highest = plan.rate(processes.size)
    if highest != plan.learning_rate:
        log.info(
            "learning rate %.3g, for steps of %d samples", highest, plan.batch_size * processes.size
        )
    order = plan.order(len(data), processes.size)
    files = RunFiles(
        run_dir,
        header,
        order=order,
        settings=settings,
        total_steps=total_steps,
        compiled=scope,
    )
    if resume is not None:
        files.go_on(resume, optimizer, loss_fn, average)
        require_same_rates(schedule, resume, steps_per_epoch, total_steps)
    processes.agree(loss_fn)  # what it learns itself, as a critic
    computed = {"precision": plan.precision, "channels_last": plan.channels_last}
    forward = Forward(model, loss_fn, decoder, rule, scope=scope, **computed)
    forward = processes.share(compiled(forward, scope), sync_batch_norm=plan.sync_batch_norm)
    bn_batches = calibration_batches(model, plan, total_steps, samples=len(data))
    left = total_steps - start
    # A graph has one size, and a place in a picture is rounded by that.
    one_size = scope in ("step", "graphs") or plan.deterministic
    batches = feed(data, sampler, plan, rule, processes, steps=left, one_size=one_size)

    def save(step: int, *, validated: bool = True) -> None:
        if processes.is_first:
            files.save_last(step, model, optimizer, loss_fn, average, validated=validated)

    def judge(step: int) -> None:
        """Validate with the function behind `python -m prnet.eval`, each process its share, then
        save."""
        kept = average.model
        if bn_batches:
            images = training_images(data, decoder, rule, plan, step, device)
            shown = {"desc": "batch-norm statistics", "unit": "batch", "leave": False}
            shown["disable"] = not processes.is_first
            batches = tqdm(itertools.islice(images, bn_batches), total=bn_batches, **shown)
            recompute_batch_norm(kept, batches)
        if validate is not None:
            processes.agree(kept)
            validation = validate(kept)
            if processes.is_first:
                step_log.write_validation(validation, step)
                files.offer(kept, validation.score)
        save(step)

    model.train()
    step_log = StepLog(run_dir, plan, processes, start=start, total_steps=total_steps)
    with processes.telling_deaths(run_dir), StopSignal() as stopped, step_log:
        if resume is not None and not resume.get("validated", True):
            judge(start)
        for step in range(start + 1, total_steps + 1):
            epoch = (step - 1) / steps_per_epoch
            try:
                batch = next(batches)
            except BaseException:
                # A loader that died, a file that is gone: between two steps the state is whole.
                step_log.check()
                if step - 1 > start:
                    save(step - 1)
                raise
            generator = batch_generator(plan.seed, step, processes.rank, device)

            # Forward, backward, update.
            learning_rate = highest * schedule(epoch, total_steps / steps_per_epoch)
            set_learning_rate(optimizer, learning_rate)
            loss_fn.start_step(epoch)
            optimizer.zero_grad(set_to_none=True)
            seen = []
            for part in batch.parts(plan.accumulate):
                draws = draw(len(part.picture), CROP_SIZE, rule, generator)
                if scope == "graphs":
                    torch.compiler.cudagraph_mark_step_begin()
                made = forward(part, draws)
                (sum(made.losses.values()) / plan.accumulate).backward()
                seen.append(made)
            if plan.clip_norm is not None and epoch >= plan.clip_from:
                nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
            optimizer.step()
            average.update(step)
            losses = mean_terms([one.losses for one in seen])
            taught = mean_terms([loss_fn.after_step(one.prediction, one.sample) for one in seen])

            # Report.
            if "position_map" in loss_fn.targets and step_log.writes(step + 1):
                share = unreachable_share(seen[-1].sample.position_map, loss_fn.weight_mask, model)
                taught = taught | {"ground_truth_out_of_reach": share}
            step_log.add(step, losses, taught, learning_rate)

            # Save, then validate: a run that is killed meanwhile goes on with the validation.
            leaving = stopped.agreed(step, processes)
            validating = plan.validates_at(step, steps_per_epoch)
            if validating or leaving or step % plan.save_every == 0:
                step_log.check()
                save(step, validated=not validating)
            if leaving:
                log.warning("stopped by a signal; go on with resume=%s", run_dir / "last.pt")
                return Ending(leaving, files.best)
            if validating:
                judge(step)
        if processes.is_first and validate is None:
            files.save_best(average.model)
    return Ending(0, files.best)


def mean_terms(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of the parts of a batch, the mean of each term."""
    first, *others = parts
    if not others:
        return first
    return {name: torch.stack([part[name].detach() for part in parts]).mean() for name in first}


def unreachable_share(
    position_map: Tensor,  # (B, 3, H, W), crop px
    weight_mask: Tensor,  # (H, W)
    model: Network,
) -> Tensor:
    """Share of supervised texels with a coordinate outside what the network can output (PRN's
    sigmoid), a scalar."""
    low, high = model.reach
    outside = ((position_map < low) | (position_map > high)).any(1)
    supervised = weight_mask > 0
    return (outside & supervised).sum() / (len(outside) * supervised.sum())
