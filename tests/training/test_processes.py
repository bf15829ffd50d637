"""One run in two processes of gloo: the same training, validation shared, deaths told of."""

import re
from pathlib import Path

import pytest
import torch

from prnet.checkpoint import load_checkpoint
from prnet.datasets.augment import augment
from prnet.datasets.built import BuiltSet, held_out
from prnet.datasets.evaluation import HeldOut
from prnet.datasets.pictures import collate_fits
from prnet.datasets.training_sets import StepSampler, TrainingSets
from prnet.entry import loader_workers, num_workers
from prnet.evaluation.evaluate import EvaluationOptions, Share, evaluate
from prnet.evaluation.sources import NetworkSource
from prnet.geometry.position_map import PositionMapDecoder
from prnet.models.loading import load_model
from prnet.train import read_settings
from prnet.train import run as train_command
from prnet.training.optimizer import make_optimizer
from prnet.training.plan import batch_generator
from prnet.training.processes import Processes
from tests.evaluations import score_network
from tests.plans import CPU, assert_equal_states, configuration
from tests.training.ranks import run_ranks


@pytest.fixture
def words(tiny_data_dir, built_dir) -> list[str]:
    return [
        f"data_dir={tiny_data_dir}",
        f"built={built_dir}",
        "face=bfm",
        "dataset=300w_lp",
        "device=cpu",
        "validation_fraction=0.25",
        "model.network.input_side=64",  # at 32 batch norm has two values, and doubles rounding
        "model.network.width=2",
        "model.network.rank=8",
        "model.network.grid=16",
        "optimizer.name=sgd",
        "trainer.batch_size=2",
        "trainer.epochs=100",
        "trainer.max_steps=4",
        "trainer.save_every=1",
        "trainer.recompute_batch_norm=2",
    ]


def test_two_processes_make_one_run_and_one_that_is_killed_is_told_of(
    words, built_dir, face, tmp_path
):
    """The other ends in one line within seconds; resumed, the run ends to the bit where a whole one
    does; another number of processes is refused."""
    whole = run_ranks(words, tmp_path / "whole")
    assert whole.statuses == [0, 0], whole.said
    assert not (tmp_path / "elsewhere").exists()
    assert len(list((tmp_path / "whole").glob("events.out.tfevents.*"))) == 1
    state = load_checkpoint(tmp_path / "whole" / "last.pt")
    assert state["training"]["order"]["processes"] == 2
    require_the_mean_of_two(state["weights"], words, built_dir, face)
    require_the_score_of_one(whole.said, tmp_path / "whole" / "best.pt", words, built_dir, face)

    died = run_ranks(words, tmp_path / "died", killed_at=2)
    assert died.statuses == [1, -9]
    assert died.seconds[0] < 20
    (line,) = (one for one in died.said[0].splitlines() if one.startswith("ERROR"))
    last = tmp_path / "died" / "last.pt"
    assert "another of the 2 processes of this run died or cannot be reached; go on with " in line
    assert f"resume={last} and as many processes" in line
    assert load_checkpoint(last)["training"]["step"] == 2

    rest = run_ranks([*words, f"resume={last}"], tmp_path / "rest")
    assert rest.statuses == [0, 0], rest.said
    resumed = load_checkpoint(tmp_path / "rest" / "last.pt")
    assert resumed["training"]["step"] == 4
    assert_equal_states(state, resumed)
    refused = configuration(*words, f"resume={last}")
    with pytest.raises(ValueError, match="processes was 2 and is 1"):
        train_command(read_settings(refused), tmp_path / "refused")


