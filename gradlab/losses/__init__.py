"""Preference losses, each defined once: arrays in, one loss per pair out.

``PAIR_LOSSES`` is the registry. A loss listed here appears in the tests, the command line and the menus by itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from gradlab.checks import one_of
from gradlab.losses.margin import DPO
from gradlab.losses.pair import LogisticLoss, PairLogps, PairLoss, log_prob_ratio
from gradlab.losses.policy_gradient import policy_gradient, ppo_clip
from gradlab.losses.reweighted import BalancedDPO, FixedWeightDPO, NaiveBalancedDPO, balanced_weights

PAIR_LOSSES: Mapping[str, Callable[..., PairLoss]] = {
    "dpo": DPO,
    "bdpo": BalancedDPO,
    "nbdpo": NaiveBalancedDPO,
    "nbdpo-symmetric": partial(NaiveBalancedDPO, symmetric=True),
    "fixed-weight": FixedWeightDPO,
}


def pair_loss(name: str, **hyper: Any) -> PairLoss:
    """The registered loss of that name with these hyper-parameters; ValueError for a name or field it lacks."""
    make = PAIR_LOSSES[one_of("loss", name, PAIR_LOSSES)]
    known = [field.name for field in fields(make())]  # type: ignore[arg-type]
    for key in hyper:
        one_of(f"hyper-parameter of {name}", key, known)
    return make(**hyper)


__all__ = [
    "DPO",
    "PAIR_LOSSES",
    "BalancedDPO",
    "FixedWeightDPO",
    "LogisticLoss",
    "NaiveBalancedDPO",
    "PairLogps",
    "PairLoss",
    "balanced_weights",
    "log_prob_ratio",
    "pair_loss",
    "policy_gradient",
    "ppo_clip",
]
