"""best.pt: which state it is, by what score, and of which photos."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from prnet.checkpoint import load_checkpoint
from prnet.datasets.augment import AugmentRule
from prnet.datasets.built import BuiltSet, held_out
from prnet.datasets.evaluation import Kept
from prnet.datasets.training_sets import TrainingSets
from prnet.evaluation.protocol import Protocol
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.prn import PRNLoss
from prnet.models.compact import Compact
from prnet.training import validation
from prnet.training.loop import train
from prnet.training.processes import Processes
from prnet.training.validation import Validation, held_out_validation
from tests.evaluations import score_network
from tests.plans import CPU, configuration, plan
from tests.small_face import with_face

HEADER = {"model": {"name": "compact"}, "face": {"name": "bfm"}}


def tiny_network() -> Compact:
    torch.manual_seed(0)
    return Compact(input_side=32, width=1, rank=4, grid=8)


def a_run(data, face, run_dir, *, validate, model=None, resume=None, **changes) -> Compact:
    """Steps of two samples each; three make an epoch of the tiny set."""
    model = tiny_network() if model is None else model
    train(
        model,
        with_face(PRNLoss(), face),
        data,
        PositionMapDecoder(face.morphable_model, face.uv),
        plan=plan(**changes),
        rule=AugmentRule(mirror=0.5),
        schedule=lambda _epoch, _total: 1.0,
        processes=CPU,
        run_dir=run_dir,
        header=HEADER,
        validate=validate,
        resume=resume,
    )
    return model


class Judge:
    """Gives scores in turn, and keeps the weights it was shown."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores
        self.shown: list[dict] = []

    def __call__(self, model) -> Validation:
        self.shown.append({name: value.clone() for name, value in model.state_dict().items()})
        score = self.scores[len(self.shown) - 1]
        return Validation(score, {"nme_68_2d": score}, np.zeros((4, 4, 3), np.uint8))


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture
def data(built_dir, face) -> TrainingSets:
    return TrainingSets([built_dir], validation_fraction=0.25, face=face.describe())


@pytest.mark.parametrize(
    ("scores", "best"),
    [([3.0, 1.0, 2.0], 1), ([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], 2), ([2.0, 2.0, 2.0], 0)],
)
def test_best_is_the_state_of_the_lowest_score(scores, best, data, face, tmp_path):
    """Of several validations the lowest, neither the last nor the first; of equals the first."""
    per_epoch = len(data) // 2
    judge = Judge(scores)
    a_run(
        data,
        face,
        tmp_path,
        validate=judge,
        validate_every=1.0,
        max_steps=3 * per_epoch,
        save_every=100,
    )
    assert len(judge.shown) == 3
    assert not same(judge.shown[0], judge.shown[1])
    assert same(load_checkpoint(tmp_path / "best.pt")["weights"], judge.shown[best])
    last = load_checkpoint(tmp_path / "last.pt")
    assert same(last["weights"], judge.shown[2])
    assert last["training"]["best"] == min(scores)


def test_validation_comes_every_so_many_epochs_and_at_the_end(data, face, tmp_path):
    """Each time of the weights after just as many steps."""
    per_epoch = len(data) // 2
    assert per_epoch >= 2
    judge = Judge([3.0, 2.0, 1.0])
    steps = 2 * per_epoch + 1
    a_run(data, face, tmp_path, validate=judge, validate_every=1.0, max_steps=steps)
    assert len(judge.shown) == 3
    for shown, stop in zip(judge.shown, (per_epoch, 2 * per_epoch, steps), strict=True):
        alone = a_run(data, face, tmp_path / f"{stop}", validate=None, max_steps=stop)
        assert same(shown, alone.state_dict())


def test_the_average_is_validated_kept_and_gone_on_with(data, face, tmp_path):
    settings = {"average": 0.5, "validate_every": 100.0, "save_every": 2}
    judge = Judge([1.0])
    model = a_run(data, face, tmp_path / "whole", validate=judge, max_steps=4, **settings)
    assert not same(judge.shown[0], model.state_dict())
    best = load_checkpoint(tmp_path / "whole" / "best.pt")["weights"]
    assert same(best, judge.shown[0])

    half = a_run(data, face, tmp_path / "half", validate=None, max_steps=2, **settings)
    resume = load_checkpoint(tmp_path / "half" / "last.pt")["training"]
    again = Judge([1.0])
    rest = {"model": half, "resume": resume, "max_steps": 4}
    a_run(data, face, tmp_path / "rest", validate=again, **rest, **settings)
    assert same(again.shown[0], judge.shown[0])
    with pytest.raises(ValueError, match=r"trainer\.average is 0 in one of the two"):
        a_run(data, face, tmp_path / "other", validate=None, resume=resume)


