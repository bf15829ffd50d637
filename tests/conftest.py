"""What several test files share."""

from pathlib import Path

import pytest
import torch

from prnet.faces.bfm import load_bfm
from prnet.faces.face import Face
from tests.tiny import write_tiny_data_dir

# More threads than cores spin at every barrier.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole data folder, read only: see `tests.tiny.write_tiny_data_dir`."""
    return write_tiny_data_dir(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def face(tiny_data_dir: Path) -> Face:
    """The tiny face as the loader reads it."""
    return load_bfm(tiny_data_dir / "BFM")
