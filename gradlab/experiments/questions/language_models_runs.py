"""The runs of language models that their rules judge: tasks, methods, and what identifies a run."""

from __future__ import annotations

import pandas as pd

TASKS = {"hh": "real pairs", "tokens": "the task of tokens"}
SHORT = {"hh": "real pairs", "tokens": "task of tokens"}  # in figures
BASELINES = {
    "nbdpo": "naive bDPO", "nbdpo-symmetric": "symmetric naive bDPO", "dpo": "DPO",
    "fixed-weight": "a constant λ = ½ (DPO at β/2)",
}  # fmt: skip
PAIR_LOSSES = {"bdpo": "bDPO", **BASELINES}
RUN = ["task", "size", "seed"]


def setting(frame: pd.DataFrame, task: str | None = None) -> str:
    """Return in words which models and pairs a statement is about."""
    sizes = " and ".join(dict.fromkeys(frame["size"]))
    return f"language models of {sizes} parameters{f' on {TASKS[task]}' if task else ''}"
