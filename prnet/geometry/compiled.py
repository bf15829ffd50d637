"""Compiled loops: made when they are first called, and kept on disk between runs where that is
possible."""

import functools
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
# Its compiled functions are called by those of other rooms.
SHARED_ROOM = "geometry"


class Compiled:
    """A function that numba compiles, which is imported with the first call: whoever needs none of
    it does not wait for it, nor for a disk that it can write to."""

    def __init__(self, function: Callable, *, kept: bool, **options: object) -> None:
        self.function = function
        self.kept = kept  # on disk
        self.options = options
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: object) -> object:
        return self.dispatcher(*arguments)

    @functools.cached_property
    def dispatcher(self) -> Callable:
        """The function as numba has it; so are those that it calls from then on."""
        import numba

        function, scope = self.function, self.function.__globals__
        for name in function.__code__.co_names:
            if isinstance(scope.get(name), Compiled):
                scope[name] = scope[name].dispatcher
        if not self.kept:
            return numba.njit(**self.options)(function)
        # The name of the file that is kept has this name in it.
        function.__qualname__ += f"_{version_of(function.__module__.split('.')[1]):08x}"
        try:
            dispatcher = numba.njit(cache=True, **self.options)(function)
        except RuntimeError as error:  # neither the package's folder nor the user's can be written
            _say_once(str(error))
            return numba.njit(**self.options)(function)
        cache = dispatcher._cache
        cache.load_overload = _forgiving(cache.load_overload)
        cache.save_overload = _forgiving(cache.save_overload)
        return dispatcher


def cached(*, fastmath: bool | set[str] = False) -> Callable[[Callable], Compiled]:
    """Decorator: compile a function with all that it calls, once, and keep the result on disk until
    a source of its room (`prnet/ROOM/**`) or of geometry changes.

    Functions and constants of any of these sources may end up in the compiled code, while numba
    itself looks at the one file that the function stands in. Infinities and NaNs are always kept
    apart: say "contract", "reassoc", "arcp", "nsz" in place of True.
    """
    return functools.partial(Compiled, kept=True, error_model="numpy", fastmath=fastmath)


def inlined(**options: object) -> Callable[[Callable], Compiled]:
    """Decorator: a part of functions that are `cached`, with numba's own options."""
    return functools.partial(Compiled, kept=False, **options)


def in_memory(*values: "Tensor") -> bool:
    """Whether compiled loops may take them: nothing to differentiate or to trace, floats, and not
    on a GPU."""
    import torch

    return not torch.compiler.is_compiling() and not any(
        each.device.type != "cpu"
        or each.dtype not in (torch.float32, torch.float64)
        or (each.requires_grad and torch.is_grad_enabled())
        for each in values
    )


@functools.cache
def version_of(room: str) -> int:
    """Of all sources that may end up in a compiled function of a room."""
    sources = {path for name in (room, SHARED_ROOM) for path in (PACKAGE / name).rglob("*.py")}
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(sources)))


def _forgiving(touch_disk: Callable) -> Callable:
    """What is compiled works, whether or not it can be kept, and whatever was."""

    def touch_if_possible(*arguments: object) -> object:
        try:
            return touch_disk(*arguments)
        except Exception as error:  # noqa: BLE001 - damaged files raise nearly anything
            _say_once(str(error))
            return None

    return touch_if_possible


# Why the first of them could not be kept; the others mostly for the same reason.
_said: list[str] = []


def _say_once(reason: str) -> None:
    if not _said:
        _said.append(reason)
        log.warning(
            "compiled loops cannot be kept on disk and are made anew in each process, which takes "
            "some seconds (%s); NUMBA_CACHE_DIR=DIR keeps them elsewhere",
            reason,
        )
