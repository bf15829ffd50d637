"""Short runs of the training loop, and the shipped configurations, composed once each."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from prnet.checkpoint import load_checkpoint
from prnet.datasets.augment import AugmentRule
from prnet.datasets.training_sets import TrainingData
from prnet.entry import CONFIG_DIR
from prnet.faces.face import Face
from prnet.geometry.position_map import PositionMapDecoder
from prnet.losses.loss import Loss
from prnet.models.network import Network
from prnet.training.loop import train
from prnet.training.plan import Plan
from prnet.training.processes import Processes
from tests.configurations import composed

CPU = Processes(0, 1, torch.device("cpu"))
EXPERIMENTS = sorted(path.stem for path in Path(CONFIG_DIR, "experiment").glob("*.yaml"))


def plan(**changes) -> Plan:
    values = {
        "epochs": 100,
        "max_steps": 4,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "rate_batch": None,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "clip_norm": None,
        "clip_from": 0,
        "batch_size": 2,
        "accumulate": 1,
        "precision": "fp32",
        "channels_last": True,
        "deterministic": False,
        "compile": False,
        "num_workers": 0,
        "resident": False,
        "log_every": 1,
        "validate_every": 100.0,
        "save_every": 2,
        "average": 0.0,
        "recompute_batch_norm": 0,
        "sync_batch_norm": False,
        "seed": 3,
    }
    return Plan(**values | changes)


def configuration(*overrides: str, **changes) -> DictConfig:
    """What train.yaml is with these overrides; `changes` name a value by its path, as
    `loss__stage=1`."""
    cfg = composed("train", *overrides)
    for path, value in changes.items():
        OmegaConf.update(cfg, path.replace("__", "."), value)
    return cfg


def train_as(
    cfg: DictConfig,
    model: Network,
    loss_fn: Loss,
    data: TrainingData,
    face: Face,
    run_dir: Path,
    *,
    resume: dict | None = None,
    **changes,
) -> dict:
    """A run with the optimiser, schedule and augmentation of a configuration; `changes` are fields
    of `Plan`. Returns its last checkpoint; `resume` is such a one, its weights loaded."""
    values = OmegaConf.to_container(cfg, resolve=True)
    optimizer, trainer = values["optimizer"], values["trainer"]
    values = {**trainer, "optimizer": optimizer.pop("name"), **optimizer, "num_workers": 0}
    values |= {"recompute_batch_norm": 0, "seed": 1, **changes}
    run_dir.mkdir(parents=True, exist_ok=True)
    train(
        model,
        loss_fn,
        data,
        PositionMapDecoder(face.morphable_model, face.uv, landmark_index=face.landmark_index),
        plan=Plan(**values),
        rule=AugmentRule(**OmegaConf.to_container(cfg.augment)),
        schedule=instantiate(cfg.scheduler),
        processes=CPU,
        run_dir=run_dir,
        header={"model": {"name": cfg.model.name}, "face": face.describe()},
        validate=None,
        resume=resume and resume["training"],
    )
    return load_checkpoint(run_dir / "last.pt")


def assert_equal_states(first: dict, second: dict) -> None:
    """Two checkpoints to the bit."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, dict):
            assert_equal_states(value, second[key])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key
        else:
            assert value == second[key], key
