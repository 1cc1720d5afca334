"""The console of all commands: messages of one line, text that fits a terminal, and signals to stop."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

# Characters that a terminal obeys, or that change the order of the text around them: C0 and C1 controls, DEL, marks and
# overrides of direction, separators of lines and paragraphs, half characters of file names, invisible tags.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: object) -> str:
    """Return a text for a terminal, whoever wrote it: what is not to be printed is spelled, as \\x1b or \\u202e.

    Line breaks and tabs are spelled too, so that a text inside a line stays inside it.
    """
    return _UNPRINTABLE.sub(_spelled, str(text))


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(*texts: object, file: TextIO | None = None, end: str = "\n") -> None:
    """Print as ``print`` does, for all commands: only the line breaks reach the terminal, all else is ``printable``.

    file  the stream; left out: stdout.
    """
    lines = " ".join(map(str, texts)).split("\n")
    print("\n".join(map(printable, lines)), file=file, end=end)


def one_line(said: object) -> str:
    """Return a message as one line; for an error its words, or its kind where it has none.

    Control characters are spelled. An error of the system says what went wrong and with which file, without its number.
    """
    if isinstance(said, OSError) and said.strerror:
        said = f"{said.strerror}: {said.filename}" if said.filename else said.strerror
    return printable(" ".join(str(said).split())) or type(said).__name__


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error is lack of memory: Python's, or PyTorch's, on a GPU or on a CPU."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    words = ("out of memory", "you tried to allocate")  # of CUDA and of other devices; of the CPU's allocator
    return type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in words)


def complain(prog: str, said: object, status: int) -> int:
    """Print a message or an error on stderr, in one line after the program's name; return the exit status."""
    say(f"{prog}: {one_line(said)}", file=sys.stderr)
    return status


@contextlib.contextmanager
def printable_errors() -> Iterator[None]:
    """Hold back what a parser of options writes to stderr inside, and then ``say`` it: it repeats what was typed."""
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        if held.getvalue():
            say(held.getvalue(), file=sys.stderr, end="")


@contextlib.contextmanager
def printable_warnings() -> Iterator[None]:
    """Let warnings that are shown inside spell control characters; ``warnings`` is restored afterwards."""
    usual = warnings.formatwarning

    def spelled(message: Warning | str, *rest: Any, **more: Any) -> str:
        return "".join(f"{printable(line)}\n" for line in usual(message, *rest, **more).splitlines())

    warnings.formatwarning = spelled
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM do inside what Ctrl-C does, which is what its sender wants; do nothing outside the main thread.

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

    Control characters are spelled. Words and what hyphens join stay whole, so that options and paths can be copied; a
    longer one has a line to itself.
    """
    return textwrap.wrap(
        printable(" ".join(text.split())), width, initial_indent=head, subsequent_indent=" " * len(head),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
