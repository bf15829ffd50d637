"""Compiled loops that stay on disk between runs."""

import functools
import zlib
from collections.abc import Callable
from pathlib import Path

import numba

PACKAGE = Path(__file__).parents[1]
# Its compiled functions are called by those of other rooms.
SHARED_ROOM = "geometry"


def cached(*, fastmath: bool | set[str] = False) -> Callable[[Callable], Callable]:
    """Decorator: compile a function with all that it calls, once, and keep the result on disk until
    a source of its room (`prnet/ROOM/**`) or of geometry changes.

    Functions and constants of any of these sources may end up in the compiled code, while numba
    itself looks at the one file that the function stands in. Infinities and NaNs are always kept
    apart: say "contract", "reassoc", "arcp", "nsz" in place of True.
    """

    def compile_function(function: Callable) -> Callable:
        room = function.__module__.split(".")[1]
        # The name of the file that is kept has this name in it.
        function.__qualname__ += f"_{version_of(room):08x}"
        return numba.njit(cache=True, error_model="numpy", fastmath=fastmath)(function)

    return compile_function


@functools.cache
def version_of(room: str) -> int:
    """Of all sources that may end up in a compiled function of a room."""
    sources = {path for name in (room, SHARED_ROOM) for path in (PACKAGE / name).rglob("*.py")}
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(sources)))
