"""`python -m prnet.compare`: methods beside each other, from their predictions or reports."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from prnet.datasets.test_sets import own_protocol
from prnet.entry import CONFIG_DIR, one_line_errors, resolve_device, shipped_protocol
from prnet.eval import score_saved, truth_face_of
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.summaries import with_statistics
from prnet.files import read_json_object
from prnet.reports.comparison import Entry, write_comparison
from prnet.reports.reading import SOURCE, read_report
from prnet.tables import protocol_words

log = logging.getLogger(__name__)


def chosen_protocols(names: str | Sequence[str], data_dir: str, override: dict) -> list[Protocol]:
    """The shipped protocols of these names, or all of them.

    Raises:
        ValueError: there is none of a name, or a field does not take its value.
    """
    shipped = sorted(file.stem for file in Path(CONFIG_DIR, "protocol").glob("*.yaml"))
    if names == "all":
        names = ["default", *(name for name in shipped if name != "default")]
    elif isinstance(names, str):
        names = [names]
    protocols = []
    for name in names:
        values = shipped_protocol(name)
        if values is None:
            raise ValueError(
                f"protocols: got {name!r}, expected all or some of {', '.join(shipped)}"
            )
        tree = OmegaConf.create({"data_dir": data_dir, "protocol": values})
        OmegaConf.set_struct(tree, True)
        merged = OmegaConf.merge(tree, {"protocol": override})
        resolved = OmegaConf.to_container(merged, resolve=True)
        protocols.append(Protocol.from_values(resolved["protocol"]))
    return protocols


def method_names(directories: Sequence[str]) -> dict[str, str]:
    """Folder -> what its method is called: the folder's name, or its path where two share one.

    Raises:
        ValueError: a folder is given twice.
    """
    if len(set(directories)) < len(directories):
        raise ValueError(f"predictions: a folder is there twice: {', '.join(directories)}")
    names = [Path(directory).resolve().name for directory in directories]
    return {
        directory: directory if names.count(name) > 1 else name
        for directory, name in zip(directories, names, strict=True)
    }


def entries_of_predictions(
    cfg: DictConfig, *, all_protocols: bool
) -> tuple[list[Entry], list[str]]:
    """Every folder of predictions under every protocol, and which protocols were left out."""
    entries, remarks = [], []
    methods = method_names([str(directory) for directory in cfg.predictions])
    override = OmegaConf.to_container(cfg.override, resolve=True)
    protocols = chosen_protocols(_plain(cfg.protocols), cfg.data_dir, override)
    device, truth_face = resolve_device(cfg.device), truth_face_of(cfg)
    for protocol in protocols:
        reason = unfit(protocol, cfg.dataset.name)
        if all_protocols and reason:
            remarks.append(f"protocol {protocol.name} left out: {reason}")
            continue
        protocol = own_protocol(protocol, cfg.dataset.name)
        for directory, method in methods.items():
            log.info("%s under protocol %s", method, protocol.name)
            report = with_statistics(
                score_saved(cfg, protocol, device, predictions=directory, truth_face=truth_face)
            )
            entries.append(Entry(method, protocol_words(report["protocol"]), report))
    scored = {entry.protocol for entry in entries if entry.report["metrics"]}
    if all_protocols:
        empty = dict.fromkeys(e.protocol for e in entries if e.protocol not in scored)
        remarks += [f"protocol {protocol}: nothing to score here" for protocol in empty]
        entries = [entry for entry in entries if entry.protocol in scored]
    return entries, remarks


def unfit(protocol: Protocol, dataset: str) -> str | None:
    """Why a protocol cannot be scored under here, if it cannot."""
    try:
        own_protocol(protocol, dataset)
    except ValueError as error:
        return str(error)
    if protocol.yaw_source == "labels" and not Path(protocol.yaw_labels).is_file():
        return f"{protocol.yaw_labels} is missing"
    return None


def entries_of_reports(patterns: Sequence[str]) -> list[Entry]:
    """Saved reports. Those of one source are one method.

    Raises:
        FileNotFoundError: a pattern matches no file; names it.
        ValueError: a report is damaged, has no images, or its protocol is none that is known.
    """
    paths: dict[str, None] = {}
    for pattern in patterns:
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
        if not found:
            raise FileNotFoundError(
                f"reports: no file matches {pattern!r}; write one with "
                "`python -m prnet.eval predictions=DIR report=FILE.json`"
            )
        paths |= dict.fromkeys(found)
    entries, names = [], {}
    for path in paths:
        described, report = read_report(Path(path)), read_json_object(Path(path))
        if not report.get("images"):
            raise ValueError(f"{path}: a report without images cannot be compared")
        match = SOURCE.fullmatch(described.source)
        name = described.experiment or (Path(match["path"]).name if match else described.source)
        source = names.setdefault(name, described.source)
        name = name if source == described.source else described.source
        entries.append(Entry(name, protocol_words(report["protocol"]), completed(report, path)))
    return entries


def completed(report: dict, path: Path | str) -> dict:
    """A report with intervals, and with what reports of earlier versions have not.

    Raises:
        ValueError: a metric or the protocol is none that is known, an image lacks an error.
    """
    default = OmegaConf.create(shipped_protocol("default"))
    try:
        values = OmegaConf.to_container(OmegaConf.merge(default, report["protocol"]))
        protocol = Protocol.from_values(values)
        report = {"not_computed": {}, "left_out": {}, **report, "protocol": protocol.to_values()}
        return report if "intervals" in report else with_statistics(report)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a whole report of prnet.eval: {error!r}") from error


def compare(cfg: DictConfig) -> list[Path]:
    """What the configuration asks for: score or read, show, write; the files written.

    Raises:
        ValueError, FileNotFoundError: an option, or a file it names, is not what it should be.
    """
    for option in ("predictions", "reports"):
        if not isinstance(cfg[option], ListConfig):
            raise ValueError(f"{option}: got {cfg[option]!r}, expected a list: '{option}=[A,B]'")
    if not cfg.predictions and not cfg.reports:
        raise ValueError("nothing to compare: give predictions=[D1,D2] or reports=[a.json,b.json]")
    entries, remarks = [], []
    if cfg.predictions:
        entries, remarks = entries_of_predictions(cfg, all_protocols=cfg.protocols == "all")
    entries += entries_of_reports([str(pattern) for pattern in cfg.reports])
    if not any(entry.report["metrics"] for entry in entries):
        reasons = [r for e in entries for r in e.report["not_computed"].values()]
        raise ValueError(f"no metric could be computed: {'; '.join(dict.fromkeys(reasons))}")
    written = write_comparison(entries, Path(cfg.output), remarks=remarks)
    log.info("\n%s", written[0].read_text(encoding="utf-8"))
    log.info("written: %s, and %d files beside it", written[0], len(written) - 1)
    return written


def _plain(value: object) -> object:
    return list(value) if isinstance(value, ListConfig) else value


@hydra.main(config_path=CONFIG_DIR, config_name="compare", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    compare(cfg)


if __name__ == "__main__":
    main()
