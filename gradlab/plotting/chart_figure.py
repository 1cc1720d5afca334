"""Charts as one matplotlib figure: rows of panels that fill its width, for notebooks without a kernel and for papers.

Places are computed from the texts, in inches: matplotlib's own layout takes longer than all the drawing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plotting.chart_marks import draw_bar, draw_chart, named, written
from gradlab.plotting.chart_scales import spelt, ticks
from gradlab.plotting.charts import Axis, Bars, Chart, Map, Picture
from gradlab.plotting.looks import WIDTH, style

_PIXELS = 80  # of a chart's height that become an inch, so that larger letters have their room
_ACROSS = 3  # charts in a row, at most
_BAR = 0.13  # width of a scale of colours, in inches
_GAP = 0.12  # beside a scale of colours, and between charts


def drawn(charts: Sequence[Chart], *, width: float = 11.3) -> Figure:
    """Return the charts as one figure, in rows of up to three; pictures have a row each.

    Nothing global changes. Letters have 9 points where the figure is 8 inches wide, and up to 11 where it is wider.

    width  of the figure, in inches.
    Raises ValueError where there is no chart to draw, TypeError for what is no chart.
    """
    if not charts:
        raise ValueError("charts must hold at least one chart, got none")
    strange = [type(chart).__name__ for chart in charts if not isinstance(chart, Chart)]
    if strange:
        raise TypeError(f"charts must hold charts, got {strange[0]}")
    size = float(np.clip(9 * width / WIDTH, 8, 11))
    with mpl.rc_context(_look(size)):
        rows = [_Row([_Panel(chart, width / len(row), size) for chart in row]) for row in _rows(charts)]
        figure = Figure(figsize=(width, sum(row.height for row in rows)))
        top = figure.get_figheight()
        for row in rows:
            for at, panel in enumerate(row.panels):
                panel.draw(figure, at * width / len(row.panels), top, row)
            top -= row.height
    return figure


def _look(size: float) -> dict[Any, Any]:
    sizes = ("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize")
    return {
        **style(),
        **dict.fromkeys(sizes, size),
        "figure.dpi": 100,
        "hatch.linewidth": 0.6,
        "legend.handlelength": 2.2,
    }


def _rows(charts: Sequence[Chart]) -> list[list[Chart]]:
    """Return the charts in rows: pictures alone, others shared out evenly."""
    rows: list[list[Chart]] = []
    run: list[Chart] = []
    for chart in [*charts, None]:
        if chart is not None and not isinstance(chart, Picture):
            run.append(chart)
            continue
        count = -(-len(run) // _ACROSS)
        ends = [-(-at * len(run) // max(count, 1)) for at in range(count + 1)]  # the first rows have one more
        rows += [run[one:other] for one, other in pairwise(ends)]
        run = []
        if chart is not None:
            rows.append([chart])
    return rows


class _Panel:
    """A chart with the room that its texts take, in inches."""

    def __init__(self, chart: Chart, width: float, size: float) -> None:
        self.chart, self.width, self.line = chart, width, 1.3 * size / 72
        self.letter = 0.58 * size / 72  # the width of a usual letter
        self.inner = chart.height / _PIXELS if not isinstance(chart, Picture) else 0.0
        self.left, self.bottom = self._left(), self._bottom()
        self.right = self._right()
        room = width - self.left - self.right
        self.title = textwrap.wrap(chart.title, max(10, int((width - self.left - _GAP) / (1.06 * self.letter))))
        names = named(chart)
        entry = max((len(name) for name in names), default=0) * self.letter + 6.5 * self.letter
        self.columns = max(1, min(len(names), int(room / entry))) if names else 0
        self.legend = -(-len(names) // self.columns) if names else 0
        self.top = (len(self.title) + self.legend) * self.line + 0.14
        if isinstance(chart, Picture):
            across, up = _size(chart.png)
            self.inner = min(room, across / 60) * up / across  # no picture is blown up to mush
            self.right = width - self.left - min(room, across / 60)

    def _left(self) -> float:
        if isinstance(self.chart, Picture):
            return _GAP / 2
        if isinstance(self.chart, Bars):
            return max((len(name) for name in self.chart.groups), default=0) * self.letter + 2 * _GAP
        self.label = self._wrapped(self.chart.y.label)
        return _wide(self.chart.y, self.inner) * self.letter + len(self.label) * self.line + 0.2

    def _bottom(self) -> float:
        if isinstance(self.chart, Picture):
            return 0.05
        return 2.5 * self.line + 0.1

    def _right(self) -> float:
        if not isinstance(self.chart, Map):
            return 0.2
        lines = len(self._wrapped(self.chart.quantity))
        ends = Axis("", self.chart.low, self.chart.high, "log" if self.chart.logarithmic else "linear")
        return 2 * _GAP + _BAR + _wide(ends, self.inner) * self.letter + lines * self.line + 0.1

    def _wrapped(self, label: str) -> list[str]:
        """Return a label beside the axes in lines that are no longer than the axes are high."""
        return textwrap.wrap(label, max(8, int(self.inner / self.letter)))

    def draw(self, figure: Figure, left: float, top: float, row: _Row) -> None:
        """Draw the chart into a figure; left and top: its corner, from the figure's lower left one, in inches."""
        bottom = top - row.top - row.inner
        room = self.width - self.left - self.right
        inner = row.inner if not isinstance(self.chart, Picture) else self.inner
        axes = _axes(figure, (left + self.left, bottom, room, inner))
        draw_chart(self.chart, axes)
        height = figure.get_figheight()
        above = bottom + inner + self.legend * self.line + 0.06
        figure.text((left + self.left) / figure.get_figwidth(), above / height, written("\n".join(self.title)),
                    ha="left", va="bottom", fontweight="bold")  # fmt: skip
        if isinstance(self.chart, Map):
            bar = _axes(figure, (left + self.left + room + _GAP, bottom, _BAR, inner))
            draw_bar(self.chart, bar)
            bar.set_ylabel(written("\n".join(self._wrapped(self.chart.quantity))))
        elif not isinstance(self.chart, (Picture, Bars)):
            axes.set_ylabel(written("\n".join(self.label)))
        if self.legend:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=self.columns, borderaxespad=0.2, borderpad=0,
                        columnspacing=1.2, handletextpad=0.5, labelspacing=0.25)  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """Panels side by side, whose axes begin and end at one height."""

    panels: list[_Panel]

    @property
    def inner(self) -> float:
        return max(panel.inner for panel in self.panels)

    @property
    def top(self) -> float:
        return max(panel.top for panel in self.panels)

    @property
    def height(self) -> float:
        return self.top + self.inner + max(panel.bottom for panel in self.panels)


def _axes(figure: Figure, inches: tuple[float, float, float, float]) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, across, up = inches
    return figure.add_axes((left / width, bottom / height, across / width, up / height))


def _wide(axis: Axis, height: float) -> int:
    """Return the most letters that a tick of an upright axis has."""
    return max((len(spelt(place)) for place in ticks(axis, max(2, int(height / 0.4)))), default=1)


def _size(png: bytes) -> tuple[int, int]:
    """Return the width and the height in a PNG's first block."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
