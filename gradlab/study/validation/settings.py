"""The simulated cases and the targets, decided before the first run, and not by any result. Source: ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradlab.study.plan import Design, Exclusions, Population
from gradlab.study.planned_power import PREFERRED
from gradlab.study.raters import RaterModel

VERSION = 2  # of the numbers: raise it by hand when a change of any source changes them
CHANGES = (
    "The first run had 6,700 simulations, two attention checks as the usual number, and a `power` that left "
    "nobody out. It missed the promise with four checks by 10 points, and left two cases open. So `power` leaves out "
    "those who fail the checks, four checks are a plan's default, and this run has half as many simulations again: "
    "all decided before it, its other cases, targets and predictions as before."
)
MARGIN = 0.1  # of every simulated plan: the largest difference of win-rates that does not matter
COVERAGE = 0.93  # of 95% intervals, at least
POWER_WITHIN = 0.03  # of the promised power
RIGHT_WORD = 0.95  # of the studies at the designed precision, at least
FALSE_ALARM = 0.10  # of the studies without a bias, at most: the cautions rest on 95% intervals
FOUND = 0.80  # of the studies with a planted bias, at least
OFF = 0.02  # of a rate: a corrected one may be off by so much in the mean
TURN_WITHIN = 0.10  # of the predicted bias at which the sign turns, as a share of it
WORDS = 40.0  # words of a response in the mean, geometrically
SPREAD = 0.4  # standard deviation of the log of a response's words
A, B, THIRD = "dpo", "bdpo", "other"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A plan, raters of known error, and systems of known worth; simulated many times."""

    name: str
    effect: float = 0.1
    """True win-rate − ½ of b over a at equal length."""
    raters: int = 8
    items: int = 40
    """Items per rater."""
    per_item: int = 2
    """Raters per item."""
    attention: int = Design.attention
    """Attention checks per rater."""
    must_pass: float = Exclusions.attention
    """Share of the checks that a rater must pass."""
    population: Population = "like these"
    ties: bool = True
    model: RaterModel = field(default_factory=RaterModel)
    longer: float = 0.0
    """Mean of log(words of b/words of a)."""
    third: float | None = None
    """The worth of a third system, in log odds over a; None: there are two."""
    opposite: bool = False
    """The effect has the other sign in one of two strata."""
    simulations: int = 400
    right: tuple[str, ...] = ()
    """Words of the verdict that are right; where none is named, words are not judged."""
    wrong: tuple[str, ...] = ()
    """Words that are wrong, where only these are judged."""
    biases: tuple[str, ...] = ()
    """Names of the cautions that are looked for in each study."""
    covers: bool = True
    """The truth is that of all raters, so that intervals should cover it."""
    promised: bool = True
    """``power`` is asked for what it promises."""

    @property
    def design(self) -> Design:
        """Return the design of the plan."""
        return Design(
            items_per_rater=self.items, raters_per_item=self.per_item, attention=self.attention, ties=self.ties
        )

    @property
    def exclusions(self) -> Exclusions:
        """Return the plan's rules of exclusion."""
        return Exclusions(attention=self.must_pass)


_PRECISE: dict[str, Any] = {"raters": 30, "items": 26, "simulations": 200}  # half-width of about half the margin
_TIRED, _CARELESS = RaterModel(fatigue=0.7), RaterModel(careless=0.25)

