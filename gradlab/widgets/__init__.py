"""Live explorers for JupyterLab, one a file: thin faces over the lab and the theory. The only user of ipywidgets.

An explorer is imported when it is asked for: what one of them needs, the others' first picture need not wait for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gradlab.widgets.explorer import Explorer, Story

if TYPE_CHECKING:
    from gradlab.widgets.claims_explorer import ClaimsExplorer
    from gradlab.widgets.credit_explorer import CreditExplorer
    from gradlab.widgets.frontier_explorer import FrontierExplorer
    from gradlab.widgets.grid_explorer import GridExplorer
    from gradlab.widgets.offline_explorer import OfflineExplorer
    from gradlab.widgets.pair_explorer import PairExplorer
    from gradlab.widgets.rating_explorer import RatingExplorer
    from gradlab.widgets.shift_explorer import ShiftExplorer
    from gradlab.widgets.sigmoid_explorer import SigmoidExplorer
    from gradlab.widgets.training_log_explorer import TrainingLogExplorer
    from gradlab.widgets.variance_explorer import VarianceExplorer

    EXPLORERS: dict[str, type[Explorer]]
    """All of them, by name."""

_FILES = {  # by class
    "PairExplorer": "pair_explorer",
    "GridExplorer": "grid_explorer",
    "ShiftExplorer": "shift_explorer",
    "VarianceExplorer": "variance_explorer",
    "FrontierExplorer": "frontier_explorer",
    "ClaimsExplorer": "claims_explorer",
    "TrainingLogExplorer": "training_log_explorer",
    "RatingExplorer": "rating_explorer",
    "SigmoidExplorer": "sigmoid_explorer",
    "CreditExplorer": "credit_explorer",
    "OfflineExplorer": "offline_explorer",
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
