"""Simulated raters of known error: noise, ties, leanings to a side and to length, fatigue, carelessness."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from gradlab.checks import between, keep_plain
from gradlab.streams import Purpose, stream
from gradlab.study.answers import answer_line, longer
from gradlab.study.assignment import GOOD, Task, assign
from gradlab.study.frozen import Study
from gradlab.study.items import StudyItem

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(41)  # of a standard normal's expectation
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_FARTHEST = 30.0  # log odds between which a worth is looked for


@dataclass(frozen=True, kw_only=True)
class RaterModel:
    """The errors of simulated raters; all leanings are log odds, to which a rater adds logistic noise. Source: ours.

    What a rater feels for b over a is worth + leaning of the rater + of the prompt + side + length + noise; between
    −``tie`` and ``tie`` the answer is a tie.
    """

    tie: float = 0.3
    """Half the width of the band of ties."""
    raters: float = 0.3
    """Standard deviation between raters in how much they prefer b."""
    prompts: float = 1.0
    """Standard deviation between prompts in how much better b is."""
    position: float = 0.0
    """Leaning to the left side."""
    length: float = 0.0
    """Leaning per unit of log(words of b/words of a)."""
    careless: float = 0.0
    """Share of the raters who answer at random, attention checks too."""
    fatigue: float = 0.0
    """Share of the answers that a careful rater gives at random at the end of the list; at its beginning none."""

    def __post_init__(self) -> None:
        for name in ("tie", "raters", "prompts"):
            between(name, getattr(self, name), 0)
        for name in ("position", "length"):
            between(name, getattr(self, name), -_FARTHEST, _FARTHEST)
        for name in ("careless", "fatigue"):
            between(name, getattr(self, name), 0, 1)
        keep_plain(self, **{name: float(value) for name, value in vars(self).items()})

    def chances(self, worth: float, more: float = 0.0) -> tuple[float, float, float]:
        """Return the chances that careful raters prefer b, call it a tie, and prefer a; see ``expected``."""
        spread = math.hypot(self.raters, self.prompts) * _NODES
        felt = worth + self.length * more + spread[:, None] + self.position * np.array([0.5, -0.5])
        for_b, for_a = (float(_WEIGHTS @ expit(sign * felt - self.tie).mean(1)) for sign in (1, -1))
        return for_b, max(1 - for_b - for_a, 0.0), for_a

    def expected(self, worth: float, more: float = 0.0) -> float:
        """Return the expected answer (ties ½) of careful raters, over raters, prompts and both sides.

        worth  log odds by which b is better in the mean. more: log(words of b/words of a).
        """
        for_b, _, for_a = self.chances(worth, more)
        return 0.5 + (for_b - for_a) / 2

    def worth_of(self, rate: float) -> float:
        """Return the worth at which ``expected`` is this rate, in (0, 1); ValueError where there is none."""
        between("rate", rate, 0, 1, open_low=True, open_high=True)
        low, high = self.expected(-_FARTHEST), self.expected(_FARTHEST)
        if not low < rate < high:
            raise ValueError(f"rate must lie between {low:.3g} and {high:.3g} for raters of this kind, got {rate:g}")
        return float(brentq(lambda worth: self.expected(worth) - rate, -_FARTHEST, _FARTHEST))

    def scores(self, felt: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Return answers 1, 0 or ½ of raters who feel so much for b, noise still to come."""
        heard = felt + draw.logistic(size=felt.shape)
        return np.where(np.abs(heard) <= self.tie, 0.5, (heard > 0).astype(float)) if self.tie else (heard > 0) * 1.0


@dataclass
class _Panel:
    """The raters of one simulation, with their leanings and those of prompts."""

    study: Study
    model: RaterModel
    worth: Callable[[StudyItem], float]
    draw: np.random.Generator
    leaning: dict[str, float]
    careless: dict[str, bool]
    of_prompt: dict[tuple[str, str], float]

    def choice(self, task: Task, goal: str, progress: float) -> str:
        """Return the choice of a task's rater by a goal, who is so far through the list.

        An attention check touches the primary goal alone: by all others both of its answers are equally good.
        """
        ties = self.study.plan.design.ties
        if self.careless[task.rater] or self.draw.random() < self.model.fatigue * progress:
            return str(self.draw.choice(["left", "right", "tie"] if ties else ["left", "right"]))
        if task.kind == "attention":
            if ties and goal != self.study.plan.primary.goal:
                return "tie"
            return "left" if task.left == GOOD else "right"
        item = self.study.item_of[task.item]
        felt = (
            self.worth(item) + self.leaning[task.rater] + self.of_prompt[item.prompt, item.b]
            + self.model.position * (0.5 if task.left == item.b else -0.5) + self.model.length * longer(item)
        )  # fmt: skip
        heard = felt + self.draw.logistic()
        if ties and abs(heard) <= self.model.tie:
            return "tie"
        return "left" if (heard > 0) == (task.left == item.b) else "right"


def people(raters: Sequence[str], model: RaterModel, seed: int = 0) -> tuple[dict[str, float], dict[str, bool]]:
    """Return each rater's leaning to b, in log odds, and whether the rater is careless, as ``simulated`` draws them."""
    return _people(raters, model, stream(seed, Purpose.SIMULATED_RATERS))


def _people(
    raters: Sequence[str], model: RaterModel, draw: np.random.Generator
) -> tuple[dict[str, float], dict[str, bool]]:
    leaning = {rater: model.raters * draw.normal() for rater in raters}
    return leaning, {rater: bool(draw.random() < model.careless) for rater in raters}


def simulated(
    study: Study, worth: Mapping[str, float] | Callable[[StudyItem], float], model: RaterModel | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the lines of answers by which simulated raters answer all tasks of a study; judges answer nothing.

    worth  of each system, in log odds; or a function of an item that gives how much better b is there.
    """
    model, plan = model or RaterModel(), study.plan
    draw = stream(seed, Purpose.SIMULATED_RATERS)
    table = None if callable(worth) else dict(worth)
    missing = [] if table is None else [system for system in plan.systems if system not in table]
    if missing:
        raise ValueError(f"worth must give a number for each system, and lacks {missing[0]}")
    panel = _Panel(
        study, model, worth if table is None else (lambda item: table[item.b] - table[item.a]), draw,  # type: ignore[arg-type]
        *_people(plan.raters, model, draw),
        {(item.prompt, item.b): model.prompts * draw.normal() for item in study.items},
    )  # fmt: skip
    lists = assign(study)
    return [
        answer_line(study, task, goal.name, panel.choice(task, goal.name, task.place / len(lists[rater])), seconds=8.0)
        for rater in plan.raters for task in lists[rater] for goal in plan.goals
    ]  # fmt: skip
