"""Predictions on continuous responses from before the first run, how each came out, and the answer in a few sentences.

Every number here is computed from the frame of the experiment *continuous*. A *distance* is the total variation
distance between two trained policies, the probability mass by which they differ; intervals are 95% t intervals over
seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from gradlab.experiments.predictions import Outcome, Prediction, by_interval
from gradlab.experiments.questions.continuous import RELATIVE, at_equal_kl, with_case
from gradlab.experiments.questions.continuous_runs import BALANCED, FREE, HALF, HOME
from gradlab.experiments.questions.frontier import overlap
from gradlab.stats.equivalence import mean_of
from gradlab.stats.population import average_over_cells

EXACT, MARGIN = 1e-10, 0.01
SLOPE = (-1.3, -0.7)  # of log distance over log log n, for 1/log n
_FINE = 1e3  # cells from which on the slope is taken
_LARGE = "1e+06 y"


def ends(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the last rows of a loss at β = 1 in every coordinate but y."""
    rows = with_case(frame)
    there = (rows["kind"] == "units") & (rows["beta"] == 1) & (rows["method"] == method) & rows["distance"].notna()
    return rows[there & (rows["coordinate"] != HOME)]


def weights(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the share of bDPO's pairs whose weights leave [0, 1], by coordinate and case, means over seeds."""
    rows = with_case(frame)
    rows = rows[(rows["kind"] == "units") & (rows["beta"] == 1) & (rows["method"] == BALANCED)]
    return rows[rows["distance"].notna()].pivot_table(index="coordinate", columns="case", values="outside", sort=False)


def gain(frame: pd.DataFrame, method: str, baseline: str) -> tuple[float, float, float]:
    """Return the mean over cells of a loss's share of the reachable utility minus another's at equal KL, with its ends.

    Each cell, a case and a KL level that both reach, counts equally; NaN where they meet in none.
    """
    both = overlap(at_equal_kl(frame), method, baseline, ["case", "kl"])
    sides = [both[both["method"] == name].set_index(["case", "kl", "seed"])["utility_share"] for name in
             (method, baseline)]  # fmt: skip
    table = (sides[0] - sides[1]).astype(float).unstack("seed")
    if table.empty:
        return np.nan, np.nan, np.nan
    average = average_over_cells(table.to_numpy(), MARGIN)
    return average.effect, average.low, average.high


def slope(frame: pd.DataFrame) -> tuple[float, float, float]:
    """Return the slope of log distance from DPO at β/2 over log log n, from 1,000 cells on, with its ends.

    The slope is that of each seed's mean distance over cases.
    """
    rows = frame[(frame["kind"] == "cells") & frame["from_half"].notna()]
    rows = rows.assign(cells=rows["coordinate"].str.removesuffix(" cells").astype(float))
    table = rows[rows["cells"] >= _FINE].pivot_table(index="cells", columns="seed", values="from_half").astype(float)
    slopes = np.polyfit(np.log(np.log(table.index.to_numpy())), np.log(table.to_numpy()), 1)[0]
    mean = mean_of(slopes)
    low, high = mean.interval()
    return float(mean.effect), float(low), float(high)


def _same_everywhere(frame: pd.DataFrame) -> Outcome:
    rows = pd.concat([ends(frame, name) for name in FREE])
    most = max(float(rows["distance"].max()), float(rows["utility_gap"].max()))
    return by_interval(most, most, f"the largest distance or difference of E[u] is {most:.1g}", most=EXACT)


def _moves(frame: pd.DataFrame) -> Outcome:
    rows = ends(frame, BALANCED)
    table = rows.pivot_table(index=["case", "coordinate"], columns="seed", values="distance").astype(float)
    mean = mean_of(table.to_numpy())
    low, high = mean.interval()
    nearest = int(np.argmin(mean.effect))
    case, name = table.index[nearest]
    words = (
        f"the least mean distance is {mean.effect[nearest]:.3f}, in {name} ({case}); above {MARGIN:g} in "
        f"{int((low > MARGIN).sum())} of {len(table)} cells"
    )
    return Outcome("held" if (low > MARGIN).all() else "failed" if (high < MARGIN).any() else "undecided", words)


def _on_cells(frame: pd.DataFrame) -> Outcome:
    mean, low, high = slope(frame)
    words = f"the slope of log distance over log log n is {mean:.2f} [{low:.2f}, {high:.2f}]"
    return by_interval(low, high, words, least=SLOPE[0], most=SLOPE[1])


def _outside(frame: pd.DataFrame) -> Outcome:
    table = weights(frame)
    some = table.loc[[name for name in ("0.1 y", "reference's CDF") if name in table.index]].to_numpy().min()
    none = table.loc[[name for name in ("1000 y", _LARGE) if name in table.index]].to_numpy().max()
    words = f"at least {some:.0%} of the pairs in 0.1 y and in the reference's CDF, at most {none:.2%} from 1000 y on"
    return Outcome("held" if some >= 0.1 and none == 0 else "failed", words)


def _within(method: str, baseline: str) -> Callable[[pd.DataFrame], Outcome]:
    def check(frame: pd.DataFrame) -> Outcome:
        mean, low, high = gain(frame, method, baseline)
        words = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points of the reachable utility"
        return by_interval(low, high, words, least=-MARGIN, most=MARGIN)

    return check


def _theorems(frame: pd.DataFrame) -> Outcome:
    rows = frame[frame["kind"] == "theory"].pivot(index=["apart", "width"], columns="coordinate", values="spread")
    turned = int((rows["p ∝ |w|"] < 0).sum())
    true = int((rows[HOME] > 0).sum())
    equal = float(rows["policy's CDF"].abs().max())
    words = (
        f"Theorems 4 and 5 are true in y in {true} of {len(rows)} cases, false in all {turned} where the coordinate "
        f"makes p ∝ |w|, and equal to {equal:.0e} in the policy's CDF"
    )
    return Outcome("held" if turned == len(rows) and true > 0 and equal < EXACT * 100 else "failed", words)


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        f"DPO, λ = ½ and relative bDPO train the same policy in every coordinate: no distance and no difference of "
        f"E[u] above {EXACT:g}.",
        _same_everywhere,
    ),
    Prediction(
        f"bDPO does not: in every coordinate but y, and for every kind of policy, its mean distance from the policy "
        f"trained in y is above {MARGIN:g}.",
        _moves,
    ),
    Prediction(
        "On ever finer cells bDPO tends to DPO at β/2 as 1/log n: from 1,000 cells on the slope of log distance over "
        f"log log n lies between {SLOPE[0]:g} and {SLOPE[1]:g} (a slope of −1 is 1/log n).",
        _on_cells,
    ),
    Prediction(
        "Of bDPO's pairs at least a tenth have weights outside [0, 1] in the unit 0.1 y and in the reference's CDF, "
        "for every kind of policy, and none from 1000 y on (from a pilot of six seeds at β = 1).",
        _outside,
    ),
    Prediction(
        f"At equal KL relative bDPO reaches what DPO reaches, within {MARGIN:g} of the reachable utility (from "
        "algebra; a quick run of three seeds decided nothing).",
        _within(RELATIVE, "dpo"),
    ),
    Prediction(
        f"At equal KL bDPO in the unit 1e6 y reaches what λ = ½ reaches, within {MARGIN:g}: its weights are near ½.",
        _within(f"bdpo in {_LARGE}", HALF),
    ),
    Prediction(
        "Theorems 4 and 5 have no answer on densities: the same policies and preferences make them true in y, false in "
        "another coordinate, and an equation in the policy's distribution function (proved).",
        _theorems,
    ),
)  # fmt: skip


