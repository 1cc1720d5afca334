"""The figures of two goals: one property at a time, the map, and gains against what is known before training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

CAPTIONS: dict[str, str] = {}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw nothing yet."""
    return {}
