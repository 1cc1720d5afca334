"""Promises about the human study: a row per promise, with what was measured, and whether the promise is met."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.stats.agreement import wilson_interval
from gradlab.study.planned_power import PREFERRED
from gradlab.study.rates import NORMAL
from gradlab.study.validation import settings as fixed
from gradlab.study.validation.runs import Found
from gradlab.study.validation.settings import Case, Settings
from gradlab.study.validation.turning import crossing

MET, OPEN, MISSED, NOT_RUN, STATED = "met", "open", "missed", "not run", "stated"
_KINDS = {"win-rate": "the win-rate", "equal length": "the win-rate at equal length", "left": "how often left wins",
          "strength": "strengths of three systems"}  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """A promise with what was measured of it.

    part   ``coverage``, ``power``, ``bias``, ``turn`` or ``word``; ``what``, in words. ``target``, as text.
    value  what was measured, with the 95% interval that the number of simulations gives it.
    word   ``met``: the value reaches the target. ``missed``: it does not, and neither does its interval. ``open``: the
           interval holds values that reach it and values that do not, and the value does not. ``stated``: nothing was
           promised.
    note   what else is to be said, as text.
    """

    part: str
    what: str
    target: str
    value: float
    low: float
    high: float
    word: str
    note: str = ""
    share: bool = True


def promises(found: Found, settings: Settings) -> list[Promise]:
    """Return all promises in the order of the page, each with the number behind it."""
    return [
        *_coverage(found, settings), *_power(found, settings), *_biases(found, settings), *_turns(found, settings),
        *_words(found, settings),
    ]  # fmt: skip


def at_least(hits: float, number: int, target: float) -> tuple[float, float, float, str]:
    """Return a share with its Wilson interval, and whether it reaches a target."""
    share = hits / number
    low, high = wilson_interval(share, number)
    return share, low, high, MET if share >= target else OPEN if high >= target else MISSED


def at_most(hits: float, number: int, target: float) -> tuple[float, float, float, str]:
    """Return a share with its Wilson interval, and whether it stays below a target."""
    share, low, high, _ = at_least(hits, number, target)
    return share, low, high, MET if share <= target else OPEN if low <= target else MISSED


def within(value: float, error: float, bound: float) -> tuple[float, float, float, str]:
    """Return a difference with its normal interval, and whether it lies within ± a bound."""
    low, high = value - NORMAL * error, value + NORMAL * error
    return value, low, high, MET if abs(value) <= bound else MISSED if low > bound or high < -bound else OPEN


def covering(found: Found, settings: Settings) -> pd.DataFrame:
    """Return the rows of intervals that should cover; strengths of all systems are one kind."""
    names = {case.name for case in settings.cases if case.covers}
    table = found.intervals[found.intervals["case"].isin(names)]
    return table.assign(kind=table["kind"].str.replace(r"^strength .*", "strength", regex=True))


def preferred(row: pd.Series) -> int:
    """Return in how many studies of a case the verdict was that b is preferred."""
    return int(sum(row.get(f"word {word}", 0) for word in PREFERRED))


def powers(found: Found, settings: Settings) -> pd.DataFrame:
    """Return a row per case with a promise: ``case``, ``promised``, ``measured`` power, ``low``, ``high``, ``error``.

    low, high  the 95% interval of the measured power. error: standard error of measured − promised.
    """
    rows = []
    for case in settings.cases:
        row = _row(found.verdicts, case)
        if not case.promised or case.effect <= 0 or math.isnan(row["promised"]):
            continue
        number, hits, promise = int(row["simulations"]), preferred(row), float(row["promised"])
        low, high = wilson_interval(hits / number, number)
        measured = hits / number
        spread = measured * (1 - measured) / number + promise * (1 - promise) / float(row["promises"])
        rows.append({
            "case": case.name, "promised": promise, "measured": measured, "low": low, "high": high,
            "error": math.sqrt(spread), "covers": case.covers,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _coverage(found: Found, settings: Settings) -> list[Promise]:
    said = []
    for kind, rows in covering(found, settings).groupby("kind", sort=False):
        value = at_least(rows["covered"].sum(), int(rows["simulations"].sum()), fixed.COVERAGE)
        worst = rows.iloc[int((rows["covered"] / rows["simulations"]).to_numpy(float).argmin())]
        share, low, high, word = at_least(float(worst["covered"]), int(worst["simulations"]), fixed.COVERAGE)
        number = rows["case"].nunique()
        cases = f"{number} case{'' if number == 1 else 's'}"
        said.append(Promise(
            "coverage", f"95% intervals of {_KINDS[str(kind)]} hold the truth ({cases})",
            f"≥ {fixed.COVERAGE:.0%}", *value,
            note=f"lowest: {worst['case']}, {share:.1%} [{low:.1%}, {high:.1%}], {word}",
        ))  # fmt: skip
    return said


def _power(found: Found, settings: Settings) -> list[Promise]:
    table = powers(found, settings)
    careful = table[table["covers"]]
    off = careful["measured"] - careful["promised"]
    error = math.sqrt(float((careful["error"] ** 2).sum())) / len(careful)
    worst = careful.iloc[int(off.abs().to_numpy(float).argmax())]
    value, low, high, word = within(float(worst["measured"] - worst["promised"]), float(worst["error"]),
                                    fixed.POWER_WITHIN)  # fmt: skip
    target = f"within {100 * fixed.POWER_WITHIN:.0f} points"
    said = [Promise(
        "power", f"measured power − promised power, mean of {len(careful)} cases", target,
        *within(float(off.mean()), error, fixed.POWER_WITHIN),
        note=f"farthest: {worst['case']}, {_points(value)} [{100 * low:+.1f}, {100 * high:+.1f}], {word}",
    )]  # fmt: skip
    others = [
        Promise("power", f"measured power − promised power, {row['case']}", target,
                *within(row["measured"] - row["promised"], row["error"], fixed.POWER_WITHIN),
                note="`power` leaves out who fails the attention checks")
        for row in table[~table["covers"]].to_dict("records")
    ]  # fmt: skip
    return said + others


def _biases(found: Found, settings: Settings) -> list[Promise]:
    said = []
    for case in settings.cases:
        row, rates = _row(found.verdicts, case), found.intervals[found.intervals["case"] == case.name]
        number = int(row["simulations"])
        for bias in case.biases:
            hits = float(row.get(f"warned {bias}", 0))
            if _is_planted(case, bias):
                said.append(Promise("bias", f"{case.name}: the report names it ({bias})", f"≥ {fixed.FOUND:.0%}",
                                    *at_least(hits, number, fixed.FOUND)))  # fmt: skip
            else:
                said.append(Promise("bias", f"{case.name}: a false alarm ({bias})", f"≤ {fixed.FALSE_ALARM:.0%}",
                                    *at_most(hits, number, fixed.FALSE_ALARM)))  # fmt: skip
        if case.model.careless:
            said.append(Promise("bias", f"{case.name}: careless raters are left out", f"≥ {fixed.FOUND:.0%}",
                                *at_least(float(row["caught"]), int(row["careless"]), fixed.FOUND)))  # fmt: skip
        if case.model.length or case.model.position or case.model.careless or case.model.fatigue:
            kind = "equal length" if case.model.length else "win-rate"
            of = rates[rates["kind"] == kind].iloc[0]
            error = float(of["spread"]) / math.sqrt(number)
            value, low, high, word = within(float(of["estimate"] - of["truth"]), error, fixed.OFF)
            tired = bool(case.model.fatigue)
            target = "none: named, not mended" if tired else f"within {100 * fixed.OFF:.0f} points"
            said.append(Promise(
                "bias", f"{case.name}: the {'rate at equal length' if case.model.length else kind} is off by", target,
                value, low, high, STATED if tired else word, note=_uncorrected(case, rates),
            ))  # fmt: skip
    return said


def _is_planted(case: Case, bias: str) -> bool:
    return bool({"sides": case.model.position, "length": case.model.length, "drift": case.model.fatigue}[bias])


def _uncorrected(case: Case, rates: pd.DataFrame) -> str:
    if not case.model.length:
        return ""
    of = {kind: rates[rates["kind"] == kind].iloc[0] for kind in ("win-rate", "equal length")}
    return f"the plain win-rate by {_points(float(of['win-rate']['estimate'] - of['equal length']['truth']))}"


def _turns(found: Found, settings: Settings) -> list[Promise]:
    said = []
    target = f"within {fixed.TURN_WITHIN:.0%} of the prediction"
    for one in settings.turnings:
        rows = found.turnings[found.turnings["turning"] == one.name]
        what = f"{one.name}: the leaning at which bDPO − DPO turns its sign"
        if rows.empty:
            said.append(Promise("turn", what, target, math.nan, math.nan, math.nan, NOT_RUN, share=False,
                                note="waits for samples of both systems"))  # fmt: skip
            continue
        first = rows.iloc[0]
        root, error = crossing(rows["leaning"].to_numpy(float), rows["rate"].to_numpy(float))
        _, _, _, word = within(root - first["predicted"], error, fixed.TURN_WITHIN * abs(first["predicted"]))
        said.append(Promise(
            "turn", what, target, root, root - NORMAL * error, root + NORMAL * error, word, share=False,
            note=f"predicted {first['predicted']:.3g}; −(mean difference of rewards)/(of lengths) is "
            f"{first['formula']:.3g}; {int(first['items'])} prompts",
        ))  # fmt: skip
    return said


def _words(found: Found, settings: Settings) -> list[Promise]:
    said = []
    for case in settings.cases:
        row = _row(found.verdicts, case)
        number = int(row["simulations"])
        if case.right:
            hits = sum(float(row.get(f"word {word}", 0)) for word in case.right)
            said.append(Promise("word", f"{case.name}: {_or(case.right)}", f"≥ {fixed.RIGHT_WORD:.0%}",
                                *at_least(hits, number, fixed.RIGHT_WORD), note=_half_width(found, case)))  # fmt: skip
        if case.wrong:
            hits = sum(float(row.get(f"word {word}", 0)) for word in case.wrong)
            most = 1 - fixed.RIGHT_WORD
            said.append(Promise("word", f"{case.name}: a wrong word ({_or(case.wrong)})", f"≤ {most:.0%}",
                                *at_most(hits, number, round(most, 9)), note=_half_width(found, case)))  # fmt: skip
    return said


def _half_width(found: Found, case: Case) -> str:
    rows = found.intervals[(found.intervals["case"] == case.name) & (found.intervals["kind"] == "win-rate")]
    return f"half-width {100 * float(rows['half_width'].iloc[0]):.1f} points"


def _row(verdicts: pd.DataFrame, case: Case) -> pd.Series:
    return verdicts[verdicts["case"] == case.name].iloc[0]


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(words)


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def in_numbers(promise: Promise) -> tuple[str, str]:
    """Return value and interval as text: shares in percent, differences in points, leanings as they are."""
    if np.isnan(promise.value):
        return "–", "–"
    numbers = (promise.value, promise.low, promise.high)
    if not promise.share:
        value, low, high = (f"{number:.3g}" for number in numbers)
    elif promise.target.startswith(("within", "none")):
        value, low, high = (f"{100 * number:+.1f} points" for number in numbers)
    else:
        value, low, high = (f"{number:.1%}" for number in numbers)
    return value, f"[{low.removesuffix(' points')}, {high.removesuffix(' points')}]"
