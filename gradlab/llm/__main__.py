"""Run ``gradlab train`` in each of the processes that torchrun has started: ``torchrun … -m gradlab.llm``."""

import sys

from gradlab.cli import main
from gradlab.console import leave

if __name__ == "__main__":
    leave(main(["train", *sys.argv[1:]]))
