"""SADRNet's experiments: the paper's values, Table IV's ticks, and a step of every one."""

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.datasets.built import BuiltSet
from prnet.datasets.evaluation import HeldOut
from prnet.datasets.training_sets import TrainingSets
from prnet.evaluation.protocol import Protocol
from prnet.training.schedule import warmup_decay
from tests.evaluations import score_network
from tests.plans import configuration, train_as
from tests.small_face import with_face

# Table IV: attention, self-alignment, deformation; and the terms of eq. 24 that are left.
ABLATIONS = {
    "sadrnet_ablation_a": (False, False, False, {"pose_dependent"}),
    "sadrnet_ablation_b": (
        False,
        False,
        True,
        {"geometry", "deformation", "edge", "normal"},
    ),
    "sadrnet_ablation_c": (
        False,
        True,
        True,
        {"geometry", "deformation", "pose_dependent", "edge", "normal"},
    ),
    "sadrnet_ablation_d": (True, False, False, {"pose_dependent", "attention"}),
    "sadrnet_ablation_e": (
        True,
        True,
        False,
        {"geometry", "deformation", "pose_dependent", "attention", "edge", "normal"},
    ),
    "sadrnet_ablation_f": (
        True,
        True,
        True,
        {"geometry", "deformation", "pose_dependent", "attention", "edge", "normal"},
    ),
    "sadrnet_ablation_no_mesh_losses": (
        True,
        True,
        True,
        {"geometry", "deformation", "pose_dependent", "attention"},
    ),
    "sadrnet_released": (
        True,
        True,
        True,
        {"deformation", "pose_dependent", "attention", "edge", "normal"},
    ),
}


def test_experiment_has_the_papers_values():
    """Section III-E: Adam, batch 16, 25 epochs, and its augmentation; eq. 24's coefficients."""
    cfg = configuration("+experiment=sadrnet")
    assert (cfg.trainer.batch_size, cfg.trainer.epochs) == (16, 25)
    assert cfg.augment.rotation_deg == 90
    assert cfg.augment.translation == 0.1
    assert list(cfg.augment.scale) == [0.9, 1.1]
    assert list(cfg.augment.color) == [0.6, 1.4]
    terms = ("geometry", "deformation", "pose_dependent", "attention", "edge", "normal")
    assert [cfg.loss[name] for name in terms] == [0.1, 0.5, 1, 0.05, 1, 0.1]
    assert list(cfg.loss.weights) == [16, 12, 3, 0]

    # The rate at each iteration: 1e-5 in the first, 1e-4 after 4 epochs, x 0.85 an epoch.
    schedule = instantiate(cfg.scheduler)
    rates = [cfg.optimizer.learning_rate * schedule(epoch, 25) for epoch in (0, 2, 4, 4.9, 5, 24.9)]
    expected = [1e-5, 5.5e-5, 1e-4, 1e-4, 8.5e-5, 1e-4 * 0.85**20]
    assert all(math.isclose(*pair, rel_tol=1e-9) for pair in zip(rates, expected, strict=True))


def test_warm_up_rises_by_the_same_amount_every_iteration():
    rule = {"warmup_epochs": 4, "start": 0.1, "factor": 0.85}
    factors = torch.tensor([warmup_decay(step / 100, 25, **rule) for step in range(401)])
    torch.testing.assert_close(factors.diff(), torch.full((400,), 0.9 / 400))


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_the_papers_ticks_and_train_and_are_scored(name, built_dir, face, tmp_path):
    attention, self_aligned, deformation, terms = ABLATIONS[name]
    cfg = configuration(f"+experiment={name}")
    assert cfg.name == name
    torch.manual_seed(0)
    model = instantiate(cfg.model.network, width=2)
    model.set_face(face)
    assert (model.attention is not None) == attention
    assert (model.geometry == "self_aligned") == self_aligned
    assert (model.deformation_head is not None and model.deformation) == deformation
    loss_fn = with_face(instantiate(cfg.loss), face)
    assert {term for term, value in loss_fn.coefficients.items() if value > 0} == terms

    before = {key: value.clone() for key, value in model.named_parameters()}
    sets = TrainingSets([built_dir], validation_fraction=0.0, face=face.describe())
    train_as(cfg, model, loss_fn, sets, face, tmp_path, batch_size=2, max_steps=2)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    heads = {name.partition(".")[0] for name in moved}
    trained = {name.partition(".")[0] for name in before}
    assert heads == trained  # every part of the network is taught by a term

    built = BuiltSet(built_dir)
    held = HeldOut(built, [0, 1]).with_truth_face(face)
    protocol = Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))
    report = score_network(model, held, face, protocol, batch_size=2)
    assert report["count"] == 2
    assert math.isfinite(report["metrics"]["nme_dense_3d"]["mean"])
