"""The charts of a study: win-rates with intervals in rows, and power over effects."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gradlab.plotting.charts import Axis, Curve, Curves, Label, Rule
from gradlab.plotting.palette import CHOSEN, INK, SETTINGS
from gradlab.study.planned_power import Power
from gradlab.study.rates import Rate
from gradlab.study.results import Results

_LONGEST = 34  # letters of a row's name
_DASHES = ("", "dashed", "dotted", "dashdot")
_MARKERS = ("dot", "diamond", "triangle-up", "triangle-down", "ring", "cross")


def rows_of_rates(title: str, rows: Iterable[tuple[str, float, float, float]], margin: float) -> Curves:
    """Return a chart with a row per rate: its name, the rate, and the ends of its interval.

    The line at ½ is where neither is preferred, and those beside it are the margin.
    """
    known = [row for row in rows if not math.isnan(row[1])]
    places = 1.0 + np.arange(len(known))
    rate, low, high = np.array([row[1:] for row in known], float).reshape(-1, 3).T
    gap = np.full(len(known), math.nan)
    x, y = np.stack([low, high, gap], axis=1).ravel(), np.stack([places, places, gap], axis=1).ravel()
    return Curves(
        title, f"{title}, a row per rate with its 95% interval", Axis("win-rate, ties ½", 0.0, 1.0),
        Axis("", max(len(known), 3) + 0.5, 0.25),
        [Curve("", x, y, CHOSEN[0], faint=True), Curve("rate", rate, places, INK, line=False, marker="diamond")],
        rules=[Rule(x=0.5), Rule(x=0.5 - margin, dash="dotted"), Rule(x=0.5 + margin, dash="dotted")],
        labels=[Label(0.01, place - 0.12, _short(name)) for place, (name, *_) in zip(places, known, strict=True)],
        height=90 + 34 * max(len(known), 3),
    )  # fmt: skip


def charts_of(results: Results) -> list[Curves]:
    """Return the charts of a report: all pairs and goals, strata, choices, raters."""
    margin = results.plan.primary.margin
    primary = results.plan.primary
    question = f"{primary.b} over {primary.a}, {primary.goal}"

    def rows(frame: object, name: str) -> list[tuple[str, float, float, float]]:
        return [(str(getattr(row, name)), row.rate, row.low, row.high) for row in frame.itertuples()]  # type: ignore[attr-defined]

    rates = results.rates.assign(name=[f"{r.b} over {r.a}, {r.goal}" for r in results.rates.itertuples()])
    charts = [rows_of_rates("all questions", rows(rates, "name"), margin)]
    if len(results.strata) > 1:
        charts.append(rows_of_rates(f"{question}, by stratum", rows(results.strata, "stratum"), margin))
    charts.append(rows_of_rates(f"{question}, under other choices", rows(results.sensitivity, "choice"), margin))
    terms = [
        _row("as it is", results.verdict.rate), _row("at equal length", results.equal_length.rate),
        _row("left over right", results.left),
    ]  # fmt: skip
    return [*charts, rows_of_rates("length and side", terms, margin)]


def power_chart(power: Power) -> Curves:
    """Return power over the true effect, a curve per design."""
    curves = []
    for place, ((raters, items), rows) in enumerate(power.frame.groupby(["raters", "items_per_rater"])):
        curves.append(Curve(
            f"{raters} raters, {items} items each", 0.5 + rows["effect"].to_numpy(), rows["power"].to_numpy(),
            SETTINGS[place % len(SETTINGS)], dash=_DASHES[place % 4], marker=_MARKERS[place % 6],  # type: ignore[arg-type]
            low=rows["power_low"].to_numpy(), high=rows["power_high"].to_numpy(),
        ))  # fmt: skip
    primary, effects = power.plan.primary, power.frame["effect"]
    low, high = 0.5 + effects.min(), 0.5 + max(effects.max(), effects.min() + 0.01)
    return Curves(
        f"power to find that {primary.b} is preferred", "power over the true win-rate, a curve per design",
        Axis(f"true win-rate of {primary.b} over {primary.a}", low, high),
        Axis("share of studies that find it", 0.0, 1.0), curves, rules=[Rule(y=0.8, label="80%", dash="dotted")],
        height=300,
    )  # fmt: skip


def _row(name: str, rate: Rate) -> tuple[str, float, float, float]:
    return name, rate.rate, rate.low, rate.high


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
