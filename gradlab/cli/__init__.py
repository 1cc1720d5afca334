"""Run the command line ``gradlab``: a thin face over functions of other rooms.

``gradlab NAME`` is the module ``gradlab.cli.NAME_command``. Its docstring is the command's help, and its function
``run`` takes the arguments and returns the exit status. All these modules are light to import, so that
``gradlab --help`` does not wait for torch.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from gradlab import __version__
from gradlab.checks import one_of
from gradlab.cli.guard import PROGRAM, guarded
from gradlab.console import complain, say, wrapped

DESCRIPTION = "See, test and settle what a preference loss really does to a policy."
COMMANDS = (
    "fit",
    "sweep",
    "figures",
    "claims",
    "doctor",
    "conformance",
    "inspect",
    "advise",
    "train",
    "evaluate",
    "merge",
    "demo",
    "real",
    "protocol",
    "study",
    "losses",
    "atlas",
    "workbench",
    "lab",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 for bad input, 1 for other failures, 130 for Ctrl-C.

    ``gradlab claims`` also returns 3 where a word has changed, ``gradlab doctor`` where it has found a problem, and
    ``gradlab conformance`` where no loss fits; ``gradlab doctor`` returns 4 where it could judge nothing.
    """
    if os.name != "posix":
        return complain(PROGRAM, "Linux or macOS is needed; on Windows, use WSL", 1)
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks Greek letters shows ? in their place
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    return guarded(lambda: _run(name, arguments))


def _run(name: str, arguments: Sequence[str]) -> int:
    if name == "--version":
        say(f"{PROGRAM} {__version__}")
        return 0
    if name in ("-h", "--help"):
        say(_overview())
        return 0
    one_of("command", name, COMMANDS)
    return importlib.import_module(f"gradlab.cli.{name}_command").run(arguments)


def _overview() -> str:
    """Return the commands as text, each with the first line of its help."""
    lines = [f"usage: {PROGRAM} [-h] [--version] COMMAND …", "", DESCRIPTION, "", "commands:"]
    for name in COMMANDS:
        summary = (importlib.import_module(f"gradlab.cli.{name}_command").__doc__ or "").split("\n\n")[0]
        lines += wrapped(summary, 80, f"  {name:<12}")
    return "\n".join([*lines, "", f"`{PROGRAM} COMMAND --help` explains a command and its options."])
