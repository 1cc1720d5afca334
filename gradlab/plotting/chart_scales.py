"""Scales and ticks of charts, as ``gradlab/web/src/plot.ts`` has them, so that both pictures of a chart agree."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis

from gradlab.plotting.charts import Axis, Kind, even, uneven

_POWERS = tuple(10.0**power for power in range(-12, 13))


def spelt(value: float) -> str:
    """Return a number for people: four digits, a true minus, words for what is no number."""
    if math.isnan(value):
        return "no value"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.3e}" if value != 0 and abs(value) < 1e-3 else f"{value:.4g}"
    digits, _, power = text.partition("e")
    if power:
        digits = f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}e{int(power)}"
    return digits.replace("-", "−")


def share(values: np.ndarray | float, axis: Axis) -> np.ndarray:
    """Return places along an axis: 0 at its low end, 1 at its high end."""
    low, high = even(np.array([axis.low, axis.high]), axis.kind)
    return (even(np.asarray(values, float), axis.kind) - low) / (high - low or 1.0)


def ticks(axis: Axis, count: int) -> list[float]:
    """Return at most about ``count`` round numbers within an axis; powers of ten, and 0, where it is logarithmic."""
    low, high = sorted((axis.low, axis.high))
    powers = _powers(low, high, axis.kind)
    if len(powers) >= 2:
        return powers[:: math.ceil(len(powers) / max(count, 2))]
    if axis.kind == "log":
        found = [base * power for power in _POWERS for base in (1, 2, 5)]
    else:
        found = ticker.MaxNLocator(max(count, 2), steps=[1, 2, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(one) + 0.0 for one in found if low - slack <= one <= high + slack]


def _powers(low: float, high: float, kind: Kind) -> list[float]:
    if kind == "linear":
        return []
    if kind == "log":
        return [power for power in _POWERS if low * (1 - 1e-9) <= power <= high * (1 + 1e-9)]
    large = [power for power in _POWERS if power >= 1]
    both = [*(-power for power in reversed(large)), 0.0, *large]
    return [power for power in both if low - 1e-9 <= power <= high + 1e-9]


def set_axes(axes: Axes, x: Axis, y: Axis, counts: tuple[int, int]) -> None:
    """Give axes their scales, ends and ticks; ``counts``: about how many ticks there are along x and y."""
    for name, axis, count in (("x", x, counts[0]), ("y", y, counts[1])):
        if axis.kind == "log":
            axes.set(**{f"{name}scale": "log"})
        elif axis.kind == "symlog":
            _set_signed(axes, name)
        high = axis.high if axis.high != axis.low else axis.low + (abs(axis.low) or 1.0)
        axes.set(**{f"{name}lim": (axis.low, high)})
        set_ticks(axes.xaxis if name == "x" else axes.yaxis, ticks(axis, count))


def _set_signed(axes: Axes, name: str) -> None:
    def forward(values: np.ndarray) -> np.ndarray:
        return even(values, "symlog")

    def back(places: np.ndarray) -> np.ndarray:
        return uneven(places, "symlog")

    (axes.set_xscale if name == "x" else axes.set_yscale)("function", functions=(forward, back))


def set_ticks(axis: XAxis | YAxis, places: list[float]) -> None:
    """Give one of matplotlib's axes these ticks, spelt, and no others."""
    axis.set_major_locator(ticker.FixedLocator(places))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FixedFormatter([spelt(place) for place in places]))
