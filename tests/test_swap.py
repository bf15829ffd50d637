"""`python -m prnet.swap` as a user types it."""

import numpy as np
import skimage.data
from PIL import Image

from tests.commands import run_commands


def test_all_faces_of_a_group_and_nothing_else(tmp_path):
    """The astronaut's own face into a picture of two of her: both change, a little, and no more."""
    astronaut = skimage.data.astronaut()
    group = np.concatenate([astronaut[:200, 120:330], astronaut[:200, 120:330, ::-1]], 1)
    folder = tmp_path / "Bilder (2024) ä=1,#"  # names need no quotes but the shell's
    folder.mkdir()
    Image.fromarray(astronaut).save(folder / "it's her.png")
    Image.fromarray(group).save(tmp_path / "日本.png")
    source, output = f"source={folder.name}/it's her.png", "output=2024/a,b [2].png"
    (said,) = run_commands(
        ["prnet.swap", source, "target=日本.png", output, "faces=all"], cwd=tmp_path
    )
    assert "2 faces swapped in 2024/a,b [2].png" in said
    made = np.asarray(Image.open(tmp_path / "2024" / "a,b [2].png")).astype(int)
    assert [path.name for path in (tmp_path / "2024").iterdir()] == ["a,b [2].png"]
    changed = (made != group).any(2)
    for half in (changed[:, :210], changed[:, 210:]):
        rows, columns = np.nonzero(half)
        assert 1000 < len(rows) < 0.25 * half.size
        assert np.ptp(rows) < 120
        assert np.ptp(columns) < 120
    assert np.abs(made - group)[changed].mean() < 15
