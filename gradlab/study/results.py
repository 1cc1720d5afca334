"""The results of a study: what the plan asks for, then what it does not, called exploratory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from gradlab.stats.agreement import krippendorff_alpha, wilson_interval
from gradlab.stats.equivalence import ALPHA, false_discoveries_controlled, holm
from gradlab.stats.words import Evidence, word_of
from gradlab.study.answers import SCORED, Answers
from gradlab.study.exclusions import Conduct, alike, conduct
from gradlab.study.plan import EVERYBODY, Population
from gradlab.study.rates import Rate, win_rate
from gradlab.study.strengths import strengths, ties, unlinked
from gradlab.study.terms import Drift, EqualLength, drift, equal_length, left_rate

_RESAMPLES = 2000
_FEWEST_SHARED = 5  # items that two raters answered, below which α has no interval
_SEED = 0  # of the bootstrap of α
_OTHER_POPULATION = {"these": "for these raters alone", "like these": "for raters like these"}  # the interval's


@dataclass(frozen=True)
class Verdict:
    """The verdict on the primary question: a word of ``gradlab.stats.words``, and the numbers that it was said by."""

    word: str
    rate: Rate
    margin: float
    p_differs: float
    p_equivalent: float


def verdict_of(rate: Rate, strata: Sequence[Rate], margin: float, population: Population) -> Verdict:
    """Return the verdict that a primary rate carries, with the rates of its strata; the rules are those of ``word_of``.

    Strata are fixed cells: those beyond the margin count, and those below ½ after Benjamini and Hochberg's correction.
    A stratum without an answer is neither.
    A single stratum is no "throughout". ``not run`` where nobody answered; ``undecided`` where one rater is to speak
    for raters like these, as nothing tells how much others differ.
    """
    if not rate.answers:
        return Verdict("not run", rate, margin, math.nan, math.nan)
    if rate.raters == 1 and population == "like these":
        return Verdict("undecided", rate, margin, math.nan, math.nan)
    mean = rate.beyond_half
    reversals = false_discoveries_controlled([float(cell.beyond_half.p_below()) for cell in strata]) <= ALPHA
    evidence = Evidence(
        effect=rate.rate - 0.5, p_differs=float(mean.p_differs()), p_equivalent=float(mean.p_equivalent(margin)),
        units=len(strata), above=sum(cell.low > 0.5 + margin for cell in strata) if len(strata) > 1 else 0,
        below=sum(cell.high < 0.5 - margin for cell in strata), reversed=int(reversals.sum()),
    )  # fmt: skip
    return Verdict(word_of(evidence), rate, margin, evidence.p_differs, evidence.p_equivalent)


@dataclass(frozen=True)
class Agreement:
    """Agreement of raters on items that two or more answered: Krippendorff's α with its bootstrap interval."""

    goal: str
    items: int
    alpha: float
    low: float
    high: float


