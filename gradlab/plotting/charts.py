"""Charts as data: curves, maps, fields and bars that a browser draws live, and matplotlib as a figure.

An explorer says with them what there is to see. ``gradlab/web/src/charts.ts`` draws them under the hand, and
``chart_figure.drawn`` draws the same charts for notebooks without a kernel and for papers. Arrays are numpy arrays;
colours are those of ``palette``, written as ``#RRGGBB``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Kind = Literal["linear", "log", "symlog"]  # of an axis; symlog is sign(v)·log(1 + |v|), linear near 0
Dash = Literal["", "dashed", "dotted", "dashdot"]
Marker = Literal["dot", "ring", "cross", "triangle-up", "triangle-down", "diamond"]
Colors = Literal["cividis", "signed", "sides", "moreOfB", "turned"]  # of a map


def even(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Return values on a ruler where equal steps are equally long: their logarithms, signed for symlog."""
    if kind == "log":
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(values)
    return np.sign(values) * np.log1p(np.abs(values)) if kind == "symlog" else values


def uneven(places: np.ndarray, kind: Kind) -> np.ndarray:
    """Return the values at these places of the ruler of ``even``."""
    if kind == "log":
        return np.exp(places)
    return np.sign(places) * np.expm1(np.abs(places)) if kind == "symlog" else places


@dataclass(frozen=True)
class Axis:
    """An axis: its label with the unit, its ends (low may lie above high), and its scale."""

    label: str
    low: float
    high: float
    kind: Kind = "linear"

    def __post_init__(self) -> None:
        """Refuse ends that no picture can have."""
        ends = (self.low, self.high)
        if not all(map(math.isfinite, ends)):
            raise ValueError(f"ends of the axis {self.label!r} must be two finite numbers, got {ends}")
        if self.kind == "log" and min(ends) <= 0:
            raise ValueError(f"ends of the log axis {self.label!r} must be above 0, got {ends}")


@dataclass(frozen=True)
class Curve:
    """A curve through (x, y), each (N,), with NaN as a gap; or points, where there is a marker and no line."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: str
    dash: Dash = ""
    marker: Marker | None = None
    line: bool = True
    filled: bool = True  # the markers
    low: np.ndarray | None = None  # ends of a band around the curve, (N,)
    high: np.ndarray | None = None
    faint: bool = False  # a curve to compare with: neither named in the legend nor read at the pointer

    def __post_init__(self) -> None:
        """Refuse points without an x or a y."""
        if len(self.x) != len(self.y):
            raise ValueError(f"curve {self.name!r} must have as many y as x, got {len(self.y)} and {len(self.x)}")


@dataclass(frozen=True)
class Band:
    """A shaded stretch of the x axis."""

    low: float
    high: float
    label: str = ""


@dataclass(frozen=True)
class Rule:
    """A straight line across the chart at this x or this y; with both, a line of slope 1 through that point."""

    x: float | None = None
    y: float | None = None
    label: str = ""
    dash: Dash = ""


@dataclass(frozen=True)
class Label:
    """A text at a point, in the units of the axes."""

    x: float
    y: float
    text: str
    color: str = ""


@dataclass(frozen=True)
class Move:
    """How a drag along an axis moves a control: its value is (position − origin) · factor, held within its ends."""

    control: str
    axis: Literal["x", "y"]
    origin: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class Track:
    """A path that a handle is dragged along: the control gets the value of the nearest point; all are (K,)."""

    control: str
    values: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Handle:
    """A point to drag, by mouse, finger or arrow keys; it moves controls, or runs along a track."""

    name: str
    x: float
    y: float
    color: str
    moves: Sequence[Move] = ()
    track: Track | None = None
    shape: Literal["dot", "diamond"] = "dot"


@dataclass(frozen=True)
class Curves:
    """Curves and points over common axes.

    link      charts of one link share the pointer: what is nearest to its x is marked in all of them.
    picks     controls that a click sets to the x and y of the click; "" leaves one out.
    """

    title: str
    description: str  # for readers who cannot see the chart
    x: Axis
    y: Axis
    curves: Sequence[Curve]
    bands: Sequence[Band] = ()
    rules: Sequence[Rule] = ()
    labels: Sequence[Label] = ()
    handles: Sequence[Handle] = ()
    link: str = ""
    picks: tuple[str, str] = ("", "")
    height: int = 200  # pixels


@dataclass(frozen=True)
class Level:
    """A contour of a map at this value."""

    value: float
    color: str
    label: str = ""


@dataclass(frozen=True)
class Map:
    """Values (R, C) as colours; NaN is left empty, and cells that ``struck`` (R, C) names are struck through.

    rows, columns  positions of the cells' centres on the axes, (R,) and (C,), rising evenly in the axis's scale. The
                   axes end at the edges of the outer cells; an axis's own ends say which way y runs, and where a
                   single row or column ends.
    quantity       the name of a value, with its unit; low and high are the values of the first and last colour.
    struck_means   what a reader is told of a cell that is struck through.
    ring           a point (x, y) that is marked. picks: controls that a click sets to the x and y of the click.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    columns: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    quantity: str
    low: float
    high: float
    colors: Colors = "cividis"
    logarithmic: bool = False
    levels: Sequence[Level] = ()
    struck: np.ndarray | None = None
    struck_means: str = "struck through"
    ring: tuple[float, float] | None = None
    picks: tuple[str, str] = ("", "")
    link: str = ""
    height: int = 240

    def __post_init__(self) -> None:
        """Refuse values that are not one per row and column, and positions that no map can have."""
        shape, found = (len(self.rows), len(self.columns)), np.shape(self.values)
        if shape != found:
            raise ValueError(f"values must be {shape}, as there are rows and columns, got {found}")
        if self.x.low > self.x.high:
            raise ValueError(f"the x axis of a map must run to the right, got {self.x.low} to {self.x.high}")
        for name, axis, places in (("columns", self.x, self.columns), ("rows", self.y, self.rows)):
            steps = np.diff(even(np.asarray(places, float), axis.kind))
            if not (np.all(steps > 0) and np.allclose(steps, steps.mean() if len(steps) else 0, rtol=1e-3, atol=0)):
                raise ValueError(f"{name} must rise evenly on the {axis.kind} axis {axis.label!r}, got {places}")


@dataclass(frozen=True)
class Arrows:
    """Arrows over the probabilities of two responses, at (at_x, at_y), each (N,), all drawn equally long.

    right, up  where an arrow points, (N,), in shares of the axes' lengths; an arrow without length is not drawn.
    trail      points that a line connects. Where x + y > 1 there is no policy: that part of the chart is grey.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    at_x: np.ndarray
    at_y: np.ndarray
    right: np.ndarray
    up: np.ndarray
    colors: Sequence[str]
    handles: Sequence[Handle] = ()
    trail: Sequence[tuple[float, float]] = ()
    height: int = 260


@dataclass(frozen=True)
class Bar:
    """One bar per group, to both sides of zero."""

    name: str
    values: np.ndarray
    color: str
    dashed: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal bars in groups, with the groups' names."""

    title: str
    description: str
    label: str  # of the axis of values, with the unit
    groups: Sequence[str]
    bars: Sequence[Bar]
    height: int = 140


@dataclass(frozen=True)
class Picture:
    """A picture that exists already, such as a committed figure: PNG bytes and its width in pixels."""

    title: str
    description: str
    png: bytes = field(repr=False)
    width: int = 800


Chart = Curves | Map | Arrows | Bars | Picture
