"""Contrasts: one method against another on one number, declared as data before any result, judged by rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from gradlab.intervals import judge, judge_cells, paired_differences


@dataclass(frozen=True)
class Contrast:
    """One comparison that a claim stands or falls with.

    claim      the claim's id.
    statement  what the contrast asks, in words.
    method, baseline, value  the difference is value(method) − value(baseline); the other way round where
               ``lower_is_better``, so that a positive effect always speaks for the method.
    by         the columns that make a cell.
    margin     differences within ± margin count as none, in units of value.
    where      a pandas query that picks the rows.
    control    False: the claim as stated. True: a control that could refute it, or explain it away.
    """

    claim: str
    statement: str
    method: str
    baseline: str
    value: str
    by: tuple[str, ...]
    margin: float
    where: str = ""
    lower_is_better: bool = False
    control: bool = False

    def differences(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Paired differences in favour of the method: columns by, ``seed``, ``difference``."""
        rows = frame.query(self.where) if self.where else frame
        differences = paired_differences(rows, self.value, self.method, self.baseline, self.by)
        sign = -1 if self.lower_is_better else 1
        return differences.assign(difference=sign * differences["difference"])

    def cells(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One judged row a cell, see ``intervals.judge_cells``."""
        return judge_cells(self.differences(frame), self.by, self.margin)


def judged(frame: pd.DataFrame, contrasts: Iterable[Contrast]) -> pd.DataFrame:
    """A table of verdicts: one row a contrast, in the order given."""
    rows = [
        {
            "claim": contrast.claim,
            "control": contrast.control,
            "statement": contrast.statement,
            "value": contrast.value,
            **judge(contrast.differences(frame), contrast.by, contrast.margin),
        }
        for contrast in contrasts
    ]
    return pd.DataFrame(rows)
