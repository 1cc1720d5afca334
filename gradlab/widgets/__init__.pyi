# The explorers, one per file; each is imported when its name is first used.

from .atlas_explorer import AtlasExplorer as AtlasExplorer
from .claims_explorer import ClaimsExplorer as ClaimsExplorer
from .continuous_explorer import ContinuousExplorer as ContinuousExplorer
from .credit_explorer import CreditExplorer as CreditExplorer
from .explorer import Explorer as Explorer
from .explorer import Story as Story
from .frontier_explorer import FrontierExplorer as FrontierExplorer
from .grid_explorer import GridExplorer as GridExplorer
from .offline_explorer import OfflineExplorer as OfflineExplorer
from .pair_explorer import PairExplorer as PairExplorer
from .rating_explorer import RatingExplorer as RatingExplorer
from .sampling_explorer import SamplingExplorer as SamplingExplorer
from .scale_explorer import ScaleExplorer as ScaleExplorer
from .shift_explorer import ShiftExplorer as ShiftExplorer
from .sigmoid_explorer import SigmoidExplorer as SigmoidExplorer
from .study_rating import StudyRating as StudyRating
from .training_log_explorer import TrainingLogExplorer as TrainingLogExplorer
from .two_goals_explorer import TwoGoalsExplorer as TwoGoalsExplorer
from .variance_explorer import VarianceExplorer as VarianceExplorer
from .workbench_explorer import WorkbenchExplorer as WorkbenchExplorer

EXPLORERS: dict[str, type[Explorer]]
