"""What a claim stands or falls with, declared as data before any result and judged by rule.

A ``Contrast`` compares two methods, paired by seed, in declared cells or in worlds that a distribution draws: the rules
are those of ``gradlab.stats.population`` and ``gradlab.stats.words``. A ``Scan`` is a statement about every declared
case, such as an inequality between closed forms:

- A case is *for* the statement where its slack is above the declared tolerance, *against* it below minus that, and
  *none* between. A case of an identity is for it where its error is within the tolerance, else against it.
- With a proof, the scan is *proved*, unless a case contradicts it: then it is *refuted*. Where the proof refutes the
  statement, the scan is *refuted* if a case shows that, else *undecided*.
- Without a proof it takes the words of ``gradlab.stats.words.word_of_cases``. Shares of a declared grid measure the
  grid, so they only illustrate: no primary rests on them.

Roles. A *primary* carries the claim's word. A control *explains away* where the method does no better than it: then
something else than the balancing has done the work. *Robustness* asks whether the answer stays under another budget,
optimiser or metric. *Context* is worth knowing, and judges nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from gradlab.arrays import check_columns
from gradlab.checks import one_of, positive
from gradlab.experiments.frame_checks import Levels, check_levels, check_numbers, factors_of, picked
from gradlab.stats.conditions import Search, search_condition
from gradlab.stats.moderators import effect_by_dose, effect_by_value
from gradlab.stats.population import (
    Average,
    Transport,
    average_over_cells,
    by_unit_and_seed,
    judge_units,
    over_worlds,
    paired_differences,
)
from gradlab.stats.precision import factor, replicates_for
from gradlab.stats.words import WORDS, Evidence, evidence_of_cells, evidence_of_worlds, word_of, word_of_cases

Role = Literal["primary", "explains away", "robustness", "context"]
Population = Literal["stated", "worlds", "cases"]
ROLES: tuple[Role, ...] = ("primary", "explains away", "robustness", "context")


@dataclass(frozen=True)
class Unit:
    """A unit of effects: a number in units of the value, times ``scale``, is so many ``words``."""

    words: str
    scale: float = 1.0
    digits: int = 3

    @property
    def factor(self) -> str:
        """Return in words how a number in units of the value becomes one in this unit; empty where it is the same."""
        return f"× {self.scale:g}" if self.scale != 1 else ""

    def number(self, value: float) -> float:
        """Return a number in units of the value as one in this unit."""
        return value * self.scale

    def size(self, value: float) -> str:
        """Return a size without its sign, such as "4.7 points of the reachable reward"."""
        return f"{abs(self.number(value)):.{self.digits}f} {self.words}".rstrip()

    def signed(self, value: float) -> str:
        """Return a signed number without the words; a small one keeps its sign where only zeros are left."""
        return f"{self.number(value) + 0.0:+.{self.digits}f}"


@dataclass(frozen=True)
class Contrast:
    """A comparison that a claim stands or falls with.

    claim      the claim's id.
    statement  what the contrast asks, in words.
    method, baseline, value  the difference is value(method) − value(baseline); the other way round where
               ``lower_is_better``, so that a positive effect always speaks for the method. Without a baseline it is
               value(method) − 0.
    by         the columns that make a cell; of worlds, the column that numbers them.
    margin     > 0: differences within ± margin do not matter, in units of value.
    unit       of value, in words.
    better, worse  the answer as a plain sentence for an effect above and below 0, with {size} for its size.
    same       the answer as a plain sentence where the effect is equivalent to 0 within the margin, with {size} and
               {margin}; for claims that this confirms, such as "a step of bDPO takes as long as one of DPO".
    where      a pandas query that picks the rows.
    role, population  see above. ``stated`` cells are fixed, ``worlds`` are drawn.
    label      a short name of the comparison, such as "λ = ½".
    co_primaries  how many primaries of the claim share Holm's correction.
    moderators  of worlds: the columns by which the effect is shown, the dose first.
    complete   the cells are all combinations of the values of ``by``; False where some combinations cannot be.
    """

    claim: str
    statement: str
    method: str
    baseline: str | None
    value: str
    by: tuple[str, ...]
    margin: float
    where: str = ""
    unit: Unit = Unit("")
    better: str = ""
    worse: str = ""
    same: str = ""
    lower_is_better: bool = False
    role: Role = "primary"
    population: Literal["stated", "worlds"] = "stated"
    label: str = ""
    co_primaries: int = 1
    moderators: tuple[str, ...] = ()
    complete: bool = True

    def __post_init__(self) -> None:
        positive(f"margin of {self.statement!r}", self.margin)
        one_of("role", self.role, ROLES)

    @property
    def target(self) -> float:
        """Return the half-width at which a cell is precise enough."""
        return factor(self.co_primaries) * self.margin

    def differences(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return paired differences in favour of the method: columns by, ``seed``, ``difference``."""
        rows = picked(frame, self.where)
        check_numbers(rows, [self.value])
        differences = paired_differences(rows, self.value, self.method, self.baseline, self.by)
        sign = -1 if self.lower_is_better else 1
        return differences.assign(difference=sign * differences["difference"])

    def table(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the differences as a table, a row per cell or world, a column per seed; NaN where none was run.

        Worlds must be numbered from 0 on in the whole frame; those that ``where`` picks must have both methods. A
        world's seeds are its own, so the columns number them within each world.

        Raises ValueError where a value is missing, a seed is there twice, a cell or world is missing, or a world has
        fewer seeds than another.
        """
        differences = self.differences(frame)
        if self.population == "worlds":
            units = [(number,) for number in self._worlds(frame)]
            order = differences.groupby(list(self.by))["seed"].rank(method="dense")
            differences = differences.assign(seed=order.astype(int) - 1)
        else:
            levels = (differences[name].unique() for name in self.by)
            units = list(itertools.product(*levels)) if self.complete and self.by else None
        table = by_unit_and_seed(differences.assign(all=0), self.by or ("all",), declared=units)
        seeds = table.notna().sum(axis=1)
        if self.population == "worlds" and seeds.nunique() > 1:
            raise ValueError(
                f"frame must have {seeds.max()} seeds in every world; world {seeds.idxmin()} has {seeds.min()}"
            )
        return table

    def _worlds(self, frame: pd.DataFrame) -> list[int]:
        """Return the numbers of the worlds that ``where`` picks; ValueError where the frame's numbers have a gap."""
        (world,) = self.by
        there = set(frame[world])
        gaps = set(range(max(there) + 1)) - there
        if gaps:
            raise ValueError(f"frame must have the worlds from 0 to {max(there)}; {world} {min(gaps)} is missing")
        return sorted(set(frame.query(self.where)[world]) if self.where else there)

    def judged(self, frame: pd.DataFrame) -> Judged:
        """Return the answer of the frame, before any correction over co-primaries."""
        table = self.table(frame)
        values = table.to_numpy(float)
        units = judge_units(values, self.margin)
        seeds = (~np.isnan(values)).sum(1)
        rows = table.index.to_frame(index=False).assign(
            effect=units.effect, low=units.low, high=units.high, state=units.state, reversed=units.reversed, seeds=seeds
        )
        if self.population == "stated":
            average = average_over_cells(values, self.margin)
            return self._answer(evidence_of_cells(average, units), average, rows)
        transport = over_worlds(values, self.margin)
        factors = factors_of(picked(frame, self.where), self.by[0], self.moderators, rows[self.by[0]])
        shown = {
            name: (effect_by_dose if pd.api.types.is_float_dtype(factors[name]) else effect_by_value)(
                rows["effect"].to_numpy(), factors[name]
            )
            for name in self.moderators
        }
        search = search_condition(values, factors, rows[self.by[0]], self.margin, self.moderators)
        rows = pd.concat([rows, factors], axis=1)
        answer = self._answer(evidence_of_worlds(transport), transport.average, rows)
        return replace(answer, transport=transport, moderators=shown, search=search)

    def _answer(self, evidence: Evidence, average: Average, rows: pd.DataFrame) -> Judged:
        word = word_of(evidence)
        wide = (rows["high"] - rows["low"]) / 2 > self.target if self.population == "stated" else pd.Series(dtype=bool)
        return Judged(
            statement=self, evidence=evidence, word=word, effect=average.effect, low=average.low, high=average.high,
            replicates=average.replicates, rows=rows, wide=int(wide.sum()), needs=self._needs(word, average),
        )  # fmt: skip

    def _needs(self, word: str, average: Average, family: int = 1) -> int:
        """Return how many seeds or worlds would decide; 0 where the word is decided, or no more are needed by design.

        family  how many statements share Holm's correction.
        """
        half = (average.high - average.low) / 2
        if word != "undecided" or not np.isfinite(half):
            return 0
        wanted = replicates_for(half, average.replicates, factor(max(family, self.co_primaries)) * self.margin)
        return wanted if wanted > average.replicates else 0


@dataclass(frozen=True)
class Scan:
    """A statement about every declared case that a claim stands or falls with.

    claim, statement, by, where, role, label   as for a contrast.
    value      the column of slacks, positive where the statement is true; for an identity, the column of errors.
    tolerance  slacks within ± tolerance are on the boundary; errors within it are rounding. In units of value.
    identity   the statement is an equation, and value its error.
    proof      the name of the proof, see ``experiments.report.proofs``; empty: none, the cases are all there is.
    refutes    the proof refutes the statement.
    holds, fails  the answer as a plain sentence where the statement is right, and where it is wrong.
    """

    claim: str
    statement: str
    value: str
    by: tuple[str, ...]
    tolerance: float = 0.0
    where: str = ""
    identity: bool = False
    role: Role = "primary"
    label: str = ""
    holds: str = ""
    fails: str = ""
    proof: str = ""
    refutes: bool = False
    population: Literal["cases"] = field(default="cases", init=False)

    def judged(self, frame: pd.DataFrame) -> Judged:
        """Return the answer of the frame; ValueError where a case has no value."""
        rows = picked(frame, self.where)
        check_columns("frame", rows, [*self.by, self.value])
        if not len(rows) or rows[self.value].isna().any():
            raise ValueError(f"{self.statement!r} must have {self.value} in every case, got {len(rows)} with gaps")
        slack = rows[self.value].to_numpy(float)
        if self.identity:
            state = np.where(np.abs(slack) <= self.tolerance, "for", "against")
        else:
            state = np.select([slack > self.tolerance, slack < -self.tolerance], ["for", "against"], "none")
        keep = [*self.by, *(["seed"] if "seed" in rows and "seed" not in self.by else [])]
        cases = rows[keep].assign(effect=slack, state=state, reversed=state == "against").reset_index(drop=True)
        above, below = int((state == "for").sum()), int((state == "against").sum())
        algebra = self._algebra(below)
        unproved = "undecided" if self.refutes else word_of_cases(above, len(state) - above - below, below)
        word = algebra or unproved
        evidence = Evidence(algebra=algebra, units=len(state), above=above, below=below, reversed=below)
        seeds = cases["seed"].nunique() if "seed" in cases else 0
        return Judged(statement=self, evidence=evidence, word=word, rows=cases, replicates=seeds)

    def _algebra(self, against: int) -> Literal["proved", "refuted"] | None:
        """Return what the proof and the cases say together; None without a proof, or where no case shows it."""
        if not self.proof:
            return None
        if self.refutes:
            return "refuted" if against else None
        return "refuted" if against else "proved"


Statement = Contrast | Scan


@dataclass(frozen=True, eq=False)
class Judged:
    """A statement with its answer.

    word        by rule, see ``gradlab.stats.words``.
    evidence    the numbers from which the word follows; without units where a rule of the question has set the word.
    effect, low, high  the average over cells or worlds with its 95% interval, in units of value; NaN for a scan.
    replicates  over how many seeds or worlds the interval is; of a scan, how many seeds drew its cases, 0 for none.
    rows        each cell, world or case: its columns, effect (of a case, its slack), low, high, state, reversed, seeds.
    wide        how many stated cells are wider than their design asks for, with all seeds that there may be.
    needs       how many seeds or worlds would decide; 0 where the word is decided, or nobody can say.
    transport   of worlds: the estimate for the distribution.
    moderators  of worlds: the effect by dose or value, a table per factor.
    search      of worlds: the condition that was searched, and whether the other half confirms it.
    experiment  the experiment or measurement whose frame was judged.
    note        more in words, for a reader of the row.
    """

    statement: Statement
    evidence: Evidence
    word: str
    rows: pd.DataFrame
    replicates: int
    effect: float = np.nan
    low: float = np.nan
    high: float = np.nan
    wide: int = 0
    needs: int = 0
    transport: Transport | None = None
    moderators: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    search: Search | None = None
    experiment: str = ""
    note: str = ""

    @property
    def sentence(self) -> str:
        """Return the answer as one plain sentence with its unit."""
        return self.said()

    def said(self, *, interval: bool = False) -> str:
        """Return the answer as one plain sentence; of a contrast, if asked for, with the interval behind the size."""
        statement = self.statement
        if self.word == "not run":
            return "not measured"
        if isinstance(statement, Scan):
            told = (statement.fails if self.word in ("refuted", "reversed") else statement.holds).removesuffix(".")
            return told or f"{statement.statement}: {self.number('for'):,} of {len(self.rows):,} cases"
        unit, above = statement.unit, self.effect >= 0
        size = unit.size(self.effect)
        if interval:
            low, high = (self.low, self.high) if above else (-self.high, -self.low)
            ends = (unit.signed(end).removeprefix("+") for end in (low, high))
            size = f"{size} (95% interval {' to '.join(ends)})"
        if self.word == "no practical difference" and statement.same:
            return statement.same.format(size=size, margin=unit.size(statement.margin))
        told = (statement.better if above else statement.worse).format(size=size).removesuffix(".")
        told = told or f"{statement.statement}: {unit.signed(self.effect)} {unit.words}".rstrip()
        return f"{told}{self._qualified(above)}"

    def _qualified(self, above: bool) -> str:
        """Return what a sentence on the average must add: that it is small, open, or not true everywhere."""
        if self.word == "no practical difference":
            beyond = self.number("for") + self.number("against")
            told = f"{' on average' if beyond else ''}, too little to matter"
            return f"{told}; {beyond:,} of {len(self.rows):,} {self.units} lie beyond the margin" if beyond else told
        if self.word == "undecided":
            return ", but that decides nothing"
        opposite = self.number("against" if above else "for")
        if self.word == "mixed" and self.low < 0 < self.high:
            agreed = self.number("for" if above else "against")
            return (f" on average, which decides nothing: it is true in {agreed:,} of {len(self.rows):,} {self.units}, "
                    f"and the opposite in {opposite:,}")  # fmt: skip
        if opposite:
            return f" on average; the opposite is true in {opposite:,} of {len(self.rows):,} {self.units}"
        agreed = self.word == "holds throughout" or self.number("for" if above else "against") == len(self.rows)
        return "" if agreed or len(self.rows) == 1 else " on average"

    @property
    def units(self) -> str:
        """Return what is counted: cells, worlds or cases."""
        return {"stated": "cells", "worlds": "worlds", "cases": "cases"}[self.population]

    @property
    def role(self) -> Role:
        """Return the statement's role."""
        return self.statement.role

    @property
    def population(self) -> Population:
        """Return which population was judged: stated cells, worlds or cases."""
        return self.statement.population

    @property
    def seeds(self) -> int:
        """Return the fewest seeds of a cell or world; of a scan, how many drew its cases."""
        return int(self.rows["seeds"].min()) if "seeds" in self.rows else self.replicates

    def number(self, state: str) -> int:
        """Return how many cells, worlds or cases are ``for``, ``none``, ``against`` or ``undecided``."""
        return int((self.rows["state"] == state).sum())

    def ruled(self, word: str, note: str) -> Judged:
        """Return the answer with the word that its question's rule demands, and why; no seeds change it."""
        return replace(self, word=one_of("word", word, WORDS), note=note, evidence=Evidence(), needs=0)

    def corrected(self, evidence: Evidence, family: int = 1) -> Judged:
        """Return the answer under evidence that is corrected over so many statements; a word without evidence stays."""
        word = word_of(evidence) if evidence.algebra is None and evidence.units else self.word
        if isinstance(self.statement, Scan) or not evidence.units:
            return replace(self, evidence=evidence)
        if word == self.word and (word != "undecided" or family <= self.statement.co_primaries):
            return replace(self, evidence=evidence)
        average = Average(self.effect, self.low, self.high, np.nan, np.nan, len(self.rows), self.replicates)
        return replace(self, evidence=evidence, word=word, needs=self.statement._needs(word, average, family))


def not_run(statement: Statement, note: str = "") -> Judged:
    """Return the answer on a statement that was declared and that nobody has measured.

    note  why there is no measurement.
    """
    rows = pd.DataFrame(columns=[*statement.by, "effect", "low", "high", "state", "reversed"])
    return Judged(statement, Evidence(), "not run", rows, 0, note=note)


def judged(frame: pd.DataFrame, statements: Iterable[Statement], levels: Levels | None = None) -> list[Judged]:
    """Return the answers of a frame, in the order of the statements.

    levels  values that columns of the frame must have, all of them and no others; None: any.
    Raises ValueError for a frame without them, with a gap, a seed that is there twice, or a missing cell.
    """
    check_levels(frame, levels or {})
    return [statement.judged(frame) for statement in statements]
