"""A figure that is redrawn in hundredths of a second: still parts are drawn once, live parts again and again."""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gradlab.plotting import style
from gradlab.plotting.palette import CHOSEN
from gradlab.plotting.symbols import typeset_texts
from gradlab.widgets.front import Picture

DPI = 100
SIDES: dict[str, dict[str, Any]] = {  # the looks of the two sides, different in grey too
    "_a": {"color": CHOSEN[0], "linestyle": "-"},
    "_b": {"color": CHOSEN[1], "linestyle": "--"},
}
THIRD = {"_c": {"color": CHOSEN[2], "linestyle": "-."}}
Drawn = TypeVar("Drawn", bound=Artist)


class View:
    """One figure of an explorer, and the picture in the page that shows it.

    Draw on ``figure`` once, when the view is created, within ``look()``. Pass artists that will change to ``live``;
    then set their data, and ``redraw`` sends the picture. Axis limits, titles and ticks belong to the still part: call
    ``restyle`` after changing those; the next redraw is then complete, and takes several times as long.
    """

    def __init__(self, width: int, height: int, alt: str) -> None:
        """Make a figure of this width and height in pixels; ``alt`` says in words what the picture shows."""
        with mpl.rc_context(look()):
            self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
        self.canvas = FigureCanvasAgg(self.figure)
        self.picture = Picture(alt=alt, width=width)
        self._live: list[Artist] = []
        self._seldom: list[Artist] = []
        self._still = None
        self._slow = None  # the still part and the parts that seldom change
        self._pixels: np.ndarray | None = None

    def live(self, artist: Drawn, *, seldom: bool = False) -> Drawn:
        """Mark an artist that changes; it is drawn over the still part, in the order of zorder.

        ``seldom``: it changes less often than others, as texts do, and may lie below them; it is then drawn only after
        a change, which saves some milliseconds per redraw.
        """
        artist.set_animated(True)
        artist.set_in_layout(False)
        layer = self._seldom if seldom else self._live
        layer.append(artist)
        layer.sort(key=Artist.get_zorder)
        return artist

    def leave_room(self, above: float) -> None:
        """Keep a share of the height, above the axes, for live texts."""
        self.figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - above))

    def restyle(self) -> None:
        """Forget the still part: something about it has changed."""
        self._still = None

    def limits(self, axis: Axes, which: str, low: float, high: float) -> None:
        """Set the limits of an axis's ``x`` or ``y``; a complete redraw follows only where they change."""
        if getattr(axis, f"get_{which}lim")() != (low, high):
            getattr(axis, f"set_{which}lim")(low, high)
            self.restyle()

    def redraw(self) -> bool:
        """Draw, and show the picture if any pixel differs from the last picture; return whether any does."""
        with mpl.rc_context(look()):
            if self._still is None:
                self._draw_still()
            if self._slow is None or any(artist.stale for artist in self._seldom):
                self.canvas.restore_region(self._still)
                self._draw(self._seldom)
                self._slow = self.canvas.copy_from_bbox(self.figure.bbox)
            self.canvas.restore_region(self._slow)
            self._draw(self._live)
        pixels = np.asarray(self.canvas.buffer_rgba())
        if self._pixels is not None and np.array_equal(pixels, self._pixels):
            return False
        self._pixels = pixels.copy()
        self.picture.png = encoded(self._pixels)
        return True

    @property
    def pixels(self) -> np.ndarray:
        """Return the last picture, (height, width, 4) of 8 bits; draw it if there is none yet."""
        if self._pixels is None:
            self.redraw()
        assert self._pixels is not None
        return self._pixels

    def _draw_still(self) -> None:
        """Draw all but the live parts, and keep the result; axes get their places the first time, and stay there."""
        typeset_texts(self.figure)
        self.canvas.draw()
        self.figure.set_layout_engine("none")
        self._still = self.canvas.copy_from_bbox(self.figure.bbox)
        self._slow = None

    def _draw(self, artists: list[Artist]) -> None:
        for artist in artists:
            if artist.get_visible():
                self.figure.draw_artist(artist)
            artist.stale = False


def look() -> dict:
    """Return the settings that explorers are drawn with, for ``matplotlib.rc_context``."""
    return {**style(), "font.size": 9.5, "axes.titlesize": 10, "axes.labelsize": 9.5, "legend.fontsize": 8}


def encoded(pixels: np.ndarray) -> bytes:
    """Return pixels (height, width, 4) as PNG, lightly compressed: compressing well takes longer than sending.

    Written by hand, since libraries try every filter on every row, which takes longer and packs drawings no better.
    Source: the PNG specification, W3C, colour type 2, filter 0.
    """
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = pixels[:, :, :3].reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def round_up(value: float, least: float = 0.0) -> float:
    """Return the next of …, 0.1, 0.2, 0.5, 1, 2, 5, … from ``least`` on, so that axes seldom change; 1 if all is 0."""
    value = max(value, least)
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))


def montage(views: list[View], width: int) -> bytes:
    """Return all views as one PNG, in rows of at most ``width`` pixels."""
    rows: list[list[np.ndarray]] = [[]]
    for view in views:
        if rows[-1] and sum(part.shape[1] for part in rows[-1]) + view.pixels.shape[1] > width:
            rows.append([])
        rows[-1].append(view.pixels)
    across = max(sum(part.shape[1] for part in row) for row in rows)
    page = np.full((sum(max(part.shape[0] for part in row) for row in rows), across, 4), 255, np.uint8)
    top = 0
    for row in rows:
        left = 0
        for part in row:
            page[top : top + part.shape[0], left : left + part.shape[1]] = part
            left += part.shape[1]
        top += max(part.shape[0] for part in row)
    buffer = io.BytesIO()
    Image.fromarray(page).convert("RGB").save(buffer, "png", optimize=True)
    return buffer.getvalue()
