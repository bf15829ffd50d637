"""`python -m prnet.show` as a user types it."""

import cv2

from tests.commands import run_commands


def test_a_sheet_of_each_archive(tiny_data_dir, tmp_path):
    """`dataset=` and `face=` choose as in every other command."""
    data = f"data_dir={tiny_data_dir}"
    said = run_commands(
        ["prnet.show", "dataset=300w_lp", "dataset.subsets=[AFW]", data, "output=a.png", "count=2"],
        ["prnet.show", "dataset=aflw2000", data, "output=b.png", "count=3"],
        ["prnet.show", "dataset=aflw2000", "dataset.subsets=[AFW]", data, "output=c.png"],
        ["prnet.show", "dataset=florence", data, "output=c.png"],
        cwd=tmp_path,
    )
    for text, name in zip(said, "ab", strict=False):
        assert text.endswith(f"written: {name}.png\nexit 0")
    assert "AFLW2000-3D has no sub-folders" in said[2]
    assert "dataset: got 'florence', expected one of synthetic, 300w_lp, aflw2000" in said[3]
    two, three = (cv2.imread(str(tmp_path / f"{name}.png")) for name in "ab")
    assert two.std() > 5
    assert three.shape[0] * three.shape[1] > two.shape[0] * two.shape[1]
