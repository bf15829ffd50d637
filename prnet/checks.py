"""What many messages are made of: one check of a choice, one list of names."""

from collections.abc import Iterable

import numpy as np

# Names that a message lists before it only counts.
MOST_NAMES = 10


def require_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise ValueError unless `value` is one of `choices`, which the message lists."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, choices))}")


def require_finite(what: str, values: np.ndarray) -> None:
    """Raise ValueError where an array, such as "FILE: NAME", holds NaN or infinity."""
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds values that are not finite")


def name_list(names: Iterable[str]) -> str:
    """`3: image00002, image00004, image00006`, cut short with an ellipsis, for a message."""
    names = list(names)
    shown = ", ".join(names[:MOST_NAMES])
    return f"{len(names)}: {shown}{', ...' if len(names) > MOST_NAMES else ''}"
