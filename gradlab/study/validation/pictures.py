"""The figures of the validation: coverage, power promised against measured, and where length turns the sign."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.plotting.charts import Axis, Curve, Curves, Dash, Label, Marker, Rule
from gradlab.plotting.palette import FAINT, INK, SETTINGS
from gradlab.stats.agreement import wilson_interval
from gradlab.study.pictures import bars
from gradlab.study.rates import NORMAL
from gradlab.study.validation.judged import covering, powers
from gradlab.study.validation.runs import Found
from gradlab.study.validation.settings import COVERAGE, POWER_WITHIN, Settings

_LOOKS: dict[str, tuple[str, Marker, str]] = {  # of a kind of interval: colour, marker, name
    "win-rate": (SETTINGS[0], "dot", "win-rate"),
    "equal length": (SETTINGS[1], "triangle-up", "win-rate at equal length"),
    "left": (SETTINGS[2], "diamond", "left over right"),
    "strength": (SETTINGS[4], "cross", "strengths"),
}
_NAMES = 0.8  # coverage at which the axis begins; the names stand there, left of all marks
_PER = {"log word": "log odds per unit of log(words)", "word": "log odds per word"}


def coverage_chart(found: Found, settings: Settings) -> Curves:
    """Return coverage in rows: one per case, with a mark and an interval per kind."""
    table = covering(found, settings)
    cases = list(dict.fromkeys(table["case"]))
    curves: list[Curve] = []
    for order, (kind, (color, marker, name)) in enumerate(_LOOKS.items()):
        rows = table[table["kind"] == kind].groupby("case", sort=False)[["covered", "simulations"]].sum()
        places = np.array([cases.index(str(case)) + 1 + 0.2 * (order - 1) for case in rows.index])
        shares = (rows["covered"] / rows["simulations"]).to_numpy(float)
        ends = [wilson_interval(share, int(n)) for share, n in zip(shares, rows["simulations"], strict=True)]
        low, high = np.array(ends, float).reshape(-1, 2).T
        curves += [bars(low, high, places, color), Curve(name, shares, places, color, line=False, marker=marker)]
    names = [Label(_NAMES + 0.002, place + 1.2, case) for place, case in enumerate(cases)]
    return Curves(
        "coverage of 95% intervals, by case", "coverage of intervals in rows, a mark per kind of interval",
        Axis("share of the intervals that hold the truth", _NAMES, 1.004), Axis("", len(cases) + 0.7, 0.3), curves,
        rules=[Rule(x=COVERAGE, label=f"{COVERAGE:.0%}", dash="dashed"), Rule(x=0.95, label="95%", dash="dotted"),
               ],
        labels=names, height=34 * len(cases) + 60,
    )  # fmt: skip


def power_chart(found: Found, settings: Settings) -> Curves:
    """Return the measured power over the promised one."""
    table = powers(found, settings)
    curves = []
    for covers, color, marker, name in ((True, SETTINGS[0], "dot", "careful raters"),
                                        (False, SETTINGS[1], "triangle-up", "tired or careless raters")):  # fmt: skip
        rows = table[table["covers"] == covers]
        x, y = rows["promised"].to_numpy(float), rows["measured"].to_numpy(float)
        low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
        curves += [bars(low, high, x, color, upright=True), Curve(name, x, y, color, line=False, marker=marker)]  # type: ignore[arg-type]
    return Curves(
        "power, promised and measured", "measured power over promised power, a mark per case",
        Axis("power that gradlab study power promises", 0.0, 1.02), Axis("measured by the whole path", 0.0, 1.02),
        curves,
        rules=[Rule(x=0.0, y=0.0), Rule(x=0.0, y=POWER_WITHIN, dash="dotted"),
               Rule(x=POWER_WITHIN, y=0.0, dash="dotted")],
        height=330,
    )  # fmt: skip


def turning_charts(found: Found, settings: Settings) -> list[Curves]:
    """Return the win-rate over the raters' leaning to length, a chart per unit, for the samples that are there."""
    charts = []
    for unit in dict.fromkeys(one.unit for one in settings.turnings):
        curves: list[Curve] = []
        rules = [Rule(y=0.5)]
        for place, one in enumerate(one for one in settings.turnings if one.unit == unit):
            rows = found.turnings[found.turnings["turning"] == one.name]
            if rows.empty:
                continue
            color, dash = SETTINGS[place], ("", "dashed")[place % 2]
            task = one.name.split(",", maxsplit=1)[0]
            curves += _turning(rows, task, color, dash)  # type: ignore[arg-type]
            rules.append(Rule(x=float(rows["predicted"].iloc[0]), dash="dashed"))
        if curves:
            x = np.concatenate([curve.x for curve in curves])
            edge = 0.05 * (np.nanmax(x) - np.nanmin(x))
            charts.append(Curves(
                f"leaning per {unit}", f"win-rate of bDPO over the leaning to length per {unit}",
                Axis(_PER[unit], float(np.nanmin(x) - edge), float(np.nanmax(x) + edge)),
                Axis("win-rate of bDPO over DPO", 0.35, 0.65), curves, rules=rules, height=280,
            ))  # fmt: skip
    return charts


def _turning(rows: pd.DataFrame, task: str, color: str, dash: Dash) -> list[Curve]:
    by = rows.groupby("leaning")
    x = np.array(sorted(rows["leaning"].unique()), float)
    error = NORMAL * (by["rate"].std() / np.sqrt(by["rate"].size())).to_numpy(float)
    mean = by["rate"].mean().to_numpy(float)
    return [
        Curve(f"{task}, by formula", x, by["expected"].first().to_numpy(float), color, dash=dash),
        bars(mean - error, mean + error, x, INK, upright=True),
        Curve(f"{task}, measured", x, mean, INK, line=False, marker="diamond"),
        Curve(f"{task}, measured at equal length", x, by["equal"].mean().to_numpy(float), FAINT, dash="dotted",
              marker="ring"),
    ]  # fmt: skip
