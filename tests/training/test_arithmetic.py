"""In which precision what is computed, in how many parts, and by which kernels."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.backends import cuda, cudnn

from prnet.datasets.augment import AugmentRule
from prnet.datasets.training_sets import TrainingSets
from prnet.evaluation.sources import without_tf32
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.prn import PRNLoss
from prnet.models.network import Network
from prnet.sample import Prediction
from prnet.training import step
from prnet.training.card import prepare_card
from prnet.training.loop import train
from prnet.training.optimizer import load_optimizer, make_optimizer, set_learning_rate
from tests.cards import Waits, imagined_card, on_card
from tests.plans import CPU, plan

CARD = torch.device("cuda")
STILL = AugmentRule(
    rotation_deg=0, translation=0, scale=(1, 1), color=(1, 1), occlusion=0.0, mirror=0.0
)


class Plain(Network):
    """Position maps by one convolution and one linear layer, and what runs inside autocast."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 5, padding=2, dtype=dtype)
        self.norm = nn.BatchNorm2d(3, dtype=dtype) if dtype == torch.float32 else nn.Identity()
        self.seen: list[torch.dtype] = []

    def forward(self, image: Tensor) -> Prediction:
        features = self.norm(self.conv(image.to(self.conv.weight.dtype)))
        self.seen.append(features.dtype)
        return Prediction(128 + 128 * features.to(self.conv.weight.dtype))


def trained(built_dir, face, run_dir, model: Network, **changes) -> Network:
    run_dir.mkdir()
    loss_fn = PRNLoss()
    loss_fn.set_face(face)
    train(
        model,
        loss_fn,
        TrainingSets([built_dir], validation_fraction=0.0, face=face.describe()),
        PositionMapDecoder(face.morphable_model, face.uv),
        plan=plan(batch_size=4, max_steps=3, **changes),
        rule=STILL,
        schedule=lambda epoch, total: 1.0,
        processes=CPU,
        run_dir=run_dir,
        header={"model": {"name": "plain"}, "face": face.describe()},
        validate=None,
        resume=None,
    )
    return model


def test_parts_of_a_batch_are_the_batch(built_dir, face, tmp_path):
    whole, parts = (
        trained(built_dir, face, tmp_path / str(count), Plain(), accumulate=count)
        for count in (1, 4)
    )
    start = Plain()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-7, atol=1e-9)
        assert not torch.equal(value, start.state_dict()[name])
    with pytest.raises(ValueError, match="accumulate=3: does not divide trainer.batch_size=4"):
        plan(batch_size=4, accumulate=3).checked()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_rate_follows_the_samples_of_a_step(name, built_dir, face, tmp_path):
    """As their root with Adam, in proportion with SGD; without an option it stays."""
    power = 1.0 if name == "sgd" else 0.5
    for samples, processes in ((16, 1), (256, 1), (256, 8), (4, 1)):
        chosen = plan(optimizer=name, learning_rate=1e-4, batch_size=samples)
        assert chosen.rate(processes) == 1e-4
        grown = chosen._replace(rate_batch=16).rate(processes)
        assert grown == pytest.approx(1e-4 * (samples * processes / 16) ** power)
    settings = {"optimizer": name, "learning_rate": 1e-6, "rate_batch": 1}
    trained(built_dir, face, tmp_path / name, Plain(torch.float32), **settings)
    state = torch.load(tmp_path / name / "last.pt", weights_only=True)["training"]["optimizer"]
    assert {group["lr"] for group in state["param_groups"]} == {1e-6 * 4**power}
    with pytest.raises(ValueError, match="optimizer.rate_batch: got 0, expected"):
        plan(rate_batch=0).checked()


def test_bf16_is_the_networks_alone(built_dir, face, tmp_path, monkeypatch):
    """Augmentation, targets and losses are outside: a px of 256 has 8 bits there. Statistics of
    norms stay float32."""
    inside = {"augment": [], "loss": []}

    def watched(name, function):
        def call(*given, **named):
            inside[name].append(torch.is_autocast_enabled("cpu"))
            return function(*given, **named)

        return call

    monkeypatch.setattr(step, "augmented", watched("augment", step.augmented))
    monkeypatch.setattr(PRNLoss, "forward", watched("loss", PRNLoss.forward))
    model = Plain(torch.float32)
    trained(built_dir, face, tmp_path / "run", model, precision="bf16")
    assert model.seen == [torch.bfloat16] * 3
    assert inside == {"augment": [False] * 3, "loss": [False] * 3}
    assert model.norm.running_var.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.fixture
def flags(monkeypatch):
    """Of the process, as they were before."""
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, cuda.matmul.allow_tf32
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.use_deterministic_algorithms(False)
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("flags")
def test_tf32_is_for_convolutions_where_it_is_asked_for():
    for precision, expected in (("tf32", True), ("fp32", False), ("bf16", False)):
        prepare_card(CARD, precision=precision, deterministic=False)
        assert cudnn.allow_tf32 is expected
        assert not cuda.matmul.allow_tf32
        with without_tf32():
            assert not cudnn.allow_tf32
        assert cudnn.allow_tf32 is expected
    with pytest.raises(ValueError, match="tf32: is of CUDA cards, and this runs on cpu"):
        prepare_card(torch.device("cpu"), precision="tf32", deterministic=False)


@pytest.mark.usefixtures("flags")
def test_kernels_are_the_fastest_or_deterministic():
    for deterministic in (False, True):
        prepare_card(CARD, precision="fp32", deterministic=deterministic)
        assert cudnn.benchmark is not deterministic
        assert cudnn.deterministic is deterministic
        assert torch.are_deterministic_algorithms_enabled() is deterministic


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_learning_rate_on_a_card_is_a_tensor_that_is_filled(name):
    """What captures the step sees every rate, and nothing waits for it."""
    model = Plain(torch.float32)
    with imagined_card(), Waits() as waits:
        on_card(model)
        optimizer = make_optimizer(model, plan(optimizer=name), CARD)
        rates = [group["lr"] for group in optimizer.param_groups]
        set_learning_rate(optimizer, 1e-4)
        assert waits.found == []
    assert {rate.device.type for rate in rates} == {"cuda"}
    assert all(
        group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True)
    )
    assert all(group["fused"] for group in optimizer.param_groups)
    assert all(group.get("capturable", True) for group in optimizer.param_groups)


def test_optimizer_goes_on_with_a_rate_of_another_device():
    """As a tensor, or as a number: what the state had is not taken over."""
    model = Plain()
    optimizer = make_optimizer(model, plan())
    model(torch.zeros(1, 3, 8, 8)).position_map.sum().backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group |= {"lr": torch.tensor(0.5), "capturable": True}
    other = make_optimizer(model, plan(learning_rate=0.25))
    load_optimizer(other, state)
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.25]
    assert not any(group["capturable"] for group in other.param_groups)
    set_learning_rate(other, 0.125)
    other.step()
    steps = [entry["step"].item() for entry in other.state_dict()["state"].values()]
    assert set(steps) == {2.0}
    assert model.conv.weight.isfinite().all()
