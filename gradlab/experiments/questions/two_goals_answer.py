"""What was predicted of two goals before the first run, how each prediction came out, and the answer.

Every number here is computed from the frame of the experiment *two-goals*. A *gain* is a goal's share of the reachable
reward under bDPO minus that under DPO, paired by seed, with the 95% t interval of its mean. The *pattern*, which the
paper reports, is shown by a cell where the harmless gain's interval lies above 0.02 and the helpful gain's within
±0.02; it is absent where the harmless gain's interval lies below 0.02, or the helpful gain's outside ±0.02.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from gradlab.experiments.predictions import Outcome, Prediction, Word, by_interval
from gradlab.experiments.questions.two_goals_contrasts import AT, MARGIN
from gradlab.experiments.questions.two_goals_worlds import EXCHANGED
from gradlab.lab.two_goals import GOALS
from gradlab.stats.agreement import wilson_interval
from gradlab.stats.equivalence import mean_of
from gradlab.stats.population import average_over_cells

MATCHED, STATED = "bdpo at 2β", "bdpo"
Shown = Literal["shown", "absent", "open"]


@dataclass(frozen=True)
class Gain:
    """A mean with the ends of its interval, in shares of the reachable reward."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}] points"

    @classmethod
    def of(cls, differences: pd.Series) -> Gain:
        """Return the mean of paired differences, one per seed or world."""
        mean = mean_of(differences.to_numpy(float))
        low, high = mean.interval()
        return cls(float(mean.effect), float(low), float(high))


def differences(frame: pd.DataFrame, goal: str, method: str = MATCHED, baseline: str = "dpo") -> pd.Series:
    """Return one goal's gain per seed, in rows of one cell, indexed by seed."""
    sides = [frame[frame["method"] == name].set_index("seed")[goal] for name in (method, baseline)]
    return (sides[0] - sides[1]).dropna()


def gains(frame: pd.DataFrame, method: str = MATCHED, baseline: str = "dpo") -> dict[str, Gain]:
    """Return both goals' gains in rows of one cell."""
    return {goal: Gain.of(differences(frame, goal, method, baseline)) for goal in GOALS}


def pattern(found: dict[str, Gain]) -> Shown:
    """Return whether two gains show the pattern that the paper reports."""
    up, level = found["harmless"], found["helpful"]
    if up.low > MARGIN and level.low > -MARGIN and level.high < MARGIN:
        return "shown"
    absent = up.high < MARGIN or level.low > MARGIN or level.high < -MARGIN
    return "absent" if absent else "open"


def cell(frame: pd.DataFrame, kind: str, changed: str = "", recipe: str = "usual") -> pd.DataFrame:
    """Return the rows of a cell, or of a property's levels."""
    return frame[(frame["kind"] == kind) & (frame["changed"] == changed) & (frame["recipe"] == recipe)]


def by_cell(frame: pd.DataFrame, kind: str) -> list[tuple[pd.DataFrame, dict[str, Gain]]]:
    """Return the rows and the gains at matched scale of each cell of a kind."""
    rows = frame[(frame["kind"] == kind) & (frame["recipe"] == "usual")].fillna({"level": 0.0, "other": 0.0})
    return [(part, gains(part)) for _, part in rows.groupby(["changed", "level", "other"], sort=False)]


def gains_at_kl(rows: pd.DataFrame) -> dict[str, Gain] | None:
    """Return both goals' gains over DPO at one level of KL, β pooled; None unless half of the seeds reach it.

    A seed reaches a level if it does so with both losses.
    """
    seeds = rows.groupby("method")["seed"].nunique()
    common = differences(rows, "harmless", STATED) if {"dpo", STATED} <= set(seeds.index) else pd.Series(dtype=float)
    if len(common) < 2 or len(common) < seeds.max() / 2:
        return None
    return gains(rows, STATED)


def at_equal_kl(frame: pd.DataFrame, changed: str = "nothing") -> dict[str, Gain]:
    """Return both goals' gains over DPO at equal KL: means over levels, as the claims' rows take them."""
    rows = cell(frame, "equal KL", changed)
    common = [part for _, part in rows.groupby("kl") if gains_at_kl(part)]
    if not common:
        return {}
    found = {}
    for goal in GOALS:
        by_level = pd.DataFrame([differences(part, goal, STATED) for part in common])
        average = average_over_cells(by_level.to_numpy(float), MARGIN)
        found[goal] = Gain(average.effect, average.low, average.high)
    return found


def right_signs(frame: pd.DataFrame) -> tuple[int, int]:
    """Return for how many goals of drawn worlds the sign of the balance is that of the gain, and of how many.

    Counted are gains beyond the margin, at matched scale; a gain is a mean over the world's seeds.
    """
    worlds = frame[frame["kind"] == "drawn"]
    right = decided = 0
    for _, part in worlds.groupby("level"):
        for goal in GOALS:
            gain, balance = differences(part, goal).mean(), part[f"balance_{goal}"].mean()
            if abs(gain) > MARGIN:
                decided += 1
                right += bool(gain * balance > 0)
    return right, decided


