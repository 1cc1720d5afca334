"""Live explorers for JupyterLab, one a file: thin faces over the lab and the theory. The only user of ipywidgets.

An explorer is imported when it is asked for: what one of them needs, the others' first picture need not wait for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gradlab.widgets.explorer import Explorer, Story

if TYPE_CHECKING:
    from gradlab.widgets.claims import ClaimsExplorer
    from gradlab.widgets.credit import CreditExplorer
    from gradlab.widgets.frontier import FrontierExplorer
    from gradlab.widgets.grid import GridExplorer
    from gradlab.widgets.offline import OfflineExplorer
    from gradlab.widgets.pair import PairExplorer
    from gradlab.widgets.rating import RatingExplorer
    from gradlab.widgets.shift import ShiftExplorer
    from gradlab.widgets.sigmoid import SigmoidExplorer
    from gradlab.widgets.training_log import TrainingLogExplorer
    from gradlab.widgets.variance import VarianceExplorer

    EXPLORERS: dict[str, type[Explorer]]
    """All of them, by name."""

_FILES = {  # by class
    "PairExplorer": "pair",
    "GridExplorer": "grid",
    "ShiftExplorer": "shift",
    "VarianceExplorer": "variance",
    "FrontierExplorer": "frontier",
    "ClaimsExplorer": "claims",
    "TrainingLogExplorer": "training_log",
    "RatingExplorer": "rating",
    "SigmoidExplorer": "sigmoid",
    "CreditExplorer": "credit",
    "OfflineExplorer": "offline",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name == "EXPLORERS":
        kinds = [__getattr__(one) for one in _FILES]
        return {kind.name: kind for kind in kinds}
    if name in _FILES:
        return getattr(importlib.import_module(f"gradlab.widgets.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "EXPLORERS",
    "ClaimsExplorer",
    "CreditExplorer",
    "Explorer",
    "FrontierExplorer",
    "GridExplorer",
    "OfflineExplorer",
    "PairExplorer",
    "RatingExplorer",
    "ShiftExplorer",
    "SigmoidExplorer",
    "Story",
    "TrainingLogExplorer",
    "VarianceExplorer",
]
