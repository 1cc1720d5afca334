"""What tests of two processes have each of them do, started by torchrun: INPUTS OUT, folders."""

import contextlib
import os
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from tiny_llm import TWO, tiny_settings

from gradlab.llm import stages
from gradlab.llm.engine import Engine


class Killed(Exception):
    """Stands for the end of a process."""


def stopped_after(step):
    """Let training die when this step has been made."""
    own = Engine.step

    def one(engine, number, norm):
        if number > step:
            raise Killed
        return own(engine, number, norm)

    return patch.object(Engine, "step", one)


def main(inputs: Path, out: Path) -> None:
    torch.set_num_threads(1)
    for name, changed in TWO.items():
        stages.train(tiny_settings(inputs, out / name, **changed))
    resumed = tiny_settings(inputs, out / "resumed", **TWO["fsdp"])
    with stopped_after(3), contextlib.suppress(Killed):
        stages.train(resumed)
    if os.environ["RANK"] == "0":
        shutil.copytree(out / "resumed", out / "stopped")
    stages.train(resumed)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