def test_a_resumed_run_beats_the_score_it_was_left_with(data, face, tmp_path):
    per_epoch = len(data) // 2
    settings = {"validate_every": 1.0, "save_every": 100}
    model = a_run(data, face, tmp_path, validate=Judge([2.0]), max_steps=per_epoch, **settings)
    best = load_checkpoint(tmp_path / "best.pt")["weights"]
    for score, beaten in ((2.5, False), (1.5, True)):
        resume = load_checkpoint(tmp_path / "last.pt")["training"]
        judge = Judge([score])
        resume["step"] = per_epoch
        a_run(
            data,
            face,
            tmp_path,
            validate=judge,
            model=model,
            resume=resume,
            max_steps=2 * per_epoch,
            **settings,
        )
        found = load_checkpoint(tmp_path / "best.pt")["weights"]
        assert same(found, judge.shown[0]) == beaten
        assert same(found, best) == (not beaten)


def test_the_score_is_the_landmarks_in_2d(data, face):
    """Of held-out photos alone, by the function and the protocol of `prnet.eval`."""
    protocol = OmegaConf.to_container(configuration().protocol, resolve=True)
    protocol = Protocol.from_values(protocol)
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    settings = plan(batch_size=2, precision="fp32")
    validate = held_out_validation(data, face, decoder, protocol, settings, CPU)
    model = tiny_network()
    found = validate(model)
    (held,) = data.validation
    report = score_network(model, held.with_truth_face(face), face, protocol, batch_size=2)
    assert report["count"] == len(held) > 0
    means = {name: values["mean"] for name, values in report["metrics"].items()}
    assert found.scalars == means
    assert found.score == means["nme_68_2d"]
    assert len(set(means.values())) == len(means) > 1


def test_held_out_photos_are_decoded_once_beside_a_card(data, face, monkeypatch):
    """Or, where they are too many to keep, by loader processes; a CPU's network takes longer."""
    asked: list[tuple] = []
    monkeypatch.setattr(
        validation, "evaluate", lambda _source, test_set, *more: asked.append((test_set, more[1]))
    )
    protocol = OmegaConf.to_container(configuration().protocol, resolve=True)
    protocol = Protocol.from_values(protocol)
    decoder = PositionMapDecoder(face.morphable_model, face.uv)
    (held,) = data.validation
    pictures = [held[place].network_input.picture for place in range(len(held))]
    most = sum(picture.nbytes for picture in pictures)
    found = []
    for device, limit in (("cpu", most), ("cuda", most), ("cuda", most - 1)):
        monkeypatch.setattr(validation, "MOST_KEPT", limit)
        processes = Processes(0, 1, torch.device(device))
        options = face, decoder, protocol, plan(num_workers=7), processes
        validate = held_out_validation(data, *options)
        with pytest.raises(TypeError):  # there is no report
            validate(tiny_network())
        test_set, chosen = asked[-1]
        found.append((isinstance(test_set, Kept), chosen.num_workers))
    assert found == [(False, 0), (True, 0), (False, 7)]

    kept = asked[1][0]
    reads: list[int] = []
    original = BuiltSet.__getitem__
    monkeypatch.setattr(
        BuiltSet, "__getitem__", lambda self, index: reads.append(index) or original(self, index)
    )
    for _ in range(2):
        items = kept.__getitems__([1, 0])
        for item, picture in zip(items, pictures[1::-1], strict=True):
            assert np.array_equal(item.network_input.picture, picture)
    assert len(reads) == 2
    assert kept.truth_face is face


def test_held_out_photos_are_never_trained_on(built_dir, data, face, tmp_path, monkeypatch):
    """By the names of the photos that the loop really reads, over two epochs."""
    built = BuiltSet(built_dir)
    kept_back = set(np.array(built.names)[held_out(built.names, 0.25)])
    assert 0 < len(kept_back) < len(built.names)
    read: list[str] = []
    original = BuiltSet.__getitem__

    def recording(self, index):
        read.append(self.names[index])
        return original(self, index)

    monkeypatch.setattr(BuiltSet, "__getitem__", recording)
    steps = 2 * (len(data) // 2)
    settings = {"max_steps": steps, "recompute_batch_norm": 2}
    a_run(data, face, tmp_path, validate=None, **settings)
    assert len(read) >= 2 * steps
    assert set(read) == set(built.names) - kept_back
    (held,) = data.validation
    assert {held[position].name for position in range(len(held))} == kept_back


def test_a_run_killed_while_it_validates_goes_on_with_the_validation(data, face, tmp_path):
    per_epoch = len(data) // 2
    settings = {"validate_every": 1.0, "save_every": 100, "max_steps": 2 * per_epoch}
    whole = Judge([2.0, 1.0])
    a_run(data, face, tmp_path / "whole", validate=whole, **settings)

    def killed(_model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        a_run(data, face, tmp_path / "cut", validate=killed, **settings)
    stopped = load_checkpoint(tmp_path / "cut" / "last.pt")
    assert stopped["training"]["step"] == per_epoch
    model = tiny_network()
    model.load_state_dict(stopped["weights"])
    rest = {"model": model, "resume": stopped["training"], "validate": (again := Judge([2.0, 1.0]))}
    a_run(data, face, tmp_path / "rest", **rest, **settings)
    assert len(again.shown) == 2
    assert all(map(same, again.shown, whole.shown))
