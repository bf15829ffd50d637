"""What a command line may say: every key that is read, and no other."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from prnet.command.arguments import check_arguments, nearest_key
from prnet.entry import CONFIG_DIR, shipped_names

REFUSED = {
    ("train", "+bogus=1"): "bogus: unknown; nothing is called so",
    ("train", "+max_steps=2", "+bogus=1"): "max_steps: unknown; the nearest is trainer.max_steps",
    ("train", "+trainer.max_step=20"): "trainer.max_step: unknown; the nearest is trainer.max_st",
    ("train", "trainer.max_step=20"): "trainer.max_step: unknown; the nearest is trainer.max_steps",
    ("train", "+trainer={max_step:20}"): "trainer.max_step: unknown; the nearest is trainer.max_st",
    ("train", "++trainer.epohcs=2"): "the nearest is trainer.epochs",
    ("train", "lr=3"): "lr: unknown; the nearest is optimizer.learning_rate",
    ("train", "+model.network.widht=2"): "the nearest is",
    ("train", "loss=vdc", "loss.wing=1"): "loss.wing=1 is written +loss.wing=1",
    ("train", "+loss.wings=1"): "loss.wings: unknown",
    ("train", "dataset.world.accessories.hair.shrot=1"): "world.accessories.hair.short",
    ("train", "trainer.batch_size=abc"): "trainer.batch_size: got 'abc', expected a number",
    (
        "train",
        "trainer.channels_last=abc",
    ): "trainer.channels_last: got 'abc', expected true or false",
    ("train", "dataset=afw"): "dataset=afw: no such choice; the nearest is aflw; there are 300w_lp",
    ("train", "+experiment=sadrnett"): "the nearest is sadrnet;",
    ("train", "experiment=sadrnet"): "experiment=sadrnet is written +experiment=sadrnet",
    ("train", "+model=prn"): "+model=prn is written model=prn",
    ("train", "experiment=2dasl_stage2"): "is now +experiment=2dasl loss.stage=2",
    ("build", "+model=prn"): "model: unknown",
    ("build", "+experiment=prn"): "experiment: unknown",
    ("build", "dataset.subset=[AFW]"): "the nearest is dataset.subsets",
    ("eval", "protocol.crop.jiter=1"): "the nearest is protocol.crop.jitter",
    ("eval", "checkpiont=x"): "the nearest is checkpoint",
    ("reconstruct", "device=cpu (1)"): "cannot be read (HydraException while evaluating",
    ("tables", "paper"): "expected KEY=VALUE",
}
TAKEN = (
    ("train",),
    ("train", "+experiment=2dasl", "loss.stage=1", "trainer.max_steps=2", "stages.1.epochs=3"),
    ("train", "loss=vdc", "+loss.wing=1"),  # the constructor takes it
    ("train", "+experiment=2dasl", "loss.stage=both", "built=[a,b]", "init=default"),
    ("train", "hydra.run.dir=x", "hydra/job_logging=stdout", "~trainer.epochs"),
    ("build", "dataset=300w_lp_extra", "dataset.count=null"),
    ("compare", "+override.drop_worst=20"),  # an open mapping
    ("eval", "protocol=2dasl", "protocol.z_alignment=mean"),
    ("reconstruct", "input='photo (1).jpg'", "smoothing=false"),
)


@pytest.mark.parametrize("command", REFUSED, ids=" ".join)
def test_what_nothing_reads_is_refused_with_the_nearest_right_one(command):
    with pytest.raises(ValueError, match=re.escape(REFUSED[command])) as refused:
        check_arguments(command[0], command[1:])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", TAKEN, ids=" ".join)
def test_what_is_read_is_taken(command):
    check_arguments(command[0], command[1:])


def test_an_experiment_of_ones_own_may_have_helpers_and_no_slips(tmp_path):
    """Keys that a value refers to are helpers; others would be set in vain."""
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    text = "# @package _global_\ndefaults:\n  - override /loss: vdc\nrow: mine\nname: ${row}\n"
    words = ("train", ["+experiment=mine"])
    file.write_text(text + "loss:\n  wing: 1.0\ntrainer:\n  epochs: 3\n")
    check_arguments(*words, config_dir=str(tmp_path))
    for slip, said in {
        "trainer:\n  max_step: 3\n": "trainer.max_step: .*the nearest is trainer.max_steps",
        "bogus: 1\n": "bogus: a file of the configuration sets it and nothing reads it",
        "loss:\n  wings: 1.0\n": "loss.wings: ",
    }.items():
        file.write_text(text + slip)
        with pytest.raises(ValueError, match=said):
            check_arguments(*words, config_dir=str(tmp_path))


@pytest.mark.parametrize("name", shipped_names("experiment"))
def test_shipped_experiments_change_keys_that_there_are(name):
    """Beside values that exist, only helpers that another value refers to."""
    text = Path(CONFIG_DIR, "experiment", f"{name}.yaml").read_text()
    own = OmegaConf.to_container(OmegaConf.create(text))
    known = OmegaConf.load(Path(CONFIG_DIR, "train.yaml"))
    groups = {"model", "loss", "augment", "dataset", "protocol", "face", "scheduler", "defaults"}
    helpers = own.keys() - known.keys() - groups
    everything = "".join(p.read_text() for p in Path(CONFIG_DIR, "experiment").glob("*.yaml"))
    assert all(re.search(rf"\$\{{[^}}]*\b{key}\b", everything) for key in helpers)
    assert own.get("trainer", {}).keys() <= known.trainer.keys()
    assert own.get("optimizer", {}).keys() <= known.optimizer.keys()


def test_the_nearest_key_is_of_the_same_name_first():
    known = ["a.width", "b.height", "b.width_px", "c.learning_rate"]
    assert nearest_key("b.width", known) == "a.width"
    assert nearest_key("heigth", known) == "b.height"
    assert nearest_key("lr", known) == "c.learning_rate"
    assert nearest_key("zzz", known) is None
