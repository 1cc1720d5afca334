"""Preference losses, each defined once: arrays in, one loss per pair out.

``PAIR_LOSSES`` is the registry. A loss listed here appears in the tests, the command line and the menus by itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple, get_type_hints

from gradlab.checks import one_of
from gradlab.losses.margin import DPO, IPO, ConservativeDPO
from gradlab.losses.pair import LogisticLoss, PairLogps, PairLoss, log_prob_ratio, slopes
from gradlab.losses.policy_gradient import policy_gradient, ppo_clip
from gradlab.losses.reweighted import BalancedDPO, FixedWeightDPO, NaiveBalancedDPO, balanced_weights

PAIR_LOSSES: Mapping[str, Callable[..., PairLoss]] = {
    "dpo": DPO,
    "cdpo": ConservativeDPO,
    "ipo": IPO,
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


class HyperParameter(NamedTuple):
    """One hyper-parameter, over the whole registry."""

    kind: type
    """Its type."""
    defaults: dict[str, Any]
    """By name of loss, for the losses that have it."""


def hyper_parameters() -> dict[str, HyperParameter]:
    """Every hyper-parameter in ``PAIR_LOSSES`` that is the user's to set, by name: what menus are made of.

    One that some registered name stands for, as nbdpo-symmetric does for ``symmetric``, is not among them.
    """
    settled = {key for make in PAIR_LOSSES.values() if isinstance(make, partial) for key in make.keywords}
    found: dict[str, HyperParameter] = {}
    for name, make in PAIR_LOSSES.items():
        loss = make()
        kinds = get_type_hints(type(loss))
        for key in (field.name for field in fields(loss) if field.name not in settled):  # type: ignore[arg-type]
            found.setdefault(key, HyperParameter(kinds[key], {})).defaults[name] = getattr(loss, key)
    return found


__all__ = [
    "DPO",
    "IPO",
    "PAIR_LOSSES",
    "BalancedDPO",
    "ConservativeDPO",
    "FixedWeightDPO",
    "HyperParameter",
    "LogisticLoss",
    "NaiveBalancedDPO",
    "PairLogps",
    "PairLoss",
    "balanced_weights",
    "hyper_parameters",
    "log_prob_ratio",
    "pair_loss",
    "policy_gradient",
    "ppo_clip",
    "slopes",
]
