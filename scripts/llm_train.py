"""Train a causal language model on preference pairs; ``python scripts/llm_train.py --help``, and scripts/README.md."""

from __future__ import annotations

import sys

from gradlab.cli.train_command import leave, train_command

if __name__ == "__main__":
    leave(train_command(sys.argv[1:]))
