"""Power and precision of a plan, by simulation: its own analysis, on answers of raters of known error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from gradlab.checks import between, count
from gradlab.stats.agreement import wilson_interval
from gradlab.streams import Purpose, stream
from gradlab.study.exclusions import passed
from gradlab.study.plan import Plan
from gradlab.study.raters import RaterModel
from gradlab.study.rates import rate_of
from gradlab.study.results import verdict_of

EFFECTS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2)
DESIGN = ["raters", "items_per_rater", "raters_per_item"]  # columns that say which design a row is of
COLUMNS = (
    "effect", *DESIGN, "answers", "power", "power_low", "power_high", "beyond_margin", "equivalent", "half_width",
    "half_width_error", "coverage", "simulations",
)  # fmt: skip
NOT_SIMULATED = (
    "Simulated is the primary question as planned, all prompts in one stratum, without raters who fail the attention "
    "checks. Not simulated: the other exclusions, the stop rule (every item is answered), skips, identical texts, and "
    "a leaning to longer responses. Other goals and pairs of systems change nothing: the primary question is tested "
    "alone."
)
PREFERRED = ("holds throughout", "holds on average")  # words by which b is preferred


@dataclass(frozen=True)
class Power:
    """Power and precision over effects and designs.

    frame  a row per effect and design, with ``COLUMNS``: ``effect`` is the true win-rate − ½ of careful raters;
           ``answers`` that raters give in all, repeats and checks included; ``power`` is the share of simulations whose
           verdict is that b is preferred, with its 95% interval from the simulations; ``beyond_margin`` that of those
           whose interval lies beyond the margin; ``equivalent`` that of those judged equal within the margin;
           ``half_width`` the mean half-width of the intervals, with its standard error (NaN where every rater was
           always left out); ``coverage`` the share of simulations whose interval holds the truth.

    What ``NOT_SIMULATED`` says is left out.
    """

    plan: Plan
    model: RaterModel
    frame: pd.DataFrame

    def cheapest(self, effect: float, target: float = 0.8) -> Plan | None:
        """Return the plan with the fewest answers whose power at this effect is shown to reach the target, or None.

        Shown: the lower end of the interval of the simulated power reaches it. ValueError for an effect that was not
        simulated.
        """
        between("target", target, 0, 1, open_low=True, open_high=True)
        check_simulated(effect, self.frame["effect"].unique())
        rows = self.frame[np.isclose(self.frame["effect"], effect)]
        return self._fewest_answers(rows[rows["power_low"] >= target])

    def narrowest(self, half_width: float) -> Plan | None:
        """Return the plan with the fewest answers whose mean half-width is at most this at every effect, or None."""
        between("half_width", half_width, 0, 0.5, open_low=True, open_high=True)
        widest = self.frame.groupby([*DESIGN, "answers"], as_index=False)["half_width"].max()
        return self._fewest_answers(widest[widest["half_width"] <= half_width])

    def _fewest_answers(self, rows: pd.DataFrame) -> Plan | None:
        if rows.empty:
            return None
        best = rows.sort_values("answers", kind="stable").iloc[0]
        return with_design(self.plan, *(int(best[name]) for name in DESIGN))


def check_simulated(effect: float, effects: Iterable[float]) -> None:
    """Raise ValueError unless an effect is one of those that are simulated."""
    simulated = [*effects]
    if not np.isclose(simulated, effect).any():
        known = ", ".join(f"{value:g}" for value in simulated) or "none"
        raise ValueError(f"effect must be one of the effects that are simulated, {known}; got {effect:g}")


def power(
    plan: Plan, *, effects: Sequence[float] = EFFECTS, raters: Sequence[int] = (), items: Sequence[int] = (),
    raters_per_item: Sequence[int] = (), simulations: int = 400, model: RaterModel | None = None, seed: int = 0,
) -> Power:  # fmt: skip
    """Estimate power and precision of a plan's primary question.

    effects  true win-rates − ½, in (−½, ½).
    raters, items, raters_per_item  numbers of raters, of items per rater, and of raters per item that are tried, each
             with each; left out: the plan's. Where there are fewer raters than are to see an item, all of them do.
    model    the raters; left out: ``RaterModel()``, which is a guess, so try others.
    ValueError in one line for what cannot be simulated. ``NOT_SIMULATED`` says what is left out.
    """
    model = model or RaterModel()
    model = model if plan.design.ties else dataclasses.replace(model, tie=0.0)
    count("simulations", simulations, 1)
    if not len(effects):
        raise ValueError("effects must be one or more, got none")
    for effect in effects:
        between("effects", effect, -0.5, 0.5, open_low=True, open_high=True)
    rows = []
    for tried in _designs(plan, raters, items, raters_per_item):
        number, each, per_item = len(tried.raters), tried.design.items_per_rater, tried.design.raters_per_item
        for effect in effects:
            draw = stream(seed, Purpose.POWER, round((effect + 0.5) * 1e6), number, each)
            outcome = _simulated(tried, effect, simulations, model, draw)
            low, high = wilson_interval(outcome["power"], simulations)
            rows.append({
                "effect": effect, "raters": number, "items_per_rater": each, "raters_per_item": per_item,
                "answers": answers_asked(tried), **outcome, "power_low": low, "power_high": high,
                "simulations": simulations,
            })  # fmt: skip
    return Power(plan, model, pd.DataFrame(rows, columns=list(COLUMNS)))


def answers_asked(plan: Plan) -> int:
    """Return how many answers a plan asks for, repeats, attention checks and all goals included."""
    return tasks_per_rater(plan) * len(plan.raters) * len(plan.goals)


def tasks_per_rater(plan: Plan) -> int:
    """Return how many comparisons a rater is shown: items, repeats and attention checks."""
    design = plan.design
    return design.items_per_rater + round(design.repeats * design.items_per_rater) + design.attention


def with_design(plan: Plan, raters: int, items: int, raters_per_item: int) -> Plan:
    """Return the plan with so many raters, who rate so many items each, and so many raters per item."""
    names = plan.raters if raters == len(plan.raters) else tuple(f"rater {number + 1}" for number in range(raters))
    design = dataclasses.replace(plan.design, items_per_rater=items, raters_per_item=raters_per_item)
    return dataclasses.replace(plan, raters=names, design=design)


def _designs(plan: Plan, raters: Sequence[int], items: Sequence[int], raters_per_item: Sequence[int]) -> list[Plan]:
    """Return the plans that are tried, each design once."""
    numbers = [count("raters", number, 1) for number in raters or [len(plan.raters)]]
    each = [count("items", number, 1) for number in items or [plan.design.items_per_rater]]
    per_item = [count("raters_per_item", number, 1) for number in raters_per_item or [plan.design.raters_per_item]]
    chosen = dict.fromkeys((one, other, min(per, one)) for one, other, per in product(numbers, each, per_item))
    return [with_design(plan, *design) for design in chosen]


def _simulated(
    plan: Plan, effect: float, simulations: int, model: RaterModel, draw: np.random.Generator
) -> dict[str, float]:
    """Return the shares of simulations that end one way or another, at one effect."""
    rater, prompt = _crossed(plan)
    truth, worth = 0.5 + effect, model.worth_of(0.5 + effect)
    margin, population = plan.primary.margin, plan.analysis.population
    at_random = np.array([0.0, 1.0, 0.5] if plan.design.ties else [0.0, 1.0])
    outcomes = []
    for _ in range(simulations):
        felt = worth + model.raters * draw.normal(size=len(plan.raters))[rater]
        felt = felt + model.prompts * draw.normal(size=prompt.max() + 1)[prompt]
        felt = felt + model.position * (draw.integers(2, size=len(felt)) - 0.5)
        score = model.scores(felt, draw)
        careless = draw.random(len(plan.raters)) < model.careless
        random = careless[rater] | (draw.random(len(felt)) < model.fatigue * draw.random(len(felt)))
        score = np.where(random, at_random[draw.integers(len(at_random), size=len(felt))], score)
        kept = _attentive(plan, model, careless, draw)[rater]
        rate = rate_of(score[kept], _renumbered(rater[kept]), _renumbered(prompt[kept]), population)
        word = verdict_of(rate, [rate], margin, population).word
        outcomes.append((
            word in PREFERRED, rate.low > 0.5 + margin, word == "no practical difference", (rate.high - rate.low) / 2,
            rate.low <= truth <= rate.high,
        ))  # fmt: skip
    ended = np.array(outcomes, float)
    names = ("power", "beyond_margin", "equivalent", "half_width", "coverage")
    shares = dict(zip(names, ended.mean(0).tolist(), strict=True))
    widths = ended[:, 3][~np.isnan(ended[:, 3])]  # a study without raters who count has no interval
    if not len(widths):
        return {**shares, "half_width": math.nan, "half_width_error": math.nan}
    error = float(widths.std() / math.sqrt(len(widths)))
    return {**shares, "half_width": float(widths.mean()), "half_width_error": error}


def _attentive(plan: Plan, model: RaterModel, careless: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return whether each rater passes the attention checks, as the plan asks; all do who never answer at random.

    Honest answers are those of ``simulated``: the good one by the first goal, ties by all others.
    """
    checks, needed = plan.design.attention, plan.exclusions.attention
    if not checks or not (model.careless or model.fatigue):
        return np.ones(len(careless), bool)
    shape = len(careless), checks, len(plan.goals)
    random = careless[:, None, None] | (draw.random(shape) < model.fatigue * draw.random(shape))
    by_luck = np.array([1.0, 0.0, 0.5])[draw.integers(3 if plan.design.ties else 2, size=shape)]
    honest = np.array([1.0, *[0.5 if plan.design.ties else 1.0] * (len(plan.goals) - 1)])
    return passed(np.where(random, by_luck, honest)).mean(1) >= needed


def _renumbered(groups: np.ndarray) -> np.ndarray:
    """Return numbers from 0 without gaps in place of these."""
    return np.unique(groups, return_inverse=True)[1]


def _crossed(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return who answers to which prompt, (answers,) each, of the primary pair, as evenly as ``assign`` deals items."""
    number = math.ceil(plan.items / len(plan.compared))
    raters, each = len(plan.raters), plan.design.raters_per_item
    order = np.argsort(stream(plan.seed, Purpose.SIMULATED_RATERS).random((number, raters)), axis=1)
    load, pairs = np.zeros(raters), []
    for prompt in range(number):
        chosen = order[prompt][np.argsort(load[order[prompt]], kind="stable")][:each]
        load[chosen] += 1
        pairs += [(rater, prompt) for rater in chosen]
    rater, prompt = np.array(pairs).T
    return rater, prompt
