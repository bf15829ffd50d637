"""Checks of arguments that many constructors make: one message for each kind of mistake."""

from collections.abc import Iterable


def require_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise ValueError unless `value` is one of `choices`, which the message lists."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, choices))}")
