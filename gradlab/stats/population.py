"""Judge a population: declared cells, each of which is measured, or worlds drawn from a distribution.

- A *cell* is one combination of declared settings. Cells are fixed: another study would measure the same ones.
- A *seed* draws what is random in a cell: centres, mask, data. One number means the same seed in every cell, so cells
  are correlated, and intervals are over seeds.
- A *world* is a draw from a declared distribution of settings, one draw each. Another study would draw other worlds,
  so intervals are over worlds. The seeds of a world draw what is random within it, and are its own.

Differences are arrays (cells or worlds, seeds). NaN means that a seed was not run there; each row needs two seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradlab.arrays import check_columns, real_array
from gradlab.checks import positive, shown
from gradlab.stats.agreement import wilson_interval
from gradlab.stats.equivalence import ALPHA, Array, Mean, false_discoveries_controlled, mean_of

STATES = ("for", "none", "against", "undecided")


@dataclass(frozen=True)
class Units:
    """Cells or worlds, each judged by its seeds; every array is (units,).

    effect, low, high  mean difference with its 95% t interval.
    state     ``for``: low > + margin. ``against``: high < − margin. ``none``: equivalent to 0 within the margin, by
              both one-sided tests at 5%. Else ``undecided``. Units are not corrected for their number.
    reversed  the effect lies below 0, by however little, at a false discovery rate of 5% over all units: Benjamini and
              Hochberg's adjusted p-value of the one-sided test is at most 5%. (Of two-sided tests, many clear effects
              above 0 would let a null pass as reversed.)

    *against* and *reversed* differ: *against* asks for more than the margin and is decided in each unit for itself;
    *reversed* asks for less than 0 and is corrected over all units. A unit may be either one, both or neither.
    """

    effect: Array
    low: Array
    high: Array
    state: Array
    reversed: Array

    def number(self, state: str) -> int:
        """Return how many units are in a state."""
        return int((self.state == state).sum())


@dataclass(frozen=True)
class Average:
    """The mean effect of a population with its 95% interval and, uncorrected, the p-values of two questions.

    units, replicates  how many cells or worlds there are, and over how many seeds or worlds the interval is.
    """

    effect: float
    low: float
    high: float
    p_differs: float
    p_equivalent: float
    units: int
    replicates: int


@dataclass(frozen=True)
class Transport:
    """An estimate for the worlds that a distribution draws.

    average   over worlds.
    between   standard deviation between worlds' true effects, without what seeds add; 0 where seeds explain all.
    expected  the 95% prediction interval for what a new world with as many seeds will show.
    above, below  95% Wilson intervals of the share of worlds decided to be beyond + or − margin. Undecided worlds count
              as not beyond: the share is of worlds that have been shown to be.
    units     each world.
    """

    average: Average
    between: float
    expected: tuple[float, float]
    above: tuple[float, float]
    below: tuple[float, float]
    units: Units


def paired_differences(
    frame: pd.DataFrame, value: str, method: str, baseline: str | None, by: Sequence[str], pair: str = "seed"
) -> pd.DataFrame:
    """Return ``value`` of ``method`` minus that of ``baseline``, paired within (by, pair).

    Columns: those of ``by``, ``pair`` and ``difference``.

    frame needs the columns method, value, pair and by, with one row for each combination.
    baseline  None: nothing is subtracted, and nothing paired.
    Raises ValueError where a pair is not complete.
    """
    texts = {"value": value, "method": method, "pair": pair, **({} if baseline is None else {"baseline": baseline})}
    for name, word in texts.items():
        if not isinstance(word, str) or word != word.encode(errors="replace").decode():
            raise ValueError(f"{name} must be a text, got {shown(word)}")
    if not isinstance(by, (list, tuple)) or not all(isinstance(name, str) for name in by):
        raise ValueError(f"by must be a list of columns, got {shown(by)}")
    keys = [*by, pair]
    check_columns("frame", frame, ["method", *keys, value])
    if baseline is None:
        rows = frame[frame["method"] == method]
        return rows[keys].assign(difference=rows[value])
    sides = [frame.loc[frame["method"] == name, [*keys, value]] for name in (method, baseline)]
    try:
        merged = sides[0].merge(sides[1], on=keys, suffixes=("", "_baseline"), how="outer", validate="one_to_one")
    except pd.errors.MergeError:
        twice = named(keys, pd.concat([side[side.duplicated(keys)] for side in sides]))
        raise ValueError(
            f"{method!r} and {baseline!r} must have one {value} for each {', '.join(keys)}, got two at {twice}"
        ) from None
    differences = merged[value] - merged[f"{value}_baseline"]
    gaps = merged[differences.isna()]
    if len(merged) == 0 or len(gaps):
        where = f"got a gap at {named(keys, gaps)}" if len(gaps) else "got no rows"
        raise ValueError(f"{method!r} and {baseline!r} must both have {value} for the same {', '.join(keys)}; {where}")
    return merged[keys].assign(difference=differences)


def by_unit_and_seed(
    frame: pd.DataFrame, by: Sequence[str], *, seed: str = "seed", value: str = "difference",
    declared: Iterable[tuple[object, ...]] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return differences as a table: a row per unit (a cell or a world), a column per seed, NaN where none was run.

    by        the columns that make a unit; the table's index has them as levels.
    declared  the units that must be there, as tuples in the order of ``by``; None: any.
    Raises ValueError for a NaN or an infinity among the values, a seed twice in a unit, and a missing or another unit.
    """
    by = list(by)
    lost = [column for column in (*by, seed, value) if column not in frame]
    if lost or not by or not len(frame):
        raise ValueError(f"frame must have rows with the columns {', '.join((*by, seed, value))}, lacks "
                         f"{', '.join(lost) or 'rows'}")  # fmt: skip
    keys = [*by, seed]
    wrong = frame[~np.isfinite(frame[value].to_numpy(float))]
    if len(wrong):
        raise ValueError(f"{value} must be finite, got {wrong[value].iloc[0]} at {named(keys, wrong)}")
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        raise ValueError(f"each unit must have a {seed} once, got it twice at {named(keys, twice)}")
    table = frame.set_index(keys)[value].unstack(seed)
    if declared is not None:
        wanted = pd.MultiIndex.from_tuples([tuple(unit) for unit in declared], names=by)
        there = pd.MultiIndex.from_frame(table.index.to_frame(index=False), names=by)
        for units, words in ((wanted.difference(there), "is missing"), (there.difference(wanted), "is not declared")):
            if len(units):
                first = named(by, units.to_frame(index=False))
                raise ValueError(f"frame must have the declared units, {first} {words}")
    return table


