"""The verdict on a loss: against DPO in the lab, with DPO's strength β set in the ways that could explain a gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from gradlab.arrays import check_columns
from gradlab.atlas.trained import shown
from gradlab.stats.equivalence import ALPHA, holm, mean_of

MARGIN = 0.01  # of the reachable reward, as in the claims about the grid
_VALUE = "utility_share"
_RUN = ["loss", "preset", "beta", "seed"]  # what tells the trainings that are compared apart
_NEEDED = (*_RUN, _VALUE, "kl_to_reference")
WORDS = ("better", "worse", "no practical difference", "undecided", "mixed", "not run")
BEST, EQUAL_KL, SAME, HALF = "at each one's best β", "at equal KL", "at the same β", "against DPO at half the β"


class Contrast(NamedTuple):
    """A loss against DPO in one way: the mean difference over seeds, with a 95% t interval.

    name    how DPO's strength was set.
    effect, low, high  in shares of the reward that can be reached: 0.01 is one percent of the way from the reference to
            the best responses. NaN where nothing could be compared.
    word    one of ``WORDS``, by ``verdict``.
    seeds   worlds that were compared.
    """

    name: str
    effect: float
    low: float
    high: float
    word: str
    seeds: int


@dataclass(frozen=True)
class Verdict:
    """The contrasts of one loss with DPO, and what they say together."""

    loss: str
    contrasts: tuple[Contrast, ...]

    def word_of(self, name: str) -> str:
        """Return the word of the contrast with this name."""
        return next(contrast.word for contrast in self.contrasts if contrast.name == name)

    @property
    def word(self) -> str:
        """Return the joint word of the two fair comparisons, at each one's best β and at equal KL.

        It is the word of both where they agree, or of the one that was run; "undecided" where one is that; else
        "mixed".
        """
        said = {self.word_of(name) for name in (BEST, EQUAL_KL)} - {"not run"}
        if len(said) <= 1:
            return said.pop() if said else "not run"
        return "undecided" if "undecided" in said else "mixed"

    @property
    def sentence(self) -> str:
        """Return the verdict in one or two sentences."""
        fair = [contrast for contrast in self.contrasts if contrast.name in (BEST, EQUAL_KL)]
        said = " and ".join(f"{_SAID[contrast.word]} {contrast.name}{_size(contrast)}" for contrast in fair)
        first = f"Against DPO, {self.loss} is {said}."
        if self.word_of(SAME) != "better" or self.word_of(HALF) not in ("worse", "no practical difference"):
            return first
        return f"{first} At the same β it does better, but DPO at half that β does no worse: that gain is a smaller β."

    def table(self) -> pd.DataFrame:
        """Return one row per contrast."""
        return pd.DataFrame(self.contrasts)


_SAID = {
    "better": "better", "worse": "worse", "no practical difference": "no different", "not run": "not comparable",
    "undecided": "not shown to be better or worse",
}  # fmt: skip


def _size(contrast: Contrast) -> str:
    if contrast.word == "not run":
        return ""
    effect, low, high = (f"{100 * number:+.1f}".replace("-", "−") for number in contrast[1:4])
    return f" ({effect} [{low}, {high}] points of the reachable reward)"


def verdict(trained: pd.DataFrame, loss: str, baseline: str = "dpo") -> Verdict:
    """Compare a loss with DPO on the same worlds, in four ways, by the ends of training.

    trained   a frame as of ``compare`` or ``figures/data/atlas.parquet``: rows of the loss as it is ("published") and
              over β ("grid"), and DPO's over β. Of several cells or factors, those that ``shown`` keeps are compared.
    loss, baseline  their names in the frame.

    - At each one's best β: the β with the highest mean on one half of the seeds is judged on the other half, both ways
      round. A loss without β is taken as it is.
    - At equal KL: the loss as it is, against DPO's curve over β on the same world, interpolated where it first passes
      the loss's KL. Worlds in which it does not pass are left out; fewer than half of them: not run.
    - At the same β, and against DPO at half the β: the loss as it is. A gain at the same β that half the β brings too
      is no merit of the loss; bDPO's weights add up to 1, and so halve the effective β. Not run for a loss without β,
      and where the frame lacks DPO at that β.

    Words, after Holm's correction over these, each question for itself: "no practical difference" where the mean
    is equivalent to 0 within 1% of the reachable reward, else "better" or "worse" where it differs from 0, each at 5%;
    else "undecided".

    ValueError for a frame without these columns, and where a loss has two trainings of one preset, β and seed: seeds
    are then no independent worlds.
    """
    check_columns("trained", trained, _NEEDED)
    own = _once(shown(trained[trained["loss"] == loss], "published")).set_index("seed")
    grids = {name: _once(shown(trained[trained["loss"] == name], "grid")) for name in (loss, baseline)}
    curve = grids[loss] if len(grids[loss]) else own.reset_index()
    differences = {
        BEST: _at_best(curve, grids[baseline]),
        EQUAL_KL: _at_equal_kl(own, grids[baseline]),
        SAME: _at_share(own, grids[baseline], 1.0),
        HALF: _at_share(own, grids[baseline], 0.5),
    }
    return Verdict(loss, _judged(differences))


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows; ValueError where two of them are of one loss, preset, β and seed."""
    twice = rows[rows.duplicated(_RUN)]
    if len(twice):
        run = ", ".join(f"{name} {value}" for name, value in zip(_RUN, twice.iloc[0][_RUN], strict=True))
        raise ValueError(f"trained must hold one row per {', '.join(_RUN)}, got two of {run}")
    return rows


