"""What only a CUDA card can show; `pytest -m gpu` on a machine that has one."""

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prnet.checkpoint import load_checkpoint
from prnet.datasets.augment import draw
from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.training_sets import StepSampler, TrainingSets
from prnet.sample import FitBatch
from prnet.train import read_settings, run
from prnet.training.feeding import feed, moved
from prnet.training.optimizer import make_optimizer
from prnet.training.processes import Processes
from prnet.training.step import Forward, compiled
from prnet.training.step_log import OnItsWay
from tests.plans import CPU, assert_equal_states, configuration, plan
from tests.steps import STEPS, Step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here"),
]
CARD = torch.device("cuda")
PROCESSES = Processes(0, 1, CARD)


class OnCard(Step):
    """A step on a device, of numbers that were drawn on the CPU."""

    def __init__(self, name: str, face, device: torch.device = CARD) -> None:
        super().__init__(name, face, count=4)
        face = face.to(device)
        for module in (self.model, self.loss_fn, self.decoder):
            module.to(device)
        self.model.set_face(face)
        self.loss_fn.set_face(face)
        self.batch = self.batch.to(device)
        self.draws = pytree.tree_map_only(Tensor, lambda one: one.to(device), self.draws)
        self.model.to(memory_format=torch.channels_last)

    def call(self, scope: str = "no", precision: str = "fp32") -> Forward:
        forward = Forward(
            self.model, self.loss_fn, self.decoder, self.rule, scope=scope, precision=precision
        )
        return compiled(forward, scope)


@pytest.fixture(autouse=True)
def exact():
    """Whole float32, as `prepare_card` sets it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.compiler.reset()
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_that_of_the_cpu(name, face):
    """Image and targets as rounding has them, losses too."""
    there, here = OnCard(name, face, CPU.device), OnCard(name, face)
    one, other = (step.call()(step.batch, step.draws) for step in (there, here))
    torch.testing.assert_close(other.sample.image.cpu(), one.sample.image, rtol=0, atol=5e-4)
    assert other.losses.keys() == one.losses.keys()
    for term, value in one.losses.items():
        torch.testing.assert_close(other.losses[term].cpu(), value, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("name", STEPS)
def test_nothing_waits(name, face):
    """The whole step, its random numbers and its log, once all is warm; what CUDA itself sees."""
    step = OnCard(name, face)
    forward = step.call()
    optimizer = make_optimizer(step.model, plan(optimizer=step.cfg.optimizer.name), CARD)
    generator = torch.Generator(CARD).manual_seed(0)
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        made = forward(step.batch, draw(4, CROP_SIZE, step.rule, generator))
        optimizer.zero_grad(set_to_none=True)
        sum(made.losses.values()).backward()
        optimizer.step()
        taught = step.loss_fn.after_step(made.prediction, made.sample)
        on_its_way = OnItsWay({**made.losses, **taught})
    torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(torch.tensor(list(on_its_way.arrived().values()))))


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["step", "graphs"])
@pytest.mark.parametrize("name", ["prn", "sadrnet", "mobile_frnet", "2dasl", "swift"])
def test_a_compiled_step_learns_the_same(name, scope, face):
    """Ten steps of it, in one graph, as ten steps without."""
    losses = {}
    for chosen in ("no", scope):
        torch.manual_seed(0)
        step = OnCard(name, face)
        forward = step.call(chosen)
        optimizer = make_optimizer(step.model, plan(optimizer="sgd", learning_rate=1e-5), CARD)
        generator = torch.Generator(CARD).manual_seed(0)
        torch._dynamo.utils.counters.clear()
        for _ in range(10):
            torch.compiler.cudagraph_mark_step_begin()
            made = forward(step.batch, draw(4, CROP_SIZE, step.rule, generator))
            optimizer.zero_grad(set_to_none=True)
            sum(made.losses.values()).backward()
            optimizer.step()
        losses[chosen] = OnItsWay(made.losses).arrived()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for term, value in losses["no"].items():
        assert losses[scope][term] == pytest.approx(value, rel=5e-2, abs=1e-3)


def test_batches_of_the_card_are_those_of_the_loader(built_dir, face):
    """Read there, or copied beside a step that is kept busy."""
    data = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    rule = Step("prn", face).rule
    found = []
    for resident, processes in ((True, PROCESSES), (False, PROCESSES), (False, CPU)):
        sampler = StepSampler(data, batch_size=2, seed=4)
        settings = plan(resident=resident)
        batches = feed(data, sampler, settings, rule, processes, steps=9, one_size=True)
        busy = torch.zeros(2000, 2000, device=processes.device)
        own = []
        for batch, _ in zip(batches, range(9), strict=False):
            busy = busy @ busy
            own.append(batch.to("cpu"))
        found.append(own)
    for first, *others in zip(*found, strict=True):
        for other in others:
            assert torch.equal(first.picture, other.picture)
            assert torch.equal(first.crop_from_picture, other.crop_from_picture)


def test_what_is_copied_beside_a_step_has_arrived():
    """Also where the memory of a batch is soon another's."""
    batches = (_numbered(number) for number in range(50))
    for number, batch in enumerate(moved(batches, CARD)):
        assert (batch.shape_params == number).all()
        del batch


def _numbered(number: int) -> FitBatch:
    full = torch.full((64, 1000), float(number)).pin_memory()
    return FitBatch(*(full,) * 5)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["prn", "sadrnet"])
def test_a_deterministic_run_is_resumed_to_the_bit(experiment, tiny_data_dir, built_dir, tmp_path):
    def trained(folder: str, *words: str) -> dict:
        cfg = configuration(
            f"+experiment={experiment}",
            f"data_dir={tiny_data_dir}",
            f"built={built_dir}",
            "device=cuda",
            "validation_fraction=0",
            "model.network.width=2",
            "trainer.batch_size=2",
            "trainer.deterministic=true",
            *words,
        )
        run(read_settings(cfg), tmp_path / folder)
        return load_checkpoint(tmp_path / folder / "last.pt")

    whole = trained("whole", "trainer.max_steps=4")
    trained("half", "trainer.max_steps=2")
    resumed = trained("on", "trainer.max_steps=4", f"resume={tmp_path / 'half' / 'last.pt'}")
    assert_equal_states(whole, resumed)
