"""`python -m prnet.compare`: methods beside each other, from their predictions or reports."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("compare")  # ends here: options are read before what follows is imported

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from prnet.checks import require_count
from prnet.datasets.evaluation import Demands
from prnet.datasets.predictions import find_topology
from prnet.datasets.test_sets import SetChoice
from prnet.entry import (
    loader_workers,
    made_now,
    num_workers,
    resolve_device,
    shipped,
    shipped_names,
    shipped_values,
)
from prnet.evaluation.evaluate import EvaluationOptions, evaluate
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.report import with_statistics
from prnet.evaluation.sources import PredictionSource
from prnet.faces.loading import FaceFiles
from prnet.reports.comparison import write_comparison
from prnet.reports.methods import Entry, entries_of_reports, method_names
from prnet.reports.shipped import Shipped

log = logging.getLogger(__name__)


def chosen_protocols(names: str | Sequence[str], data_dir: str, override: dict) -> list[Protocol]:
    """The shipped protocols of these names, or all of them.

    Raises:
        ValueError: there is none of a name, or a field does not take its value.
    """
    known = shipped_names("protocol")
    if names == "all":
        names = ["default", *(name for name in known if name != "default")]
    elif isinstance(names, str):
        names = [names]
    protocols = []
    for name in names:
        values = shipped_values("protocol", name)
        if values is None:
            raise ValueError(f"protocols: got {name!r}, expected all or some of {', '.join(known)}")
        tree = OmegaConf.create({"data_dir": data_dir, "protocol": values})
        OmegaConf.set_struct(tree, True)
        merged = OmegaConf.merge(tree, {"protocol": override})
        resolved = OmegaConf.to_container(merged, resolve=True)
        protocols.append(Protocol.from_values(resolved["protocol"]))
    return protocols


def entries_of_predictions(cfg: DictConfig, configured: Shipped) -> tuple[list[Entry], list[str]]:
    """Every folder of predictions under every protocol, and which protocols were left out."""
    set_options = OmegaConf.to_container(cfg.dataset, resolve=True)
    dataset = SetChoice(cfg.dataset.name, set_options, cfg.data_dir, FaceFiles(**cfg.face))
    names = list(cfg.protocols) if isinstance(cfg.protocols, ListConfig) else cfg.protocols
    override = {
        **OmegaConf.to_container(cfg.protocol, resolve=True),
        **OmegaConf.to_container(cfg.override, resolve=True),
    }
    protocols = chosen_protocols(names, cfg.data_dir, override)
    dataset.require(Demands())
    require_count("batch_size", cfg.batch_size)
    device = resolve_device(cfg.device)
    options = EvaluationOptions(
        batch_size=cfg.batch_size,
        num_workers=loader_workers(cfg.num_workers, device),
        cores=num_workers(cfg.num_workers),
    )
    entries, remarks = [], []
    methods = method_names([str(directory) for directory in cfg.predictions])
    face, no_face = dataset.truth_face()
    topology = find_topology(face, dataset.face_files.prnet_uv_dir)
    for protocol in protocols:
        reason = unfit(protocol, dataset)
        if names == "all" and reason:
            remarks.append(f"protocol {protocol.name} left out: {reason}")
            continue
        test_set = dataset.open(protocol.demands(network=False), face, no_face)
        for directory, method in methods.items():
            log.info("%s under protocol %s", method, protocol.name)
            source = PredictionSource(
                directory, face, no_face=no_face, topology=topology, device=device
            )
            report = with_statistics(evaluate(source, test_set, protocol, options))
            entries.append(Entry(method, configured.protocol_words(report["protocol"]), report))
    scored = {entry.protocol for entry in entries if entry.report["metrics"]}
    if names == "all":
        empty = dict.fromkeys(e.protocol for e in entries if e.protocol not in scored)
        remarks += [f"protocol {protocol}: nothing to score here" for protocol in empty]
        entries = [entry for entry in entries if entry.protocol in scored]
    return entries, remarks


def unfit(protocol: Protocol, dataset: SetChoice) -> str | None:
    """Why a protocol cannot be scored under here, if it cannot."""
    try:
        dataset.require(protocol.demands(network=False))
    except ValueError as error:
        return str(error)
    if protocol.yaw_source == "labels" and not Path(protocol.yaw_labels).is_file():
        return f"{protocol.yaw_labels} is missing"
    return None


def compare(cfg: DictConfig, made: dict | None = None) -> list[Path]:
    """What the configuration asks for: score or read, show, write; the files written.

    Raises:
        ValueError, FileNotFoundError: an option, or a file it names, is not what it should be.
    """
    for option in ("predictions", "reports"):
        if not isinstance(cfg[option], ListConfig):
            raise ValueError(f"{option}: got {cfg[option]!r}, expected a list: '{option}=[A,B]'")
    if not cfg.predictions and not cfg.reports:
        raise ValueError("nothing to compare: give predictions=[D1,D2] or reports=[a.json,b.json]")
    configured = Shipped(**shipped())
    entries, remarks = [], []
    if cfg.predictions:
        entries, remarks = entries_of_predictions(cfg, configured)
    saved, on_means = entries_of_reports([str(pattern) for pattern in cfg.reports], configured)
    entries += saved
    remarks += on_means
    if not any(entry.report["metrics"] for entry in entries):
        reasons = [r for e in entries for r in e.report["not_computed"].values()]
        raise ValueError(f"no metric could be computed: {'; '.join(dict.fromkeys(reasons))}")
    written = write_comparison(entries, Path(cfg.output), remarks=remarks, made=made)
    log.info("\n%s", written[0].read_text(encoding="utf-8"))
    log.info("written: %s, and %d files beside it", written[0], len(written) - 1)
    return written


def main(cfg: DictConfig) -> None:
    compare(cfg, made_now("prnet.compare"))
