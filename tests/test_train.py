"""The training loop: resume, stopping, refusals, several processes, and the shipped experiments."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.building.archives import BuildOptions, build_archive
from prnet.checkpoint import load_checkpoint
from prnet.datasets.augment import AugmentRule
from prnet.datasets.built import BuiltSet, held_out
from prnet.datasets.evaluation import HeldOut
from prnet.datasets.training_sets import TrainingSets
from prnet.entry import CONFIG_DIR, in_one_line, one_line_errors
from prnet.evaluation.protocol import Protocol
from prnet.faces.bfm import load_bfm
from prnet.faces.loading import FaceFiles
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.prn import PRNLoss
from prnet.models.compact import Compact
from prnet.models.loading import NETWORKS, load_model
from prnet.models.prn import PRN
from prnet.train import next_command, read_settings
from prnet.train import run as train_command
from prnet.training import loop
from prnet.training.batch_norm import recompute_batch_norm
from prnet.training.loop import train
from prnet.training.matching import mismatch
from prnet.training.run_files import keep_best
from prnet.training.schedule import cosine_decay, step_decay
from prnet.training.stop import StopSignal
from tests.commands import run_commands
from tests.evaluations import score_network
from tests.plans import CPU, EXPERIMENTS, assert_equal_states, configuration, plan
from tests.small_face import with_face

HEADER = {"model": {"name": "prn", "width": 2}, "face": {"name": "bfm"}}


def halving(epoch: float, total_epochs: float) -> float:
    return step_decay(epoch, total_epochs, factor=0.5, every=1)


def run(
    built_dir,
    face,
    run_dir,
    *,
    resume=None,
    loss_fn=None,
    model=None,
    schedule=halving,
    **changes,
):
    """One short run of a tiny network; returns its last checkpoint."""
    run_dir.mkdir(parents=True, exist_ok=True)
    sets = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    if model is None:
        torch.manual_seed(0)
        model = Compact(input_side=32, width=2, rank=8, grid=16)
    if resume is not None:
        model.load_state_dict(resume["weights"])
    train(
        model,
        loss_fn or with_face(PRNLoss(), face),
        sets,
        PositionMapDecoder(face.morphable_model, face.uv),
        plan=plan(**changes),
        rule=AugmentRule(mirror=0.5),
        schedule=schedule,
        processes=CPU,
        run_dir=run_dir,
        header=HEADER,
        validate=None,
        resume=resume and resume["training"],
    )
    return load_checkpoint(run_dir / "last.pt")


def test_stopped_and_resumed_run_is_bit_equal(built_dir, face, tmp_path, monkeypatch):
    """Weights, BN statistics and Adam's moments of 6 steps = 3 steps, SIGTERM, 3 steps."""
    whole = run(built_dir, face, tmp_path / "whole", max_steps=6)

    agreed = StopSignal.agreed

    def stop_at_3(self, step, processes):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return agreed(self, step, processes)

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "agreed", stop_at_3)
        stopped = run(built_dir, face, tmp_path / "cut", max_steps=6)
    assert stopped["training"]["step"] == 3
    resumed = run(built_dir, face, tmp_path / "resumed", resume=stopped, max_steps=6)
    assert resumed["training"]["step"] == 6
    assert_equal_states(whole, resumed)


def test_a_loader_that_dies_loses_no_step(built_dir, face, tmp_path):
    """The state is saved between two steps, and what is resumed from it is the whole run's."""
    made = []
    others = multiprocessing.active_children()  # of tests before

    class Killing(PRNLoss):
        def forward(self, prediction, sample):
            made.append(1)
            if len(made) == 2:
                (own,) = set(multiprocessing.active_children()) - set(others)
                own.kill()
            return super().forward(prediction, sample)

    settings = {"save_every": 1000, "max_steps": 50}
    killing = with_face(Killing(), face)
    with pytest.raises(RuntimeError, match="DataLoader worker") as died:
        run(built_dir, face, tmp_path / "cut", loss_fn=killing, num_workers=1, **settings)
    assert "num_workers=N" in in_one_line(died.value)
    stopped = load_checkpoint(tmp_path / "cut" / "last.pt")
    assert 2 <= stopped["training"]["step"] == len(made) < 50
    steps = len(made) + 2
    settings["max_steps"] = steps
    resumed = run(built_dir, face, tmp_path / "rest", resume=stopped, **settings)
    assert_equal_states(run(built_dir, face, tmp_path / "whole", **settings), resumed)


