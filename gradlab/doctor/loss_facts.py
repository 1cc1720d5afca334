"""Facts about a log's loss that the doctor must know: from the log's header, or else by the loss's name."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from gradlab.doctor.log_columns import TRL_LOSSES
from gradlab.doctor.thresholds import STUCK
from gradlab.doctor.training_log import positive_number

KEY = "loss_facts"  # the key in a header's settings; the value is from ``gradlab.losses.facts_of``
# Stages of our language models whose older logs have no facts.
_STAGES: dict[str, Any] = {"ppo": {"logistic": False}, "sft": {"logistic": False}, "reference": "dpo"}


class LossFacts(NamedTuple):
    """Facts of a loss; their names are those of ``gradlab.losses.KnownLoss``."""

    logistic: bool | None = None
    """None where it is not known."""
    start_value: float | None = None
    start_equation: str = ""
    weight_range: tuple[float, float] = (0.0, 1.0)
    constant_weight: bool = False
    never_negative: bool | None = None
    """None where it is not known."""
    unknown: tuple[str, ...] = ()
    """Hyper-parameters that the settings lack and that ``weight_range`` depends on."""


def loss_facts(settings: Mapping[str, Any]) -> LossFacts:
    """Return the facts of a log's loss, from its settings; where they do not name the loss, facts that hold for any."""
    stated = settings.get(KEY)
    if isinstance(stated, dict):
        return _checked(stated)
    name = settings.get("loss")
    if not isinstance(name, str):
        return LossFacts()
    known = _STAGES.get(name.lower(), name.lower())
    if isinstance(known, dict):
        return _checked(known)
    from gradlab.losses import PAIR_LOSSES  # not at the top: torch takes seconds, and most logs state their facts

    if known not in PAIR_LOSSES:  # what TRL calls ipo is another loss than ipo, and has TRL's name before it
        known = TRL_LOSSES.get(known.removeprefix("trl's "), "")
    return _registered(PAIR_LOSSES[known](), settings) if known in PAIR_LOSSES else LossFacts()


def _checked(stated: Mapping[str, Any]) -> LossFacts:
    """Return the facts in a header, those of the right type; a file may hold anything."""
    return LossFacts(
        logistic=_truth(stated.get("logistic")),
        start_value=positive_number(stated.get("start_value")),
        start_equation=str(stated.get("start_equation", "")),
        weight_range=_ends(stated.get("weight_range")),
        constant_weight=stated.get("constant_weight") is True,
        never_negative=_truth(stated.get("never_negative")),
    )


def _truth(stated: Any) -> bool | None:
    return stated if isinstance(stated, bool) else None


def _ends(stated: Any) -> tuple[float, float]:
    """Return the range of λ_w in a header; the widest range where the value is no range."""
    if isinstance(stated, list) and len(stated) == 2 and all(type(end) in (int, float) for end in stated):
        low, high = stated
        if 0 <= low <= high <= 1:
            return float(low), float(high)
    return 0.0, 1.0


def _registered(loss: Any, settings: Mapping[str, Any]) -> LossFacts:
    """Return the facts of a loss with the settings' numbers; a fact that needs a missing number is not known."""
    from gradlab.losses.registry import never_negative  # as above

    loss = copy.copy(loss)
    lacking = []
    for field in fields(loss):
        value = positive_number(settings.get(field.name))
        if value is not None:
            object.__setattr__(loss, field.name, value)
        elif type(getattr(loss, field.name)) is float:
            lacking.append(field.name)
    deciding = tuple(key for key in lacking if any(map(math.isnan, _without(loss, [key]).weight_range)))
    start = _without(loss, lacking).start_value
    return LossFacts(
        logistic=loss.logistic, start_value=positive_number(start), start_equation=loss.start_equation,
        weight_range=loss.weight_range, constant_weight=loss.constant_weight,
        never_negative=None if "label_smoothing" in lacking else never_negative(loss), unknown=deciding,
    )  # fmt: skip


def starting_at(value: float, settings: Mapping[str, Any]) -> list[str]:
    """Return the registered losses whose value at π = π_ref, with the settings' numbers, is this up to ``STUCK``."""
    from gradlab.losses import PAIR_LOSSES  # not at the top, as above

    known = {name: _registered(make(), settings).start_value for name, make in PAIR_LOSSES.items()}
    return [name for name, start in known.items() if start and abs(value / start - 1) < STUCK]


def _without(loss: Any, names: list[str]) -> Any:
    """Return the loss with NaN for these numbers, so that every fact that depends on them is NaN."""
    loss = copy.copy(loss)
    for name in names:
        object.__setattr__(loss, name, math.nan)
    return loss
