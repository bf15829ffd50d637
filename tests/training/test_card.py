"""A step of training on a card: nothing that host and card wait for each other, in any
experiment, and one graph for all of it."""

import copy
from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.datasets.augment import AugmentRule, Draws, augmented, draw
from prnet.datasets.resident import ResidentSet, room_of
from prnet.datasets.training_sets import TrainingSets
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.loss import Loss
from prnet.models.network import Network
from prnet.sample import FaceSample, FitBatch
from prnet.training.optimizer import make_optimizer
from tests.cards import Waits, imagined_card, on_card
from tests.plans import configuration, plan
from tests.tiny import NUM_EXP, NUM_SHAPE

SIZE = 256
COEFFICIENTS = {"model__network__num_shape": NUM_SHAPE, "model__network__num_exp": NUM_EXP}
TWO_DASL = COEFFICIENTS | {
    "model__network__backbone": "mobilenet_v2",
    "model__network__input_side": 64,
    "loss__stage": 1,
}
NARROW = {"model__network__width": 2}
# Name -> command line, changes, and what a batch brings besides fits.
STEPS = {
    "prn": ("+experiment=prn", NARROW, ()),
    "compact": ("model=compact dataset=300w_lp augment=prn", {"model__network__width": 1}, ()),
    "mobile_frnet": ("+experiment=mobile_frnet", COEFFICIENTS, ()),
    "sadrnet": ("+experiment=sadrnet", NARROW, ()),
    "sadrnet_synthetic": ("+experiment=sadrnet", NARROW, ("visible",)),
    "sadrnet_released": ("+experiment=sadrnet_released", NARROW, ()),
    "sadrnet_pose": ("+experiment=sadrnet_ablation_b", NARROW, ()),
    "2dasl": ("+experiment=2dasl", TWO_DASL, ()),
    "2dasl_landmarks": ("+experiment=2dasl", TWO_DASL | {"augment__mirror": 0.5}, ("landmarks",)),
    "2dasl_stage2": ("+experiment=2dasl", TWO_DASL | {"loss__stage": 2}, ()),
    "swift": (
        "+experiment=swift",
        COEFFICIENTS | {"model__network__pairs": 12, "loss__pairs": 12},
        (),
    ),
}


def batch_of(face: Face, count: int, brings: tuple[str, ...]) -> FitBatch:
    """Random pictures of the mean face."""
    generator = torch.Generator().manual_seed(0)
    image_from_model = camera.image_from_model(
        torch.tensor(6e-4), torch.zeros(3), torch.tensor([90.0, 100.0, 0.0]), torch.tensor(200.0)
    )
    crop = camera.crop_from_image(torch.tensor([90.0, 100.0]), torch.tensor(150.0))
    picture = torch.randint(0, 256, (count, 3, 200, 180), dtype=torch.uint8, generator=generator)
    batch = FitBatch(
        picture=picture,
        crop_from_picture=crop.repeat(count, 1, 1),
        crop_from_model=(crop @ image_from_model).repeat(count, 1, 1),
        shape_params=torch.zeros(count, face.morphable_model.num_shape),
        exp_params=torch.zeros(count, face.morphable_model.num_exp),
    )
    if "landmarks" in brings:
        has_fit = torch.arange(count) % 2 == 0
        landmarks = 255 * torch.rand(count, 68, 2, generator=generator)
        landmarks[has_fit] = float("nan")
        batch = batch._replace(landmarks=landmarks, has_fit=has_fit)
    if "visible" in brings:
        batch = batch._replace(visible=255 * (picture[:, 0] > 100).to(torch.uint8))
    return batch


class Step:
    """One experiment's batch, network and loss."""

    def __init__(self, name: str, face: Face, count: int = 4) -> None:
        words, changes, brings = STEPS[name]
        face = copy.deepcopy(face)  # `move` changes what the network keeps of it
        self.cfg = configuration(*words.split(), **changes)
        torch.manual_seed(0)
        self.model: Network = instantiate(self.cfg.model.network).train()
        self.loss_fn: Loss = instantiate(self.cfg.loss)
        self.model.set_face(face)
        self.loss_fn.set_face(face)
        if self.model.needs_statistics:
            parameters = torch.ones(self.model.num_parameters)
            self.model.set_statistics(parameters, parameters)
            self.loss_fn.set_statistics(parameters, parameters)
        self.loss_fn.start_step(0.0)
        self.decoder = PositionMapDecoder(
            face.morphable_model, face.uv, landmark_index=face.landmark_index
        )
        self.rule = AugmentRule(**OmegaConf.to_container(self.cfg.augment))
        self.targets = self.loss_fn.targets | set(self.model.inputs)
        self.batch = batch_of(face, count, brings)
        self.draws: Draws = draw(count, SIZE, self.rule, torch.Generator().manual_seed(0))

    def move(self) -> None:
        """To the card, as far as one can imagine it."""
        for name in ("model", "loss_fn", "decoder", "batch", "draws"):
            setattr(self, name, on_card(getattr(self, name)))

    def sample(self) -> FaceSample:
        return augmented(self.batch, self.decoder, self.rule, self.draws, targets=self.targets)

    def forward(self) -> tuple:
        """Prediction, sample, losses."""
        sample = self.sample()
        given = (getattr(sample, name) for name in self.model.inputs)
        prediction = self.model(sample.image.contiguous(memory_format=torch.channels_last), *given)
        return prediction, sample, self.loss_fn(prediction, sample)


@pytest.mark.parametrize("name", STEPS)
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
    """Backward, update, and what the loss learns itself."""
    step = Step(name, face, count=2)
    optimizer = make_optimizer(step.model, plan(optimizer=step.cfg.optimizer.name))
    for _ in range(2):  # the optimisers make their state in the first
        prediction, sample, losses = step.forward()
        optimizer.zero_grad(set_to_none=True)
        with Waits() as waits:
            sum(losses.values()).backward()
            optimizer.step()
            step.loss_fn.after_step(prediction, sample)
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
    """No break, and no other graph for other numbers in another epoch."""
    torch.compiler.reset()
    step = Step(name, face, count=2)
    graphs = []

    def keep(graph: torch.fx.GraphModule, _inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda: step.forward()[2], backend=keep, fullgraph=True)
    for seed in (0, 1, 2):
        step.loss_fn.start_step(0.1 * seed)
        step.draws = draw(2, SIZE, step.rule, torch.Generator().manual_seed(seed))
        losses = compiled()
        assert all(term.isfinite() for term in losses.values())
    assert len(graphs) == 1
    torch.compiler.reset()


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
