"""The test sets by name, opened as a configuration and a protocol want them."""

from collections.abc import Mapping
from pathlib import Path

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


def require_test_set(name: str, options: Mapping, demands: Demands) -> None:
    """Raise ValueError if no test set has that name, or it is asked for what it does not have.

    Nothing is read for it.
    """
    require_choice("dataset", name, TEST_SETS)
    kind = TEST_SETS[name]
    if not kind.takes_lists and (demands.boxes or demands.yaw_labels or demands.exclude):
        raise ValueError(
            f"dataset={name}: takes no protocol.crop.boxes, yaw labels or names to exclude; "
            "choose protocol=default, or change these fields"
        )
    if options.get("subsets") is not None:
        raise ValueError(f"dataset.subsets: {name} has no sub-folders; leave it out")
    if demands.crop is None and options.get("occlusion", "none") != "none":
        raise ValueError(
            f"dataset.occlusion={options['occlusion']}: covers the images that a network is "
            "given, and predictions= are made already; leave one of the two out"
        )
    if demands.crop is None and not kind.takes_predictions:
        others = [other for other, kind in TEST_SETS.items() if kind.takes_predictions]
        raise ValueError(f"predictions= are scored on {', '.join(others)}")


def open_test_set(
    name: str,
    options: Mapping,  # the fields of its configuration
    demands: Demands,
    *,
    data_dir: Path | str,
    truth_face: Face | None,
    no_face: str,
) -> TestSet:
    """The test set of that name; `truth_face` and `no_face` as `find_truth_face` has them.

    Raises:
        FileNotFoundError, ValueError: what it reads is missing or not as it should be, or as
            `require_test_set`.
    """
    require_test_set(name, options, demands)
    test_set = TEST_SETS[name].open(data_dir, options, demands, truth_face)
    return test_set.with_truth_face(truth_face, no_face) if test_set.has_fits else test_set


def find_truth_face(face_files: FaceFiles) -> tuple[Face | None, str]:
    """The face of a data set's fits, or None and why it is not there."""
    try:
        return face_files.load(), ""
    except FileNotFoundError as error:
        return None, f"the truth cannot be made from the fits: {error}"
