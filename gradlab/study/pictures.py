"""The charts of a study: win-rates with intervals in rows, and power over effects."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.plotting.charts import Axis, Curve, Curves, Dash, Label, Marker, Rule
from gradlab.plotting.palette import CHOSEN, INK, SETTINGS
from gradlab.study.planned_power import DESIGN, Power
from gradlab.study.rates import NORMAL
from gradlab.study.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 34  # letters of a row's name
_DASHES: tuple[Dash, ...] = ("", "dashed", "dotted", "dashdot")
MOST = 12  # designs that colour, dash and marker tell apart
_MARKERS: tuple[Marker, ...] = ("dot", "diamond", "triangle-up", "triangle-down", "ring", "cross")


def rows_of_rates(title: str, rows: Iterable[tuple[str, float, float, float]], margin: float) -> Curves:
    """Return a chart with a row per rate: its name, the rate, and the ends of its interval.

    The line at ½ is where neither is preferred, and those beside it are the margin.
    """
    known = [row for row in rows if not math.isnan(row[1])]
    places = 1.0 + np.arange(len(known))
    rate, low, high = np.array([row[1:] for row in known], float).reshape(-1, 3).T
    return Curves(
        title, f"{title}, a row per rate with its 95% interval", Axis("win-rate, ties ½", 0.0, 1.0),
        Axis("", max(len(known), 3) + 0.5, 0.25),
        [bars(low, high, places, CHOSEN[0]), Curve("rate", rate, places, INK, line=False, marker="diamond")],
        rules=[Rule(x=0.5), Rule(x=0.5 - margin, dash="dotted"), Rule(x=0.5 + margin, dash="dotted")],
        labels=[Label(0.01, place - 0.12, _short(name)) for place, (name, *_) in zip(places, known, strict=True)],
        height=90 + 34 * max(len(known), 3),
    )  # fmt: skip


def bars(low: np.ndarray, high: np.ndarray, places: np.ndarray, color: str, *, upright: bool = False) -> Curve:
    """Return intervals, (n,) each, as one curve of short lines: from low to high along x, or along y if ``upright``."""
    gap = np.full(len(places), math.nan)
    along = np.stack([low, high, gap], axis=1).ravel()
    across = np.stack([places, places, gap], axis=1).ravel()
    return Curve("", across, along, color, faint=True) if upright else Curve("", along, across, color, faint=True)


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
    return [*charts, rows_of_rates("length and side", rows(results.terms, "choice"), margin)]


def figure_of(results: Results) -> Figure:
    """Return the charts of a report as one figure; rows have their names and no numbers."""
    from gradlab.plotting.chart_figure import drawn

    figure = drawn(charts_of(results), width=10)
    for axes in figure.axes:
        axes.set_yticks([])
    return figure


def power_charts(power: Power, target: float = 0.8, half_width: float | None = None) -> list[Curves]:
    """Return power over the true effect, and precision over items per rater, with a curve per design.

    target, half_width  what is to be reached, drawn as lines; None for no line.
    ValueError for more than twelve designs.
    """
    number = power.frame[DESIGN].drop_duplicates().shape[0]
    if number > MOST:
        raise ValueError(f"designs must be at most {MOST} in a figure, got {number}; try fewer raters or items")
    return [power_chart(power, target), precision_chart(power, half_width)]


def power_chart(power: Power, target: float = 0.8) -> Curves:
    """Return power over the true effect, with its interval from the simulations, a curve per design."""
    frame = power.frame.assign(rate=0.5 + power.frame["effect"])
    curves = _curves(frame, DESIGN, "rate", ("power", "power_low", "power_high"))
    primary, effects = power.plan.primary, power.frame["effect"]
    low, high = 0.5 + effects.min(), 0.5 + max(effects.max(), effects.min() + 0.01)
    return Curves(
        f"power to find that {primary.b} is preferred", "power over the true win-rate, a curve per design",
        Axis(f"true win-rate of {primary.b} over {primary.a}", low, high),
        Axis("share of studies that find it", 0.0, 1.0), curves,
        rules=[Rule(y=target, label=f"{target:.0%}", dash="dotted")], height=300,
    )  # fmt: skip


def precision_chart(power: Power, half_width: float | None = None) -> Curves:
    """Return the widest mean half-width over effects, with its interval from the simulations."""
    known = power.frame[power.frame["half_width"].notna()]
    frame = known.loc[known.groupby(DESIGN)["half_width"].idxmax()]
    frame = frame.assign(
        low=frame["half_width"] - NORMAL * frame["half_width_error"],
        high=frame["half_width"] + NORMAL * frame["half_width_error"],
    )
    curves = _curves(frame, ["raters", "raters_per_item"], "items_per_rater", ("half_width", "low", "high"))
    items, top = power.frame["items_per_rater"], max([*frame["high"], half_width or 0.0]) or 1.0
    return Curves(
        "precision", "half the width of the 95% interval over items per rater, a curve per number of raters",
        Axis("items per rater", 0.0, 1.1 * items.max()), Axis("half-width of the 95% interval", 0.0, 1.1 * top),
        curves, height=300,
        rules=[] if half_width is None else [Rule(y=half_width, label=f"{half_width:.1%}", dash="dotted")],
    )  # fmt: skip


def _curves(frame: pd.DataFrame, designs: list[str], x: str, y: tuple[str, str, str]) -> list[Curve]:
    """Return a curve per design, with a band between the last two columns of y; dash and marker tell them in grey."""
    said = {"raters": "{} raters", "items_per_rater": "{} items each", "raters_per_item": "{} per item"}
    if frame["raters_per_item"].nunique() == 1:
        del said["raters_per_item"]
    curves = []
    for place, (_, rows) in enumerate(frame.groupby(designs)):
        name = ", ".join(words.format(rows[column].iloc[0]) for column, words in said.items() if column in designs)
        middle, low, high = (rows[column].to_numpy(float) for column in y)
        curves.append(Curve(
            name, rows[x].to_numpy(float), middle, SETTINGS[place % len(SETTINGS)], dash=_DASHES[place % len(_DASHES)],
            marker=_MARKERS[place % len(_MARKERS)], low=low, high=high,
        ))  # fmt: skip
    return curves


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
