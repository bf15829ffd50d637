"""2DASL's experiments: every row of its tables and both stages, resuming, scoring."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.building.landmarks_only import build_landmarks
from prnet.checkpoint import save_checkpoint
from prnet.command.running import run_verb
from prnet.datasets.augment import AugmentRule
from prnet.datasets.given_landmarks import GivenLandmarks
from prnet.datasets.pictures import CropRule, collate_fits
from prnet.datasets.training_sets import TrainingSets
from prnet.datasets.warp import make_sample
from prnet.entry import OLD_SPELLINGS
from prnet.geometry.position_map import PositionMapDecoder
from prnet.train import next_command, read_settings, run
from prnet.training.statistics import parameter_statistics
from tests.evaluations import run as evaluated
from tests.plans import EXPERIMENTS, assert_equal_states, configuration, train_as
from tests.tiny import NUM_EXP, NUM_SHAPE

SMALL = {"num_shape": NUM_SHAPE, "num_exp": NUM_EXP, "backbone": "mobilenet_v2", "input_side": 64}
GIVEN = "2dasl_given"  # a row of no table
ROWS = [name for name in EXPERIMENTS if name.startswith("2dasl") and name != GIVEN]
# Stage -> epochs, what the name ends in, whether the network sees a second pass.
STAGES = {1: (2, "_stage1", True), 2: (8, "", False), "both": (10, "", True)}


@pytest.fixture(scope="module")
def built_dirs(built_dir, tiny_data_dir, tmp_path_factory) -> list[Path]:
    """A set with fits and one with landmarks alone."""
    landmarks_dir = tmp_path_factory.mktemp("two_dasl") / "landmarks"
    build_landmarks(tiny_data_dir / "AFLW2000", landmarks_dir, crop=CropRule())
    return [built_dir, landmarks_dir]


def small(name: str, **changes):
    """An experiment with a network for the tiny face."""
    network = {f"model__network__{key}": value for key, value in SMALL.items()}
    return configuration(f"+experiment={name}", **network, **changes)


def short_run(cfg, built_dirs, face, run_dir, *, steps: int, resume: dict | None = None) -> dict:
    """Steps of an experiment on photos of both kinds; its last checkpoint."""
    data = TrainingSets(
        built_dirs,
        validation_fraction=0.0,
        face=face.describe(),
        hide_fits=0.3,
        landmark_images=None if cfg.landmark_images is None else 4,
    )
    torch.manual_seed(0)
    model, loss_fn = instantiate(cfg.model.network), instantiate(cfg.loss)
    model.set_face(face)
    loss_fn.set_face(face)
    if resume is None:
        rule = AugmentRule(**OmegaConf.to_container(cfg.augment))
        model.set_statistics(*parameter_statistics(data, model, face, rule))
    else:
        model.load_state_dict(resume["weights"])
    loss_fn.set_statistics(model.parameter_mean, model.parameter_std)
    settings = {"batch_size": 4, "max_steps": steps, "save_every": 2}
    return train_as(cfg, model, loss_fn, data, face, run_dir, resume=resume, **settings)


def test_rows_of_tables_2_and_3_all_have_their_experiments():
    variants = ["2dasl", "2dasl_base", "2dasl_cyc", "2dasl_sc"]
    names = [name + mask for name, mask in itertools.product(variants, ("", "_no_mask"))]
    names += [f"2dasl_{count}" for count in (77228, 115126, 175534)]
    assert set(ROWS) == set(names)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ROWS)
def test_experiment_is_its_row_at_every_stage(name, stage):
    cfg = small(name, loss__stage=stage)
    epochs, suffix, second_pass = STAGES[stage]
    assert cfg.name == name + suffix
    assert cfg.trainer.epochs == epochs
    cycle = not ("_base" in name or "_sc" in name)
    critic = not ("_base" in name or "_cyc" in name)
    assert cfg.model.network.landmark_map == ("own" if cycle else "empty")
    assert cfg.model.network.cycle == (cycle and second_pass)
    assert (cfg.loss.cycle, cfg.loss.landmarks_3d) == ((1.0, 0.005) if cycle else (0, 0))
    assert cfg.loss.self_critic == (0.005 if critic else 0)
    assert cfg.loss.landmarks_2d == 0.005
    assert cfg.loss.weighted_points == ("no_mask" not in name)
    assert cfg.loss.stage_1_epochs == 2
    clipped = {1: (None, 0), 2: (10, 0), "both": (10, 2)}  # stage 2 alone
    assert (cfg.optimizer.clip_norm, cfg.optimizer.clip_from) == clipped[stage]
    count = next((int(part) for part in name.split("_") if part.isdigit()), None)
    assert cfg.landmark_images == count


def test_a_stage_goes_with_its_loss(face):
    """Stage 1 and 2 for all of a run, both from the second epoch on."""
    for stage, expected in ((1, [False, False]), (2, [True, True]), ("both", [False, True])):
        loss_fn = instantiate(small("2dasl", loss__stage=stage).loss)
        found = []
        for epoch in (0.0, 2.0):
            loss_fn.start_step(epoch)
            found.append(loss_fn.is_finetuning)
        assert found == expected
        assert ("cycle_parameters" in loss_fn.needs) == (stage != 2)


def test_names_of_old_have_their_new_spelling():
    """Every experiment of one stage is an option of its row, and no old name is one of today."""
    old = {key.removeprefix("experiment=") for key in OLD_SPELLINGS if "experiment=" in key}
    assert old == {f"{name}_stage1" for name in ROWS} | {"2dasl_stage2"}
    assert not old & set(EXPERIMENTS)
    for name in ROWS:
        assert OLD_SPELLINGS[f"experiment={name}_stage1"] == f"+experiment={name} loss.stage=1"


@pytest.mark.parametrize(
    ("name", "stage"), [*((name, "both") for name in (*ROWS, GIVEN)), ("2dasl", 2)]
)
def test_experiment_trains_on_photos_of_both_kinds(name, stage, built_dirs, face, tmp_path):
    cfg = small(name, loss__stage=stage)
    trained = short_run(cfg, built_dirs, face, tmp_path, steps=1)
    assert trained["training"]["step"] == 1
    assert bool(trained["training"]["loss"]) == (cfg.loss.self_critic > 0)
    assert all(v.isfinite().all() for v in trained["weights"].values() if v.is_floating_point())


def test_maps_are_always_given_from_a_file(tiny_data_dir, built_dir, face, tmp_path):
    """Landmarks of a folder, here 3 px to the right of the fits', are those of every training
    sample and of the validation; another file is another run."""
    folder = tmp_path / "detected"
    found = GivenLandmarks(tiny_data_dir / "300W_LP").by_name
    for name, points in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / f"{name}.txt", points[:, :2] + [3, 0])
    options = {"validation_fraction": 0.3, "face": face.describe()}
    plain, given = (TrainingSets([built_dir], **options, landmarks=f) for f in (None, folder))
    decoder = PositionMapDecoder(face.morphable_model, face.uv, landmark_index=face.landmark_index)
    for index in range(len(plain)):
        batch = collate_fits([given.concatenated()[index]])
        expected = make_sample(
            collate_fits([plain.concatenated()[index]]), decoder, targets={"landmarks"}
        ).landmarks
        part = given.training[0]
        size = part.built.records[part.indices[index]]["crop_size"]
        expected = expected + torch.tensor([3 * 255 / size, 0]).float()
        assert batch.has_fit is None
        torch.testing.assert_close(batch.landmarks, expected, atol=2e-2, rtol=0)
    assert given.describe() != plain.describe()

    words = [f"+experiment={GIVEN}", f"data_dir={tiny_data_dir}", f"built={built_dir}"]
    words += [f"model.network.{key}={value}" for key, value in SMALL.items()]
    words += ["device=cpu", "trainer.batch_size=2", "trainer.max_steps=1", "loss.stage=1"]
    words += ["protocol.metrics=[nme_68_2d]", "validation_fraction=0.3"]
    with pytest.raises(ValueError, match=r"landmark_map=given: give landmarks=FILE"):
        read_settings(configuration(*words))
    settings = read_settings(configuration(*words, f"landmarks={folder}"))
    seen = []
    map_of = settings.network.map_of
    settings.network.map_of = lambda points, visible=None: seen.append(points) or map_of(points)
    ending = run(settings, tmp_path)
    assert np.isfinite(ending.best)
    assert "landmarks=FILE" in next_command(settings, tmp_path / "best.pt", words)
    # The step's map and its cycle's, then the validation's and its picture's: none of its own.
    held_out = given.validation[0]
    names = [held_out[index].name for index in range(len(held_out))]
    assert [len(points) for points in seen[:2]] == [2, 2]
    assert sum(map(len, seen[2:])) == len(names) + min(4, len(names))


def test_papers_values():
    """Section 4.1: SGD from 5e-5, critic's Adam 1e-4, batch 32; the weights of the losses."""
    cfg = configuration("+experiment=2dasl")
    assert (cfg.optimizer.name, cfg.optimizer.learning_rate) == ("sgd", 5e-5)
    assert cfg.loss.critic_learning_rate == 1e-4
    assert cfg.trainer.batch_size == 32
    assert cfg.loss.supervision == "wpdc"
    schedule = instantiate(cfg.scheduler)
    rates = np.array([schedule(epoch, 10) for epoch in range(6)])
    np.testing.assert_allclose(rates[1:] / rates[:-1], rates[1])
    assert rates[1] < 1


