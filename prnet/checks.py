"""What many messages are made of: checks of a choice, of numbers, of names of files; differences
and lists of names."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # command lines are checked before anything heavy is imported
    import numpy as np

# Names that a message lists before it only counts.
MOST_NAMES = 10
# Fewer yaws may all be small by chance.
LEAST_YAWS = 10


def require_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise ValueError unless `value` is one of `choices`, which the message lists."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, choices))}")


def nearest_of(name: str, names: Iterable[str]) -> str | None:
    """The one that is spelled most like it; None where none is."""
    return next(iter(difflib.get_close_matches(name, list(map(str, names)), n=1, cutoff=0.7)), None)


def require_count(name: str, value: object, *, least: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number, `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected a whole number from {least} on")


def require_above_zero(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a finite number above 0."""
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: got {value!r}, expected a number above 0")


def require_finite(what: str, values: "np.ndarray") -> None:
    """Raise ValueError where an array, such as "FILE: NAME", holds NaN or infinity."""
    import numpy as np

    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds values that are not finite")


def differences(old: object, new: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Where plain values differ: the key, dotted, and both values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield path, old, new
        return
    for key in sorted(old.keys() | new.keys()):
        yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)


def require_degrees(what: object, values: "np.ndarray") -> None:
    """Raise ValueError where yaws are none: beyond half a turn, or all of many so small that they
    are radians."""
    import numpy as np

    largest = float(np.abs(values).max(initial=0))
    if not largest <= 180:
        raise ValueError(f"{what}: a yaw of {largest:.4g}, expected degrees from -180 to 180")
    if np.size(values) >= LEAST_YAWS and largest <= np.pi:
        raise ValueError(
            f"{what}: the largest of {np.size(values)} yaws is {largest:.3g}, as of radians; "
            "expected degrees"
        )


def require_inside(what: object, names: Iterable[str]) -> None:
    """Raise ValueError where a name of a file, of this system or of Windows, is absolute or goes
    up: nothing is read or written outside the folder that was given."""
    outside = [
        name
        for name in names
        for path in (PurePosixPath(name), PureWindowsPath(name))
        if path.anchor or ".." in path.parts
    ]
    if outside:
        raise ValueError(
            f"{what}: {outside[0]!r} leaves its folder; expected names without .. that do not "
            "begin with a slash or a drive"
        )


def faults_listed(faults: Mapping[str, Sequence[str]]) -> str:
    """`2 missing (a, b); 7 unexpected (c, d, e, f, g, ...)` of names by kind; empty without any."""
    return "; ".join(
        f"{len(names)} {kind} ({_first(names, 5)})" for kind, names in faults.items() if names
    )


def name_list(names: Iterable[str]) -> str:
    """`3: image00002, image00004, image00006`, cut short with an ellipsis, for a message."""
    names = list(names)
    return f"{len(names)}: {_first(names, MOST_NAMES)}"


def _first(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
