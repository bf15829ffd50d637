"""The shipped weights with their face, and the astronaut."""

import numpy as np
import pytest
import skimage.data

from prnet.reconstruction.loading import load
from prnet.reconstruction.reconstructor import FaceReconstruction, Reconstructor


@pytest.fixture(scope="session")
def reconstructor() -> Reconstructor:
    return load()


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    picture = skimage.data.astronaut()
    picture.setflags(write=False)
    return picture


@pytest.fixture(scope="session")
def her_face(reconstructor, astronaut) -> FaceReconstruction:
    (face,) = reconstructor(astronaut)
    return face