class Results:
    """The results of a study's answers, each computed when it is asked for.

    answers  as ``read_answers`` gives them.

    People's answers count, without those whom the plan's rules leave out; judges that are models count among them only
    where the plan says so. Repeats and attention checks never count as items.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers, self.plan = answers, answers.study.plan
        first = answers.of("item")
        self._everybody = first if self.plan.analysis.pool_judges else first[~first["judge"]]

    @cached_property
    def conduct(self) -> Conduct:
        """How the raters worked, and whom the plan leaves out."""
        return conduct(self.answers)

    @cached_property
    def items(self) -> pd.DataFrame:
        """The answers to items that count, one per row."""
        return self._everybody[~self._everybody["rater"].isin(self.conduct.out)]

    @property
    def answered(self) -> int:
        """The number of raters who answered the primary question, those who are left out counted too."""
        answers = self.of(*self._primary, self._everybody)
        return answers.loc[answers["score"].notna(), "rater"].nunique()

    def of(self, a: str, b: str, goal: str, answers: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return the answers on one pair of systems by one goal."""
        frame = self.items if answers is None else answers
        return frame[(frame["a"] == a) & (frame["b"] == b) & (frame["goal"] == goal)]

    def rate(self, a: str, b: str, goal: str) -> Rate:
        """Return the win-rate of b over a by a goal; items with identical texts count as ties, in the planned share."""
        return self._rate(self.of(a, b, goal), a, b)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the primary question, by ``verdict_of``; the average is over all prompts."""
        rate, strata = self.rate(*self._primary), [cell for _, cell in self._by_stratum()]
        return verdict_of(rate, strata, self.plan.primary.margin, self.plan.analysis.population)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """The win-rate of each pair of systems by each goal, the primary one first.

        Columns: ``a``, ``b``, ``goal``, ``role`` (primary or secondary), ``rate``, ``low``, ``high``, ``answers``,
        ``prompts``, ``raters``, ``p`` (of no difference) and ``p_holm``: the primary question's as it is, the others'
        by Holm over all of them.
        """
        rows = []
        for goal in self.plan.goals:
            for a, b in self.plan.compared:
                rate = self.rate(a, b, goal.name)
                role = "primary" if (a, b, goal.name) == self._primary else "secondary"
                p = float(rate.beyond_half.p_differs()) if rate.answers else math.nan
                rows.append({"a": a, "b": b, "goal": goal.name, "role": role, **_numbers(rate), "p": p, "p_holm": p})
        frame = pd.DataFrame(rows).sort_values("role", kind="stable", ignore_index=True)
        others = (frame["role"] == "secondary").to_numpy()
        frame.loc[others, "p_holm"] = holm(frame.loc[others, "p"].to_numpy(float))
        return frame.assign(p_holm=frame["p_holm"].where(frame["p"].notna()))

    @cached_property
    def strata(self) -> pd.DataFrame:
        """The primary win-rate in each stratum of prompts; NaN in one that has no answer that counts."""
        return pd.DataFrame([{"stratum": name, **_numbers(rate)} for name, rate in self._by_stratum()])

    @cached_property
    def equal_length(self) -> EqualLength:
        """The primary win-rate if both systems' responses were equally long; identical texts count as in ``rate``."""
        a, b, goal = self._primary
        found = equal_length(self.of(a, b, goal), self.plan.analysis.population)
        return replace(found, rate=self._with_ties(found.rate, a, b))

    @cached_property
    def left(self) -> Rate:
        """How often the left side is preferred, over all pairs of systems.

        A rater's answers to the goals of an item are one answer, their mean: whoever leans to a side leans in all.
        """
        each = self.items.groupby(["rater", "item"], sort=False, as_index=False).agg(
            {"score": "mean", "b_left": "first"}
        )
        return left_rate(each.assign(prompt=each["item"]), self.plan.analysis.population)

    @cached_property
    def terms(self) -> pd.DataFrame:
        """The primary win-rate as it is and at equal length, and the left side's: ``choice``, then a rate's columns."""
        rates = {
            "as it is": self.verdict.rate, "at equal length": self.equal_length.rate, "left over right": self.left,
        }  # fmt: skip
        return pd.DataFrame([{"choice": name, **_numbers(rate)} for name, rate in rates.items()])

    @cached_property
    def drift(self) -> Drift:
        """How the primary answers change along the raters' lists."""
        return drift(self.of(*self._primary), self.plan.analysis.population)

    @cached_property
    def strengths(self) -> dict[str, tuple[pd.DataFrame, float]]:
        """The strengths of all systems and the share of ties of equal ones, by goal.

        Only where there are three systems, and only goals by which the answers so far link all of them.
        """
        systems = list(self.plan.systems)
        found = {}
        for goal in self.plan.goals if len(systems) > 2 else ():
            part = self.items[self.items["goal"] == goal.name]
            if not unlinked(part, systems):
                frame, nu = strengths(part, systems, self.plan.analysis.population)
                found[goal.name] = frame, ties(nu)
        return found

    @cached_property
    def agreement(self) -> list[Agreement]:
        """Agreement of the raters who count, by goal."""
        return [_agreement(goal.name, self.items[self.items["goal"] == goal.name]) for goal in self.plan.goals]

    @cached_property
    def self_agreement(self) -> tuple[float, float, float, int]:
        """The share of repeats that raters who count answered alike, its 95% Wilson interval, and their number."""
        kept = {*self.plan.raters} - {*self.conduct.out}
        same = np.array([same for rater, same in self._alike if rater in kept], bool)
        share = float(same.mean()) if len(same) else math.nan
        return (share, *(wilson_interval(share, len(same)) if len(same) else (math.nan, math.nan)), len(same))

    @cached_property
    def sensitivity(self) -> pd.DataFrame:
        """The primary win-rate under other choices: ``choice``, then the columns of a rate; the plan's is the first."""
        whole, (a, b, goal) = self.of(*self._primary), self._primary
        other = "these" if self.plan.analysis.population == "like these" else "like these"
        middle = whole.groupby("rater")["place"].transform("median")
        cases = {
            "as planned": self._rate(whole, a, b),
            f"{EVERYBODY}, nobody left out": self._rate(self.of(a, b, goal, self._everybody), a, b),
            _OTHER_POPULATION[other]: self._rate(whole, a, b, population=other),
            "ties left out": win_rate(whole[whole["score"] != 0.5], self.plan.analysis.population),
            "first half of each list": self._rate(whole[whole["place"] <= middle], a, b),
        }
        for rater in sorted(whole["rater"].unique()):
            cases[f"without {rater}"] = self._rate(whole[whole["rater"] != rater], a, b)
        return pd.DataFrame([{"choice": name, **_numbers(rate)} for name, rate in cases.items()])

    @cached_property
    def judges(self) -> pd.DataFrame:
        """The judges that are models, beside people: a row per judge, by the primary question.

        An item's answer is the mean over both orders, so that a leaning to a side moves no win-rate. Columns:
        ``judge``, the columns of a rate, ``scored`` (whether it scored each response alone, so that both orders agree
        by construction), ``consistent`` (share of items judged alike in both orders, with ``consistent_low`` and
        ``consistent_high``), ``left`` (how often the left side won), ``length`` (log odds per log length), and
        ``with_people`` (share of items with the same answer as most people, where most agree).
        """
        return pd.DataFrame([self._judge(judge) for judge in self.plan.judges])

    @cached_property
    def _alike(self) -> list[tuple[str, bool]]:
        return alike(self.answers)

    @property
    def _primary(self) -> tuple[str, str, str]:
        primary = self.plan.primary
        return primary.a, primary.b, primary.goal

    def _rate(
        self, answers: pd.DataFrame, a: str, b: str, stratum: str | None = None, population: Population | None = None
    ) -> Rate:
        """Return the rate of a pair's answers, drawn to ½ by the planned share of items with identical texts.

        Nobody is shown these. The share is that of the plan, and not of the answers: those that come later, or never,
        would else be counted as ties.
        """
        return self._with_ties(win_rate(answers, population or self.plan.analysis.population), a, b, stratum)

    def _with_ties(self, rate: Rate, a: str, b: str, stratum: str | None = None) -> Rate:
        of_pair = [
            item.identical for item in self.answers.study.items
            if (item.a, item.b) == (a, b) and stratum in (None, item.stratum)
        ]  # fmt: skip
        same = sum(of_pair)
        if same and same == len(of_pair):
            return Rate.tied(same)
        return rate.with_ties(same, len(of_pair) - same) if rate.answers else rate

    def _by_stratum(self) -> list[tuple[str, Rate]]:
        """Return the primary rate of each stratum of the primary pair's items, answered or not."""
        whole, (a, b, _) = self.of(*self._primary), self._primary
        if not self.plan.analysis.strata:
            return [("", self._rate(whole, a, b))]
        names = sorted({item.stratum for item in self.answers.study.items if (item.a, item.b) == (a, b)})
        return [(name, self._rate(whole[whole["stratum"] == name], a, b, name)) for name in names]

    def _judge(self, judge: str) -> dict[str, object]:
        every = self.answers.frame[self.answers.frame["rater"] == judge]
        mine = self.of(*self._primary, every)
        both = _over_orders(mine)
        same = np.array([same for rater, same in self._alike if rater == judge], bool)
        low, high = wilson_interval(float(same.mean()), len(same)) if len(same) else (math.nan, math.nan)
        people = self.of(*self._primary, self.items[~self.items["judge"]]).groupby("item")["score"].mean()
        beside = pd.DataFrame({"judge": both.set_index("item")["score"], "people": people}).dropna()
        beside = beside[beside["people"] != 0.5]
        agree = (np.sign(beside["judge"] - 0.5) == np.sign(beside["people"] - 0.5)).to_numpy()
        rate = self._rate(both, *self._primary[:2], population="these")
        return {
            "judge": judge, **_numbers(rate), "scored": {*mine["reason"]} == {SCORED},
            "consistent": float(same.mean()) if len(same) else math.nan, "consistent_low": low, "consistent_high": high,
            "left": left_rate(mine, "these").rate, "length": equal_length(both, "these").slope,
            "with_people": float(agree.mean()) if len(agree) else math.nan,
        }  # fmt: skip


