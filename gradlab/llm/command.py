"""What the scripts of language models share: errors as one line, exit statuses, and a last look at the log."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence


def train_command(arguments: Sequence[str]) -> int:
    """Train as the arguments say, then let the doctor look at each log; the exit status, as in ``guarded``."""

    def work() -> int:
        from gradlab.doctor import examine, report
        from gradlab.llm.settings import read_settings
        from gradlab.llm.stages import train
        from gradlab.trainlog import read_log

        settings = read_settings(arguments, "llm_train.py")
        quiet()
        folders = train(settings)
        if int(os.environ.get("RANK", 0)) == 0:
            logs = {folder.name: read_log(folder / "log.jsonl") for folder in folders}
            for name, log in logs.items():
                baseline = logs.get("dpo") if name != "dpo" else None
                print(f"\n{name}, gradlab doctor:\n{report(examine(log, baseline))}")
        return 0

    return guarded(work, "llm_train.py")


def quiet() -> None:
    """Let transformers show no progress bars of its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def guarded(work: Callable[[], int], prog: str) -> int:
    """Run a script's work; its exit status: 0, 2 for bad input, 1 for other failures, 130 for Ctrl-C or SIGTERM.

    What goes wrong with data, models, disks or numbers is one line; anything else is an error of ours, with its trace.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.filterwarnings("ignore", message=".*torch.distributed.*gloo.*")
    try:
        return work()
    except KeyboardInterrupt:
        return _complain(prog, "stopped; the same command goes on from the last checkpoint", 130)
    except ValueError as error:
        return _complain(prog, error, 2)
    except (OSError, FloatingPointError, ModuleNotFoundError, MemoryError) as error:
        where = f": {error.filename}" if isinstance(error, OSError) and error.filename and error.strerror else ""
        text = f"{error.strerror}{where}" if isinstance(error, OSError) and error.strerror else error
        return _complain(prog, text or type(error).__name__, 1)


def _complain(prog: str, message: object, status: int) -> int:
    print(f"{prog}:", " ".join(str(message).split()), file=sys.stderr)
    return status
