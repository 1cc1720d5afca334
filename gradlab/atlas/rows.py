"""The atlas as a table: one row per loss, what it states and what is measured of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.atlas.measure import Measured, Optimum, bounded_in_words, measured
from gradlab.atlas.trained import effects, trainings
from gradlab.checks import shown
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, BatchLoss, KnownLoss, PairLoss, family_of, from_text, named_loss
from gradlab.losses.registry import numbers_of

Loss = PairLoss | BatchLoss
Known = KnownLoss | BatchLoss
COLUMNS = (
    "key", "label", "family", "convention", "source", "equation", "numbers", "rho", "start", "win_slope",
    "lose_slope", "winner_down", "loser_up", "optimum", "bounded", "lengths", "reference", "shipped",
)  # fmt: skip
TRAINED = {
    "reward": "expected_utility", "kl": "kl_to_reference", "unobserved": "unobserved_mass", "win": "win_logp_change",
    "lose": "lose_logp_change",
}  # fmt: skip
"""Columns of ``table`` that need trainings, by the names of the frame of trainings."""


def table(losses: Iterable[Loss | str] | None = None, trained: pd.DataFrame | Path | str | None = None) -> pd.DataFrame:
    """Return the atlas: one row per loss, in the order given.

    losses   losses, or their names, which stand for the losses as published, with other numbers as in "simpo:beta=10";
             None: every registered loss, of pairs and of batches.
    trained  trainings, one row per run, as ``figures/data/atlas.parquet`` has them, or that file. They add the columns
             ``reward``, ``kl``, ``unobserved``, ``win`` and ``lose``: means over the seeds with the numbers that the
             loss's source sets; NaN for a loss without trainings, and for a registered one with other numbers.

    ``numbers`` are the loss's hyper-parameters in words.
    ``start`` is the loss at π = π_ref, NaN where it differs from pair to pair. ``win_slope`` and ``lose_slope`` are
    ∂L/∂log π_w and ∂L/∂log π_l there, for two responses of 100 tokens with one nat per token. ``bounded`` says on which
    side the loss is bounded: below, above, both or neither. Signs and bounds are measured, those of losses of batches
    as the loss states them. ``optimum`` is as stated, or else as it is found.
    """
    chosen = losses_of(losses)
    rows = [row(loss) for loss in chosen]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"start": float})
    if trained is None:
        return frame
    means = effects(trainings(trained)).rename(columns={name: column for column, name in TRAINED.items()})
    joined = frame.join(means[list(TRAINED)], on="key")
    joined.loc[[not is_as_trained(loss) for loss in chosen], list(TRAINED)] = np.nan
    return joined


def losses_of(chosen: Iterable[Loss | str] | None) -> list[Loss]:
    """Return losses, given as such or by name, which stands for the loss as published; None: every registered one."""
    if chosen is None:
        return [as_published(make()) for make in (*PAIR_LOSSES.values(), *BATCH_LOSSES.values())]
    if isinstance(chosen, (str, PairLoss)) or not isinstance(chosen, Iterable):
        raise ValueError(f"losses must be a list of losses or their names, got {shown(chosen)}")
    return [_by_text(one) if isinstance(one, str) else measured(one).loss for one in chosen]


def _by_text(text: str) -> Loss:
    """Return the loss that a text names as for ``from_text``, as published where the text states no number."""
    loss = from_text(text)
    return from_text(text, loss.published) if loss.published else loss


def is_as_trained(loss: Loss) -> bool:
    """Return whether a loss has the numbers with which the registered one is trained; True for one not registered."""
    if loss.name not in {*PAIR_LOSSES, *BATCH_LOSSES}:
        return True
    return numbers_of(loss) == numbers_of(as_published(named_loss(loss.name)))  # type: ignore[arg-type]


def as_published(loss: Known) -> Known:
    """Return a registered loss with the numbers that its source sets, and its own where the source sets none."""
    known = {field.name for field in fields(loss)}  # type: ignore[arg-type]
    return replace(loss, **{name: value for name, value in loss.published.items() if name in known})  # type: ignore[type-var]


def row(loss: Loss) -> dict[str, Any]:
    """Return one row of the table, by column."""
    seen = measured(loss)
    win_slope, lose_slope = seen.start_slopes
    down, up, bounded = _signs_and_bounds(seen)
    return {
        "key": loss.name, "label": getattr(loss, "label", loss.name), "family": family_of(loss),
        "convention": getattr(loss, "convention", ""), "source": loss.source, "equation": loss.equation,
        "numbers": in_words(numbers_of(loss)),  # type: ignore[arg-type]
        "rho": getattr(loss, "rho", ""), "start": seen.start, "win_slope": win_slope, "lose_slope": lose_slope,
        "winner_down": down, "loser_up": up,
        "optimum": getattr(loss, "optimum", "") or optimum_in_words(seen.optimum), "bounded": bounded,
        "lengths": bool(getattr(loss, "needs_lengths", False)),
        "reference": bool(getattr(loss, "needs_reference", True)),
        "shipped": "; ".join(f"{one.library}: {one.key}" for one in getattr(loss, "shipped", ())),
    }  # fmt: skip


def in_words(numbers: Mapping[str, float]) -> str:
    """Return hyper-parameters as text, such as "beta 0.1, gamma 1"; "none" for none."""
    return ", ".join(f"{name} {value:g}" for name, value in numbers.items()) or "none"


def _signs_and_bounds(seen: Measured) -> tuple[bool, bool, str]:
    loss = seen.loss
    if isinstance(loss, BatchLoss):  # measured alone, a pair does not meet the other pairs of its batch
        return loss.winner_down, loss.loser_up, bounded_in_words(loss.bounded_below, loss.bounded_above)
    return seen.winner_down, seen.loser_up, seen.bounded


def optimum_in_words(optimum: Optimum | None) -> str:
    """Return an optimum as equations, to four digits; "" for none, or for a least value that is not attained."""
    if optimum is None or not optimum.attained:
        return ""
    if optimum.win is None or optimum.lose is None:
        places = {"h_w": optimum.win, "h_l": optimum.lose, "h_w − h_l": optimum.margin}
    else:
        places = {"h_w": optimum.win, "h_l": optimum.lose}
    said = [f"{name} = {place:.4g}" for name, place in places.items() if place is not None]
    return ", ".join(said).replace("-", "−")


def disagreements(loss: PairLoss) -> list[str]:
    """Return what a loss states of itself and is not so, one sentence each; [] where all agrees.

    Compared are ``start_value``, ``winner_down``, ``loser_up``, the bounds, ``weight_range`` and whether there is an
    ``optimum``. A fact that the loss does not state is not compared.
    """
    seen = measured(loss)
    found = []
    for fact in ("winner_down", "loser_up"):
        _compare(found, loss, fact, getattr(seen, fact))
    for fact, here in zip(("bounded_below", "bounded_above"), seen.bounds, strict=True):
        _compare(found, loss, fact, here)
    stated = getattr(loss, "start_value", seen.start)
    if not _is_near(stated, seen.start):
        found.append(f"start_value of {loss.name} is stated as {stated}, and measured as {seen.start}")
    low, high = getattr(loss, "weight_range", (0.0, 1.0))
    least, most = seen.weight_range
    if least < low - 1e-9 or most > high + 1e-9:
        found.append(f"weight_range of {loss.name} is stated as {(low, high)}, and measured as {(least, most)}")
    optimum, stated = seen.optimum, getattr(loss, "optimum", "")
    missing = optimum is not None and optimum.attained and not stated
    if missing or (stated and optimum is None and not any(sign in stated for sign in "≥≤")):  # a line or point alone
        found.append(f"optimum of {loss.name} is stated as {stated!r}, and measured as {optimum}")
    return found


def _is_near(stated: float | None, here: float | None) -> bool:
    if stated is None or here is None:
        return stated is here
    return abs(stated - here) <= 1e-6 * (1 + abs(stated))


def _compare(found: list[str], loss: PairLoss, fact: str, here: bool) -> None:
    stated = getattr(loss, fact, here)
    if stated != here:
        found.append(f"{fact} of {loss.name} is stated as {stated}, and measured as {here}")
