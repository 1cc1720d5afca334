"""What tests of two processes have each of them do, started by torchrun: INPUTS OUT, folders."""

import contextlib
import gc
import math
import os
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from tiny_llm import TWO, options, tiny_settings

from gradlab.cli import train_command
from gradlab.console import leave
from gradlab.llm.model.group import start_group
from gradlab.llm.train import stages
from gradlab.llm.train.policy_model import PolicyModel


class Killed(Exception):
    """Stands for the end of a process."""


def stopped_after(step):
    """Let training die when this step has been made."""
    own = PolicyModel.step

    def one(policy, number, norm):
        if number > step:
            raise Killed
        return own(policy, number, norm)

    return patch.object(PolicyModel, "step", one)


MOVED = ("fsdp", "from-ddp", "lora-fsdp", "lora-ddp", "from-fsdp")  # runs that begin on one process, and go on on two

_ACCUMULATE = PolicyModel.accumulate


def not_finite(policy, parts, rows_of, values, *, step, **rest):
    """As ``PolicyModel.accumulate``, with a loss that is NaN in the third step."""
    factor = math.nan if step == 3 else 1.0
    return _ACCUMULATE(policy, parts, rows_of, lambda logps, at: values(logps, at) * factor, step=step, **rest)


def main(inputs: Path, out: Path) -> None:
    torch.set_num_threads(1)
    for name, changed in TWO.items():
        stages.train(tiny_settings(inputs, out / name, **changed))
    resumed = tiny_settings(inputs, out / "resumed", **TWO["fsdp"])
    with stopped_after(2), contextlib.suppress(Killed):
        stages.train(resumed)
    if os.environ["RANK"] == "0":
        shutil.copytree(out / "resumed", out / "stopped")
    stages.train(resumed)
    for name in MOVED:
        stages.train(tiny_settings(inputs, out / f"from-one-{name}", **TWO[name]))
    statuses = [train_command.run(options(inputs, out / "missing", data="missing.jsonl"))]
    with patch.object(PolicyModel, "accumulate", not_finite):
        statuses.append(
            train_command.run(options(inputs, out / "nan", loss=("dpo", "bdpo"), validate_every=0, sides_every=0))
        )
    (out / f"statuses-{os.environ['RANK']}").write_text(f"{statuses}")


if __name__ == "__main__":
    gc.freeze()
    with start_group("cpu") as group:
        main(*map(Path, sys.argv[1:]))
        group.on_all(lambda: None)  # the one that is done first must not end the other
    leave(0)