def judge_units(differences: ArrayLike, margin: float) -> Units:
    """Return each cell or world judged by its seeds; differences (units, seeds). ValueError for a margin ≤ 0."""
    values, margin = _checked(differences), positive("margin", margin)
    mean = mean_of(values)
    reversed_ones = false_discoveries_controlled(mean.p_below()) <= ALPHA
    return Units(mean.effect, *mean.interval(), states_of(mean, margin), reversed_ones)


def states_of(mean: Mean, margin: float) -> Array:
    """Return the state of each unit, one of ``STATES``, by the rules of ``Units``."""
    low, high = mean.interval()
    equivalent = mean.p_equivalent(margin) <= ALPHA
    return np.select([low > margin, high < -margin, equivalent], ["for", "against", "none"], "undecided")


def average_over_cells(differences: ArrayLike, margin: float) -> Average:
    """Return the mean over fixed cells, each counting once, with a t interval over seeds; differences (cells, seeds).

    Each seed adds what it moves the mean: with n_c seeds in cell c of C, seed s moves it by r_s = Σ_c (d_cs − d̄_c)/(C
    n_c); a cell in which it was not run adds nothing to the sum. The variance is S/(S − 1) Σ_s r_s², S being the number
    of seeds with a value in any cell, which is the t test of the seeds' means where every cell has the same seeds.
    Degrees of freedom: the fewest seeds of a cell, minus one. Where cells have unequal numbers of seeds this is
    conservative or near it: in simulations with cells of 24 and 96, 72 and 240, or 6 and 96 seeds the 95% interval
    covers in 93 to 98%. Source: the cluster-robust variance (Liang & Zeger 1986), with seeds as clusters.
    """
    values, margin = _checked(differences), positive("margin", margin)
    run = ~np.isnan(values)
    seeds = run.sum(1)
    means = np.where(run, values, 0.0).sum(1) / seeds
    moves = (np.where(run, values - means[:, None], 0.0) / (len(values) * seeds[:, None])).sum(0)
    number = int(run.any(0).sum())
    error = np.sqrt(number / (number - 1) * (moves**2).sum())
    if np.abs(moves).max() <= 8 * np.finfo(float).eps * np.abs(np.nan_to_num(values)).max() / number:
        error = np.zeros(())  # no spread but rounding
    mean = Mean(np.asarray(means.mean()), np.asarray(error), np.asarray(seeds.min() - 1.0))
    return _average(mean, margin, len(values), number)


