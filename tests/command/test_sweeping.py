"""`-m KEY=A,B`: an ablation, from its trainings to its table."""

import re

import pytest

from tests.commands import run_commands


@pytest.mark.slow
def test_a_failing_job_is_named_and_the_others_are_kept(tiny_data_dir, built_dir, tmp_path):
    """Two of four jobs cannot begin; the other two are scored, and stand in one table."""
    training = ["-m", "+experiment=prn,prn_weights_1110", "trainer.max_steps=0,1"]
    training += [f"data_dir={tiny_data_dir}", f"built={built_dir}", "model.network.width=2"]
    training += ["trainer.batch_size=2", "device=cpu", "validation_fraction=0.25"]
    training += ["trainer.recompute_batch_norm=0", "hydra.sweep.dir=sweep"]
    test = ["dataset=aflw2000", f"data_dir={tiny_data_dir}", "device=cpu", "runtime=torch"]
    trained, *scored, tables, compared = run_commands(
        ["prnet.train", *training],
        *(
            ["prnet.eval", f"checkpoint=sweep/{n}", f"report=sweep/{n}/report.json", *test]
            for n in (1, 3)
        ),
        ["prnet.tables", "paper=prn", "ours=[sweep/*/report.json]"],
        ["prnet.compare", "reports=[sweep/*/report.json]", "output=compared"],
        cwd=tmp_path,
        timeout=900,
    )
    assert trained.endswith("exit 1"), trained[-2000:]
    assert "Traceback" not in trained
    (last,) = re.findall(r"^failed: .*$", trained, re.MULTILINE)
    assert last.count("job ") == 2
    assert re.search(r"job 0 \(\+experiment=prn trainer.max_steps=0 .*job 2 \(", last)
    assert trained.count("trainer.max_steps: got 0, expected") == 2
    said = (tmp_path / "sweep" / "2" / "train.log").read_text()
    assert "trainer.max_steps: got 0, expected" in said
    made = sorted(path.parent.name for path in (tmp_path / "sweep").glob("*/best.pt"))
    assert made == ["1", "3"]
    for output in (*scored, tables, compared):
        assert output.endswith("exit 0"), output[-2000:]
    for experiment in ("prn", "prn_weights_1110"):
        assert re.search(rf"ours.*\b{experiment}\b|\b{experiment}\b.*ours", tables), tables[-3000:]
        assert experiment in (tmp_path / "compared" / "compare.md").read_text()
