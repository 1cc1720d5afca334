"""Figures from tidy frames: colour-blind safe, told apart in grey too, intervals shown, no global state.

Every drawing takes a frame and returns a ``Figure``; ``draw`` saves them, and ``style()`` is a dict for
``matplotlib.rc_context``. A new drawing goes into the file of its kind and is listed here.
"""

from gradlab.plotting.looks import LOOK, draw, look, style
from gradlab.plotting.maps import heatmaps, verdict_map
from gradlab.plotting.runs import clouds, curves, ends, frontier, scatter, trade

__all__ = [
    "LOOK", "clouds", "curves", "draw", "ends", "frontier", "heatmaps", "look", "scatter", "style", "trade",
    "verdict_map",
]  # fmt: skip