def answer(frame: pd.DataFrame) -> str:
    """Return the answer to the second open question in a few sentences, with numbers of the frame."""
    moved = ends(frame, BALANCED)["distance"].astype(float)
    still = max(float(ends(frame, name)["distance"].max()) for name in FREE)
    outside = weights(frame)
    worst = outside.mean(axis=1)
    mean, low, high = gain(frame, RELATIVE, "dpo")
    fall = slope(frame)
    return (
        "Statements about ratios to the reference carry over; those about probabilities do not, since a density has "
        f"a unit: trained on the same pairs in another coordinate, Balanced-DPO moves {moved.mean():.0%} of the "
        f"policy's mass on average, and DPO, λ = ½ and relative Balanced-DPO move at most {still:.0e}. "
        f"Balanced-DPO's distances run from {moved.min():.0%} to {moved.max():.0%}, and up to {worst.max():.0%} of its "
        f"pairs have weights outside [0, 1] (coordinate: {worst.idxmax()}). The only weight made of the two policy "
        "densities that sees no coordinate is λ = ½, DPO at β/2 (proved); with the reference's densities there are "
        "others, such as relative Balanced-DPO's. At equal KL relative Balanced-DPO differs from DPO by "
        f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points of the reachable utility, on average over "
        f"cells. On ever finer cells Balanced-DPO tends to DPO at β/2, with slope {fall[0]:.2f} [{fall[1]:.2f}, "
        f"{fall[2]:.2f}] in log log n, where 1/log n has −1. DPO's half of Theorem 3 carries over if it is "
        "read for p/π_ref and the utility; the balanced half is false in y already; "
        "Theorems 4 and 5 have no answer on densities, since each policy makes them true in some coordinates and false "
        "in others (proved)."
    )
