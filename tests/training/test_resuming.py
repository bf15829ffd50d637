"""What `resume=` takes: the run that was begun, with all its settings, and no other."""

import pytest

from prnet.checkpoint import load_checkpoint, save_checkpoint
from prnet.train import read_settings, run
from tests.plans import assert_equal_states, configuration

STEPS = 4
OTHER_SETTINGS = {
    "optimizer.name=sgd": "optimizer.name was adam and is sgd",
    "optimizer.learning_rate=1e-5": "optimizer.learning_rate was 0.0001 and is 1e-05",
    "optimizer.clip_from=1": "optimizer.clip_from was 0 and is 1",
    "optimizer.clip_norm=1": "optimizer.clip_norm was None and is 1",
    "optimizer.weight_decay=0.1": "optimizer.weight_decay was 0.0 and is 0.1",
    "loss.weights=[1,1,1,0]": r"loss.weights was \[16, 4, 3, 0\] and is \[1, 1, 1, 0\]",
    "augment.rotation_deg=10": "augment.rotation_deg was 45.0 and is 10",
    "scheduler.every=3": "scheduler.every was 5 and is 3",
    "scheduler=cosine": "scheduler.class was step_decay and is cosine_decay",
    "seed=1": "seed was 0 and is 1",
    "trainer.precision=bf16": "trainer.precision was fp32 and is bf16",
    "trainer.average=0.9": "trainer.average was 0.0 and is 0.9",
    "trainer.batch_size=1": "batch_size was 2 and is 1",
    "validation_fraction=0.25": r"data.sha256 was \w+ and is \w+, samples was 8 and is",
}


def settings(tiny_data_dir, built_dir, *overrides: str):
    return read_settings(
        configuration(
            "+experiment=prn",
            f"data_dir={tiny_data_dir}",
            f"built={built_dir}",
            "model.network.width=2",
            "trainer.batch_size=2",
            "trainer.save_every=2",
            "trainer.validate_every=100",
            "validation_fraction=0",
            "device=cpu",
            f"trainer.max_steps={STEPS}",
            *overrides,
        )
    )


@pytest.fixture(scope="module")
def half(tiny_data_dir, built_dir, tmp_path_factory):
    """last.pt of a run that was stopped half-way: its schedule does not look at the end."""
    folder = tmp_path_factory.mktemp("half")
    run(settings(tiny_data_dir, built_dir, "trainer.max_steps=2"), folder)
    return folder / "last.pt"


@pytest.mark.parametrize("change", OTHER_SETTINGS)
def test_another_setting_is_named_and_refused(change, half, tiny_data_dir, built_dir, tmp_path):
    with pytest.raises(ValueError, match=rf"^resume: .*{OTHER_SETTINGS[change]}.* init=$"):
        run(settings(tiny_data_dir, built_dir, f"resume={half}", change), tmp_path)


def test_a_longer_run_is_gone_on_with_and_a_finished_one_says_so(
    half, tiny_data_dir, built_dir, tmp_path, caplog
):
    """PRN's schedule counts epochs from the start, so that 2 steps and 2 more are 4."""
    run(settings(tiny_data_dir, built_dir), tmp_path / "whole")
    run(settings(tiny_data_dir, built_dir, f"resume={half}"), tmp_path / "resumed")
    whole, resumed = (load_checkpoint(tmp_path / k / "last.pt") for k in ("whole", "resumed"))
    assert_equal_states(whole, resumed)
    assert "finished" not in caplog.text
    last = tmp_path / "resumed" / "last.pt"
    run(settings(tiny_data_dir, built_dir, f"resume={last}"), tmp_path / "again")
    assert f"resume: that run is finished, {STEPS} of {STEPS} steps are made" in caplog.text
    best = load_checkpoint(tmp_path / "again" / "best.pt")
    assert_equal_states(best["weights"], whole["weights"])


def test_a_schedule_that_spans_the_run_holds_it_to_its_length(tiny_data_dir, built_dir, tmp_path):
    cosine = "scheduler=cosine"
    run(settings(tiny_data_dir, built_dir, cosine, "trainer.max_steps=2"), tmp_path)
    with pytest.raises(ValueError, match=r"was to have 2 steps and this one 4, and the scheduler"):
        run(
            settings(tiny_data_dir, built_dir, cosine, f"resume={tmp_path / 'last.pt'}"),
            tmp_path / "b",
        )


@pytest.mark.parametrize("lacking", ["step", "order", "optimizer", "best"])
def test_a_state_that_lacks_something_is_named(lacking, half, tiny_data_dir, built_dir, tmp_path):
    state = load_checkpoint(half)
    del state["training"][lacking]
    save_checkpoint(tmp_path / "last.pt", state)
    with pytest.raises(ValueError, match=rf"last\.pt: training: no '{lacking}', expected"):
        run(settings(tiny_data_dir, built_dir, f"resume={tmp_path / 'last.pt'}"), tmp_path)
