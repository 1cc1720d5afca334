"""Claims that are judged from committed measurements, which no experiment here makes: times, and language models.

Until a measurement is committed, its claims are not run here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, judged

ALLOWED = 0.05  # more time or memory than DPO that still counts as next to nothing, as a share of DPO's
LOSS_ONLY = "loss alone"  # what measures the loss by itself and no whole step


@dataclass(frozen=True)
class Measurement:
    """A committed frame.

    file     where it is kept, in the folder of the figures; None: nothing makes one yet.
    command  what makes it.
    verdict  from the frame to a table of verdicts, as in an experiment.
    """

    file: str | None = None
    command: str | None = None
    verdict: Callable[[pd.DataFrame], pd.DataFrame] | None = None

    @property
    def needs(self) -> str:
        """What it takes to have it, in words."""
        made = f"a measurement that `{self.command}` makes" if self.command else "a language-model run"
        return f"needs {made}; none has been committed"


def overhead(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether bDPO's time and peak memory are within the allowance of DPO's.

    frame: a row a measurement. ``what`` was measured, ``device``, ``pair`` (the number of the interleaved repetition),
    ``method`` ("dpo" or "bdpo"), and of ``seconds`` and ``peak_mb`` the one that was measured, > 0; the other is
    missing. What is called ``LOSS_ONLY`` is a control. Raises ValueError for other numbers.
    """
    numbers = frame[["seconds", "peak_mb"]]
    if not ((np.isfinite(numbers) & (numbers > 0)) | numbers.isna()).all(axis=None):
        raise ValueError("measurements of the overhead must have seconds and peak_mb > 0 where they have any")
    allowance = np.where(frame["method"] == "dpo", np.log1p(ALLOWED), 0.0)
    logs = {f"log_{name}": np.log(frame[name]) + allowance for name in numbers}
    rows = frame.assign(**logs, seed=frame["pair"])
    table = pd.concat([
        judged(rows.dropna(subset=[value]), [Contrast(
            claim="overhead", statement=f"bDPO's {words} of {part} is within {ALLOWED:.0%} of DPO's", method="bdpo",
            baseline="dpo", value=value, by=("what", "device"), margin=0.0, where=f"what {sign} '{LOSS_ONLY}'",
            lower_is_better=True, control=control,
        )])
        for part, sign, control in (("a step", "!=", False), ("the loss alone", "==", True))
        for words, value in (("time", "log_seconds"), ("peak memory", "log_peak_mb"))
        if not control or (frame["what"] == LOSS_ONLY).any()
    ], ignore_index=True)  # fmt: skip
    more = np.expm1(np.log1p(ALLOWED) - table["effect"])
    words = [f"{one} (measured: {share:+.1%}; effect: log {1 + ALLOWED:g} − log bDPO/DPO)"
             for one, share in zip(table["statement"], more, strict=True)]  # fmt: skip
    return table.assign(statement=words)


MEASURED = {
    "symmetric-unstable": Measurement(),
    "overhead": Measurement("benchmarks/overhead.parquet", "make bench", overhead),
    "llm": Measurement(),
}
