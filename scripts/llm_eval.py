"""Evaluate runs of scripts/llm_train.py; ``python scripts/llm_eval.py --help``, and scripts/README.md."""

from __future__ import annotations

import sys

from gradlab.cli.evaluate_command import eval_command

if __name__ == "__main__":
    sys.exit(eval_command(sys.argv[1:]))
