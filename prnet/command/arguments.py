"""What a command line may say: every key that the configuration of the verb has, every choice of
its groups, and what a constructor takes that a configuration names; all else is refused with what
comes nearest."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prnet.checks import nearest_of
from prnet.entry import CONFIG_DIR, OLD_SPELLINGS, shipped_names

# The one group that stands in no list of defaults; what it changes is all there already.
EXPERIMENT, TAKES_EXPERIMENTS = "experiment", ("train",)


def check_arguments(verb: str, arguments: Sequence[str], *, config_dir: str | None = None) -> None:
    """Refuse what the verb would not read; `config_dir`: more files, as of `--config-dir`.

    Raises:
        ValueError: an argument that cannot be read, an unknown key or choice, text in the place of
            a number, or a key of an experiment in `config_dir` that nothing reads.
    """
    if not arguments and config_dir is None:
        return
    for argument in arguments:
        given = argument.lstrip("+~")
        new = OLD_SPELLINGS.get(given) or OLD_SPELLINGS.get(given.partition("=")[0])
        if new is not None:
            raise ValueError(f"{argument} is now {new}")
    overrides = [override for override in map(_parsed, arguments) if not _is_hydras(override)]
    groups = [*_groups_of(verb), *([EXPERIMENT] if verb in TAKES_EXPERIMENTS else [])]
    choices = [override for override in overrides if override.key_or_group in groups]
    if config_dir is None:
        for override in choices:
            _check_choice(override)
    searched = [] if config_dir is None else [f"hydra.searchpath=['file://{config_dir}']"]
    chosen = [override.input_line for override in choices]
    tree = composed(verb, *searched, *chosen)
    for override in overrides:
        if override not in choices and not override.is_sweep_override():
            for key, value in _leaves(override.key_or_group, override.value()):
                _check_key(tree, key, value, override, verb)
    if config_dir is not None:
        picked = {name: tree.hydra.runtime.choices.get(name) for name in _groups_of(verb)}
        base = composed(verb, *searched, *(f"{name}={choice}" for name, choice in picked.items()))
        _check_read(tree, base)


def missing_values(cfg: DictConfig) -> list[str]:
    """The keys that have to be given and are not."""
    return sorted(OmegaConf.missing_keys(cfg))


def _parsed(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{argument}: cannot be read ({reason}); expected KEY=VALUE, and text with blanks, "
            "brackets, commas or = quoted twice: 'KEY=\"VALUE\"'"
        ) from error


def _is_hydras(override: Override) -> bool:
    """About Hydra itself, or of a form that only Hydra knows."""
    key = override.key_or_group
    return key.partition(".")[0].partition("/")[0] == "hydra" or override.package is not None


def _groups_of(verb: str) -> list[str]:
    """The groups that a verb's configuration chooses from."""
    defaults = OmegaConf.load(Path(CONFIG_DIR, f"{verb}.yaml")).get("defaults", [])
    names = (name for entry in defaults if isinstance(entry, DictConfig) for name in entry)
    return [name for name in names if not name.startswith("override ")]


def composed(verb: str, *arguments: str) -> DictConfig:
    """The verb's configuration with Hydra's own part, as Hydra's command line would have it.

    Raises:
        ValueError: Hydra refuses an argument or a file.
    """
    try:
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            return compose(verb, overrides=list(arguments), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        said = str(error).partition("Config search path")[0].split("\n")
        raise ValueError(" ".join(filter(None, map(str.strip, said)))) from error


def _check_choice(override: Override) -> None:
    group, value = override.key_or_group, override.value()
    if override.is_delete() or not isinstance(value, str | int):
        return
    names = shipped_names(group)
    if str(value) not in names:
        near = nearest_of(str(value), names)
        hint = f"the nearest is {near}; " if near else ""
        raise ValueError(f"{group}={value}: no such choice; {hint}there are {', '.join(names)}")
    if (group == EXPERIMENT) != override.is_add():
        plus = "+" if group == EXPERIMENT else ""
        raise ValueError(f"{override.input_line} is written {plus}{group}={value}")


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """`a={b: 1, c: 2}` as `a.b` and `a.c`."""
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, inner in value.items():
        yield from _leaves(f"{key}.{name}", inner)


def _check_key(tree: DictConfig, key: str, value: object, override: Override, verb: str) -> None:
    node, constructed = tree, False
    for depth, part in enumerate(key.split(".")):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
            break  # a list's index; Hydra sees to it
        constructed |= "_target_" in node
        if part in node.keys() and part != "hydra":  # noqa: SIM118 - a value to be given is one too
            node = node._get_node(part)
            continue
        # An empty mapping takes any key; a constructor what it names.
        if depth and (not len(node) or part in _parameters(node)):
            if not (override.is_add() or override.is_force_add()):
                raise ValueError(f"{override.input_line} is written +{override.input_line}")
            return
        near = nearest_key(key, _paths(tree))
        hint = f"the nearest is {near}" if near else "nothing is called so"
        raise ValueError(f"{key}: unknown; {hint} (prnet.{verb} --help lists all keys)")
    if not constructed and not isinstance(node, DictConfig) and not override.is_delete():
        _check_kind(key, node._value(), value)


def _check_kind(key: str, default: object, value: object) -> None:
    """Text where the configuration has a number, or the other way round, is a slip."""
    if not isinstance(value, str) or "${" in value:
        return
    if isinstance(default, bool):
        raise ValueError(f"{key}: got {value!r}, expected true or false")
    if isinstance(default, int | float):
        raise ValueError(f"{key}: got {value!r}, expected a number")


def _parameters(node: DictConfig) -> Iterable[str]:
    """What the constructor that a mapping names takes."""
    target = node.get("_target_")
    return () if target is None else inspect.signature(get_object(target)).parameters


def _paths(tree: DictConfig, start: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted."""
    for name in tree:
        if not start and name == "hydra":
            continue
        yield f"{start}{name}"
        node = tree._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from _paths(node, f"{start}{name}.")


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """The known key that is meant: spelled alike, or of another place, or abbreviated."""
    known = [path for path in known if not path.endswith("_target_")]
    last = key.rpartition(".")[2]
    lasts = {path: path.rpartition(".")[2] for path in known}
    for wanted in (last, *difflib.get_close_matches(last, lasts.values(), n=1, cutoff=0.75)):
        same = [path for path in known if lasts[path] == wanted]
        if same:
            return difflib.get_close_matches(key, same, n=1, cutoff=0)[0]
    initials = [path for path in known if last == "".join(w[:1] for w in lasts[path].split("_"))]
    return initials[0] if len(initials) == 1 else nearest_of(key, known)


def _check_read(tree: DictConfig, base: DictConfig, start: str = "") -> None:
    """Refuse keys that files add to a configuration and that neither a constructor takes nor a
    value refers to."""
    text = OmegaConf.to_yaml(tree) if not start else ""
    for name in tree:
        node, path = tree._get_node(name), f"{start}{name}"
        if path == "hydra":
            continue
        if name in base:
            known = base._get_node(name)
            if all(isinstance(one, DictConfig) and not one._is_none() for one in (node, known)):
                _check_read(node, known, f"{path}.")
        elif len(base) and name not in _parameters(tree):
            if not start and re.search(rf"\$\{{[^}}]*\b{re.escape(str(name))}\b", text):
                continue
            near = nearest_key(path, _paths(base)) if not start else nearest_of(name, base)
            raise ValueError(
                f"{path}: a file of the configuration sets it and nothing reads it"
                + (f"; the nearest is {near if not start else start + near}" if near else "")
            )
