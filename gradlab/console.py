"""The console of all commands: messages of one line, text that fits a terminal, and signals to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import NoReturn


def one_line(said: object) -> str:
    """Return a message as one line; for an error its words, or its kind where it has none.

    An error of the system says what went wrong and with which file, without its number.
    """
    if isinstance(said, OSError) and said.strerror:
        said = f"{said.strerror}: {said.filename}" if said.filename else said.strerror
    return " ".join(str(said).split()) or type(said).__name__


def complain(prog: str, said: object, status: int) -> int:
    """Print a message or an error on stderr, in one line after the program's name; return the exit status."""
    print(f"{prog}: {one_line(said)}", file=sys.stderr)
    return status


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM do inside what Ctrl-C does, which is what its sender wants; in threads but the main one do nothing.

    Python lets only the main thread take signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: set outside Python


def leave(status: int) -> NoReturn:
    """End the program with this exit status; under torchrun without taking Python down.

    A thread of PyTorch's that still runs then can abort a process whose work is done; torchrun calls that a failure.
    """
    if "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def wrapped(text: str, width: int, head: str = "") -> list[str]:
    """Return the text as lines of at most ``width`` characters: ``head`` begins the first, and the others are indented.

    Words and what hyphens join stay whole, so that options and paths can be copied; a longer one has a line to itself.
    """
    return textwrap.wrap(
        text, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