def _judged(differences: dict[str, np.ndarray]) -> tuple[Contrast, ...]:
    means = {name: mean_of(values) for name, values in differences.items()}
    run = [name for name, mean in means.items() if np.isfinite(mean.error)]
    differs, equals = (
        dict(zip(run, holm(np.array(p_values)), strict=True)) if run else {}
        for p_values in ([means[name].p_differs() for name in run], [means[name].p_equivalent(MARGIN) for name in run])
    )
    contrasts = []
    for name, mean in means.items():
        number = int(np.isfinite(differences[name]).sum())
        if name not in run:
            contrasts.append(Contrast(name, np.nan, np.nan, np.nan, "not run", number))
            continue
        low, high = mean.interval()
        effect = float(mean.effect)
        word = "undecided"
        if equals[name] <= ALPHA:
            word = "no practical difference"
        elif differs[name] <= ALPHA:
            word = "better" if effect > 0 else "worse"
        contrasts.append(Contrast(name, effect, float(low), float(high), word, number))
    return tuple(contrasts)


def _at_best(curve: pd.DataFrame, baseline: pd.DataFrame) -> np.ndarray:
    """Return the differences per seed at the β that was best on the other half of the seeds."""
    ours, theirs = (_by_beta(rows) for rows in (curve, baseline))
    seeds = ours.index.intersection(theirs.index)
    halves = seeds[::2], seeds[1::2]
    if min(len(halves[1]), ours.shape[1], theirs.shape[1]) == 0:
        return np.full(1, np.nan)
    found = []
    for chosen_on, judged_on in (halves, halves[::-1]):
        best = [table.loc[judged_on][table.loc[chosen_on].mean().idxmax()] for table in (ours, theirs)]
        found.append((best[0] - best[1]).to_numpy())
    return np.concatenate(found)


def _by_beta(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the values, one row per seed and one column per β; a β at which a training failed is left out."""
    rows = rows.assign(beta=rows["beta"].fillna(-1.0))
    return rows.pivot(index="seed", columns="beta", values=_VALUE).dropna(axis=1)


def _at_equal_kl(own: pd.DataFrame, baseline: pd.DataFrame) -> np.ndarray:
    found = []
    for seed, row in own.iterrows():
        path = baseline[baseline["seed"] == seed].sort_values("beta", ascending=False).dropna(subset=[_VALUE])
        kl, value = path["kl_to_reference"].to_numpy(), path[_VALUE].to_numpy()
        rising = np.flatnonzero(np.diff(np.maximum.accumulate(kl), prepend=-1.0) > 0)  # the way back is ignored
        level = row["kl_to_reference"]
        there = len(rising) > 0 and kl[rising[0]] <= level <= kl[rising[-1]]
        found.append(row[_VALUE] - np.interp(level, kl[rising], value[rising]) if there else np.nan)
    reached = np.array(found, dtype=float)
    return reached if np.isfinite(reached).sum() * 2 >= len(reached) else np.full(len(reached), np.nan)


def _at_share(own: pd.DataFrame, baseline: pd.DataFrame, share: float) -> np.ndarray:
    """Return the differences per seed from DPO at this share of the loss's β."""
    betas = own["beta"].dropna().unique()
    if len(betas) != 1:
        return np.full(max(len(own), 1), np.nan)
    rows = baseline[np.isclose(baseline["beta"], share * betas[0], rtol=1e-9, atol=0)].drop_duplicates("seed")
    return (own[_VALUE] - rows.set_index("seed")[_VALUE].reindex(own.index)).to_numpy(float)
