"""The test sets by name, opened as a configuration and a protocol want them."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from prnet.checks import require_choice
from prnet.datasets.aflw import AFLW
from prnet.datasets.aflw2000 import AFLW2000
from prnet.datasets.aflw_lfpa import AFLWLFPA
from prnet.datasets.evaluation import Demands, TestSet
from prnet.datasets.florence import Florence
from prnet.datasets.synthetic import HeldOutFaces
from prnet.faces.face import Face
from prnet.faces.loading import FaceFiles

TEST_SETS = {kind.name: kind for kind in (AFLW2000, HeldOutFaces, AFLW, AFLWLFPA, Florence)}


class SetChoice(NamedTuple):
    """A test set as it is configured, not opened yet."""

    name: str
    options: Mapping  # the fields of its own configuration
    data_dir: Path | str
    face_files: FaceFiles  # of the face of its fits

    def require(self, demands: Demands) -> None:
        """Raise ValueError if there is no such test set, or it cannot do what a protocol demands.

        Nothing is read for it.
        """
        require_choice("dataset", self.name, TEST_SETS)
        kind = TEST_SETS[self.name]
        detects = demands.crop is not None and demands.crop.source == "detector"
        lists = demands.boxes or demands.yaw_labels or demands.exclude
        if not kind.takes_lists and (lists or detects):
            raise ValueError(
                f"dataset={self.name}: takes no protocol.crop.boxes or source=detector, yaw labels "
                f"or names to exclude; choose protocol={' or '.join(kind.protocols)}, or change "
                "these fields"
            )
        if self.options.get("subsets") is not None:
            raise ValueError(f"dataset.subsets: {self.name} has no sub-folders; leave it out")
        if demands.crop is not None:
            return
        if self.occlusion != "none":
            raise ValueError(
                f"dataset.occlusion={self.occlusion}: covers the images that a network is given, "
                "and predictions= are made already; leave one of the two out"
            )
        if not kind.takes_predictions:
            others = [name for name, other in TEST_SETS.items() if other.takes_predictions]
            raise ValueError(f"predictions= are scored on {', '.join(others)}")

    @property
    def occlusion(self) -> str:
        return self.options.get("occlusion", "none")

    def truth_face(self) -> tuple[Face | None, str]:
        """The face of the fits, or None and why it is not there."""
        try:
            return self.face_files.load(), ""
        except FileNotFoundError as error:
            return None, f"the truth cannot be made from the fits: {error}"

    def open(self, demands: Demands, truth_face: Face | None, no_face: str) -> TestSet:
        """The test set; `truth_face` and `no_face` are what the method of that name returns.

        Raises:
            FileNotFoundError, ValueError: what it reads is missing or not as it should be, or as
                `require`.
        """
        self.require(demands)
        test_set = TEST_SETS[self.name].open(self.data_dir, self.options, demands, truth_face)
        return test_set.with_truth_face(truth_face, no_face) if test_set.has_fits else test_set