def test_a_signal_to_all_processes_saves_the_step(built_dir, face, tmp_path):
    """Ctrl-C and a batch system's SIGTERM reach the loader's processes too, which go on."""
    alive = []
    others = multiprocessing.active_children()  # of tests before

    class Signalling(PRNLoss):
        def forward(self, prediction, sample):
            (worker,) = set(multiprocessing.active_children()) - set(others)
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(worker.pid, number)
            os.kill(os.getpid(), signal.SIGTERM)
            worker.join(0.5)
            alive.append(worker.is_alive())
            return super().forward(prediction, sample)

    loss_fn = with_face(Signalling(), face)
    last = run(built_dir, face, tmp_path, loss_fn=loss_fn, num_workers=1, save_every=1000)
    assert (last["training"]["step"], alive) == (1, [True])


@pytest.mark.parametrize(
    "value",
    [
        "trainer.max_steps=0",
        "trainer.epochs=0",
        "trainer.batch_size=-1",
        "trainer.save_every=0",
        "trainer.log_every=0",
        "trainer.validate_every=0",
        "trainer.num_workers=-1",
        "trainer.average=1.0",
        "optimizer.learning_rate=-1",
    ],
)
def test_numbers_that_train_nothing_are_refused(value):
    key, _, number = value.partition("=")
    with pytest.raises(ValueError, match=rf"{key}: got {number}"):
        read_settings(configuration(value))


def test_the_next_command_scores_what_was_trained():
    settings = read_settings(configuration())
    words = ["dataset.held_out=2", "dataset.size=48", "loss=wing", "device=cpu", "trainer.epochs=2"]
    said = next_command(settings, Path("outputs/compact/now/best.pt"), words)
    kept = "checkpoint=outputs/compact/now/best.pt dataset.held_out=2 device=cpu"
    assert said == f"python -m prnet.eval {kept}"
    sets = settings._replace(stream=None)
    said = next_command(sets, Path("a b/best.pt"), ["data_dir=there", "dataset.subsets=[AFW]"])
    expected = "'checkpoint=a b/best.pt' dataset=aflw2000 data_dir=there"
    assert said == f"python -m prnet.eval {expected}"
    # Photographs have the BFM's fits, whatever was learned from; a frozen world lies elsewhere.
    said = next_command(sets, Path("best.pt"), ["face=embedded", "face.bfm_dir=x"])
    assert said.endswith("checkpoint=best.pt dataset=aflw2000 face.bfm_dir=x")
    said = next_command(sets, Path("best.pt"), ["face=embedded", "data_dir=world"])
    assert said.endswith("dataset=aflw2000 face=embedded data_dir=world")


def test_training_lowers_the_loss(built_dir, face, tmp_path):
    values = []

    class Recording(PRNLoss):
        def forward(self, prediction, sample):
            losses = super().forward(prediction, sample)
            values.append(float(losses["position_map"].detach()))
            return losses

    run(
        built_dir,
        face,
        tmp_path,
        loss_fn=with_face(Recording(), face),
        schedule=lambda epoch, total_epochs: 1.0,
        max_steps=16,
        learning_rate=3e-3,
        save_every=100,
    )
    assert len(values) == 16
    assert sum(values[-4:]) / 4 < 0.85 * values[0]


def test_a_long_gradient_is_shortened(built_dir, face, tmp_path):
    """Plain SGD moves the weights by the rate times the norm, or by the rate times `clip_norm`, in
    the same direction; a norm that is never reached, or is for later epochs, changes nothing."""
    moved = []
    for clip_norm, clip_from in ((None, 0), (1e9, 0), (1e-3, 0.5), (1e-3, 0)):
        torch.manual_seed(0)
        model = Compact(input_side=32, width=2, rank=8, grid=16)
        before = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
        settings = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "max_steps": 1}
        settings |= {"clip_norm": clip_norm, "clip_from": clip_from}
        run(built_dir, face, tmp_path, model=model, **settings)
        after = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
        moved.append(after - before)
    free, unreached, later, clipped = moved
    assert torch.equal(free, unreached)
    assert torch.equal(free, later)
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert torch.cosine_similarity(free, clipped, 0).item() == pytest.approx(1, abs=1e-4)
    assert free.norm() > 1e-2


