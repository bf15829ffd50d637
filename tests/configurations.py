"""The configurations of the commands. Hydra reads the files once for each choice of groups: that
takes far longer than changing values."""

import copy
import functools
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from prnet.entry import CONFIG_DIR


def composed(command: str, *words: str) -> DictConfig:
    """What Hydra composes for `python -m prnet.COMMAND WORDS`, free to be changed."""
    overrides = OverridesParser.create().parse_overrides(list(words))
    values = [override for override in overrides if changes_a_value(override)]
    choices = [override.input_line for override in overrides if not changes_a_value(override)]
    cfg = copy.deepcopy(_chosen(command, *choices))
    for override in values:
        OmegaConf.update(cfg, override.key_or_group, override.value())
    return cfg


def changes_a_value(override: Override) -> bool:
    """It neither chooses a file, nor adds or deletes a key, nor is it about Hydra itself."""
    key = override.key_or_group
    is_group = "@" in override.input_line or Path(CONFIG_DIR, key).is_dir()
    plain = override.input_line[0] not in "+~" and not override.is_sweep_override()
    return plain and not is_group and not key.startswith("hydra")


@functools.cache
def _chosen(command: str, *choices: str) -> DictConfig:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(command, overrides=list(choices))
