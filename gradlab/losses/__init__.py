"""Preference losses, each defined once: arrays in, one loss per pair out.

``PAIR_LOSSES`` is the registry. A loss listed there appears in the tests, the command line and the menus by itself.
"""

from gradlab.losses.combination import WeightedLosses
from gradlab.losses.facts import Facts, Look, Shipped, SliderRange, with_slider
from gradlab.losses.formula import formula_loss
from gradlab.losses.margin import DPO, IPO, ConservativeDPO
from gradlab.losses.own_file import from_text, is_own, registered_name
from gradlab.losses.pair import (
    BatchLoss,
    DealtLoss,
    KnownLoss,
    LogisticLoss,
    PairLogps,
    PairLoss,
    differentiated,
    log_prob_ratio,
    reads_lengths,
    slopes,
)
from gradlab.losses.policy_gradient import kl_estimate, policy_gradient, ppo_clip
from gradlab.losses.registry import (
    BATCH_LOSSES,
    PAIR_LOSSES,
    PAPER_LOSSES,
    HyperParameter,
    facts_of,
    family_of,
    hyper_parameters,
    named_loss,
    pair_loss,
    register_loss,
    unregister_loss,
)
from gradlab.losses.reweighted import BalancedDPO, FixedWeightDPO, NaiveBalancedDPO, balanced_weights

__all__ = [
    "BATCH_LOSSES",
    "DPO",
    "IPO",
    "PAIR_LOSSES",
    "PAPER_LOSSES",
    "BalancedDPO",
    "BatchLoss",
    "ConservativeDPO",
    "DealtLoss",
    "Facts",
    "FixedWeightDPO",
    "HyperParameter",
    "KnownLoss",
    "LogisticLoss",
    "Look",
    "NaiveBalancedDPO",
    "PairLogps",
    "PairLoss",
    "Shipped",
    "SliderRange",
    "WeightedLosses",
    "balanced_weights",
    "differentiated",
    "facts_of",
    "family_of",
    "formula_loss",
    "from_text",
    "hyper_parameters",
    "is_own",
    "kl_estimate",
    "log_prob_ratio",
    "named_loss",
    "pair_loss",
    "policy_gradient",
    "ppo_clip",
    "reads_lengths",
    "register_loss",
    "registered_name",
    "slopes",
    "unregister_loss",
    "with_slider",
]
