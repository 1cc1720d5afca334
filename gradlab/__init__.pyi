# The public face: what stands here is promised, and changed only with its documentation.

from . import atlas, conformance, doctor, losses, plotting, stats, store, study, sweeps, theory, widgets
from .doctor import examine_log
from .doctor.training_log import read_log
from .lab import line, metrics, samplers
from .lab.fit import Fit, dpo_reference, fit
from .lab.policy import FreeLogits, RadialBasis
from .lab.ppo import PPO, fit_ppo, fit_reward
from .lab.training import Training
from .lab.two_goals import Goal, LabelledSet, TwoGoalWorld, two_goal_world
from .lab.world import World, gaussian_world
from .losses import (
    DPO,
    IPO,
    BalancedDPO,
    ConservativeDPO,
    FixedWeightDPO,
    NaiveBalancedDPO,
    PairLogps,
    PairLoss,
    formula_loss,
    log_prob_ratio,
    pair_loss,
    register_loss,
)

__version__: str

__all__ = [
    "DPO",
    "IPO",
    "PPO",
    "BalancedDPO",
    "ConservativeDPO",
    "Fit",
    "FixedWeightDPO",
    "FreeLogits",
    "Goal",
    "LabelledSet",
    "NaiveBalancedDPO",
    "PairLogps",
    "PairLoss",
    "RadialBasis",
    "Training",
    "TwoGoalWorld",
    "World",
    "atlas",
    "conformance",
    "doctor",
    "dpo_reference",
    "examine_log",
    "fit",
    "fit_ppo",
    "fit_reward",
    "formula_loss",
    "gaussian_world",
    "line",
    "log_prob_ratio",
    "losses",
    "metrics",
    "pair_loss",
    "plotting",
    "read_log",
    "register_loss",
    "samplers",
    "stats",
    "store",
    "study",
    "sweeps",
    "theory",
    "two_goal_world",
    "widgets",
]
