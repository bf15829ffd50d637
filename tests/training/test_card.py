"""A step of training on a card: nothing that host and card wait for each other, in any
experiment, and one graph for all of it."""

import copy
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prnet.datasets.augment import draw
from prnet.datasets.resident import ResidentSet, room_of
from prnet.datasets.training_sets import TrainingSets
from prnet.training.average import WeightAverage
from prnet.training.loop import unreachable_share
from prnet.training.optimizer import make_optimizer, set_learning_rate
from tests.cards import Waits, imagined_card, on_card
from tests.plans import EXPERIMENTS, plan
from tests.steps import SIZE, STEPS, Step


@pytest.mark.parametrize(
    "name",
    [
        *STEPS,
        *(pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS if name not in STEPS),
    ],
)
def test_no_wait_from_the_batch_to_its_losses(name, face):
    """And no tensor of the host meets one of the card."""
    step = Step(name, face)
    with imagined_card(), Waits() as waits:
        step.move()
        waits.found.clear()
        _, _, losses = step.forward()
        total = sum(losses.values())
    assert total.device.type == "cuda"
    assert waits.found == []


def test_no_wait_for_a_batch_of_a_set_that_lies_there(built_dir, face):
    data = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    resident = ResidentSet(
        data.concatenated(), room_of(data.extents(150.0)), torch.device("cpu"), reach=150.0
    )
    with imagined_card(), Waits() as waits:
        for name in ("rows", "heights", "first_row", "fields"):
            setattr(resident, name, on_card(getattr(resident, name)))
        resident.device = torch.device("cuda")
        index = torch.zeros(4, dtype=torch.int64, device="cuda")
        waits.found.clear()
        batch = resident.gathered(index)
    assert batch.picture.device.type == "cuda"
    assert batch.picture.shape[0] == 4
    assert waits.found == []


LEARNING = ["prn", "compact", "mobile_frnet", "sadrnet", "2dasl", "2dasl_landmarks", "swift"]


@pytest.mark.parametrize("name", LEARNING)
def test_no_wait_from_the_losses_to_the_next_step(name, face):
    """Backward, clipping, update, what is averaged, what the loss learns itself, what is told of
    the targets, and the next step's rate."""
    step = Step(name, face, count=2)
    optimizer = make_optimizer(step.model, plan(optimizer=step.cfg.optimizer.name))
    average = WeightAverage(step.model, 0.9)
    for number in range(2):  # the optimisers make their state in the first
        prediction, sample, losses = step.forward()
        optimizer.zero_grad(set_to_none=True)
        with Waits() as waits:
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(step.model.parameters(), 1.0)
            optimizer.step()
            average.update(number + 1)
            step.loss_fn.after_step(prediction, sample)
            if sample.position_map is not None and step.loss_fn.weight_mask is not None:
                unreachable_share(sample.position_map, step.loss_fn.weight_mask, step.model)
            set_learning_rate(optimizer, 1e-4)
            step.loss_fn.start_step(number + 0.5)
    assert waits.found == []


@pytest.mark.parametrize(
    "name",
    [
        *("prn", "sadrnet", "swift"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("mobile_frnet", "2dasl_landmarks")
        ),
    ],
)
def test_one_graph_from_the_batch_to_its_losses(name, face):
    """No break, and no other graph for other numbers in another epoch; what it computes is what
    compiled loops and LAPACK make of it without."""
    torch.compiler.reset()
    step = Step(name, face, count=2)
    graphs = []

    def keep(graph: torch.fx.GraphModule, _inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(step.forward, backend=keep, fullgraph=True)
    for seed in (0, 1, 2):
        step.loss_fn.start_step(0.1 * seed)
        step.draws = draw(2, SIZE, step.rule, torch.Generator().manual_seed(seed))
        state = copy.deepcopy(step.model.state_dict())
        _, sample, losses = compiled()
        step.model.load_state_dict(state)
        _, own_sample, own_losses = step.forward()
        # Of random pictures, whose grey levels are 255 a px; a shape map has some 1e5.
        torch.testing.assert_close(sample.image, own_sample.image, rtol=0, atol=2e-4)
        for one, other in zip(sample[1:3], own_sample[1:3], strict=True):
            assert one is None or (one - other).abs().max() < 1e-6 * other.abs().max()
        assert losses.keys() == own_losses.keys()
        for term, value in losses.items():
            torch.testing.assert_close(value, own_losses[term], rtol=1e-2, atol=1e-4)
    assert len(graphs) == 1
    torch.compiler.reset()


class Halved(TorchDispatchMode):
    """The package's functions, FILE FUNCTION, that compute with bfloat16, and the dtypes of what
    batch norms keep."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.kept: set[torch.dtype] = set()

    def __torch_dispatch__(self, operation, _types, given=(), options=None):
        result = operation(*given, **(options or {}))
        tensors = [
            part for part in pytree.tree_leaves((given, options)) if isinstance(part, Tensor)
        ]
        name = operation.overloadpacket.__name__
        back = name == "_to_copy" and result.dtype == torch.float32
        if any(tensor.dtype == torch.bfloat16 for tensor in tensors) and not back:
            frame = sys._getframe()
            while "/prnet/" not in frame.f_code.co_filename:
                frame = frame.f_back
            path = frame.f_code.co_filename.rpartition("/prnet/")[2]
            self.places.add(f"{path} {frame.f_code.co_name}")
        if "batch_norm" in name:
            self.kept |= {tensor.dtype for tensor in tensors[1:]}
        return result


@pytest.mark.parametrize("name", ["prn", "sadrnet", "mobile_frnet", "2dasl", "swift"])
def test_bf16_is_of_layers_alone(name, face):
    """Heads, alignment, decoding, the inverse of the crop, its grid, losses and what batch norms
    keep are float32."""
    step = Step(name, face, count=2)
    with torch.autocast("cpu", torch.bfloat16, enabled=False), Halved() as halved:
        sample = step.sample()
        given = (getattr(sample, field) for field in step.model.inputs)
        with torch.autocast("cpu", torch.bfloat16):
            prediction = step.model(sample.image, *given)
        losses = step.loss_fn(prediction, sample)
    assert halved.places
    rooms = {place.partition("/")[0] for place in halved.places}
    assert rooms == {"models"}, halved.places
    assert not any("align" in place for place in halved.places), halved.places
    assert halved.kept <= {torch.float32}
    for value in [*pytree.tree_leaves(prediction), *losses.values()]:
        assert value is None or value.dtype == torch.float32


def test_waits_are_seen():
    """One of every kind, or the tests above would pass with any."""
    with imagined_card():
        values, chosen = torch.zeros(4, 3, device="cuda"), torch.zeros(4, device="cuda") > 0
        for wait in (
            lambda: values[:, [0, 2]],
            lambda: values.new_tensor([1.0, 2.0]),
            lambda: torch.linalg.inv(values[:3]),
            lambda: values.__setitem__((0, 0), 1.0),
        ):
            with Waits() as waits:
                wait()
            assert waits.found
        for wait in (
            lambda: values[chosen],
            lambda: float(values.sum()),
            lambda: chosen.nonzero(),
            lambda: bool(chosen.any()),
            lambda: values * torch.ones(3),
        ):
            with pytest.raises(Exception, match="aten|cuda:0 and cpu"):
                wait()
