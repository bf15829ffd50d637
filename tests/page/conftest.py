"""The astronaut twice in one photo, large and small, looked at once."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from prnet.datasets.pictures import write_picture
from prnet.page.studio import Studio, Visit


@pytest.fixture(scope="session")
def two_faces(tmp_path_factory) -> Path:
    large = skimage.data.astronaut()
    small = cv2.resize(large[:, ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    picture = np.zeros((512, 768, 3), np.uint8)
    picture[:, :512], picture[:256, 512:] = large, small
    path = tmp_path_factory.mktemp("photos") / "two.png"
    write_picture(path, picture)
    return path


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Studio:
    return Studio(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def visit(studio, two_faces) -> Visit:
    found = studio.look(two_faces, studio.weights[0])
    for face in found.faces:
        face.picture.setflags(write=False)
    return found
