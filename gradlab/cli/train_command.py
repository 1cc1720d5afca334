"""What the scripts of language models share: errors as one line, exit statuses, and a last look at the log."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from gradlab.console import complain, stop_on_sigterm

# Only light modules are imported up here: torch takes seconds, and --help should not.
_SMALLER = "try a smaller --micro or --max-length, --gradient-checkpointing, or --distribution fsdp on several GPUs"


def train_command(arguments: Sequence[str]) -> int:
    """Train as the arguments say, then let the doctor look at each log; the exit status, as in ``guarded``."""

    def work() -> int:
        from gradlab.llm.train.run_settings import read_settings

        with _heard():
            settings = read_settings(arguments, "llm_train.py")
        from gradlab.doctor import examine, report  # no sooner: --help and a wrong option need not wait for these
        from gradlab.doctor.training_log import read_log
        from gradlab.llm.train.stages import train

        quiet()
        folders = train(settings)
        if int(os.environ.get("RANK", 0)) == 0:
            logs = {folder.name: read_log(folder / "log.jsonl") for folder in folders}
            earlier = settings.out / "dpo"  # of this run or of one before, in the same folder
            dpo = read_log(earlier / "log.jsonl") if (earlier / "done.json").exists() else None
            for name, log in logs.items():
                baseline = dpo if name != "dpo" else None
                print(f"\n{name}, gradlab doctor:\n{report(examine(log, baseline))}")
        return 0

    return guarded(work, "llm_train.py")


def leave(status: int) -> NoReturn:
    """End the program with this exit status; under torchrun without taking Python down.

    A thread of PyTorch's that still runs then can abort a process whose work is done; torchrun calls that a failure.
    """
    if "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def quiet() -> None:
    """Let transformers show no progress bars of its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Let one process of a machine speak, where all have the same to say."""
    if _first():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def guarded(work: Callable[[], int], prog: str) -> int:
    """Run a script's work; its exit status: 0, 2 for bad input, 1 for other failures, 130 for Ctrl-C or SIGTERM.

    What goes wrong with data, models, disks or numbers is one line; anything else is an error of ours, with its trace.
    """
    stop_on_sigterm()
    warnings.filterwarnings("ignore", message=".*torch.distributed.*gloo.*")
    try:
        return work()
    except KeyboardInterrupt:
        return _complain(prog, "stopped; the same command goes on from the last checkpoint", 130)
    except ValueError as error:
        return _complain(prog, error, 2)
    except (OSError, FloatingPointError, ImportError, MemoryError) as error:
        return complain(prog, error, 1)
    except RuntimeError as error:
        from torch import OutOfMemoryError

        from gradlab.llm.model.group import Elsewhere

        if isinstance(error, OutOfMemoryError):
            return _complain(prog, f"the GPU's memory is full; {_SMALLER}", 1)
        if isinstance(error, Elsewhere):
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(2)  # torchrun ends all when one ends, and the main process has to speak
            return 1
        raise


def _complain(prog: str, said: object, status: int) -> int:
    """The same as ``complain``, but once a machine: all of its processes have the same to say."""
    return complain(prog, said, status) if _first() else status


def _first() -> bool:
    """Whether this is the first of the processes that torchrun started on this machine, or the only one."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0
