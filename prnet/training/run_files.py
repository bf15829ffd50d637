"""What a run leaves: last.pt, to go on from, and best.pt, the weights of the best validation."""

from collections.abc import Mapping
from pathlib import Path

import torch

from prnet.checkpoint import save_checkpoint
from prnet.files import written_whole
from prnet.losses.loss import Loss
from prnet.models.network import Network
from prnet.training.average import WeightAverage


class RunFiles:
    """The two checkpoints of a run, and the best score so far; lower is better."""

    def __init__(
        self, run_dir: Path, header: Mapping[str, object], *, order: dict, compiled: bool
    ) -> None:
        """`header` goes into both (model, face); `order`: see `Plan.order`; `compiled`: whether the
        network is, which a resumed run repeats."""
        self.run_dir = run_dir
        self.header = header
        self.order = order
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
            ValueError: it is of a run over other samples, batches or processes, or of another loss.
        """
        if resume["order"] != self.order:
            raise ValueError(
                f"resume: that run drew its batches by {resume['order']}, this one by "
                f"{self.order}; resume with the same settings, or start anew with init="
            )
        optimizer.load_state_dict(resume["optimizer"])
        loss_fn.load_training_state(resume.get("loss", {}))
        average.load_state(resume.get("average", {}))
        self.best = resume["best"]

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
            "order": self.order,
            "compiled": self.compiled,
            "best": self.best,
            "optimizer": optimizer.state_dict(),
            "loss": loss_fn.training_state(),
            "average": average.state(),
        }
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
    """Copy best.pt from beside a resumed last.pt: it is the best until the run beats its score."""
    best = resumed.with_name("best.pt")
    if best.is_file() and resumed.parent.resolve() != run_dir.resolve():
        with written_whole(run_dir / "best.pt") as temporary:
            temporary.write_bytes(best.read_bytes())
