"""Does Balanced-DPO cost next to nothing? Its time and memory against DPO's, in the lab and in the models' trainer.

Judged from the frames of the benchmarks (``make bench``). Claim: overhead.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Role, judged
from gradlab.experiments.experiment import Measurement

ALLOWED = 0.05  # more time or memory than DPO that still counts as next to nothing, as a share of DPO's
LOSS_ONLY = "loss alone"  # the measurement of the loss alone, without the rest of a step


def overhead(frame: pd.DataFrame) -> list[Judged]:
    """Judge whether bDPO's time and peak memory are within the allowance of DPO's.

    frame: one row per measurement: ``what`` was measured, ``device``, ``pair`` (the number of the interleaved
    repetition), ``method`` ("dpo" or "bdpo"), and either ``seconds`` or ``peak_mb``, > 0; the other is missing.
    ``LOSS_ONLY`` is a control. Raises ValueError for other numbers.
    """
    alone = frame["what"] == LOSS_ONLY
    parts: tuple[tuple[str, pd.Series, Role], ...] = (
        ("a step", ~alone, "primary"), ("the loss alone", alone, "context")
    )  # fmt: skip
    return [
        answer
        for part, rows, role in parts if rows.any()
        for words, value in (("time", "seconds"), ("peak memory", "peak_mb"))
        for answer in within_allowance(frame[rows], value, f"{words} of {part}", by=("what", "device"), role=role)
    ]  # fmt: skip


def trainer_overhead(frame: pd.DataFrame) -> list[Judged]:
    """Judge whether bDPO's time per step of the language models' trainer is within the allowance of DPO's.

    frame: that of ``scripts/benchmarks/llm_speed.py``, whose rows with ``part`` "steps" count: ``size`` of the model,
    ``round`` (the number of the interleaved repetition), ``method``, ``seconds`` > 0. It has only one measurement of
    memory per method, so memory is not judged. Raises ValueError for other numbers.
    """
    steps = frame[(frame["part"] == "steps") & frame["method"].isin(["dpo", "bdpo"])]
    rows = steps.assign(pair=steps["round"])
    return within_allowance(rows, "seconds", "time of a step of the language models' trainer", by=("size",))


def within_allowance(
    frame: pd.DataFrame, value: str, words: str, *, by: tuple[str, ...], role: Role = "primary"
) -> list[Judged]:
    """Return the verdict on whether bDPO's ``value`` is within the allowance of DPO's, as a table of one row.

    frame  one row per measurement: ``pair``, ``method``, the columns ``by`` and ``value``, > 0 or missing.
    words  the name of what is measured. Raises ValueError for other numbers.
    """
    numbers = frame[value]
    if not ((np.isfinite(numbers) & (numbers > 0)) | numbers.isna()).all():
        raise ValueError(f"measurements of the overhead must have {value} > 0 where they have any")
    allowance = np.where(frame["method"] == "dpo", np.log1p(ALLOWED), 0.0)
    rows = frame.assign(log=np.log(numbers) + allowance, seed=frame["pair"]).dropna(subset=["log"])
    return judged(rows, [Contrast(
        claim="overhead", statement=f"bDPO's {words} is within {ALLOWED:.0%} of DPO's", method="bdpo", baseline="dpo",
        value="log", by=by, margin=ALLOWED, lower_is_better=True, role=role,
    )])  # fmt: skip


OVERHEAD = Measurement(
    "overhead", {"overhead": "benchmarks/overhead.parquet"}, "make bench", lambda frames: overhead(frames["overhead"])
)
TRAINER = Measurement(
    "trainer-overhead",
    {"steps": "benchmarks/llm.parquet"},
    "make bench",
    lambda frames: trainer_overhead(frames["steps"]),
)
