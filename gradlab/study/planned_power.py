"""Power and precision of a plan, by simulation: its own analysis, on answers of raters of known error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.checks import between, count
from gradlab.stats.equivalence import ALPHA
from gradlab.streams import Purpose, stream
from gradlab.study.plan import Plan
from gradlab.study.raters import RaterModel
from gradlab.study.rates import win_rate

EFFECTS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2)
COLUMNS = (
    "effect", "raters", "items_per_rater", "raters_per_item", "answers", "power", "power_low", "power_high",
    "beyond_margin", "equivalent", "half_width", "coverage", "simulations",
)  # fmt: skip


@dataclass(frozen=True)
class Power:
    """Power and precision over effects and designs.

    frame  a row per effect and design, with ``COLUMNS``: ``effect`` is the true win-rate − ½; ``answers`` that raters
           give in all, repeats and checks included; ``power`` is the share of simulations whose verdict is that b is
           preferred (two-sided test at 5%), with its 95% interval from the simulations; ``beyond_margin`` that of
           those whose interval lies beyond the margin; ``equivalent`` that of those judged equal within the margin;
           ``half_width`` the mean half-width of the interval; ``coverage`` the share of intervals with the truth.
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
        rows = self.frame[np.isclose(self.frame["effect"], effect)]
        if rows.empty:
            known = ", ".join(f"{value:g}" for value in self.frame["effect"].unique())
            raise ValueError(f"effect must be one that was simulated, {known}; got {effect:g}")
        enough = rows[rows["power_low"] >= target].sort_values("answers", kind="stable")
        return None if enough.empty else _with_design(self.plan, int(enough.iloc[0]["raters"]),
                                                      int(enough.iloc[0]["items_per_rater"]))  # fmt: skip


def power(
    plan: Plan, *, effects: Sequence[float] = EFFECTS, raters: Sequence[int] = (), items: Sequence[int] = (),
    simulations: int = 400, model: RaterModel | None = None, seed: int = 0,
) -> Power:  # fmt: skip
    """Estimate power and precision of a plan's primary question.

    effects  true win-rates − ½, in (−½, ½). raters, items: numbers of raters, and of items per rater, that are tried;
             left out: the plan's.
    model    the raters; left out: ``RaterModel()``, which is a guess, so try others.
    ValueError in one line for what cannot be simulated.
    """
    from gradlab.stats.agreement import wilson_interval

    model = model or RaterModel()
    count("simulations", simulations, 1)
    rows = []
    for number in raters or [len(plan.raters)]:
        for each in items or [plan.design.items_per_rater]:
            tried = _with_design(plan, count("raters", number, 1), count("items", each, 1))
            for effect in effects:
                between("effects", effect, -0.5, 0.5, open_low=True, open_high=True)
                draw = stream(seed, Purpose.POWER, round((effect + 0.5) * 1e6), number, each)
                outcome = _simulated(tried, effect, simulations, model, draw)
                low, high = wilson_interval(outcome["power"], simulations)
                rows.append({
                    "effect": effect, "raters": number, "items_per_rater": each,
                    "raters_per_item": tried.design.raters_per_item, "answers": answers_of(tried), **outcome,
                    "power_low": low, "power_high": high, "simulations": simulations,
                })  # fmt: skip
    return Power(plan, model, pd.DataFrame(rows)[list(COLUMNS)])


def answers_of(plan: Plan) -> int:
    """Return how many answers a plan asks for, repeats, attention checks and all goals included."""
    design = plan.design
    each = design.items_per_rater + round(design.repeats * design.items_per_rater) + design.attention
    return each * len(plan.raters) * len(plan.goals)


def _with_design(plan: Plan, raters: int, items: int) -> Plan:
    """Return the plan with so many raters, who rate so many items each."""
    names = plan.raters if raters == len(plan.raters) else tuple(f"rater {number + 1}" for number in range(raters))
    each = min(plan.design.raters_per_item, raters)
    design = dataclasses.replace(plan.design, items_per_rater=items, raters_per_item=each)
    return dataclasses.replace(plan, raters=names, design=design)


def _simulated(
    plan: Plan, effect: float, simulations: int, model: RaterModel, draw: np.random.Generator
) -> dict[str, float]:
    """Return the shares of simulations that end one way or another, at one effect."""
    rater, prompt = _crossed(plan)
    truth, worth = 0.5 + effect, model.worth_of(0.5 + effect)
    margin, population = plan.primary.margin, plan.analysis.population
    outcomes = []
    for _ in range(simulations):
        felt = worth + model.raters * draw.normal(size=len(plan.raters))[rater]
        felt = felt + model.prompts * draw.normal(size=prompt.max() + 1)[prompt]
        felt = felt + model.position * (draw.integers(2, size=len(felt)) - 0.5)
        score = model.scores(felt, draw)
        careless = (draw.random(len(plan.raters)) < model.careless)[rater]
        random = careless | (draw.random(len(felt)) < model.fatigue * draw.random(len(felt)))
        score = np.where(random, draw.integers(2, size=len(felt)), score)
        rate = win_rate(pd.DataFrame({"rater": rater, "prompt": prompt, "score": score}), population)
        mean = rate.beyond_half
        outcomes.append({
            "power": rate.rate > 0.5 and float(mean.p_differs()) <= ALPHA,
            "beyond_margin": rate.low > 0.5 + margin,
            "equivalent": float(mean.p_equivalent(margin)) <= ALPHA,
            "half_width": (rate.high - rate.low) / 2,
            "coverage": rate.low <= truth <= rate.high,
        })  # fmt: skip
    return {name: float(np.mean([outcome[name] for outcome in outcomes])) for name in outcomes[0]}


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