def require_the_mean_of_two(weights: dict, words: list[str], built_dir, face) -> None:
    """The loop written out: each process' own batch and batch norm, the mean of both gradients."""
    settings = read_settings(configuration(*words))
    model, loss_fn = settings.network.train(), settings.loss_fn
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    for one in (model, loss_fn):
        one.set_face(face)
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    data = TrainingSets([built_dir], validation_fraction=0.25, face=face.describe())
    samples = data.concatenated()
    order = [StepSampler(data, batch_size=2, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
    optimizer = make_optimizer(model, settings.plan)
    per_epoch = order[0].steps_per_epoch
    for step, batches in zip(range(1, 5), zip(*order, strict=True), strict=False):
        rate = settings.schedule((step - 1) / per_epoch, 4 / per_epoch)
        optimizer.param_groups[0]["lr"] = settings.plan.learning_rate * rate
        optimizer.zero_grad()
        for rank, indices in enumerate(batches):
            batch = collate_fits([samples[index] for index in indices])
            drawn = batch_generator(0, step, rank, CPU.device)
            sample = augment(batch, decoder, settings.rule, drawn, targets=loss_fn.targets)
            (sum(loss_fn(model(sample.image), sample).values()) / 2).backward()
        optimizer.step()
    moved = 0.0
    for name, value in model.named_parameters():
        torch.testing.assert_close(weights[name], value.detach(), rtol=1e-3, atol=1e-5)
        moved = max(moved, float((value.detach() - start[name]).abs().max()))
    assert moved > 1e-3


def require_the_score_of_one(
    said: list[str], best: Path, words: list[str], built_dir, face
) -> None:
    """The score that was made of two shares is what one process gives the weights that were kept,
    with the first one's batch norm, and was told once."""
    (score,) = re.findall(r"step 4: nme_68_2d (\d+\.\d+)", said[0])
    assert not re.findall("nme_68_2d", said[1])
    model, _ = load_model(best)
    built = BuiltSet(built_dir)
    held = HeldOut(built, held_out(built.names, 0.25).nonzero()[0]).with_truth_face(face)
    assert len(held) > 1
    protocol = read_settings(configuration(*words)).protocol
    report = score_network(model, held, face, protocol, batch_size=1)
    assert report["metrics"]["nme_68_2d"]["mean"] == pytest.approx(float(score), abs=6e-4)


def test_shares_make_the_whole_report(words, built_dir, face):
    """More processes than images, too: some then score none."""
    torch.manual_seed(0)
    settings = read_settings(configuration(*words))
    settings.network.set_face(face)
    built = BuiltSet(built_dir)
    test_set = HeldOut(built, held_out(built.names, 0.25).nonzero()[0]).with_truth_face(face)
    source = NetworkSource(settings.network, face, description="tiny")
    size = len(test_set) + 1
    found: list[list] = []

    def scored(share: Share) -> dict:
        options = EvaluationOptions(batch_size=1, share=share, progress=False)
        return evaluate(source, test_set, settings.protocol, options)

    whole = scored(Share())
    for rank in range(1, size):

        def keep(values: list) -> list:
            found.append(values)
            return values

        if rank < len(test_set):
            scored(Share(rank, size, keep))
    others = [values for values in found if values]
    assert sum(map(len, others)) == len(test_set) - 1

    def joined(values: list) -> list:
        return values + [one for part in others for one in part] if values else values

    assert scored(Share(0, size, joined)) == whole
    with pytest.raises(ValueError, match="no image was scored"):
        scored(Share(size - 1, size))


def test_processes_of_a_machine_share_its_cores():
    cores, cpu, card = num_workers("auto"), torch.device("cpu"), torch.device("cuda")
    assert loader_workers("auto", card, processes=1) == cores
    assert loader_workers("auto", card, processes=cores) == 1
    assert loader_workers("auto", card, processes=4 * cores) == 1
    assert loader_workers("auto", cpu, renders=True, processes=cores) == 0
    assert loader_workers(3, card, processes=8) == 3


def test_one_process_is_alone(tmp_path):
    made = []
    assert CPU.of_first("own") == "own"
    assert CPU.gather([1, 2]) == [1, 2]
    CPU.after_first(lambda: made.append(1), tmp_path)
    assert made == [1]
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="closed by peer"), CPU.telling_deaths(tmp_path):
        raise RuntimeError("Connection closed by peer")
    two = Processes(1, 2, torch.device("cpu"))
    with pytest.raises(ValueError, match="torch has it on cards alone"):
        two.share(torch.nn.Identity(), sync_batch_norm=True)
    with pytest.raises(ConnectionError, match="another of the 2"), two.telling_deaths(tmp_path):
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:3")
