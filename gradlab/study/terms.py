"""Terms that move answers besides the system: side, length, place in the list; and the win-rate at equal length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from gradlab.study.plan import Population
from gradlab.study.rates import NO_SPREAD, Rate, estimated, win_rate

_STEPS = 50  # of Newton's method, which needs five or so
_STEEPEST = 12.0  # a slope of log odds beyond which responses' lengths tell the answers apart by themselves


@dataclass(frozen=True)
class EqualLength:
    """The win-rate of b over a if both were equally long, by a logit of the answers.

    rate      at equal length and without a side; NaN where the answers do not tell it.
    slope     change of the log odds per unit of log(words of b/words of a): positive where raters prefer the longer.
    low, high its 95% interval.
    beyond    whether one system was longer in every answer, so that equal length lies beyond what was rated.
    """

    rate: Rate
    slope: float
    low: float
    high: float
    beyond: bool = False

    @property
    def doubling(self) -> float:
        """Return by how much a twice as long response of equal worth would be preferred: its win-rate − ½."""
        return float(expit(self.slope * math.log(2)) - 0.5)


def left_rate(answers: pd.DataFrame, population: Population = "like these") -> Rate:
    """Return how often the left side is preferred, ties ½; ½ without a bias, since the plan draws the sides."""
    score = answers["score"].where(answers["b_left"], 1 - answers["score"])
    return win_rate(answers.assign(score=score), population)


@dataclass(frozen=True)
class Drift:
    """The change of answers along raters' lists: the mean answer at the beginning and at the end, by a straight line.

    low, high  the 95% interval of end − start.
    """

    start: float
    end: float
    low: float
    high: float


def drift(answers: pd.DataFrame, population: Population = "like these") -> Drift:
    """Return how the answers on one pair of systems and goal change along the lists; NaN where it cannot be told.

    answers  rows with ``rater``, ``prompt``, ``place`` and ``score``.

    The line is fitted by least squares to the answers over place/(the rater's last place). Source: ours.
    """
    kept = answers[answers["score"].notna()]
    score, place = kept["score"].to_numpy(float), kept["place"].to_numpy(float)
    if len(kept) < 4 or np.ptp(score) == 0 or np.ptp(place) == 0:
        return Drift(math.nan, math.nan, math.nan, math.nan)
    progress = place / np.maximum(kept.groupby("rater")["place"].transform("max").to_numpy(float), 1)
    off = progress - progress.mean()
    weight = off / (off @ off)
    change = float(weight @ score)
    start = float(score.mean() - change * progress.mean())
    rater, prompt = (pd.factorize(kept[name])[0] for name in ("rater", "prompt"))
    spread = estimated(0.5, score, weight, rater, prompt, raters_vary=population == "like these")
    if spread.error <= NO_SPREAD:
        return Drift(math.nan, math.nan, math.nan, math.nan)
    low, high = (float(end) for end in spread.beyond_half.interval())
    return Drift(start, start + change, change + low, change + high)


def equal_length(answers: pd.DataFrame, population: Population = "like these") -> EqualLength:
    """Return the win-rate at equal length of one pair of systems and goal.

    answers  rows with ``rater``, ``prompt``, ``score``, ``b_left`` and ``longer``.

    The mean answer (ties ½) is modelled as σ(α + γ (½ where b is left, else −½) + δ log(words of b/words of a)), each
    prompt counting once; the rate is σ(α), and its interval is ``win_rate``'s for the sum to which it is equal to first
    order. A word is what white space parts. Source: ours; after length-controlled win-rates (Dubois et al. 2024, arXiv
    2404.04475), with the length itself in place of its squashed difference.
    """
    kept = answers[answers["score"].notna()]
    rater, _ = pd.factorize(kept["rater"])
    prompt, prompts = pd.factorize(kept["prompt"])
    score, longer = kept["score"].to_numpy(float), kept["longer"].to_numpy(float)
    unknown = Rate(math.nan, math.nan, math.nan, math.nan, math.nan, len(kept), len(prompts), len(np.unique(rater)))
    if len(kept) < 4 or np.ptp(score) == 0 or np.ptp(longer) == 0:
        return EqualLength(unknown, math.nan, math.nan, math.nan)
    weight = 1.0 / (len(prompts) * np.bincount(prompt)[prompt])
    design = np.column_stack([np.ones(len(kept)), kept["b_left"].to_numpy(float) - 0.5, longer])
    if np.ptp(design[:, 1]) == 0:
        design = design[:, [0, 2]]
    solved = _logit(design, score, weight)
    if solved is None:
        return EqualLength(unknown, math.nan, math.nan, math.nan)
    coefficients, inverse = solved
    rest = score - expit(design @ coefficients)
    raters_vary = population == "like these"
    sums = design @ inverse  # (n, k): of weight · rest, the first-order change of each coefficient
    middle = float(expit(coefficients[0]))
    rate = estimated(middle, rest, weight * sums[:, 0] * middle * (1 - middle), rater, prompt, raters_vary=raters_vary)
    slope = estimated(0.5, rest, weight * sums[:, -1], rater, prompt, raters_vary=raters_vary)
    if min(rate.error, slope.error) <= NO_SPREAD:
        return EqualLength(unknown, math.nan, math.nan, math.nan)
    low, high = (float(end) for end in slope.beyond_half.interval())
    steep, beyond = float(coefficients[-1]), bool(longer.min() > 0 or longer.max() < 0)
    return EqualLength(rate, steep, steep + low, steep + high, beyond)


def _logit(design: np.ndarray, score: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the coefficients of a logit, and the inverse of its information; None where they are not finite."""
    coefficients = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        mean = expit(design @ coefficients)
        information = (design * (weight * mean * (1 - mean))[:, None]).T @ design
        try:
            inverse = np.linalg.inv(information)
        except np.linalg.LinAlgError:
            return None
        step = inverse @ (design.T @ (weight * (score - mean)))
        coefficients = coefficients + step
        if np.abs(coefficients).max() > _STEEPEST:
            return None
        if np.abs(step).max() < 1e-10:
            return coefficients, inverse
    return None
