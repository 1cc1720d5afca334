"""λ_w of Balanced-DPO beside the loser's share of the tokens, by subset: what is left of λ once length is taken out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import t as student

ALIKE = 1.1  # lengths that differ by this factor or less count as alike. Ours.
_FEWEST = 4  # pairs from which there is an interval: two in each half
BOTH, SIGN, NEITHER, FEW = "yes", "sign", "no", "–"  # whether both halves of the pairs say the same


def by_subset(frame: pd.DataFrame) -> pd.DataFrame:
    """Return λ_w of bDPO against L_l/(L_w + L_l), the λ_w of ``length-dpo``: one row per subset of the pairs.

    frame  has the columns of ``measured``, in the order of the data, and may have ``cut``.

    Subsets: all pairs; winners shorter, alike in length (by ``ALIKE`` or less), longer; fewer tokens than the median
    pair, and more; and pairs with a response that was cut. Columns:

    - ``pairs``; ``length_share`` and ``win_weight``, the means; ``beyond``, the mean of λ_w − share, with ``low`` and
      ``high``, its 95% interval (Student's t over pairs, which takes them as independent); NaN for fewer than 4 pairs;
    - ``r2``: the squared correlation of λ_w with the share; NaN where one of them does not vary;
    - ``halves``: the split-half mark, of ``beyond`` in the first and in the second half of the subset: ``yes``, both
      intervals leave out 0 on one side; ``sign``, both means have one sign; ``no``; ``–`` for fewer than 4 pairs.

    Source: ours.
    """
    rows = {name: _row(frame[chosen]) for name, chosen in _subsets(frame).items() if chosen.any()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _subsets(frame: pd.DataFrame) -> Mapping[str, pd.Series]:
    ratio, tokens = frame["win_len"] / frame["lose_len"], frame["win_len"] + frame["lose_len"]
    many = tokens > tokens.median()
    chosen = {
        "all pairs": tokens > 0, "winner shorter": ratio < 1 / ALIKE, "lengths alike": ratio.between(1 / ALIKE, ALIKE),
        "winner longer": ratio > ALIKE, "fewer tokens": ~many, "more tokens": many,
    }  # fmt: skip
    return {**chosen, "cut": frame["cut"].astype(bool)} if "cut" in frame else chosen


def _row(part: pd.DataFrame) -> dict[str, float | str]:
    share, weight = (part[name].to_numpy(float) for name in ("lose_length_share", "win_weight"))
    beyond = weight - share
    low, high = _interval(beyond)
    varies = len(part) > 2 and min(share.std(), weight.std()) > 1e-9
    return {
        "pairs": len(part), "length_share": float(share.mean()), "win_weight": float(weight.mean()),
        "beyond": float(beyond.mean()), "low": low, "high": high,
        "r2": float(np.corrcoef(share, weight)[0, 1] ** 2) if varies else math.nan, "halves": _halves(beyond),
    }  # fmt: skip


def _interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) < _FEWEST:
        return math.nan, math.nan
    return _around(values)


def _around(values: np.ndarray) -> tuple[float, float]:
    mean = float(values.mean())
    reach = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean - reach, mean + reach


def _halves(values: np.ndarray) -> str:
    if len(values) < _FEWEST:
        return FEW
    parts = np.array_split(values, 2)
    ends = [_around(part) for part in parts]
    if all(low > 0 for low, _ in ends) or all(high < 0 for _, high in ends):
        return BOTH
    first, second = (float(part.mean()) for part in parts)
    return SIGN if first * second > 0 else NEITHER


def as_lines(rows: pd.DataFrame) -> list[str]:
    """Return the rows of ``by_subset`` as lines of a table."""
    head = ("λ_w of bDPO beside L_l/(L_w + L_l)", "pairs", "share", "λ_w", "λ_w − share", "R²", "halves")
    lines = [f"{head[0]:<38}{head[1]:>7}{head[2]:>8}{head[3]:>8}  {head[4]:<25}{head[5]:>6}{head[6]:>8}"]
    for name, row in rows.to_dict("index").items():
        said = f"{row['beyond']:+.3f}" + ("" if math.isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]")
        r2 = "–" if math.isnan(row["r2"]) else f"{row['r2']:.2f}"
        lines.append(
            f"{name:<38}{row['pairs']:>7,}{row['length_share']:>8.3f}{row['win_weight']:>8.3f}  {said:<25}{r2:>6}"
            f"{row['halves']:>8}"
        )
    return [*lines, "halves: whether both halves of the pairs show the difference (yes), its sign alone (sign), or no"]


def about_length(rows: pd.DataFrame) -> str:
    """Return a sentence on what bDPO does beyond length; "" where there are too few pairs."""
    whole = rows.to_dict("index")["all pairs"]
    if math.isnan(whole["low"]):
        return ""
    span = f"{whole['beyond']:+.3f} [{whole['low']:+.3f}, {whole['high']:+.3f}]"
    halves = "in both halves of the pairs" if whole["halves"] == BOTH else "which both halves of the pairs do not show"
    return (
        f"Beyond length, λ_w is off the loser's share of the tokens by {span} on average, {halves}. Train length-dpo, "
        "and DPO at β/2, beside bdpo: what bdpo gains over both is balance, and the rest is length."
    )
