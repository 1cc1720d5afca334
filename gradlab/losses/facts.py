"""Facts that a loss states beside its formula: its look in figures, and the sliders of its hyper-parameters."""

from __future__ import annotations

from dataclasses import field
from typing import Any, NamedTuple


class Look(NamedTuple):
    """A colour, line and marker by which figures draw a training with a loss, in Matplotlib's names."""

    color: str
    linestyle: Any
    marker: str


PLAIN = Look("#7F3C8D", (0, (3, 1, 1, 1)), "H")  # for a loss or method that names no look


class SliderRange(NamedTuple):
    """The stops of a slider: from ``low`` to ``high`` by ``step``; with ``log``, 10 to the power of these."""

    low: float
    high: float
    step: float
    log: bool = False


BETA_RANGE = SliderRange(-2, 2, 0.05, log=True)


def with_slider(default: float, stops: SliderRange) -> Any:
    """Return a field of a loss: a number with this default, which menus show as a slider over these stops."""
    return field(default=default, metadata={"slider": stops})
