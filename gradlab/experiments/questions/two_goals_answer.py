"""What was predicted of two goals before the first run, how each prediction came out, and the answer in one sentence.

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

from gradlab.experiments.predictions import Outcome, Prediction, by_interval
from gradlab.experiments.questions.two_goals_contrasts import AT, MARGIN
from gradlab.experiments.questions.two_goals_worlds import SIDES
from gradlab.lab.two_goals import GOALS
from gradlab.stats.agreement import wilson_interval
from gradlab.stats.equivalence import mean_of

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


def tilt(frame: pd.DataFrame, kind: str, name: str) -> Gain:
    """Return by how much more the harmless goal gains than the helpful one at matched scale, in a property's cell."""
    rows = cell(frame, kind, name)
    return Gain.of(differences(rows, "harmless") - differences(rows, "helpful"))


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


def _shows(name: str, frame: pd.DataFrame) -> Outcome:
    found = gains(cell(frame, "alone", name))
    return Outcome({"shown": "held", "absent": "failed", "open": "undecided"}[pattern(found)], _both(found))  # type: ignore[arg-type]


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


def movers(frame: pd.DataFrame) -> list[tuple[str, Gain]]:
    """Return the properties that alone move more than the margin from one goal to the other, the largest first.

    The swap control exchanges the numbers exactly, so a property that moves the gain to one goal moves it to the other
    when it is exchanged.
    """
    found = [(name, tilt(frame, "alone", name)) for name in SIDES]
    beyond = [(name, gain) for name, gain in found if gain.low > MARGIN or gain.high < -MARGIN]
    return sorted(beyond, key=lambda one: -abs(one[1].mean))


_SAID = {
    "height": "the larger gap", "noise": "the cleaner labels", "alignment": "the reference's lean",
    "basin": "the broader basin of good responses", "share": "the larger share of labels",
    "conflict": "more conflicting pairs", "length": "the shorter good responses",
}  # fmt: skip


def answer(frame: pd.DataFrame) -> str:
    """Return the answer to open question 1 in one sentence, with the numbers of this frame."""
    like_hh = gains(cell(frame, "hh", "nothing"))
    shown = {"shown": "appears", "absent": "does not appear", "open": "is undecided"}[pattern(like_hh)]
    right, decided = right_signs(frame)
    moved = [
        f"{_SAID[name]} ({'towards' if gain.mean > 0 else 'away from'} that goal, {gain})"
        for name, gain in movers(frame)
    ]
    which = f"; alone, the gain is moved by {', '.join(moved)}" if moved else "; no property alone moves the gain"
    return (
        f"In the lab, at matched scale, bDPO's gains over DPO in a world like HH are {_both(like_hh)}, so that the "
        f"paper's pattern {shown} there{which}; and the sign of mean λ_w − ½ under the reference, known before "
        f"training, is that of the gain for {right} of {decided} goals of drawn worlds whose gain matters."
    )
