"""The claims that the atlas transports: the same comparisons in worlds that a declared distribution draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, not_run
from gradlab.experiments.outcomes import MASS, REWARD, Outcome
from gradlab.experiments.questions.atlas_groups import BALANCED, PAIRWISE, POINTWISE, variants
from gradlab.experiments.questions.atlas_worlds import VALUES, WORLD

MODERATORS = tuple(name for name in WORLD if name != "world")
FEWEST = 12  # worlds: fewer are no sample
_RUN = ["world", "seed"]


def answers(worlds: pd.DataFrame) -> list[Judged]:
    """Return the answers in drawn worlds, from the frame of worlds with the column ``method``.

    At equal KL a world's value is the mean over the KL levels that both methods reach there with each seed.
    """
    levels, ends = worlds[worlds["kl"].notna()], worlds[worlds["kl"].isna()]
    rows = list[Judged]()
    for method, words in BALANCED.items():
        rows.append(_compared(
            worlds, _at_levels(levels, method, "dpo"), REWARD, "exactly-balanced", f"reward at equal KL, {words} "
            "against DPO", (method, words), ("dpo", "DPO"), words, 2, "at equal KL, ",
        ))  # fmt: skip
    half, balanced = "DPO at β = ½", "bDPO at β = 1"
    chosen = pd.concat([
        ends[(ends["method"] == loss) & (ends["beta"] == beta)].assign(method=name)
        for loss, beta, name in (("dpo", 0.5, half), ("bdpo", 1.0, balanced))
    ])  # fmt: skip
    for outcome, value in ((REWARD, "reward"), (MASS, "unobserved mass")):
        there = chosen[chosen["mask"] > 0] if outcome is MASS else chosen
        rows.append(_compared(worlds, there, outcome, "smaller-beta", f"{value} at the end, {half} against {balanced}",
                              (half, half), (balanced, balanced), half, 2))  # fmt: skip
    pairwise = [name for members in PAIRWISE.values() for name in members]
    groups = pd.concat([_mean(levels, pairwise, "pairwise"), _mean(levels, POINTWISE, "pointwise")])
    rows.append(_compared(
        worlds, _at_levels(groups, "pairwise", "pointwise"), REWARD, "pairing-decides", "reward at equal KL, pairwise "
        "against pointwise losses", ("pairwise", "a pairwise loss"), ("pointwise", "a pointwise loss"),
        "pairwise against pointwise", 1, "at equal KL, ",
    ))  # fmt: skip
    return [*rows, *_none_beats(worlds, levels, ends)]


def _none_beats(worlds: pd.DataFrame, levels: pd.DataFrame, ends: pd.DataFrame) -> list[Judged]:
    """Return DPO against the loss that does best in worlds with odd numbers, in the others."""
    names, published = variants(), worlds["preset"] == "published"
    ahead: dict[str, Callable[[str], pd.DataFrame]] = {
        "at equal KL": lambda name: _at_levels(levels[published.loc[levels.index]], name, "dpo"),
        "each at its best β": lambda name: _both(_at_best_beta(ends[published.loc[ends.index]]), name, "dpo"),
    }
    rows = list[Judged]()
    for short, sides_of in ahead.items():
        choosing = {name: _ahead(sides_of(name), name) for name in names}
        odd = {name: values[values.index % 2 == 1].mean() for name, values in choosing.items() if len(values)}
        best = max(odd, key=lambda name: -np.inf if np.isnan(odd[name]) else odd[name], default="")
        sides = sides_of(best) if best else ends[:0]
        words = f"{best} (which does best in other worlds)" if best else "the best loss"
        place = "at equal KL, " if short == "at equal KL" else "where each loss has the β that is best for it, "
        rows.append(_compared(
            worlds, sides[sides["world"] % 2 == 0], REWARD, "none-beats-dpo", f"reward {short}, DPO against the loss "
            "that does best in other worlds", ("dpo", "DPO"), (best, words), f"best of all, {short}", 2, place,
        ))  # fmt: skip
    return rows


def _at_best_beta(ends: pd.DataFrame) -> pd.DataFrame:
    """Return each loss's ends at the β with the highest reward in worlds with odd numbers, in all worlds."""
    filled = ends.fillna({"beta": 0.0})
    means = filled[filled["world"] % 2 == 1].groupby(["method", "beta"])["utility_share"].mean().reset_index()
    best = means.loc[means.groupby("method")["utility_share"].idxmax(), ["method", "beta"]]
    return filled.merge(best, on=["method", "beta"])


def _ahead(sides: pd.DataFrame, method: str) -> pd.Series:
    """Return the reward of a method minus the other side's, a mean per world."""
    signed = sides["utility_share"] * np.where(sides["method"] == method, 1, -1)
    return 2 * signed.groupby(sides["world"]).mean()


def _mean(levels: pd.DataFrame, members: list[str] | tuple[str, ...], name: str) -> pd.DataFrame:
    """Return the mean over some methods, as a method, where each of them has a value."""
    rows = levels[levels["method"].isin(members)]
    whole = rows[rows.groupby([*_RUN, "kl"])["method"].transform("nunique") == len(members)]
    keys = [*WORLD, "seed", "kl"]
    return whole.groupby(keys, as_index=False)[VALUES].mean().assign(method=name)


def _at_levels(levels: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Return both methods' means over the KL levels that both reach in a world with each of its seeds."""
    both = levels[levels["method"].isin([method, baseline])]
    both = both[both.groupby([*_RUN, "kl"])["method"].transform("nunique") == 2]
    seeds = both.groupby("world")["seed"].transform("nunique")
    both = both[both.groupby(["world", "kl"])["seed"].transform("nunique") == seeds]
    means = both.groupby([*WORLD, "seed", "method"], as_index=False)[VALUES].mean()
    return _both(means, method, baseline)


def _both(rows: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Return the rows of two methods in the worlds in which both have two seeds."""
    rows = rows[rows["method"].isin([method, baseline])]
    rows = rows[rows.groupby(_RUN)["method"].transform("nunique") == 2]
    return rows[rows.groupby("world")["seed"].transform("nunique") >= 2]


def _compared(
    worlds: pd.DataFrame, sides: pd.DataFrame, outcome: Outcome, claim: str, statement: str,
    method: tuple[str, str], baseline: tuple[str, str], label: str, co_primaries: int, place: str = "",
) -> Judged:  # fmt: skip
    """Return the answer on two methods, given as names and in words, in the worlds of ``sides``.

    The other worlds of the frame are kept beside, so that the numbers have no gap.
    """
    named = {"method": method[1], "baseline": baseline[1], "size": "{size}"}
    better, worse = (f"in drawn worlds, {place}{said.format(**named)}" for said in (outcome.better, outcome.worse))
    contrast = Contrast(
        claim=claim, statement=statement, method=method[0], baseline=baseline[0], value=outcome.value, by=("world",),
        margin=outcome.margin, unit=outcome.unit, better=better, worse=worse, lower_is_better=outcome.lower_is_better,
        population="worlds", label=label, moderators=MODERATORS, co_primaries=co_primaries, where="both",
    )  # fmt: skip
    there = _both(sides, method[0], baseline[0])
    if there["world"].nunique() < FEWEST:
        return not_run(contrast, f"fewer than {FEWEST} worlds in which both methods have a value")
    others = worlds[~worlds["world"].isin(there["world"])].drop_duplicates("world")
    return contrast.judged(pd.concat([there.assign(both=True), others.assign(both=False)], ignore_index=True))
