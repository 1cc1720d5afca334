"""What a claim stands or falls with, declared as data before any result and judged by rule.

A ``Contrast`` compares two methods, paired by seed. A ``Scan`` is a statement about every declared case, such as an
inequality between closed forms. The rules of a contrast are those of ``gradlab.stats.intervals``. Those of a scan:

- Each case is a cell. Its slack is signed, positive where the statement is true: the cell ``holds`` where slack is
  above the declared tolerance, ``fails`` where it is below minus that, and shows ``no difference`` between.
- The scan's verdict follows from its cells as a contrast's does. With ``identity`` it is ``identity`` where no error
  exceeds the tolerance, else ``fails``.
- Its effect is the share of cases that hold (of identities: that are exact). Its interval is a bootstrap over seeds,
  which cases that are drawn at random carry; cases of a declared grid have none, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradlab.stats.intervals import decide, judge, judge_cells, overall, paired_differences, share_interval, tally

SHARE_OF_CASES = "share of cases"  # the value of a scan, in place of a contrast's


@dataclass(frozen=True)
class Contrast:
    """A comparison that a claim stands or falls with.

    claim      the claim's id.
    statement  what the contrast asks, in words.
    method, baseline, value  the difference is value(method) − value(baseline); the other way round where
               ``lower_is_better``, so that a positive effect always speaks for the method. Without a baseline it is
               value(method) − 0.
    by         the columns that make a cell.
    margin     differences within ± margin count as none, in units of value.
    where      a pandas query that picks the rows.
    control    False: the claim as stated. True: a control that could refute it, or explain it away.
    """

    claim: str
    statement: str
    method: str
    baseline: str | None
    value: str
    by: tuple[str, ...]
    margin: float
    where: str = ""
    lower_is_better: bool = False
    control: bool = False

    def differences(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return paired differences in favour of the method: columns by, ``seed``, ``difference``."""
        rows = frame.query(self.where) if self.where else frame
        if self.baseline is None:
            rows = rows[rows["method"] == self.method]
            differences = rows[[*self.by, "seed"]].assign(difference=rows[self.value])
        else:
            differences = paired_differences(rows, self.value, self.method, self.baseline, self.by)
        sign = -1 if self.lower_is_better else 1
        return differences.assign(difference=sign * differences["difference"])

    def cells(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return one judged row per cell, see ``intervals.judge_cells``."""
        return judge_cells(self.differences(frame), self.by, self.margin)

    def judged(self, frame: pd.DataFrame) -> dict[str, Any]:
        """The verdict as a row, with its cells under ``evidence``."""
        differences = self.differences(frame)
        cells = judge_cells(differences, self.by, self.margin)
        return {**judge(differences, cells, self.by), "evidence": cells}


@dataclass(frozen=True)
class Scan:
    """A statement about every declared case that a claim stands or falls with.

    claim, statement, by, where, control   as for a contrast.
    value      the column of slacks, positive where the statement is true; for an identity, the column of errors.
    tolerance  slacks within ± tolerance are on the boundary; errors within it are rounding. In units of value.
    identity   the statement is an equation, and value its error.
    """

    claim: str
    statement: str
    value: str
    by: tuple[str, ...]
    tolerance: float = 0.0
    where: str = ""
    identity: bool = False
    control: bool = False

    def cells(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return one judged row per case: by, ``seed`` where there are seeds, ``slack`` and ``verdict``."""
        rows = frame.query(self.where) if self.where else frame
        if not len(rows) or rows[self.value].isna().any():
            raise ValueError(f"{self.statement!r} must have {self.value} in every case, got {len(rows)} with gaps")
        slack = rows[self.value].to_numpy(float)
        if self.identity:
            verdict = np.where(np.abs(slack) <= self.tolerance, "holds", "fails")
        else:
            verdict = np.select([slack > self.tolerance, slack < -self.tolerance], ["holds", "fails"], "no difference")
        keep = [*self.by, *(["seed"] if "seed" in rows and "seed" not in self.by else [])]
        return rows[keep].assign(slack=slack, verdict=verdict).reset_index(drop=True)

    def judged(self, frame: pd.DataFrame) -> dict[str, Any]:
        """The verdict as a row, with its cells under ``evidence``."""
        cells = self.cells(frame)
        words = overall(cells, self.by)
        if self.identity:
            words = "identity" if words == "holds" else "fails"
        held = cells["verdict"] == "holds"
        seeds = cells["seed"] if "seed" in cells else pd.Series(np.nan, cells.index)
        low, high = share_interval(held, seeds)
        return {
            "verdict": words, "effect": float(held.mean()), "low": low, "high": high, "margin": self.tolerance,
            "seeds": seeds.nunique(), "cells": len(cells), **tally(cells), "evidence": cells,
        }  # fmt: skip


def judged(frame: pd.DataFrame, statements: Iterable[Contrast | Scan]) -> pd.DataFrame:
    """Return a table of verdicts: one row per statement, in the given order."""
    rows = [
        {
            "claim": statement.claim,
            "control": statement.control,
            "statement": statement.statement,
            "value": statement.value if isinstance(statement, Contrast) else SHARE_OF_CASES,
            "by": statement.by,
            **statement.judged(frame),
        }
        for statement in statements
    ]
    return pd.DataFrame(rows)


def as_families(table: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts with Holm's correction over one family per claim: all contrasts that state the claim.

    table: rows of ``judged``, of all experiments. Controls, scans and identities stay as they are.
    """
    table = table.copy()
    cells_of: dict[Any, pd.DataFrame] = dict(table["evidence"])
    stated = ~table["control"] & (table["verdict"] != "identity")
    sampled = [index for index, cells in cells_of.items() if stated[index] and "p_raw" in cells]
    for _, family in table.loc[sampled].groupby("claim", sort=False):
        corrected = decide(pd.concat([cells_of[index] for index in family.index], keys=family.index))
        for index, by in family["by"].items():
            cells = corrected.loc[[index], list(cells_of[index].columns)].droplevel(0)
            for name, value in {"verdict": overall(cells, by), **tally(cells)}.items():
                table.loc[index, name] = value
            cells_of[index] = cells
    return table.assign(evidence=pd.Series(cells_of))