def test_rate_of_a_step_is_that_of_the_epochs_done_before_it(built_dir, face, tmp_path):
    """The first step has the schedule's start, and the loss is told the same time."""
    asked, told = [], []

    def rule(epoch: float, total_epochs: float) -> float:
        asked.append((epoch, total_epochs))
        return 0.0 if epoch < 1 else 1.0

    class Listening(PRNLoss):
        def start_step(self, epoch: float) -> None:
            told.append(epoch)

    model = Compact(input_side=32, width=2, rank=8, grid=16)
    before = {name: value.clone() for name, value in model.named_parameters()}
    steps = len(BuiltSet(built_dir)) // 2
    settings = {"model": model, "schedule": rule, "loss_fn": with_face(Listening(), face)}
    run(built_dir, face, tmp_path, **settings, max_steps=steps)
    assert asked == [(step / steps, 1.0) for step in range(steps)]
    assert told == [epoch for epoch, _ in asked]
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_not_finite_loss_stops_and_keeps_the_last_good_state(built_dir, face, tmp_path):
    class BreaksAtFourth(PRNLoss):
        calls = 0

        def forward(self, prediction, sample):
            self.calls += 1
            losses = super().forward(prediction, sample)
            factor = float("nan") if self.calls == 4 else 1.0
            return {name: value * factor for name, value in losses.items()}

    with pytest.raises(FloatingPointError, match=r"step 4.*position_map.*nan.*last.pt"):
        run(built_dir, face, tmp_path, loss_fn=with_face(BreaksAtFourth(), face), max_steps=9)
    kept = load_checkpoint(tmp_path / "last.pt")
    assert kept["training"]["step"] == 2
    assert all(v.isfinite().all() for v in kept["weights"].values() if v.is_floating_point())


def test_resume_with_other_batches_is_refused(built_dir, face, tmp_path):
    stopped = run(built_dir, face, tmp_path / "a", max_steps=2)
    with pytest.raises(ValueError, match="batch_size was 2 and is 3"):
        run(built_dir, face, tmp_path / "b", resume=stopped, batch_size=3)
    with pytest.raises(ValueError, match="seed"):
        run(built_dir, face, tmp_path / "c", resume=stopped, seed=4)


def test_batch_norm_statistics_are_recomputed(built_dir, face, tmp_path, monkeypatch, capsys):
    """After a short run they are those of the data, not near their start, variance 1. A bar says so
    before the first batch, and how many there will be."""
    weights, said = [], []

    def heard(*arguments: object) -> int:
        begun = capsys.readouterr().err
        said.append((begun, recompute_batch_norm(*arguments)))
        return said[-1][1]

    monkeypatch.setattr(loop, "recompute_batch_norm", heard)
    for name, batches in (("stale", 0), ("fresh", 99)):
        torch.manual_seed(0)
        settings = {"model": PRN(width=2), "recompute_batch_norm": batches}
        weights.append(run(built_dir, face, tmp_path / name, **settings)["weights"])
    stale, fresh = weights
    assert said
    for begun, batches in said:
        assert re.search(rf"batch-norm statistics:   0%\|.*\| 0/{batches} ", begun)
    name = "encoder.0.norm.running_var"
    assert torch.equal(stale["encoder.0.conv.weight"], fresh["encoder.0.conv.weight"])
    assert (stale[name] - 1).abs().max() < 0.05
    assert (fresh[name] - stale[name]).abs().max() > 0.05


def test_bfloat16_and_compile_flags_reach_the_loop(built_dir, face, tmp_path):
    half = run(built_dir, face, tmp_path / "half", precision="bf16", max_steps=2)
    full = run(built_dir, face, tmp_path / "full", max_steps=2)
    weight = "encoder.0.weight"
    assert half["weights"][weight].dtype == torch.float32
    assert not torch.equal(half["weights"][weight], full["weights"][weight])


def test_schedules():
    halving = [step_decay(epoch, 30, factor=0.5, every=5) for epoch in (0, 4.99, 5, 14, 29)]
    assert halving == [1, 1, 0.5, 0.25, 0.5**5]
    cosine = [cosine_decay(epoch, 10, warmup_epochs=1) for epoch in (0, 0.5, 1, 5.5, 10)]
    assert cosine == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_instantiates(name, face):
    cfg = configuration(f"+experiment={name}")
    short = configuration(f"+experiment={name}", "scheduler=cosine")
    assert cfg.name == name
    loss_fn = instantiate(cfg.loss)
    if "fit" not in loss_fn.targets:
        assert with_face(loss_fn, face).weight_mask.shape == (256, 256)
    thin = {"width": 2} if "width" in cfg.model.network else {}
    network = instantiate(cfg.model.network, **thin)
    assert isinstance(network, NETWORKS[cfg.model.name].func)
    assert mismatch(network, loss_fn) is None
    assert 0 <= instantiate(cfg.scheduler)(0, 30) <= 1
    assert instantiate(short.scheduler)(30, 30) == 0  # nothing of the experiment's own is left
    AugmentRule(**cfg.augment)