def _both(found: dict[str, Gain]) -> str:
    return "; ".join(f"{goal} {found[goal]}" for goal in reversed(GOALS))


def _rise_as_stated(frame: pd.DataFrame, kind: str, changed: str) -> Outcome:
    found = gains(cell(frame, kind, changed), STATED)
    low, high = (min(getattr(one, end) for one in found.values()) for end in ("low", "high"))
    return by_interval(low, high, _both(found), least=0.0)


_MARKS: dict[Shown, Word] = {"shown": "held", "absent": "failed", "open": "undecided"}


def _shows(name: str, frame: pd.DataFrame) -> Outcome:
    found = gains(cell(frame, "alone", name))
    return Outcome(_MARKS[pattern(found)], _both(found))


def _only_where_probable(frame: pd.DataFrame) -> Outcome:
    shown = [rows for rows, found in by_cell(frame, "map") if pattern(found) == "shown"]
    ahead = [rows for rows in shown if rows["balance_harmless"].mean() > 0]
    said = f"{len(shown)} cells of the map show the pattern, in {len(ahead)} of them harmless winners are more probable"
    return Outcome("held" if shown and len(ahead) == len(shown) else "failed", said)


def _without_lengths(frame: pd.DataFrame) -> Outcome:
    usual, equal = (differences(cell(frame, "hh", name), "harmless") for name in ("nothing", "equal lengths"))
    with_lengths, left = Gain.of(usual), Gain.of(equal - usual / 2)
    said = f"harmless {with_lengths} with lengths, {Gain.of(equal)} without; the latter less half of the former: {left}"
    if with_lengths.low <= 0:
        return Outcome("undecided", f"no gain to weaken: {said}")
    return by_interval(left.low, left.high, said, most=0.0)


def _never_shows(name: str, frame: pd.DataFrame) -> Outcome:
    found = [one for kind in ("alone", "level") for rows, one in by_cell(frame[frame["changed"] == name], kind)]
    states = [pattern(one) for one in found]
    word = "failed" if "shown" in states else "undecided" if "open" in states else "held"
    return Outcome(word, f"shown in {states.count('shown')}, open in {states.count('open')} of {len(states)} cells")


def _sign_predicts(frame: pd.DataFrame) -> Outcome:
    right, decided = right_signs(frame)
    if not decided:
        return Outcome("undecided", "no gain lies beyond the margin")
    low, high = wilson_interval(right / decided, decided)
    said = f"right for {right} of {decided} goals whose gain lies beyond the margin, {low:.0%} to {high:.0%}"
    return by_interval(low, high, said, least=0.5)


def _swap_is_exact(frame: pd.DataFrame) -> Outcome:
    keys = ["changed", "method", "seed"]
    sides = [frame[frame["kind"] == kind].set_index(keys)[[*GOALS, "kl"]] for kind in ("alone", "mirrored")]
    sides[1] = sides[1].rename(columns=dict(zip(GOALS, reversed(GOALS), strict=True)))[[*GOALS, "kl"]]
    both = sides[1].index.intersection(sides[0].index)
    largest = float(np.abs(np.asarray(sides[0].loc[both]) - np.asarray(sides[1].loc[both])).max())
    return Outcome(
        "held" if largest == 0 else "failed", f"largest difference over {len(both):,} trainings: {largest:g}"
    )


def _gone_if_permuted(frame: pd.DataFrame) -> Outcome:
    found = Gain.of(differences(cell(frame, "alone", "alignment"), "harmless", MATCHED, AT))
    return by_interval(found.low, found.high, f"harmless, bDPO at 2β minus permuted λ: {found}", least=0.0)


def _check(function: Callable[..., Outcome], *given: str) -> Callable[[pd.DataFrame], Outcome]:
    return functools.partial(function, *given)


_PROBABLE = (
    "At matched scale (bDPO at 2β minus DPO) the pattern appears where the winners of the harmless set are already "
)
PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "As stated, at β = 1, both goals rise where both are equal, since bDPO's β is in effect half of DPO's.",
        lambda frame: _rise_as_stated(frame, "base", ""),
    ),
    Prediction(
        "As stated, at β = 1, both goals rise in the world like HH.",
        lambda frame: _rise_as_stated(frame, "hh", "nothing"),
    ),
    Prediction(
        f"{_PROBABLE}the more probable: where the reference leans towards harmless responses and away from helpful "
        "ones, and all else is equal.",
        _check(_shows, "alignment"),
    ),
    Prediction(
        "On the map of the reference's alignment with either goal the pattern appears, and only where the mean λ_w − ½ "
        "of the harmless set is positive.",
        _only_where_probable,
    ),
    Prediction("Equal lengths take away more than half of the harmless gain in the world like HH.", _without_lengths),
    Prediction("Label noise alone does not produce the pattern.", _check(_never_shows, "noise")),
    Prediction("The gap (height) alone does not produce the pattern.", _check(_never_shows, "height")),
    Prediction(
        "The sign of the mean λ_w − ½ under the reference, by set, before any training, is that of the goal's gain at "
        "matched scale, in more than half of the goals of drawn worlds whose gain lies beyond 2 points.",
        _sign_predicts,
    ),
    Prediction("With the names of the goals exchanged, all numbers are exchanged, bit for bit.", _swap_is_exact),
    Prediction(
        "With λ permuted among the pairs of both sets, the harmless gain by alignment alone is smaller.",
        _gone_if_permuted,
    ),
)