CASES: tuple[Case, ...] = (
    Case(name="no difference", effect=0.0, biases=("sides", "length", "drift")),
    Case(name="small difference", effect=0.05, simulations=800),
    Case(name="usual", simulations=800),
    Case(name="large difference", effect=0.3),
    Case(name="three raters", raters=3, items=60, simulations=800),
    Case(name="24 raters, three per item", raters=24, items=15, per_item=3, simulations=800),
    Case(name="one rater per item", items=20, per_item=1),
    Case(name="raters differ", model=RaterModel(raters=1.0)),
    Case(name="raters alike", model=RaterModel(raters=0.0)),
    Case(name="these raters", population="these", model=RaterModel(raters=1.0), promised=False),
    Case(name="no ties", ties=False, model=RaterModel(tie=0.0)),
    Case(name="many ties", model=RaterModel(tie=1.5)),
    Case(name="sides", model=RaterModel(position=1.0), biases=("sides",)),
    Case(name="length", model=RaterModel(length=1.0), longer=math.log(1.5), biases=("length",), promised=False),
    Case(name="length decides", effect=-0.05, model=RaterModel(length=1.0), longer=math.log(1.5), biases=("length",),
         promised=False),
    Case(name="three systems", third=0.4, simulations=300, promised=False),
    Case(name="fatigue, 8 raters", effect=0.3, model=_TIRED, biases=("drift",), covers=False, simulations=200),
    Case(name="fatigue, 30 raters", effect=0.3, model=_TIRED, biases=("drift",), covers=False, **_PRECISE),
    Case(name="careless, two checks", effect=0.2, model=_CARELESS, attention=2, must_pass=0.5, covers=False,
         simulations=300),
    Case(name="careless, four checks", effect=0.2, model=_CARELESS, covers=False, simulations=300),
    Case(name="truth 0", effect=0.0, right=("no practical difference",), **_PRECISE),
    Case(name="truth beyond the margin", effect=0.2, right=PREFERRED, **_PRECISE),
    Case(name="truth beyond the margin, reversed", effect=-0.2, right=("reversed",), **_PRECISE),
    Case(name="truth at the margin", effect=MARGIN, wrong=("no practical difference", "reversed", "mixed"), **_PRECISE),
    Case(name="strata that disagree", effect=0.3, opposite=True, right=("mixed",), covers=False, promised=False,
         **_PRECISE),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Turning:
    """Systems of known reward, and raters who lean to length more and more: when does the sign of b − a turn?"""

    name: str
    frame: str
    """Pattern of the frames in ``figures`` that hold the samples; METHOD in it stands for dpo and bdpo."""
    unit: str
    """``log word`` or ``word``: the lengths' unit, in which raters lean."""
    reward: str = "reward"
    """The frames' column of what raters like."""
    scale: float = 1.0
    """Log odds per unit of that column."""
    per_word: float = 0.0
    """Cost of each word, in units of the column; part of the true reward, and no leaning."""
    raters: int = 8
    per_item: int = 2
    model: RaterModel = field(default_factory=lambda: RaterModel(prompts=0.0))
    """The raters; the true rewards differ between prompts, so that these raters need no further spread."""
    reach: float = 0.08
    """The simulated leanings lie on both sides of the predicted one, as far as moves the rate by this much."""
    steps: int = 5
    simulations: int = 20
    """Simulated studies per leaning."""


_TOKENS: dict[str, Any] = {"frame": "study/tokens.parquet"}
_OPENINGS: dict[str, Any] = {
    "frame": "llm/real/known-METHOD-[0-9]*.parquet", "reward": "sentiment", "scale": 4.0, "per_word": 0.03,
}  # fmt: skip
TURNINGS: tuple[Turning, ...] = tuple(
    Turning(name=f"{task}, per {unit}", unit=unit, **source)
    for task, source in (("tokens", _TOKENS), ("openings", _OPENINGS))
    for unit in ("log word", "word")
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that a run depends on."""

    cases: tuple[Case, ...] = CASES
    turnings: tuple[Turning, ...] = TURNINGS
    promises: int = 2000
    """Simulations of ``power`` per promise."""
    share: float = 1.0
    """Share of the simulations that is run; a quick run does fewer."""
    per_study: int = 10
    """Simulations that share one frozen study, with its texts and lists; each has answers of its own."""
    seed: int = 1000

    def number(self, simulations: int) -> int:
        """Return how many of so many simulations are run: whole studies."""
        return max(round(simulations * self.share / self.per_study), 1) * self.per_study


FULL, QUICK = Settings(), Settings(share=0.05, promises=400, seed=0)
PREDICTIONS: Mapping[str, str] = {
    "coverage": "between 94% and 96.5% in every case, lowest for strengths and for three raters",
    "power": "within 2 points where raters are careful; with careless raters the promise is too low where checks find "
             "them",
    "fatigue": "it draws the rate to one half; 30 raters show it nearly always, 8 raters in half of the studies",
    "careless": "two checks let half of the careless raters pass, four let a tenth pass",
    "turn": "at −(mean difference of rewards)/(mean difference of lengths), within a tenth of it",
}  # fmt: skip
"""Predictions, made before the first run, in words; the page says what came."""
