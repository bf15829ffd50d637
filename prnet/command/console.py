"""What a command says: lines that do not tear the progress bars, also to a reader that has gone."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class Console(logging.StreamHandler):
    """Lines above the bars. A reader that has gone (`| head`) hears no more, and the work goes
    on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            bars = sys.modules.get("tqdm")  # none is drawn where nobody has imported it
            if bars is None:
                self.stream.write(self.format(record) + self.terminator)
            else:
                bars.tqdm.write(self.format(record), file=self.stream)
            self.stream.flush()
        except BrokenPipeError:
            silence(self.stream)
        except Exception:  # noqa: BLE001 - as logging's own handlers
            self.handleError(record)


class Errors:
    """stderr, where the bars are drawn: a reader that has gone (`2>&1 | head`) does not end the
    work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._heard():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._heard():
            self._stream.flush()

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            silence(self._stream)


def speak() -> None:
    """Put a `Console` in the place of every handler that writes to the terminal, and `Errors` in
    that of stderr."""
    root = logging.getLogger()
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its cache of fonts
    for handler in list(root.handlers):
        if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
            console = Console(handler.stream)
            console.setFormatter(handler.formatter)
            console.setLevel(handler.level)
            root.removeHandler(handler)
            root.addHandler(console)
    if sys.stderr is not None and not isinstance(sys.stderr, Errors):
        sys.stderr = Errors(sys.stderr)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on the terminal what is waited for, until the block ends; a log is not told."""
    seen = sys.stderr is not None and sys.stderr.isatty()
    if seen:
        sys.stderr.write(what)
        sys.stderr.flush()
    try:
        yield
    finally:
        if seen:
            sys.stderr.write(f"\r{' ' * len(what)}\r")
            sys.stderr.flush()


def silence(stream: TextIO) -> None:
    """Let a stream that nobody reads end in nothing, or the interpreter complains as it leaves."""
    with contextlib.suppress(OSError, ValueError):  # one of a test has no descriptor
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def flush() -> bool:
    """Both streams; whether the reader of one has gone, which hears no more."""
    gone = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            silence(stream)
            gone = True
    return gone
