"""Train a causal language model on preference pairs, stage by stage: supervised, reference, then each loss.

``torchrun … -m gradlab.llm`` is the same command over many processes.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence

from gradlab.cli.guard import first_here, guarded
from gradlab.cli.options import need, quiet_transformers
from gradlab.console import say

GOES_ON = "stopped; the same command goes on from the last checkpoint"
_SMALLER = (
    "a smaller --micro or --max-length, --precision bf16, --gradient-checkpointing, --lora.rank, or "
    "--distribution fsdp on several GPUs"
)


def run(arguments: Sequence[str]) -> int:
    """Train as the arguments say, then let the doctor look at each log; return the exit status."""

    def work() -> int:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.distributed.*gloo.*")
            _train(arguments)
        return 0

    return guarded(work, stopped=GOES_ON, smaller=_SMALLER)


def _train(arguments: Sequence[str]) -> None:
    from gradlab.llm.train.command_line import read_settings

    with _heard_once():
        settings = read_settings(arguments, "gradlab train")
    need("llm", "transformers")
    from gradlab.doctor import examine_log, report  # not earlier: --help and a wrong option need not wait for these
    from gradlab.doctor.training_log import LOG, read_log
    from gradlab.llm.model.finished import DONE
    from gradlab.llm.train.stages import train

    with quiet_transformers():
        folders = train(settings)
    if int(os.environ.get("RANK", 0)) != 0:
        return
    logs = {folder.name: read_log(folder / LOG) for folder in folders}
    earlier = settings.out / "dpo"  # the DPO stage of this run, or of an earlier run in the same folder
    dpo = read_log(earlier / LOG) if (earlier / DONE).exists() else None
    for name, log in logs.items():
        say(f"\n{name}, gradlab doctor:\n{report(examine_log(log, dpo if name != 'dpo' else None))}")


@contextlib.contextmanager
def _heard_once() -> Iterator[None]:
    """Let only one process per machine print inside, where all print the same."""
    if first_here():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