def test_prn_experiment_has_the_papers_values():
    """PRN section 3.3: Adam 1e-4 halved each 5 epochs, batch 16; eq. 1 with 16:4:3:0."""
    cfg = configuration("+experiment=prn")
    plain = configuration("+experiment=prn_weights_1111")
    assert cfg.optimizer.learning_rate == 1e-4
    assert (cfg.scheduler.factor, cfg.scheduler.every) == (0.5, 5)
    assert cfg.trainer.batch_size == 16
    assert list(cfg.loss.weights) == [16, 4, 3, 0]
    assert list(plain.loss.weights) == [1, 1, 1, 1]
    assert cfg.augment.rotation_deg == 45
    assert cfg.augment.translation == 0.1
    assert list(cfg.augment.scale) == [0.9, 1.2]
    assert list(cfg.augment.color) == [0.6, 1.4]
    model = instantiate(cfg.model.network)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 13_353_618


def command(tiny_data_dir, built_dir, run_dir, *overrides) -> list[str]:
    return [
        "+experiment=prn",
        f"data_dir={tiny_data_dir}",
        f"built={built_dir}",
        f"hydra.run.dir={run_dir}",
        "model.network.width=2",
        "trainer.batch_size=2",
        "trainer.max_steps=3",
        "validation_fraction=0.25",
        "device=cpu",
        *overrides,
    ]


def call(arguments, *, cwd=None, **environment):
    return subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.getcwd(), **environment},
        timeout=240,
    )


def test_torchrun_trains_one_model_in_one_directory(tiny_data_dir, tmp_path):
    """Two gloo processes on a CPU; the set is built by one of them while the other looks for it."""
    run_dir = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node=2", "-m", "prnet.train"]
    words = command(tiny_data_dir, "null", run_dir, "dataset=aflw2000", "trainer.batch_size=1")
    done = call(
        torchrun + words,
        cwd=tmp_path,
        OMP_NUM_THREADS="1",
        PYTHONPATH=str(Path(__file__).parents[1]),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = load_checkpoint(run_dir / "last.pt")
    assert last["training"]["order"]["processes"] == 2
    assert last["training"]["step"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "run"]
    assert [p.name for p in (tmp_path / "data" / "built").iterdir()] == ["aflw2000"]
    assert len(list(run_dir.glob("events.out.tfevents.*"))) == 1
    said = done.stdout + done.stderr
    assert said.count("best weights:") == said.count("step 3: nme_68_2d") == 1


def refusal(caplog, tiny_data_dir, built_dir, run_dir, *overrides) -> str:
    """What the command says before it ends with status 1."""

    @one_line_errors
    def main(cfg):
        train_command(read_settings(cfg), run_dir)

    words = command(tiny_data_dir, built_dir, run_dir, *overrides)
    with pytest.raises(SystemExit) as stopped:
        main(configuration(*words))
    assert stopped.value.code == 1
    (message,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "\n" not in message
    return message


def test_command_refuses_in_one_line(tiny_data_dir, built_dir, face, tmp_path, caplog):
    """A checkpoint of a thinner model, given as init."""
    run(built_dir, face, tmp_path / "thin", model=PRN(width=2), max_steps=1)
    words = ["model.network.width=4", f"init={tmp_path / 'thin' / 'last.pt'}"]
    said = refusal(caplog, tiny_data_dir, built_dir, tmp_path / "run", *words)
    assert "of another shape" in said


def test_trained_checkpoint_evaluates_to_its_validation(
    tiny_data_dir, tmp_path, monkeypatch, caplog
):
    """The first use builds the set, two steps train, and prnet.eval rebuilds the network."""
    run_dir = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    words = command(tiny_data_dir, "null", run_dir, "dataset=aflw2000", "trainer.max_steps=2")
    with caplog.at_level("INFO"):
        train_command(read_settings(configuration(*words)), run_dir)
    assert len(BuiltSet(tmp_path / "data" / "built" / "aflw2000")) == 6
    validated = re.search(r"step 2: nme_68_2d (\d+\.\d+)", caplog.text)
    model, checkpoint = load_model(run_dir / "best.pt")
    assert checkpoint["face"]["vertices"] == 98
    assert "training" not in checkpoint
    face = load_bfm(tiny_data_dir / "BFM")
    built = BuiltSet(tmp_path / "data" / "built" / "aflw2000")
    indices = held_out(built.names, 0.25).nonzero()[0]
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("eval", overrides=["dataset=aflw2000", f"data_dir={tiny_data_dir}"])
    held = HeldOut(built, indices).with_truth_face(face)
    protocol = Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))
    report = score_network(model, held, face, protocol, batch_size=2)
    assert report["metrics"]["nme_68_2d"]["mean"] == pytest.approx(float(validated[1]), abs=6e-4)


