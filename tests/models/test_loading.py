"""Checkpoints carry values, never code: every reader refuses what would be run, in one line."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.checkpoint import load_checkpoint, save_checkpoint
from prnet.entry import CONFIG_DIR, one_line_errors, shipped_values
from prnet.eval import run_evaluation
from prnet.models.loading import NETWORKS, build_network, load_model, load_with_face, options_of
from prnet.models.mobile_frnet import MobileFRNet
from prnet.models.network import Network
from prnet.train import read_settings, run
from tests.plans import configuration


def code_that_writes(path: Path) -> str:
    """Text that OmegaConf and Hydra would resolve by writing a file."""
    file = f"{{_target_: pathlib.Path, _args_: ['{path}']}}"
    return f"${{oc.create:{{_target_: pathlib.Path.write_text, _args_: [{file}, made]}}}}"


@pytest.fixture(scope="module")
def state() -> dict:
    """A checkpoint as a run leaves it."""
    values = {"num_shape": 3, "num_exp": 2, "input_side": 32}
    torch.manual_seed(0)
    return {
        "model": {"name": "mobile_frnet", **values},
        "face": {"name": "embedded"},
        "weights": MobileFRNet(**values).state_dict(),
        "training": {"step": 1, "best": 1.0, "order": {}, "optimizer": {}},
    }


@pytest.fixture
def evil(state, tmp_path) -> Path:
    """The same with code in place of a number; `made` beside it is what the code would write."""
    path = tmp_path / "evil.pt"
    code = code_that_writes(tmp_path / "made")
    save_checkpoint(path, {**state, "model": {**state["model"], "num_exp": code}})
    return path


def said_by(main, caplog) -> str:
    """The one line with which a command ends, status 1."""
    with pytest.raises(SystemExit) as stopped:
        one_line_errors(lambda _: main())(None)
    assert stopped.value.code == 1
    (message,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    return message


def eval_checkpoint(path: Path, tmp_path: Path) -> None:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("eval", overrides=[f"checkpoint={path}", "device=cpu"])
    run_evaluation(cfg, tmp_path)


def train_from(path: Path, tmp_path: Path, *, option: str) -> None:
    words = ["model=mobile_frnet", "loss=wing", "dataset.size=48", "dataset.held_out=0"]
    words += [f"{option}={path}", "device=cpu", "model.network.input_side=32"]
    run(read_settings(configuration(*words)), tmp_path)


def test_the_code_is_code(evil, tmp_path):
    """What the tests below see refused would be run by Hydra."""
    values = torch.load(evil, weights_only=True)["model"]
    instantiate(OmegaConf.create({"_target_": "builtins.dict", **values}))
    assert (tmp_path / "made").read_text() == "made"


@pytest.mark.parametrize("reader", ["eval", "export", "init", "resume"])
def test_commands_refuse_code_in_one_line_and_run_nothing(reader, evil, tmp_path, caplog):
    if reader == "eval":
        said = said_by(lambda: eval_checkpoint(evil, tmp_path), caplog)
    elif reader == "export":
        said = said_by(lambda: load_with_face(evil), caplog)
    else:
        said = said_by(lambda: train_from(evil, tmp_path, option=reader), caplog)
    assert said.startswith(f"{evil}: ['model']['num_exp']: \"${{oc.create:")
    assert "\n" not in said
    assert said.endswith("is an interpolation; only values are read")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evil.pt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "${oc.env:HOME}"}, r"\['experiment'\]: .*is an interpolation"),
        ({"face": {"name": ["a", "x${y}"]}}, r"\['face'\]\['name'\]\[1\]: 'x\$\{y\}' is an inter"),
        ({"face": {"${a}": 1}}, r"\['face'\]: '\$\{a\}' is an interpolation"),
        ({"training": {"loss": {"a": "${b}"}}}, r"\['training'\]\['loss'\]\['a'\]"),
        ({"model": {"_target_": "os.mkdir"}}, r"\['model'\]: key '_target_' names code to run"),
        ({"face": {"a": {"_call_": 1}}}, r"\['face'\]\['a'\]: key '_call_' names code to run"),
        ({"model": "prn"}, "model and weights are not two dictionaries"),
    ],
)
def test_every_reader_passes_where_code_is_refused(changes, message, state, tmp_path):
    torch.save({"format": 1, **state, **changes}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"x\.pt: {message}"):
        load_checkpoint(tmp_path / "x.pt")


def test_values_reach_the_constructor_as_they_are(tmp_path):
    """Past the door too, nothing is resolved."""
    code = code_that_writes(tmp_path / "made")
    for values in ({"num_exp": code}, {"channel_order": code}):
        with pytest.raises(
            ValueError, match=r"evil: model mobile_frnet does not take .*oc\.create"
        ):
            build_network({"name": "mobile_frnet", **values}, source="evil")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"name": "os.mkdir"}, "of a model 'os.mkdir', expected one of 2dasl, compact, "),
        ({"name": ["prn"]}, r"of a model \['prn'\], expected"),
        ({}, "of a model None"),
        (
            {"name": "prn", "depth": 3},
            r"prn takes \['coordinate_scale', 'layout', .*'width'\], .* 'depth'",
        ),
        ({"name": "prn", "width": [2]}, "model value width is a list, not plain"),
        ({"name": "prn", "width": "wide"}, "model prn does not take"),
    ],
)
def test_other_networks_and_values_are_refused(stored, message):
    with pytest.raises(ValueError, match=rf"^x\.pt: .*{message}"):
        build_network(stored, source="x.pt")


def test_every_configured_network_is_built_from_its_checkpoint():
    """By the name and the values of its configuration, into the same class and shapes."""
    configured = set()
    for file in Path(CONFIG_DIR, "model").glob("*.yaml"):
        values = shipped_values("model", file.stem)
        network = dict(values["network"])
        target = network.pop("_target_")
        narrow = {"width": 2} if "width" in network else {}
        model = build_network({"name": values["name"], **network, **narrow}, source=file)
        assert f"{type(model).__module__}.{type(model).__qualname__}" == target
        assert isinstance(model, Network)
        configured.add(values["name"])
    assert configured == set(NETWORKS)


def test_a_checkpoint_with_fewer_values_takes_the_configured_ones():
    """As configs/model has them: an older file lacks what was added since."""
    for name, entry in NETWORKS.items():
        configured = dict(shipped_values("model", name)["network"])
        del configured["_target_"]
        options = options_of(entry.func).items()
        defaults = {key: option.default for key, option in options}
        assert {**defaults, **entry.keywords} == configured


def test_a_model_is_loaded_with_its_weights(state, tmp_path):
    save_checkpoint(tmp_path / "best.pt", state)
    model, checkpoint = load_model(tmp_path / "best.pt")
    assert isinstance(model, MobileFRNet)
    assert (model.num_shape, model.num_exp) == (3, 2)
    assert checkpoint["training"]["step"] == 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state["weights"][name])