def _over_orders(answers: pd.DataFrame) -> pd.DataFrame:
    """Return a judge's answers as one row per item, the mean over both orders, which is free of a leaning to a side."""
    first = answers.drop_duplicates("item").set_index("item")
    return first.assign(score=answers.groupby("item")["score"].mean(), b_left=False).reset_index()


def _numbers(rate: Rate) -> dict[str, float]:
    return {name: getattr(rate, name) for name in ("rate", "low", "high", "answers", "prompts", "raters")}


def _agreement(goal: str, items: pd.DataFrame) -> Agreement:
    """Return the agreement on one goal; NaN where it cannot be told, as is an interval over fewer than 5 items.

    The bootstrap draws disagreements with replacement: over a single item it has no width.
    """
    import evalica

    ratings = items.pivot_table(index="rater", columns="item", values="score", aggfunc="first")
    shared = ratings.loc[:, ratings.notna().sum() > 1]
    alpha = krippendorff_alpha(ratings)
    if math.isnan(alpha) or shared.shape[1] < _FEWEST_SHARED:
        return Agreement(goal, shared.shape[1], alpha, math.nan, math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = evalica.alpha_bootstrap(shared, n_resamples=_RESAMPLES, random_state=_SEED)
    return Agreement(goal, shared.shape[1], alpha, float(drawn.low), float(drawn.high))
