"""Which losses teach which networks, before any data is opened."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prnet.entry import CONFIG_DIR, shipped_values
from prnet.train import read_settings, shipped_losses
from prnet.training.matching import require_match
from tests.plans import configuration

LOSSES = sorted(file.stem for file in Path(CONFIG_DIR, "loss").glob("*.yaml"))
MODELS = sorted(file.stem for file in Path(CONFIG_DIR, "model").glob("*.yaml"))
ON_MAPS = {"prn"}
ON_FACES = {"prn", "sadrnet", "sadrnet_released"}
ON_PARAMETERS = {"pdc", "vdc", "wing", "wpdc", "wpdc_wing"}
FITTING = {
    "2dasl": ON_PARAMETERS | {"2dasl"},
    "compact": ON_MAPS,
    "prn": ON_MAPS,
    "prn_pytorch": ON_MAPS,
    "swift": {"points"},
    "sadrnet": ON_FACES,
    "sadrnet_released": ON_FACES,
}


@pytest.mark.parametrize("model", MODELS)
def test_every_pair_fits_or_is_refused_with_the_names_that_do(model):
    configured = OmegaConf.create(shipped_values("model", model))
    thin = {"width": 2} if "width" in configured.network else {}
    network = instantiate(configured.network, **thin)
    losses = shipped_losses(configured)
    assert sorted(losses) == LOSSES
    fitting = FITTING.get(model, ON_PARAMETERS)
    for name, loss_fn in losses.items():
        if name in fitting:
            require_match(network, loss_fn, lambda: losses)
            continue
        with pytest.raises(ValueError, match="^loss: needs ") as refused:
            require_match(network, loss_fn, lambda: losses)
        message = str(refused.value)
        assert "\n" not in message
        named = message.partition("losses that fit: ")[2].partition(", or ")[0]
        assert set(named.split(", ")) == fitting


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=mobile_frnet", "loss=prn"],
            "needs position_map, and the network predicts parameters; losses that fit: pdc, vdc, ",
        ),
        (
            ["model=prn", "loss=wing"],
            "needs parameters, and the network predicts position_map; losses that fit: prn$",
        ),
        (
            ["model=sadrnet", "loss=sadrnet", "model.network.attention=false"],
            r"needs attention_logits, .*losses that fit: prn, or set the terms that need more to 0",
        ),
        (
            ["model=2dasl", "loss=2dasl", "model.network.cycle=false"],
            r"needs cycle_parameters, .*, or set the terms that need more to 0",
        ),
        (
            ["model=resnet50", "loss=wing", "loss.num_exp=3"],
            "compares 55 parameters, and the network predicts 62; give both the same num_shape",
        ),
    ],
)
def test_a_command_is_refused_before_data_is_opened(words, message):
    """No archive, no face model is there."""
    with pytest.raises(ValueError, match=f"^loss: {message}"):
        read_settings(configuration(*words, "data_dir=nowhere", "dataset=300w_lp"))
