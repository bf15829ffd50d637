"""The test sets whose truth is not a fit: points of their own, or scans."""

import logging
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset, Subset

from prnet.datasets.aflw import AFLW
from prnet.datasets.aflw_lfpa import AFLWLFPA
from prnet.datasets.florence import Florence
from prnet.datasets.pictures import CropRule

log = logging.getLogger(__name__)


class Benchmark(NamedTuple):
    dataset: type[Dataset]  # has names, point_groups and notes()
    options: tuple[str, ...]  # fields of its configuration that it takes
    metric: str  # what can be measured on it


BENCHMARKS = {
    "aflw": Benchmark(AFLW, ("roi", "frame"), "nme_points_2d"),
    "aflw_lfpa": Benchmark(AFLWLFPA, ("table",), "nme_points_2d"),
    "florence": Benchmark(Florence, (), "nme_rec"),
}
NO_FITS = "the data set has no fits"


def open_benchmark(
    name: str,
    data_dir: Path | str,
    options: Mapping[str, object],
    *,
    crop: CropRule | None,
) -> Dataset:
    """The test set of that name; with `crop` None without pictures.

    Raises:
        FileNotFoundError, ValueError: what it reads is missing or not as it should be.
    """
    benchmark = BENCHMARKS[name]
    chosen = {key: options[key] for key in benchmark.options}
    return benchmark.dataset(data_dir, crop=crop, **chosen)


class Part(Subset):
    """Some items of a benchmark."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        super().__init__(dataset, indices)
        self.point_groups = dataset.point_groups
        self.names = [dataset.names[index] for index in indices]
        self.notes = dataset.notes


def with_names(dataset: Dataset, names: Container[str]) -> Part:
    """The items of a benchmark that are among `names`."""
    return Part(dataset, [i for i, name in enumerate(dataset.names) if name in names])


def log_notes(report: dict, dataset: Dataset) -> None:
    """Add what a benchmark says about itself to the report, as `notes`, and log it."""
    if not hasattr(dataset, "notes"):
        return
    report["notes"] = dataset.notes()
    for key, value in report["notes"].items():
        if isinstance(value, list):
            value = f"{len(value)}: {', '.join(map(str, value[:10]))}" if value else "none"
        log.info("%s: %s", key, value)
