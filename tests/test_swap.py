"""`python -m prnet.swap` as a user types it."""

import numpy as np
import skimage.data
from PIL import Image

from tests.commands import run_commands


def test_all_faces_of_a_group_and_nothing_else(tmp_path):
    """The astronaut's own face into a picture of two of her: both change, a little, and no more."""
    astronaut = skimage.data.astronaut()
    group = np.concatenate([astronaut[:200, 120:330], astronaut[:200, 120:330, ::-1]], 1)
    Image.fromarray(astronaut).save(tmp_path / "her.png")
    Image.fromarray(group).save(tmp_path / "group.png")
    (said,) = run_commands(
        ["prnet.swap", "source=her.png", "target=group.png", "output=made/two.png", "faces=all"],
        cwd=tmp_path,
    )
    assert "2 faces swapped in made/two.png" in said
    made = np.asarray(Image.open(tmp_path / "made" / "two.png")).astype(int)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["two.png"]
    changed = (made != group).any(2)
    for half in (changed[:, :210], changed[:, 210:]):
        rows, columns = np.nonzero(half)
        assert 1000 < len(rows) < 0.25 * half.size
        assert np.ptp(rows) < 120
        assert np.ptp(columns) < 120
    assert np.abs(made - group)[changed].mean() < 15
