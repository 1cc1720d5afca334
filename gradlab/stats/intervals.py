"""Paired evidence: bootstrap intervals, equivalence, Holm's correction, and verdicts computed by rule.

The rules, fixed before any result was seen:

- A *cell* is one setting (world, mask, policy, …). Its evidence is the paired difference method − baseline, one
  per seed.
- Its interval is the 95% percentile bootstrap of the mean difference; its p-value a paired t-test's (bootstrap tails
  are too coarse for Holm's correction at few seeds), corrected by Holm over a family of cells. The contrasts that state
  a claim form one family together, over all experiments. Each control is a family of its own: a control speaks against
  the claim, and should not be held back because there are many.
- A cell says ``no difference`` where the interval lies inside ± the margin that was declared; else ``holds`` where the
  corrected p < 0.05 and the mean is positive, ``fails`` where it is negative; else ``inconclusive``.
- A contrast ``holds``, ``fails`` or shows ``no difference`` where all of its cells do. Otherwise it ``holds when C``
  for the simplest condition C (one factor, else two) under which every cell holds, if C covers at least half of all
  cells that hold and at least three cells. Otherwise it ``fails`` where any cell fails or at least half show no
  difference, and is ``inconclusive`` where not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab.arrays import check_columns, real_array
from gradlab.checks import shown
from gradlab.streams import Purpose, stream

LEVEL = 0.95
RESAMPLES = 4000
OUTCOMES = ("holds", "fails", "no_difference", "inconclusive")


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean of ``values`` (n,); NaN with fewer than two values."""
    values = _row("values", values)
    if len(values) < 2:
        return (np.nan, np.nan)
    drawn = stream(seed, Purpose.BOOTSTRAP).integers(len(values), size=(RESAMPLES, len(values)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values[drawn].mean(1), [tail, 1 - tail])
    return float(low), float(high)


def share_interval(held: pd.Series, seeds: pd.Series, seed: int = 0) -> tuple[float, float]:
    """Return the 95% bootstrap interval, over seeds, of the share of cases that hold; NaN with fewer than two seeds.

    held   bool, one per case.
    seeds  the seed that drew each case; NaN for a case that was not drawn, which is in every resample.
    """
    drawn = pd.DataFrame({"held": held, "cases": 1}).groupby(seeds).sum().to_numpy(float)
    if len(drawn) < 2:
        return (np.nan, np.nan)
    fixed = np.array([held[seeds.isna()].sum(), seeds.isna().sum()], float)
    again = stream(seed, Purpose.BOOTSTRAP).integers(len(drawn), size=(RESAMPLES, len(drawn)))
    totals = fixed + drawn[again].sum(1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [tail, 1 - tail])
    return float(low), float(high)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return Holm's step-down correction of ``p_values`` (n,); NaN counts as 1. Source: Holm 1979."""
    p_values = np.nan_to_num(_row("p_values", p_values), nan=1.0)
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def paired_differences(
    frame: pd.DataFrame, value: str, method: str, baseline: str, by: Sequence[str], pair: str = "seed"
) -> pd.DataFrame:
    """Return ``value`` of ``method`` minus that of ``baseline``, paired within (by, pair).

    Columns: those of ``by``, ``pair`` and ``difference``.

    frame needs the columns method, value, pair and by, with one row for each combination.
    Raises ValueError where a pair is not complete.
    """
    for name, word in {"value": value, "method": method, "baseline": baseline, "pair": pair}.items():
        if not isinstance(word, str) or word != word.encode(errors="replace").decode():
            raise ValueError(f"{name} must be a text, got {shown(word)}")
    if not isinstance(by, (list, tuple)) or not all(isinstance(name, str) for name in by):
        raise ValueError(f"by must be a list of columns, got {shown(by)}")
    keys = [*by, pair]
    check_columns("frame", frame, ["method", *keys, value])
    sides = [frame.loc[frame["method"] == name, [*keys, value]] for name in (method, baseline)]
    try:
        merged = sides[0].merge(sides[1], on=keys, suffixes=("", "_baseline"), how="outer", validate="one_to_one")
    except pd.errors.MergeError:
        raise ValueError(f"{method!r} and {baseline!r} must have one {value} for each {', '.join(keys)}") from None
    differences = merged[value] - merged[f"{value}_baseline"]
    if len(merged) == 0 or differences.isna().any():
        raise ValueError(f"{method!r} and {baseline!r} must both have {value} for the same {', '.join(keys)}")
    return merged[keys].assign(difference=differences)


def judge_cells(differences: pd.DataFrame, by: Sequence[str], margin: float) -> pd.DataFrame:
    """Return one row per cell, with its verdict; the cells are one family.

    Columns: those of ``by``, ``effect`` (mean difference), ``low``, ``high``, ``p_raw``, ``p`` (Holm), ``seeds``,
    ``margin`` and ``verdict``.
    """
    rows = []
    groups = differences.groupby(list(by), sort=False, dropna=False) if by else [((), differences)]
    for key, group in groups:
        values = group["difference"].to_numpy()
        low, high = bootstrap_interval(values)
        cell = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        rows.append({**cell, "effect": values.mean(), "low": low, "high": high, "p_raw": _p_value(values),
                     "seeds": len(values), "margin": margin})  # fmt: skip
    return decide(pd.DataFrame(rows))


def decide(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells as one family: with ``p`` (Holm over all of them) and the ``verdict`` of each."""
    cells = cells.assign(p=holm(cells["p_raw"].to_numpy()))
    return cells.assign(verdict=[_cell_verdict(cell) for cell in cells.itertuples()])


def judge(differences: pd.DataFrame, cells: pd.DataFrame, by: Sequence[str], pair: str = "seed") -> dict[str, Any]:
    """Return the verdict on one contrast, by the rules above, as a row for a table of verdicts.

    cells  the result of ``judge_cells`` on the same differences.

    Keys: ``verdict`` (with its words), ``effect`` (mean over cells), ``low``, ``high`` (bootstrap over seeds of that
    mean), ``margin``, ``seeds``, ``cells``, and the number of cells with each verdict: ``holds``, ``fails``,
    ``no_difference``, ``inconclusive``.
    """
    by_seed = differences.groupby(pair)["difference"].mean().to_numpy()
    low, high = bootstrap_interval(by_seed)
    return {
        "verdict": overall(cells, by), "effect": float(by_seed.mean()), "low": low, "high": high,
        "margin": cells["margin"].iloc[0], "seeds": int(cells["seeds"].min()), "cells": len(cells), **tally(cells),
    }  # fmt: skip


def tally(cells: pd.DataFrame) -> dict[str, int]:
    """Count the cells with each verdict."""
    return {name: int((cells["verdict"] == name.replace("_", " ")).sum()) for name in OUTCOMES}


def overall(cells: pd.DataFrame, factors: Sequence[str]) -> str:
    """Return the verdict on all cells together, by the rules above; the words after "holds when" are generated."""
    outcomes = cells["verdict"]
    for outcome in ("holds", "fails", "no difference", "inconclusive"):
        if (outcomes == outcome).all():
            return outcome
    condition = _condition(cells, factors)
    if condition:
        return f"holds when {condition}"
    clear = (outcomes == "fails").any() or (outcomes == "no difference").mean() >= 0.5
    return "fails" if clear else "inconclusive"


def _row(name: str, values: Any) -> np.ndarray:
    """Return numbers as an array (n,); ValueError for any other shape."""
    row = real_array(name, values)
    if row.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {row.shape}")
    return row


def _p_value(values: np.ndarray) -> float:
    if len(values) < 2:
        return np.nan
    if np.ptp(values) < 1e-12:  # no spread but rounding: the t statistic would be 0/0 or infinite
        return 1.0 if abs(values[0]) < 1e-12 else 0.0
    from scipy import stats  # two seconds to import, which explorers and the command line need not wait for

    return float(stats.ttest_1samp(values, 0.0).pvalue)


def _cell_verdict(cell: Any) -> str:
    if -cell.margin < cell.low and cell.high < cell.margin:
        return "no difference"
    if cell.p < 1 - LEVEL:
        return "holds" if cell.effect > 0 else "fails"
    return "inconclusive"


def _condition(cells: pd.DataFrame, factors: Iterable[str]) -> str | None:
    """Return the simplest condition under which every cell holds: among equals the widest, then the first."""
    holds = (cells["verdict"] == "holds").to_numpy()
    terms = [term for factor in factors for term in _terms(cells[factor])]
    for size in (1, 2):
        best, widest = None, max(3, int(np.ceil(holds.sum() / 2))) - 1
        for chosen in itertools.combinations(terms, size):
            inside = np.logical_and.reduce([mask for _, mask in chosen])
            if holds[inside].all() and inside.sum() > widest:
                best, widest = " and ".join(words for words, _ in chosen), int(inside.sum())
        if best:
            return best
    return None


def _terms(column: pd.Series) -> list[tuple[str, np.ndarray]]:
    """Return the conditions on one factor: ≥ and ≤ each value of a number, is and is not each value of a name."""
    values = sorted(column.dropna().unique())
    if len(values) < 2:
        return []
    array = column.to_numpy()
    if pd.api.types.is_numeric_dtype(column):
        above = [(f"{column.name} ≥ {value:g}", array >= value) for value in values[1:]]
        return above + [(f"{column.name} ≤ {value:g}", array <= value) for value in values[:-1]]
    equal = [(f"{column.name} is {value}", array == value) for value in values]
    other = [(f"{column.name} is not {value}", array != value) for value in values] if len(values) > 2 else []
    return equal + other
