"""The paper's theory as functions of numbers: closed forms in numpy and scipy, which never look at the losses.

The tests can therefore compare two routes: each closed form here, and autograd through ``gradlab.losses``.
"""

from gradlab.theory.band import disentanglement_band, side_moves
from gradlab.theory.changes import (
    first_order_change,
    gradient_cosines,
    gradient_inner_products,
    mean_off_diagonal,
    pair_weight,
    realised_change,
)
from gradlab.theory.continuous import (
    LogDensity,
    bdpo_weight_limit,
    dpo_weight_limit,
    equal_width_extrema,
    gaussian_log_density,
)
from gradlab.theory.extrema import Extremum, Placement, extrema, inside, outside, product_noise
from gradlab.theory.gradient_ratios import (
    bdpo_log_rho,
    bdpo_share_corrected,
    dpo_log_rho,
    fixed_weight_log_rho,
    in_probabilities,
    logarithmic_mean,
    nbdpo_log_rho,
    share_corrected,
)
from gradlab.theory.sequences import explained_by_length, weight_spread
from gradlab.theory.weight_variance import covariance_gap, variance_ratio
from gradlab.theory.weights import balanced_weight, bdpo_weight, dpo_weight, in_logits, log_ratio_weight

__all__ = [
    "Extremum",
    "LogDensity",
    "Placement",
    "balanced_weight",
    "bdpo_log_rho",
    "bdpo_share_corrected",
    "bdpo_weight",
    "bdpo_weight_limit",
    "covariance_gap",
    "disentanglement_band",
    "dpo_log_rho",
    "dpo_weight",
    "dpo_weight_limit",
    "equal_width_extrema",
    "explained_by_length",
    "extrema",
    "first_order_change",
    "fixed_weight_log_rho",
    "gaussian_log_density",
    "gradient_cosines",
    "gradient_inner_products",
    "in_logits",
    "in_probabilities",
    "inside",
    "log_ratio_weight",
    "logarithmic_mean",
    "mean_off_diagonal",
    "nbdpo_log_rho",
    "outside",
    "pair_weight",
    "product_noise",
    "realised_change",
    "share_corrected",
    "side_moves",
    "variance_ratio",
    "weight_spread",
]
