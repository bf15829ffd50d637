"""Names and paths of a command line as they are typed.

Hydra reads `output=2024` as a number, `input=a,b.jpg` as a sweep, and refuses `photo (1).jpg`,
`epoch=3`, `#`, quotes and every letter beyond ASCII. Where a key takes a name, such a value is
quoted before Hydra sees it. What was quoted, `null` and `${...}` stay what they are.
"""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

# Keys that take one name, path or text, whatever it looks like.
TEXTS = frozenset(
    "boxes card.command card.commit card.data card.license checkpoint data_dir "
    "dataset.backgrounds dataset.landmarks dataset.pictures dataset.table experiment_name "
    "face.bfm_dir face.prnet_uv_dir hydra.run.dir hydra.sweep.dir init input landmarks "
    "loss.weight_picture name output override.yaw_labels pictures predictions "
    "protocol.crop.boxes protocol.yaw_labels report resume save_predictions source target "
    "whitening".split()
)
# Keys that take several: [NAME,NAME], or one without brackets. Names with commas are quoted there.
LISTS = frozenset(
    "built card.reports dataset.scans dataset.subsets ours override.exclude protocol.exclude "
    "reports".split()
)
LISTS_OF = {"compare": LISTS | {"predictions"}}
# KEY=VALUE with Hydra's plus signs, and one element of a list with the comma behind it.
ASSIGNMENT = re.compile(r"(?P<plus>\+{0,2})(?P<key>[\w.]+)=(?P<value>.*)", re.DOTALL)
ELEMENT = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,]*?)\s*(?:,|\Z)""", re.DOTALL)


def names_quoted(verb: str, arguments: Sequence[str], *, sweeps: bool = False) -> list[str]:
    """The arguments of a verb, quoted where Hydra would not read a name as it stands; `sweeps`: of
    a `--multirun`, whose a,b are two names."""
    lists = LISTS_OF.get(verb, LISTS)
    return [_quoted(argument, lists, sweeps) for argument in arguments]


def _quoted(argument: str, lists: frozenset[str], sweeps: bool) -> str:
    match = ASSIGNMENT.fullmatch(argument)
    if match is None or not match["value"] or match["key"] not in TEXTS | lists:
        return argument
    start, text = f"{match['plus']}{match['key']}=", match["value"]
    if (sweeps or match["key"] in lists) and _is_sweep(text):
        return argument
    return start + (_names(text) if match["key"] in lists else _name(text))


def _is_sweep(text: str) -> bool:
    try:
        return OverridesParser.create().parse_override(f"key={text}").is_sweep_override()
    except HydraException:
        return False


def _name(text: str) -> str:
    """The text as Hydra reads it as that text."""
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
        value = None if override.is_sweep_override() else override.value()
    except HydraException:
        value = None
    said = value == text or text.lower() == "null"
    # Quotes around it all, and escapes.
    said |= isinstance(value, str) and (text.strip()[0] in "\"'" or "\\" in text)
    return text if said else QuotedString(text, Quote.double).with_quotes()


def _names(text: str) -> str:
    """A list of such texts."""
    if text.lower() == "null":
        return text
    inside = text.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        return f"[{_name(text)}]"
    inside = inside[1:-1].strip()
    found = [match[1] for match in ELEMENT.finditer(inside)] if inside else []
    # The pattern also matches the nothing behind the last one.
    if inside and not inside.endswith(","):
        found.pop()
    return f"[{','.join(_name(one) if one else one for one in found)}]"
