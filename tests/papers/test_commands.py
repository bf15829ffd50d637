"""Every cell of the papers' tables that is ours comes from the commands that are printed beside it:
they run, on made-up benchmarks, and fill it."""

import re
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.checkpoint import save_checkpoint
from prnet.entry import shipped
from prnet.eval import run_evaluation
from prnet.evaluation.means import worst
from prnet.papers.filling import fill, listing
from prnet.papers.formats import FilledTable
from prnet.papers.published import PublishedTable, published_tables
from prnet.reports.reading import SavedReport, read_report
from prnet.reports.shipped import Shipped
from tests.benchmarks import write_aflw, write_florence, write_lfpa
from tests.configurations import composed
from tests.evaluations import true_vertices
from tests.tiny import NUM_EXP, NUM_SHAPE

SHIPPED = Shipped(**shipped())
TABLES = published_tables()
RUNS = dict(run for table in TABLES for run in table.runs.items())
# One image a bin.
AFLW2000_YAWS_DEG = {"image00002": -5.0, "image00006": 41.0, "image00004": 68.0}
# What makes a network small, where it has the option.
SMALL = {
    "num_shape": NUM_SHAPE,
    "num_exp": NUM_EXP,
    "backbone": "mobilenet_v2",
    "input_side": 64,
    "width": 2,
}


def printed(table: PublishedTable) -> list[tuple[str, list[str], list[list[str]]]]:
    """What `prnet.tables` says where there is no report: of every run the words of prnet.train and
    of each evaluation."""
    found = []
    for remark in fill(table, [], SHIPPED).remarks:
        run = re.fullmatch(r"No report of (\S+): .*", remark)[1]
        train, *evaluations = re.findall(r"`python -m (prnet\.\w+ [^`]+)`", remark)
        assert train.startswith("prnet.train ")
        assert all(words.startswith("prnet.eval ") for words in evaluations)
        found.append((run, train.split()[1:], [words.split()[1:] for words in evaluations]))
    return found


PRINTED = {(table.paper, table.table): printed(table) for table in TABLES}


@pytest.fixture(scope="module")
def data_dir(tiny_data_dir, tmp_path_factory) -> Path:
    """All benchmarks of the tables."""
    folder = tmp_path_factory.mktemp("benchmarks")
    shutil.copytree(tiny_data_dir / "BFM", folder / "BFM")
    (folder / "AFLW2000").mkdir()
    for name in AFLW2000_YAWS_DEG:
        for file in (tiny_data_dir / "AFLW2000").glob(f"{name}.*"):
            shutil.copy(file, folder / "AFLW2000")
    lines = [f"{name},{yaw_deg}\n" for name, yaw_deg in AFLW2000_YAWS_DEG.items()]
    (folder / "AFLW2000" / "yaw_new.csv").write_text("".join(["name,yaw_deg\n", *lines]))
    write_aflw(folder)
    write_lfpa(folder)
    write_florence(
        folder, true_vertices(tiny_data_dir, next(iter(AFLW2000_YAWS_DEG)), "zero_based")
    )
    return folder


def write_network(path: Path, run: str, face) -> None:
    """A checkpoint of a run that has not begun, of a small network."""
    cfg = composed("train", f"+experiment={RUNS[run][0]}")
    assert RUNS[run][1] or cfg.name == run
    network = OmegaConf.to_container(cfg.model.network, resolve=True)
    network |= {key: value for key, value in SMALL.items() if key in network}
    torch.manual_seed(0)
    weights = instantiate(network).state_dict()
    del network["_target_"]
    path.parent.mkdir(parents=True)
    header = {"model": {"name": cfg.model.name, **network}, "face": face.describe()}
    save_checkpoint(path, {**header, "weights": weights, "experiment": run})


