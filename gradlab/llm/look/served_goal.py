"""Which of two labelled sets Balanced-DPO would serve, from λ before any training: a finding of the lab, in words.

In the lab, whether bDPO at 2β does more for a goal than DPO goes mostly with the sign of the mean λ_w − ½ over the
goal's labels under the reference; see the claim two-goals-cause and the experiment *two-goals*. Source: ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from gradlab.console import wrapped
from gradlab.stats.equivalence import mean_of

_CAUTION = (
    "This is a finding of the lab (claim two-goals-cause): there the sign was right more often than not, it comes from "
    "stopping nearer to the reference, and at equal KL DPO serves that goal better. It has not been tested on language "
    "models."
)
_WIDTH = 100
_SHOWN = 44  # characters of a data set's name in a table


@dataclass(frozen=True)
class Lead:
    """A mean with the ends of its 95% t interval over pairs, as if pairs were independent; NaN below two pairs."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """Return 1 or −1 where the interval lies above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        return f"{self.mean:+.4f}" + ("" if np.isnan(self.low) else f" [{self.low:+.4f}, {self.high:+.4f}]")


def lead(frame: pd.DataFrame) -> Lead:
    """Return the mean of λ_w − ½ over the pairs of a frame of ``measured``: above 0 where winners are more probable."""
    return _lead(frame["win_weight"].to_numpy(float) - 0.5)


def difference(one: pd.DataFrame, other: pd.DataFrame) -> Lead:
    """Return how much larger the mean λ_w of one frame is than the other's, with the 95% interval of Welch's t."""
    sides = [frame["win_weight"].to_numpy(float) for frame in (one, other)]
    gap = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) < 2:
        return Lead(gap, np.nan, np.nan)
    errors = [values.var(ddof=1) / len(values) for values in sides]
    spread = sum(errors)
    if not spread:
        return Lead(gap, gap, gap)
    freedom = spread**2 / sum(error**2 / (len(values) - 1) for error, values in zip(errors, sides, strict=True))
    half = float(-stdtrit(freedom, 0.025) * np.sqrt(spread))
    return Lead(gap, gap - half, gap + half)


def about_the_goal(frame: pd.DataFrame) -> str:
    """Return in plain words what the lab's finding predicts for the goal that these pairs label."""
    found = lead(frame)
    said = f"Mean λ_w − ½ is {found}"
    if found.sign == 0:
        return f"{said}: it cannot be told from 0, so nothing is predicted on whether bDPO serves this goal."
    more = "more" if found.sign > 0 else "less"
    return (
        f"{said}: winners are the {more} probable responses before any training, so bDPO at 2β is predicted to do "
        f"{more} for the goal of these pairs than DPO. {_CAUTION}"
    )


def side_by_side(frames: Mapping[str, pd.DataFrame]) -> str:
    """Return data sets as a table, and in words which of them bDPO would serve; frames of ``measured``, by name."""
    head = f"{'before any training':<{_SHOWN}} {'pairs':>7} {'mean λ_w − ½, 95% interval':>30} {'winner shorter':>15}"
    lines = [head]
    for name, frame in frames.items():
        shorter = frame["win_len"] < frame["lose_len"]
        share = (shorter + 0.5 * (frame["win_len"] == frame["lose_len"])).mean()
        shown = name if len(name) <= _SHOWN else f"…{name[-_SHOWN + 1 :]}"
        lines.append(f"{shown:<{_SHOWN}} {len(frame):>7,} {lead(frame)!s:>30} {share:>15.1%}")
    ranked = sorted(frames, key=lambda name: -lead(frames[name]).mean)
    return "\n".join([*lines, "", *wrapped(_compared(frames, ranked[0], ranked[-1]), _WIDTH, "- ")])


def joined(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return frames as one, with the name of each in a column ``data``; a single frame as it is."""
    if len(frames) == 1:
        return next(iter(frames.values()))
    return pd.concat([frame.assign(data=name) for name, frame in frames.items()], ignore_index=True)


def _compared(frames: Mapping[str, pd.DataFrame], first: str, last: str) -> str:
    gap = difference(frames[first], frames[last])
    if gap.sign <= 0:
        return f"The largest and the smallest mean λ_w differ by {gap}: nothing is predicted on which goal bDPO serves."
    return (
        f"Mean λ_w is larger by {gap} in {first} than in {last}, so with both sets in one training bDPO is predicted "
        f"to serve the goal of {first} more than that of {last}, against DPO at equal scale. {_CAUTION}"
    )


def _lead(values: np.ndarray) -> Lead:
    mean = mean_of(values)
    low, high = mean.interval()
    return Lead(float(mean.effect), float(low), float(high))