def test_resumed_run_is_bit_equal_with_its_critic(built_dirs, face, tmp_path):
    """Weights, momenta, critic and the critic's Adam of 4 steps = 2 steps, stop, 2 steps, across
    the end of an epoch."""
    cfg = small("2dasl", loss__stage=1, loss__critic_learning_rate=1e-2)
    whole = short_run(cfg, built_dirs, face, tmp_path / "whole", steps=4)
    half = short_run(cfg, built_dirs, face, tmp_path / "half", steps=2)
    resumed = short_run(cfg, built_dirs, face, tmp_path / "resumed", steps=4, resume=half)
    assert whole["training"]["loss"]["critic_optimizer"]["state"][0]["step"] == 4
    assert_equal_states(whole, resumed)
    moved = half["training"]["loss"]["critic"]["layers.0.weight"]
    assert not torch.equal(moved, whole["training"]["loss"]["critic"]["layers.0.weight"])
    plain = small("2dasl_cyc", loss__stage=1)
    with pytest.raises(ValueError, match=r"had a critic, this loss has none"):
        short_run(plain, built_dirs, face, tmp_path / "other", steps=4, resume=half)


def test_evaluation_says_whose_landmarks(tiny_data_dir, built_dirs, face, tmp_path):
    """The three sources score differently, and reports and errors name them."""
    cfg = small("2dasl", loss__stage=1)
    network = OmegaConf.to_container(cfg.model.network, resolve=True)
    del network["_target_"]
    trained = short_run(cfg, built_dirs, face, tmp_path, steps=1)
    header = {"model": {"name": "2dasl", **network}, "face": face.describe()}
    save_checkpoint(tmp_path / "best.pt", {**header, "weights": trained["weights"]})

    def score(*words: str) -> dict:
        settings = ["protocol.metrics=[nme_68_2d]", f"checkpoint={tmp_path / 'best.pt'}"]
        return evaluated(tiny_data_dir, tmp_path, *settings, *words)

    given = f"landmarks={tiny_data_dir / 'AFLW2000'}"
    reports = [score(), score(given), score("landmark_map=empty")]
    assert [report["landmark_map"] for report in reports] == ["own", "given", "empty"]
    assert "sees the image alone" in (tmp_path / "report.md").read_text()
    errors = {report["metrics"]["nme_68_2d"]["mean"] for report in reports}
    assert len(errors) == 3
    with pytest.raises(ValueError, match="landmarks=FILE"):
        score("landmark_map=given")
    with pytest.raises(ValueError, match=r"landmark_map: got 'fan'"):
        score("landmark_map=fan")


def test_fits_alone_are_refused_photos_without_one(tiny_data_dir, built_dirs, tmp_path):
    """A loss that knows no landmarks, and sets of both kinds."""
    settings = ["loss=wpdc", "dataset=300w_lp", "model=2dasl", "device=cpu"]
    settings += [f"data_dir={tiny_data_dir}", f"built=[{built_dirs[0]},{built_dirs[1]}]"]
    settings += [f"model.network.{key}={value}" for key, value in SMALL.items()]
    with pytest.raises(ValueError, match="6 training samples have none; choose loss=2dasl"):
        run(read_settings(configuration(*settings)), tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("+experiment=2dasl_stage1", r"\+experiment=2dasl loss\.stage=1"),
        ("loss=prn_1110", r"loss=prn loss\.weights=\[1,1,1,0\]"),
        ("loss.finetune_from=3", r"loss\.stage=both loss\.stage_1_epochs=EPOCHS"),
    ],
)
def test_old_spellings_are_refused_with_the_new_one(old, new, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "data_dir=nowhere", old])
    with pytest.raises(SystemExit, match=f"error: {re.escape(old)} is now {new}$"):
        run_verb("train")
