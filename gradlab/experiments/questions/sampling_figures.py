"""The figures of the experiment on sampling."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

CAPTIONS: dict[str, str] = {}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw nothing yet."""
    return {}
