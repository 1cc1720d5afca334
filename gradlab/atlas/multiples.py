"""The pictures of the atlas's page: a row of small panels per loss, and a large row that says how to read them."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from gradlab.atlas import pictures
from gradlab.atlas.measure import Measured
from gradlab.plotting.chart_figure import drawn
from gradlab.plotting.chart_marks import draw_chart
from gradlab.plotting.chart_scales import set_ticks
from gradlab.plotting.charts import Axis, Chart, Curves
from gradlab.plotting.looks import WIDTH, style
from gradlab.plotting.palette import FAINT
from gradlab.plotting.symbols import typeset

_HIGH = 2.0  # of a row of panels, in inches
_SIDE = 1.36  # of a panel
_LEFT = 0.52  # of the first panel; panels follow at equal distances
_TICKS = ([1e-4, 0.01, 1.0], [-10.0, 0.0, 10.0], [0.0, 0.5, 1.0])  # of either axis of the first three panels
_CELLS = 30  # of a map of directions; an even number, so that no cell lies on h = 0, where slopes may cancel
_TITLES = ("log₂ ρ over (π_w, π_l)", "who is pushed where", "a step on logits", "reward and KL over β")


def row(seen: Measured, trained: pd.DataFrame | None) -> Figure:
    """Return one row of panels: map of ρ, directions, a step and, where there are trainings, reward against KL."""
    charts: list[Chart] = [
        pictures.ratio_map(seen),
        _named(pictures.sign_map(seen, _CELLS)),
        pictures.step_field(seen, 9),
    ]
    if trained is not None:
        charts.append(_frontier(seen.loss.name, trained))
    with mpl.rc_context({**style(), "font.size": 8, "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
                         "lines.markersize": 3, "figure.dpi": 150}):  # fmt: skip
        figure = Figure(figsize=(WIDTH, _HIGH))
        for at, (chart, title) in enumerate(zip(charts, _TITLES, strict=False)):
            left = _LEFT + at * (WIDTH + 0.1) / 4
            axes = figure.add_axes((left / WIDTH, 0.44 / _HIGH, _SIDE / WIDTH, _SIDE / _HIGH))
            draw_chart(chart, axes)
            if not isinstance(chart, Curves):
                set_ticks(axes.xaxis, _TICKS[at])
                set_ticks(axes.yaxis, _TICKS[at])
            axes.set_title(typeset(title), loc="left", fontsize=8, pad=4)
            axes.xaxis.labelpad = axes.yaxis.labelpad = 1
            for arrows in axes.findobj(Quiver):
                arrows.scale, arrows.width = arrows.scale / 1.5, 2.4  # type: ignore[attr-defined]
            for line in axes.get_lines():
                line.set_markersize(min(line.get_markersize(), 6))
    return figure


def how_to_read(ratio: Measured, signs: Measured, step: Measured) -> Figure:
    """Return the three maps, each of a loss, large and with their scales of colours."""
    charts = (pictures.ratio_map(ratio), pictures.sign_map(signs, _CELLS), pictures.step_field(step))
    return drawn([replace(chart, height=150) for chart in charts], width=WIDTH)


def _named(chart: Chart) -> Chart:
    return replace(chart, x=replace(chart.x, label="h_w"), y=replace(chart.y, label="h_l"))  # type: ignore[union-attr,arg-type]


def _frontier(key: str, trained: pd.DataFrame) -> Curves:
    """Return the frontier of a loss in black, with DPO's behind it, in grey and dashed."""
    lines = {**({} if key == "dpo" else {"dpo": (FAINT, "dashed")}), key: ("#000000", "")}
    chart = pictures.frontier_chart(trained, lines, faint=["dpo"] if key != "dpo" else [])  # type: ignore[arg-type]
    return replace(chart, x=_wide(chart.x, "KL, nats"), y=_wide(chart.y, "E[u]"))


def _wide(axis: Axis, label: str) -> Axis:
    return replace(axis, label=label)