def over_worlds(differences: ArrayLike, margin: float) -> Transport:
    """Return an estimate for the distribution that drew the worlds; differences (worlds, seeds), at least 3 worlds.

    The average is the mean of the worlds' means, with a t interval over worlds; it needs no model. The variance between
    worlds is that of the worlds' means minus the mean of their squared standard errors. The prediction interval lies
    between two of the n worlds' means in order, number k from below and number k from above with k = ⌊(n + 1)/40⌋,
    whatever their distribution: a new one lies between them with probability 1 − 2k/(n + 1). Below 39 worlds it is
    mean ± t s √(1 + 1/n), with the standard deviation s of the worlds' means, which is exact for normal ones. Less
    what seeds add, it would be narrower, but cover a new true effect too seldom where seeds blur the worlds.
    """
    values, margin = _checked(differences), positive("margin", margin)
    if len(values) < 3:
        raise ValueError(f"differences must have at least 3 worlds, got {len(values)}")
    within, mean = mean_of(values), mean_of(mean_of(values).effect)
    spread = len(values) * mean.error**2 - (within.error**2).mean()
    between = float(np.sqrt(max(spread, 0.0)))
    low, high = _new_world(within.effect, mean)
    units = judge_units(values, margin)
    shares = [wilson_interval(units.number(state) / len(values), len(values)) for state in ("for", "against")]
    average = _average(mean, margin, len(values), len(values))
    return Transport(average, between, (low, high), shares[0], shares[1], units)


def named(columns: Sequence[str], rows: pd.DataFrame) -> str:
    """Return the first row's values of some columns in words."""
    return ", ".join(f"{column} {rows[column].iloc[0]}" for column in columns)


def _new_world(effects: Array, mean: Mean) -> tuple[float, float]:
    """Return the 95% prediction interval of a new world's mean, see ``over_worlds``; effects (worlds,)."""
    number = len(effects)
    place = int((number + 1) * ALPHA / 2)
    if place:
        ordered = np.sort(effects)
        return float(ordered[place - 1]), float(ordered[-place])
    low, high = Mean(mean.effect, mean.error * np.sqrt(number + 1), mean.freedom).interval()
    return float(low), float(high)


def _average(mean: Mean, margin: float, units: int, replicates: int) -> Average:
    low, high = mean.interval()
    differs, equivalent = float(mean.p_differs()), float(mean.p_equivalent(margin))
    return Average(float(mean.effect), float(low), float(high), differs, equivalent, units, replicates)


def _checked(differences: ArrayLike) -> Array:
    """Return differences (units, seeds), if each unit has two."""
    values = real_array("differences", differences)
    if np.isinf(values).any():
        raise ValueError("differences must be finite, or NaN where a seed was not run, got an infinity")
    if values.ndim != 2 or not values.size:
        raise ValueError(f"differences must have shape (units, seeds), got {values.shape}")
    fewest = int((~np.isnan(values)).sum(1).min())
    if fewest < 2:
        unit = int((~np.isnan(values)).sum(1).argmin())
        raise ValueError(f"differences must have at least 2 seeds in each unit, got {fewest} in number {unit}")
    return values
