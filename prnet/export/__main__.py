"""`python -m prnet.export`: the network of a checkpoint as ONNX, or as safetensors with a card."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("export")  # ends here: options are read before what follows is imported

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from prnet import __version__
from prnet.checkpoint import SHARED
from prnet.checks import require_choice
from prnet.entry import shipped_values
from prnet.evaluation.protocol import METRICS
from prnet.export.onnx import PRECISIONS, difference, write_onnx
from prnet.export.sharing import Score, make_card, shared_checkpoint, write_shared
from prnet.models.loading import load_with_face
from prnet.reports.reading import read_report

log = logging.getLogger(__name__)

CARD = ("data", "license", "command")


def export_onnx(cfg: DictConfig, output: Path) -> None:
    """Write the file, and say how far its answers are from torch's."""
    if any(cfg.card.values()):
        raise ValueError(f"{output}: card= goes with a {SHARED} file")
    model, face, content = load_with_face(cfg.checkpoint, data_dir=cfg.data_dir)
    metadata = {
        "checkpoint": str(cfg.checkpoint),
        "pixel_origin": str(content.get("pixel_origin", "zero_based")),
    }
    network = write_onnx(
        model,
        face,
        output,
        precision=cfg.precision,
        metadata=metadata,
        say=lambda step: log.info("%s: %s", output, step),
    )
    log.info("%s: comparing it with torch", output)
    side = face.uv.resolution
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    largest_px, landmarks_nme, allowed_px = difference(output, network, images)
    megabytes = output.stat().st_size / 1e6
    log.info(
        "%s: %.1f MB; on three images of noise its coordinates differ from torch's by at most %.1e "
        "px, its landmarks by %.1e %% of their box",
        *(output, megabytes, largest_px, landmarks_nme),
    )
    if cfg.precision == "fp32" and not largest_px <= allowed_px:
        log.warning("%s: expected at most %.1e px", output, allowed_px)


def scores_of(reports: Sequence[str]) -> list[Score]:
    """What reports of `prnet.eval` say, a line a metric."""
    scores = []
    default = shipped_values("protocol", "default")
    for report in (read_report(Path(path), default) for path in reports):
        for metric in METRICS:
            if metric in report.metrics:
                summary = report.metrics[metric]
                means = (summary["mean_of_bins"], summary["mean"], METRICS[metric].unit)
                title = METRICS[metric].title
                name = report.protocol["name"]
                scores.append(Score(report.dataset, report.count, name, title, *means))
    return scores


def export_shared(cfg: DictConfig, output: Path) -> None:
    """Write the file and its card."""
    absent = [f"card.{key}=" for key in CARD if not cfg.card[key]]
    if absent:
        raise ValueError(f"{output}: weights to share need a card: give {', '.join(absent)}")
    checkpoint = shared_checkpoint(cfg.checkpoint, half=cfg.precision == "fp16")
    card = make_card(
        checkpoint,
        **{key: str(cfg.card[key]) for key in CARD},
        commit=str(cfg.card.commit or f"prnet {__version__}"),
        scores=scores_of(cfg.card.reports),
    )
    megabytes = write_shared(checkpoint, card, output)
    log.info("%s: %.1f MB; its card is %s", output, megabytes, output.with_suffix(".md"))


def main(cfg: DictConfig) -> None:
    output = Path(cfg.output)
    require_choice("precision", cfg.precision, PRECISIONS)
    require_choice("output: ending", output.suffix, (".onnx", SHARED))
    export = export_onnx if output.suffix == ".onnx" else export_shared
    export(cfg, output)
