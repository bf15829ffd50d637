"""Weights to share: a checkpoint as safetensors, with a card that says what they are."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from prnet.checkpoint import load_checkpoint, save_checkpoint
from prnet.files import write_text
from prnet.models.loading import load_model

KEPT = ("model", "face", "pixel_origin", "experiment")
BFM_TERMS = "trained for the Basel Face Model, whose terms (research only) bind the weights"


class Score(NamedTuple):
    """What the weights reach, a number of a report."""

    dataset: str
    images: int
    protocol: str
    metric: str
    mean_of_bins: float | None  # in `unit`; None: a bin has no image
    mean: float
    unit: str


def shared_checkpoint(source: Path | str, *, half: bool) -> dict:
    """A checkpoint's network and face without what only a resumed run needs. With `half` what was
    learned is rounded to float16 (a network is built in float32 all the same); statistics stay.

    Raises:
        FileNotFoundError, ValueError: as `load_model`, or a weight is beyond what float16 holds.
    """
    model, checkpoint = load_model(source)
    weights = dict(checkpoint["weights"])
    for name, parameter in model.named_parameters() if half else ():
        weights[name] = parameter.detach().half()
        if not weights[name].isfinite().all():
            raise ValueError(f"{source}: {name} is beyond the range of float16")
    return {key: checkpoint[key] for key in KEPT if key in checkpoint} | {"weights": weights}


def make_card(
    checkpoint: Mapping[str, object],
    *,
    data: str,
    license: str,
    command: str,
    commit: str,
    scores: Sequence[Score],
) -> dict[str, str | list]:
    """What is to be known of weights, as plain values."""
    face = str((checkpoint.get("face") or {}).get("name", "bfm"))
    return {
        "model": ", ".join(f"{key} {value}" for key, value in checkpoint["model"].items()),
        "stored numbers": sum(
            t.numel() for t in checkpoint["weights"].values() if t.is_floating_point()
        ),
        "face": face if face != "bfm" else f"{face}: {BFM_TERMS}",
        "data": data,
        "license": license,
        "command": command,
        "commit": commit,
        "scores": [score._asdict() for score in scores],
    }


def card_as_markdown(name: str, card: Mapping[str, object], *, sha256: str) -> str:
    """The card for people, beside the file; its head is what the Hugging Face hub reads."""
    lines = ["---", f"license: {card['license'].lower()}", "library_name: prnet", "---", ""]
    lines += [f"# {name}", "", "| | |", "|---|---|"]
    facts = {key: value for key, value in card.items() if key not in ("command", "scores")}
    for key, value in {**facts, "sha256": sha256}.items():
        lines.append(f"| {key} | {str(value).replace('|', chr(92) + '|')} |")
    lines += ["", "Made by", "", "```", card["command"], "```", ""]
    if card["scores"]:
        lines += ["| data set | images | protocol | metric | mean of bins | mean |"]
        lines += ["|---|---|---|---|---|---|"]
    for values in card["scores"]:
        score = Score(**values)
        of_bins = "-" if score.mean_of_bins is None else f"{score.mean_of_bins:.2f}"
        lines.append(
            f"| {score.dataset} | {score.images} | {score.protocol} | {score.metric}, {score.unit} "
            f"| {of_bins} | {score.mean:.2f} |"
        )
    lines += ["", "```", f"python -m prnet.eval checkpoint={name}.safetensors", "```"]
    return "\n".join(lines) + "\n"


def write_shared(checkpoint: Mapping[str, object], card: dict, path: Path | str) -> float:
    """Write FILE.safetensors, the card in it, and FILE.md beside it; returns the file's size in MB.

    What is written is read again before this returns.
    """
    path = Path(path)
    save_checkpoint(path, {**checkpoint, "card": card})
    back = load_checkpoint(path)
    for name, tensor in checkpoint["weights"].items():
        if not torch.equal(back["weights"][name], tensor):
            raise OSError(f"{path}: {name} is not what was written; is the disk full or broken?")
    text = card_as_markdown(path.stem, card, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    write_text(path.with_suffix(".md"), text)
    return path.stat().st_size / 1e6
