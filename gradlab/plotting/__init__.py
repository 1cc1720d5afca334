"""Figures from tidy frames: colour-blind safe, told apart in grey too, intervals shown, no global state.

Every drawing takes a frame and returns a ``Figure``; ``draw`` saves them, and ``style()`` is a dict for
``matplotlib.rc_context``. A new drawing goes into the file of its kind and is listed here.
"""

from gradlab.plotting.answers import Comparison, Panel, answers
from gradlab.plotting.by_sampler import SamplerPanel, Series, by_sampler, convergence
from gradlab.plotting.effects import DosePanel, effect_by_dose
from gradlab.plotting.fields import gradient_field
from gradlab.plotting.line_units import at_kl_levels, by_coordinate, towards_half
from gradlab.plotting.llm_runs import by_method, side_clouds, validation_losses, weights_by_length
from gradlab.plotting.looks import LOOK, add_looks, draw, look, look_of, style
from gradlab.plotting.maps import heatmaps
from gradlab.plotting.matrices import family_means, matrices
from gradlab.plotting.pretrained import likelihoods, paths_by_kl, sides
from gradlab.plotting.scale_lines import by_lengths, halved
from gradlab.plotting.theory_lines import refinement, weight_functions
from gradlab.plotting.theory_maps import correction, phases, variance_region
from gradlab.plotting.trained_losses import Place, factor_table, map_of_losses, trades
from gradlab.plotting.training_runs import clouds, curves, ends, frontier, scatter, trade
from gradlab.plotting.two_goals import goal_clouds, goal_levels, goal_maps, goal_rows

__all__ = [
    "LOOK",
    "Comparison",
    "DosePanel",
    "Panel",
    "Place",
    "SamplerPanel",
    "Series",
    "add_looks",
    "answers",
    "at_kl_levels",
    "by_coordinate",
    "by_lengths",
    "by_method",
    "by_sampler",
    "clouds",
    "convergence",
    "correction",
    "curves",
    "draw",
    "effect_by_dose",
    "ends",
    "factor_table",
    "family_means",
    "frontier",
    "goal_clouds",
    "goal_levels",
    "goal_maps",
    "goal_rows",
    "gradient_field",
    "halved",
    "heatmaps",
    "likelihoods",
    "look",
    "look_of",
    "map_of_losses",
    "matrices",
    "paths_by_kl",
    "phases",
    "refinement",
    "scatter",
    "side_clouds",
    "sides",
    "style",
    "towards_half",
    "trade",
    "trades",
    "validation_losses",
    "variance_region",
    "weight_functions",
    "weights_by_length",
]  # fmt: skip