_SHOWN = {"shown": "appears", "absent": "does not appear", "open": "is undecided"}
_EXCHANGED = {
    "basin": "the number of good responses",
    "length": "the lengths of good responses",
    "share": "the share of labels",
}
_FAVOUR = {1: "harmlessness", -1: "helpfulness", 0: "neither"}


def favoured(found: dict[str, Gain]) -> int:
    """Return 1 where the harmless goal gains more, by the ends of both intervals, −1 where the helpful one, else 0."""
    if found["harmless"].low > found["helpful"].high:
        return 1
    return -1 if found["helpful"].low > found["harmless"].high else 0


def turning(frame: pd.DataFrame) -> list[str]:
    """Return the properties whose exchange alone, in the world like HH, turns round which goal gains more."""
    usual = favoured(gains(cell(frame, "hh", "nothing")))
    return [name for name in EXCHANGED
            if usual and favoured(gains(cell(frame, "hh", f"{name} exchanged"))) == -usual]  # fmt: skip


def answer(frame: pd.DataFrame) -> str:
    """Return the answer to open question 1 with the numbers of this frame; its first sentence is the short form."""
    rows = cell(frame, "hh", "nothing")
    like_hh, turned, level = gains(rows), turning(frame), at_equal_kl(frame)
    named = " or ".join(_EXCHANGED[name] for name in turned)
    cause = f"exchange {named} between the goals, and it serves the other goal" if turned else (
        "no single property, exchanged between the goals, turns this round"
    )  # fmt: skip
    said = [f"With {_EXCHANGED[name]} exchanged: {_both(gains(cell(frame, 'hh', f'{name} exchanged')))}."
            for name in turned]  # fmt: skip
    recipes = {"free logits and finite data": rows,
               **{words: cell(frame, "hh", "nothing", recipe)
                  for recipe, words in (("exact", "exact data"), ("shared", "shared parameters"))}}  # fmt: skip
    where = [f"{_SHOWN[pattern(gains(there))]} with {words}" for words, there in recipes.items() if len(there)]
    before = ", ".join(f"{goal} {rows[f'balance_{goal}'].mean():+.3f}" for goal in reversed(GOALS))
    return " ".join([
        f"In a lab world made like HH, which is a guess, bDPO at DPO's scale serves {_FAVOUR[favoured(like_hh)]}; "
        f"{cause}; {_by_distance(like_hh, level)}.",
        f"Gains over DPO there: {_both(like_hh)}.", *said,
        *([f"At equal KL: {_both(level)}."] if level else []),
        f"Before any training, mean λ_w − ½ under the reference is {before}.",
        f"The paper's pattern, harmless up and helpful level, {', '.join(where)}.",
    ])  # fmt: skip


def _by_distance(at_scale: dict[str, Gain], level: dict[str, Gain]) -> str:
    """Return whether equal KL keeps which goal bDPO serves."""
    if not level:
        return "no equal KL was reached"
    if favoured(at_scale) == favoured(level):
        return "at equal KL this holds, too"
    return (
        f"at equal KL it serves {_FAVOUR[favoured(level)]}, so a gain at equal scale is not one at an equal distance "
        "from the reference"
    )


def in_language_models(pairs: pd.DataFrame) -> str:
    """Return what committed pairs of language models say of the harmless set before training, in words.

    pairs: the frame ``pairs`` of the language models' run, one row per held-out pair, see ``language_models``.
    """
    rows = pairs[(pairs["method"] == "reference") & (pairs["task"] == "hh")]
    lead = rows["ref_lose"] / (rows["ref_win"] + rows["ref_lose"]) - 0.5
    found = mean_of(lead.groupby([rows["size"], rows["seed"]]).mean().to_numpy(float))
    low, high = (float(end) for end in found.interval())
    sure = "favours it" if low > 0 else "speaks against it" if high < 0 else "says nothing"
    return (
        f"Small language models, real harmless pairs alone: mean λ_w − ½ under the reference is "
        f"{float(found.effect):+.3f} [{low:+.3f}, {high:+.3f}] over models, which by the lab's finding {sure}. Helpful "
        "pairs have not been measured beside them."
    )
