"""What `--help` lists: `${choices:GROUP,...}`, `${experiments:}` and `${options:KEY,...}` in a
configuration's text."""

import json
import re
import string
import textwrap
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from prnet.entry import CONFIG_DIR, shipped_names

WIDTH = 110
# A line of a configuration: indent, key, what it says of the key.
LINE = re.compile(r"( *)(\w+):(?: [^#\n]*?)?(?:  # (.*))?")


def register() -> None:
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("experiments", experiments, replace=True)
    OmegaConf.register_new_resolver("options", options, replace=True)


def help_of(cfg: DictConfig) -> str:
    """What `--help` prints of a verb's configuration (`prnet.command.arguments.composed`)."""
    return string.Template(cfg.hydra.help.template).substitute() + "\n"


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


def options(*unused: str, _root_: DictConfig) -> str:
    """The configuration as YAML, each key with what its file says of it; without `unused` keys,
    which others of the file's readers have."""
    own = OmegaConf.to_container(_root_, resolve=False)
    notes = dict(_notes(Path(CONFIG_DIR, f"{_root_.hydra.job.config_name}.yaml"), ""))
    for group, chosen in _root_.hydra.runtime.choices.items():
        if group in own and Path(CONFIG_DIR, group).is_dir():
            for file in _with_parents(Path(CONFIG_DIR, group, f"{chosen}.yaml")):
                notes |= dict(_notes(file, f"{group}."))
    del own["hydra"]
    # Hydra puts values in the place of what begins with a dollar.
    return "\n".join(_lines(own, notes, frozenset(unused))).replace("$", "$$")


def _with_parents(file: Path) -> Iterator[Path]:
    """A file behind those that it names first and changes."""
    for parent in OmegaConf.load(file).get("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            yield from _with_parents(file.with_name(f"{parent}.yaml"))
    yield file


def _notes(file: Path, start: str) -> Iterator[tuple[str, str]]:
    """Dotted key -> comment of a file whose keys lie under `start`, or where it says itself."""
    text = file.read_text()
    start = "" if text.startswith("# @package _global_") else start
    path: list[tuple[int, str]] = []
    for match in filter(None, map(LINE.fullmatch, text.splitlines())):
        while path and path[-1][0] >= len(match[1]):
            path.pop()
        path.append((len(match[1]), match[2]))
        if match[3]:
            yield start + ".".join(name for _, name in path), match[3]


def _lines(values: dict, notes: dict, unused: frozenset[str], start: str = "") -> Iterator[str]:
    indent = "  " * start.count(".")
    for key, value in values.items():
        path = f"{start}{key}"
        if path in unused or key == "_target_":
            continue
        note = f"  # {notes[path]}" if path in notes else ""
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:{note}"
            yield from _lines(value, notes, unused, f"{path}.")
        else:
            yield f"{indent}{key}: {_text(value)}{note}"


def _text(value: object) -> str:
    """A value as one would type it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return value if isinstance(value, str) and value else json.dumps(value)