def test_every_run_is_trained_by_the_command_beside_it():
    """The experiment is there, and its run has the name by which the table finds its report."""
    listed = listing(TABLES)
    for key, found in PRINTED.items():
        assert [run for run, _, _ in found] == list(
            next(table.runs for table in TABLES if (table.paper, table.table) == key)
        )
    commands = {run: words for found in PRINTED.values() for run, words, _ in found}
    assert len(commands) > 30
    for run, words in commands.items():
        experiment = words[0].removeprefix("+experiment=")
        assert experiment in SHIPPED.experiments
        assert " ".join([experiment, *words[1:]]) in listed
        # The others are composed for their settings, where each name is its experiment's.
        if len(words) > 1:
            assert composed("train", *words).name == run


@pytest.fixture(scope="module")
def reports(data_dir, face, tmp_path_factory) -> list[SavedReport]:
    """Of each metric under each pair of dataset and protocol, the report of the first run of a
    table that needs it, by the command printed for it."""
    folder = tmp_path_factory.mktemp("runs")
    chosen: dict[tuple[str, ...], None] = {}
    covered: set[tuple] = set()
    for table in TABLES:
        for run, _, evaluations in PRINTED[table.paper, table.table]:
            wanted = table.evaluations(run)
            scored = {key: numbers for key, numbers in wanted.items() if key[0]} or wanted
            for (checkpoint, *words, _), (key, numbers) in zip(
                evaluations, scored.items(), strict=True
            ):
                assert checkpoint == f"checkpoint=outputs/{run}/TIME/best.pt"
                metrics = {(*key, number.metric) for number in numbers}
                if not metrics <= covered:
                    chosen[run, *words] = None
                covered |= metrics
    paths = []
    for run, *words in chosen:
        network = folder / "outputs" / run / "TIME" / "best.pt"
        if not network.is_file():
            write_network(network, run, face)
        paths.append(folder / f"{len(paths)}.json")
        made = [f"checkpoint={network}", *words, f"report={paths[-1]}"]
        cfg = composed("eval", *made, f"data_dir={data_dir}", "device=cpu", "runtime=torch")
        with (
            patch("prnet.reports.writing.draw_ced", lambda _curves, path, **_: path.touch()),
            patch("prnet.eval.Gallery.write"),
            # Three images and 98 vertices: not 20 are the worst, and not every 50th makes a face.
            patch("prnet.evaluation.report.worst", lambda values, _count: worst(values, 1)),
            patch("prnet.metrics.reconstruction.STRIDE_2DASL", 5),
        ):
            run_evaluation(cfg, folder)
    return [read_report(path, SHIPPED.protocols["default"]) for path in paths]


def our_numbers(table: PublishedTable, filled: FilledTable, run: str) -> list[tuple]:
    """(report key, protocol, cell) of the row that a run has."""
    found = []
    for row in table.rows:
        for column_index, column in enumerate(table.columns):
            names = {name + column.experiment_suffix for name in row.experiments}
            if column.report is None or run not in names:
                continue
            (ours,) = (
                one
                for one in filled.rows
                if one.is_ours and one.method.text.startswith(f"{row.method.text}, ours")
            )
            found.append((column.report, row.protocol_of(column), ours.cells[column_index]))
    return found


def test_every_cell_is_filled_by_the_command_beside_it(reports):
    """A number in every cell of what was scored, under the protocol that its column needs; each
    metric under each protocol at least once."""
    filled_keys, wanted = set(), set()
    for table in TABLES:
        for run in table.runs:
            wanted |= {
                (dataset, protocol, number.metric)
                for (dataset, protocol), numbers in table.evaluations(run).items()
                for number in numbers
            }
        whole = fill(table, [one for one in reports if one.experiment in table.runs], SHIPPED)
        for report in reports:
            if report.experiment not in table.runs:
                continue
            words = SHIPPED.protocol_words(report.protocol)
            for key, protocol, cell in our_numbers(table, whole, report.experiment):
                if key.dataset == report.dataset and protocol == words:
                    assert cell.number is not None, (table.paper, table.table, key)
                    assert not any("Ours under protocol" in mark for mark in cell.marks)
                elif key.dataset is not None or cell.number is None:
                    continue
                filled_keys.add((key.dataset, protocol, key.metric))
    assert filled_keys == wanted
    assert {"florence", "aflw", "aflw_lfpa", "aflw2000", None} == {key[0] for key in wanted}
