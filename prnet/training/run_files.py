"""What a run leaves: last.pt, to go on from, and best.pt, the weights of the best validation."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from prnet.checkpoint import save_checkpoint
from prnet.checks import differences
from prnet.files import STALE_SECONDS, remove_leftovers, written_whole
from prnet.losses.loss import Loss
from prnet.models.network import Network
from prnet.training.average import WeightAverage
from prnet.training.optimizer import load_optimizer

log = logging.getLogger(__name__)


class RunFiles:
    """The two checkpoints of a run, and the best score so far; lower is better."""

    def __init__(
        self,
        run_dir: Path,
        header: Mapping[str, object],
        *,
        order: dict,
        settings: Mapping[str, object] | None,
        total_steps: int,
        compiled: str,
    ) -> None:
        """`header` goes into both (model, face); `order`: see `Plan.order`; `settings`: what else a
        resumed run must have in common with this one, plain values; `compiled`: what is, one of
        `prnet.training.compiling.SCOPES`, which a resumed run repeats."""
        self.run_dir = run_dir
        self.header = header
        self.order = order
        self.settings = None if settings is None else json.loads(json.dumps(settings))
        self.total_steps = total_steps
        self.compiled = compiled
        self.best = float("inf")

    def go_on(
        self,
        resume: dict,
        optimizer: torch.optim.Optimizer,
        loss_fn: Loss,
        average: WeightAverage,
    ) -> None:
        """Take the state of `last.pt`'s `training`, the network's weights apart.

        Raises:
            ValueError: it is of a run over other samples, batches or processes, or with other
                settings; names each.
        """
        found, own = {**resume["order"]}, {**self.order}
        if self.settings is not None and "settings" in resume:
            found, own = {**found, **resume["settings"]}, {**own, **self.settings}
        elif self.settings is not None:
            log.warning("resume: an earlier version's file, without settings to compare with")
        different = [f"{key} was {old} and is {new}" for key, old, new in differences(found, own)]
        if different:
            raise ValueError(
                f"resume: {', '.join(different)}; resume with the same settings, or start anew "
                "with init="
            )
        load_optimizer(optimizer, resume["optimizer"])
        loss_fn.load_training_state(resume.get("loss", {}))
        average.load_state(resume.get("average", {}))
        self.best = resume["best"]
        if resume["step"] >= self.total_steps:
            log.warning(
                "resume: that run is finished, %d of %d steps are made",
                resume["step"],
                self.total_steps,
            )

    def save_last(
        self,
        step: int,
        model: Network,
        optimizer: torch.optim.Optimizer,
        loss_fn: Loss,
        average: WeightAverage,
        *,
        validated: bool,
    ) -> None:
        """last.pt, after `step`; `validated`: the validation that belongs to it is done."""
        training = {
            "step": step,
            "validated": validated,
            "total_steps": self.total_steps,
            "order": self.order,
            "compiled": self.compiled,
            "best": self.best,
            "optimizer": optimizer.state_dict(),
            "loss": loss_fn.training_state(),
            "average": average.state(),
        }
        if self.settings is not None:
            training["settings"] = self.settings
        state = {**self.header, "weights": model.state_dict(), "training": training}
        save_checkpoint(self.run_dir / "last.pt", state)

    def offer(self, model: Network, score: float) -> None:
        """Save best.pt if the score is the lowest so far; the first of equals stays."""
        if score < self.best:
            self.best = score
            self.save_best(model)

    def save_best(self, model: Network) -> None:
        """best.pt: weights alone."""
        save_checkpoint(self.run_dir / "best.pt", {**self.header, "weights": model.state_dict()})


def keep_best(resumed: Path, run_dir: Path) -> None:
    """Copy best.pt from beside a resumed last.pt: it is the best until the run beats its score.
    What the run left unfinished there is removed."""
    remove_leftovers(resumed.parent, older_than=STALE_SECONDS)
    best = resumed.with_name("best.pt")
    if best.is_file() and resumed.parent.resolve() != run_dir.resolve():
        with written_whole(run_dir / "best.pt") as temporary:
            temporary.write_bytes(best.read_bytes())
