"""Turn the errors of a command into one line on stderr and an exit status."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from gradlab.console import complain, out_of_memory, printable_warnings, stop_on_sigterm

PROGRAM = "gradlab"
SMALLER = "smaller sizes"
STOPPED = "stopped; no file was left half-written"
_PACKAGE = Path(__file__).resolve().parents[1]


def guarded(work: Callable[[], int], *, stopped: str = STOPPED, smaller: str = SMALLER) -> int:
    """Do the work and return its exit status, or 2 for bad input, 1 for other failures, 130 for Ctrl-C or SIGTERM.

    Errors of data, models, disks and numbers are printed in one line, and so is a TypeError by which gradlab refuses
    what it is given. Other errors are gradlab's, and keep their trace.

    stopped  the message after Ctrl-C.
    smaller  the advice where the memory of a GPU or of the machine is full.
    """
    with stop_on_sigterm(), printable_warnings():
        return _status(work, stopped, smaller)


def _status(work: Callable[[], int], stopped: str, smaller: str) -> int:
    try:
        return work()
    except KeyboardInterrupt:
        return _complain_once(stopped, 130)
    except ValueError as error:
        return _complain_once(error, 2)
    except TypeError as error:
        if not _refuses(error):
            raise
        return _complain_once(error, 2)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest of stdout at its end
        return 1
    except MemoryError as error:
        said = f"not enough memory for these sizes: {error}".removesuffix(": ")
        return complain(PROGRAM, said if smaller == SMALLER else f"{said}; try {smaller}", 1)
    except (OSError, FloatingPointError, ImportError) as error:
        return complain(PROGRAM, error, 1)
    except RuntimeError as error:
        if out_of_memory(error):  # perhaps of one process alone, so each process says it
            whose = "machine's" if "CPUAllocator" in str(error) else "GPU's"
            return complain(PROGRAM, f"the {whose} memory is full; try {smaller}", 1)
        if _is(error, "gradlab.llm.model.group", "Elsewhere"):
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(2)  # torchrun ends all processes when one ends, and the one that failed must print first
            return 1
        raise


def first_here() -> bool:
    """Return whether this is the first of the processes that torchrun started on this machine, or the only process."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def _complain_once(said: object, status: int) -> int:
    """Complain in one process per machine, as all have the same message."""
    return complain(PROGRAM, said, status) if first_here() else status


def _refuses(error: TypeError) -> bool:
    """Return whether a statement of gradlab's raises the error; Python itself raises it where code is wrong."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (last.line or "").startswith("raise TypeError") and Path(last.filename).resolve().is_relative_to(_PACKAGE)


def _is(error: RuntimeError, module: str, kind: str) -> bool:
    """Return whether the error is of a kind that a module defines; a module not imported cannot have raised it."""
    return module in sys.modules and isinstance(error, getattr(sys.modules[module], kind))
