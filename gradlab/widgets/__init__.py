"""Live explorers for JupyterLab, one a file: thin faces over the lab and the theory. The only user of ipywidgets."""

from gradlab.widgets.claims import ClaimsExplorer
from gradlab.widgets.credit import CreditExplorer
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.frontier import FrontierExplorer
from gradlab.widgets.grid import GridExplorer
from gradlab.widgets.offline import OfflineExplorer
from gradlab.widgets.pair import PairExplorer
from gradlab.widgets.rating import RatingExplorer
from gradlab.widgets.shift import ShiftExplorer
from gradlab.widgets.sigmoid import SigmoidExplorer
from gradlab.widgets.training_log import TrainingLogExplorer
from gradlab.widgets.variance import VarianceExplorer

EXPLORERS: dict[str, type[Explorer]] = {
    one.name: one
    for one in (
        PairExplorer,
        GridExplorer,
        ShiftExplorer,
        VarianceExplorer,
        FrontierExplorer,
        ClaimsExplorer,
        TrainingLogExplorer,
        RatingExplorer,
        SigmoidExplorer,
        CreditExplorer,
        OfflineExplorer,
    )
}

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
