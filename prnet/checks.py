"""Checks of arguments that many constructors make: one message for each kind of mistake."""

from collections.abc import Iterable

import numpy as np


def require_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise ValueError unless `value` is one of `choices`, which the message lists."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, choices))}")


def require_finite(what: str, values: np.ndarray) -> None:
    """Raise ValueError where an array, such as "FILE: NAME", holds NaN or infinity."""
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds values that are not finite")
