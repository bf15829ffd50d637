"""What `--help` lists: `${choices:GROUP,...}` and `${experiments:}` in a configuration's text."""

import textwrap
from pathlib import Path

from omegaconf import OmegaConf

from prnet.entry import CONFIG_DIR, shipped_names

WIDTH = 110


def register() -> None:
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("experiments", experiments, replace=True)


def choices(*groups: str) -> str:
    """A line a group: what can be chosen of it."""
    return "\n".join(
        textwrap.fill(
            f"{group}={' | '.join(shipped_names(group))}",
            WIDTH,
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
        for group in groups
    )


def experiments() -> str:
    """A line an experiment, with the first words of its file."""
    names = shipped_names("experiment")
    width = max(map(len, names))
    return "\n".join(f"  +experiment={name:{width}}  {about(name)}" for name in names)


def about(experiment: str) -> str:
    """What the first comment of an experiment's file says, without the command."""
    for line in Path(CONFIG_DIR, "experiment", f"{experiment}.yaml").read_text().splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line[2:].partition(": python -m")[0].rstrip(":")
    return ""