def test_missing_archives_are_named_at_once(tmp_path, monkeypatch, caplog):
    """With nothing fetched yet: one line that names both the photos and the face model."""
    monkeypatch.chdir(tmp_path)
    said = refusal(caplog, "nowhere", "null", tmp_path)
    named_files = ("nowhere/300W_LP", "nowhere/BFM", "prnet.convert_bfm", "faces.dmi.unibas.ch")
    for named in ("missing:", *named_files, "dataset=synthetic works now"):
        assert named in said


def test_bad_values_are_refused_in_one_line(tiny_data_dir, built_dir, tmp_path, caplog):
    """A constructor's own refusal, not Hydra's account of how it was called."""
    said = refusal(caplog, tiny_data_dir, built_dir, tmp_path, "loss.weights=[16,4,3]")
    assert said.startswith("loss weights: got [16.0, 4.0, 3.0], expected four finite numbers")


def test_sets_of_different_pixel_origins_are_refused(tiny_data_dir, built_dir, face, tmp_path):
    build_archive(
        None,
        data_dir=tiny_data_dir,
        output=tmp_path / "legacy",
        face_files=FaceFiles("bfm", str(tiny_data_dir / "BFM"), None),
        options=BuildOptions("aflw2000", pixel_origin="face3d"),
        workers=0,
    )
    assert TrainingSets([tmp_path / "legacy"], face=face.describe()).pixel_origin == "face3d"
    with pytest.raises(ValueError, match=r"face3d.*zero_based"):
        TrainingSets([built_dir, tmp_path / "legacy"], face=face.describe())


def test_unknown_precision_is_refused_before_any_data_is_opened():
    with pytest.raises(ValueError, match=r"trainer\.precision: got 'bf61'.*fp32.*bf16"):
        plan(precision="bf61").checked()


def test_compiling_without_a_compiler_is_refused(built_dir, face, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"trainer\.compile=true: no .+ here; install it"):
        run(built_dir, face, tmp_path, compile=True)


def test_resumed_run_keeps_the_best_weights_so_far(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "best.pt").write_bytes(b"the best")
    for run_dir in (tmp_path / "new", tmp_path / "old"):
        keep_best(tmp_path / "old" / "last.pt", run_dir)
        assert (run_dir / "best.pt").read_bytes() == b"the best"
    keep_best(tmp_path / "nowhere" / "last.pt", tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_default_command_trains_and_scores_without_any_file(tmp_path):
    """`prnet.train` then `prnet.eval`, in an empty folder: a report and its pictures."""
    small = ["dataset.held_out=2", "device=cpu", "dataset.size=48"]
    train_settings = [
        "dataset.samples_per_epoch=4",
        "trainer.batch_size=2",
        "trainer.num_workers=0",
    ]
    trained, scored = run_commands(
        ["prnet.train", *small, *train_settings],
        ["prnet.eval", *small, "dataset.size=256", "report=r/report.json"],
        cwd=tmp_path,
    )
    for said in (trained, scored):
        assert said.endswith("exit 0"), said[-2000:]
    written = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert written == [
        "report.json",
        "report.md",
        "report.png",
        "report_ced.csv",
        "report_faces.png",
    ]
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["dataset"], report["count"]) == ("synthetic", 2)
    assert report["face"]["name"] == "embedded"
    # The score of best.pt is the one that it was chosen by, and the last line says how to get it.
    pattern = r"best weights: (\S+/best.pt) \(nme_68_2d, mean of all: (\d+\.\d+) %\)"
    said = re.search(pattern, trained)
    assert report["metrics"]["nme_68_2d"]["mean"] == pytest.approx(float(said[2]), abs=6e-4)
    last = trained.splitlines()[-2]
    assert last.endswith(f"python -m prnet.eval checkpoint={said[1]} dataset.held_out=2 device=cpu")
    assert set(report["metrics"]) == {"nme_68_2d", "nme_68_3d", "nme_dense_2d", "nme_dense_3d"}
