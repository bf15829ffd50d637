"""What several test files share.

pytest-xdist's first process reads this file too, before it starts the others, and runs no test. So
the fixtures import what they need, not the file: that is seconds in which nobody works.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from prnet.faces.face import Face

# More threads than cores spin at every barrier; the commands that tests start take it over.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def tiny_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole data folder, read only: see `tests.tiny.write_tiny_data_dir`."""
    from tests.tiny import write_tiny_data_dir

    return write_tiny_data_dir(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def face(tiny_data_dir: Path) -> "Face":
    """The tiny face as the loader reads it."""
    from prnet.faces.bfm import load_bfm

    return load_bfm(tiny_data_dir / "BFM")


@pytest.fixture(scope="session")
def built_dir(tiny_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300W-LP of `tiny_data_dir` as a built set, read only."""
    from prnet.building.archives import BuildOptions, build_archive
    from prnet.faces.loading import FaceFiles

    output = tmp_path_factory.mktemp("built") / "300w_lp"
    build_archive(
        None,
        data_dir=tiny_data_dir,
        output=output,
        face_files=FaceFiles("bfm", str(tiny_data_dir / "BFM"), None),
        options=BuildOptions("300w_lp"),
        workers=0,
    )
    return output
