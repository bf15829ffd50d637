"""One training step of each experiment, at tiny sizes, to be run anywhere."""

import copy

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.datasets.augment import AugmentRule, Draws, augmented, draw
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.losses.loss import Loss, target_decoder
from prnet.models.network import Network
from prnet.sample import FaceSample, FitBatch
from prnet.training.step import Forward, Made
from tests.cards import on_card
from tests.plans import configuration
from tests.tiny import NUM_EXP, NUM_SHAPE

SIZE = 256
COEFFICIENTS = {"model__network__num_shape": NUM_SHAPE, "model__network__num_exp": NUM_EXP}
TWO_DASL = COEFFICIENTS | {
    "model__network__backbone": "mobilenet_v2",
    "model__network__input_side": 64,
    "loss__stage": 1,
}
NARROW = {"model__network__width": 2}
SWIFT = COEFFICIENTS | {"model__network__pairs": 12, "loss__pairs": 12}
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
    "swift": ("+experiment=swift", SWIFT, ()),
}
# Of every other experiment, by the network.
SMALL = {"prn": NARROW, "sadrnet": NARROW, "2dasl": TWO_DASL, "swift": SWIFT}


def settings_of(name: str) -> tuple[str, dict, tuple[str, ...]]:
    """As `STEPS` has them, of an experiment that it has not."""
    words = f"+experiment={name}"
    network = configuration(words).model.name
    return words, SMALL.get(network, COEFFICIENTS), ()


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
        words, changes, brings = STEPS.get(name) or settings_of(name)
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
        self.decoder = target_decoder(self.loss_fn, face)
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

    def forward(self) -> Made:
        return Forward(self.model, self.loss_fn, self.decoder, self.rule)(self.batch, self.draws)
