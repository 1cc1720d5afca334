"""Run ``gradlab train`` in each of the processes that torchrun has started: ``torchrun … -m gradlab.llm``."""

import os
import sys

from gradlab.cli import main
from gradlab.console import leave
from gradlab.store.pool import end_with

if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:  # else nobody ends it when torchrun is killed
        end_with(os.getppid())
    leave(main(["train", *sys.argv[1:]]))
