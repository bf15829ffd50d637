"""A short plan of the training loop."""

from prnet.training.loop import Plan


def plan(**changes) -> Plan:
    values = {
        "epochs": 100,
        "max_steps": 4,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "batch_size": 2,
        "precision": "fp32",
        "channels_last": True,
        "compile": False,
        "num_workers": 0,
        "log_every": 1,
        "validate_every": 100.0,
        "save_every": 2,
        "recompute_batch_norm": 0,
        "seed": 3,
    }
    return Plan(**values | changes)
